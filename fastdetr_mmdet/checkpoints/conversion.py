"""Convert checkpoints of other codes to files that load into a shipped config."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..utils.cli import check_destination, refuse_to_overwrite
from ..version import __version__
from .classes import (
    CLASS_BRANCHES,
    DINO,
    TWO_STAGE,
    coco_meta,
    count_classes,
    drop_class_branches,
    holds_coco_ids,
    map_classes,
    objectness,
    read_classes,
    rows_by_name,
)
from .files import Source, dataset_meta, read_checkpoint, write_checkpoint
from .hub import read_hub
from .loading import shorten
from .safe_loading import CheckpointError
from .shipped_configs import Fit, find_configs
from .state_dicts import Renamed, method_of, model_of, translate

# Not loaded from DETR's checkpoints
_BEHIND_ENCODER = ("transformer.decoder.", "transformer.queries.", "bbox_head.")
# detrex's positional encoding of DINO is not the official code's
_DETREX_DINO = {"positional_encoding.temperature": 10000, "positional_encoding.offset": -0.5}


@dataclass(frozen=True)
class Report:
    """Result of a conversion; as a string, the command's output."""

    method: str  # one of ``METHODS``
    destination: Path  # the file written
    configs: tuple[str, ...]  # those that the weights fit, by their path from the repository's root
    options: dict[str, Any]  # settings that differ from them, by the keys of ``--cfg-options``
    found_classes: int | None  # logits of the class branches in the file; None without branches
    num_classes: int | None  # logits that were written; None if the branches were left out
    num_tensors: int  # tensors written
    notes: tuple[str, ...]  # sentences on ambiguous settings and classes

    @property
    def command(self) -> str:
        """The next shell command: mim test, or mim train if classes are new or left out."""
        options = [f"{key}={value}" for key, value in self.options.items()]
        words = ["mim", "test", "fastdetr_mmdet", self.configs[0], "-C", str(self.destination)]
        if self.num_classes is None or "classes" in self.options:
            options.append(f"load_from={self.destination}")
            words = ["mim", "train", *words[2:4]]
        return shlex.join([*words, *(["--cfg-options", *options] if options else [])])

    def __str__(self) -> str:
        classes = "class branches left out"
        if self.num_classes is not None:
            kept = self.found_classes == self.num_classes
            classes = f"{'' if kept else f'{self.found_classes} -> '}{self.num_classes} classes"
        lines = [
            f"Wrote {self.destination}: {self.method}, {self.num_tensors} tensors, {classes}.",
            "Config:",
            *(f"    {config}" for config in self.configs),
        ]
        if self.options:
            lines.append("No shipped config has all of these settings; pass them as options:")
            lines += [f"    {key}={value}" for key, value in self.options.items()]
        return "\n".join([*lines, *self.notes, "Next:", f"    {self.command}"])


def convert_checkpoint(
    src: str | Path,
    dst: str | Path,
    method: str,
    classes: int | None = None,
    drop_class_head: bool = False,
    classes_of: str | Path | None = None,
    class_map: Mapping[str, str] | None = None,
) -> Report:
    """Convert a checkpoint file and find its shipped config.

    Args:
        src: A checkpoint of one of ``METHODS``; for Hugging Face also a folder, or the index of a
            sharded model.
        dst: The file to write or overwrite; not changed on errors.
        method: One of ``METHODS``.
        classes: Logits of the class branches, 80, 91 or as many as the file has; as in
            ``map_classes``.
        drop_class_head: Leave the class branches out, to train on other classes.
        classes_of: COCO annotation file of own classes: classes with the same name keep their rows,
            others get the mean row.
        class_map: Own class -> the file's name for it.

    Raises:
        ValueError: for an unknown method, or if both classes and drop_class_head are given.
        UsageError: if classes_of names no classes.
        CheckpointError: if the weights do not fit; the message lists all problems.
    """
    model = model_of(method)
    if drop_class_head and classes is not None:
        raise ValueError(
            f"--classes {classes} keeps class branches, --drop-class-head leaves them out. Give "
            "one of the two."
        )
    own = read_classes(classes_of) if classes_of else []
    src, dst = Path(src), Path(dst)
    check_destination(dst)
    refuse_to_overwrite([dst], [src])
    source = (read_hub if method == "hf" else read_checkpoint)(src)
    renamed = translate(source.weights, method)
    found = count_classes(renamed.weights)
    coco_ids = holds_coco_ids(method, found, dataset_meta(source.meta).get("classes"))
    problems = []
    weights = drop_class_branches(renamed.weights) if drop_class_head else renamed.weights
    try:
        weights = map_classes(weights, classes, coco_ids)
    except ValueError as error:
        problems.append(str(error))
    shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
    try:
        left_out = _BEHIND_ENCODER if renamed.left_out else (CLASS_BRANCHES,) * drop_class_head
        known = _known(source.arguments)
        if method == "detrex" and DINO in shapes:
            known |= _DETREX_DINO
        fits = find_configs(shapes, method, left_out, known)
    except CheckpointError as error:
        raise CheckpointError(f"{src} was not converted: {error}") from error
    problems += _problems(source.weights, renamed, fits[0])
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise CheckpointError(
            f"{src} does not hold the weights of {model}; nothing was written."
            f"{_hint(source.weights, method, renamed)} Compared with {fits[0].config}:{listed}"
        )
    num_classes = count_classes(weights)
    described = _dataset_meta(source, coco_ids, num_classes)
    notes = [*_notes(fits, weights, num_classes, source.arguments, coco_ids)]
    if own:
        agnostic = objectness(weights)
        weights, about = rows_by_name(weights, described, own, class_map or {}, agnostic)
        described, num_classes = {"dataset_meta": {"classes": own}}, len(own)
        notes.append(about)
    fits = [fit for fit in fits if fit.dilated is source.arguments.get("dilation")] or fits
    configs = tuple(fit.config for fit in fits)
    options = {f"model.{key}": value for key, value in fits[0].options.items()}
    options |= {"classes": ",".join(own)} if own else {}
    meta = dict(
        fastdetr_mmdet_version=__version__,
        converted_from=src.name,
        method=method,
        configs=list(configs),
        options=options,
        **described,
    )
    state_dict = {key: _own(tensor) for key, tensor in weights.items()}
    write_checkpoint(dst, {"state_dict": state_dict, "meta": meta})
    return Report(method, dst, configs, options, found, num_classes, len(weights), tuple(notes))


