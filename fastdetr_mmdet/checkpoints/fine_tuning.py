"""Start training on new classes from a detector of other classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .backbones import resize_positions
from .classes import CLASS_BRANCHES, rows_by_name
from .files import weights_of
from .loading import by_part, load_fitting, shorten
from .safe_loading import CheckpointError
from .state_dicts import method_of


def start_from(
    model: nn.Module,
    content: dict[str, Any],
    own: Sequence[str],
    class_map: Mapping[str, str],
    file: str,
) -> list[str]:
    """Load a detector's checkpoint into a FastDETR with other classes.

    Class rows (of decoder layers, proposals, denoising and dense heads) are matched by class name;
    see ``classes.match`` for own and class_map. Learned positions are interpolated to another
    size; learned queries and levels keep their first rows.

    Args:
        content: From ``read_content``. Its state dict is replaced by the model's, so that loading
            it again changes and reports nothing.
        file: The checkpoint's name, for messages.

    Returns:
        At most five lines about weights that were not simply loaded.

    Raises:
        CheckpointError: if the checkpoint holds no weights of the model, or has another code's
            names.
        ValueError: if class_map names an unknown class.
    """
    weights = {key.removeprefix("module."): value for key, value in weights_of(content).items()}
    weights, about = rows_by_name(weights, content.get("meta"), own, class_map, _objectness(model))
    said = [about] if about else []
    tables = _tables(model, weights)
    if tables:
        sizes = [f"{key} {_size(weights[key])} -> {_size(tables[key])}" for key in tables]
        said.append(
            "Learned tables of another size: positions are interpolated; queries and levels keep "
            f"their first rows, and new rows get initial values: {shorten(sizes)}."
        )
    missing, turned, extra = load_fitting(model, weights | tables)
    _refuse_foreign({*model.state_dict()} - {*missing, *turned}, weights, file)
    for what, keys in (
        ("keep their initial values, the checkpoint lacks them", missing),
        ("keep their initial values, the checkpoint has other shapes", [*turned]),
        ("of the checkpoint have no place in the model", extra),
    ):
        if keys:
            said.append(f"{len(keys)} weights {what}: {by_part(keys)}.")
    content["state_dict"] = model.state_dict()
    return said


def _objectness(model: Any) -> str | None:
    """Prefix of the class-agnostic proposal branch."""
    head = model.bbox_head
    agnostic = head.as_two_stage and not head.class_aware_proposals
    return f"{CLASS_BRANCHES}{len(head.cls_branches) - 1}." if agnostic else None


def _tables(model: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cut learned tables to the model's number of positions, queries or levels."""
    own = model.state_dict()
    learned = [
        f"{name}.weight"
        for name, part in model.transformer.named_modules(prefix="transformer")
        if isinstance(part, nn.Embedding) and not name.endswith("label_embedding")
    ]
    resized = {}
    for key in weights.keys() & own.keys():
        given, table = weights[key], own[key]
        if given.shape == table.shape:
            continue
        new = resize_positions(key, given, table)
        if key in [*learned, "transformer.level_embed"] and given.shape[1:] == table.shape[1:]:
            new = torch.cat([given[: len(table)].to(table), table[len(given) :]])
        if new.shape == table.shape:
            resized[key] = new
    return dict(sorted(resized.items()))


def _size(table: Tensor) -> str:
    return "x".join(map(str, table.shape[2:] or table.shape[:1]))


def _refuse_foreign(loaded: set[str], weights: Mapping[str, Tensor], file: str) -> None:
    if any(key.startswith("transformer.") for key in loaded):
        return
    if method := method_of(weights):
        raise CheckpointError(
            f"load_from={file} has another code's names. Convert it: python -m "
            f"fastdetr_mmdet.checkpoints.convert {file} NEW_FILE --method {method}"
        )
    if not any("num_batches" not in key and not key.startswith("aux_heads.") for key in loaded):
        raise CheckpointError(
            f"load_from={file} holds no weights of the model; its first one is "
            f"{next(iter(weights), 'missing')}. Set weights of a backbone alone by "
            "model.backbone.init_cfg=\"dict(type='Pretrained', checkpoint=FILE)\"."
        )
