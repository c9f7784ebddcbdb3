"""Writes the results of a comparison: picture, table, JSON and CSV."""

from __future__ import annotations

import csv
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from .notes import notes_on
from .plot import plot_convergence
from .reference import Reference
from .results import Curve, rounded, summarise
from .table import markdown_table


def write_results(
    out: Path,
    curves: Sequence[Curve],
    budget: dict[str, Any],
    targets: Sequence[float] | None = None,
    references: Sequence[Reference] = (),
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write ``convergence.json``, ``.md``, ``.png`` and ``curves.csv``; return their paths.

    Notes stand below the table and in the JSON, after those on unfinished and failed runs.
    """
    summaries = summarise(curves, targets)
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / f"convergence.{kind}" for kind in ("md", "png", "json")] + [out / "curves.csv"]
    notes = [*notes_on(curves, summaries), *notes]
    below = "".join(f"- {note}.\n" for note in notes)
    paths[0].write_text(markdown_table(summaries) + (f"\n{below}" if below else ""))
    plot_convergence(summaries, curves, paths[1], references)
    data = {
        "budget": budget,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": _versions(),
        "notes": notes,
        "summary": [asdict(summary) for summary in summaries],
        "runs": [asdict(curve) for curve in curves],
        "references": [asdict(reference) for reference in references],
    }
    paths[2].write_text(_compact(rounded(data)))
    with paths[3].open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["config", "seed", "epoch", "ap", "ap50", "minutes", "cpu_minutes"])
        for curve in curves:
            for point in curve.points:
                writer.writerow([curve.name, curve.seed, *rounded(list(asdict(point).values()))])
    return paths


def _compact(data: dict[str, Any]) -> str:
    """JSON with one line per run, summary and so on: small, and readable in a diff."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            lines = ",\n".join(f"  {json.dumps(item)}" for item in value)
            parts.append(f"{json.dumps(key)}: [\n{lines}\n ]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    found["fastdetr_mmdet"] = metadata.version("fastdetr_mmdet")
    for name in ("torch", "mmengine", "mmcv", "mmdet"):
        found[name] = __import__(name).__version__
    return found
