"""Small versions of the shipped configs' models, for unit tests."""

from __future__ import annotations

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch import nn

from support.models import randomise

ROOT = Path(__file__).parents[2]
# Configs with a ResNet, one per architecture (12 and 50 epochs have the same).
FOLDERS = ("conditional_detr", "deformable_detr", "smca_detr", "sam_detr", "dino", "mixed", "demo")
CONFIGS = [
    f"{path.parent.name}/{path.stem}"
    for folder in FOLDERS
    for path in sorted((ROOT / "configs" / folder).glob("*.py"))
    if not any(
        part in path.stem for part in ("swin", "convnext", "timm", "r101", "12e", "36e", "108e")
    )
]
# Five of these, which together have every part.
EVERY_PART = (
    "conditional_detr/conditional-detr_r50_8xb2-50e_coco",
    "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco",
    "smca_detr/smca-detr-ms_r50_8xb1-50e_coco",
    "smca_detr/smca-detr-ms-conv_r50_8xb1-50e_coco",
    "sam_detr/sam-detr-ms-smca_r50_8xb2-50e_coco",
)
EMBED_DIMS, NUM_HEADS, NUM_QUERIES, NUM_CLASSES = 32, 4, 12, 5


def small_config(name: str) -> ConfigDict:
    """Model of a shipped config with a narrow ResNet-18 or Swin and few, narrow layers.

    Args:
        name: Path below configs/, without '.py'.
    """
    model = Config.fromfile(ROOT / "configs" / f"{name}.py", import_custom_modules=False).model
    model.num_queries = NUM_QUERIES
    if model.backbone.type == "SwinTransformer":
        small = dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4, window_size=4)
    else:
        small = dict(depth=18, base_channels=8, stem_channels=8, frozen_stages=-1)
    model.backbone.update(small, init_cfg=None)
    channels = [8 * 2**stage for stage in model.backbone.out_indices]
    model.neck.update(in_channels=channels, out_channels=EMBED_DIMS)
    if "norm_cfg" in model.neck:
        model.neck.norm_cfg.num_groups = 8
    transformer = model.transformer
    transformer.embed_dims = EMBED_DIMS
    encoder = transformer.get("encoder")
    for part in (encoder, transformer.decoder):
        if part is None:
            continue
        part.feedforward_channels = 48
        if "num_heads" in part:
            part.num_heads = NUM_HEADS
        if "num_layers" in part:
            part.num_layers = 2
    if "pattern" in (encoder or {}):
        encoder.pattern = ["intra", "multi"]
    if transformer.decoder.get("level_schedule"):
        levels = sorted(set(transformer.decoder.level_schedule))
        transformer.decoder.update(level_schedule=levels, num_layers=len(levels))
    model.bbox_head.num_classes = NUM_CLASSES
    return model


def small_detector(name: str, seed: int = 0, **overrides) -> nn.Module:
    """The model of ``small_config`` in evaluation mode, without zero-initialised parameters.

    Overrides are merged into its config; a double underscore stands for a dot.
    """
    config = Config(dict(model=small_config(name)))
    config.merge_from_dict(
        {f"model.{key.replace('__', '.')}": value for key, value in overrides.items()}
    )
    torch.manual_seed(seed)
    return randomise(MODELS.build(config.model), seed).eval()
