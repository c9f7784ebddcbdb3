"""Where a run's detector looked: contact sheets for the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from torch import nn

from ..evaluation.results import ImageResult
from ..models.detectors import FastDETR
from .pictures import jpeg

_WIDTH = 1500  # pixels of a sheet
_QUALITY = 72


@dataclass(frozen=True)
class Sheet:
    """A contact sheet.

    Args:
        data: A JPEG, as an address that holds its content.
        file: Name of the image.
        size: (width, height) in pixels.
    """

    data: str
    file: str
    size: tuple[int, int]


def contact_sheets(
    model: nn.Module, images: Sequence[ImageResult], top_k: int
) -> tuple[list[Sheet], str]:
    """Sheets of the surest detections of images.

    Returns:
        The sheets, and a sentence that says why there are none, or "".
    """
    if not isinstance(model, FastDETR):
        return [], (
            f"{type(model).__name__} is not a FastDETR: the viewer cannot see into its attention."
        )
    from ..visualization.contact_sheet import draw_contact_sheet
    from ..visualization.inspection import inspect_image

    sheets = []
    for image in images:
        sheet = draw_contact_sheet(inspect_image(model, image.path, top_k=top_k))
        sheets.append(_encode(sheet, image.path.replace("\\", "/").rpartition("/")[2]))
    return sheets, ""


def _encode(sheet: np.ndarray, file: str) -> Sheet:
    """Shrink and compress.

    Shape:
        sheet: (h, w, 3) uint8 RGB
    """
    height, width = sheet.shape[:2]
    if width > _WIDTH:
        height, width = round(height * _WIDTH / width), _WIDTH
        sheet = cv2.resize(sheet, (width, height), interpolation=cv2.INTER_AREA)
    return Sheet(jpeg(np.ascontiguousarray(sheet[..., ::-1]), _QUALITY), file, (width, height))
