"""What can be wrong with a data set, and what training does about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Kind:
    """One kind of problem.

    Args:
        name: As ``--allow`` and the JSON report have it.
        severity: "error": training breaks on it or learns something wrong. "warning": harmless, or
            a matter of taste.
        stops: Whether ``DatasetCheckHook`` stops a run.
        what: What is wrong with one entry.
        training: What mmdet does about it where nobody checks.
        cleaned: What becomes of it in a cleaned copy.
    """

    name: str
    severity: Severity
    stops: bool
    what: str
    training: str
    cleaned: str


def _stops(name: str, what: str, training: str, cleaned: str) -> Kind:
    return Kind(name, "error", True, what, training, cleaned)


def _error(name: str, what: str, training: str, cleaned: str) -> Kind:
    return Kind(name, "error", False, what, training, cleaned)


def _warning(name: str, what: str, training: str, cleaned: str = "kept") -> Kind:
    return Kind(name, "warning", False, what, training, cleaned)


_NO_IMAGE = "image and its boxes removed"
_NO_BOX = "box removed"
_NO_CLASS = "category and its boxes removed"
_FAILS = "fails while it loads the file"
_FAILS_LATER = "fails when it comes to the image"
_DROPS = "drops the box in silence: its object is learnt as background"

# In the order of reports.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in [
        # The file as a whole
        _stops("no-images", "no image in the file", "fails while it starts", "refused"),
        _stops("no-categories", "no category in the file", "learns nothing", "refused"),
        _stops(
            "boxes-as-fractions",
            "boxes in fractions of the image instead of pixels",
            "drops every box, because all are smaller than a pixel",
            "multiplied by the image's size",
        ),
        _stops(
            "boxes-as-corners",
            "boxes as (x1, y1, x2, y2) instead of (x, y, width, height)",
            "learns boxes that are too large",
            "turned into (x, y, width, height)",
        ),
        # Categories
        _stops(
            "category-malformed",
            "category that is no object with an integer 'id' and a 'name' in letters",
            _FAILS,
            _NO_CLASS,
        ),
        _stops("category-id-twice", "category id given twice", "mixes both classes up", _NO_CLASS),
        _stops(
            "category-name-twice",
            "category name given twice",
            "counts more classes than metainfo.classes names",
            "boxes go to the first of that name",
        ),
        _stops(
            "class-without-category",
            "class of metainfo.classes that the file does not have",
            "never sees the class",
            "kept: mend metainfo.classes",
        ),
        _stops(
            "class-order",
            "metainfo.classes in another order than the file's categories",
            "calls classes by each other's names, because mmdet numbers them in the file's order",
            "categories put into the order of metainfo.classes",
        ),
        _warning(
            "category-not-in-classes",
            "category that metainfo.classes does not name",
            "leaves its boxes out",
        ),
        _warning("category-gap", "gap in the category ids", "numbers classes without gaps"),
        _warning("category-unused", "category without a usable box", "never sees the class"),
        # Images
        _stops("image-malformed", "image entry that is no object", _FAILS, "entry removed"),
        _stops(
            "image-id",
            "image id that is missing or no integer",
            "fails, or takes other images' boxes",
            _NO_IMAGE,
        ),
        _stops(
            "image-id-twice",
            "image id given twice",
            "puts the boxes of both images on the last",
            "all images of that id and their boxes removed; one stays if all are the same",
        ),
        _stops("file-name", "'file_name' that is missing or no possible name", _FAILS, _NO_IMAGE),
        _stops(
            "path-outside",
            "'file_name' that leads out of the image folder and data_root",
            "reads that file",
            _NO_IMAGE,
        ),
        _stops(
            "path-symlink",
            "image that a symbolic link leads out of the image folder and data_root",
            "reads that file",
            _NO_IMAGE,
        ),
        _stops(
            "image-size",
            "image whose 'width' or 'height' is missing or no positive integer",
            "fails, or drops the image's boxes",
            "size read from the file, or rounded; else image and its boxes removed",
        ),
        _stops(
            "file-shared",
            "image of the same file as another, with other boxes",
            "learns each one's objects as the other's background",
            "boxes go to the first image of that file",
        ),
        _warning("file-twice", "image of the same file as another", "sees it that much oftener"),
        _warning("image-empty", "image without usable boxes", "learns it as background"),
        _warning(
            "image-crowds-only",
            "image with nothing but crowds (iscrowd)",
            "learns it as background: DETR heads know no regions to ignore",
        ),
        _warning("image-aspect", "image of an absurd aspect ratio", "makes it very thin"),
        # Image files
        _stops("file-missing", "image file that is not there", _FAILS_LATER, _NO_IMAGE),
        _stops("file-unreadable", "file that is no image", _FAILS_LATER, _NO_IMAGE),
        _stops(
            "file-truncated",
            "image file that ends too early",
            "fails when it comes to the image, or learns grey pixels (older OpenCV)",
            _NO_IMAGE,
        ),
        _stops(
            "file-size",
            "image of another size than the annotations say",
            "learns boxes that were drawn for another image",
            _NO_IMAGE,
        ),
        _stops(
            "file-turned",
            "image that its EXIF orientation turns; the annotations have the size before",
            "turns the image, but not the boxes",
            _NO_IMAGE,
        ),
        _warning(
            "file-orientation",
            "image with an EXIF orientation that the size does not show",
            "turns or flips the image: look whether the boxes belong to that",
        ),
        _warning(
            "file-huge", "image too large to be decoded by this check", "may need much memory"
        ),
        # Annotations
        _stops("annotation-malformed", "annotation that is no object", _FAILS, "entry removed"),
        _stops("unknown-image", "box of an image that the file does not have", _DROPS, _NO_BOX),
        _stops(
            "unknown-category", "box of a category that the file does not have", _DROPS, _NO_BOX
        ),
        _stops("bbox-malformed", "'bbox' that is missing or not four numbers", _FAILS, _NO_BOX),
        _stops(
            "bbox-not-finite",
            "box with NaN, infinite or absurdly large numbers",
            "drops it in silence, or fails in the matcher",
            _NO_BOX,
        ),
        _stops("bbox-negative", "box of negative width or height", _DROPS, _NO_BOX),
        _error("bbox-outside", "box wholly outside of its image", _DROPS, _NO_BOX),
        _warning(
            "bbox-zero",
            "box of zero area",
            "drops the box; evaluation counts it as missed",
            _NO_BOX,
        ),
        _warning(
            "bbox-subpixel",
            "box narrower or lower than a pixel",
            "drops the box; evaluation counts it as missed",
            _NO_BOX,
        ),
        _warning(
            "bbox-partly-outside",
            "box that reaches more than a pixel out of its image",
            "cuts it at the border; evaluation does not",
        ),
        _warning("bbox-aspect", "box of an absurd aspect ratio", "learns it"),
        _warning(
            "bbox-twice",
            "box that the same image has twice, of the same category",
            "wants two detections of one object",
            "one of them removed",
        ),
        _stops(
            "area",
            "good box whose 'area' is missing or no positive number",
            "fails, or drops the box in silence",
            "area set to width times height",
        ),
        _stops(
            "iscrowd",
            "'iscrowd' that is neither 0 nor 1",
            "may take the object for a crowd, or fail in evaluation",
            "set to 0 or 1 where it says so otherwise, else box removed",
        ),
        _stops(
            "iscrowd-missing",
            "box without 'iscrowd' in a file to evaluate on",
            "fails in the first evaluation",
            "set to 0",
        ),
        _stops(
            "annotation-id",
            "annotation id that is missing or no integer",
            "fails while it loads the file, or in evaluation",
            "a new id",
        ),
        _stops("annotation-id-twice", "annotation id given twice", _FAILS, "a new id"),
        _warning(
            "annotation-id-zero",
            "annotation of id 0",
            "learns it, but COCO's evaluation takes its object for never found",
            "a new id",
        ),
        _warning("marked-ignore", "box marked 'ignore'", "leaves it out"),
        _warning(
            "ids-in-letters",
            "ids that are strings",
            "works with them; other tools do not",
        ),
    ]
}


def check_kind_names(names: list[str] | tuple[str, ...]) -> None:
    """Refuse names that are no kinds.

    Raises:
        ValueError: names the wrong ones and what there is.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: no such kind of problem; there are {', '.join(KINDS)}."
        )
