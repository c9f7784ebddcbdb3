"""COCO format, as COCO, Roboflow, CVAT, Label Studio and labelme's exporters write it.

``supervision`` and ``globox`` read it too, but fail on masks without boxes and keep the paths of
another machine; the former loses boxes whose image ids are text.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...utils.cli import UsageError
from ..check.read import LISTS
from .found import Found, Split, is_image, json_objects, role_of


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Read all COCO files in a folder, or the given one; None if there is none."""
    known = json_objects([only] if only else files, dict.fromkeys(LISTS, list))
    if not known:
        return None
    chosen: dict[str, Path] = {}
    for path in sorted(known, key=lambda path: "instances" not in path.name):
        role = "train" if only is not None else role_of(path, root) or "train"
        first = chosen.setdefault(role, path)
        if first != path and ("instances" in first.name) == ("instances" in path.name):
            raise UsageError(
                f"Several COCO files could be the {role} set: {first} and {path}. Name one: init "
                "TRAIN.json --val VAL.json."
            )
    if "train" not in chosen:  # for example only a test set
        chosen["train"] = chosen.pop(min(chosen))
    found = Found("COCO", root, {})
    for role, path in chosen.items():
        split = found.splits[role] = _split(path, known[path], root, files, found.notes)
        said = [*_numbered(split.coco), *_boxes_of_masks(path, split.coco)]
        if said:
            split.file = None
            found.notes += [f"{path.name}: {text}" for text in said]
    _without_roboflow_root(found)
    return found


def _split(
    path: Path, coco: dict[str, Any], root: Path, files: list[Path], notes: list[str]
) -> Split:
    """Make the split of a file; its image folder is the one with most of its images."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in filter(is_image, files):
        by_name[file.name].append(file)
    parents = {folder for same in by_name.values() for file in same for folder in file.parents}
    folders = sorted(f for f in parents if f.is_relative_to(root)) or [root]
    names = [str(image.get("file_name")) for image in coco["images"] if isinstance(image, dict)]
    sample = names[:: max(1, len(names) // 100)]
    hits = {f: sum((f / name).is_file() for name in sample) for f in folders}
    # ties: the folder with the role's name, then the file's folder
    role = role_of(path, root)
    folder = max(hits, key=lambda f: (hits[f], role_of(f, root) == role, f == path.parent))
    if hits[folder] == len(sample):
        return Split(coco, folder, path)
    # exports without folders, or with folders of another machine
    bare = [Path(name.replace("\\", "/")).name for name in names]
    if sum(len(by_name[name]) == 1 for name in bare) <= hits[folder]:
        if hits[folder]:
            return Split(coco, folder, path)  # the data check names missing images
        raise UsageError(
            f"No image of {path}, such as {names[0] if names else 'any'}, is in {root} or below."
        )
    notes.append(f"Images of {path.name} are found by file name, without their folders.")
    moved = []
    for image, name in zip(coco["images"], bare, strict=True):
        if len(by_name[name]) == 1:
            name = os.path.relpath(by_name[name][0], root)
        elif by_name[name]:  # in several folders: left to the check
            name = image["file_name"]
        moved.append({**image, "file_name": name})  # missing images keep their name
    return Split({**coco, "images": moved}, root)


def _numbered(coco: dict[str, Any]) -> Iterator[str]:
    """Convert ids to numbers if they are text in one list and numbers in another (VIA's export)."""
    for subject, key in (("images", "image_id"), ("categories", "category_id")):
        ids = [(x, "id") for x in coco[subject]] + [(x, key) for x in coco["annotations"]]
        if {str, int} <= {type(entry.get(name)) for entry, name in ids}:
            for entry, name in ids:
                if str(entry.get(name)).isdecimal():
                    entry[name] = int(entry[name])
            yield f"some ids of {subject} are text and others numbers; all are read as numbers."


def _boxes_of_masks(path: Path, coco: dict[str, Any]) -> Iterator[str]:
    """Add boxes to objects that have only a mask, as polygons or RLE."""
    masked = [x for x in coco["annotations"] if x.get("segmentation") and not x.get("bbox")]
    if not masked:
        return
    from pycocotools import mask
    from pycocotools.coco import COCO

    masks = COCO()
    masks.imgs = {image["id"]: image for image in coco["images"]}
    for item in masked:
        try:
            encoded = masks.annToRLE(item)
            item["bbox"] = mask.toBbox(encoded).tolist()
        except Exception as error:  # pycocotools may raise anything
            raise UsageError(
                f"{path}: the mask of annotation {item.get('id')} cannot be read ({error!r}). "
                "Give it a bbox."
            ) from error
        item.setdefault("area", float(mask.area(encoded)))
    yield f"{len(masked)} objects have only a mask; their boxes are computed from it."


def _without_roboflow_root(found: Found) -> None:
    """Remove Roboflow's first category, the project's name above the others."""
    for split in found.splits.values():
        used = {item.get("category_id") for item in split.coco["annotations"]}
        parents = {category.get("supercategory") for category in split.coco["categories"]}
        for category in split.coco["categories"]:
            if (
                category.get("id") not in used
                and category.get("supercategory") == "none"
                and category.get("name") in parents
            ):
                rest = [other for other in split.coco["categories"] if other is not category]
                split.coco = {**split.coco, "categories": rest}
                found.notes.append(f"{category['name']!r}, Roboflow's group of all, is left out.")
                break
