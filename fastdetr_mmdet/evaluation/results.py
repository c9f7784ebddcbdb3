"""Detections on one image beside its ground truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ImageResult:
    """Ground truth and boxes of one image.

    Shape:
        true_boxes, boxes: (n, 4) pixel xyxy of the original image
        true_labels, labels: (n,) class indices
        crowd: (n,) bool, True for groups of objects that are not counted one by one
        scores: (n,) in [0, 1], falling
    """

    image_id: Any
    path: str
    true_boxes: np.ndarray
    true_labels: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    @property
    def file(self) -> str:
        """The name of the image's file, without its folder."""
        return self.path.replace("\\", "/").rpartition("/")[2]
