"""Paint of the shapes dataset: backgrounds, fills, clutter and the camera.

Every image is (height, width, 3) BGR. Nothing here knows about classes, so colour, texture and
clutter tell nothing about them.
"""

import cv2
import numpy as np

# Letters that contain no ring, disc or cross of their own.
_LETTERS = "ACEFGHJKLMNPRSUVWYZ123457"
# Visual weights of differences in blue, green and red; greys differ by their level.
_EYE = np.array([0.15, 0.5, 0.35])


def _smooth_noise(rng: np.random.Generator, h: int, w: int, cell: float) -> np.ndarray:
    """(h, w) float32 noise in about [0, 1] whose bumps are about `cell` pixels wide."""
    grid = rng.random((int(h / cell) + 2, int(w / cell) + 2), dtype=np.float32)
    return cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)


def _pattern(rng: np.random.Generator, h: int, w: int, period: float) -> np.ndarray:
    """(h, w) float32 in [0, 1]: ramp, stripes, checks or clouds with about the given period."""
    kind = rng.integers(4)
    angle, skew = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
    along = (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))).astype(np.float32)
    if kind == 0:
        low, high = along.min(), along.max()
        return (along - low) / max(high - low, 1)
    if kind == 1:
        wave = np.sin(along * np.float32(2 * np.pi / period) + np.float32(angle))
        return np.clip(0.5 + wave * np.float32(rng.uniform(0.5, 3)), 0, 1)
    if kind == 2:
        # Long skewed checks, because square ones would look like unlabelled objects.
        across = x * np.float32(-np.sin(angle + skew)) + y * np.float32(np.cos(angle + skew))
        first = np.sin(along * np.float32(2 * np.pi / period))
        second = np.sin(across * np.float32(2 * np.pi / (2.5 * period)))
        return np.clip(0.5 + 4 * first * second, 0, 1)
    return np.clip(_smooth_noise(rng, h, w, period), 0, 1)


