"""Compare speed with mmdet, with equal weights.

Both run in one process, in turns, so that the machine's load affects both. Reported is the median
of the ratios per round, with minimum and maximum. Every model has its own process, because earlier
allocations change how often the C library asks the kernel for memory, which can be a third of the
time.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from . import launches, memory, work
from .batches import Batch, make_batch
from .cases import BESIDE, CASES, Side, build_pair
from .clocks import Timing, alternate
from .command_line import parser, quiet
from .table import markdown

MEASURES = ("inference", "train", "criterion", "memory", "launches")
OBJECTS = (7, 50)


def compare(args: argparse.Namespace, report: Callable[[str], object] = print) -> list[dict]:
    """Measure all requested rows, in order."""
    rows = []
    for name in args.models:
        for dtype in args.dtypes:
            for batch_size in args.batches:
                common = dict(model=name, device=args.device, dtype=dtype, batch=batch_size)
                common |= dict(mode=args.mode, beside=beside(name))
                for row in _rows(args, name, dtype, batch_size):
                    rows.append({**common, **row})
                    report(json.dumps(rows[-1]))
    return rows


def beside(name: str) -> str:
    """Name of a model's counterpart."""
    return "mmdet" if CASES[name].mmdet else BESIDE


def _rows(
    args: argparse.Namespace, name: str, dtype: str, batch_size: int
) -> Iterator[dict[str, Any]]:
    device, size = args.device, tuple(args.image_size)
    pair = build_pair(name)
    for side in pair:
        side.model.to(device)
    batch = make_batch(batch_size, size, device=device)
    same = CASES[name].mmdet is not None
    if same:
        check_equal(*pair, batch)
    if args.mode == "compiled":
        for side in pair:
            side.model.forward = torch.compile(side.model.forward)

    def timed(kind: Callable, *more: Any) -> Timing:
        # separate batches, because models write detections into the samples
        calls = [kind(side, make_batch(batch_size, size, device=device), *more) for side in pair]
        return alternate(*calls, rounds=args.rounds, device=device)

    if "inference" in args.what:
        yield dict(what="inference", **timed(work.inference, device, dtype).row())
    if "criterion" in args.what and same and dtype == "fp32":
        for objects in OBJECTS:
            own = make_batch(batch_size, size, objects, device)
            given = work.predictions(pair[0], own)
            calls = [work.criterion(side, own, *given) for side in pair]
            timing = alternate(*calls, rounds=3 * args.rounds, device=device)
            yield dict(what="criterion", objects=objects, **timing.row())
    if "launches" in args.what:
        steps = [work.training_step(side, batch, device, dtype) for side in pair]
        ours, theirs = (launches.count(step, device) for step in steps)
        yield dict(what="launches", ours=ours, theirs=theirs)
    if "train" in args.what:
        yield dict(what="train", **timed(work.training_step, device, dtype).row())
    if "memory" in args.what:
        del pair
        yield dict(
            what="memory", ours_ms=None, theirs_ms=None, **_memory(args, name, dtype, batch_size)
        )


def _memory(args: argparse.Namespace, name: str, dtype: str, batch_size: int) -> dict[str, float]:
    others = (name, "mmdet") if CASES[name].mmdet else (BESIDE, "ours")
    rest = (batch_size, tuple(args.image_size), args.device, dtype, args.threads)
    pairs = [
        [memory.measure(*who, *rest) for who in ((name, "ours"), others)]
        for _ in range(min(args.rounds, 3))
    ]
    ours, theirs = zip(*pairs, strict=True)
    return Timing(ours, theirs).row(unit=1, name="mib")


