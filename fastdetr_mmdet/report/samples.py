"""Boxes beside ground truth, on the same images for all runs of a data set."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..evaluation.error_types import Kind, judge
from ..evaluation.evaluate import Evaluation
from ..evaluation.results import ImageResult
from .chart import look_of
from .markup import Html, el, join
from .pictures import Box, drawing, photo, read_image, symbol
from .run import Run
from .score_hint import score_hints

_WIDTH = 400  # pixels of a photograph's longer side
_TAG = 24  # characters of a class name


def sample_section(runs: Sequence[Run], number: int, min_score: float) -> Html:
    """Images with ground truth and with each run's boxes.

    Args:
        runs: All; those that were not evaluated have no pictures.
        number: Of images per data set.
        min_score: Boxes below are not drawn.
    """
    groups: dict[str, list[tuple[int, Run]]] = {}
    for index, run in enumerate(runs):
        if run.evaluation is not None:
            groups.setdefault(run.evaluation.dataset, []).append((index, run))
    if not groups or not number:
        return el("p", "No checkpoint was run, so there are no boxes to show.", cls="empty")
    parts: list[Html] = [_legend(min_score), *score_hints(runs, min_score)]
    for group, (dataset, members) in enumerate(groups.items()):
        if len(groups) > 1:
            parts.append(el("h3", dataset))
        first = members[0][1].evaluation
        assert first is not None
        shown = spread(first.images, number)
        rows = [_row(f"i{group}-{n}", image, members, min_score) for n, image in enumerate(shown)]
        # as many samples beside each other as their pictures leave room for
        narrow = f"--least:{230 * (1 + len(members))}px;--columns:{1 + len(members)}"
        parts.append(el("div", rows, cls="samples", style=narrow))
        parts.append(
            el(
                "p",
                f"{_images(len(shown))}, spread evenly over the {len(first.images)} that were "
                "evaluated and have objects; not chosen by how they came out.",
                cls="note",
            )
        )
    return join(parts)


def spread(images: Sequence[ImageResult], number: int) -> list[ImageResult]:
    """So many images, evenly from the first to the last; those with objects if there are any."""
    with_objects = [image for image in images if len(image.true_boxes)] or list(images)
    places = np.linspace(0, len(with_objects) - 1, min(number, len(with_objects)))
    return [with_objects[int(place)] for place in places.round()]


def class_name(classes: Sequence[str], label: int) -> str:
    """The name of a label, cut where it is very long."""
    name = classes[label] if 0 <= label < len(classes) else f"class {label}"
    return name if len(name) <= _TAG else name[: _TAG - 1] + "…"


def predicted_boxes(
    image: ImageResult, classes: Sequence[str], min_score: float
) -> tuple[list[Box], int]:
    """Boxes to draw, the surest on top, and how many errors there are among them."""
    verdicts = judge(
        image.boxes,
        image.labels,
        image.scores,
        image.true_boxes,
        image.true_labels,
        image.crowd,
        min_score,
    )
    boxes, errors = [], 0
    for verdict in reversed(verdicts):
        errors += verdict.kind is not Kind.CORRECT
        if verdict.box is None:
            assert verdict.target is not None
            boxes.append(Box(image.true_boxes[verdict.target], "", "missed"))
        else:
            name = class_name(classes, int(image.labels[verdict.box]))
            text = f"{name} {image.scores[verdict.box]:.2f}"
            look = "right" if verdict.kind is Kind.CORRECT else "wrong"
            boxes.append(Box(image.boxes[verdict.box], text, look))
    return boxes, errors


def _images(number: int) -> str:
    return "1 image" if number == 1 else f"{number} images"


def _row(name: str, image: ImageResult, runs: list[tuple[int, Run]], min_score: float) -> Html:
    file = image.path.replace("\\", "/").rpartition("/")[2]
    pixels = read_image(image.path)
    if pixels is None:
        return el("p", f"{file} could not be read as an image.", cls="empty")
    shot = photo(pixels, longest=_WIDTH)
    first = runs[0][1].evaluation
    assert first is not None
    truth = [
        Box(box, class_name(first.classes, int(label)), "truth")
        for box, label in zip(image.true_boxes, image.true_labels, strict=True)
    ]
    caption = f"ground truth, {len(truth)} object{'' if len(truth) == 1 else 's'}"
    cells = [_cell(drawing(name, shot.region, truth, f"{file}, ground truth"), caption)]
    for number, run in runs:
        assert run.evaluation is not None
        found = _same_image(run.evaluation, image)
        if found is None:
            cells.append(_cell(el("p", "This run has not seen the image.", cls="empty"), run.name))
            continue
        boxes, errors = predicted_boxes(found, run.evaluation.classes, min_score)
        swatch = el("span", "", cls=f"swatch {look_of(number)}")
        label = join([swatch, run.name, f", {errors} error{'' if errors == 1 else 's'}"])
        cells.append(_cell(drawing(name, shot.region, boxes, f"{file}, {run.name}"), label))
    head = el("h4", file)
    return el("section", head, symbol(name, shot), el("div", cells, cls="pictures"), cls="sample")


def _same_image(evaluation: Evaluation, image: ImageResult) -> ImageResult | None:
    same = (other for other in evaluation.images if other.image_id == image.image_id)
    return next((other for other in same if other.path == image.path), None)


def _cell(content: Html, caption: Html | str) -> Html:
    return el("figure", content, el("figcaption", caption))


def _legend(min_score: float) -> Html:
    keys = [
        ("truth", "ground truth"),
        ("right", "correct box"),
        ("wrong", "box in error"),
        ("missed", "missed object"),
    ]
    entries = [el("span", el("span", "", cls=f"key {look}"), text) for look, text in keys]
    return el(
        "p", entries, el("span", f"Boxes with a score of {min_score:g} and up."), cls="legend"
    )
