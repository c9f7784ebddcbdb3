"""mmdet's loading of data, with messages that name the file and what is wrong with it."""

from __future__ import annotations

import functools
from typing import Any

from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets import CocoDataset

from .columns import shown
from .read import NotCocoError
from .sets import check_set, sets_of_dataset


class NamedImageLoading(BaseTransform):
    """Loads an image as another transform does, and names the file if that fails.

    OpenCV's errors (an empty file, too many pixels) name none, and with worker processes nothing
    else in the traceback does.

    Args:
        loading: The transform that loads.

    Raises:
        OSError: if the image cannot be loaded.
    """

    def __init__(self, loading: BaseTransform) -> None:
        self.loading = loading

    def transform(self, results: dict) -> dict | None:
        """Load the image of `results`."""
        try:
            return self.loading(results)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            reason = getattr(error, "strerror", None) or lines[-1]
            raise OSError(
                f"Image file {shown(results.get('img_path'), 300)} (image id "
                f"{shown(results.get('img_id'))}) cannot be read: {reason}. Mend or replace the "
                "file; python -m fastdetr_mmdet.datasets.check finds all such files, and writes "
                "annotations without them."
            ) from error

    def __repr__(self) -> str:
        return repr(self.loading)


def name_unreadable_images(dataset: Any) -> None:
    """Let a data set's pipeline name the image files that it fails to read."""
    transforms = getattr(getattr(dataset, "pipeline", None), "transforms", None) or []
    for n, transform in enumerate(transforms):
        if isinstance(transform, LoadImageFromFile):
            transforms[n] = NamedImageLoading(transform)


def explain_failed_loading() -> None:
    """Let CocoDataset say what is wrong with an annotation file that it fails to load.

    The runner builds data sets before it calls any hook, so a hook comes too late for files on
    which mmdet ends in ``KeyError: 'bbox'``. Only that error's message changes, and only where
    the check knows a better one.
    """
    full_init = CocoDataset.full_init
    if getattr(full_init, "explains", False):
        return

    @functools.wraps(full_init)
    def explained(self: Any) -> None:
        try:
            full_init(self)
        except OSError:  # names the file, as it is
            raise
        except Exception as error:
            reason = explain(self)
            if reason:
                raise ValueError(reason) from error
            raise

    explained.explains = True  # type: ignore[attr-defined]
    CocoDataset.full_init = explained


def explain(dataset: Any) -> str:
    """What the check says of the file of a data set that failed to load; '' if nothing."""
    try:
        for checked, _ in sets_of_dataset(dataset, bool(getattr(dataset, "test_mode", False))):
            report = check_set(checked)
            report.images = checked.images
            refusal = report.refusal()
            return refusal and f"{refusal}\nImages and their paths have not been looked at yet."
    except NotCocoError as error:
        return str(error)
    except Exception:  # then the error that is there is the better one
        pass
    return ""
