"""What has to be done to an image before the graph sees it, as the file's metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .errors import ExportError


@dataclass(frozen=True)
class Preprocessing:
    """From an image file to the graph's input, and from its labels to names.

    Args:
        classes: Names, by label.
        channels: 'RGB' or 'BGR': order of the input's channels, of mean and of std.
        mean, std: Per channel, of pixel values from 0 to 255: ``(pixel - mean) / std``.
        scale: (long side, short side), or, without keep_ratio, (w, h), in pixels, to which the
            config's test pipeline resizes.
        keep_ratio: Whether an image is made as large as fits the scale, or stretched to it.
        config: Name of the config, without folder.
    """

    classes: Sequence[str]
    channels: str
    mean: Sequence[float]
    std: Sequence[float]
    scale: tuple[int, int]
    keep_ratio: bool
    config: str = ""

    @classmethod
    def from_detector(cls, detector: Any) -> Preprocessing:
        """Of a detector made by mmdet's ``init_detector``, from the config that it carries.

        Raises:
            ExportError: if the config's test pipeline has no ``Resize`` to one scale, or its
                preprocessor does not normalise.
        """
        cfg = detector.cfg
        given = cfg.model.get("data_preprocessor") or {}
        if given.get("mean") is None or given.get("std") is None:
            raise ExportError(
                "model.data_preprocessor has no mean and std, so the file could not tell its users "
                "how to normalise an image; set both ([0, 0, 0] and [1, 1, 1] for none)."
            )
        swapped = given.get("bgr_to_rgb", False) or given.get("rgb_to_bgr", False)
        pipeline = cfg.test_dataloader.dataset.pipeline
        resize: dict = next((step for step in pipeline if step["type"].endswith("Resize")), {})
        scale = resize.get("scale")
        if scale is None or len(scale) != 2:
            raise ExportError(
                "test_dataloader.dataset.pipeline has no Resize with one scale=(w, h), from which "
                "the exported file takes the size of its images; add one."
            )
        keep_ratio = bool(resize.get("keep_ratio", False))
        return cls(
            classes=tuple(detector.dataset_meta["classes"]),
            channels="RGB" if swapped else "BGR",
            mean=tuple(map(float, given["mean"])),
            std=tuple(map(float, given["std"])),
            scale=(max(scale), min(scale)) if keep_ratio else (scale[0], scale[1]),
            keep_ratio=keep_ratio,
            config=str(getattr(cfg, "filename", None) or "").replace("\\", "/").split("/")[-1],
        )

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) of an image that fills the scale."""
        return self.scale[1], self.scale[0]

    def metadata(self) -> dict[str, str]:
        """Every entry as JSON."""
        return {key: json.dumps(value) for key, value in asdict(self).items()}
