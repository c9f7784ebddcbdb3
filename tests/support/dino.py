"""Small DINO models, mmdet's and this package's, and recordings of mmdet's."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import mmdet
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from torch import Tensor, nn

from fastdetr_mmdet.structures.boxes import inverse_sigmoid
from support.models import make_batch, total

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "tests" / "data" / "dino.npz"
NAME = "dino/dino-4scale_r50_8xb2-12e_coco.py"
THEIRS = Path(mmdet.__file__).parent / ".mim" / "configs" / NAME
# mmdet 3.3 embeds references for its published width only; later versions for any.
PUBLISHED = mmdet.__version__ < "3.4"
DIMS = 256 if PUBLISHED else 32
CLASSES, NUM_QUERIES, LAYERS, DN = 5, 8, 3, 12


def small(config: dict, dims: int, changes: dict) -> nn.Module:
    """The model of a config with a narrow backbone."""
    config = Config(dict(model=config))
    changes |= {
        "backbone.depth": 18,
        "backbone.base_channels": 8,
        "backbone.stem_channels": 16,
        "backbone.init_cfg": None,
        "neck.in_channels": [16, 32, 64],
        "neck.out_channels": dims,
        "neck.norm_cfg.num_groups": 4,
        "num_queries": NUM_QUERIES,
        "bbox_head.num_classes": CLASSES,
        "test_cfg.max_per_img": 20,
    }
    config.merge_from_dict({f"model.{key}": value for key, value in changes.items()})
    torch.manual_seed(0)
    return MODELS.build(config.model)


def theirs(dims: int = DIMS) -> nn.Module:
    """mmdet's, small."""
    layer, config = "layer_cfg", Config.fromfile(THEIRS).model
    changes = {"dn_cfg.group_cfg.num_dn_queries": DN, "positional_encoding.num_feats": dims // 2}
    changes["bbox_head.embed_dims"] = dims
    for stack in ("encoder", "decoder"):
        changes[f"{stack}.num_layers"] = LAYERS
        changes[f"{stack}.{layer}.ffn_cfg.embed_dims"] = dims
        changes[f"{stack}.{layer}.ffn_cfg.feedforward_channels"] = 48
        changes[f"{stack}.{layer}.self_attn_cfg.embed_dims"] = dims
    changes[f"decoder.{layer}.cross_attn_cfg.embed_dims"] = dims
    model = small(config, dims, changes)
    nn.init.normal_(model.level_embed)
    return model


def ours(dims: int = DIMS, reference_feats: int = 128 if PUBLISHED else DIMS) -> nn.Module:
    """A small model of this package's parts."""
    changes = {"transformer.embed_dims": dims}
    changes["transformer.queries.num_dn_queries"] = DN
    changes["transformer.decoder.reference_feats"] = reference_feats
    for stack in ("encoder", "decoder"):
        changes[f"transformer.{stack}.num_layers"] = LAYERS
        changes[f"transformer.{stack}.feedforward_channels"] = 48
    return small(Config.fromfile(ROOT / "configs" / NAME).model, dims, changes)


def batch(objects: Any) -> tuple[Tensor, list]:
    """Two padded images."""
    inputs, samples = make_batch(((128, 96), (96, 128)), objects, num_classes=CLASSES)
    return inputs * 3, samples


def share_noise(generator: Any, labels: Tensor, boxes: Tensor) -> None:
    """Make mmdet's generator use this package's noise."""
    embed = generator.label_embedding
    generator.generate_dn_label_query = lambda *_: embed(labels.flatten())
    generator.generate_dn_bbox_query = lambda *_: inverse_sigmoid(boxes.flatten(0, 1), eps=1e-3)


def gradients(model: nn.Module, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the summed losses by name of the state dict; zeros without gradient."""
    model.zero_grad()
    total(losses).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {k: grads.get(k, torch.zeros_like(v)) for k, v in model.state_dict().items()}


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a recorded model's tensor with numpy, seeded by its name."""
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    z = _random(name).standard_normal(shape)
    if len(shape) > 1:
        z /= math.sqrt(math.prod(shape[1:]))
    elif name.endswith(("weight", "running_var")):
        z = 1 + 0.1 * np.abs(z)
    elif "sampling_offsets" not in name:
        z *= 0.1
    return torch.from_numpy(z).float()


def recorded_batch() -> tuple[Tensor, list]:
    """``batch`` with numpy's random numbers."""
    inputs, samples = batch((3, 1))
    generator = _random("batch")
    for image, sample in zip(inputs, samples, strict=True):
        h, w = sample.img_shape
        image[:, :h, :w] = torch.from_numpy(generator.standard_normal((3, h, w)) * 3)
        objects = sample.gt_instances
        corners = np.sort(generator.random((len(objects), 2, 2)), axis=1).reshape(-1, 4)
        objects.bboxes = torch.from_numpy(corners * [w, h, w, h]).float()
        objects.labels = torch.from_numpy(generator.integers(CLASSES, size=len(objects)))
    return inputs, samples


def _random(name: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
