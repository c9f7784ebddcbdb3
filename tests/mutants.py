"""Plant small mistakes one at a time and check that `make test` catches them.

    python tests/mutants.py [NAME ...] [--jobs 2] [--full] [--list]

Works on copies of this folder. For each mistake it runs the tests that should fail, and, with
--full, all of `make test` if they did not. Ends with status 1 if a mistake survives.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "work_dirs", "/data")
MARKS = ["-m", "not slow and not gpu"]


@dataclass(frozen=True)
class Mutant:
    """A mistake: in ``file`` of the package, ``old`` becomes ``new``.

    Args:
        name: Description of the mistake.
        file: Path below fastdetr_mmdet/.
        old: Text that occurs exactly once in the file.
        new: Replacement.
        tests: Files below tests/ that should fail, separated by spaces.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


def read_mutants() -> list[Mutant]:
    """Read tests/data/mutants.txt: a line with name, file and tests, then lines of - and +."""
    mutants, name, file, tests = [], "", "", ""
    lines: dict[str, list[str]] = {}
    text = (ROOT / "tests" / "data" / "mutants.txt").read_text()
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if line.startswith(("-", "+")):
            lines.setdefault(line[0], []).append(line[1:])
        elif line:
            name, file, tests = line.split(" | ")
        elif lines:
            old, new = ("\n".join(lines.get(sign, [])) for sign in "-+")
            mutants.append(Mutant(name, file, old, new, tests))
            lines = {}
    return mutants


def plant(mutant: Mutant, tree: Path) -> str:
    """Make the mistake in a copy of the project; return the file's former content."""
    path = tree / "fastdetr_mmdet" / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(
            f"{mutant.name}: {mutant.file} has {text.count(mutant.old)} times {mutant.old!r}"
        )
    path.write_text(text.replace(mutant.old, mutant.new))
    return text


def is_caught(tree: Path, arguments: list[str]) -> bool:
    """Whether a test fails in a copy of the project."""
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *MARKS]
    result = subprocess.run(
        [*command, *arguments], cwd=tree, env=environment, capture_output=True, text=True
    )
    if result.returncode not in (0, 1):
        raise RuntimeError(f"pytest {' '.join(arguments)} could not run:\n{result.stdout[-2000:]}")
    return result.returncode == 1


def try_out(mutant: Mutant, trees: Queue[Path], full: bool) -> bool:
    """Whether the mistake is caught."""
    tree = trees.get()
    try:
        before = plant(mutant, tree)
        try:
            caught = is_caught(tree, [f"tests/{name}" for name in mutant.tests.split()])
            if not caught and full:
                caught = is_caught(tree, ["tests"])
        finally:
            (tree / "fastdetr_mmdet" / mutant.file).write_text(before)
    finally:
        trees.put(tree)
    print(f"{'caught  ' if caught else 'SURVIVED'}  {mutant.file}: {mutant.name}", flush=True)
    return caught


def main(arguments: list[str] | None = None) -> int:
    """Try the mistakes out; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names or files (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="at a time (%(default)s)")
    parser.add_argument("--full", action="store_true", help="all of `make test` for survivors")
    parser.add_argument("--list", action="store_true", help="only list the mistakes")
    given = parser.parse_args(arguments)
    mutants = [
        mutant
        for mutant in read_mutants()
        if not given.names or any(n in f"{mutant.file}: {mutant.name}" for n in given.names)
    ]
    if given.list:
        print("\n".join(f"{mutant.file}: {mutant.name}" for mutant in mutants))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        trees: Queue[Path] = Queue()
        for job in range(given.jobs):
            shutil.copytree(ROOT, tree := Path(folder, str(job)), ignore=SKIPPED)
            trees.put(tree)
        for mutant in mutants:  # before slow steps
            (ROOT / "fastdetr_mmdet" / mutant.file).read_text().index(mutant.old)
        with ThreadPoolExecutor(given.jobs) as pool:
            caught = list(pool.map(lambda mutant: try_out(mutant, trees, given.full), mutants))
    print(f"{sum(caught)} of {len(mutants)} mistakes caught")
    return 0 if all(caught) else 1


if __name__ == "__main__":
    sys.exit(main())
