"""Draw boxes beside ground truth, and examples of every type of error."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.error_types import Kind, Verdict, judge
from ..evaluation.evaluate import Evaluation
from ..evaluation.results import ImageResult
from .pictures import Box, Drawing, make_photo, read_image
from .runs import Run

ERRORS = [kind for kind in Kind if kind is not Kind.CORRECT]
_TAG = 24  # characters of a class name
_SAMPLE, _CROP = 400, 200  # pixels of a picture's longer side
_MARGIN = 0.5  # of the boxes' size, on each side of a crop
_SMALLEST = 0.2  # minimum size of a crop, relative to the image's longer side
_SHARE = 0.8  # suggested --min-score, relative to the highest score


@dataclass(frozen=True)
class Sample:
    """An image with its ground truth, and each run's drawing with the number of errors.

    None for runs that did not evaluate the image; no drawings if it is unreadable.
    """

    file: str
    truth: Drawing | None
    runs: list[tuple[Run, Drawing | None, int]]


@dataclass
class Errors:
    """Error counts of one run, with example pictures.

    Args:
        run: The run.
        objects: Number of objects, without crowds.
        counts: Boxes or objects per type.
        examples: Per type the number, and drawings with captions of some.
    """

    run: Run
    objects: int
    counts: Counter[Kind]
    examples: dict[Kind, list[tuple[Drawing, str]]]

    @property
    def total(self) -> int:
        """Number of all errors."""
        return sum(self.counts[kind] for kind in ERRORS)


def spread(images: Sequence[ImageResult], number: int) -> list[ImageResult]:
    """Choose images evenly from first to last, with objects if possible."""
    with_objects = [image for image in images if len(image.true_boxes)] or list(images)
    places = np.linspace(0, len(with_objects) - 1, min(number, len(with_objects)))
    return [with_objects[int(place)] for place in places.round()]


def make_samples(runs: Sequence[Run], number: int, min_score: float) -> Iterator[Sample]:
    """Draw the same images for all runs of a dataset."""
    evaluation = runs[0].evaluated
    for image in spread(evaluation.images, number):
        pixels = read_image(image.path)
        if pixels is None:
            yield Sample(image.file, None, [])
            continue
        photo = make_photo(pixels, longest=_SAMPLE)
        truth = [
            Box(box, _class_name(evaluation, label), "truth")
            for box, label in zip(image.true_boxes, image.true_labels, strict=True)
        ]
        drawings: list[tuple[Run, Drawing | None, int]] = []
        for run in runs:
            found = _same_image(run, image)
            if found is None:
                drawings.append((run, None, 0))
            else:
                boxes, errors = _predicted_boxes(run, found, min_score)
                drawings.append((run, Drawing(photo, boxes, f"{image.file}, {run.name}"), errors))
        yield Sample(image.file, Drawing(photo, truth, f"{image.file}, ground truth"), drawings)


def find_errors(run: Run, number: int, min_score: float) -> Errors:
    """Classify all boxes of a run, and draw examples of each type."""
    evaluation = run.evaluated
    found = [(image, v) for image in evaluation.images for v in judge(image, min_score)]
    examples: dict[Kind, list[tuple[Drawing, str]]] = {}
    for kind in ERRORS:
        members = sorted((f for f in found if f[1].kind is kind), key=lambda f: -_weight(*f))
        for member in members:
            if len(examples.get(kind, ())) == number:
                break
            crop = _crop(evaluation, *member)
            if crop is not None:
                examples.setdefault(kind, []).append(crop)
    objects = sum(int((~image.crowd).sum()) for image in evaluation.images)
    return Errors(run, objects, Counter(verdict.kind for _, verdict in found), examples)


def score_hint(run: Run, min_score: float) -> tuple[str, str] | None:
    """Suggest a lower --min-score for a run without boxes above it; else None."""
    scores = [float(image.scores.max(initial=0.0)) for image in run.evaluated.images]
    highest = max(scores, default=0.0)
    if highest == 0:
        return f"{run.name} found no boxes.", ""
    if highest >= min_score:
        return None
    text = f"No box of {run.name} has a score of {min_score:g}; the highest is"
    return f"{text} {_floor(highest, 2):g}.", f"--min-score {_floor(highest * _SHARE, 1):g}"


def _floor(value: float, digits: int) -> float:
    """Round down to significant digits, so that a score never seems to reach a threshold."""
    places = digits - 1 - math.floor(math.log10(value))
    return round(math.floor(value * 10.0**places) / 10.0**places, max(places, 0))


def _class_name(evaluation: Evaluation, label: int) -> str:
    """Class name of a label, shortened."""
    names = evaluation.classes
    name = names[label] if 0 <= label < len(names) else f"class {label}"
    return name if len(name) <= _TAG else name[: _TAG - 1] + "…"


def _same_image(run: Run, image: ImageResult) -> ImageResult | None:
    wanted = image.image_id, image.path
    return next((i for i in run.evaluated.images if (i.image_id, i.path) == wanted), None)


def _predicted_boxes(run: Run, image: ImageResult, min_score: float) -> tuple[list[Box], int]:
    """Boxes to draw, the top-scoring ones last, and the number of errors."""
    boxes, errors = [], 0
    for verdict in reversed(judge(image, min_score)):
        errors += verdict.kind is not Kind.CORRECT
        if verdict.box is None:
            boxes.append(Box(image.true_boxes[verdict.target], "", "missed"))
        else:
            text = f"{_class_name(run.evaluated, image.labels[verdict.box])} "
            text += f"{image.scores[verdict.box]:.2f}"
            look = "right" if verdict.kind is Kind.CORRECT else "wrong"
            boxes.append(Box(image.boxes[verdict.box], text, look))
    return boxes, errors


def _weight(image: ImageResult, verdict: Verdict) -> float:
    """Order of examples: boxes by score, missed objects by area."""
    if verdict.box is not None:
        return float(image.scores[verdict.box])
    x1, y1, x2, y2 = image.true_boxes[verdict.target]
    return float((x2 - x1) * (y2 - y1))


def _crop(
    evaluation: Evaluation, image: ImageResult, verdict: Verdict
) -> tuple[Drawing, str] | None:
    pixels = read_image(image.path)
    if pixels is None:
        return None
    boxes, words = [], []
    if verdict.target is not None:
        look = "missed" if verdict.box is None else "truth"
        boxes.append(Box(image.true_boxes[verdict.target], "", look))
        words.append(f"is {_class_name(evaluation, image.true_labels[verdict.target])}")
    if verdict.box is not None:
        boxes.append(Box(image.boxes[verdict.box], "", "wrong"))
        name = _class_name(evaluation, image.labels[verdict.box])
        words.insert(0, f"{name} {image.scores[verdict.box]:.2f}")
        if verdict.target is not None:
            # rounded down, so that an IoU never seems to reach a threshold
            words.append(f"IoU {math.floor(verdict.iou * 100 + 1e-9) / 100:.2f}")
    photo = make_photo(pixels, _surroundings(boxes, pixels.shape[:2]), longest=_CROP)
    caption = ", ".join(words)
    label = f"{verdict.kind.value}: {caption} ({image.file})"
    return Drawing(photo, boxes, label, 0.016), caption


def _surroundings(boxes: Sequence[Box], shape: tuple[int, int]) -> tuple[float, ...]:
    """A square around boxes, cut to the image."""
    size = np.array([*shape[::-1]])
    corners = np.concatenate([np.reshape(box.xyxy, (2, 2)) for box in boxes]).astype(float)
    low, high = corners.min(axis=0), corners.max(axis=0)
    side = np.clip((high - low).max() * (1 + 2 * _MARGIN), _SMALLEST * size.max(), size.max())
    start = np.clip((low + high - side) / 2, 0, np.maximum(size - side, 0))
    return (*start, *np.minimum(start + side, size))
