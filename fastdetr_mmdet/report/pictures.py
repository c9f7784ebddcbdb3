"""Pictures of a page: small JPEGs, boxes as SVG over them, and contact sheets."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine import fileio
from torch import nn

from ..evaluation.results import ImageResult
from ..models.detectors import FastDETR
from ..utils.cli import UserError

_CROWDED = 12  # more names are drawn smaller
_SHEET_WIDTH = 1500  # pixels


@dataclass(frozen=True)
class Photo:
    """A JPEG of an image or of a part of it.

    Args:
        data: Data URI.
        region: Part of the original image, (x1, y1, x2, y2) in pixels.
    """

    data: str
    region: tuple[float, float, float, float]

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) of the region."""
        x1, y1, x2, y2 = self.region
        return x2 - x1, y2 - y1


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Args:
        xyxy: Pixels of the original image.
        text: Text at the box, or "".
        look: CSS class of style.css.
    """

    xyxy: Sequence[float] | np.ndarray
    text: str
    look: str


@dataclass(frozen=True)
class Drawing:
    """A photo with boxes.

    Args:
        photo: Several drawings may share one.
        boxes: Later ones on top.
        label: Alternative text.
        thickness: Line width relative to the picture's width.
    """

    photo: Photo
    boxes: Sequence[Box]
    label: str
    thickness: float = 0.008

    @property
    def line(self) -> float:
        """Line width in pixels of the original."""
        return self.photo.size[0] * self.thickness

    @property
    def text_size(self) -> float:
        """Height of text in pixels of the original; all pictures are shown with equal width."""
        crowded = sum(bool(box.text) for box in self.boxes) > _CROWDED
        return self.photo.size[0] * (0.034 if crowded else 0.05)

    def text_place(self, box: Box) -> tuple[float, float]:
        """(x, y) of a box's text: above the box, or inside at the picture's edge."""
        left, top, right, _ = self.photo.region
        x, y, size = float(box.xyxy[0]), float(box.xyxy[1]), self.text_size
        above = y - size * 0.3
        widest = right - size * 0.63 * len(box.text)
        x = max(min(max(x, left + self.line), widest), left)
        return x, above if above - size > top else y + size * 1.05


def read_image(path: str, backend_args: Any = None) -> np.ndarray | None:
    """Read an image like mmdet's loader, (h, w, 3) uint8 BGR; None if unreadable."""
    try:
        return mmcv.imfrombytes(fileio.get(path, backend_args), flag="color", backend="cv2")
    except (OSError, cv2.error):
        return None


def make_photo(
    image: np.ndarray, region: Sequence[float] | None = None, longest: int = 360, quality: int = 78
) -> Photo:
    """Crop an image to a region and shrink it to a longest side.

    Shape:
        image: (h, w, 3) uint8 BGR
        region: (4,) pixel xyxy; None: all
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = region if region is not None else (0, 0, width, height)
    left, top = int(np.clip(x1, 0, width - 1)), int(np.clip(y1, 0, height - 1))
    right = int(np.clip(np.ceil(x2), left + 1, width))
    bottom = int(np.clip(np.ceil(y2), top + 1, height))
    part = image[top:bottom, left:right]
    scale = longest / max(part.shape[:2])
    if scale < 1:
        size = (max(round(part.shape[1] * scale), 1), max(round(part.shape[0] * scale), 1))
        part = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    encoded = cv2.imencode(".jpg", part, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    data = "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()
    return Photo(data, (left, top, right, bottom))


def contact_sheets(
    model: nn.Module, images: Sequence[ImageResult], top_k: int
) -> list[tuple[str, Photo]]:
    """Draw attention sheets of the top-scoring detections of images, each with its file name.

    Raises:
        UserError: if the viewer does not support the model.
    """
    if not isinstance(model, FastDETR):
        raise UserError(
            f"The attention of {type(model).__name__} cannot be shown: it is not a FastDETR."
        )
    from ..visualization.contact_sheet import draw_contact_sheet
    from ..visualization.inspection import inspect_image

    sheets = []
    for image in images:
        sheet = draw_contact_sheet(inspect_image(model, image.path, top_k=top_k))[..., ::-1]
        longest = round(max(1, sheet.shape[0] / sheet.shape[1]) * _SHEET_WIDTH)
        sheets.append((image.file, make_photo(sheet, longest=longest, quality=72)))
    return sheets