def _step(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Random change of colour, (3,), with a visual difference of `low` to `high` grey levels."""
    change = rng.normal(size=3) + rng.normal() * 1.5
    return change * (rng.uniform(low, high) / np.sqrt(_EYE @ change**2))


def background(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Textured (h, w, 3) uint8 background without objects."""
    colour = rng.uniform(50, 205) + rng.uniform(-40, 40, 3)
    image = np.empty((h, w, 3), np.float32)
    image[:] = colour
    layers: list[tuple[np.ndarray, int, int]] = [(np.ones((h, w), np.float32), 15, 45)]
    for _ in range(rng.integers(0, 3)):
        patches = (_smooth_noise(rng, h, w, rng.uniform(60, 140)) - 0.55) * 8
        layers.append((np.clip(patches, 0, 1), 15, 40))
    for region, low, high in layers:
        weight = _pattern(rng, h, w, rng.uniform(8, 60)) * region
        image += weight[..., None] * _step(rng, low, high).astype(np.float32)
    clouds = np.zeros((h, w), np.float32)
    for cell, amount in ((90, 36), (32, 18), (11, 12), (4, 7)):
        clouds += _smooth_noise(rng, h, w, cell) * amount
    image += (clouds * np.float32(rng.uniform(0.3, 1.1)))[..., None] - 20
    return np.clip(image, 0, 255).astype(np.uint8)


def contrasting_colours(
    rng: np.random.Generator, references: np.ndarray, contrast: float
) -> np.ndarray:
    """Choose two colours that stand out from all reference colours.

    Args:
        rng: Source of the random choices.
        references: (n, 3) colours at the place to paint.
        contrast: Minimum difference from each reference, in grey levels.

    Returns:
        (2, 3) float colours; the best of a few tries if none differs enough.
    """
    candidates = rng.uniform(15, 240, (32, 3))
    distance = np.sqrt(((candidates[:, None] - references[None]) ** 2) @ _EYE).min(axis=1)
    # Stable, so that the first good candidates win and the choice stays random.
    order = np.argsort(-np.minimum(distance, contrast), kind="stable")
    return candidates[order[:2]]


def faint_colours(rng: np.random.Generator, references: np.ndarray) -> np.ndarray:
    """Choose two colours, (2, 3), for a distractor: visible, but mostly fainter than objects."""
    base = references[0] + _step(rng, 18, 42)
    return np.clip(np.stack([base, base + _step(rng, 5, 15)]), 0, 255)


def fill(
    rng: np.random.Generator, patch: np.ndarray, cover: np.ndarray, colours: np.ndarray
) -> None:
    """Paint a shape into `patch` in place.

    Args:
        rng: Source of the random choices (texture and edge line).
        patch: (h, w, 3) uint8 part of the image.
        cover: (h, w) float32 coverage of each pixel.
        colours: (2, 3) main and second colour; the texture mixes in only some of the second.
    """
    h, w = cover.shape
    main, second = colours.astype(np.float32)
    change = second - main
    change *= min(1.0, rng.uniform(20, 60) / np.sqrt(_EYE @ change**2 + 1e-6))
    paint = np.empty((h, w, 3), np.float32)
    paint[:] = main
    if rng.random() < 0.7:
        period = rng.uniform(4, max(6, min(h, w) / 3))
        paint += _pattern(rng, h, w, period)[..., None] * change
    if rng.random() < 0.35:
        grain = rng.standard_normal((h, w), dtype=np.float32) * np.float32(rng.uniform(4, 14))
        paint += grain[..., None]
    if rng.random() < 0.3 and min(h, w) > 16:
        width = int(np.clip(round(min(h, w) * rng.uniform(0.02, 0.06)), 1, 5))
        kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
        inside = cv2.erode(cover, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        line = (cover - inside)[..., None]
        shade = np.float32(0.35) if main.mean() > 110 else np.float32(1.8)
        paint += line * (main * shade - paint)
    mixed = patch + cover[..., None] * (paint - patch)
    patch[:] = np.clip(mixed, 0, 255).astype(np.uint8)


def _stroke(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """Points (n, 2) of a line, a scribble or an open arc somewhere in the image."""
    start = rng.uniform(0, 1, 2) * [w, h]
    kind = rng.integers(3)
    if kind == 0:
        return np.stack([start, start + rng.normal(0, 0.4, 2) * [w, h]])
    if kind == 1:
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.45, 24))
        steps = np.stack([np.cos(heading), np.sin(heading)], axis=1) * rng.uniform(2, 8)
        return start + np.cumsum(steps, axis=0)
    # At most 200 degrees: a closed arc would be an unlabelled ring.
    first, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(np.pi / 3, np.pi * 1.1)
    angles = first + sweep * np.linspace(0, 1, 24)
    radii = rng.uniform(10, 70) * np.array([1, rng.uniform(0.5, 1)])
    return start + radii * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def clutter(rng: np.random.Generator, image: np.ndarray, amount: int, widest: int) -> None:
    """Draw strokes and letters into `image` in place."""
    h, w = image.shape[:2]
    for _ in range(amount):
        points = _stroke(rng, h, w)
        x, y = np.clip(points[0], 0, [w - 1, h - 1]).astype(int)
        strength = (50, 90) if rng.random() < 0.2 else (18, 45)
        colour = np.clip(image[y, x] + _step(rng, *strength), 0, 255).tolist()
        width = int(rng.integers(1, widest + 1))
        if rng.random() < 0.3:
            text = "".join(rng.choice(list(_LETTERS), rng.integers(1, 4)))
            font = (cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_COMPLEX)[rng.integers(2)]
            size = rng.uniform(0.4, 1.6)
            cv2.putText(image, text, (int(x), int(y)), font, size, colour, width, cv2.LINE_AA)
        else:
            fixed = [np.rint(points * 16).astype(np.int32)]
            cv2.polylines(image, fixed, False, colour, width, cv2.LINE_AA, shift=4)


def soft_blobs(rng: np.random.Generator, image: np.ndarray, amount: int) -> None:
    """Draw long blurred spots, such as stains or shadows, into `image` in place."""
    h, w = image.shape[:2]
    x, y = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
    for _ in range(amount):
        centre, angle = rng.uniform(0, 1, 2) * [w, h], rng.uniform(0, np.pi)
        length = rng.uniform(12, 50)
        cos, sin = np.float32(np.cos(angle) / length), np.float32(np.sin(angle) / length)
        dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
        far = (dx * cos + dy * sin) ** 2 + np.float32(5) * (dy * cos - dx * sin) ** 2
        spot = np.exp(-far)[..., None] * _step(rng, 15, 40).astype(np.float32)
        image[:] = np.clip(image + spot, 0, 255).astype(np.uint8)


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Add a camera's light, blur and sensor noise; returns a new uint8 image."""
    gain = rng.uniform(0.75, 1.08) * rng.uniform(0.93, 1.07, 3)
    photo = image * gain.astype(np.float32) + np.float32(rng.uniform(-12, 18))
    if rng.random() < 0.3:
        photo = cv2.GaussianBlur(photo, (5, 5), rng.uniform(0.4, 0.9))
    if rng.random() < 0.6:
        noise = rng.standard_normal(photo.shape, dtype=np.float32)
        photo += noise * np.float32(rng.uniform(1, 7))
    return np.clip(photo, 0, 255).astype(np.uint8)
