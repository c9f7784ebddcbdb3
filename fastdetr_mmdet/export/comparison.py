"""Compare results and speed of an exported file and its detector."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.structures import DetDataSample
from torch import Tensor, nn

Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # boxes, scores, labels of one image


@dataclass(frozen=True)
class Comparison:
    """The largest differences between onnxruntime's detections and PyTorch's.

    A detection's counterpart is the nearest one of the same class with nearly the same score.
    """

    image_size: tuple[int, int, int]  # (bs, H, W) of the batch
    scores: float  # difference of scores, both in the order of the output
    boxes: float  # difference of a corner from its counterpart's, in pixels
    unmatched: int  # detections without counterpart

    @property
    def largest(self) -> float:
        """Largest difference of scores, and of boxes relative to the longer side."""
        return max(self.scores, self.boxes / max(self.image_size[1:]))

    def agrees(self, tolerance: float = 1e-3) -> bool:
        """Whether all detections have counterparts within the tolerance; see ``largest``."""
        return not self.unmatched and self.largest <= tolerance

    def __str__(self) -> str:
        bs, height, width = self.image_size
        return (
            f"{bs} x {height} x {width}: scores differ by at most {self.scores:.1e}, boxes by "
            f"{self.boxes:.1e} pixels, {self.unmatched} detections without counterpart"
        )


def compare(
    file: str | Path | bytes, detector: nn.Module, image_size: tuple[int, int, int], seed: int = 0
) -> Comparison:
    """Compare the detections of a file, or of its content, and ``predict`` on random images."""
    session = _session(file)
    images, sizes = _batch(session, image_size, seed)
    found = _run_onnx(session, images, sizes)
    with _as_in_the_file(detector):
        expected = _run_torch(detector, images, sizes)
    scores = boxes = 0.0
    unmatched = 0
    for of_onnx, of_torch in zip(found, expected, strict=True):
        scores = max(scores, float(np.abs(of_onnx[1] - of_torch[1]).max()))
        distance, alone = _match(of_onnx, of_torch)
        boxes, unmatched = max(boxes, distance), unmatched + alone
    return Comparison(image_size, scores, boxes, unmatched)


def _match(found: Detections, expected: Detections, tolerance: float = 1e-3) -> tuple[float, int]:
    """Largest distance to a counterpart, and the number without one.

    Not by rank, because detections with nearly equal scores may swap, also across the limit.
    """
    worst, alone = 0.0, 0
    last = expected[1].min()
    for box, score, label in zip(*found, strict=True):
        same = (expected[2] == label) & (np.abs(expected[1] - score) <= tolerance)
        if same.any():
            distance = np.abs(expected[0][same] - box).max(axis=1)
            worst = max(worst, float(distance.min()))
        elif score > last + tolerance:
            alone += 1
    return worst, alone


def measure_speed(
    path: str | Path, detector: nn.Module, image_size: tuple[int, int, int], rounds: int = 5
) -> dict[str, float]:
    """Median seconds per batch of onnxruntime and PyTorch, with torch's number of threads."""
    session = _session(path)
    images, sizes = _batch(session, image_size)
    runs: dict[str, Callable[[], Any]] = {
        "onnxruntime": lambda: _run_onnx(session, images, sizes),
        "PyTorch": lambda: _run_torch(detector, images, sizes),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with _as_in_the_file(detector):
        for _ in range(rounds):  # in turns, so that other load affects both
            for name, run in runs.items():
                run()  # warms the caches
                for _ in range(10):
                    start = time.perf_counter()
                    run()
                    seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _session(file: str | Path | bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    content = file if isinstance(file, bytes) else str(file)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _batch(
    session: Any, image_size: tuple[int, int, int], seed: int = 0
) -> tuple[Tensor, list[tuple[int, int]]]:
    """Random images and their (h, w); padded in height or width if the file has image_sizes.

    Padding has random values too, in both inputs.
    """
    (images, *padded) = session.get_inputs()
    bs, height, width = image_size
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(bs, images.shape[1], height, width, generator=generator)
    if not padded:
        return batch, [(height, width)] * bs
    cut = (((height * 3 + 3) // 4, width), (height, (width * 2 + 2) // 3), (height, width))
    return batch, [cut[image % 3] for image in range(bs)]


def _run_onnx(
    session: Any, images: Tensor, sizes: Sequence[tuple[int, int]]
) -> Sequence[Detections]:
    values = (images.numpy(), np.array(sizes, dtype=np.int64))
    names = [given.name for given in session.get_inputs()]
    return list(zip(*session.run(None, dict(zip(names, values, strict=False))), strict=True))


@contextmanager
def _as_in_the_file(detector: Any) -> Iterator[None]:
    """Set evaluation mode and no score threshold, like the file."""
    training, head = detector.training, detector.bbox_head
    test_cfg = head.test_cfg
    head.test_cfg = dict(test_cfg, score_thr=-1.0)  # NMS sets scores to 0
    try:
        detector.eval()
        yield
    finally:
        detector.train(training)
        head.test_cfg = test_cfg


@torch.no_grad()
def _run_torch(
    detector: Any, images: Tensor, sizes: Sequence[tuple[int, int]]
) -> Sequence[Detections]:
    shared = dict(batch_input_shape=tuple(images.shape[-2:]), scale_factor=(1.0, 1.0))
    samples = [DetDataSample(metainfo=dict(shared, img_shape=size)) for size in sizes]
    found = [r.pred_instances for r in detector.predict(images, samples, rescale=False)]
    return [(f.bboxes.numpy(), f.scores.numpy(), f.labels.numpy()) for f in found]
