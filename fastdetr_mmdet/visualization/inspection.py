"""Collect the viewer's data from a model and an image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path, PurePath
from typing import Any

import cv2
import numpy as np
import torch
from mmcv.image import imread
from mmcv.transforms import Compose
from mmengine.dataset import pseudo_collate
from torch import Tensor, nn

from ..models.cross_attention import Explanation
from ..structures import Memory
from ..structures.boxes import cxcywh_to_xyxy
from ..utils.cli import UsageError, UserError
from .inspected import InspectedImage, InspectedLayer, InspectedQuery
from .recording import LayerCall, record


class UnreadableImageError(UserError):
    """A file cannot be read as an image; the message names it."""


def inspect_image(
    model: nn.Module,
    image: str | Path | np.ndarray,
    top_k: int = 5,
    queries: Sequence[int] | None = None,
) -> InspectedImage:
    """Run a detector on an image and collect the attention of its queries.

    Args:
        model: A FastDETR with its config as ``model.cfg``, as from ``init_detector``; its test
            pipeline is used. The model runs in eval mode and is not changed.
        image: A file, or an (H, W, 3) uint8 array in BGR.
        top_k: Number of queries, top-scoring first; each query counts once.
        queries: Indices of queries to use instead, in this order.

    Raises:
        FileNotFoundError: if the file does not exist.
        TypeError: if the model is not a FastDETR, or has no config.
        UnreadableImageError: a ValueError, if the file is not an image.
        ValueError: if the array has another shape or type, or a query does not exist.
    """
    pixels = _read(image)
    source = dict(img=image) if isinstance(image, np.ndarray) else dict(img_path=str(image))
    data = _pipeline(model, image)({**source, "img_id": 0})
    return inspect_batch(model, pseudo_collate([data]), [pixels[..., ::-1]], top_k, queries)[0]


@torch.no_grad()
def inspect_batch(
    model: Any,
    batch: dict,
    images: Sequence[np.ndarray],
    top_k: int = 5,
    queries: Sequence[int] | None = None,
) -> list[InspectedImage]:
    """Inspect a batch of a data loader; see ``inspect_image``.

    Args:
        model: A FastDETR; its data preprocessor is used.
        batch: ``inputs`` and ``data_samples``, before the data preprocessor.
        images: Each image before the pipeline, RGB.
        top_k, queries: As for ``inspect_image``.

    Shape:
        images: (H, W, 3) uint8
    """
    if top_k < 1:
        raise ValueError(f"top_k={top_k} must be at least 1.")
    training = model.training
    try:
        with record(model.eval()) as recording:
            data = model.data_preprocessor(batch, False)
            cls_scores, boxes = model._forward(data["inputs"], data["data_samples"])
    finally:
        model.train(training)
    scores = cls_scores.float().sigmoid()
    num_queries = scores.shape[2]
    for query in queries or ():
        if not 0 <= query < num_queries:
            raise UsageError(
                f"There is no query {query}; the model has {num_queries}, numbered from 0."
            )
    metas = [sample.metainfo for sample in data["data_samples"]]
    top = scores[-1].amax(-1).topk(min(top_k, num_queries)).indices.tolist()
    chosen = top if queries is None else [list(queries)] * len(metas)

    layers: dict[tuple[int, int], list[InspectedLayer]] = defaultdict(list)
    assert recording.memory is not None
    for index, call in enumerate(recording.layers):
        explanation = call.explain()  # inside the loop, to hold only one layer's weights
        levels = _levels(model.transformer.decoder, index, call.memory, recording.memory)
        for image, own in enumerate(chosen):
            frame = _Frame(metas[image], call.memory, image)
            for query in dict.fromkeys(own):
                layers[image, query].append(
                    InspectedLayer(
                        box=frame.box(boxes[index, image, query]),
                        scores=_numpy(scores[index, image, query]),
                        levels=levels,
                        **_attention(call, explanation, frame, image, query),
                    )
                )
    classes = tuple((getattr(model, "dataset_meta", None) or {}).get("classes") or ())
    found = []
    for image, own in enumerate(chosen):
        best, labels = (x.tolist() for x in scores[-1, image, own].max(-1))
        rows = tuple(
            InspectedQuery(query, label, score, tuple(layers[image, query]))
            for query, label, score in zip(own, labels, best, strict=True)
        )
        pixels = np.ascontiguousarray(images[image])
        file = PurePath(metas[image].get("img_path") or "").name
        found.append(InspectedImage(pixels, rows, classes, queries is not None, file))
    return found


def _attention(
    call: LayerCall, explanation: Explanation, frame: _Frame, image: int, query: int
) -> dict[str, Any]:
    """Fields of ``InspectedLayer`` from the cross-attention and its arguments."""
    salient = call.queries.salient
    fields: dict[str, tuple[Tensor | None, Callable[[Tensor], np.ndarray]]] = {
        "reference": (call.queries.reference, frame.reference),
        "salient_points": (None if salient is None else salient.points, frame.points),
        "level_weights": (explanation.level_weights, _numpy),
        "points": (explanation.points, frame.sampled),
        "point_weights": (explanation.point_weights, _numpy),
    }
    maps = {"prior_logits": call.spatial_prior, "weights": explanation.weights}
    shown: dict[str, Any] = {
        name: convert(x[image, query]) for name, (x, convert) in fields.items() if x is not None
    }
    shown |= {name: frame.maps(x[image, :, query]) for name, x in maps.items() if x is not None}
    return shown


class _Frame:
    """Coordinates of one image of a batch in the original image and in feature maps."""

    def __init__(self, meta: dict, memory: Memory, image: int) -> None:
        h, w = meta["img_shape"][:2]
        scale = torch.tensor(meta.get("scale_factor", (1.0, 1.0)), dtype=torch.float32)[:2]
        # From the normalised un-padded image to pixels of the original, as in the head.
        self.size = (torch.tensor([w, h]) / scale).to(memory.tokens.device)
        self.ratios = memory.valid_ratios[image].float()  # (num_levels, 2), (w, h)
        self.memory = memory

    def points(self, points: Tensor) -> np.ndarray:
        """(..., 2), normalised to the un-padded image -> pixels."""
        return _numpy(points.float() * self.size)

    def sampled(self, points: Tensor) -> np.ndarray:
        """(num_heads, num_levels, num_points, 2), normalised to padded maps -> pixels."""
        return self.points(points.float() / self.ratios[:, None])

    def reference(self, reference: Tensor) -> np.ndarray:
        """(2,) point or (4,) cx, cy, w, h -> pixels, a box as x1, y1, x2, y2."""
        if len(reference) == 2:
            return self.points(reference)
        return _numpy(cxcywh_to_xyxy(reference.float()) * self.size.repeat(2))

    def box(self, box: Tensor) -> np.ndarray:
        """(4,) normalised cx, cy, w, h -> x1, y1, x2, y2 in pixels within the image."""
        corners = cxcywh_to_xyxy(box.float()).clamp(0, 1)
        return _numpy(corners * self.size.repeat(2))

    def maps(self, tokens: Tensor) -> tuple[np.ndarray, ...]:
        """(num_heads, num_tokens) -> per level (num_heads, h, w) without padding."""
        levels = tokens.float().split(self.memory.level_sizes, dim=-1)
        parts = zip(levels, self.memory.spatial_shapes, self.ratios.tolist(), strict=True)
        return tuple(
            _numpy(level.unflatten(-1, (h, w))[:, : round(h * ratio_h), : round(w * ratio_w)])
            for level, (h, w), (ratio_w, ratio_h) in parts
        )


def _levels(decoder: Any, index: int, seen: Memory, whole: Memory) -> tuple[int, ...]:
    """Indices of the memory's levels that the layer saw."""
    schedule = getattr(decoder, "level_schedule", None)
    if seen.num_levels == whole.num_levels or schedule is None:
        return tuple(range(seen.num_levels))
    return (range(whole.num_levels)[schedule[index]],)


