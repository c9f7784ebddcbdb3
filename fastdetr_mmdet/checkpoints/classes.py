"""Rows of class branches: COCO's category ids or mmdet's labels, and rows for other classes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmdet.datasets import CocoDataset
from torch import Tensor

from ..utils.cli import UsageError
from .files import dataset_meta
from .loading import shorten

Names = Sequence[str | None]
CLASS_BRANCHES = "bbox_head.cls_branches."
_CLASS_ROWS = re.compile(
    r"bbox_head\.cls_branches\.\d+\.\w+|transformer\.queries\.label_embedding\.weight"
    r"|aux_heads\.\d+\.\w*cls(\.\d+)?\.(weight|bias)"
)
# Exists in two-stage models, whose last class branch is the proposals'.
TWO_STAGE = "transformer.queries.memory_proj.weight"
# Exists in models with denoising.
DINO = "transformer.queries.label_embedding.weight"
# Gaps in COCO's ids of its 80 categories, 1 to 90. mmdet's labels count categories from 0; the
# official codes' logits are indexed by ids, including 0 and the gaps.
_GAPS = frozenset((12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
COCO_IDS = tuple(number for number in range(1, 91) if number not in _GAPS)
# Logits of the official codes; SMCA has an unused one more.
OFFICIAL = {
    **dict.fromkeys(("conditional_detr", "deformable_detr", "dino", "hf", "sam_detr"), 91),
    "smca_detr": 92,
}


def count_classes(weights: Mapping[str, Tensor]) -> int | None:
    """Count the logits of the first class branch; None without one."""
    weight = weights.get(CLASS_BRANCHES + "0.weight")
    return None if weight is None or weight.dim() == 0 else len(weight)


def holds_coco_ids(method: str, found: int | None, names: Any = None) -> bool:
    """Whether logits are indexed by COCO's category ids; never in mmdet's checkpoints."""
    named = not names or list(names[1:2]) == ["person"]  # Hugging Face's files have class names
    return named and found is not None and OFFICIAL.get(method) == found


def map_classes(
    weights: Mapping[str, Tensor], classes: int | None, coco_ids: bool = True
) -> dict[str, Tensor]:
    """Return the weights with class branches for another number of classes.

    Args:
        weights: By this package's names.
        classes: None: 80 if the logits are COCO's category ids, else unchanged. 80: mmdet's labels.
            91: the ids, without SMCA's additional one. The present number: unchanged.
        coco_ids: Whether 91 or 92 logits are COCO's category ids.

    Raises:
        ValueError: if the branches cannot be mapped to that many classes.
    """
    found = count_classes(weights)
    if found is None:
        return dict(weights)
    coco_ids = coco_ids and found in OFFICIAL.values()
    if classes is None:
        classes = 80 if coco_ids else found
    if classes == found:
        return dict(weights)
    possible = [found, *((91, 80) if coco_ids else ())]
    if classes not in possible:
        raise ValueError(
            f"its class branches have {found} logits, which cannot become {classes}. Possible "
            f"--classes: {', '.join(map(str, sorted(set(possible))))} (80: mmdet's labels of COCO, "
            "91: COCO's category ids). For other classes, train them: --drop-class-head."
        )
    ids = COCO_IDS if classes == 80 else range(91)
    return take_rows(weights, found, ids, ids, objectness(weights))


def objectness(weights: Mapping[str, Tensor]) -> str | None:
    """Prefix of the class-agnostic proposal branch (the last branch), if it exists."""
    branches = [int(key.split(".")[2]) for key in weights if key.startswith(CLASS_BRANCHES)]
    return f"{CLASS_BRANCHES}{max(branches)}." if branches and TWO_STAGE in weights else None


def take_rows(
    weights: Mapping[str, Tensor],
    found: int,
    rows: Sequence[int | None],
    real: Sequence[int],
    agnostic: str | None = None,
) -> dict[str, Tensor]:
    """Select class rows in every decoder layer, in dense heads and in denoising.

    Args:
        weights: By this package's names.
        found: Their classes.
        rows: Row of each new class; None: the mean of the real rows.
        real: Rows of classes.
        agnostic: Prefix of a class-agnostic proposal branch. Its logit 0 means "object" and stays
            the first; other logits are not used.
    """
    taken = dict(weights)
    for key, tensor in weights.items():
        if not _CLASS_ROWS.fullmatch(key) or tensor.dim() == 0 or len(tensor) % found:
            continue
        if agnostic and key.startswith(agnostic):
            taken[key] = tensor[torch.arange(len(rows)).clamp(max=found - 1)]
            continue
        anchors = tensor.unflatten(0, (-1, found)).unbind()  # dense heads have one per anchor
        chosen = [
            x[row] if row is not None else x[list(real)].mean(0) for x in anchors for row in rows
        ]
        taken[key] = torch.stack(chosen)
    return taken


def unmap_classes(weights: Mapping[str, Tensor], logits: int) -> dict[str, Tensor]:
    """Inverse of ``map_classes``: 80 labels to rows of COCO's category ids.

    Rows of unused ids always have a logit of -100.
    """
    agnostic = objectness(weights)
    unmapped = dict(weights)
    for key, tensor in weights.items():
        if key.startswith(CLASS_BRANCHES):
            rows = tensor.new_full((logits, *tensor.shape[1:]), -100.0 * key.endswith("bias"))
            ids = range(len(tensor)) if agnostic and key.startswith(agnostic) else COCO_IDS
            rows[torch.tensor(ids)] = tensor
            unmapped[key] = rows
    return unmapped


def drop_class_branches(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove all class branches, including the proposals'."""
    return {key: value for key, value in weights.items() if not key.startswith(CLASS_BRANCHES)}