def check_equal(ours: Side, theirs: Side, batch: Batch) -> None:
    """Raise AssertionError unless both predict the same; called before timing.

    Uses one thread, because the number of threads changes the last digits and so the order of
    proposals with equal scores. Disables TF32, CUDA's default for float32 convolutions.
    """
    outputs, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    for side in (ours, theirs):
        side.model.eval()
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            outputs.append(side.model(batch.images, batch.samples, mode="tensor")[:2])
    torch.set_num_threads(threads)
    for mine, other, tolerance in zip(*outputs, (1e-3, 1e-4), strict=True):
        torch.testing.assert_close(mine[-1], other[-1], rtol=0, atol=tolerance)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    options = parser(__file__, __doc__)
    add = options.add_argument
    add("--device", default="cpu", help="cpu or cuda")
    add("--models", nargs="+", choices=list(CASES), default=list(CASES), help="models to compare")
    add("--what", nargs="+", choices=MEASURES, default=list(MEASURES), help="what to measure")
    add("--rounds", type=int, default=5, help="repetitions")
    add("--mode", choices=["eager", "compiled"], default="eager", help="how models run")
    add("--image-size", type=int, nargs=2, metavar=("H", "W"),
        help="default: 480 640; cuda: 800 1333")  # fmt: skip
    add("--batches", type=int, nargs="+", help="batch sizes (default: 2; cuda: 1 4 8)")
    add("--dtypes", nargs="+", choices=list(work.DTYPES), help="default: fp32; cuda: all")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--json", type=Path, metavar="FILE", help="also write the rows to FILE")
    add("--markdown", type=Path, metavar="FILE", help="also write the table to FILE")
    args = options.parse_args(arguments)
    on_cuda = args.device.startswith("cuda")
    if on_cuda and not torch.cuda.is_available():
        options.error("there is no CUDA device here: leave --device out, or give --device cpu.")
    if args.rounds < 1:
        options.error("--rounds must be at least 1.")
    if args.device.split(":")[0] not in ("cpu", "cuda"):
        options.error(f"--device {args.device} is neither cpu nor cuda.")
    if args.what == ["criterion"] and not any(CASES[name].mmdet for name in args.models):
        options.error("mmdet has none of these models to compare the criterion with.")
    for path in (args.json, args.markdown):
        if path and not path.absolute().parent.is_dir():
            options.error(f"{path} cannot be written: make its folder first.")
    args.image_size = args.image_size or ((800, 1333) if on_cuda else (480, 640))
    args.batches = args.batches or ([1, 4, 8] if on_cuda else [2])
    args.dtypes = args.dtypes or (["fp32", "bf16", "fp16"] if on_cuda else ["fp32"])
    return args


def device_name(device: str) -> str:
    """For the table's heading."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor() or "CPU"


def _in_own_process(arguments: list[str], name: str) -> list[dict]:
    """Rows of one model, measured in a new process with the same options."""
    with tempfile.TemporaryDirectory() as folder:
        path, table = Path(folder) / "rows.json", Path(folder) / "table.md"
        command = [sys.executable, "-m", "benchmarks.compare", *arguments]
        command += ["--models", name, "--json", str(path), "--markdown", str(table)]
        subprocess.run(command, check=True, cwd=Path(__file__).parents[1])
        return json.loads(path.read_text())


def main(arguments: list[str] | None = None) -> None:
    """Measure, print, write."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = parse(arguments)
    quiet()
    torch.set_num_threads(args.threads)
    if len(args.models) == 1:
        rows = compare(args)
    else:
        rows = []
        for name in args.models:
            rows += _in_own_process(arguments, name)
            if args.json:  # keep results if the next model fails
                args.json.write_text(json.dumps(rows, indent=1) + "\n")
    h, w = args.image_size
    threads = f", {args.threads} threads" if args.device == "cpu" else ""
    title = (
        f"{device_name(args.device)}{threads}, images of {h} x {w}, {args.mode}, {args.rounds} "
        f"rounds, torch {torch.__version__}"
    )
    table = markdown(rows, title)
    print(f"\n{table}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
    if args.markdown:
        args.markdown.write_text(table)


if __name__ == "__main__":
    main()
