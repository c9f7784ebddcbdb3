"""Compare detectors with the official codes' golden vectors, for tests and the report.

Source of the vectors: tests/data/golden/README.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from fastdetr_mmdet.checkpoints import convert_state_dict
from fastdetr_mmdet.structures.targets import Targets
from support.golden_weights import (
    canonical_keys,
    probe_vector,
    state_dict_from_manifest,
    weights_sha256,
)
from support.models import total
from support.tolerances import GOLDEN, GRADIENT_FLOOR

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "golden"
OFFICIAL_LOSSES = dict(loss_cls="loss_ce", loss_bbox="loss_bbox", loss_iou="loss_giou")


@dataclass(frozen=True)
class Recipe:
    """A case's shipped config and changes by its official command line."""

    config: str
    overrides: dict = field(default_factory=dict)


def _smca(scale_type: str) -> Recipe:
    prior = "transformer.decoder.spatial_prior.scale_type"
    return Recipe("smca_detr/smca-detr_r50_8xb2-50e_coco.py", {prior: scale_type})


CASES = {
    "deformable_base": Recipe("deformable_detr/deformable-detr_r50_16xb2-50e_coco.py"),
    "deformable_refine": Recipe("deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py"),
    "deformable_two_stage": Recipe(
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py"
    ),
    "deformable_single_scale": Recipe(
        "deformable_detr/deformable-detr-single-scale_r50_16xb2-50e_coco.py"
    ),
    "deformable_single_scale_dc5": Recipe(
        "deformable_detr/deformable-detr-single-scale_r50-dc5_16xb2-50e_coco.py"
    ),
    "conditional_r50": Recipe("conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"),
    "conditional_r50_dc5": Recipe("conditional_detr/conditional-detr_r50-dc5_8xb1-50e_coco.py"),
    "conditional_r101": Recipe("conditional_detr/conditional-detr_r101_8xb2-50e_coco.py"),
    "smca_ss_type1": _smca("fixed"),
    "smca_ss_type2": _smca("single"),
    "smca_ss_type3": Recipe("smca_detr/smca-detr_r50_8xb2-50e_coco.py"),
    "smca_ss_type4": _smca("correlated"),
    "smca_ms_conv": Recipe("smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco.py"),
    "smca_ms_conv_later": Recipe(
        "smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco.py",
        {
            "transformer.encoder.num_layers": 5,
            "transformer.encoder.kernel_size": 5,
            "transformer.encoder.share_cross_level": False,
        },
    ),
    "sam_r50_e12": Recipe("sam_detr/sam-detr_r50_4xb4-12e_coco.py"),
    "sam_r50_e50": Recipe("sam_detr/sam-detr_r50_4xb4-50e_coco.py"),
    "sam_r50_smca_e12": Recipe("sam_detr/sam-detr-smca_r50_4xb4-12e_coco.py"),
    "sam_r50_smca_e50": Recipe("sam_detr/sam-detr-smca_r50_4xb4-50e_coco.py"),
    "sam_dc5_e50": Recipe("sam_detr/sam-detr_r50-dc5_8xb1-50e_coco.py"),
    "sam_dc5_smca_e50": Recipe("sam_detr/sam-detr-smca_r50-dc5_8xb1-50e_coco.py"),
    "sam_ms_e50": Recipe("sam_detr/sam-detr-ms_r50_8xb2-50e_coco.py"),
    "sam_ms_smca_e50": Recipe("sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco.py"),
}


