"""Errors of each run by group: counts, what the groups mean, and examples."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..evaluation.error_types import EXPLANATIONS, Kind, Verdict, count, judge
from ..evaluation.evaluate import Evaluation
from ..evaluation.results import ImageResult
from .chart import look_of
from .markup import Html, el, join, table
from .pictures import Box, drawing, photo, read_image, symbol
from .run import Run
from .samples import class_name
from .score_hint import score_hints

Found = tuple[ImageResult, Verdict]
_ERRORS = [kind for kind in Kind if kind is not Kind.CORRECT]
_CROP = 200  # pixels of a crop's longer side
_MARGIN = 0.5  # of the boxes' size, on each side of a crop
_SMALLEST = 0.2  # of the image's longer side, that a crop shows


def error_section(runs: Sequence[Run], examples: int, min_score: float) -> Html:
    """Counts, explanation and examples.

    Args:
        runs: All; those that were not evaluated are left out.
        examples: Of each group and run.
        min_score: Boxes below are not counted.
    """
    known = [(n, run, run.evaluation) for n, run in enumerate(runs) if run.evaluation is not None]
    if not known:
        return el("p", "No checkpoint was run, so there are no errors to count.", cls="empty")
    found = [sort_boxes(evaluation, min_score) for _, _, evaluation in known]
    counts = [count(verdict for _, verdict in every) for every in found]
    rows = []
    for (number, run, evaluation), counted in zip(known, counts, strict=True):
        objects = sum(int((~image.crowd).sum()) for image in evaluation.images)
        name = el("span", el("span", "", cls=f"swatch {look_of(number)}"), run.name, cls="run")
        rows.append([name, str(objects), *(str(counted[kind]) for kind in Kind)])
    head = ["run", "objects", *(kind.value for kind in Kind)]
    parts = [
        *score_hints(runs, min_score),
        table(head, rows, cls="figures"),
        _bars(known, counts),
        _explanation(min_score),
    ]
    for index, ((number, run, evaluation), every) in enumerate(zip(known, found, strict=True)):
        groups = [_examples(f"e{index}", kind, every, evaluation, examples) for kind in _ERRORS]
        if any(groups):
            name = el("span", el("span", "", cls=f"swatch {look_of(number)}"), run.name, cls="run")
            summary = el("summary", "Examples of ", name)
            opened = "open" if index == 0 else None
            parts.append(el("details", summary, groups, open=opened, cls="examples"))
    return join(parts)


def sort_boxes(evaluation: Evaluation, min_score: float) -> list[Found]:
    """Verdicts on all boxes and missed objects of a run, each with its image."""
    return [
        (image, verdict)
        for image in evaluation.images
        for verdict in judge(
            image.boxes,
            image.labels,
            image.scores,
            image.true_boxes,
            image.true_labels,
            image.crowd,
            min_score,
        )
    ]


def _bars(known: list[tuple[int, Run, Evaluation]], counts: list[Counter[Kind]]) -> Html:
    """One bar per run, cut into groups, of a length that lets runs be compared."""
    longest = max(sum(c[kind] for kind in _ERRORS) for c in counts) or 1
    bars = []
    for (_, run, _), counted in zip(known, counts, strict=True):
        total = sum(counted[kind] for kind in _ERRORS)
        pieces = [
            el(
                "span",
                str(counted[kind]) if counted[kind] >= longest * 0.05 else "",
                cls=f"piece k{index}",
                style=f"width:{100 * counted[kind] / longest:.2f}%",
                title=f"{kind.value}: {counted[kind]}",
            )
            for index, kind in enumerate(_ERRORS)
            if counted[kind]
        ]
        plural = "" if total == 1 else "s"
        bars.append(
            el("div", el("p", f"{run.name}: {total} error{plural}"), el("div", pieces, cls="stack"))
        )
    legend = [
        el("span", el("span", "", cls=f"key piece k{index}"), kind.value)
        for index, kind in enumerate(_ERRORS)
    ]
    return el("div", el("p", legend, cls="legend"), bars, cls="stacks")


def _explanation(min_score: float) -> Html:
    entries = [
        el("div", el("dt", kind.value), el("dd", EXPLANATIONS[kind])) for kind in EXPLANATIONS
    ]
    return join(
        [
            el("h3", "What the groups mean"),
            el(
                "p",
                f"Boxes with a score of {min_score:g} and up are counted. Within an image the "
                "surest box of a class takes the object of that class that it overlaps most; what "
                "got none is put into the first group below that fits, and into no other. "
                "(Groups as in TIDE, Bolya et al. 2020; TIDE weighs them by AP, here they are "
                "counted.) A box that lies by half or more in a region marked as a crowd is "
                "not counted.",
            ),
            el("dl", entries, cls="groups"),
        ]
    )


def _examples(
    prefix: str, kind: Kind, found: list[Found], evaluation: Evaluation, number: int
) -> Html | None:
    """The surest boxes of a group; of missed objects the largest."""
    members = [item for item in found if item[1].kind is kind]
    members.sort(key=lambda item: -_weight(*item))
    crops: list[Html] = []
    for image, verdict in members:
        if len(crops) == number:
            break
        crop = _crop(f"{prefix}-{kind.name.lower()}-{len(crops)}", image, verdict, evaluation)
        if crop is not None:
            crops.append(crop)
    if not crops:
        return None
    which = "the largest" if kind is Kind.MISSED else "the surest"
    shown = f"{len(crops)} of {len(members)}, {which}" if len(crops) < len(members) else "all"
    head = el("h4", f"{kind.value[0].upper()}{kind.value[1:]} ", el("small", f"({shown})"))
    return el("section", head, el("div", crops, cls="crops"))


def _weight(image: ImageResult, verdict: Verdict) -> float:
    if verdict.box is not None:
        return float(image.scores[verdict.box])
    x1, y1, x2, y2 = image.true_boxes[verdict.target]
    return float((x2 - x1) * (y2 - y1))


def _crop(name: str, image: ImageResult, verdict: Verdict, evaluation: Evaluation) -> Html | None:
    pixels = read_image(image.path)
    if pixels is None:
        return None
    drawn, words = [], []
    if verdict.target is not None:
        true_name = class_name(evaluation.classes, int(image.true_labels[verdict.target]))
        look = "missed" if verdict.box is None else "truth"
        drawn.append(Box(image.true_boxes[verdict.target], "", look))
        words.append(f"is {true_name}")
    if verdict.box is not None:
        name_found = class_name(evaluation.classes, int(image.labels[verdict.box]))
        drawn.append(Box(image.boxes[verdict.box], "", "wrong"))
        words.insert(0, f"{name_found} {image.scores[verdict.box]:.2f}")
        if verdict.target is not None:
            words.append(f"IoU {_down(verdict.iou)}")
    shot = photo(pixels, _surroundings(drawn, pixels.shape[:2]), longest=_CROP)
    file = image.path.replace("\\", "/").rpartition("/")[2]
    label = f"{verdict.kind.value}: {', '.join(words)} ({file})"
    picture = drawing(name, shot.region, drawn, label, line=0.016)
    caption = el("figcaption", ", ".join(words), title=file)
    return el("figure", symbol(name, shot), picture, caption)


def _down(iou: float) -> str:
    """Two digits, rounded down: what is below a threshold must not read as if it reached it."""
    return f"{math.floor(iou * 100 + 1e-9) / 100:.2f}"


def _surroundings(boxes: Sequence[Box], shape: tuple[int, int]) -> tuple[float, ...]:
    """The square around boxes, within the image as far as it goes."""
    height, width = shape
    corners = np.array([box.xyxy for box in boxes], dtype=float)
    (x1, y1), (x2, y2) = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
    side = max(x2 - x1, y2 - y1) * (1 + 2 * _MARGIN)
    side = min(max(side, _SMALLEST * max(width, height)), max(width, height))
    left = np.clip((x1 + x2 - side) / 2, 0, max(width - side, 0))
    top = np.clip((y1 + y2 - side) / 2, 0, max(height - side, 0))
    return (left, top, min(left + side, width), min(top + side, height))
