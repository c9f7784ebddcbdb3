"""The part of the check that looks for image files and into them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2
import numpy as np

from .columns import column, is_file_name, numbers
from .paths import locate
from .pixels import Look, look_at
from .report import Report

# Images of one task of the pool, and tasks that wait for each of its processes.
_CHUNK, _AHEAD = 64, 2
# What EXIF's orientations 5 to 8 do: they exchange width and height.
_EXCHANGES = 5


def check_files(
    report: Report,
    images: str,
    root: str | None = None,
    find: bool = True,
    look: bool = True,
    decode: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[int, tuple[int, int]]:
    """Add to a report what is wrong with the files of its images.

    Args:
        report: Of the annotations.
        images: The folder that file names are relative to.
        root: The data set's folder, below which files may lie too.
        find: Whether to look for the files; otherwise at their folders' places alone.
        look: Whether to look into the files, not only for them.
        decode: Whether to decode every image, which finds damage in the middle of a file.
        workers: Processes that look into files; 1: this one.
        progress: Called with the number of images that are done and of all.

    Returns:
        (width, height) by position in the file's list, as far as it was looked at.
    """
    report.images = images
    entries = report.coco["images"]
    positions = [
        p
        for p, entry in enumerate(entries)
        if isinstance(entry, dict) and is_file_name(entry.get("file_name"))
    ]
    places = locate([entries[p]["file_name"] for p in positions], images, root, find)
    there: list[tuple[int, str]] = []
    for position, place in zip(positions, places, strict=True):
        assert place is not None  # every name is one
        if place.problem:
            report.add(place.problem, "images", [position], [place.note])
        else:
            there.append((position, place.path))
    if not look:
        return {}

    said = np.column_stack(
        [numbers(column((entries[p] for p, _ in there), key)) for key in ("width", "height")]
    )
    sizes = {}
    looks = _look_at_all([path for _, path in there], decode, workers)
    for done, ((position, _), wanted, found) in enumerate(
        zip(there, said.tolist(), looks, strict=True), start=1
    ):
        problem, note = found.problem, found.note
        if found.size is not None:
            sizes[position] = found.size
            problem, note = (problem, note) if problem else _compare(wanted, found)
        if problem:
            report.add(problem, "images", [position], [note])
        if progress:
            progress(done, len(there))
    return sizes


def check_names(report: Report) -> None:
    """Add the images whose name leads out of any folder that it may be relative to."""
    for position, entry in enumerate(report.coco["images"]):
        name = entry.get("file_name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not is_file_name(name):
            continue  # reported by itself
        if os.path.isabs(name) or os.path.normpath(name).split(os.sep)[0] == os.pardir:
            report.add("path-outside", "images", [position], ["as it is written"])


def _compare(wanted: Sequence[float], look: Look) -> tuple[str, str]:
    """Kind of problem and note for an image whose annotations speak of `wanted`."""
    size, stored = look.size, look.stored
    if size is None or stored is None or not np.isfinite(wanted).all():
        return "", ""  # a missing size is reported by itself
    turned = f"EXIF orientation {look.orientation}"
    if tuple(wanted) == size:
        exchanged = look.orientation >= _EXCHANGES and size[0] != size[1]
        return ("", "") if look.orientation == 1 or exchanged else ("file-orientation", turned)
    words = f"annotations {wanted[0]:g} x {wanted[1]:g}, file {size[0]} x {size[1]}"
    if tuple(wanted) == stored:
        return "file-turned", f"{words} by {turned}"
    return "file-size", words


def _look_at_all(paths: list[str], decode: bool, workers: int) -> Iterator[Look]:
    """Look at files in order, quietly."""
    level, threads = _set_log_level(0), cv2.getNumThreads()
    try:
        if workers <= 1 or len(paths) <= _CHUNK:
            yield from (look_at(path, decode) for path in paths)
        else:
            # a forked process would wait for OpenCV's threads, which are not forked with it
            cv2.setNumThreads(0)
            yield from _look_in_pool(paths, decode, workers)
    finally:
        cv2.setNumThreads(threads)
        _set_log_level(level)


def _look_in_pool(paths: list[str], decode: bool, workers: int) -> Iterator[Look]:
    """Look at files in order, in processes that may die of one."""
    chunks = [paths[i : i + _CHUNK] for i in range(0, len(paths), _CHUNK)]
    waiting = workers * _AHEAD
    start = 0
    while start < len(chunks):
        with ProcessPoolExecutor(workers, initializer=_set_log_level, initargs=(0,)) as pool:
            futures = {
                n: pool.submit(_look_at_chunk, chunks[n], decode)
                for n in range(start, min(start + waiting, len(chunks)))
            }
            try:
                while start < len(chunks):
                    yield from futures.pop(start).result()
                    start += 1
                    following = start + waiting - 1
                    if following < len(chunks):
                        futures[following] = pool.submit(_look_at_chunk, chunks[following], decode)
            except BrokenProcessPool:
                pass  # some file killed a process; not necessarily one of this chunk
        if start < len(chunks):
            yield from (_look_alone(path, decode) for path in chunks[start])
            start += 1


def _look_alone(path: str, decode: bool) -> Look:
    """Look at one file in a process of its own."""
    with ProcessPoolExecutor(1, initializer=_set_log_level, initargs=(0,)) as pool:
        try:
            return pool.submit(look_at, path, decode).result()
        except BrokenProcessPool:
            return Look(problem="file-unreadable", note="reading it killed the process")


def _look_at_chunk(paths: list[str], decode: bool) -> list[Look]:
    return [look_at(path, decode) for path in paths]


def _set_log_level(level: int) -> int:
    """OpenCV's own messages go to the terminal and name no file; returns the level before."""
    try:
        before = cv2.getLogLevel()
        cv2.setLogLevel(level)
    except AttributeError:  # OpenCV before 4.5
        return 0
    return before


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