@dataclass(frozen=True)
class GoldenCase:
    """One recorded run of an official code."""

    name: str

    @property
    def method(self) -> str:
        """Method of ``convert_state_dict``."""
        return self.name.split("_")[0] + "_detr"

    @property
    def num_classes(self) -> int:
        """Logits of the official code: COCO's category ids; SMCA has one more."""
        return 92 if self.method == "smca_detr" else 91

    @property
    def images(self) -> tuple[int, ...]:
        """Indices of the recorded images."""
        return tuple(range(len(self.manifest["image_sizes_hw"])))

    @cached_property
    def manifest(self) -> dict:
        """Seeds, sizes and the official parameters' names."""
        return self._json("manifest")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs and outputs."""
        arrays = {}
        for name in ("inputs", "maps", "outputs"):
            with np.load(DATA / self.name / f"{name}.npz") as stored:
                arrays.update(stored)
        return arrays

    def _json(self, name: str) -> dict:
        return json.loads((DATA / self.name / f"{name}.json").read_text())

    @cached_property
    def official_weights(self) -> dict[str, np.ndarray]:
        """The official model's state dict, drawn from its names."""
        return state_dict_from_manifest(self.manifest)

    @property
    def model_config(self) -> ConfigDict:
        """The shipped config's model with the official classes, and without pretrained weights."""
        recipe = CASES[self.name]
        config = Config.fromfile(ROOT / "configs" / recipe.config)
        config.merge_from_dict({f"model.{key}": value for key, value in recipe.overrides.items()})
        config.model.bbox_head.num_classes = self.num_classes
        config.model.backbone.init_cfg = None
        return config.model

    def convert(self, official: dict) -> dict[str, Tensor]:
        """Convert arrays with official names to tensors with this package's names."""
        tensors = {key: torch.from_numpy(array) for key, array in official.items()}
        return convert_state_dict(tensors, self.method)

    def build(self) -> nn.Module:
        """The shipped config's detector with the converted weights."""
        config = self.model_config
        config.num_queries = self.manifest["num_queries"]
        config.transformer.encoder.dropout = 0.0
        config.transformer.decoder.dropout = 0.0
        if config.test_cfg.max_per_img == 300:  # the official SMCA code keeps one per query
            config.test_cfg.max_per_img = config.num_queries
        model = MODELS.build(config)
        model.load_state_dict(self.convert(self.official_weights), strict=True)
        return model

    def batch(
        self, images=None, with_objects=(0, 1), batch_size=None
    ) -> tuple[Tensor, list[DetDataSample]]:
        """Batch of some or all images, padded to the largest or a size; objects are optional."""
        images = self.images if images is None else images
        mean, std = (torch.tensor(self.manifest[key]).view(3, 1, 1) for key in ("mean", "std"))
        sizes = [tuple(self.manifest["image_sizes_hw"][image]) for image in images]
        batch_size = tuple(batch_size or (max(side) for side in zip(*sizes, strict=True)))
        inputs = torch.zeros(len(sizes), 3, *batch_size)
        samples = []
        for index, (image, (h, w)) in enumerate(zip(images, sizes, strict=True)):
            pixels = torch.from_numpy(self.arrays[f"image_{image}"]).permute(2, 0, 1)
            inputs[index, :, :h, :w] = (pixels.float() / 255 - mean) / std
            objects = InstanceData(
                bboxes=torch.from_numpy(self.arrays[f"target_{image}_boxes_abs"]),
                labels=torch.from_numpy(self.arrays[f"target_{image}_labels"]),
            )
            sample = DetDataSample(
                metainfo=dict(
                    img_id=image,
                    img_shape=(h, w),
                    ori_shape=(h, w),
                    scale_factor=(1.0, 1.0),
                    batch_input_shape=batch_size,
                )
            )
            sample.gt_instances = objects if image in with_objects else objects[:0]
            samples.append(sample)
        return inputs, samples


def measure(case: GoldenCase) -> dict[str, float]:
    """Measure the worst error of each quantity in ``GOLDEN``.

    Raises:
        AssertionError: if digests, matches or names are not equal.
    """
    assert weights_sha256(case.official_weights) == case.manifest["weights_sha256"]
    model = case.build().train()
    inputs, samples = case.batch()
    errors = Errors()
    with torch.no_grad(), _backbone_once(model):
        _features(errors, model, case, inputs, samples)
        _outputs(errors, model, case, inputs, samples)
        _results(errors, model.eval(), case, inputs, samples)
        model.train()
        empty = {"loss_empty": (0,), "loss_allempty": ()}
        empty_losses = [
            _losses(model.loss(inputs, case.batch(None, with_objects)[1]), case, variant)
            for variant, with_objects in empty.items()
            if f"{variant}_total" in case.arrays
        ]
        assert len(empty_losses) == len(case.images)  # one image: only all empty
    losses = model.loss(inputs, samples)
    errors["losses"] = max(_losses(losses, case, "loss"), *empty_losses)
    total(losses).backward()
    return errors | _gradients(model, case)


@contextmanager
def _backbone_once(model: nn.Module) -> Iterator[None]:
    """Cache feature maps per input, because the backbone takes most of the time."""
    found: dict[int, tuple] = {}
    extract = model.extract_feat

    def once(inputs: Tensor) -> tuple[Tensor, ...]:
        if id(inputs) not in found:
            found[id(inputs)] = (inputs, extract(inputs))  # inputs: keeps the id in use
        return found[id(inputs)][1]

    model.extract_feat = once
    yield
    del model.extract_feat


class Errors(dict[str, float]):
    """Worst error of each quantity; NaN stays NaN."""

    def note(self, name: str, ours: Tensor, golden: np.ndarray) -> None:
        assert tuple(ours.shape) == golden.shape, (tuple(ours.shape), golden.shape)
        error = np.abs(ours.detach().numpy() - golden).max()
        self[name] = float(np.maximum(self.get(name, 0.0), error))


