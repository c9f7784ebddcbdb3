"""Read datasets in the formats of labelling tools as COCO's lists.

Usage:
    found = read_dataset("data/my_dataset")
    found.classes, found.splits["train"].coco["images"]
"""

from .found import ROLES, Found, Split
from .read import read_dataset
from .split import shared_images, split_off

__all__ = ["ROLES", "Found", "Split", "read_dataset", "shared_images", "split_off"]
