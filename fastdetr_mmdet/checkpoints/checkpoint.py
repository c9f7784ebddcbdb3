"""A checkpoint file of another code -> one that mmengine loads into the matching config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..version import __version__
from .classes import coco_meta, count_classes, drop_class_branches, holds_coco_ids, map_classes
from .files import CheckpointError, Source, check_destination, read_checkpoint, write_checkpoint
from .rename import Renamed
from .report import Report, notes
from .state_dicts import METHODS, check_method, translate
from .variants import Fit, describe, recognise

# Names per list in an error
_MOST = 8


def convert_checkpoint(
    src: str | Path,
    dst: str | Path,
    method: str,
    classes: int | None = None,
    drop_class_head: bool = False,
) -> Report:
    """Convert a checkpoint file and say which shipped config it belongs to.

    Args:
        src: An official checkpoint, or one of mmdet's own Deformable or Conditional DETR.
        dst: The file to write; replaced if it is there, and untouched if anything is wrong.
        method: One of ``METHODS``.
        classes: Logits of the class branches: 80, mmdet's labels of COCO, as the configs have it;
            91, COCO's category ids; or as many as the file has. None: 80 if the file has COCO's
            ids, else as many as it has.
        drop_class_head: Leave the class branches out, to train on other classes.

    Raises:
        ValueError: for an unknown method, or if both classes and drop_class_head are given.
        CheckpointError: a ValueError that says all that is wrong with the file.
    """
    check_method(method)
    if drop_class_head and classes is not None:
        raise ValueError(
            f"--classes {classes} keeps class branches, --drop-class-head leaves them out; give "
            "one of the two."
        )
    src, dst = Path(src), Path(dst)
    check_destination(dst, src)
    source = read_checkpoint(src)
    renamed, contradictions = translate(source.weights, method)
    found = count_classes(renamed.weights)
    coco_ids = holds_coco_ids(method, found)
    problems = list(contradictions)
    broken = [key for key, tensor in source.weights.items() if not tensor.isfinite().all()]
    if broken:
        problems.append(f"NaN or infinite numbers in {len(broken)}: {_shorten(broken)}")
    if drop_class_head:
        weights = drop_class_branches(renamed.weights)
    else:
        try:
            weights = map_classes(renamed.weights, classes, coco_ids)
        except ValueError as error:
            problems.append(str(error))
            weights = renamed.weights
    try:
        fits = recognise(weights, method, not drop_class_head, _told(source.arguments))
    except CheckpointError as error:
        raise CheckpointError(f"{src} was not converted: {error}") from error
    problems += _problems(renamed, fits[0])
    if problems:
        hint = _other_method(source.weights, method, renamed)
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise CheckpointError(
            f"{src} does not hold the weights of {METHODS[method].model}; nothing was written."
            f"{hint} Compared with {fits[0].config}:{listed}"
        )
    num_classes = count_classes(weights)
    remarks = tuple(notes(fits, weights, num_classes, source.arguments, coco_ids))
    fits = [fit for fit in fits if fit.dilated is source.arguments.get("dilation")] or fits
    report = Report(
        method=method,
        variant=describe(weights),
        destination=dst,
        configs=tuple(fit.config for fit in fits),
        options=fits[0].options,
        found_classes=found,
        num_classes=num_classes,
        num_tensors=len(weights),
        notes=remarks,
    )
    meta = {
        "fastdetr_mmdet_version": __version__,
        "converted_from": src.name,
        "method": method,
        "configs": list(report.configs),
        "options": report.options,
        **_dataset_meta(source, coco_ids, num_classes),
    }
    state_dict = {key: _own(tensor) for key, tensor in weights.items()}
    write_checkpoint(dst, {"state_dict": state_dict, "meta": meta})
    return report


def _told(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What an official command line said and weights do not tell, by the keys below ``model``."""
    keys = {
        "num_queries": ["num_queries"],  # two-stage weights have none
        "nheads": ["transformer.encoder.num_heads", "transformer.decoder.num_heads"],
        "smooth": ["transformer.decoder.spatial_prior.smooth"],  # SMCA
    }
    numbers = {name: arguments.get(name) for name in keys}
    return {
        key: number
        for name, number in numbers.items()
        if isinstance(number, (int, float)) and number > 0
        for key in keys[name]
    }


def _problems(renamed: Renamed, fit: Fit) -> list[str]:
    def theirs(key: str) -> str:
        return renamed.sources.get(key, key)

    problems = []
    if renamed.unknown:
        problems.append(f"{_count(renamed.unknown, 'unknown key')}: {_shorten(renamed.unknown)}")
    if fit.surplus:
        surplus = [theirs(key) for key in fit.surplus]
        problems.append(f"{_count(surplus, 'surplus key')}: {_shorten(surplus)}")
    if fit.missing:
        keys = _count(fit.missing, "missing key")
        problems.append(f"{keys}, by our names: {_shorten(fit.missing)}")
    if fit.shapes:
        shapes = [f"{theirs(key)} {found} instead of {want}" for key, found, want in fit.shapes]
        problems.append(f"{_count(shapes, 'wrong shape')}: {_shorten(shapes)}")
    return problems


def _other_method(weights: Mapping[str, Tensor], method: str, renamed: Renamed) -> str:
    """A hint, if all keys are those of another method, or ours."""
    if not renamed.unknown:
        return ""
    if any(key.startswith("transformer.queries.") for key in weights):
        return " Its keys are our own names: it needs no conversion."
    for other in METHODS:
        if other != method and not translate(weights, other)[0].unknown:
            return f" Its keys are those of {METHODS[other].model}: try --method {other}."
    return ""


def _dataset_meta(source: Source, coco_ids: bool, num_classes: int | None) -> dict[str, Any]:
    """Names of the classes, where they are known; ``DatasetClassesCheckHook`` compares them."""
    if num_classes is None:
        return {}
    if coco_ids and num_classes == 80:
        return {"dataset_meta": coco_meta()}
    given = source.meta.get("dataset_meta")
    if not isinstance(given, Mapping):
        return {}
    lower = {str(key).lower(): value for key, value in given.items()}  # mmdet 3.0 wrote CLASSES
    names = lower.get("classes")
    if not isinstance(names, (list, tuple)) or len(names) != num_classes:
        return {}
    return {"dataset_meta": {k: lower[k] for k in ("classes", "palette") if k in lower}}


def _own(tensor: Tensor) -> Tensor:
    """The tensor with nothing but its own memory; of a view torch would save the whole."""
    storage = tensor.untyped_storage().nbytes()
    return tensor.clone() if storage > tensor.numel() * tensor.element_size() else tensor


def _count(things: Iterable[str], what: str) -> str:
    number = len(list(things))
    return f"{number} {what}{'' if number == 1 else 's'}"


def _shorten(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
