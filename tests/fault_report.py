"""What trainings, data and files were put through: ``python tests/fault_report.py``.

Runs the tests that break things, the slow ones too, and prints a table in Markdown: how many faults
of each kind, and in how many cases the result was not what it has to be. Ends with exit status 1 if
there is one. About 20 minutes with one process; ``--fast`` leaves out what is marked slow.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# What is counted, and the tests it is done by: each case of a test is one.
KINDS = {
    "trainings killed; each resumed to the losses of one that was not": [
        "test_faults/test_killed.py::test_killed",
        "test_faults/test_killed.py::test_as_a_user_would",
        "test_faults/test_exact_resume.py::test_killed",
    ],
    "trainings ended at an iteration and resumed, to the same losses": [
        "test_faults/test_exact_resume.py::test_(by|loss|resumes)",
    ],
    "checkpoints cut off, changed, missing or moved": [
        "test_engine/test_hooks/test_checkpoint_files.py::test_(a_changed|every_truncation|zeros|torch_s|no_file)",
        "test_engine/test_hooks/test_checkpoint_choice.py::test_(a_copied|choice)",
        "test_engine/test_hooks/test_checkpoint_hook.py::test_a_broken",
        "test_checkpoints/test_bad_files.py::test_truncated",
    ],
    "writes that fail, disks that are full": [
        "test_faults/test_full_disk.py::",
        "test_faults/test_numbers.py::test_full_disk",
        "test_engine/test_hooks/test_checkpoint_files.py::test_an_(error|interrupt)",
        "test_engine/test_hooks/test_checkpoint_hook.py::test_a_log_that",
        "test_checkpoints/test_bad_files.py::test_disk_full",
        "test_datasets/test_check_command.py::test_(a_write|outputs)",
    ],
    "losses, gradients and weights that are not finite": [
        "test_faults/test_numbers.py::test_(acc|check|grad|loss|one|over|skip|stops)",
        "test_engine/test_distributed/test_bad_numbers.py::",
        "test_checkpoints/test_bad_files.py::test_numbers",
    ],
    "faults in annotations and images": [
        "test_datasets/test_check.py::test_(found|not_)",
        "test_datasets/test_check_files.py::test_(paths|damage|all_kinds|images)",
        "test_faults/test_bad_data.py::test_(skips|stops|trains|unread|all_proc|no_file|image|paths|voc)",
    ],
    "data made up by hypothesis (annotations, boxes and scores)": [
        "test_faults/test_fuzz_",
        "test_datasets/test_check_files.py::test_any_damage",
    ],
    "checkpoints and configs that would run code; none did": [
        "test_faults/test_hostile_files.py::test_(formats|anywhere|attrib|ways_in|load_from|auto)",
        "test_faults/test_hostile_files.py::test_(flex|weights_f|another|mm|mim|config_of)",
        "test_checkpoints/test_bad_files.py::test_code",
        "test_visualization/test_visualize_command.py::test_hostile",
        "test_report/test_report_page.py::test_hostile",
    ],
    "files that are no weights for the model": [
        "test_checkpoints/test_bad_files.py::test_(no_weights|other|wrong|keys|contra|missing|conv)",
    ],
}


class Tally:
    """A plugin of pytest that counts the cases by kind."""

    def __init__(self) -> None:
        self.tried: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self._matched: set[str] = set()

    def _kind(self, name: str) -> str | None:
        for kind, patterns in KINDS.items():
            for pattern in patterns:
                if re.search(rf"\b{pattern}", name):
                    self._matched.add(pattern)
                    return kind
        return None

    def pytest_collection_modifyitems(self, config, items):
        """Keep the tests of the table."""
        kept = [item for item in items if self._kind(item.nodeid)]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept

    def unmatched(self) -> list[str]:
        """Patterns for which there is no test, after one was renamed."""
        return [p for patterns in KINDS.values() for p in patterns if p not in self._matched]

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        """Count a case, or as many as hypothesis has made for it."""
        report = (yield).get_result()
        kind = self._kind(item.nodeid)
        if call.when == "call" and not report.skipped:
            statistics = getattr(item, "hypothesis_statistics", "")
            made = [int(n) for n in re.findall(r"(\d+) passing", statistics)]
            self.tried[kind] += sum(made) if made else 1
        self.failed[kind] += report.failed
        self.skipped[kind] += report.skipped

    def table(self) -> str:
        """In Markdown."""
        lines = ["| what | tried | went wrong |", "|---|---|---|"]
        lines += [f"| {kind} | {self.tried[kind]:,} | {self.failed[kind]} |" for kind in KINDS]
        left_out = {kind: n for kind, n in self.skipped.items() if n}
        if left_out:
            lines += ["", *(f"Left out: {n} of {kind}." for kind, n in left_out.items())]
        return "\n".join(lines)


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="without the tests marked slow")
    args = parser.parse_args()
    files = {TESTS / pattern.split("::")[0] for patterns in KINDS.values() for pattern in patterns}
    found = sorted(str(path) for file in files for path in file.parent.glob(f"{file.stem}*.py"))
    tally = Tally()
    marks = "not gpu and not slow" if args.fast else "not gpu"
    status = pytest.main([*found, "-q", "-m", marks, "-p", "no:cacheprovider"], plugins=[tally])
    print(f"\n{tally.table()}")
    if unmatched := tally.unmatched():
        print(f"No test is called {', '.join(unmatched)}.", file=sys.stderr)
    return int(status != 0 or bool(unmatched))


if __name__ == "__main__":
    sys.exit(main())
