"""ImageNet weights of torchvision, timm, mmpretrain or Hugging Face, for a backbone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from .files import read_checkpoint
from .loading import fill
from .rename_tables import read_lists, rename, rules
from .safe_loading import CheckpointError

# mmpretrain may be missing
_KINDS = [("mmdet", "ResNet"), ("mmdet", "SwinTransformer"), ("mmpretrain", "ConvNeXt")]
# Learned positions, which can be interpolated; learned queries and levels cannot.
_POSITIONS = re.compile(
    r".*relative_position_bias_table|.*absolute_pos_embed|positional_encoding\.\w+_embed\.weight"
)
# Missing in classifiers' files: counters, a computed index, and mmdet's norms of output maps.
_OWN = re.compile(r".*num_batches_tracked|.*relative_position_index|norm\d\.\w+")


def load_local_weights(backbone: nn.Module) -> None:
    """Fill a backbone from the local file that its ``init_cfg`` names, if both are known.

    ``init_weights`` then skips the backbone. mmengine handles URLs, other backbones and files with
    other prefixes than "backbone.".
    """
    init_cfg: Any = getattr(backbone, "init_cfg", None)
    given = init_cfg if isinstance(init_cfg, dict) else {}
    file = given.get("checkpoint")
    if not _kind(backbone) or backbone.is_init or not file or "://" in file:
        return
    if given.get("prefix") in (None, "backbone."):
        load_backbone(backbone, file)
        backbone.is_init = True  # type: ignore[assignment]


def load_backbone(backbone: nn.Module, file: str | Path) -> None:
    """Fill a ResNet or SwinTransformer of mmdet, a ConvNeXt of mmpretrain, or a subclass.

    All weights but norms of output maps come from the file, of ``torch.save`` or safetensors, whose
    keys tell its source (``backbone_tables.yaml``). Tables of relative positions are interpolated
    to another window size, as in mmdet.

    Raises:
        CheckpointError: if the file is damaged or lacks weights of the backbone.
    """
    kind = _kind(backbone)
    given = read_checkpoint(Path(file)).weights
    own = backbone.state_dict()
    sources = read_lists()["backbones"][kind]
    found = {source: _rename(given, name) for source, (name, _) in sources.items()}
    source, weights = max(found.items(), key=lambda item: _fitting(item[1], own))
    if not weights.keys() & own.keys():
        known = ", ".join(f"{example} ({source})" for source, (_, example) in sources.items())
        raise CheckpointError(
            f"init_cfg.checkpoint={file} holds no weights of a {kind}: it has names such as "
            f"{next(iter(given))}, expected are names such as {known}."
        )
    for key in weights.keys() & own.keys():
        weights[key] = resize_positions(key, weights[key], own[key])
        if weights[key].squeeze().shape == own[key].squeeze().shape:  # 1x1 convolutions or linear
            weights[key] = weights[key].view(own[key].shape)
    stages = {_stage(key) for key in own}  # a backbone may have fewer than the file
    weights = {k: v for k, v in weights.items() if k in own or _stage(k) in stages}
    weights = {k: v for k, v in own.items() if _OWN.fullmatch(k)} | weights
    if wrong := fill(backbone, weights, unknown=True):
        raise CheckpointError(
            f"init_cfg.checkpoint={file} is of another {kind} than model.backbone (names of "
            f"{source}): {wrong}. Set model.backbone to the file's, such as its depth."
        )
    print_log(f"load backbone from: {file} (names of {source})", logger="current")


def _kind(backbone: nn.Module) -> str:
    """Table of a backbone's names; "" if there is none."""
    names = [(cls.__module__.split(".")[0], cls.__name__) for cls in type(backbone).__mro__]
    return next((name for package, name in names if (package, name) in _KINDS), "")


def _fitting(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> int:
    return sum(key in own and own[key].shape == value.shape for key, value in weights.items())


def _rename(given: Mapping[str, Tensor], table: str) -> dict[str, Tensor]:
    """Rename weights to mmdet's names; names without a rule stay."""
    named: dict[str, Tensor] = {}
    for key, tensor in given.items():
        name = rename(key, rules(table)) or key
        if name.endswith("#unfold"):
            tensor = _unfold(tensor)
        if not name.startswith("-"):
            named[name.removesuffix("#unfold")] = tensor
    for first in [name for name in named if name.endswith("#0")]:
        name = first.removesuffix("#0")
        parts = [named.pop(f"{name}#{part}", None) for part in range(3)]
        named[name] = torch.cat([part for part in parts if part is not None])
    return named


def _unfold(tensor: Tensor) -> Tensor:
    """Reorder a patch merging's input channels from neighbours by columns to nn.Unfold's order."""
    *rows, channels = tensor.shape
    return tensor.view(*rows, 2, 2, channels // 4).movedim(-1, -3).transpose(-1, -2).flatten(-3)


def resize_positions(key: str, table: Tensor, own: Tensor) -> Tensor:
    """Interpolate a table of learned positions to another size; return other tensors unchanged.

    Shape:
        table: (n, channels), a line or a square window of relative positions; or (1, channels, h,
            w)
        own: the same form with other n, h or w
    """
    fit = table.dim() == own.dim() and table.shape[1:2] == own.shape[1:2]
    if not _POSITIONS.fullmatch(key) or table.shape == own.shape or not fit:
        return table
    if table.dim() == 4:
        return nn.functional.interpolate(table, size=own.shape[2:], mode="bicubic")
    maps = table.T[None]
    if "relative" not in key:
        maps = nn.functional.interpolate(maps, size=len(own), mode="linear")
    else:
        before, after = (round(n**0.5) for n in (len(table), len(own)))
        if before**2 != len(table):
            return table
        maps = maps.unflatten(2, (before, before))
        maps = nn.functional.interpolate(maps, size=(after, after), mode="bicubic").flatten(2)
    return maps[0].T.contiguous()


def _stage(name: str) -> str:
    return re.match(r"(layer\d|stages\.\d|[^.]*)", name)[0]  # type: ignore[index]