def _known(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Settings from the official command line that weights do not tell, by keys below ``model``."""
    keys = {
        "num_queries": "num_queries",  # two-stage weights do not tell
        "transformer.encoder.num_heads": "nheads",
        "transformer.decoder.num_heads": "nheads",
        "transformer.decoder.spatial_prior.smooth": "smooth",  # SMCA
    }
    numbers = {key: arguments.get(name) for key, name in keys.items()}
    return {k: n for k, n in numbers.items() if isinstance(n, (int, float)) and n > 0}


def _problems(official: Mapping[str, Tensor], renamed: Renamed, fit: Fit) -> Iterator[str]:
    """Problems of the weights, by names in the file; missing ones by this package's names."""
    sources = renamed.sources
    not_finite = [key for key, tensor in official.items() if not tensor.isfinite().all()]
    shapes = [
        f"{sources.get(key, key)} {found} instead of {expected}"
        for key, found, expected in fit.shapes
    ]
    for what, names in (
        ("should repeat another tensor", renamed.contradictions),
        ("with NaN or infinite numbers", not_finite),
        ("unknown", renamed.unknown),
        ("surplus", [sources.get(key, key) for key in fit.surplus]),
        ("missing, by this package's names", fit.missing),
        ("of another shape", shapes),
    ):
        if names:
            yield f"{len(names)} {what}: {shorten(names, 8)}"


def _hint(weights: Mapping[str, Tensor], method: str, renamed: Renamed) -> str:
    """Return a hint if all keys belong to another method or to this package."""
    if not renamed.unknown:
        return ""
    if any(key.startswith("transformer.queries.") for key in weights):
        return " Its keys are already this package's: it needs no conversion."
    other = method_of(weights)
    return f" Its keys are those of {model_of(other)}: try --method {other}." if other else ""


def _notes(
    fits: Sequence[Fit],
    weights: Iterable[str],
    num_classes: int | None,
    arguments: Mapping[str, Any],
    coco_ids: bool,
) -> Iterator[str]:
    """Return notes on ambiguous settings and on classes."""
    dilation = arguments.get("dilation")
    dilated = {fit.dilated for fit in fits}
    if len(dilated) > 1:
        said = "Use a config with dc5 in its name if the file's name or source says DC5."
        if isinstance(dilation, bool):
            said = f"The file's own arguments say dilation={dilation}."
        yield f"Weights of DC5 (dilated last stage) and of a strided last stage look alike. {said}"
    elif dilation is True and dilated == {False}:
        yield (
            "Careful: the file's own arguments say dilation=True (DC5), and no config for these "
            "weights has it. See how the dc5 configs of other models change the backbone."
        )
    epochs = sorted({fit.epochs for fit in fits})
    if len(epochs) > 1:
        numbers = " and ".join(map(str, epochs))
        yield (
            f"The configs of {numbers} epochs have the same architecture and give the same results."
        )
    if TWO_STAGE in weights and "num_queries" not in arguments:
        yield "Two-stage weights do not tell the number of queries; the published model has 300."
    if all(not key.startswith(_BEHIND_ENCODER) for key in weights):
        yield (
            "DETR has another decoder and a softmax, so the file holds only backbone, projection "
            "and encoder. They fit every config with a DetrEncoder of these sizes; mmengine will "
            "list decoder and head as missing."
        )
    elif num_classes is None:
        yield (
            "Use the file with load_from, and set model.bbox_head.num_classes and the dataset to "
            "your classes. Class branches start from initial values."
        )
    elif coco_ids and num_classes != 80:
        yield (
            "The labels are COCO's category ids, but mmdet's COCO dataset has 80 labels: convert "
            "with --classes 80 to test on it."
        )
    elif num_classes != 80:
        yield f"The config's dataset has COCO's 80 classes: set it to the file's {num_classes}."


def _dataset_meta(source: Source, coco_ids: bool, num_classes: int | None) -> dict[str, Any]:
    """Names of the classes, if known; ``DatasetClassesCheckHook`` compares them."""
    if coco_ids and num_classes == 80:
        return {"dataset_meta": coco_meta()}
    given = dataset_meta(source.meta)
    names = given.get("classes")
    if num_classes is None or not isinstance(names, (list, tuple)) or len(names) != num_classes:
        return {}
    return {"dataset_meta": {k: given[k] for k in ("classes", "palette") if k in given}}


def _own(tensor: Tensor) -> Tensor:
    """Copy a view, because torch saves the whole storage of a view."""
    storage = tensor.untyped_storage().nbytes()
    return tensor.clone() if storage > tensor.numel() * tensor.element_size() else tensor
