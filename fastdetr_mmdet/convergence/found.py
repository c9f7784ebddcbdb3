"""Finds the runs that a folder of a comparison holds, however they were started."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from .run import Run

_CONFIG = re.compile(r"(?P<name>.+)_seed_(?P<seed>-?\d+)\.py")


def find_runs(
    out: Path,
    names: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    epochs: int | None = None,
) -> tuple[list[Run], list[str]]:
    """The runs below a folder, seed by seed.

    Args:
        out: The comparison's folder.
        names: Of configs, in their order; none: all, in the order in which they were started.
        seeds: Which of them; None: all.
        epochs: Look at no more than these; None: at all that the runs are meant to have.

    Returns:
        The runs, and sentences on runs that are shown in part.

    Raises:
        FileNotFoundError: if the folder has no such run.
    """
    found: dict[tuple[str, int], Path] = {}
    files = list((out / "configs").glob("*_seed_*.py"))
    for path in sorted(files, key=lambda file: (file.stat().st_mtime_ns, file.name)):
        match = _CONFIG.fullmatch(path.name)
        if match:
            found[match["name"], int(match["seed"])] = path
    if not found:
        raise FileNotFoundError(
            f"{out} holds no runs of a comparison; give what --out was when they were started."
        )
    there = list(dict.fromkeys(name for name, _ in found))
    lacking = [name for name in names if name not in there]
    if lacking:
        raise FileNotFoundError(
            f"{out} holds no run of {', '.join(lacking)}; it has {', '.join(there)}."
        )
    runs, longer = [], dict[tuple[str, int], list[int]]()
    for seed in sorted({seed for _, seed in found}) if seeds is None else seeds:
        for name in names or there:
            if (name, seed) not in found:
                continue
            config = Config.fromfile(found[name, seed], import_custom_modules=False)
            planned = int(config.train_cfg.max_epochs)
            runs.append(Run(name, seed, min(epochs or planned, planned), out))
            if runs[-1].epochs < planned:
                longer.setdefault((name, planned), []).append(seed)
    if not runs:
        raise FileNotFoundError(
            f"{out} holds no run with seed {', '.join(map(str, seeds or []))}; it has seeds "
            f"{', '.join(map(str, sorted({seed for _, seed in found})))}."
        )
    notes = [
        f"{name}: set up for {planned} epochs (seed {', '.join(map(str, of))}), of which no more "
        f"than the first {epochs} are shown"
        for (name, planned), of in longer.items()
    ]
    return runs, notes
