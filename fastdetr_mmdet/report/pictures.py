"""Photographs in a page: small JPEGs, with boxes drawn over them as SVG."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine import fileio

from .markup import Html, el

QUALITY = 78
_CROWDED = 12  # from more names on they are written smaller


@dataclass(frozen=True)
class Box:
    """A box to draw.

    Args:
        xyxy: Pixels of the original image.
        text: Beside it, or "".
        cls: Its look, a class of style.css.
    """

    xyxy: Sequence[float]
    text: str
    cls: str


@dataclass(frozen=True)
class Photo:
    """A JPEG of an image or of a part of it.

    Args:
        data: As an address that holds the content.
        region: (x1, y1, x2, y2) of the original image that it shows, in pixels.
    """

    data: str
    region: tuple[float, float, float, float]


def read_image(path: str, backend_args: Any = None) -> np.ndarray | None:
    """An image as mmdet's loader reads it, (h, w, 3) uint8 BGR, or None if it is none."""
    try:
        return mmcv.imfrombytes(fileio.get(path, backend_args), flag="color", backend="cv2")
    except (OSError, cv2.error):
        return None


def photo(image: np.ndarray, region: Sequence[float] | None = None, longest: int = 360) -> Photo:
    """Cut a region out of an image and make it so small that its longest side fits.

    Shape:
        image: (h, w, 3) uint8 BGR
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
    return Photo(jpeg(part), (left, top, right, bottom))


def jpeg(image: np.ndarray, quality: int = QUALITY) -> str:
    """An image as an address that holds its content.

    Shape:
        image: (h, w, 3) uint8 BGR
    """
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode()


def symbol(name: str, shot: Photo) -> Html:
    """The photograph, to be shown by any number of ``drawing``s of this name."""
    x1, y1, x2, y2 = shot.region
    image = el(
        "image",
        href=shot.data,
        x=x1,
        y=y1,
        width=x2 - x1,
        height=y2 - y1,
        preserveAspectRatio="none",
    )
    hidden = el("defs", el("g", image, id=name))
    return el("svg", hidden, width=0, height=0, cls="defs", aria_hidden="true")


def drawing(
    name: str, region: Sequence[float], boxes: Sequence[Box], label: str, line: float = 0.008
) -> Html:
    """A photograph with boxes.

    Args:
        name: Of its ``symbol``.
        region: Of the photograph.
        boxes: Later ones on top.
        label: What it shows, for people who do not see it.
        line: Width of the boxes' lines, as a share of the picture's.
    """
    x1, y1, x2, y2 = region
    width, height = x2 - x1, y2 - y1
    # pictures are shown equally wide
    crowded = sum(bool(box.text) for box in boxes) > _CROWDED
    text_size, line = width * (0.034 if crowded else 0.05), width * line
    parts: list[Html] = []
    for box in boxes:
        parts += _box(box, region, text_size, line)
    return el(
        "svg",
        el("use", href=f"#{name}"),
        parts,
        viewBox=f"{x1:g} {y1:g} {width:g} {height:g}",
        role="img",
        aria_label=label,
        cls="photo",
    )


def _box(box: Box, region: Sequence[float], text_size: float, line: float) -> list[Html]:
    x1, y1, x2, y2 = (float(value) for value in box.xyxy)
    shape = dict(
        x=f"{x1:.1f}",
        y=f"{y1:.1f}",
        width=f"{max(x2 - x1, 0):.1f}",
        height=f"{max(y2 - y1, 0):.1f}",
    )
    parts = [
        el("rect", **shape, cls="halo", stroke_width=f"{line * 2:.2f}"),
        el(
            "rect",
            el("title", box.text) if box.text else None,
            **shape,
            cls=f"box {box.cls}",
            stroke_width=f"{line:.2f}",
        ),
    ]
    if box.text:
        # above the box, or within it where the picture ends
        above = y1 - text_size * 0.3
        y = above if above - text_size > region[1] else y1 + text_size * 1.05
        x = min(max(x1, region[0] + line), region[2] - text_size * 0.63 * len(box.text))
        parts.append(
            el(
                "text",
                box.text,
                x=f"{max(x, region[0]):.1f}",
                y=f"{y:.1f}",
                font_size=f"{text_size:.1f}",
                stroke_width=f"{text_size * 0.22:.2f}",
                cls=f"tag {box.cls}",
            )
        )
    return parts
