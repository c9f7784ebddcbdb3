"""Check that image files exist and that the pipeline reads them at the annotated size."""

from __future__ import annotations

import math
import os
import re
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from .annotations import MOST_PIXELS as MOST_SIDE
from .read import is_file_name, number
from .report import Report

if TYPE_CHECKING:
    from .sets import CheckedSet

# Limits of pixels: OpenCV's, and Pillow's for safe decoding.
MOST_PIXELS, MOST_DECODED = 2**30, 178_956_970
# Marks at the end of a file, which padding may follow.
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096
_ORIENTATION = 0x0112
# EXIF orientations that swap width and height.
_EXCHANGES = range(5, 9)
_BATCH = 4096  # images waiting for a thread


def check_files(
    report: Report,
    checked: CheckedSet,
    find: bool = True,
    look: bool = True,
    decode: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    most: int | None = None,
) -> dict[int, tuple[int, int]]:
    """Add the problems of image files to a report.

    Args:
        report: Report of the annotations.
        checked: The dataset, with a folder of images.
        find: Whether to look for files; otherwise only for folders outside of the dataset.
        look: Whether to read files.
        decode: Whether to decode every image, which finds damage in the middle of a file.
        workers: Threads that read files; None: by the number of cores.
        progress: Called with the numbers of finished and of all images.
        most: Maximum number of images to load with a custom loader; None: all.

    Returns:
        (width, height) by position in the file's list, for images that were read.
    """
    images, pipeline = checked.images or os.curdir, checked.pipeline
    report.images = images
    named = _named(report)
    there = []
    places = locate([entry["file_name"] for _, entry in named], images, checked.root, find)
    if find and places and all(problem == "file-missing" for problem, _ in places):
        if not any("but there is" in note for _, note in places):
            missing = "" if os.path.isdir(images) else ", which does not exist"
            first = named[0][1]["file_name"]
            report.add("images-folder", note=f"{images}{missing}; the first image is {first}")
            return {}
    for (position, entry), (problem, note) in zip(named, places, strict=True):
        if problem:
            report.add(problem, position, note)
        else:
            there.append((position, entry, os.path.join(images, entry["file_name"])))
    if not look:
        return {}

    loader = Loader(pipeline)
    if most and not loader.known:
        there = there[:: -(-len(there) // most) or 1]
    sizes: dict[int, tuple[int, int]] = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(workers) as pool:
        warnings.simplefilter("ignore")  # Pillow's warnings on large images and EXIF
        for start in range(0, len(there), _BATCH):
            batch = there[start : start + _BATCH]
            looks = pool.map(lambda one: look_at(one[2], loader, one[1], decode), batch)
            for done, (size, problem, note) in enumerate(looks, start):
                position = there[done][0]
                if size is not None:
                    sizes[position] = size
                if problem:
                    report.add(problem, position, note)
                if progress:
                    progress(done + 1, len(there))
    thin = set(report.positions("image-aspect")) & sizes.keys()
    for position, entry, path in there:
        note = _failure(pipeline or (), path, entry) if position in thin else ""
        if note:
            report.add("image-too-thin", position, note)
    return sizes


def _named(report: Report) -> list[tuple[int, dict]]:
    """Positions and entries of the images that have a possible file name."""
    return [
        (position, entry)
        for position, entry in enumerate(report.coco["images"])
        if isinstance(entry, dict) and is_file_name(entry.get("file_name"))
    ]


def check_names(report: Report) -> None:
    """Report images whose name leads out of all folders that it may be relative to."""
    for position, entry in _named(report):
        if os.path.normpath(entry["file_name"]).split(os.sep)[0] in ("", os.pardir):
            report.add("path-outside", position, "as it is written")


def locate(
    names: Sequence[str], images: str, root: str | None = None, find: bool = True
) -> list[tuple[str, str]]:
    """Find the files of images by one listing per folder, without reading files.

    Names are relative to `images`; `root` may hold files, too. Without `find`, only names that lead
    out of both are reported. Returns a kind of problem, or "", and a note per name.
    """
    allowed = [images, root or images]
    roots = tuple(os.path.join(os.path.abspath(folder), "") for folder in allowed)
    real_roots = tuple(os.path.join(os.path.realpath(folder), "") for folder in allowed)

    def leaves(path: str, by_link: bool) -> tuple[str, str]:
        real = os.path.realpath(path)
        if os.path.join(real, "").startswith(real_roots):
            return "", ""
        return "path-symlink" if by_link else "path-outside", f"it leads to {real}"

    @cache
    def listing(parent: str) -> tuple[str, str, dict[str, os.DirEntry]]:
        folder = os.path.join(images, parent)
        # by a link in the path, or by the annotation file
        by_link = os.path.join(os.path.abspath(folder), "").startswith(roots)
        problem, note = leaves(folder, by_link)
        if problem or not find:
            return problem, note, {}
        try:
            with os.scandir(folder) as entries:
                return "", "", {entry.name: entry for entry in entries}
        except OSError as error:
            return "file-missing", f"its folder: {error.strerror}", {}

    @cache
    def files_by_key() -> dict[str, str]:
        found: dict[str, str] = {}
        for folder, _, files in os.walk(images):
            for file in files:
                path = os.path.relpath(os.path.join(folder, file), images)
                for key in (path, file, os.path.splitext(file)[0]):
                    found.setdefault(_comparable(key), path)
        return found

    def place(name: str) -> tuple[str, str]:
        parent, base = os.path.split(name)
        problem, note, entries = listing(parent)
        if not problem and find:
            path, entry = os.path.join(images, name), entries.get(base)
            if entry and entry.is_symlink():
                problem, note = leaves(path, by_link=True)
            # some file systems find unlisted names
            if not problem and not (entry.is_file() if entry else os.path.isfile(path)):
                problem, note = "file-missing", "it is not a file" if entry else "no such file"
        if problem in ("file-missing", "path-outside") and find:
            note += _similar_name(name, images, files_by_key())
        return problem, note

    return [place(name) for name in names]


def _comparable(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


def _similar_name(name: str, images: str, files: dict[str, str]) -> str:
    """Suggest a file of the image folder for a name, and a fix."""
    plain = name.replace("\\", "/")
    parts = plain.split("/")
    keys = ["/".join(parts[n:]) for n in range(len(parts))] + [os.path.splitext(parts[-1])[0]]
    file = next((files[key] for key in map(_comparable, keys) if key in files), None)
    if file is None:
        return ""
    front = plain.removesuffix(f"/{file}")
    folder = os.path.normpath(images)
    if plain == file:
        fix = "write / instead of \\ in file_name"
    elif front != plain:
        fix = f"remove {front}/ from file_name"
        if folder.endswith(front):
            fix += f", or set --images (data_prefix.img) to {folder.removesuffix(front) or './'}"
    elif _comparable(plain) == _comparable(file):
        fix = "write file_name in the same upper and lower case"
    else:
        fix = "correct file_name if that is the image"
    return f", but there is {file}: {fix}"


class Loader:
    """The transforms of a pipeline up to the one that loads the image; None: OpenCV's."""

    def __init__(self, transforms: Sequence[Any] | None = None) -> None:
        from mmcv.transforms import LoadImageFromFile

        self.transforms: Sequence[Any] = [LoadImageFromFile()] if transforms is None else transforms
        first: Any = self.transforms[0] if self.transforms else None
        # with OpenCV, the header of most files tells the loaded size
        self.known = (
            type(first) is LoadImageFromFile
            and first.imdecode_backend == "cv2"
            and (first.backend_args or {}).get("backend", "local") == "local"
        )
        self.turns = not self.known or first.color_type in ("color", "grayscale")

    def load(self, path: str, entry: dict) -> tuple[int, int]:
        """Load an image; returns its (width, height)."""
        results = _results(path, entry)
        for transform in self.transforms:
            results = transform(results)
            if "img" in results:
                height, width = results.get("ori_shape", results["img"].shape)[:2]
                return int(width), int(height)
        raise ValueError("no transform of the pipeline makes 'img'")


def _results(path: str, entry: dict) -> dict:
    """Input of the pipeline from mmdet's CocoDataset, without boxes."""
    sides = {key: entry.get(key) for key in ("height", "width")}
    return dict(img_path=path, img_id=entry.get("id"), seg_map_path=None, instances=[], **sides)


class Look(NamedTuple):
    """Result for an image file: (width, height) as training loads it, and its problem."""

    size: tuple[int, int] | None = None
    problem: str = ""  # kind of the problem
    note: str = ""


def look_at(path: str, loader: Loader, entry: dict, decode: bool = False) -> Look:
    """Find an image's size and whether training can read it; never raises.

    With a known loader only the header and the end are read, unless the end is missing, EXIF
    rotates the image, or it is neither JPEG nor PNG.
    """
    try:
        if not os.path.isfile(path):  # opening a pipe would block
            return Look(None, "file-missing", "not a regular file")
        if not os.path.getsize(path):
            return Look(None, "file-unreadable", "it is empty")
        if not loader.known:
            return _compare(entry, loader.load(path, entry))
        with open(path, "rb") as file:
            return _look(path, file, loader, entry, decode)
    except Exception as error:  # custom loaders and damaged files may raise anything
        return Look(None, "file-unreadable", reason(error))


def _look(path: str, file: BinaryIO, loader: Loader, entry: dict, decode: bool) -> Look:
    """Read the header with Pillow; decode if that is not enough."""
    from PIL import Image

    try:
        image = Image.open(file)
    except Image.DecompressionBombError as error:  # has the number of pixels only
        pixels = int(re.findall(r"\d+", str(error))[0])
        problem = "file-unreadable" if pixels > MOST_PIXELS else "file-huge"
        return Look(None, problem, f"{pixels} pixels")
    except Exception:  # unknown formats and damaged headers
        return _compare(entry, loader.load(path, entry))
    stored, orientation = image.size, _orientation(image)
    pixels, note = stored[0] * stored[1], f"{stored[0]} x {stored[1]} pixels"
    if max(stored) > MOST_SIDE or pixels > MOST_PIXELS:
        return Look(None, "file-unreadable", f"{note} are more than OpenCV reads")
    if pixels > MOST_DECODED:
        return Look(stored, "file-huge", note)
    complete = _is_complete(file, image.format)
    deep = loader.turns and _is_deep(image)  # otherwise the loader keeps the depth

    def compare(size: tuple[int, int]) -> Look:
        found = _compare(entry, size, orientation, loader.turns)
        if not deep or found.problem:
            return found
        return Look(size, "file-depth", f"{image.format}, mode {image.mode}")

    if complete and not decode and (orientation == 1 or not loader.turns):
        return compare(stored)
    strict, size = "", None
    try:
        image.load()  # OpenCV before 4.12 fills missing parts with grey
    except Exception as error:
        strict = str(error)
    try:
        size = loader.load(path, entry)
    except Exception as error:
        note = reason(error)
    if "truncated" in strict.lower() or (size is None and complete is False):
        return Look(size, "file-truncated", strict or note)
    if size is None:
        return Look(None, "file-unreadable", note)
    return compare(size)


def _is_complete(file: BinaryIO, kind: str | None) -> bool | None:
    """Whether the mark at the end exists; None for formats without one."""
    mark = _ENDS.get(kind or "")
    if mark is None:
        return None
    position = file.tell()
    file.seek(max(file.seek(0, os.SEEK_END) - _TAIL, 0))
    tail = file.read().rstrip(b"\0\r\n ")
    file.seek(position)
    return mark in tail[-12:]  # PNG has a checksum after it


def _is_deep(image: Any) -> bool:
    """Whether an image has more than 8 bits per channel, by its header."""
    stored = str(image.tile[0][3]) if image.tile else ""  # such as RGB;16B
    return image.mode in ("I", "F") or ";16" in image.mode or ";16" in stored


def _orientation(image: Any) -> int:
    """EXIF orientation, if available without decoding."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # Pillow would decode the image to find EXIF at the end
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged EXIF; OpenCV does not rotate then
        return 1
    return orientation if orientation in range(2, 9) else 1


def _compare(entry: dict, size: tuple[int, int], orientation: int = 1, turns: bool = True) -> Look:
    """Compare an image's loaded (width, height) with the annotations, by EXIF orientation."""
    wanted = number(entry.get("width")), number(entry.get("height"))
    exchanges = orientation in _EXCHANGES and size[0] != size[1]
    note = f"EXIF orientation {orientation}"
    if wanted == size:
        flips = orientation != 1 and turns and not exchanges
        return Look(size, "file-orientation", note) if flips else Look(size)
    if not all(map(math.isfinite, wanted)):
        return Look(size)  # missing sizes are reported separately
    sides = f"annotations {wanted[0]:g} x {wanted[1]:g}, as loaded {size[0]} x {size[1]}"
    if exchanges and wanted == size[::-1]:
        return Look(size, "file-turned", f"{sides}, {note}")
    return Look(size, "file-size", sides)


def _failure(pipeline: Sequence[Any], path: str, entry: dict) -> str:
    """Name and error of the transform that fails on an image; '' if none does."""
    results: Any = _results(path, entry)
    for transform in pipeline:
        try:
            results = transform(results)
        except Exception as error:
            return f"{type(transform).__name__}: {reason(error)}"
        if results is None:
            break
    return ""


def reason(error: Exception) -> str:
    """Return the most informative line of an error."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return getattr(error, "strerror", None) or lines[-1]
