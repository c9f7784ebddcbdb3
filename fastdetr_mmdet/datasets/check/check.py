"""The part of the check that needs the annotation file alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .boxes import check_boxes
from .entries import check_categories, check_images
from .read import NotCocoError, missing_lists
from .report import Report

MAX_ASPECT = 50.0


def check_annotations(
    coco: Any,
    source: str = "annotations",
    classes: Sequence[str] | None = None,
    evaluated: bool = True,
    max_aspect: float = MAX_ASPECT,
) -> Report:
    """Check parsed COCO annotations, of whatever content.

    Args:
        coco: What a JSON file held.
        source: The file's name, for messages.
        classes: ``metainfo.classes`` of a config; None: all categories are trained.
        evaluated: Whether the file may be used for evaluation, which asks for more.
        max_aspect: Longest side over shortest from which on a box or an image is absurd.

    Raises:
        NotCocoError: if one of COCO's three lists is missing.
    """
    missing = missing_lists(coco)
    if missing:
        raise NotCocoError(f"{source} is no COCO annotation file: {missing}.")
    report = Report(source, coco)
    images = check_images(report, max_aspect)
    categories = check_categories(report, classes)
    check_boxes(report, images, categories, evaluated, max_aspect)
    return report
