"""The comparison as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from .results import Reached, Summary


def markdown_table(summaries: Sequence[Summary]) -> str:
    """One row per config; spreads are lowest to highest over the seeds, if these are several."""
    if not summaries:
        return "No run has been validated.\n"
    targets = [reached.target for reached in summaries[0].reached]
    head = ["config", "parameters", "AP at the end", "best mean AP"]
    head += [f"to AP {target:.3f}: epochs / CPU min / min" for target in targets]
    head += ["CPU s per epoch", "s per epoch"]
    rows = [head, ["---"] * len(head)]
    end = max((summary.epochs[-1] for summary in summaries if summary.epochs), default=0)
    for summary in summaries:
        spread = ""
        if summary.mean and len(summary.seeds) > 1:
            spread = f" ({summary.low[-1]:.3f} to {summary.high[-1]:.3f})"
        if summary.epochs and summary.epochs[-1] < max(end, summary.planned):
            spread += f", epoch {summary.epochs[-1]} only"
        best = max(range(len(summary.mean)), key=lambda i: summary.mean[i], default=None)
        row = [
            summary.name,
            f"{summary.parameters:,}",
            f"{summary.mean[-1]:.3f}{spread}" if summary.mean else "none yet",
            "none yet"
            if best is None
            else f"{summary.mean[best]:.3f} (epoch {summary.epochs[best]})",
        ]
        ended = bool(summary.epochs) and summary.epochs[-1] >= summary.planned
        row += [_reached(reached, ended) for reached in summary.reached]
        row += [
            f"{summary.cpu_minutes_per_epoch * 60:.1f}",
            f"{summary.minutes_per_epoch * 60:.1f}",
        ]
        rows.append(row)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _reached(reached: Reached, ended: bool) -> str:
    if reached.epochs is None:
        return "not reached" if ended else "not reached yet"
    cell = f"{reached.epochs:g} / {reached.cpu_minutes:.1f} / {reached.minutes:.1f}"
    if reached.runs < reached.of:
        cell += f" (only {reached.runs} of {reached.of} seeds)"
    return cell
