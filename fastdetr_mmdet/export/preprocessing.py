"""Describe the preprocessing of images in an exported file's metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..utils.cli import UserError

_WITHOUT_PIXELS = ("LoadAnnotations", "PackDetInputs")


class ExportError(UserError):
    """A detector that could not be exported; the message says why and what to do."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing from an image file to the graph's input, and class names."""

    classes: Sequence[str]  # names by label
    channels: str  # order of input, mean and std: 'RGB', 'BGR', or 'loaded', the loader's order
    mean: Sequence[float]  # per channel, in the loader's units: (pixel - mean) / std
    std: Sequence[float]
    scale: tuple[int, int] | None  # (w, h) in pixels to which images are resized
    keep_ratio: bool  # True: resize to fit the scale, (long side, short side); False: stretch
    config: str = ""  # name of the config, without folder
    scale_factor: tuple[float, float] | None = None  # (w, h) of the resizing without a scale
    interpolation: str = "bilinear"  # of the resizing, OpenCV's names
    loader: str = "LoadImageFromFile"  # name of the transform that reads a file
    color_type: str = "color"  # how mmcv's loader decodes: 'color', 'grayscale', 'unchanged' ...
    # Height and width are padded, at bottom and right, to multiples of these; (1, 1): no padding.
    # A file of fixed size has its height and width here.
    pad_to: tuple[int, int] = (1, 1)
    pad_value: float = 0.0  # after normalisation

    @classmethod
    def from_detector(cls, detector: Any) -> Preprocessing:
        """Read the config of a detector from mmdet's ``init_detector``.

        Raises:
            ExportError: if the test pipeline changes pixels in a way that the fields above cannot
                describe.
        """
        cfg = detector.cfg
        given = cfg.model.get("data_preprocessor") or {}
        channels = cfg.model.backbone.get("in_channels", 3)
        swapped = given.get("bgr_to_rgb", False) or given.get("rgb_to_bgr", False)
        apart = (cfg.model.get("test_cfg") or {}).get("separate_sizes")  # predict removes padding
        load, resize = _pixel_steps(cfg.test_dataloader.dataset.pipeline)
        return cls(
            classes=tuple(detector.dataset_meta["classes"]),
            channels=("RGB" if swapped else "BGR") if channels == 3 else "loaded",
            mean=_per_channel("mean", given.get("mean") or [0.0], channels),
            std=_per_channel("std", given.get("std") or [1.0], channels),
            config=str(getattr(cfg, "filename", None) or "").replace("\\", "/").split("/")[-1],
            loader=_name(load),
            color_type=load.get("color_type", "color"),
            pad_to=(1, 1) if apart else (given.get("pad_size_divisor", 1),) * 2,
            pad_value=float(given.get("pad_value", 0)),
            **_resizing(resize),
        )

    def for_file(
        self, dynamic: bool, image_size: tuple[int, int] | None
    ) -> tuple[Preprocessing, tuple[int, int]]:
        """Preprocessing for a file, and the (H, W) of its padded images.

        If dynamic, images are padded like the model's, and the size is for tracing only. Otherwise
        they are stretched to the file's size if the model was trained so, or padded to it.

        Raises:
            ExportError: if neither image_size, (H, W), nor the config's scale gives a size.
        """
        if image_size is None and self.scale is None:
            raise ExportError(
                f"Resize has scale_factor={self.scale_factor}, which does not give an image size. "
                "Give --image-size H W."
            )
        scale = self.scale if image_size is None else (image_size[1], image_size[0])
        assert scale is not None
        if dynamic:
            return self, self._padded(scale)
        if self.keep_ratio or self.scale is None:
            # by default a square, which holds both orientations
            size = self._padded((max(scale),) * 2 if image_size is None else scale)
            long_short = None if self.scale is None else (max(scale), min(scale))
            return replace(self, scale=long_short, pad_to=size), size
        size = self._padded(scale)
        return replace(self, scale=scale, pad_to=size if size != scale[::-1] else (1, 1)), size

    def _padded(self, scale: tuple[int, int]) -> tuple[int, int]:
        """(H, W) of an image of (w, h) after padding."""
        height, width = (-(-s // to) * to for s, to in zip(scale[::-1], self.pad_to, strict=True))
        return height, width

    def metadata(self) -> dict[str, str]:
        """All entries as JSON."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}


def _name(step: dict) -> str:
    """Name of a transform, which may be a class in pure Python configs."""
    kind = step["type"]
    return kind.__name__ if isinstance(kind, type) else str(kind).split(".")[-1]


def _pixel_steps(pipeline: Sequence[dict]) -> tuple[dict, dict]:
    """Steps of a test pipeline that load and resize; other steps must not change pixels."""
    load, *rest = pipeline
    steps = {_name(step): step for step in rest}
    others = [name for name in steps if name not in ("Resize", *_WITHOUT_PIXELS)]
    if others or "Resize" not in steps:
        raise ExportError(
            f"test_dataloader.dataset.pipeline has {', '.join(others) or 'no Resize'}. An exported "
            "file supports one Resize and no other change of pixels; set such a pipeline."
        )
    return load, steps["Resize"]


def _resizing(resize: dict) -> dict[str, Any]:
    """Fields from the arguments of mmcv's ``Resize``."""
    keep_ratio = bool(resize.get("keep_ratio", False))
    pairs: dict[str, Any] = {}
    for key in ("scale", "scale_factor"):
        value = resize.get(key)
        if value is not None:
            pair = (value, value) if isinstance(value, (int, float)) else tuple(value)
            numbers = len(pair) == 2 and all(isinstance(x, (int, float)) for x in pair)
            _require(numbers and min(pair) > 0, resize, key)
            pairs[key] = pair
    _require(bool(pairs), resize, "scale", "scale_factor")
    _require(resize.get("backend", "cv2") == "cv2", resize, "backend")
    if "scale" in pairs:  # has precedence, as in mmcv
        pairs["scale_factor"] = None
        if keep_ratio:
            pairs["scale"] = (max(pairs["scale"]), min(pairs["scale"]))
    else:
        same = len({*pairs["scale_factor"]}) == 1
        _require(same or not keep_ratio, resize, "scale_factor", "keep_ratio")
    interpolation = resize.get("interpolation", "bilinear")
    return {"scale": None, **pairs, "keep_ratio": keep_ratio, "interpolation": interpolation}


def _require(condition: bool, resize: dict, *keys: str) -> None:
    if not condition:
        found = " and ".join(f"{key}={resize.get(key)!r}" for key in keys)
        raise ExportError(
            f"The Resize of test_dataloader.dataset.pipeline has {found}. An exported file needs "
            "one scale or scale_factor, a number or (w, h), the same for both sides if "
            "keep_ratio=True, and backend='cv2'."
        )


def _per_channel(name: str, values: Sequence[float], channels: int) -> tuple[float, ...]:
    if len(values) not in (1, channels):
        raise ExportError(
            f"model.data_preprocessor.{name} has {len(values)} values, but "
            f"model.backbone.in_channels={channels}. Set one value or {channels}."
        )
    return tuple(map(float, values)) * (channels // len(values))
