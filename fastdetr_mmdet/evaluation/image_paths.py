"""Images that a report opens lie in the folder of their data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..datasets.check.files import locate
from ..datasets.check.sets import checked_sets


class ImagePathError(ValueError):
    """An image outside of its data set, or none; the message is a sentence."""


def check_image_paths(dataset: Any, paths: Sequence[str]) -> None:
    """Refuse a data set whose annotation file leads elsewhere, before anything there is opened.

    Args:
        dataset: Of mmdet. Paths of images on no disk of this machine are not looked at, nor those
            of data sets in formats other than COCO's that name no folder.
        paths: Of the images, as the data set opens them.

    Raises:
        ImagePathError: names the first image that is outside or missing, and how many there are.
    """
    folders = []
    for checked in checked_sets(dataset, evaluated=True):
        if checked.images is None:
            return
        folders += [checked.images, *([checked.root] if checked.root else [])]
    root = getattr(dataset, "data_root", None)
    if not folders and root and "://" not in root:
        folders = [root]
    if not folders:
        return
    # not normalised: a link before a `..` would make that another place
    absolute = [os.path.join(os.getcwd(), path) for path in paths]
    wrong: dict[int, str] = {}
    for index, folder in enumerate(folders):
        found = {
            number: f"{paths[number]}: {note}"
            for number, (problem, note) in enumerate(locate(absolute, folder))
            if problem
        }
        # outside of one folder, an image may lie in another
        wrong = found if index == 0 else {n: why for n, why in wrong.items() if n in found}
    if wrong:
        first = next(iter(wrong.values()))
        which = "1 image" if len(wrong) == 1 else f"{len(wrong)} images"
        verb = "is" if len(wrong) == 1 else "are"
        raise ImagePathError(
            f"{which} of the validation set {verb} outside of the data set's folder or missing, so "
            f"none was opened ({first}). "
            "Say where the data is with --cfg-options data_root=...; "
            "python -m fastdetr_mmdet.datasets.check finds all such images"
        )
