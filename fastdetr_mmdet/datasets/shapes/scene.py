"""Compose one image of the shapes dataset: places and visibility of objects."""

from dataclasses import dataclass

import numpy as np

from . import paint
from .outlines import CLASSES, class_outline, no_class_outline, rasterise, view

SPLITS = ("train", "val")

# Minimum visible share, pixels and sides of an object. Objects below are not drawn, so everything
# visible is labelled.
MIN_VISIBLE_SHARE = 0.45
MIN_VISIBLE_PIXELS = 40
MIN_BOX_SIDE = 4

_EMPTY_SHARE = 0.04
_CROWD_SHARE = 0.03
# Chances of 1, 2, ... 10 objects.
_COUNT_CHANCES = np.array([7, 10, 14, 15, 14, 12, 10, 8, 6, 4]) / 100
# Chance and square root of the area, in pixels, of tiny, small, medium and large objects. COCO's
# limits lie at 32 and 96.
_SIZES = ((0.02, 13, 18), (0.135, 18, 31), (0.56, 36, 94), (0.285, 101, 140))
_PLACEMENT_TRIES = 20
# Scales to try if there is no room. Stars and crosses are wider than discs of the same area;
# without shrinking they would be dropped more often and become rare.
_SHRINKS = (1.0, 0.8, 0.64)


@dataclass(frozen=True)
class Item:
    """One thing drawn on a stage."""

    label: int | None  # index into CLASSES, or None for a distractor
    full_area: int  # number of pixels without occlusion and image border
    keep: float  # share of full_area that must stay visible
    colours: np.ndarray  # (n, 3) BGR
    is_crowd: bool = False  # whether it is a tight cluster of many shapes of one class


@dataclass(frozen=True)
class Scene:
    """A finished image."""

    image: np.ndarray  # (h, w, 3) uint8 BGR
    objects: list[tuple[Item, np.ndarray]]  # each with an (h, w) bool mask of its visible part
    jpeg_quality: int


