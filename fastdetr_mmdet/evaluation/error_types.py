"""Classify detections and missed objects by type of error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from pycocotools import mask

from .results import ImageResult

PLACED = 0.5  # lowest IoU of a well-placed box
NEAR = 0.1  # lowest IoU of a badly placed box


class Kind(Enum):
    """Types of boxes and missed objects."""

    CORRECT = "correct"
    DUPLICATE = "duplicate"
    WRONG_CLASS = "wrong class"
    BADLY_PLACED = "badly placed"
    BOTH = "wrong class and badly placed"
    BACKGROUND = "background"
    MISSED = "missed"


EXPLANATIONS = {
    Kind.CORRECT: f"IoU of at least {PLACED} with an object of its class; no box with a higher "
    "score has taken the object.",
    Kind.DUPLICATE: f"IoU of at least {PLACED} with an object of its class that a box with a "
    "higher score has taken.",
    Kind.WRONG_CLASS: f"IoU of at least {PLACED} with an object, but of another class.",
    Kind.BADLY_PLACED: f"IoU between {NEAR} and {PLACED} with an object of its class.",
    Kind.BOTH: f"IoU between {NEAR} and {PLACED} with an object, but of another class.",
    Kind.BACKGROUND: f"IoU below {NEAR} with every object.",
    Kind.MISSED: "An object that no box has taken, and for which there is no badly placed box and "
    "none of a wrong class.",
}


@dataclass(frozen=True)
class Verdict:
    """The type of one box or one missed object.

    Args:
        kind: The type.
        box: Index of the box, or None for a missed object.
        target: Index of the object that the box is compared with, or None on background.
        iou: IoU of box and object; 0 if there is only one.
    """

    kind: Kind
    box: int | None
    target: int | None
    iou: float = 0.0


def judge(image: ImageResult, min_score: float = 0.3) -> list[Verdict]:
    """Classify the boxes of an image, and find missed objects.

    Boxes with a score of at least ``min_score`` take objects of their class in the order of scores,
    each the remaining object with the highest IoU. Other boxes get the first type that fits of
    duplicate, wrong class, badly placed, both, background. The types are those of TIDE (Bolya et
    al. 2020, arXiv:2008.08115), counted at one score threshold instead of weighted by AP.

    Crowds are never missed. A box with half of its area in a crowd is ignored unless it is correct.
    """
    boxes, labels, scores = image.boxes, image.labels, image.scores
    true_boxes, true_labels, crowd = image.true_boxes, image.true_labels, image.crowd
    kept = np.flatnonzero(scores >= min_score)
    kept = kept[np.argsort(-scores[kept], kind="stable")]
    overlaps = overlaps_of(boxes, true_boxes, crowd)
    inside = overlaps[:, crowd].max(axis=1, initial=0.0)
    taken = np.zeros(len(true_boxes), dtype=bool)
    verdicts, left = [], []
    for box in kept:
        same = (true_labels == labels[box]) & ~crowd
        target = _best(overlaps[box], same & ~taken, PLACED)
        if target is None:
            left.append(box)
        else:
            taken[target] = True
            verdicts.append(Verdict(Kind.CORRECT, int(box), target, float(overlaps[box, target])))
    meant = taken.copy()
    for box in left:
        if inside[box] >= PLACED:
            continue
        verdict = _error(int(box), overlaps[box], (true_labels == labels[box]) & ~crowd, ~crowd)
        if verdict.kind in (Kind.WRONG_CLASS, Kind.BADLY_PLACED):
            meant[verdict.target] = True
        verdicts.append(verdict)
    missed = np.flatnonzero(~meant & ~crowd)
    return verdicts + [Verdict(Kind.MISSED, None, int(target)) for target in missed]


def overlaps_of(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """IoU; with crowds, intersection over the box's area; 0 for boxes without area.

    Shape:
        boxes, others: (n, 4) and (m, 4) pixel xyxy
        crowd: (m,) bool
        returns: (n, m)
    """
    if not len(boxes) or not len(others):
        return np.zeros((len(boxes), len(others)))
    first, second = (
        np.hstack([b[:, :2], b[:, 2:] - b[:, :2]]).astype(float) for b in (boxes, others)
    )
    return mask.iou(first, second, crowd.astype(np.uint8))


def _error(box: int, overlaps: np.ndarray, same: np.ndarray, real: np.ndarray) -> Verdict:
    """The first type that fits a box without an object."""
    other = real & ~same
    for kind, among, least in (
        (Kind.DUPLICATE, same, PLACED),
        (Kind.WRONG_CLASS, other, PLACED),
        (Kind.BADLY_PLACED, same, NEAR),
        (Kind.BOTH, other, NEAR),
    ):
        target = _best(overlaps, among, least)
        if target is not None:
            return Verdict(kind, box, target, float(overlaps[target]))
    return Verdict(Kind.BACKGROUND, box, None)


def _best(overlaps: np.ndarray, among: np.ndarray, least: float) -> int | None:
    """The object with the highest IoU, if at least ``least``."""
    candidates = np.where(among, overlaps, -1.0)
    return int(candidates.argmax()) if candidates.max(initial=-1.0) >= least else None
