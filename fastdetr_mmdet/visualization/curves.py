"""Loss and AP against epochs."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .run_log import RunLog

LOSSES = {"loss": "total", "loss_cls": "class", "loss_bbox": "L1", "loss_iou": "GIoU"}
METRICS = {
    "coco/bbox_mAP": "AP",
    "coco/bbox_mAP_50": "AP50",
    "coco/bbox_mAP_75": "AP75",
    "coco/bbox_mAP_s": "AP small",
    "coco/bbox_mAP_m": "AP medium",
    "coco/bbox_mAP_l": "AP large",
}


def plot_curves(log: RunLog, path: str | Path, title: str = "") -> None:
    """Write a picture of two panels: losses (of all layers and of the last) and COCO AP."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, label in LOSSES.items():
        if name in log.losses:
            epochs, values = zip(*log.losses[name], strict=True)
            suffix = ", all layers" if name == "loss" else ", last layer"
            left.plot(epochs, values, label=label + suffix)
    left.set(xlabel="epoch", ylabel="loss", yscale="log", title="Training loss")
    for name, label in METRICS.items():
        if name in log.metrics:
            epochs, values = zip(*log.metrics[name], strict=True)
            bold = name in ("coco/bbox_mAP", "coco/bbox_mAP_50")
            right.plot(
                epochs,
                values,
                label=f"{label} ({values[-1]:.3f})",
                marker="o",
                markersize=3,
                linewidth=2 if bold else 1,
                linestyle="-" if bold else "--",
            )
    right.set(xlabel="epoch", ylabel="COCO AP", ylim=(0, 1), title="Validation")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if axis.lines:
            axis.legend(fontsize=8)
    if title:
        figure.suptitle(title)
    figure.savefig(path, dpi=110)
