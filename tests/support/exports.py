"""Write a COCO dataset as YOLO and Pascal VOC, to test readers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path


def boxes_of(coco: dict) -> dict[str, list[tuple]]:
    """(class, x, y, w, h), rounded, by file name without folders; crowds too."""
    names = {category["id"]: category["name"] for category in coco["categories"]}
    files = {image["id"]: Path(image["file_name"]).name for image in coco["images"]}
    found: dict[str, list[tuple]] = {name: [] for name in files.values()}
    for item in coco["annotations"]:
        box = [round(value, 1) for value in item["bbox"]]
        found[files[item["image_id"]]].append((names[item["category_id"]], *box))
    return {name: sorted(boxes) for name, boxes in found.items()}


ROLES = ("train", "val")


def write_yolo(source: Path, out: Path) -> list[str]:
    """Write images/ROLE and labels/ROLE from source's annotations/ROLE.json and ROLE/."""
    for role in ROLES:
        coco = json.loads((source / f"annotations/{role}.json").read_text())
        names = [category["name"] for category in coco["categories"]]
        images, labels = out / "images" / role, out / "labels" / role
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for image in coco["images"]:
            shutil.copy(source / role / image["file_name"], images)
            width, height = image["width"], image["height"]
            lines = []
            for item in coco["annotations"]:
                if item["image_id"] == image["id"]:
                    x, y, w, h = item["bbox"]
                    values = (x + w / 2) / width, (y + h / 2) / height, w / width, h / height
                    label = [c["id"] for c in coco["categories"]].index(item["category_id"])
                    lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]))
            (labels / image["file_name"]).with_suffix(".txt").write_text("\n".join(lines))
    return names


def write_voc(source: Path, out: Path, first: int = 1) -> None:
    """Write VOCdevkit's folders, with pixels counted from `first`."""
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (out / folder).mkdir(parents=True)
    for role in ROLES:
        coco = json.loads((source / f"annotations/{role}.json").read_text())
        names = {category["id"]: category["name"] for category in coco["categories"]}
        stems = []
        for image in coco["images"]:
            stem = f"{role}_{Path(image['file_name']).stem}"
            stems.append(stem)
            shutil.copy(source / role / image["file_name"], out / "JPEGImages" / f"{stem}.jpg")
            objects = ""
            for item in coco["annotations"]:
                if item["image_id"] == image["id"]:
                    x, y, w, h = item["bbox"]
                    objects += (
                        f"<object><name>{names[item['category_id']]}</name>"
                        f"<difficult>{item['iscrowd']}</difficult><bndbox>"
                        f"<xmin>{x + first}</xmin><ymin>{y + first}</ymin>"
                        f"<xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>"
                    )
            (out / "Annotations" / f"{stem}.xml").write_text(
                f"<annotation><filename>{stem}.jpg</filename>{objects}</annotation>"
            )
        (out / "ImageSets/Main" / f"{role}.txt").write_text("\n".join(stems) + "\n")