class Stage:
    """An unfinished image, drawn on in place, and the item that each pixel shows."""

    def __init__(self, image: np.ndarray, rng: np.random.Generator):
        self.image = image
        self.rng = rng
        self.items: list[Item] = []
        # 0 is background, k + 1 is items[k].
        self.owner: np.ndarray = np.zeros(image.shape[:2], np.int16)

    def window(self, cover: np.ndarray, top: int, left: int) -> tuple[tuple, np.ndarray]:
        """Slices of the image below a patch, and the part of `cover` within the image."""
        h, w = self.owner.shape
        rows = slice(max(top, 0), min(top + cover.shape[0], h))
        cols = slice(max(left, 0), min(left + cover.shape[1], w))
        part = cover[rows.start - top : rows.stop - top, cols.start - left : cols.stop - left]
        return (rows, cols), part

    def fits(self, cover: np.ndarray, top: int, left: int, max_overlap: float) -> bool:
        """Whether a shape may be drawn there: it and all items that it occludes stay readable."""
        place, part = self.window(cover, top, left)
        solid = part >= 0.5
        full_area = int((cover >= 0.5).sum())
        if not is_readable(solid, full_area, MIN_VISIBLE_SHARE):
            return False
        hidden = np.bincount(self.owner[place][solid], minlength=len(self.items) + 1)
        if hidden[1:].sum() > max_overlap * full_area:
            return False
        for index in np.flatnonzero(hidden[1:]):
            item = self.items[index]
            left_over = self.owner == index + 1
            left_over[place] &= ~solid
            if item.keep and not is_readable(left_over, item.full_area, item.keep):
                return False
        return True

    def find_place(self, cover: np.ndarray, max_overlap: float) -> tuple[int, int] | None:
        """Random (top, left) at which a shape may be drawn, or None when none was found."""
        room = np.array(self.owner.shape) - cover.shape
        # Some objects are truncated by the image border, as in photographs.
        out = 0.35 * np.array(cover.shape) if self.rng.random() < 0.15 else np.zeros(2)
        for _ in range(_PLACEMENT_TRIES):
            spot = self.rng.uniform(np.minimum(-out, room), np.maximum(room + out, 0))
            top, left = np.floor(spot).astype(int)
            if self.fits(cover, top, left, max_overlap):
                return top, left
        return None

    def draw(self, cover: np.ndarray, top: int, left: int, strong: bool, number: int) -> np.ndarray:
        """Paint a shape, make its pixels belong to item `number`, and return its two colours."""
        place, part = self.window(cover, top, left)
        patch, solid = self.image[place], part >= 0.5
        below, beside = patch[solid], patch[~solid]
        references = [part.mean(axis=0) for part in (below, beside) if len(part)]
        for index in np.unique(self.owner[place]):
            if 0 < index < number:
                references.extend(self.items[index - 1].colours)
        if strong:
            contrast = self.rng.uniform(38, 85)
            colours = paint.contrasting_colours(self.rng, np.array(references), contrast)
        else:
            colours = paint.faint_colours(self.rng, np.array(references))
        paint.fill(self.rng, patch, part, colours)
        self.owner[place][solid] = number
        return colours

    def add(self, label: int | None, side: float) -> None:
        """Draw one object, or with label None a distractor, if there is a place."""
        rng, (h, w) = self.rng, self.owner.shape
        outline = no_class_outline(rng) if label is None else class_outline(label, rng)
        max_overlap = rng.choice([0.0, 0.4, 1.0], p=[0.6, 0.35, 0.05])
        for smaller in _SHRINKS:
            seen = view(outline, smaller * side, (0.94 * w, 0.94 * h), rng)
            cover = rasterise(seen, rng)
            spot = self.find_place(cover, max_overlap)
            if spot is not None:
                break
        else:
            return
        colours = self.draw(cover, *spot, label is not None, len(self.items) + 1)
        keep = 0.0 if label is None else MIN_VISIBLE_SHARE
        self.items.append(Item(label, int((cover >= 0.5).sum()), keep, colours))

    def add_crowd(self, label: int) -> None:
        """Draw a tight cluster of tiny shapes of one class. Call it before any `add`."""
        rng = self.rng
        count, side = rng.integers(10, 26), rng.uniform(8, 13)
        spread = np.sqrt(count) * side * rng.uniform(0.28, 0.36)
        margin = 1.8 * spread + 2 * side
        centre = rng.uniform(margin, np.maximum(np.array(self.owner.shape) - margin, margin + 1))
        number = len(self.items) + 1
        for _ in range(count):
            size = side * rng.uniform(0.8, 1.2)
            cover = rasterise(view(class_outline(label, rng), size, (40, 40), rng), rng)
            offset = np.clip(rng.normal(0, spread, 2), -1.8 * spread, 1.8 * spread)
            top, left = np.floor(centre + offset - np.array(cover.shape) / 2).astype(int)
            self.draw(cover, top, left, True, number)
        area = int((self.owner == number).sum())
        self.items.append(Item(label, area, 0.9, np.zeros((0, 3)), is_crowd=True))

    def finish(self) -> Scene:
        """Apply the camera and extract the visible part of each object."""
        objects = [
            (item, self.owner == index + 1)
            for index, item in enumerate(self.items)
            if item.label is not None
        ]
        image = paint.photograph(self.rng, self.image)
        return Scene(image, objects, int(self.rng.integers(80, 96)))


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Bounding box (x, y, width, height) in pixels of a bool mask; all zero when it is empty."""
    rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if len(rows) == 0:
        return 0, 0, 0, 0
    y, x = int(rows[0]), int(cols[0])
    return x, y, int(cols[-1]) + 1 - x, int(rows[-1]) + 1 - y


def is_readable(visible: np.ndarray, full_area: int, share: float) -> bool:
    """Whether enough of an object is visible to recognise and label it."""
    pixels = int(visible.sum())
    if pixels < max(MIN_VISIBLE_PIXELS, share * full_area):
        return False
    return min(mask_box(visible)[2:]) >= MIN_BOX_SIDE


def _image_size(rng: np.random.Generator) -> tuple[int, int]:
    """Random (height, width): landscape, portrait or square, sides from 160 to 320 pixels."""
    long = rng.integers(240, 321)
    short = long if rng.random() < 0.12 else max(160, round(long * rng.uniform(0.66, 0.96)))
    return (int(short), int(long)) if rng.random() < 0.6 else (int(long), int(short))


def _sides(rng: np.random.Generator, count: int) -> list[float]:
    """Random object sizes, mostly larger ones first, which then do not occlude smaller ones."""
    chances, low, high = np.array(_SIZES).T
    kinds = rng.choice(len(_SIZES), count, p=chances)
    sides = np.exp(rng.uniform(np.log(low[kinds]), np.log(high[kinds])))
    order = np.argsort(-sides * np.exp(rng.normal(0, 0.25, count)), kind="stable")
    return sides[order].tolist()


def compose(seed: int, split: str, index: int) -> Scene:
    """Compose image number `index` (from 0) of a split; it depends on these three alone."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    stage = Stage(paint.background(rng, *_image_size(rng)), rng)
    kind = rng.random()
    count = 0 if kind < _EMPTY_SHARE else int(rng.choice(10, p=_COUNT_CHANCES)) + 1
    paint.soft_blobs(rng, stage.image, int(rng.integers(0, 3)))
    paint.clutter(rng, stage.image, int(rng.integers(1, 6)), widest=4)
    if kind > 1 - _CROWD_SHARE:
        stage.add_crowd(int(rng.integers(len(CLASSES))))
    todo: list[tuple[int | None, float]] = [
        (int(rng.integers(len(CLASSES))), side) for side in _sides(rng, count)
    ]
    for _ in range(rng.integers(0, 4)):
        todo.insert(int(rng.integers(len(todo) + 1)), (None, rng.uniform(15, 50)))
    for label, side in todo:
        stage.add(label, side)
    paint.clutter(rng, stage.image, int(rng.integers(0, 3)), widest=2)
    return stage.finish()
