"""scripts/setup.sh reports what it does with an environment of another Python."""

import os
import shutil
import subprocess
import sys

import pytest
from support.runs import ROOT

VERSION = sys.version.split(" (")[0]


@pytest.fixture
def set_up(tmp_path):
    """Run the script in a folder with a .venv of the given Python, up to `-m venv`."""
    for name in ("scripts", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("pyproject.toml", "model-index.yml"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("configs", "tools"):
        (tmp_path / name).mkdir()
    (tmp_path / "fastdetr_mmdet").mkdir()
    shutil.copy(ROOT / "fastdetr_mmdet" / "version.py", tmp_path / "fastdetr_mmdet")

    def write(path, line):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path

    def run(of_venv):
        write(tmp_path / ".venv" / "bin" / "python", of_venv)
        line = f'case "$*" in "-m venv"*) exit 1;; esac; exec {sys.executable} "$@"'
        python = write(tmp_path / "python", line)
        env = os.environ | {"PYTHON": str(python), "STACK": "onedl"}
        script = tmp_path / "scripts" / "setup.sh"
        done = subprocess.run(["bash", script], env=env, capture_output=True, text=True)
        assert done.returncode == 1 and "-m venv' failed" in done.stderr
        return python, done.stdout

    return run


def test_of_another_python(set_up):
    python, said = set_up("echo '3.9.1 (main, of another day)'")
    assert all(value in said for value in (" 3.9.1,", f"{python} is {VERSION}:", "PYTHON=..."))


def test_of_a_python_that_is_gone(set_up):
    python, said = set_up("exit 127")
    assert f"does not run, and {python} is {VERSION}:" in said


def test_of_this_python_but_unfinished(set_up):
    """The environment has no pip."""
    _, said = set_up(f'case $1 in -c) exec {sys.executable} "$@";; esac; exit 1')
    assert ".venv is unfinished" in said
