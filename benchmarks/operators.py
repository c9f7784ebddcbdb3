"""Count a step's work on the device.

Operator calls, values that the host reads, bytes that operators read and write, and peak bytes:
this package's model / mmdet's, on a simulated CUDA device (``fake_cuda``), without a GPU. A
training step is forward, loss, backward, clipping and optimizer of each side's config.
"""

from __future__ import annotations

from collections.abc import Callable

from .batches import Batch, make_batch
from .cases import CASES, build
from .command_line import parser, quiet
from .fake_cuda import FakeCuda, install
from .work import DTYPES, inference, training_step

MEASURES: dict[str, Callable[[FakeCuda], float]] = {
    "operators": lambda device: device.operators.total(),
    "host reads": lambda device: len(device.reads),
    "GB read and written": lambda device: round(device.moved / 1e9, 1),
    "peak, MiB": lambda device: round(device.peak / 2**20),
}
COMPARED = [name for name, case in CASES.items() if case.mmdet]


def count(
    name: str, whose: str, batch_size: int, image_size: tuple[int, int], dtype: str = "fp32"
) -> dict[str, FakeCuda]:
    """Count a model's inference and training step, each in its second call."""
    side = build(name, whose)
    found = {}
    for what, work in (("inference", inference), ("training", training_step)):
        device = FakeCuda()
        device.put_module(side.model)
        batch = make_batch(batch_size, image_size)
        for sample in batch.samples:
            sample.gt_instances = device.put_objects(sample.gt_instances)
        with device:
            call = work(side, Batch(device.put(batch.images), batch.samples), "cuda", dtype)
            call()
            device.clear()
            call()
        found[what] = device
    return found


def main(arguments: list[str] | None = None) -> None:
    """Count and print a table."""
    options = parser(__file__, __doc__)
    add = options.add_argument
    add("--models", nargs="+", choices=COMPARED, default=COMPARED, help="models to compare")
    add("--batches", nargs="+", type=int, default=[2], help="batch sizes")
    add("--image-size", nargs=2, type=int, default=(800, 1333), metavar=("H", "W"), help="pixels")
    add("--dtype", choices=list(DTYPES), default="fp32", help="precision")
    add("--top", type=int, default=0, help="also list the operators that our model calls most")
    args = options.parse_args(arguments)
    quiet()
    install()
    print(f"| model | what | batch | {' | '.join(MEASURES)} |\n{'|---' * (3 + len(MEASURES))}|")
    for name in args.models:
        for batch in args.batches:
            sides = [
                count(name, whose, batch, tuple(args.image_size), args.dtype)
                for whose in ("ours", "mmdet")
            ]
            for what in sides[0]:
                ours, theirs = (side[what] for side in sides)
                row = [name, what, batch]
                for measure in MEASURES.values():
                    own, other = measure(ours), measure(theirs)
                    ratio = f" = {own / other:.2f}" if other else ""
                    row.append(f"{own:g} / {other:g}{ratio}")
                print(f"| {' | '.join(map(str, row))} |", flush=True)
                for operator, times in ours.operators.most_common(args.top):
                    print(f"    {times:5} {operator}")


if __name__ == "__main__":
    main()
