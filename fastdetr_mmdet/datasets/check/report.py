"""Kinds of problems of datasets, and the results of a check as text and as JSON."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .read import LISTS, shown

EXAMPLES, MAX_ASPECT = 5, 50.0


class Kind(NamedTuple):
    """One kind of problem, as ``kinds.txt`` lists it."""

    name: str  # in --allow and in the JSON report
    severity: str  # "error": training fails or learns wrong labels. "warning": usually harmless
    stops: bool  # whether DatasetCheckHook stops a run
    what: str  # the problem of one entry
    training: str  # what mmdet does without the check
    cleaned: str  # fix in a cleaned copy
    subject: str  # list of the entries; "" for the file or config
    key: str  # key of the wrong value; "" if it is not a single value


def _read_kinds() -> dict[str, Kind]:
    text = Path(__file__).with_name("kinds.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    kinds = {}
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        where, name, severity, what = first.split(" | ")
        training, cleaned = second.strip().split(" | ")
        subject, _, key = where.partition(".")
        subject = subject if subject in LISTS else ""
        stops = severity == "stops"
        severity = "error" if stops else severity
        kinds[name] = Kind(name, severity, stops, what, training, cleaned, subject, key)
    return kinds


KINDS = _read_kinds()


@dataclass
class Finding:
    """A kind of problem and its entries."""

    kind: Kind
    entries: list[tuple[int, str]] = field(default_factory=list)  # position or -1, and a note

    @property
    def count(self) -> int:
        """Number of entries."""
        return len(self.entries)

    @property
    def positions(self) -> list[int]:
        """Positions of the entries in their list."""
        return [position for position, _ in self.entries] if self.kind.subject else []


class Report:
    """All problems of an annotation file: its name, its content, and the folder of its images."""

    def __init__(self, source: str, coco: dict[str, Any], max_aspect: float = MAX_ASPECT) -> None:
        self.source = source
        self.coco = coco
        self.max_aspect = max_aspect  # longest over shortest side of sound boxes and images
        self.images: str | None = None  # None: not checked
        self.findings: dict[str, Finding] = {}
        self.skipped = 0  # boxes that mmdet's CocoDataset drops

    def add(self, name: str, position: int = -1, note: str = "") -> None:
        """Add an entry, or a note on the file, to a kind."""
        kind = KINDS[name]
        if kind.key and not note:
            entry, key = self.coco[kind.subject][position], kind.key
            note = f"{key} is {shown(entry[key], 40, repr)}" if key in entry else f"no {key}"
        self.findings.setdefault(name, Finding(kind)).entries.append((position, note))

    def positions(self, kind: str) -> list[int]:
        """Positions of a kind."""
        return self.findings[kind].positions if kind in self.findings else []

    def ordered(self) -> list[Finding]:
        """Findings in the order of ``KINDS``."""
        return [self.findings[name] for name in KINDS if name in self.findings]

    def errors(self, allowed: Collection[str] = (), warnings: bool = False) -> list[Finding]:
        """Findings that are errors (with `warnings`: all) and not allowed."""
        return [
            finding
            for finding in self.ordered()
            if finding.kind.name not in allowed and (warnings or finding.kind.severity == "error")
        ]

    def stopping(self, allowed: Collection[str] = ()) -> list[Finding]:
        """Findings that stop training."""
        return [finding for finding in self.errors(allowed) if finding.kind.stops]

    def sizes(self) -> str:
        """Number of images, boxes and categories."""
        images, boxes, categories = (len(self.coco[key]) for key in LISTS)
        return f"{images} images, {boxes} boxes, {categories} categories"

    def sentence(self, finding: Finding) -> str:
        """One finding in one line, for the tool and for a stopped training."""
        return f"{finding.kind.what}: {finding.count} ({self._examples(finding)})"

    def _examples(self, finding: Finding) -> str:
        subject, shown_ones = finding.kind.subject, finding.entries[:EXAMPLES]
        named = [self.name(subject, *entry) if subject else entry[1] for entry in shown_ones]
        return "; ".join(named) + ("; ..." if finding.count > EXAMPLES else "")

    def name(self, subject: str, position: int, note: str = "") -> str:
        """Name an entry by ids and file name, or by its number in the list."""
        entry = self.coco[subject][position]
        entry = entry if isinstance(entry, dict) else {}
        own_id = f"number {position + 1} of '{subject}'"
        if entry.get("id") is not None:
            own_id = shown(entry["id"], 40)
        label = entry.get("name" if subject == "categories" else "file_name")
        more = [shown(label)] if isinstance(label, str) and subject != "annotations" else []
        image_id = entry.get("image_id") if subject == "annotations" else None
        if image_id is not None:
            file = self._files.get(image_id) if isinstance(image_id, (int, str)) else None
            more = [f"image {shown(image_id, 40)}", "" if file is None else shown(file)]
        more = [part for part in (*more, note) if part]
        return f"{LISTS[subject]} {own_id}" + (f" ({', '.join(more)})" if more else "")

    @cached_property
    def _files(self) -> dict[int | str, Any]:
        """File names by image id; the first of equal ids."""
        images = [entry for entry in reversed(self.coco["images"]) if isinstance(entry, dict)]
        return {e["id"]: e.get("file_name") for e in images if isinstance(e.get("id"), (int, str))}

    def text(self, allowed: Collection[str] = ()) -> str:
        """The table of the command line."""
        lines = [f"{self.source}: {self.sizes()}"]
        for finding in self.ordered():
            kind = finding.kind
            severity = "allowed" if kind.name in allowed else kind.severity
            lines.append(f"  {severity:8}{finding.count:>7}  {kind.name:20} {kind.what}")
            more = (self._examples(finding), f"training: {kind.training}")
            lines += [f"{'':19}{line}" for line in more]
        if not self.findings:
            return "\n".join([*lines, "No problems found."])
        errors = self.errors(allowed)
        others = [finding for finding in self.ordered() if finding not in errors]
        return "\n".join([*lines, f"{_counted(errors, 'error')}, {_counted(others, 'warning')}."])

    def refusal(self, allowed: Collection[str] = ()) -> str:
        """Why training refuses this file, with the fix; '' if it does not."""
        stopping = self.stopping(allowed)
        if not stopping:
            return ""
        lines = [f"{self.source} cannot be used for training or testing:"]
        lines += [f"- {self.sentence(finding)} [{finding.kind.name}]" for finding in stopping]
        fix = "Fix the file."
        if "images-folder" in [finding.kind.name for finding in stopping]:
            fix = "Set the right folder: --images, or data_prefix.img (train_images, val_images)."
        elif self.coco["images"]:
            folder = f" --images {self.images}" if self.images else ""
            fix = (
                "Fix the file, or write a copy without these: python -m fastdetr_mmdet check "
                f"{self.source}{folder} --write-cleaned CLEANED.json."
            )
        if not any(finding.kind.training.startswith("fails while") for finding in stopping):
            names = [finding.kind.name for finding in stopping]
            fix += f" To run anyway, set allow={names} of DatasetCheckHook in custom_hooks."
        return "\n".join([*lines, fix])

    def paragraph(self) -> str:
        """Log line of training on a file that it accepts."""
        parts = [f"{f.count} x {f.kind.what} [{f.kind.name}]" for f in self.ordered()]
        return (
            f"Data check of {self.source} ({self.sizes()}): boxes skipped: {self.skipped}; "
            f"{'; '.join(parts) or 'no problems found'}. See docs/data_check.md."
        )

    def to_dict(self, allowed: Collection[str] = ()) -> dict[str, Any]:
        """All findings with all entries, for JSON."""
        findings = [
            {
                "kind": finding.kind.name,
                "severity": finding.kind.severity,
                "stops_training": finding.kind.stops,
                "allowed": finding.kind.name in allowed,
                "what": finding.kind.what,
                "training": finding.kind.training,
                "count": finding.count,
                "entries": [self._entry(finding.kind.subject, *entry) for entry in finding.entries],
            }
            for finding in self.ordered()
        ]
        sizes = {key: len(self.coco[key]) for key in LISTS}
        skipped = {"boxes_skipped_in_training": self.skipped}
        return {"file": self.source, **sizes, **skipped, "findings": findings}

    def _entry(self, subject: str, position: int, note: str) -> dict[str, Any]:
        noted = {"note": note} if note else {}
        if not subject:
            return noted
        entry = self.coco[subject][position]
        values = entry if isinstance(entry, dict) else {}
        keys = ("id", "image_id", "file_name", "name")
        named = {key: values[key] for key in keys if isinstance(values.get(key), (int, str))}
        return {"list": subject, "position": position, **named, **noted}


def _counted(findings: list[Finding], word: str) -> str:
    total = sum(finding.count for finding in findings)
    kinds = f" of {len(findings)} kinds" if len(findings) > 1 else ""
    return f"{total or 'no'} {word}{'' if total == 1 else 's'}{kinds}"
