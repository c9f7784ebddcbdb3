"""Amount of content in a report, with the defaults of the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """Amount of content in a report.

    Args:
        predictions: Whether checkpoints are evaluated.
        max_images: Number of images to evaluate; None: the whole validation set.
        images: Sample images per dataset.
        sheets: Attention contact sheets per run.
        examples: Pictures per type of error and run.
        queries: Detections per contact sheet.
        min_score: Boxes with lower scores are ignored.
        checkpoint: ``best`` (the last if there is no best) or ``last``.
        device: torch device; None: a GPU if available.
    """

    predictions: bool = True
    max_images: int | None = None
    images: int = 8
    sheets: int = 2
    examples: int = 6
    queries: int = 4
    min_score: float = 0.3
    checkpoint: str = "best"
    device: str | None = None

    def for_runs(self, number: int) -> Settings:
        """Fewer pictures per run if there are many runs, to keep the file small."""
        if number <= 3:
            return self
        most = dict(images=4, sheets=1, examples=3)
        return replace(self, **{key: min(getattr(self, key), n) for key, n in most.items()})
