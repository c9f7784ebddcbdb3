"""What to do where a run's boxes are all below the score that counts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .markup import Html, el
from .run import Run

_SHARE = 0.8  # of the surest score: more than one box is to be seen


def score_hints(runs: Sequence[Run], min_score: float) -> list[Html]:
    """A paragraph per evaluated run none of whose boxes counts; the others need none.

    Args:
        runs: All.
        min_score: Boxes below are neither drawn nor counted, in [0, 1].
    """
    hints = []
    for run in runs:
        if run.evaluation is None:
            continue
        surest = max((float(i.scores.max(initial=0.0)) for i in run.evaluation.images), default=0.0)
        if surest >= min_score and surest > 0:
            continue
        if surest == 0:
            text = [f"{run.name} has found no box at all."]
        else:
            text = [
                f"No box of {run.name} reaches a score of {min_score:g} (the surest has "
                f"{_floor(surest, 2):g}): to see some, give ",
                el("code", f"--min-score {_floor(surest * _SHARE, 1):g}"),
                ".",
            ]
        hints.append(el("p", text, cls="hint"))
    return hints


def _floor(value: float, digits: int) -> float:
    """Rounded down to so many significant digits: never said to reach what it does not."""
    places = digits - 1 - math.floor(math.log10(value))
    return round(math.floor(value * 10.0**places) / 10.0**places, max(places, 0))
