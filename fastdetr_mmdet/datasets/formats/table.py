"""Tables of boxes (CSV) of TensorFlow's object detection, OpenImages and many scripts.

``globox`` reads only OpenImages' columns, and other tables with one file per image.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

from ...utils.cli import UsageError
from .found import Box, Found, is_image, left_out, role_of

# Names of columns, in lower case and without punctuation.
_COLUMNS = {
    "image": ("filename", "imagename", "imagepath", "image", "path", "file", "imageid", "img"),
    "class": ("class", "classname", "label", "labelname", "category", "name"),
    "left": ("xmin", "x1", "left", "bboxx1"),
    "top": ("ymin", "y1", "top", "bboxy1"),
    "right": ("xmax", "x2", "right", "bboxx2"),
    "bottom": ("ymax", "y2", "bottom", "bboxy2"),
}


class _NoBoxes(UsageError):
    """A table without the columns of boxes, such as OpenImages' names of classes."""


def read(root: Path, files: list[Path], only: Path | None) -> Found | None:
    """Read tables with a line for each box, and images; None if there are none."""
    described = [path for path in files if "class-descriptions" in path.name]
    given = [only] if only else files
    tables = [x for x in given if x.suffix.lower() == ".csv" and x not in described]
    present = {path for path in files if is_image(path)}
    by_name = {name: path for path in sorted(present) for name in (path.stem, path.name)}
    if not tables or not present:
        return None
    sets: dict[str, dict[Path, list[Box]]] = {}
    lost: list[str] = []
    notes: list[str] = []
    meant = _descriptions(described)
    for table in tables:
        try:
            rows = _rows(table, meant)
        except _NoBoxes:
            if table == tables[-1] and not sets:
                raise
            notes.append(f"{table.name} has no columns of boxes and is not read.")
            continue
        of_role = sets.setdefault(role_of(table, root) or "train", {})
        for named, box in rows:
            told = Path(named.replace("\\", "/"))
            near = (root / told, table.parent / told, table.parent / told.name)
            image = next((p for p in near if p in present), by_name.get(told.name))
            if image is None:
                lost.append(named)
                continue
            found = of_role.setdefault(image, [])
            if box:  # otherwise an image without objects
                found.append(box)
    sets = {role: found for role, found in sets.items() if found}
    if not sets:
        raise UsageError(
            f"{tables[0]} names no image that is there{f', but {lost[0]}' if lost else ''}."
        )
    notes += left_out("Lines without an image", lost)
    every = [box for found in sets.values() for own in found.values() for box in own]
    shares = bool(every) and all(max(box[1:5]) <= 1 for box in every)
    if shares:
        notes.append("Boxes are fractions of the image, from 0 to 1, not pixels.")
    used = {path for found in sets.values() for path in found}
    notes += left_out("Images in no table", sorted(present - used))
    ids = sorted({box[0] for box in every if re.match("/[a-z]/", box[0])})
    if ids:
        notes.append(
            f"Class names are OpenImages' ids, such as {ids[0]}. For real names, put its file "
            "class-descriptions-boxable.csv next to the table."
        )
    listed = {role: list(found.items()) for role, found in sets.items()}
    return Found.of("CSV", root, listed, notes, shares=shares)


def _descriptions(paths: list[Path]) -> dict[str, str]:
    """OpenImages' class names by id."""
    lines = [line for path in paths for line in path.read_text(encoding="utf-8-sig").splitlines()]
    return {row[0]: row[1] for row in csv.reader(lines) if len(row) == 2}


def _rows(path: Path, meant: dict[str, str]) -> list[tuple[str, Box | None]]:
    """Image and box of each line; None if a line has only an image."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        file.seek(0)
        separator = max(",;\t", key=first.count)
        reader = csv.DictReader(file, delimiter=separator)
        keys = {re.sub(r"[\W_]", "", key.lower()): key for key in reader.fieldnames or ()}
        lines = list(reader)
    column = {
        what: next((keys[name] for name in names if name in keys), None)
        for what, names in _COLUMNS.items()
    }
    missing = [what for what, key in column.items() if not key]
    if missing:
        raise _NoBoxes(
            f"{path} has no column for {', '.join(missing)}. Its first line is "
            f"{first.strip()[:80]!r}; name its columns image, class, xmin, ymin, xmax, ymax."
        )
    rows: list[tuple[str, Box | None]] = []
    for number, line in enumerate(lines, 2):
        image, label, *corners = (str(line[key] or "").strip() for key in column.values())
        if not label:
            rows.append((image, None))
            continue
        try:
            left, top, right, bottom = map(float, corners)
        except ValueError:
            raise UsageError(f"{path}, line {number} holds no box of four numbers.") from None
        rows.append((image, (meant.get(label, label), left, top, right, bottom, False)))
    return rows
