"""Measure how time and memory of a training step grow.

By image side, and number of queries, objects and images; writes one plot and one JSON file.
"""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from .batches import make_batch
from .cases import CASES, Side, build
from .clocks import seconds
from .command_line import parser, quiet
from .work import training_step

# Values of the dimensions that do not grow.
USUAL = dict(side=320, queries=300, objects=7, batch=1)
STEPS: dict[str, list[int]] = dict(
    side=[160, 320, 480, 640],
    queries=[100, 300, 600, 900],
    objects=[0, 7, 50, 200],
    batch=[1, 2, 4],
)
AXES = dict(
    side="image side, pixels", queries="queries", objects="objects an image", batch="images"
)
# Okabe and Ito's colours, distinguishable with colour blindness.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7"]


def measure(name: str, queries: int, side: int, objects: int, batch: int, rounds: int) -> dict:
    """Milliseconds of a training step, and MiB that its forward pass keeps for gradients."""
    model = build(name, "ours", num_queries=queries)
    data = make_batch(batch, (side, side), objects)
    step = training_step(model, data, "cpu", "fp32")
    step()
    took = statistics.median(seconds(step, 1, "cpu") for _ in range(rounds))
    return dict(ms=round(took * 1e3, 1), mib=round(kept(model, data) / 2**20, 1))


def kept(side: Side, data: Any) -> int:
    """Bytes that the loss's graph holds, without parameters."""
    parameters = {p.untyped_storage().data_ptr() for p in side.model.parameters()}
    sizes: dict[int, int] = {}
    held = []  # else an address could be reused

    def note(x: torch.Tensor) -> torch.Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        held.append(x)
        return x.detach()  # a node that holds its own result would never be freed

    side.model.train()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        side.model(data.images, data.samples, mode="loss")
    held.clear()  # breaks a reference cycle with the graph, which Python cannot see
    return sum(sizes.values())


def plot(rows: list[dict], path: Path, title: str) -> None:
    """Plot one column per dimension: time above, memory below, both from zero."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    columns = list(dict.fromkeys(row["grows"] for row in rows))
    size = (1.5 + 3 * len(columns), 6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, len(columns), sharey="row", squeeze=False)
    for column, grows in enumerate(columns):
        for colour, model in zip(COLOURS, models, strict=False):
            own = [r for r in rows if r["model"] == model and r["grows"] == grows]
            for row, key in enumerate(("ms", "mib")):
                x, y = [r["value"] for r in own], [r[key] for r in own]
                axes[row, column].plot(x, y, "o-", color=colour, label=model)
        axes[1, column].set_xlabel(AXES[grows])
    axes[0, 0].set_ylabel("training step, ms")
    axes[1, 0].set_ylabel("kept for gradients, MiB")
    for axis in axes.flat:
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].legend(frameon=False)
    figure.suptitle(title, wrap=True)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, draw."""
    options = parser(__file__, __doc__)
    add = options.add_argument
    models = ["conditional-detr", "deformable-detr", "smca-detr", "sam-detr"]
    add("--models", nargs="+", choices=list(CASES), default=models, help="models to measure")
    add("--grows", nargs="+", choices=list(STEPS), default=list(STEPS), help="what grows")
    add("--steps", type=int, help="how many values of each (default: all)")
    add("--rounds", type=int, default=3, help="repetitions; the median counts")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--out", type=Path, default=Path("work_dirs/growth"), help="folder to write to")
    args = options.parse_args(arguments)
    quiet()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.models:
        for grows in args.grows:
            for value in STEPS[grows][: args.steps]:
                found = measure(name, rounds=args.rounds, **(USUAL | {grows: value}))
                rows.append(dict(model=name, grows=grows, value=value, **found))
                print(json.dumps(rows[-1]), flush=True)
    title = f"Training step on {args.threads} CPU threads; else " + ", ".join(
        f"{v} {AXES[k].split(',')[0]}" for k, v in USUAL.items()
    )
    plot(rows, args.out / "growth.png", title)
    (args.out / "growth.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(f"written: {args.out / 'growth.png'}, {args.out / 'growth.json'}")


if __name__ == "__main__":
    main()
