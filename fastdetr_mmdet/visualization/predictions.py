"""A grid of images, ground truth beside predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import patches
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Picture:
    """One image with its boxes.

    Shape:
        image: (h, w, 3) uint8 RGB
        true_boxes, boxes: (n, 4) pixel xyxy
        true_labels, labels: (n,) class indices
        scores: (n,) in [0, 1]
    """

    image: np.ndarray
    true_boxes: np.ndarray
    true_labels: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray


def draw_predictions(
    pictures: Sequence[Picture],
    classes: Sequence[str],
    path: str | Path,
    min_score: float = 0.3,
    columns: int = 3,
) -> None:
    """Write one picture: per image its ground truth (left) and predictions of min_score and up."""
    rows = max(-(-len(pictures) // columns), 1)
    figure = Figure(figsize=(4.6 * columns, 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, 2 * columns, squeeze=False)
    colormap = matplotlib.colormaps["tab10" if len(classes) <= 10 else "tab20"]
    colours = [colormap(i) for i in range(colormap.N)]
    for axis in axes.flat:
        axis.axis("off")
        axis.set_anchor("N")  # images of different shapes hang from one line
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        left, right = axes[row, 2 * column], axes[row, 2 * column + 1]
        left.imshow(picture.image)
        right.imshow(picture.image)
        for box, label in zip(picture.true_boxes, picture.true_labels, strict=True):
            _box(left, box, classes[label], colours[label % len(colours)])
        kept = picture.scores >= min_score
        order = np.argsort(picture.scores[kept])  # the surest on top
        for i in order:
            label = picture.labels[kept][i]
            text = f"{classes[label]} {picture.scores[kept][i]:.2f}"
            _box(right, picture.boxes[kept][i], text, colours[label % len(colours)])
        if row == 0:
            left.set_title("ground truth", fontsize=9)
            right.set_title(f"predictions, score >= {min_score:g}", fontsize=9)
    figure.savefig(path, dpi=110)


def _box(axis, box: np.ndarray, text: str, colour) -> None:
    x1, y1, x2, y2 = box
    axis.add_patch(
        patches.Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.5)
    )
    axis.text(
        x1,
        max(y1, 0),
        text,
        fontsize=5.5,
        color="white",
        verticalalignment="top",
        clip_on=True,
        bbox=dict(facecolor=colour, edgecolor="none", pad=0.6, alpha=0.85),
    )
