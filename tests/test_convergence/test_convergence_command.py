"""The command itself, with real trainings that are killed, fail, and are continued."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from support.runs import ROOT

from fastdetr_mmdet.convergence.__main__ import main
from fastdetr_mmdet.hooks.training_progress import read_progress

BROKEN = "_base_ = '{base}'\ntrain_dataloader = dict(dataset=dict(ann_file='nowhere.json'))\n"
FILES = ("convergence.md", "convergence.png", "convergence.json", "curves.csv")


def wait_for_epoch(work_dir, process):
    deadline = time.monotonic() + 300
    while not read_progress(work_dir)["epochs"]:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_results_of_real_runs(tiny_config_file, shapes, tmp_path, capsys):
    """One that can be trained, beside one that cannot."""
    broken, out = tmp_path / "broken.py", tmp_path / "out"
    broken.write_text(BROKEN.format(base=tiny_config_file.as_posix()))
    arguments = [str(tiny_config_file), "--data-root", f"{shapes}/", "--epochs", "2", "--seeds"]
    arguments += ["5", "--out", str(out)]
    assert main([str(broken), *arguments, "--jobs", "2", "--target", "0.999"]) == 1
    captured = capsys.readouterr()
    # the broken one is named with the end of its log, and the other one is there
    assert "broken, seed 5: training ended with exit status 1" in captured.out
    assert "nowhere.json" in captured.out
    assert "1 of 2 runs failed: broken, seed 5." in captured.err
    assert "tiny, seed 5: finished, AP 0." in captured.out
    assert [name for name in FILES if not (out / name).stat().st_size] == []

    work_dir = out / "tiny/seed_5"
    assert (work_dir / "epoch_2.pth").is_file() and (work_dir / "last_checkpoint").is_file()
    data = json.loads((out / "convergence.json").read_text())
    assert data["budget"]["epochs"] == 2 and data["budget"]["seeds"] == [5]
    found = [(run["name"], bool(run["failed"])) for run in data["runs"]]
    assert found == [("broken", True), ("tiny", False)]
    (summary,) = data["summary"]
    assert summary["epochs"] == [1, 2]
    assert [point["ap"] for point in data["runs"][1]["points"]] == summary["mean"]
    assert 0 < data["runs"][1]["points"][0]["cpu_minutes"] < summary["cpu_minutes_per_epoch"] * 2
    table = (out / "convergence.md").read_text()
    assert "| tiny |" in table and "not reached" in table
    assert "Failed, and missing from the means:\n\n- broken, seed 5" in table

    # and once more: what is finished is kept
    modified = (work_dir / "epoch_2.pth").stat().st_mtime
    assert main(arguments) == 0
    assert "tiny, seed 5: finished before, AP 0." in capsys.readouterr().out
    assert (work_dir / "epoch_2.pth").stat().st_mtime == modified


@pytest.mark.slow
def test_killed_and_continued(tiny_config_file, shapes, tmp_path, capsys):
    """The training ends with the command, and the next call goes on where it was."""
    arguments = [str(tiny_config_file), "--data-root", f"{shapes}/", "--epochs", "4"]
    arguments += ["--seeds", "5", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastdetr_mmdet.convergence", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    work_dir = tmp_path / "tiny/seed_5"
    wait_for_epoch(work_dir, process)
    trained = int((work_dir / "train.lock").read_text().split()[1])
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    assert "The same command continues" in printed
    assert not os.path.exists(f"/proc/{trained}/cwd")  # it ended with the command
    before = read_progress(work_dir)["epochs"]
    assert before[-1]["epoch"] < 4

    assert main(arguments) == 0
    assert "tiny, seed 5: finished, AP 0." in capsys.readouterr().out
    # nothing was trained twice: the epochs before the kill are as they were
    epochs = read_progress(work_dir)["epochs"]
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3, 4]
    saved = [entry for entry in before if "metrics" in entry]
    assert epochs[: len(saved)] == saved


def test_errors_are_sentences(tiny_config_file, tmp_path, capsys):
    twice = tmp_path / tiny_config_file.name
    twice.write_text(tiny_config_file.read_text())
    common = ["--epochs", "1", "--out", str(tmp_path)]
    assert main([str(tiny_config_file), str(twice), *common]) == 2
    assert "told apart by name, but tiny comes twice" in capsys.readouterr().err
    assert main([str(tmp_path / "none.py"), *common]) == 2
    assert "There is no config" in capsys.readouterr().err
    assert main([str(tiny_config_file), *common, "--results-only"]) == 1
    assert "no run has been validated yet" in capsys.readouterr().err
