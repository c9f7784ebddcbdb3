"""Measure single parts on one CPU thread.

FLOPs of products and convolutions, milliseconds of CPU time (minimum of the rounds) and memory that
training keeps for gradients, for one image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from mmdet.registry import MODELS
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import fastdetr_mmdet  # noqa: F401  registers the parts
from fastdetr_mmdet.structures import Memory, Queries

from .command_line import parser, quiet

DIMS = 256
ATTENTIONS = ("MultiheadSelfAttention", "RelationSelfAttention")
DEFORMABLE = dict(type="DeformableDetrEncoder", num_layers=2, num_levels=3, dropout=0.0)
ENCODERS = {
    "DeformableDetrEncoder, 2 layers": DEFORMABLE,
    "the same with memory_fusion": dict(DEFORMABLE, memory_fusion=True),
    "HybridEncoder, as in RT-DETR-R50": dict(type="HybridEncoder"),
    "HybridEncoder, expansion 0.5, as in R18": dict(type="HybridEncoder", expansion=0.5),
    "HybridEncoder, expansion 0.5, depth 1": dict(type="HybridEncoder", expansion=0.5, depth=1),
}


def memory_of(image_size: tuple[int, int]) -> Memory:
    """Random maps of strides 8, 16 and 32."""
    h, w = image_size
    maps = [torch.randn(1, DIMS, -(-h // s), -(-w // s)) for s in (8, 16, 32)]
    return Memory.from_maps(maps, maps, torch.ones(1, 3, 2))


def queries_of(count: int) -> Queries:
    """Random queries with boxes."""
    content, pos = torch.randn(2, 1, count, DIMS)
    return Queries(content=content, pos=pos).with_reference(torch.randn(1, count, 4))


def measure(call: Callable[[], Tensor], rounds: int) -> str:
    """Measure the cells of a row."""
    kept: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        held = call()
    with FlopCounterMode(display=False) as counter:
        call()
    del held
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for train in [False, True] * rounds:
        started = time.process_time()
        with torch.set_grad_enabled(train):
            made = call()
        if train:
            made.sum().backward()
        seconds[train].append(time.process_time() - started)
    infer, step = (f"{min(taken) * 1e3:.0f}" for taken in seconds.values())
    mib = sum(kept.values()) / 2**20
    return f"{counter.get_total_flops() / 1e9:.2f} | {infer} | {step} | {mib:.0f}"


def main(argv: list[str] | None = None) -> None:
    """Print a table of self-attentions and one of encoders."""
    options = parser(__file__, __doc__)
    add = options.add_argument
    add("--queries", type=int, nargs="+", default=[300, 900], help="numbers of queries")
    add("--image-size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"), help="pixels")
    add("--rounds", type=int, default=5, help="repetitions")
    args = options.parse_args(argv)
    quiet()
    torch.set_num_threads(1)

    def build(config: dict[str, Any]) -> Any:
        return MODELS.build(dict(config, embed_dims=DIMS)).train()

    print("| part | GFLOP | inference, ms | training, ms | kept, MiB |\n|---|---|---|---|---|")
    for count in args.queries:
        queries = queries_of(count)
        for kind in ATTENTIONS:
            part = build(dict(type=kind, layer_index=1, dropout=0.0))
            row = measure(partial(part, queries), args.rounds)
            print(f"| {kind}, {count} queries | {row} |", flush=True)
    memory = memory_of(tuple(args.image_size))
    for name, config in ENCODERS.items():
        part = build(config)
        row = measure(lambda part=part: part(memory).tokens, args.rounds)  # type: ignore[misc]
        print(f"| {name} | {row} |", flush=True)


if __name__ == "__main__":
    main()
