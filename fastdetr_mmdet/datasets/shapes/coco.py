"""COCO annotations of the objects of the shapes dataset."""

import cv2
import numpy as np

from .scene import Item, mask_box

# Largest distance of a polygon from the exact pixel border, in pixels. 0.75 turns the staircase of
# a slanted border into straight lines: a seventh of the points at a mask IoU of 0.98.
_POLYGON_TOLERANCE = 0.75


def mask_to_rle(mask: np.ndarray) -> dict:
    """Uncompressed COCO run lengths of a bool mask: down the columns, background first."""
    pixels = mask.ravel(order="F")
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()
    if pixels[0]:
        runs.insert(0, 0)
    return {"size": list(mask.shape), "counts": runs}


def _cut_open(outer: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Join a hole to the border by a cut without width, because COCO polygons cannot have holes."""
    distance = ((outer[:, None] - hole[None]) ** 2).sum(axis=-1)
    i, j = np.unravel_index(distance.argmin(), distance.shape)
    around = np.roll(hole, -j, axis=0)
    return np.concatenate([outer[: i + 1], around, around[:1], outer[i:]])


def mask_to_polygons(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x, y, x, y, ...] around the connected parts of a bool mask, in pixels.

    Coordinates are of pixel corners: pixel (0, 0) spans 0 to 1.
    """
    x, y, w, h = mask_box(mask)
    # A grid of pixel corners and centres, where each pixel fills 3 x 3 points, so that contours
    # follow pixel borders instead of pixel centres.
    points = np.zeros((2 * h + 1, 2 * w + 1), np.uint8)
    inside = mask[y : y + h, x : x + w].repeat(2, axis=0).repeat(2, axis=1)
    for row in (0, 1):
        for col in (0, 1):
            points[row : row + 2 * h, col : col + 2 * w] |= inside
    contours, tree = cv2.findContours(points, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    polygons = {}
    # RETR_CCOMP: a contour with parent -1 is an outer border, any other is a hole in its parent.
    parents = tree[0, :, 3]
    for index in np.argsort(parents >= 0, kind="stable"):
        contour = cv2.approxPolyDP(contours[index], 2 * _POLYGON_TOLERANCE, True)
        contour = (contour if len(contour) >= 3 else contours[index])[:, 0]
        if parents[index] < 0:
            polygons[index] = contour
        elif len(contour) >= 3:
            polygons[parents[index]] = _cut_open(polygons[parents[index]], contour)
    return [(p / 2 + [x, y]).ravel().tolist() for p in polygons.values()]


def annotation(item: Item, mask: np.ndarray, annotation_id: int, image_id: int) -> dict:
    """COCO annotation of the visible part of an object or crowd; category ids are labels + 1."""
    assert item.label is not None
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": item.label + 1,
        "bbox": list(mask_box(mask)),
        "area": int(mask.sum()),
        "iscrowd": int(item.is_crowd),
        "segmentation": mask_to_rle(mask) if item.is_crowd else mask_to_polygons(mask),
    }
