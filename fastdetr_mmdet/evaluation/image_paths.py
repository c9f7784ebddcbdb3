"""Refuse data sets whose images lie outside of their folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..datasets.check.files import locate
from ..datasets.check.sets import checked_sets
from ..utils.cli import UserError


def check_image_paths(dataset: Any, paths: Sequence[str]) -> None:
    """Refuse a data set whose annotation file leads elsewhere, before anything there is opened.

    Args:
        dataset: Of mmdet. Paths of images on no disk of this machine are not looked at, nor those
            of data sets in formats other than COCO's that name no folder.
        paths: Of the images, as the data set opens them.

    Raises:
        UserError: names the first image that is outside or missing, and how many there are.
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
        count = "1 image is" if len(wrong) == 1 else f"{len(wrong)} images are"
        raise UserError(
            f"{count} missing or outside of the folder of the validation set; none was opened "
            f"({next(iter(wrong.values()))}). Say where the data is: --cfg-options data_root=... "
            "(python -m fastdetr_mmdet.datasets.check finds all such images)."
        )