def _features(errors, model, case, inputs, samples) -> None:
    golden = case.arrays
    transformer = model.transformer
    memory = model.make_memory(model.extract_feat(inputs), inputs, samples)
    embedded = transformer.embed_levels(memory)
    encoded = unreduced = transformer.encoder(embedded)
    if "ms_conv" in case.name:  # recorded before halving the first level
        unreduced = embedded
        for layer in transformer.encoder.layers:
            unreduced = layer(unreduced)
    for index in range(memory.num_levels):
        level, after = memory.level(index), unreduced.level(index)
        valid = torch.from_numpy(~golden[f"mask_l{index}"]).flatten(1)
        assert torch.equal(
            valid, torch.ones_like(valid) if level.padding_mask is None else ~level.padding_mask
        )
        errors.note("pos", level.pos[..., ::27], golden[f"pos_l{index}"])
        errors.note("src", level.tokens[..., ::27], golden[f"src_l{index}"])
        if case.method == "sam_detr":  # its aligner reads padding
            valid = torch.ones_like(valid)
        expected = golden[f"memory_l{index}"][valid.numpy()]
        errors.note("memory", after.tokens[..., ::9][valid], expected)
    branches, proposal_branches = model.bbox_head.box_branches, model.bbox_head.proposal_branches
    queries, proposals = transformer.queries(encoded, proposal_branches)
    decoded = transformer.decoder(queries, encoded, branches)
    _references(errors, decoded, golden)
    errors.note("hidden states", decoded.hidden_states[..., ::9], golden["hs"])
    if proposals is not None:
        errors.note("references", proposals.boxes, golden["enc_boxes"])
        best = proposals.cls_scores[..., 0].topk(len(golden["enc_topk"][0])).indices
        assert np.array_equal(best.numpy(), golden["enc_topk"])
        as_objects = [sample.new() for sample in samples]  # all of class 0
        for sample, given in zip(as_objects, samples, strict=True):
            labels = torch.zeros_like(given.gt_instances.labels)
            sample.gt_instances = InstanceData(bboxes=given.gt_instances.bboxes, labels=labels)
        scores, proposed = proposals.cls_scores[None], proposals.boxes[None]
        _matches(model.bbox_head.assigner, scores, proposed, as_objects, case, ["enc"])
        errors.note("hidden states", proposals.cls_scores[..., ::18], golden["enc_logits"])


def _references(errors, decoded, golden) -> None:
    """Errors of the references that enter each layer; official codes record them differently."""
    ours = [logits.sigmoid() for logits in decoded.reference_logits]
    if "reference_boxes" in golden:
        expected = list(golden["reference_boxes"])
    elif "init_reference" in golden:
        expected = [golden["init_reference"], *golden["inter_references"][:-1]]
    elif "points" in golden:  # before the sigmoid; one per layer with several levels
        ours = [decoded.reference_logits[0]]
        expected = [golden["points"].reshape(-1, *ours[0].shape)[0]]
    else:
        expected = [golden["reference_points"]] * len(ours)
    for pair in zip(ours, expected, strict=True):
        errors.note("references", *pair)


def _outputs(errors, model, case, inputs, samples) -> None:
    golden = case.arrays
    logits, boxes = model._forward(inputs, samples)
    _matches(model.bbox_head.assigner, logits, boxes, samples, case)
    errors.note("logits", logits, golden["pred_logits"])
    errors.note("boxes", boxes, golden["pred_boxes"])
    if len(case.images) > 1:
        variant, batch = "solo", case.batch((1,))
    else:
        variant, batch = "padded", case.batch(batch_size=case.manifest["padded_to_hw"])
        memory = model.make_memory(model.extract_feat(batch[0]), *batch)
        for index in range(memory.num_levels):
            mask = golden[f"padded/mask_l{index}"]
            assert np.array_equal(memory.level(index).padding_mask.numpy(), mask.reshape(1, -1))
    logits, boxes = model._forward(*batch)
    errors.note("logits", logits, golden[f"{variant}/pred_logits"])
    errors.note("boxes", boxes, golden[f"{variant}/pred_boxes"])


def _matches(matcher, logits, boxes, samples, case, layers=None) -> None:
    """Check that all matches equal the official ones."""
    num_layers, bs, num_queries, _ = logits.shape
    matches = matcher.match(logits, boxes, Targets.from_data_samples(samples, logits.device))
    first_object = np.cumsum([0, *(len(sample.gt_instances) for sample in samples)]).tolist()
    golden = {
        ((layer * bs + image) * num_queries + query, first_object[image] + object_)
        for layer, name in enumerate(layers or [f"l{layer}" for layer in range(num_layers)])
        for image in range(bs)
        for query, object_ in case.arrays[f"match_{name}_b{image}"].T.tolist()
    }
    ours = zip(matches.query_index.tolist(), matches.object_index.tolist(), strict=True)
    assert set(ours) == golden


