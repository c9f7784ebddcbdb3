"""Grid of images: ground truth beside predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import mmcv
import numpy as np
from matplotlib.figure import Figure

from ..evaluation.results import ImageResult
from .panels import box


def draw_predictions(
    images: Sequence[ImageResult],
    classes: Sequence[str],
    path: str | Path,
    min_score: float = 0.3,
    columns: int = 3,
) -> None:
    """Write one picture: per image ground truth (left) and predictions from min_score up."""
    rows = max(-(-len(images) // columns), 1)
    figure = Figure(figsize=(4.6 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("N")  # aligned at the top
    for (left, right), image in zip(axes.reshape(-1, 2), images, strict=False):
        for axis in (left, right):
            axis.imshow(mmcv.imread(image.path, channel_order="rgb"))
        _boxes(left, image.true_boxes, image.true_labels, [classes[n] for n in image.true_labels])
        kept = np.flatnonzero(image.scores >= min_score)[::-1]  # the top-scoring ones on top
        texts = [f"{classes[image.labels[n]]} {image.scores[n]:.2f}" for n in kept]
        _boxes(right, image.boxes[kept], image.labels[kept], texts)
    for left, right in axes[0].reshape(-1, 2)[: len(images)]:
        left.set_title("ground truth", fontsize=9)
        right.set_title(f"predictions, score >= {min_score:g}", fontsize=9)
    figure.savefig(path, dpi=110)


def _boxes(axis: Any, boxes: np.ndarray, labels: np.ndarray, texts: Sequence[str]) -> None:
    """Draw boxes, (n, 4) pixel xyxy, in the colours of their labels, with texts."""
    for corners, label, text in zip(boxes, labels, texts, strict=True):
        colour = matplotlib.colormaps["tab20"](2 * label % 20 + label // 10 % 2)
        box(axis, corners, colour, 1.5, path_effects=[])
        frame = dict(facecolor=colour, edgecolor="none", pad=0.6, alpha=0.85)
        place = corners[0], max(corners[1], 0)
        axis.text(*place, text, fontsize=5.5, color="white", va="top", clip_on=True, bbox=frame)
