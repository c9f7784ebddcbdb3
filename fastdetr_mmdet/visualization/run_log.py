"""What mmengine's runner wrote about a training run, read back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class RunLog:
    """Scalars of one training run.

    ``losses`` maps a loss's name to (epoch, value) pairs, epochs counted in fractions;
    ``metrics`` maps a metric's name (``coco/bbox_mAP``) to (epoch, value) pairs.
    """

    losses: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    metrics: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def read_run_log(work_dir: str | Path) -> RunLog:
    """Read the newest training run's ``vis_data/scalars.json`` in a work directory.

    Raises:
        FileNotFoundError: if no training run has left a log there.
    """
    work_dir = Path(work_dir)
    for path in sorted(work_dir.glob("*/vis_data/scalars.json"), reverse=True):
        log = _parse(path)
        if log.losses:  # test runs leave a file too, without losses
            return log
    raise FileNotFoundError(
        f"No training log (*/vis_data/scalars.json with losses) in {work_dir}; train first: "
        f"mim train fastdetr_mmdet CONFIG --work-dir {work_dir}"
    )


def _parse(path: Path) -> RunLog:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    train = [row for row in rows if "loss" in row]
    log = RunLog()
    # `epoch` counts from 1 and holds for the whole epoch; iterations place a row within it
    last: dict[int, int] = {}
    for row in train:
        last[row["epoch"]] = max(last.get(row["epoch"], 0), row["iter"])
    for row in train:
        epoch = row["epoch"]
        first = last.get(epoch - 1, 0)
        share = (row["iter"] - first) / max(last[epoch] - first, 1)
        for name, value in row.items():
            if name == "loss" or name.startswith("loss_"):
                log.losses.setdefault(name, []).append((epoch - 1 + share, value))
    for row in rows:
        if "loss" not in row:
            for name, value in row.items():
                if "/" in name and value >= 0:  # COCO reports -1 for a size that has no objects
                    log.metrics.setdefault(name, []).append((float(row["step"]), value))
    return log
