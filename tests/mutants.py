"""Plant small mistakes one at a time and check that `make test` catches them.

    python tests/mutants.py [NAME ...] [--jobs 2] [--full] [--list]

Works on copies of this folder. For each mistake it runs the tests that should fail, and, with
--full, all of `make test` if they did not. Ends with status 1 if a mistake survives.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "work_dirs", "/data")
MARKS = ["-m", "not slow and not gpu"]
SLOW_IMPORTS = """torch._dynamo scipy.optimize hypothesis mmcv.ops mmdet.apis mmdet.evaluation
    mmdet.models mmdet.utils mmengine.runner""".split()


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


def start(tree: Path, tests: list[str]) -> int:
    """Run tests in a copy of the project, in a fork that shares slow imports; return its pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        log = os.open(log_of(tree), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.chdir(tree)
        os.environ |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        sys.path[0] = str(tree)  # instead of this script's folder
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *MARKS, *tests])
        sys.stdout.flush()
        os._exit(int(code))
    return pid


def log_of(tree: Path) -> Path:
    """File with the output of pytest, beside the copy."""
    return tree.with_suffix(".txt")


def try_out(mutants: list[Mutant], trees: list[Path], full: bool = False) -> list[Mutant]:
    """Plant each mistake and run its tests, or all; return the mistakes that no test catches."""
    waiting, free, survived = list(mutants), list(trees), []
    running: dict[int, tuple[Mutant, Path, str]] = {}
    while waiting or running:
        if waiting and free:
            mutant, tree = waiting.pop(0), free.pop()
            before = plant(mutant, tree)
            tests = ["tests"] if full else [f"tests/{name}" for name in mutant.tests.split()]
            running[start(tree, tests)] = mutant, tree, before
            continue
        pid, status = os.wait()
        mutant, tree, before = running.pop(pid)
        (tree / "fastdetr_mmdet" / mutant.file).write_text(before)
        free.append(tree)
        code = os.waitstatus_to_exitcode(status)
        if code not in (0, 1):
            raise RuntimeError(f"{mutant.name}:\n{log_of(tree).read_text()[-2000:]}")
        print(f"{'caught  ' if code else 'SURVIVED'}  {mutant.file}: {mutant.name}", flush=True)
        survived += [] if code else [mutant]
    return survived


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
    for mutant in mutants:  # before slow steps
        (ROOT / "fastdetr_mmdet" / mutant.file).read_text().index(mutant.old)
    for module in SLOW_IMPORTS:
        importlib.import_module(module)
    assert "fastdetr_mmdet" not in sys.modules
    with tempfile.TemporaryDirectory() as folder:
        trees = [Path(folder, str(job)) for job in range(given.jobs)]
        for tree in trees:
            shutil.copytree(ROOT, tree, ignore=SKIPPED)
        survived = try_out(mutants, trees)
        if given.full:
            survived = try_out(survived, trees, full=True)
    print(f"{len(mutants) - len(survived)} of {len(mutants)} mistakes caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())
