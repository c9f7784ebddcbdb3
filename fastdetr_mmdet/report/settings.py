"""How much a report shows; also the defaults of the command line."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """How much a report shows.

    Args:
        predictions: Whether checkpoints are run at all.
        max_images: Evaluate only the first so many; None: the whole validation set.
        images: Sample images per data set.
        sheets: Attention contact sheets per run.
        examples: Of each group of errors and run.
        queries: Detections in a contact sheet.
        min_score: Boxes below are neither drawn nor counted as errors.
        checkpoint: ``best`` (if the training kept one, else the last) or ``last``.
        device: As torch names it; None: a GPU if there is one.
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
        """Fewer pictures of each run if there are many, so that the file stays small."""
        if number <= 3:
            return self
        most = dict(images=4, sheets=1, examples=3)
        return replace(self, **{key: min(getattr(self, key), n) for key, n in most.items()})
