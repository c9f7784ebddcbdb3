"""Measure how much the batch changes an image's scores: ``python tests/batch_report.py``.

Small models of the shipped configs with random weights; three images of different sizes, padded to
one batch, compared with the same images alone. See docs/inference.md.
"""

from __future__ import annotations

import conftest  # noqa: F401 (sets up mmdet's registries)
import torch
from support.models import make_batch
from support.small import CONFIGS, small_detector
from torch import nn

SIZES = ((96, 130), (150, 101), (120, 120))


@torch.no_grad()
def worst_difference(detector: nn.Module) -> float:
    """Worst difference of sorted scores."""
    inputs, samples = make_batch(SIZES, objects=0)
    together = [s.pred_instances.scores.clone() for s in detector.predict(inputs, samples)]
    worst = 0.0
    for image, (h, w) in enumerate(SIZES):
        cut = inputs[image : image + 1, :, :h, :w]
        (alone,) = detector.predict(cut, samples[image : image + 1])
        difference = (alone.pred_instances.scores - together[image]).abs().max()
        worst = max(worst, float(difference))
    return worst


def main() -> None:
    """Print the table."""
    print("| config | default | ignore_padding | separate_sizes |\n|---|---|---|---|")
    for name in CONFIGS:
        detector = small_detector(name)
        row = [f"{worst_difference(detector):.1e}"]
        parts = [part for part in detector.modules() if hasattr(part, "ignore_padding")]
        for part in parts:
            part.ignore_padding = True
        row.append(f"{worst_difference(detector):.1e}" if parts else "no such part")
        detector.separate_sizes = True
        row.append(f"{worst_difference(detector):.1e}")
        print(f"| {name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
