"""Kinds of problems a data set can have, what training does about each, and its fix."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# Two lines a kind, in the order of reports: name | severity | problem, then what mmdet does where
# nobody checks | what a cleaned copy gets. "stops" is an error on which DatasetCheckHook stops.
_TABLE = """
no-images | stops | the file has no image
    fails at the start | refused
no-categories | stops | the file has no category
    learns nothing | refused
category-malformed | stops | category without an integer 'id' and a string 'name'
    fails while loading the file | category and its boxes removed
category-id-twice | stops | category id used twice
    mixes up both classes | category and its boxes removed
category-name-twice | stops | category name used twice
    counts more classes than metainfo.classes has | boxes moved to the first of that name
class-without-category | stops | class of metainfo.classes that the file does not have
    never sees the class | kept: fix metainfo.classes
class-order | stops | metainfo.classes in another order than the file's categories
    swaps class names, because mmdet numbers classes in file order | sorted as in metainfo.classes
category-not-in-classes | warning | category that metainfo.classes does not name
    leaves its boxes out | kept
category-gap | warning | gap in the category ids
    numbers classes without gaps | kept
category-unused | warning | category without a usable box
    never sees the class | kept
image-malformed | stops | image entry that is not a JSON object
    fails while loading the file | entry removed
image-id | stops | image id that is missing or not an integer
    fails, or uses boxes of other images | image and its boxes removed
image-id-twice | stops | image id used twice
    gives the boxes of both images to the last | all of that id removed; one stays if all are equal
file-name | stops | 'file_name' that is missing or not a possible name
    fails while loading the file | image and its boxes removed
path-outside | stops | 'file_name' that leads out of the image folder and data_root
    reads that file | image and its boxes removed
path-symlink | stops | image that a symbolic link leads out of the image folder and data_root
    reads that file | image and its boxes removed
image-size | stops | image whose 'width' or 'height' is missing or not a positive integer
    fails, or drops the image's boxes | read from the file, or rounded; else as image-id
file-shared | stops | image of the same file as another, with other boxes
    learns the objects of one as background of the other | boxes moved to the first image
file-twice | warning | image of the same file as another
    sees it more often | kept
image-empty | warning | image without usable boxes
    learns it as background | kept
image-crowds-only | warning | image with only crowds (iscrowd)
    learns it as background: DETR heads have no ignored regions | kept
image-aspect | warning | image with an extreme aspect ratio
    makes it very thin | kept
image-too-thin | stops | image so thin that the pipeline fails on it
    fails at that image | image and its boxes removed
file-missing | stops | image file that does not exist
    fails at that image | image and its boxes removed
file-unreadable | stops | file that cannot be read as an image
    fails at that image | image and its boxes removed
file-truncated | stops | image file that ends too early
    fails at that image, or learns grey pixels (older OpenCV) | image and its boxes removed
file-size | stops | image of another size than the annotations say
    learns boxes drawn for another image | image and its boxes removed
file-turned | stops | image whose loader and annotations disagree on its EXIF orientation
    learns boxes beside the objects | image and its boxes removed
file-orientation | warning | image that EXIF rotates or flips without changing its size
    rotates or flips the image: check that its boxes fit | kept
file-huge | warning | image too large for this check to decode
    may need much memory | kept
annotation-malformed | stops | annotation that is not a JSON object
    fails while loading the file | entry removed
unknown-image | stops | box of an image that the file does not have
    drops the box silently and learns its object as background | box removed
unknown-category | stops | box of a category that the file does not have
    drops the box silently and learns its object as background | box removed
bbox-malformed | stops | 'bbox' that is missing or not four numbers
    fails while loading the file | box removed
bbox-not-finite | stops | box with NaN, infinite or extremely large numbers
    drops it silently, or fails in the matcher | box removed
boxes-as-fractions | stops | boxes in fractions of the image instead of pixels
    drops every box as smaller than a pixel | multiplied by the image size
boxes-as-corners | stops | boxes as (x1, y1, x2, y2) instead of (x, y, width, height)
    learns boxes that are too large | converted to (x, y, width, height)
bbox-negative | stops | box of negative width or height
    drops the box silently and learns its object as background | box removed
bbox-outside | error | box completely outside its image
    drops the box silently and learns its object as background | box removed
bbox-zero | warning | box of zero area
    drops the box; evaluation counts it as missed | box removed
bbox-subpixel | warning | box less than a pixel wide or high
    drops the box; evaluation counts it as missed | box removed
bbox-partly-outside | warning | box that extends more than a pixel beyond its image
    cuts it at the border; evaluation does not | kept
bbox-aspect | warning | box with an extreme aspect ratio
    learns it | kept
bbox-twice | warning | box given twice for the same image and category
    expects two detections of one object | one of them removed
area | stops | good box whose 'area' is missing or not a positive number
    fails, or drops the box silently | area set to width times height
iscrowd | stops | 'iscrowd' that is neither 0 nor 1
    may take it for a crowd, or fail in evaluation | 0 or 1 if it spells one, else box removed
iscrowd-missing | stops | box without 'iscrowd' in a file used for evaluation
    fails in the first evaluation | set to 0
annotation-id | stops | annotation id that is missing or not an integer
    fails while loading the file, or in evaluation | a new id
annotation-id-twice | stops | annotation id used twice
    fails while loading the file | a new id
annotation-id-zero | warning | annotation with id 0
    learns it, but COCO evaluation counts its object as never found | a new id
marked-ignore | warning | box marked 'ignore'
    leaves it out | kept
ids-in-letters | warning | ids that are strings
    works with them; other tools do not | kept
"""


class Kind(NamedTuple):
    """One kind of problem.

    Args:
        name: As ``--allow`` and the JSON report have it.
        severity: "error": training fails or learns something wrong. "warning": harmless, or a
            matter of taste.
        stops: Whether ``DatasetCheckHook`` stops a run.
        what: What is wrong with one entry.
        training: What mmdet does about it where nobody checks.
        cleaned: What a cleaned copy gets.
    """

    name: str
    severity: str
    stops: bool
    what: str
    training: str
    cleaned: str


def _parse(table: str) -> dict[str, Kind]:
    lines = table.strip().splitlines()
    kinds = {}
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        name, severity, what = first.split(" | ")
        training, cleaned = second.strip().split(" | ")
        stops = severity == "stops"
        kinds[name] = Kind(name, "error" if stops else severity, stops, what, training, cleaned)
    return kinds


KINDS = _parse(_TABLE)


def check_kind_names(names: Iterable[str]) -> None:
    """Refuse names that are not kinds.

    Raises:
        ValueError: names the unknown ones and those that exist.
    """
    unknown = [name for name in names if name not in KINDS]
    if unknown:
        raise ValueError(f"Unknown kind {', '.join(unknown)}; known are {', '.join(KINDS)}.")
