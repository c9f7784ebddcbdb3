"""Shared parts of command lines: fast help, exit statuses, ``--cfg-options``."""

import argparse
import subprocess
import sys

import pytest

from fastdetr_mmdet.__main__ import COMMANDS
from fastdetr_mmdet.utils.cli import CfgOptions, UsageError, UserError, command, only_help

HEAVY = {"torch", "mmdet", "mmengine", "mmcv", "cv2", "numpy", "matplotlib"}


@pytest.mark.parametrize("name", [*COMMANDS, ".report", ".visualize"])
def test_help_imports_nothing_heavy(name):
    words = [f"fastdetr_mmdet{name}"] if name[0] == "." else ["fastdetr_mmdet", name]
    arguments = [sys.executable, "-X", "importtime", "-m", *words, "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "fastdetr_mmdet.utils.cli" in imported
    assert done.stdout.startswith(f"usage: python -m fastdetr_mmdet {name.lstrip('.')} ")
    assert not imported & HEAVY


@pytest.mark.parametrize(
    "module, arguments, found, expected",
    [
        ("fastdetr_mmdet.report", ["-h"], False, True),
        ("fastdetr_mmdet.report", ["x", "--help"], False, True),
        ("fastdetr_mmdet.report", ["x"], False, False),
        ("fastdetr_mmdet.datasets.check", ["--", "-h"], False, False),  # the name of a file
        ("foreign", ["--help"], False, False),  # a module that imports this package
        ("fastdetr_mmdet.report", ["-h"], True, False),  # the module itself runs
    ],
)
def test_what_counts_as_help(module, arguments, found, expected, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", module, *arguments])
    monkeypatch.setattr(sys, "argv", ["/a/__main__.py" if found else "-m", *arguments])
    assert only_help() is expected


@pytest.mark.parametrize(
    "error, status", [(UserError("7"), 1), (UsageError("7"), 2), (OSError("7"), 1), (None, 0)]
)
def test_exit_statuses(error, status, capsys):
    def main(arguments):
        if error:
            raise error

    assert command(main)([]) == status
    assert capsys.readouterr().err == ("error: 7\n" if error else "")


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        command(lambda arguments: 1 // 0)([])


def test_cfg_options(capsys):
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions)
    given = ["--cfg-options", "a.b=1", "c=x", "--cfg-options", "d=[1,2]"]
    assert parser.parse_args(given).cfg_options == {"a.b": 1, "c": "x", "d": [1, 2]}
    assert parser.parse_args([]).cfg_options is None
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["--cfg-options", "data_root"])
    assert "data_root" in capsys.readouterr().err
