"""A matplotlib figure laid out in inches and turned into an array."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

DPI = 100
# Okabe and Ito's eight colours, distinguishable with colour blindness; one per head.
COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999",
)  # fmt: skip
INK, FAINT = "#222222", "#777777"
SHORTEST = 16  # minimum characters of a file name


class Canvas:
    """A page of panels; positions are inches from the top left corner.

    Args:
        width, height: In inches, of 100 pixels.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        self._agg = FigureCanvasAgg(self.figure)

    def panel(self, left: float, top: float, width: float, height: float) -> Any:
        """New axes whose frame fills the given place."""
        bottom = self.height - top - height
        place = (left / self.width, bottom / self.height, width / self.width, height / self.height)
        return self.figure.add_axes(place)

    def text(self, left: float, top: float, text: str, size: float = 9, **kwargs: Any) -> None:
        """Write text with its top left corner at the position, without formula markup."""
        style: dict[str, Any] = dict(color=INK, va="top", ha="left", parse_math=False) | kwargs
        self.figure.text(left / self.width, 1 - top / self.height, text, fontsize=size, **style)

    def title(self, left: float, top: float, said: str, file: str, size: float) -> None:
        """Write a bold line that ends with the image's file name, if known.

        A long name is shortened in the middle first, then the font gets smaller.
        """
        file = "".join(sign if sign.isprintable() else "?" for sign in file)
        room = self.width - 2 * left
        text, kept = f"{said} in {file}" if file else said, len(file)
        while kept > SHORTEST and self._width(text, size) > room:
            kept -= 1
            text = f"{said} in {file[: kept // 2]}…{file[-(kept - kept // 2) :]}"
        size = min(size, size * room / self._width(text, size))
        self.text(left, top, text, size, weight="bold")

    def _width(self, text: str, size: float) -> float:
        """Width of a bold line, in inches."""
        line = Text(0, 0, text, fontsize=size, weight="bold", parse_math=False, figure=self.figure)
        return line.get_window_extent(self._agg.get_renderer()).width / self.figure.dpi

    def pixels(self) -> np.ndarray:
        """The drawn page, (H, W, 3) uint8 RGB."""
        self._agg.draw()
        return np.asarray(self._agg.buffer_rgba())[..., :3].copy()


def panel_size(image: np.ndarray, height: float, widest: float) -> tuple[float, float]:
    """(width, height) in inches of an image's panel with this height, or less if too wide."""
    h, w = image.shape[:2]
    aspect = min(max(w / h, 0.4), 3.0)
    return (height * aspect, height) if height * aspect <= widest else (widest, widest / aspect)
