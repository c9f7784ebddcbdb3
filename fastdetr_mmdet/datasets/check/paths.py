"""Where the files of images lie: not outside of the data set, and there at all."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """Where a file is.

    Args:
        path: The file, as mmdet opens it.
        problem: Kind of problem, or "".
        note: What is wrong.
    """

    path: str
    problem: str = ""
    note: str = ""


def locate(
    names: Sequence[str | None], images: str, root: str | None = None, find: bool = True
) -> list[Place | None]:
    """Find the files of images, with one listing of each folder and no look into files.

    Args:
        names: File names as the annotations have them; None stays None.
        images: The folder that they are relative to.
        root: Folder of the data set, below which files may lie too; default: `images` alone.
        find: Whether to list the folders; otherwise only where these lie is looked at.
    """
    allowed = [images, *([root] if root else [])]
    roots = [os.path.realpath(folder) for folder in allowed]
    written = [os.path.abspath(folder) for folder in allowed]
    folders: dict[str, _Folder] = {}
    places: list[Place | None] = []
    for name in names:
        if name is None:
            places.append(None)
            continue
        parent, base = os.path.split(name)
        if parent not in folders:
            folders[parent] = _Folder(os.path.join(images, parent), roots, written, find)
        places.append(folders[parent].place(os.path.join(images, name), base))
    return places


class _Folder:
    """One folder with images: whether it is allowed, and what it holds."""

    def __init__(self, path: str, roots: list[str], written: list[str], find: bool) -> None:
        self.roots, self.find = roots, find
        self.problem = self.note = ""
        self.entries: dict[str, os.DirEntry] = {}
        real = os.path.realpath(path)
        if not _within(real, roots):
            # links that the path passes, or what the annotation file says
            by_link = _within(os.path.normpath(os.path.abspath(path)), written)
            self.problem = "path-symlink" if by_link else "path-outside"
            self.note = f"it leads to {real}"
            return
        if not find:
            return
        try:
            with os.scandir(path) as entries:
                self.entries = {entry.name: entry for entry in entries}
        except OSError as error:
            self.problem, self.note = "file-missing", f"its folder: {error.strerror}"

    def place(self, path: str, base: str) -> Place:
        """The file of this name in the folder."""
        if self.problem or not self.find:
            return Place(path, self.problem, self.note)
        if base in ("", os.curdir, os.pardir):
            return Place(path, "file-missing", "it is a folder")
        entry = self.entries.get(base)
        try:
            if entry is None:
                # a listing may spell names differently (letter case, composed accents)
                regular, link = os.path.isfile(path), os.path.islink(path)
                missing = "no such file"
            else:
                regular, link = entry.is_file(), entry.is_symlink()
                missing = "it is a folder" if entry.is_dir() else "it is no regular file"
        except OSError as error:
            return Place(path, "file-missing", error.strerror or "cannot be looked at")
        if link:
            real = os.path.realpath(path)
            if not _within(real, self.roots):
                return Place(path, "path-symlink", f"it leads to {real}")
            missing = "a link to no file"
        return Place(path) if regular else Place(path, "file-missing", missing)


def _within(path: str, roots: list[str]) -> bool:
    return any(path == root or path.startswith(os.path.join(root, "")) for root in roots)