def _results(errors, model, case, inputs, samples) -> None:
    """Errors of sorted scores, and of labels and boxes whose rank is not affected by rounding."""
    for image, sample in enumerate(model.predict(inputs, samples)):
        ours = sample.pred_instances
        scores, labels, boxes = (
            case.arrays[f"results_{image}_{key}"] for key in ("scores", "labels", "boxes")
        )
        order = np.argsort(-scores, kind="stable")  # SMCA's are unsorted
        scores, labels, boxes = scores[order], labels[order], boxes[order]
        errors.note("scores", ours.scores, scores)
        gaps = np.abs(np.diff(scores, prepend=np.inf, append=-np.inf))
        certain = np.minimum(gaps[:-1], gaps[1:]) > 2e-5
        assert certain.mean() > 0.5
        h, w = sample.img_shape
        clipped = boxes.clip(0, np.array([w, h, w, h], dtype=np.float32))  # mmdet's convention
        assert np.array_equal(ours.labels.numpy()[certain], labels[certain])
        errors.note("result boxes", ours.bboxes[certain], clipped[certain])


def _losses(losses: dict[str, Tensor], case: GoldenCase, variant: str) -> float:
    """Worst relative error of all terms of all layers and of their sum."""
    golden = case.arrays
    losses = {name: value.detach() for name, value in losses.items()}
    errors = [abs(float(total(losses)) / float(golden[f"{variant}_total"]) - 1)]
    names = set()
    for name, value in losses.items():
        layer, _, term = name.rpartition(".")
        suffix = layer.replace("d", "_")
        if term.startswith("enc_"):
            term, suffix = term.removeprefix("enc_"), "_enc"
        official = OFFICIAL_LOSSES[term] + suffix
        names.add(official)
        expected = (
            float(golden[f"{variant}/{official}"]) * case.manifest["loss_weight_dict"][official]
        )
        errors.append(abs(float(value) - expected) / max(abs(expected), 1e-6))
    weighted = case.manifest["loss_weight_dict"]
    assert names == {name for name in weighted if f"{variant}/{name}" in golden}
    return max(errors)


def _gradients(model: nn.Module, case: GoldenCase) -> dict[str, float]:
    """Worst errors of gradients: norms, and projections on random directions.

    A parameter may hold several official ones or a part of one, so two state dicts are converted:
    one with the index of each element's official parameter, one with the random directions.
    """
    norms, projections = case._json("grad_norms"), case._json("grad_proj")
    names = list(norms)
    source = {
        name: np.full(array.shape, -1, np.int32) for name, array in case.official_weights.items()
    }
    probe = {name: np.zeros(array.shape) for name, array in case.official_weights.items()}
    first = canonical_keys(source, case.manifest["alias_groups"])
    for name in source:
        if first[name] in norms:
            source[name][...] = names.index(first[name])
            probe[name] = probe_vector(first[name], source[name].shape, case.manifest["case_seed"])
    source, probe = case.convert(source), case.convert(probe)

    squares, along = torch.zeros(2, len(names), dtype=torch.float64)
    for name, parameter in model.named_parameters():
        from_ = source[name].flatten()
        assert parameter.requires_grad == bool((from_ >= 0).all()), name
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, f"{name} has no gradient"
        gradient = parameter.grad.double().flatten()
        squares.index_add_(0, from_, gradient**2)
        along.index_add_(0, from_, gradient * probe[name].flatten())
    floor = GRADIENT_FLOOR * max(norms.values())
    norm_error = projection_error = 0.0
    for norm, projection, square, ours in zip(
        norms.values(), projections.values(), squares.tolist(), along.tolist(), strict=True
    ):
        scale = max(norm, floor)
        norm_error = max(norm_error, abs(square**0.5 - norm) / scale)
        projection_error = max(projection_error, abs(ours - projection) / scale)
    return {"gradient norms": norm_error, "gradient projections": projection_error}


def too_large(errors: dict[str, float]) -> list[str]:
    """Describe errors above their tolerance, including missing and NaN ones."""
    assert set(errors) == set(GOLDEN)
    return [
        f"{name}: {errors[name]:.2e} exceeds {tolerance:.0e}"
        for name, tolerance in GOLDEN.items()
        if not errors[name] <= tolerance
    ]
