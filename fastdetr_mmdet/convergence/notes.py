"""What a reader of the figures has to know about runs that are not at their end."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Curve, Summary


def notes_on(curves: Sequence[Curve], summaries: Sequence[Summary]) -> list[str]:
    """Sentences on unfinished and failed runs and on targets, in the order of the configs."""
    notes = []
    by_name = {summary.name: summary for summary in summaries}
    for name in dict.fromkeys(curve.name for curve in curves):
        runs = [curve for curve in curves if curve.name == name]
        short = [curve for curve in runs if curve.failed or curve.trained < curve.epochs]
        if short:
            states = ", ".join(map(_state, short))
            notes.append(f"{name}: {states}; {_extent(by_name.get(name), len(runs))}")
    if summaries and not summaries[0].reached:
        notes.append(
            "No config has a mean AP of 0.001 yet, so there is no target to compare by; "
            "--target AP sets one"
        )
    return notes


def _state(curve: Curve) -> str:
    has = f"seed {curve.seed} has {curve.trained} of {curve.epochs} epochs"
    return f"{has} and failed" if curve.failed else has


def _extent(summary: Summary | None, runs: int) -> str:
    if summary is None:
        return "no figures yet, since none is validated"
    only = ""
    if len(summary.seeds) < runs:
        only = f", only of seed {', '.join(map(str, summary.seeds))}"
    if not summary.epochs:
        return f"no mean, since no epoch is validated with every seed{only}"
    return f"figures up to epoch {summary.epochs[-1]}{only}"
