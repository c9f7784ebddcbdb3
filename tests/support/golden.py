"""Our detectors against the official codes' golden vectors, for the tests and the report.

tests/data/golden/README.md says where the vectors come from.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from fastdetr_mmdet.checkpoints import convert_state_dict
from fastdetr_mmdet.targets import Targets
from support.golden_weights import probe_vector, state_dict_from_manifest, weights_sha256
from support.models import total
from support.tolerances import GOLDEN, GRADIENT_FLOOR

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data" / "golden"
OFFICIAL_LOSSES = dict(loss_cls="loss_ce", loss_bbox="loss_bbox", loss_iou="loss_giou")

CASES = {
    "conditional_r50": "conditional_detr/conditional-detr_r50_8xb2-50e_coco.py",
    "conditional_r50_dc5": "conditional_detr/conditional-detr_r50-dc5_8xb1-50e_coco.py",
    "conditional_r101": "conditional_detr/conditional-detr_r101_8xb2-50e_coco.py",
}


@dataclass(frozen=True)
class GoldenCase:
    """One recorded run of an official code."""

    name: str
    method: str = "conditional_detr"

    @cached_property
    def manifest(self) -> dict:
        """Seeds, sizes and the official parameters' names."""
        return self._json("manifest")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """Inputs and outputs."""
        arrays = {}
        for name in ("inputs", "outputs"):
            with np.load(DATA / self.name / f"{name}.npz") as stored:
                arrays.update(stored)
        return arrays

    def _json(self, name: str) -> dict:
        return json.loads((DATA / self.name / f"{name}.json").read_text())

    @cached_property
    def official_weights(self) -> dict[str, np.ndarray]:
        """The official model's state dict, made anew from its names."""
        return state_dict_from_manifest(self.manifest)

    def build(self) -> nn.Module:
        """The shipped config's detector with the converted weights."""
        config = Config.fromfile(ROOT / "configs" / CASES[self.name]).model
        config.num_queries = self.manifest["num_queries"]
        config.bbox_head.num_classes = 91
        config.backbone.init_cfg = None
        config.transformer.encoder.dropout = 0.0
        config.transformer.decoder.dropout = 0.0
        model = MODELS.build(config)
        weights = {key: torch.from_numpy(array) for key, array in self.official_weights.items()}
        model.load_state_dict(convert_state_dict(weights, self.method), strict=True)
        return model

    def batch(self, images=(0, 1), with_objects=(0, 1)) -> tuple[Tensor, list[DetDataSample]]:
        """Some of the images, padded to the largest; objects only where asked for."""
        mean, std = (torch.tensor(self.manifest[key]).view(3, 1, 1) for key in ("mean", "std"))
        sizes = [tuple(self.manifest["image_sizes_hw"][image]) for image in images]
        batch_size = tuple(max(side) for side in zip(*sizes, strict=True))
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
    """The worst error of each quantity that ``GOLDEN`` has a tolerance for.

    Raises:
        AssertionError: where no tolerance applies: digests, matches and names that are not equal.
    """
    assert weights_sha256(case.official_weights) == case.manifest["weights_sha256"]
    model = case.build().train()
    inputs, samples = case.batch()
    with torch.no_grad():
        errors = _features(model, case, inputs, samples)
        errors |= _outputs(model, case, inputs, samples)
        errors |= _results(model.eval(), case, inputs, samples)
        model.train()
        for variant, with_objects in (("loss_empty", (0,)), ("loss_allempty", ())):
            errors[variant] = _losses(model.loss(*case.batch((0, 1), with_objects)), case, variant)
    losses = model.loss(inputs, samples)
    errors["losses"] = _losses(losses, case, "loss")
    total(losses).backward()
    errors["losses"] = max(errors["losses"], errors.pop("loss_empty"), errors.pop("loss_allempty"))
    return errors | _gradients(model, case)


def _worst(ours: Tensor, golden: np.ndarray) -> float:
    assert tuple(ours.shape) == golden.shape, (tuple(ours.shape), golden.shape)
    return float(np.abs(ours.detach().numpy() - golden).max())


def _features(model, case, inputs, samples) -> dict[str, float]:
    golden = case.arrays
    memory = model.make_memory(model.extract_feat(inputs), inputs, samples)
    assert torch.equal(memory.padding_mask, torch.from_numpy(golden["mask_l0"]).flatten(1))
    valid = ~memory.padding_mask
    encoded = model.transformer.encoder(memory)
    queries, _ = model.transformer.queries(encoded)
    decoded = model.transformer.decoder(queries, encoded)
    return {
        "pos": _worst(memory.pos[..., ::27], golden["pos_l0"]),
        "src": _worst(memory.tokens[..., ::27], golden["src_l0"]),
        "memory": _worst(encoded.tokens[..., ::9][valid], golden["memory_l0"][valid.numpy()]),
        "references": _worst(queries.reference, golden["reference_points"]),
        "hidden states": _worst(decoded.hidden_states[..., ::9], golden["hs"]),
    }


