"""Split off a validation set, and find images that training and validation share."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...utils.cli import UserError
from .found import Found, Split

_NEAR = 4  # maximum differing bits of 64 of a perceptual hash
_NEAR_EQUAL = "near-equal images"
_TRIES = 50  # random splits, of which the one with the most even classes is used


def split_off(found: Found, share: float, seed: int = 0) -> None:
    """Move a share of the training images to a validation set, by groups.

    A group is never split: copies of an image (Roboflow's augmentations, equal files, images with
    nearly the same perceptual hash) and, if names show them, the frames of a video.

    Raises:
        UserError: if there are too few groups.
    """
    train = found.splits["train"]
    images = train.coco["images"]
    paths = [train.images / image["file_name"] for image in images]
    group_of, how = _groups(paths)
    sizes = np.bincount(group_of)
    if len(sizes) < 2:
        raise UserError(
            f"No validation set can be split off: all {len(images)} images belong together "
            f"({how}). Name one: --val DATA2."
        )
    columns = {category["id"]: n for n, category in enumerate(train.coco["categories"])}
    rows = {image["id"]: group for image, group in zip(images, group_of, strict=True)}
    counts = np.zeros((len(sizes), len(columns)))  # objects by group and class
    for item in train.coco["annotations"]:
        if item.get("image_id") in rows and item.get("category_id") in columns:
            counts[rows[item["image_id"]], columns[item["category_id"]]] += 1
    total = counts.sum(0).clip(1)
    random = np.random.default_rng(seed)
    chosen = min(
        (_choose(sizes, share * len(images), random) for _ in range(_TRIES)),
        key=lambda chosen: np.abs(counts[chosen].sum(0) / total - share).sum(),
    )
    apart = set(chosen)
    held = {image_id for image_id, group in rows.items() if group in apart}
    found.splits["val"] = Split(_only(train.coco, held, True), train.images)
    found.splits["train"] = Split(_only(train.coco, held, False), train.images)
    together = sizes[sizes > 1].sum()
    advice = "" if _NEAR_EQUAL in how else f" To find {_NEAR_EQUAL} too: pip install imagehash."
    found.notes.append(
        f"There is no validation set: {len(held)} of {len(images)} images were split off for it. "
        f"Images that belong together ({how}) stay in one set: {together or 'no'} images do."
        f"{advice}"
    )


def _only(coco: dict, ids: set, inside: bool) -> dict:
    return {
        **coco,
        "images": [image for image in coco["images"] if (image["id"] in ids) == inside],
        "annotations": [x for x in coco["annotations"] if (x["image_id"] in ids) == inside],
    }


def _choose(sizes: np.ndarray, wanted: float, random: np.random.Generator) -> list[int]:
    """Random groups of about the wanted number of images."""
    chosen: list[int] = []
    size = 0
    for group in random.permutation(len(sizes)):
        if not chosen or size + sizes[group] <= wanted + 0.5:
            chosen.append(group)
            size += sizes[group]
    return chosen


def _groups(paths: Sequence[Path]) -> tuple[np.ndarray, str]:
    """A number for each image, equal if they belong together, and a description of the criteria."""
    names, by_name = _names(paths)
    files = [_digest(path) if path.is_file() else path for path in paths]
    pairs: list[tuple[int, int]] = []
    for keys in (names, files):
        firsts: dict[Any, int] = {}
        pairs += [(index, firsts.setdefault(key, index)) for index, key in enumerate(keys)]
    how = "copies of one image" + ", frames of one video" * by_name
    hashes = _hashes(paths)
    if hashes is not None:
        pairs += _near(hashes, hashes)
        how += f", {_NEAR_EQUAL}"
    graph = coo_matrix((np.ones(len(pairs)), np.transpose(pairs)), [len(paths)] * 2)
    return connected_components(graph, directed=False)[1], how


def _names(paths: Sequence[Path]) -> tuple[list[str], bool]:
    """A key for each image by its name: its original image or its video."""
    copies = [re.sub(r"\.rf\.\w+$", "", path.stem) for path in paths]  # Roboflow's augmentations
    keys = [str(path.parent / stem) for path, stem in zip(paths, copies, strict=True)]
    videos = [re.sub(r"[-_ ]*(?:frame|img|image)?[-_ ]*\d+\D*$", "", key) for key in keys]
    clips = len(set(videos))
    if 3 <= clips <= len(paths) / 3:
        return videos, True
    return keys, False


def _hashes(paths: Sequence[Path]) -> np.ndarray | None:
    """Perceptual hashes, (n, 64) bits; None without the library. Unreadable images differ."""
    try:
        import imagehash
    except ImportError:
        return None
    random = np.random.default_rng(0)
    hashes: list[np.ndarray] = []
    for path in paths:
        try:
            with Image.open(path) as image:
                image.draft("L", (128, 128))  # decodes a JPEG at a lower resolution
                hashes.append(imagehash.phash(image).hash.ravel())
        except OSError:  # reported by the data check
            hashes.append(random.random(64) < 0.5)
    return np.array(hashes, bool).reshape(-1, 64)


def _near(first: np.ndarray, second: np.ndarray) -> Iterable[tuple[int, int]]:
    """Pairs of rows that differ in few bits."""
    a, b = first.astype(np.float32), second.astype(np.float32)
    for start in range(0, len(a), 1024):
        rows = a[start : start + 1024]
        distance = rows.sum(1)[:, None] + b.sum(1)[None] - 2 * rows @ b.T
        for i, j in np.argwhere(distance <= _NEAR + 0.5):
            yield start + int(i), int(j)


def shared_images(found: Found) -> list[str]:
    """Describe images that are in both the training and the validation set."""
    paths = {
        role: [split.images / str(image["file_name"]) for image in split.coco["images"]]
        for role, split in found.splits.items()
    }
    train, val = paths["train"], paths["val"]
    digests = {_digest(path): path for path in train if path.is_file()}
    equal = [(p, digests[d]) for p in val if p.is_file() and (d := _digest(p)) in digests]
    said = []
    if equal:
        said.append(f"{len(equal)} validation images are training images too, such as "
                    f"{equal[0][0]} and {equal[0][1]}.")  # fmt: skip
    hashes = [_hashes(train), _hashes(val)]
    if hashes[0] is not None and hashes[1] is not None:
        known = {path for path, _ in equal}
        near = [(val[j], train[i]) for i, j in _near(hashes[0], hashes[1]) if val[j] not in known]
        if near:
            said.append(f"{len({v for v, _ in near})} validation images look nearly like training "
                        f"images, such as {near[0][0]} and {near[0][1]}.")  # fmt: skip
    return [f"{text} This makes the validation AP too high." for text in said]


def _digest(path: Path) -> bytes:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).digest()
