"""Small models of Hugging Face's transformers and this package, and recordings of the former."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from support.dino import draw
from support.models import make_batch
from support.runs import ROOT
from support.small import small_config

RECORDED = ROOT / "tests" / "data" / "hf.npz"
DIMS, HEADS, FFN, QUERIES, CLASSES = 32, 4, 48, 8, 5
SIZES = ((128, 96), (96, 128))
# Name -> this package's config, and entries of transformers' config.json.
CASES: dict[str, tuple[str, dict]] = {
    "deformable": ("deformable_detr/deformable-detr_r50_16xb2-50e_coco", {}),
    "refine": (
        "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco",
        dict(with_box_refine=True),
    ),
    "two_stage": (
        "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
        dict(with_box_refine=True, two_stage=True, two_stage_num_proposals=QUERIES),
    ),
    "single_scale": (
        "deformable_detr/deformable-detr-single-scale_r50_16xb2-50e_coco",
        dict(num_feature_levels=1),
    ),
    "conditional": ("conditional_detr/conditional-detr_r50_8xb2-50e_coco", {}),
    "detr": ("conditional_detr/conditional-detr_r50_8xb2-50e_coco", {}),
}


def small(name: str) -> Config:
    """This package's config with a small model."""
    config = Config.fromfile(ROOT / "configs" / f"{CASES[name][0]}.py")
    model = small_config(CASES[name][0])
    model.num_queries = QUERIES
    for part in (model.transformer.encoder, model.transformer.decoder):
        part.num_heads = HEADS
    if "norm_cfg" in model.neck:
        model.neck.norm_cfg.num_groups = 32  # fixed in transformers
    config.model = model
    return config


def ours(name: str) -> nn.Module:
    """The model of ``small``."""
    return MODELS.build(small(name).model)


def theirs(name: str) -> nn.Module:
    """transformers' model of the same size; needs neither timm nor torchvision."""
    import transformers

    config = CASES[name][1]
    kind = {"conditional": "ConditionalDetr", "detr": "Detr"}.get(name, "DeformableDetr")
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 32, 64],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"][-config.get("num_feature_levels", 3) :],
    )
    whole = getattr(transformers, f"{kind}Config")(
        use_timm_backbone=False,
        backbone_config=backbone,
        backbone=None,
        use_pretrained_backbone=False,
        d_model=DIMS,
        num_queries=QUERIES,
        num_labels=CLASSES,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=FFN,
        decoder_ffn_dim=FFN,
        **config,
    )
    return getattr(transformers, f"{kind}ForObjectDetection")(whole).eval()


def batch() -> tuple[Tensor, list]:
    """Two padded images of numpy's random numbers."""
    inputs, samples = make_batch(SIZES)
    for index, (h, w) in enumerate(SIZES):
        inputs[index, :, :h, :w] = draw(f"image {index}", (3, h, w)) * 100
    return inputs, samples


def compute(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Outputs of this package's model with given weights, as in ``run``."""
    model = ours(name).eval()
    model.load_state_dict(weights, strict=name != "detr")
    inputs, samples = batch()
    with torch.no_grad():
        if name == "detr":
            memory = model.make_memory(model.extract_feat(inputs), inputs, samples)
            encoded = model.transformer.encoder(memory)
            return dict(memory=encoded.tokens * ~encoded.padding_mask[..., None])
        return dict(zip(("logits", "boxes"), model._forward(inputs, samples), strict=True))


@functools.cache
def read(name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Recorded weights of transformers' file and outputs of its model."""
    content = np.load(RECORDED)
    keys = str(content[f"{name}.names"]).splitlines()
    shapes = [tuple(int(n) for n in row if n) for row in content[f"{name}.shapes"]]
    weights = {key: draw(key, shape) for key, shape in zip(keys, shapes, strict=True)}
    known = ["memory"] if name == "detr" else ["logits", "boxes"]
    return weights, {key: torch.from_numpy(content[f"{name}.{key}"]) for key in known}


def run(name: str, model: nn.Module) -> dict[str, Tensor]:
    """Outputs of transformers' model: logits and boxes of every layer; for DETR the encoder's."""
    inputs, _ = batch()
    mask = torch.zeros(len(inputs), *inputs.shape[2:], dtype=torch.long)
    for index, (h, w) in enumerate(SIZES):
        mask[index, :h, :w] = 1
    if name == "detr":
        outside = 1 - torch.nn.functional.interpolate(mask[:, None].float(), scale_factor=1 / 32)
        memory = model(inputs, mask).encoder_last_hidden_state
        return dict(memory=memory * (1 - outside).flatten(1)[..., None])
    if name == "conditional":  # its output has only the last layer's
        hidden = []
        for layer in model.model.decoder.layers:
            layer.register_forward_hook(lambda _, args, out: hidden.append(out))
        references = []
        model.model.register_forward_hook(lambda _, a, out: references.append(out.reference_points))
        model(inputs, mask)
        normed = model.model.decoder.layernorm(torch.stack(hidden))
        boxes = model.bbox_predictor(normed)
        boxes[..., :2] += torch.logit(references[0]).transpose(0, 1)
        return dict(logits=model.class_labels_classifier(normed), boxes=boxes.sigmoid())
    seen = {}

    def look(*args, **kwargs):
        seen["logits"], seen["boxes"] = args[5:7]
        return None, None, None

    model.loss_function = look
    model(inputs, mask, labels=[{}] * len(inputs))
    return seen


def record(name: str, folder: Path) -> tuple[dict[str, Tensor], dict[str, tuple[int, ...]]]:
    """Record outputs of transformers' model with drawn weights, and its file's names and shapes."""
    file = folder / "model.safetensors"
    model = theirs(name)
    model.save_pretrained(folder)
    shapes = {key: tuple(value.shape) for key, value in load_file(file).items()}
    save_file({key: draw(key, shape) for key, shape in shapes.items()}, file, {"format": "pt"})
    with torch.no_grad():
        return run(name, type(model).from_pretrained(folder).eval()), shapes
