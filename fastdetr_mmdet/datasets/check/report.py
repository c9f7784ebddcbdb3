"""What a check has found, in words for people and in JSON for programs."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .columns import shown
from .kinds import KINDS, Kind

EXAMPLES = 5


@dataclass
class Finding:
    """One kind of problem and where it is.

    Args:
        kind: What it is.
        subject: List that ``positions`` point into: "images", "annotations", "categories"; or ""
            for the file or config as a whole.
        positions: Of the entries in that list.
        notes: What to say about each entry besides its id; empty, or as long as ``positions``.
    """

    kind: Kind
    subject: str
    positions: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """Number of entries; 1 for the file as a whole."""
        return len(self.positions) if self.subject else max(len(self.notes), 1)


class Report:
    """Everything that was found in one annotation file.

    Args:
        source: The file's name, for messages.
        coco: Its parsed content.
        images: The folder of the images, for messages; None if they were not looked for.
    """

    def __init__(self, source: str, coco: dict[str, Any], images: str | None = None) -> None:
        self.source = source
        self.coco = coco
        self.images = images
        self.findings: dict[str, Finding] = {}
        self.skipped = 0  # boxes that mmdet's CocoDataset drops while it loads

    def add(
        self,
        kind: str,
        subject: str = "",
        positions: Iterable[int] | np.ndarray = (),
        notes: Sequence[str] = (),
    ) -> None:
        """Add entries to a kind; nothing happens if there are none."""
        if isinstance(positions, np.ndarray):
            found = (np.flatnonzero(positions) if positions.dtype == bool else positions).tolist()
        else:
            found = list(positions)
        if not found and (subject or not notes):
            return
        finding = self.findings.setdefault(kind, Finding(KINDS[kind], subject))
        # notes stay as long as positions, whoever adds with and without
        finding.notes += [""] * (len(finding.positions) - len(finding.notes))
        finding.positions += found
        finding.notes += notes

    def ordered(self) -> list[Finding]:
        """Findings in the order of ``KINDS``."""
        return [self.findings[name] for name in KINDS if name in self.findings]

    def errors(self, allowed: Collection[str] = (), warnings: bool = False) -> list[Finding]:
        """Findings that are errors, or else warnings, and not allowed."""
        severities = ("error", "warning") if warnings else ("error",)
        return [
            f
            for f in self.ordered()
            if f.kind.severity in severities and f.kind.name not in allowed
        ]

    def stopping(self, allowed: Collection[str] = ()) -> list[Finding]:
        """Findings on which training stops."""
        return [f for f in self.errors(allowed) if f.kind.stops]

    # ----------------------------------------------------------------------------------------------
    # Words

    def sizes(self) -> str:
        """Number of images, boxes and categories."""
        images, boxes, categories = (
            len(self.coco[key]) for key in ("images", "annotations", "categories")
        )
        return f"{images} images, {boxes} boxes, {categories} categories"

    def examples(self, finding: Finding, most: int = EXAMPLES) -> str:
        """The first entries of a finding, by id and file."""
        if finding.subject:
            named = [
                self.name(finding.subject, position, note)
                for position, note in zip(
                    finding.positions[:most],
                    [*finding.notes[:most], *[""] * most],
                    strict=False,
                )
            ]
        else:
            named = finding.notes[:most]
        return "; ".join(named) + ("; ..." if finding.count > most else "")

    def sentence(self, finding: Finding) -> str:
        """One finding in one line, the same in the tool and in a stopped training."""
        where = self.examples(finding)
        return f"{finding.kind.what}: {finding.count}" + (f" ({where})" if where else "")

    def name(self, subject: str, position: int, note: str = "") -> str:
        """An entry as people find it: ids and file name, or its place in the list."""
        entry = self.coco[subject][position]
        entry = entry if isinstance(entry, dict) else {}
        known = entry.get("id") is not None
        text = f"{subject[:-1] if subject != 'categories' else 'category'} " + (
            shown(entry["id"], 40) if known else f"number {position + 1} of '{subject}'"
        )
        more = []
        if subject == "annotations":
            image_id = entry.get("image_id")
            if image_id is not None:
                more.append(f"image {shown(image_id, 40)}")
                more += self._file_of(image_id)
        elif subject == "images":
            more += [shown(entry["file_name"])] if isinstance(entry.get("file_name"), str) else []
        elif isinstance(entry.get("name"), str):
            more.append(shown(entry["name"], 40))
        more += [note] if note else []
        return f"{text} ({', '.join(more)})" if more else text

    def _file_of(self, image_id: Any) -> list[str]:
        if not hasattr(self, "_files"):
            self._files: dict = {}
            for entry in self.coco["images"]:
                if isinstance(entry, dict) and isinstance(entry.get("id"), (int, str)):
                    self._files.setdefault(entry["id"], entry.get("file_name"))
        file = self._files.get(image_id) if isinstance(image_id, (int, str)) else None
        return [] if file is None else [shown(file)]

    def text(self, allowed: Collection[str] = ()) -> str:
        """The table of the command line."""
        lines = [f"{self.source}: {self.sizes()}"]
        for finding in self.ordered():
            kind = finding.kind
            severity = "allowed" if kind.name in allowed else kind.severity
            lines.append(f"  {severity:8}{finding.count:>7}  {kind.name:20} {kind.what}")
            indent = " " * 19
            where = self.examples(finding)
            lines += [f"{indent}{where}"] if where else []
            lines.append(f"{indent}training: {kind.training}")
        return "\n".join([*lines, self.verdict(allowed)])

    def verdict(self, allowed: Collection[str] = ()) -> str:
        """The last line: how many of what."""
        errors = self.errors(allowed)
        others = [f for f in self.ordered() if f not in errors]
        if not self.findings:
            return "Nothing wrong found."
        return f"{_counted(errors, 'error')}, {_counted(others, 'warning')}."

    def refusal(self, allowed: Collection[str] = ()) -> str:
        """Why training does not start on this file, and what to do; '' if it may."""
        stopping = self.stopping(allowed)
        if not stopping:
            return ""
        lines = [f"{self.source} cannot be trained or tested on as it is:"]
        lines += [f"- {self.sentence(f)} [{f.kind.name}]" for f in stopping]
        folder = f" --images {self.images}" if self.images else ""
        lines.append(
            "Mend the file, or write a copy without these: "
            f"python -m fastdetr_mmdet.datasets.check {self.source}{folder} "
            "--write-cleaned CLEANED.json."
        )
        if not any(f.kind.training.startswith("fails while") for f in stopping):
            names = ", ".join(repr(f.kind.name) for f in stopping)
            lines[-1] += (
                " To run with them all the same, give the DatasetCheckHook of your custom_hooks "
                f"allow=[{names}]."
            )
        return "\n".join(lines)

    def paragraph(self) -> str:
        """What training says of a file on which it does not stop."""
        text = f"Data check of {self.source} ({self.sizes()}): "
        if not self.findings:
            return text + "nothing wrong found."
        parts = [f"{f.count} x {f.kind.what} [{f.kind.name}]" for f in self.ordered()]
        skips = f"{self.skipped} boxes are skipped; " if self.skipped else "no box is skipped; "
        return f"{text}{skips}{'; '.join(parts)}. docs/data_check.md says what each means."

    # ----------------------------------------------------------------------------------------------
    # JSON

    def to_dict(self, allowed: Collection[str] = ()) -> dict[str, Any]:
        """Everything, with all entries of every finding."""
        return {
            "file": self.source,
            "images": len(self.coco["images"]),
            "annotations": len(self.coco["annotations"]),
            "categories": len(self.coco["categories"]),
            "boxes_skipped_in_training": self.skipped,
            "findings": [
                {
                    "kind": f.kind.name,
                    "severity": f.kind.severity,
                    "stops_training": f.kind.stops,
                    "allowed": f.kind.name in allowed,
                    "what": f.kind.what,
                    "training": f.kind.training,
                    "count": f.count,
                    "entries": self._entries(f),
                }
                for f in self.ordered()
            ],
        }

    def _entries(self, finding: Finding) -> list[dict[str, Any]]:
        if not finding.subject:
            return [{"note": note} for note in finding.notes]
        rows = []
        for i, position in enumerate(finding.positions):
            entry = self.coco[finding.subject][position]
            row: dict[str, Any] = {"list": finding.subject, "position": position}
            for key in ("id", "image_id", "file_name", "name"):
                value = entry.get(key) if isinstance(entry, dict) else None
                if isinstance(value, (int, str)):
                    row[key] = value
            if i < len(finding.notes) and finding.notes[i]:
                row["note"] = finding.notes[i]
            rows.append(row)
        return rows


def _counted(findings: list[Finding], word: str) -> str:
    total = sum(finding.count for finding in findings)
    kinds = f" of {len(findings)} kinds" if len(findings) > 1 else ""
    return f"{total or 'no'} {word}{'' if total == 1 else 's'}{kinds}"


def write_json(path: str | Path, value: Any) -> None:
    """Write a file so that it is never seen half written under its own name."""
    path = Path(path)
    # a new file: one of that name may be somebody's, or a link to it
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            json.dump(value, file)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's is for its owner alone
        Path(temporary).replace(path)
    except BaseException:
        os.unlink(temporary)
        raise
