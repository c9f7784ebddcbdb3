"""What all command lines share: quick help, exit statuses, ``--cfg-options``."""

import argparse
import subprocess
import sys

import pytest

from fastdetr_mmdet.utils.cli import CfgOptions, UsageError, UserError, command

COMMANDS = (
    "checkpoints.convert",
    "convergence",
    "datasets.check",
    "datasets.shapes",
    "demo",
    "export",
    "parts",
    "report",
    "visualize",
)
HEAVY = {"torch", "mmdet", "mmengine", "mmcv", "cv2", "numpy", "matplotlib"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_imports_nothing_heavy(name):
    arguments = [sys.executable, "-X", "importtime", "-m", f"fastdetr_mmdet.{name}", "--help"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert f"fastdetr_mmdet.{name}".rsplit(".", 1)[0] in imported
    assert done.stdout.startswith(f"usage: python -m fastdetr_mmdet.{name} ")
    assert not imported & HEAVY


def test_what_looks_like_help_registers_all_the_same(tmp_path):
    """A file with the name "-h", and a foreign module that imports this package."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/__init__.py").write_text("import fastdetr_mmdet")
    (tmp_path / "foreign/__main__.py").write_text("import fastdetr_mmdet as f; f.FastDETR")
    module = [sys.executable, "-m"]
    for arguments in (["foreign", "--help"], ["fastdetr_mmdet.datasets.check", "--", "-h"]):
        done = subprocess.run([*module, *arguments], capture_output=True, text=True, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        assert done.returncode == (0 if arguments[0] == "foreign" else 2)


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
