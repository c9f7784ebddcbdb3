"""Detections and ground truth of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class ImageResult:
    """Ground truth and detected boxes of one image.

    Shape:
        true_boxes, boxes: (n, 4) pixel xyxy of the original image
        true_labels, labels: (n,) class indices
        crowd: (n,) bool, True for crowds
        scores: (n,) in [0, 1], descending
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
        """Name of the image file, without its folder."""
        return self.path.replace("\\", "/").rpartition("/")[2]
