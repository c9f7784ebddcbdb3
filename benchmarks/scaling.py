"""Measure costs per process of distributed training.

Bytes of gradients and of a checkpoint, the matcher's time on the host, and images per second of a
data loading process, for the estimates of docs/scaling.md.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config

from fastdetr_mmdet.structures.targets import Targets

from .batches import make_batch
from .cases import CASES, CONFIGS, build
from .clocks import seconds
from .command_line import parser, quiet


def volumes(name: str) -> tuple[float, float, float]:
    """Millions of trained parameters, MB of their gradients, MB of a checkpoint."""
    model = build(name, "ours").model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    moments = 2 * 4 * trained  # AdamW's state
    return trained / 1e6, 4 * trained / 1e6, (held + moments) / 1e6


def matcher_times(batch_size: int, num_objects: int, rounds: int) -> float:
    """Milliseconds to match 6 layers of 300 queries, 80 classes, costs included."""
    from fastdetr_mmdet.models.matchers import HungarianMatcher

    batch = make_batch(batch_size, (800, 1333), num_objects)
    targets = Targets.from_data_samples(batch.samples, "cpu")
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, batch_size, 300, 80, generator=generator)
    boxes = torch.rand(6, batch_size, 300, 4, generator=generator) * 0.4 + 0.1
    matcher = HungarianMatcher()

    def call() -> Any:
        return matcher.match(logits, boxes, targets)

    call()
    return statistics.median(seconds(call, 1, "cpu") for _ in range(rounds)) * 1e3


def loading_rate(rounds: int) -> float:
    """Images of 480 x 640 per second through the COCO configs' training pipeline, one process."""
    config = Config.fromfile(CONFIGS / CASES["conditional-detr"].config)
    pipeline = Compose(config.train_dataloader.dataset.pipeline)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "image.jpg")
        # noise of several sizes, as hard to decode as a photograph
        generator = np.random.default_rng(0)
        image = np.zeros((480, 640, 3), np.float32)
        for side in (4, 16, 64, 240):
            noise = generator.uniform(0, 64, (side, side, 3)).astype(np.float32)
            image += cv2.resize(noise, (640, 480))
        cv2.imwrite(path, image.astype(np.uint8))
        boxes = [[10 * i, 10 * i, 10 * i + 80, 10 * i + 60] for i in range(7)]
        instances = [dict(bbox=box, bbox_label=1, ignore_flag=0) for box in boxes]
        info = dict(img_path=path, img_id=0, height=480, width=640, instances=instances)
        started = time.perf_counter()
        for _ in range(rounds):
            pipeline(dict(info))
        return rounds / (time.perf_counter() - started)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__file__, __doc__)
    options.add_argument("--rounds", type=int, default=20, help="repetitions")
    options.add_argument("--threads", type=int, default=1, help="CPU threads")
    args = options.parse_args(arguments)
    quiet()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(0)  # as in a loader process
    print("| model | trained parameters | gradients | checkpoint with optimiser |")
    print("|---|---|---|---|")
    for name in CASES:
        trained, gradients, file = volumes(name)
        print(f"| {name} | {trained:.1f} M | {gradients:.0f} MB | {file:.0f} MB |")
    print("\n| images in a process's batch | 7 objects each | 50 objects each |\n|---|---|---|")
    for batch_size in (1, 2, 8, 16):
        times = [f"{matcher_times(batch_size, n, args.rounds):.1f} ms" for n in (7, 50)]
        print(f"| {batch_size} | {' | '.join(times)} |")
    print(f"\nloading: {loading_rate(args.rounds):.1f} images per second and process")


if __name__ == "__main__":
    main()