def coco_meta() -> dict[str, Any]:
    """Names and colours of mmdet's 80 labels, as mmengine stores them in a checkpoint."""
    return {key: CocoDataset.METAINFO[key] for key in ("classes", "palette")}


# --------------------------------------------------------------------------------------------------
# Other classes, by name


def rows_by_name(
    weights: dict[str, Tensor],
    meta: Any,
    own: Sequence[str],
    class_map: Mapping[str, str],
    objectness: str | None,
) -> tuple[dict[str, Tensor], str]:
    """Return the weights with rows for own classes, and a note on them; "" if unchanged.

    Arguments as in ``match``, ``names_of_rows`` (meta) and ``take_rows`` (objectness).
    """
    found = count_classes(weights)
    if found is None:
        return weights, ""
    names = names_of_rows(meta, found)
    real = [row for row, name in enumerate(names) if name is not None]
    rows = match(own, names, class_map)
    if (not real and found == len(own)) or rows == [*range(found)]:
        return weights, ""
    taken = take_rows(weights, found, rows, real or range(found), objectness)
    return taken, _about_classes(own, rows, names)


def names_of_rows(meta: Any, count: int) -> Names:
    """Class name of each row of a checkpoint; None for rows without a known class.

    Without names in mmengine's meta information, 80 rows are COCO's labels, 91 and 92 its ids.
    """
    known = dataset_meta(meta).get("classes") or ()
    if len(known) == count and not isinstance(known, str):
        return [str(name) for name in known]
    coco = CocoDataset.METAINFO["classes"]
    if count in OFFICIAL.values():
        by_id = dict(zip(COCO_IDS, coco, strict=True))
        return [by_id.get(number) for number in range(count)]
    return coco if count == len(coco) else [None] * count


def read_classes(file: str | Path) -> list[str]:
    """Names of the categories in a COCO annotation file, in the file's order, like mmdet.

    Raises:
        UsageError: if the file has no categories.
    """
    names: list[str] = []
    reason = "its categories are empty"
    try:
        content = json.loads(Path(file).read_text(encoding="utf-8"))
        names = [str(category["name"]) for category in content["categories"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}"
    if not names:
        raise UsageError(
            f"--classes-of {file} names no classes ({reason}); give the COCO annotation file of "
            "your training set."
        )
    return names


def match(own: Sequence[str], names: Names, class_map: Mapping[str, str]) -> list[int | None]:
    """Row for each own class by the names of the rows; None: the mean of the rows.

    Ignores case, spaces, hyphens and underscores; ``class_synonyms.yaml`` lists synonyms.
    class_map (own class -> the checkpoint's name for it) overrides the matching by name.

    Raises:
        ValueError: if class_map names an unknown class.
    """
    exact = {_plain(name): row for row, name in enumerate(names) if name is not None}
    alike = {_shared_name(name): row for name, row in reversed(exact.items())}
    for mine, name in class_map.items():
        if mine not in own or _plain(name) not in exact:
            which, known = f"own class {mine!r}", own
            if mine in own:
                which, known = f"class {name!r} of the checkpoint", [*filter(None, names)]
            listed = ", ".join(known) or "no names"
            raise ValueError(f"class_map: there is no {which}. Known: {listed}.")
    rows = []
    for mine in own:
        plain = _plain(class_map.get(mine, mine))
        rows.append(exact.get(plain, alike.get(_shared_name(plain))))
    return rows


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.lower())


def _shared_name(plain: str) -> str:
    return _synonyms().get(plain, plain)


@functools.cache
def _synonyms() -> dict[str, str]:
    """Every listed name -> the first name of its list."""
    import yaml

    groups = yaml.safe_load(Path(__file__).with_name("class_synonyms.yaml").read_text("utf-8"))
    return {_plain(name): _plain(group[0]) for group in groups for name in group}


def _about_classes(own: Sequence[str], rows: Sequence[int | None], names: Names) -> str:
    kept = [f"{a} <- {names[row]}" for a, row in zip(own, rows, strict=True) if row is not None]
    others = [name for name, row in zip(own, rows, strict=True) if row is None]
    known = [name for name in names if name is not None]
    line = f"Of {len(own)} classes {len(kept)} start from their rows in the checkpoint"
    line += f" ({shorten(kept)})" if kept else ""
    if others:
        line += f", {len(others)} from the mean row ({shorten(others)})"
        if known:
            line += (
                f". The checkpoint's classes: {shorten(known)}; to use one of them for yours: "
                f"default_hooks.resume_check.class_map=\"{{'{others[0]}': '{known[0]}'}}\""
            )
    return f"{line}."
