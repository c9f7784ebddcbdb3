"""Format rows of the comparison as Markdown: ``python -m benchmarks.table LOG``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path


def markdown(rows: Sequence[dict], title: str) -> str:
    """Table with one line per measurement; ratios: median (minimum to maximum) over rounds."""
    lines = [f"{title}", ""]
    lines += [
        "| model | what | type | batch | this package | compared with | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        what = row["what"] + (f", {row['objects']} objects an image" if "objects" in row else "")
        what += ", compiled" if row.get("mode") == "compiled" else ""
        ours, theirs, ratio = _cells(row)
        against = f"{theirs} ({row['beside']})"
        cells = [row["model"], what, row["dtype"], str(row["batch"]), ours, against, ratio]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(row: dict) -> tuple[str, str, str]:
    if row["what"] == "launches":
        pairs = [
            ", ".join(f"{n} {name}" for name, n in row[side].items() if n)
            for side in ("ours", "theirs")
        ]
        ratio = row["ours"]["operators"] / row["theirs"]["operators"]
        return pairs[0], pairs[1], f"{ratio:.2f} of the operators"
    unit = "MiB" if row["what"] == "memory" else "ms"
    key = unit.lower()
    digits = 1 if row[f"ours_{key}"] < 100 else 0
    ours, theirs = (f"{row[f'{side}_{key}']:.{digits}f} {unit}" for side in ("ours", "theirs"))
    ratio = f"{row['ratio_median']:.2f} ({row['ratio_min']:.2f} to {row['ratio_max']:.2f})"
    return ours, theirs, ratio


if __name__ == "__main__":
    lines = Path(sys.argv[1]).read_text().splitlines()
    print(markdown([json.loads(x) for x in lines if x.startswith('{"model"')], "Measured:"))
