"""Outlines of the shapes dataset: the six classes, distractors, and their masks.

An outline is a list of closed contours, each (num_points, 2) float (x, y); the first is the outer
border and any further one is a hole in it.
"""

from collections.abc import Callable

import cv2
import numpy as np

Outline = list[np.ndarray]

# Masks are drawn this many times larger and averaged down, which gives smooth edges.
_SUPERSAMPLING = 4
# Fractional bits of the coordinates that cv2.fillPoly takes.
_SHIFT = 4


def _polar(radii: np.ndarray) -> np.ndarray:
    """Contour around the origin with the given radius at equally spaced angles."""
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _star(rng: np.random.Generator) -> Outline:
    # Five or six points; with four it would look like a cross.
    points = rng.integers(5, 7)
    radii = np.ones(2 * points)
    radii[1::2] = rng.uniform(0.38, 0.52)
    return [_polar(radii)]


def _cross(rng: np.random.Generator) -> Outline:
    t = rng.uniform(0.22, 0.36)
    quarter = np.array([[1, -t], [1, t], [t, t]])
    turn = np.array([[0, 1], [-1, 0]])  # right-multiplied: 90 degrees
    return [np.concatenate([quarter @ np.linalg.matrix_power(turn, k) for k in range(4)])]


_CLASS_OUTLINES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "disc": lambda rng: [_polar(np.ones(72))],
    "square": lambda rng: [_polar(np.ones(4))],
    "triangle": lambda rng: [_polar(np.ones(3))],
    "star": _star,
    "cross": _cross,
    "ring": lambda rng: [_polar(np.ones(72)), _polar(np.full(72, rng.uniform(0.5, 0.7)))],
}
CLASSES = tuple(_CLASS_OUTLINES)


def _lobes(rng: np.random.Generator) -> Outline:
    """Smooth blob with two or three lobes; one would look like a disc, four like a cross."""
    angles = np.arange(72) * (2 * np.pi / 72)
    strong, weak = (2, 3) if rng.random() < 0.5 else (3, 2)
    radii = 1 + 0.4 * np.cos(strong * angles) + 0.2 * np.cos(weak * angles + rng.uniform(0, 6))
    return [_polar(radii)]


def _bar(rng: np.random.Generator) -> Outline:
    t = rng.uniform(0.1, 0.2)
    return [np.array([[-1, -t], [1, -t], [1, t], [-1, t]])]


def _elbow(rng: np.random.Generator) -> Outline:
    t = rng.uniform(0.3, 0.55)
    return [np.array([[0, 0], [1.6, 0], [1.6, t], [t, t], [t, 1.6], [0, 1.6]])]


def _crescent(rng: np.random.Generator) -> Outline:
    angles = np.linspace(0, np.pi, 36)
    outer = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    inner = outer[::-1] * [1, rng.uniform(0.3, 0.6)]
    return [np.concatenate([outer, inner[1:-1]])]


def _arrow_head(rng: np.random.Generator) -> Outline:
    notch = rng.uniform(0.4, 0.65)
    return [np.array([[0, -1], [1, 1], [0, 1 - 2 * notch], [-1, 1]]) * [0.8, 1]]


_NO_CLASS_OUTLINES = (_lobes, _bar, _elbow, _crescent, _arrow_head)


def class_outline(label: int, rng: np.random.Generator) -> Outline:
    """Outline of one of CLASSES at unit size, with random proportions."""
    return _CLASS_OUTLINES[CLASSES[label]](rng)


def no_class_outline(rng: np.random.Generator) -> Outline:
    """Outline of a distractor at unit size, which looks like none of CLASSES."""
    return _NO_CLASS_OUTLINES[rng.integers(len(_NO_CLASS_OUTLINES))](rng)


def _area(contour: np.ndarray) -> float:
    x, y = contour.T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def view(
    outline: Outline, side: float, limit: tuple[float, float], rng: np.random.Generator
) -> Outline:
    """Rotate and stretch an outline, with slight perspective, like a camera's view.

    Args:
        outline: Outline at any size.
        side: Square root of the covered area, in pixels, so that all classes have the same sizes by
            COCO's measure.
        limit: Maximum (width, height) of the result in pixels; larger results are shrunk.
        rng: Source of the random choices.
    """
    stretch = np.exp(rng.uniform(-1, 1) * np.log(4 / 3) / 2)
    turn, direction = (
        np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        for angle in rng.uniform(0, 2 * np.pi, 2)
    )
    matrix = direction @ np.diag([stretch, 1 / stretch]) @ turn
    slope = rng.uniform(-0.1, 0.1, 2)
    seen = []
    for contour in outline:
        points = contour @ matrix.T
        seen.append(points / (1 + points @ slope)[:, None])
    area = _area(seen[0]) - sum(_area(hole) for hole in seen[1:])
    extent = np.ptp(seen[0], axis=0)
    scale = min(side / np.sqrt(area), *(np.array(limit) / extent))
    middle = (seen[0].max(axis=0) + seen[0].min(axis=0)) / 2
    return [(contour - middle) * scale for contour in seen]


def rasterise(outline: Outline, rng: np.random.Generator) -> np.ndarray:
    """Draw an outline with smooth edges at a random fraction of a pixel.

    Returns:
        (height, width) float32 coverage of each pixel, cropped to the outline plus a margin of at
        least one pixel.
    """
    low = np.floor(outline[0].min(axis=0)) - 1
    width, height = (np.ceil(outline[0].max(axis=0)) + 2 - low).astype(int)
    origin = low - rng.uniform(0, 1, 2)
    # Integer coordinates are pixel centres in cv2, pixel corners here.
    points = [((contour - origin) * _SUPERSAMPLING - 0.5) * 2**_SHIFT for contour in outline]
    large = np.zeros((height * _SUPERSAMPLING, width * _SUPERSAMPLING), np.uint8)
    cv2.fillPoly(large, [np.rint(p).astype(np.int32) for p in points], 255, shift=_SHIFT)
    cover = cv2.resize(large, (int(width), int(height)), interpolation=cv2.INTER_AREA)
    return cover.astype(np.float32) / 255