def _read(image: str | Path | np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise ValueError(
                f"The image is an array of shape {image.shape} and type {image.dtype}; give "
                "(H, W, 3) uint8 in BGR."
            )
        return image
    if not Path(image).is_file():
        raise FileNotFoundError(f"There is no image {image}; give the path of an image file.")
    try:
        pixels = imread(str(image))
    except (OSError, cv2.error):  # no permission; an empty file
        pixels = None
    if pixels is None:
        raise UnreadableImageError(
            f"{image} cannot be read as an image; give a JPEG, PNG or similar file."
        )
    return pixels


def _pipeline(model: Any, image: str | Path | np.ndarray) -> Compose:
    """Build the test pipeline of the model's config, as in mmdet's ``inference_detector``."""
    from mmdet.utils import get_test_pipeline_cfg

    cfg = getattr(model, "cfg", None)
    if cfg is None or "test_dataloader" not in cfg:
        raise TypeError(
            f"{type(model).__name__} has no model.cfg with a test_dataloader, whose pipeline is "
            "needed; make the model with mmdet.apis.init_detector(config, checkpoint), or set "
            "model.cfg."
        )
    pipeline = get_test_pipeline_cfg(deepcopy(cfg))
    if isinstance(image, np.ndarray):
        pipeline[0].type = "mmdet.LoadImageFromNDArray"
    return Compose(pipeline)


def _numpy(x: Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