def _outputs(model, case, inputs, samples) -> dict[str, float]:
    logits, boxes = model._forward(inputs, samples)
    _matches(model.bbox_head.assigner, logits, boxes, samples, case)
    solo_logits, solo_boxes = model._forward(*case.batch((1,)))
    golden = case.arrays
    return {
        "logits": max(
            _worst(logits, golden["pred_logits"]), _worst(solo_logits, golden["solo/pred_logits"])
        ),
        "boxes": max(
            _worst(boxes, golden["pred_boxes"]), _worst(solo_boxes, golden["solo/pred_boxes"])
        ),
    }


def _matches(matcher, logits, boxes, samples, case) -> None:
    """Every pair of every layer and image is the official one."""
    num_layers, bs, num_queries, _ = logits.shape
    matches = matcher.match(logits, boxes, Targets.from_data_samples(samples, logits.device))
    first_object = [0, len(samples[0].gt_instances)]
    golden = {
        ((layer * bs + image) * num_queries + query, first_object[image] + object_)
        for layer in range(num_layers)
        for image in range(bs)
        for query, object_ in case.arrays[f"match_l{layer}_b{image}"].T.tolist()
    }
    ours = zip(matches.query_index.tolist(), matches.object_index.tolist(), strict=True)
    assert set(ours) == golden


def _results(model, case, inputs, samples) -> dict[str, float]:
    """Sorted scores; labels and boxes of those whose rank rounding cannot change."""
    score_error = box_error = 0.0
    for image, sample in enumerate(model.predict(inputs, samples)):
        ours = sample.pred_instances
        scores, labels, boxes = (
            case.arrays[f"results_{image}_{key}"] for key in ("scores", "labels", "boxes")
        )
        score_error = max(score_error, _worst(ours.scores, scores))
        gaps = np.abs(np.diff(scores, prepend=np.inf, append=-np.inf))
        certain = np.minimum(gaps[:-1], gaps[1:]) > 2e-5
        assert certain.mean() > 0.5
        h, w = sample.img_shape
        clipped = boxes.clip(0, np.array([w, h, w, h], dtype=np.float32))  # mmdet's convention
        assert np.array_equal(ours.labels.numpy()[certain], labels[certain])
        box_error = max(box_error, _worst(ours.bboxes[certain], clipped[certain]))
    return {"scores": score_error, "result boxes": box_error}


def _losses(losses: dict[str, Tensor], case: GoldenCase, variant: str) -> float:
    """Worst relative error of any term of any layer, and of their sum."""
    golden = case.arrays
    losses = {name: value.detach() for name, value in losses.items()}
    errors = [abs(float(total(losses)) / float(golden[f"{variant}_total"]) - 1)]
    names = set()
    for name, value in losses.items():
        layer, _, term = name.rpartition(".")
        official = OFFICIAL_LOSSES[term] + layer.replace("d", "_")
        names.add(official)
        expected = (
            float(golden[f"{variant}/{official}"]) * case.manifest["loss_weight_dict"][official]
        )
        errors.append(abs(float(value) - expected) / max(abs(expected), 1e-6))
    assert names == set(case.manifest["loss_weight_dict"])
    return max(errors)


def _gradients(model: nn.Module, case: GoldenCase) -> dict[str, float]:
    """Worst error of any parameter's gradient: its norm, and its part along a random direction."""
    norms, projections = case._json("grad_norms"), case._json("grad_proj")
    parameters = {k: p for k, p in model.named_parameters() if p.requires_grad}
    ours = {name: next(iter(convert_state_dict({name: None}, case.method))) for name in norms}
    assert set(ours.values()) == set(parameters)
    floor = GRADIENT_FLOOR * max(norms.values())
    norm_error = projection_error = 0.0
    for name, norm in norms.items():
        gradient = parameters[ours[name]].grad
        assert gradient is not None, f"{ours[name]} has no gradient"
        scale = max(norm, floor)
        probe = probe_vector(name, gradient.shape, case.manifest["case_seed"])
        projection = float((gradient.double().numpy() * probe).sum())
        norm_error = max(norm_error, abs(float(gradient.norm()) - norm) / scale)
        projection_error = max(projection_error, abs(projection - projections[name]) / scale)
    return {"gradient norms": norm_error, "gradient projections": projection_error}


def too_large(errors: dict[str, float]) -> list[str]:
    """What exceeds its tolerance, as sentences; a missing or NaN error does too."""
    assert set(errors) == set(GOLDEN)
    return [
        f"{name}: {errors[name]:.2e} exceeds {tolerance:.0e}"
        for name, tolerance in GOLDEN.items()
        if not errors[name] <= tolerance
    ]
