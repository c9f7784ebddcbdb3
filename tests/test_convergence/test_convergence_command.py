"""The command with real trainings that are killed, fail, and continue."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from support.runs import ROOT, own_visualizer, run_tool

from fastdetr_mmdet.convergence import runs as runs_module
from fastdetr_mmdet.convergence.__main__ import main
from fastdetr_mmdet.utils.run_history import read_progress

BROKEN = """\
_base_ = '{base}'
train_dataloader = dict(dataset=dict(data_prefix=dict(img='nowhere/')))
"""
FILES = ("convergence.md", "convergence.png", "convergence.json", "curves.csv")


@pytest.fixture
def trained_here(monkeypatch):
    """Runs trainings in this process, to avoid imports."""

    def start(run, gpu=None):
        run.work_dir.mkdir(parents=True)
        process = SimpleNamespace(pid=os.getpid(), poll=lambda: 0)
        options = ["--work-dir", run.work_dir, "--resume", "--cfg-options", own_visualizer()]
        try:
            run_tool(monkeypatch, "train.py", run.config, *options)
        except Exception as error:
            run.log.write_text(f"{error}\n")
            process.poll = lambda: 1
        return process

    monkeypatch.setattr(runs_module.Run, "start", start)


@pytest.mark.slow
def test_results_of_real_runs(tiny_config_file, shapes, tmp_path, capsys, trained_here):
    """One config trains, the other fails."""
    broken, out = tmp_path / "broken.py", tmp_path / "out"
    broken.write_text(BROKEN.format(base=tiny_config_file.as_posix()))
    arguments = [str(tiny_config_file), "--data-root", f"{shapes}/", "--epochs", "2", "--seeds"]
    arguments += ["5", "--out", str(out)]
    assert main([str(broken), *arguments, "--jobs", "2", "--target", "0.999"]) == 1
    captured = capsys.readouterr()
    # the failed config is named with the end of its log; the other has results
    assert "broken, seed 5" in captured.out
    assert "nowhere/" in captured.out
    assert "1 of 2" in captured.err and "broken, seed 5" in captured.err
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
    assert "- broken: seed 5 has 0 of 2 epochs and failed; no figures yet" in table

    # again: finished runs are kept
    modified = (work_dir / "epoch_2.pth").stat().st_mtime
    assert main(arguments) == 0
    assert "tiny, seed 5: finished before, AP 0." in capsys.readouterr().out
    assert (work_dir / "epoch_2.pth").stat().st_mtime == modified


@pytest.mark.slow
def test_killed_and_continued(tiny_config_file, shapes, tmp_path, capsys):
    """The training ends with the command; the next call continues it."""
    arguments = [str(tiny_config_file), "--data-root", f"{shapes}/", "--epochs", "4"]
    arguments += ["--seeds", "5", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "fastdetr_mmdet.convergence", *arguments]
    streams = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process = subprocess.Popen(command, cwd=ROOT, **streams)
    work_dir = tmp_path / "tiny/seed_5"
    deadline = time.monotonic() + 300
    while not read_progress(work_dir)["epochs"]:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    trained = int((work_dir / "train.pid").read_text())
    process.send_signal(signal.SIGTERM)
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 130, printed
    with pytest.raises(ProcessLookupError):  # it ended with the command
        os.killpg(trained, 0)
    before = read_progress(work_dir)["epochs"]
    assert before[-1]["epoch"] < 4

    assert main(arguments) == 0
    assert "tiny, seed 5: finished, AP 0." in capsys.readouterr().out
    # the epochs before the kill are unchanged
    epochs = read_progress(work_dir)["epochs"]
    assert [entry["epoch"] for entry in epochs] == [1, 2, 3, 4]
    saved = [entry for entry in before if "metrics" in entry]
    assert epochs[: len(saved)] == saved


def test_wrong_usage(tiny_config_file, tmp_path, capsys):
    twice, reference = tmp_path / tiny_config_file.name, tmp_path / "none.json"
    twice.write_text(tiny_config_file.read_text())
    tiny, no, common = str(tiny_config_file), str(tmp_path / "no"), ["--out", str(tmp_path)]
    common += ["--epochs", "1"]
    for arguments, word in (
        ([tiny, str(twice), *common], "tiny"),
        ([str(tmp_path / "none.py"), *common], "none.py"),
        ([tiny, *common, "--results-only"], str(tmp_path)),
        ([tiny, *common, "--data-root", no], no),
        ([tiny, *common, "--reference", str(reference)], "none.json"),
        ([tiny], "--epochs"),
    ):
        assert main(arguments) == 2
        assert word in capsys.readouterr().err
    assert not (tmp_path / "configs").exists()  # nothing was prepared


def test_results_need_no_more_than_the_folder(tmp_path, capsys):
    """Seeds, configs and epochs are found or selected in the folder."""
    metrics = {"coco/bbox_mAP": 0.0, "coco/bbox_mAP_50": 0.0}
    (tmp_path / "configs").mkdir()
    arguments = ["--results-only", "--out", str(tmp_path)]
    for index, (name, seed, trained) in enumerate([("slow", 0, 4), ("slow", 1, 1), ("fast", 0, 0)]):
        config = tmp_path / f"configs/{name}_seed_{seed}.py"
        config.write_text("train_cfg = dict(max_epochs=4)\n")
        os.utime(config, (index, index))
        if not trained:
            continue
        work_dir = tmp_path / name / f"seed_{seed}"
        work_dir.mkdir(parents=True)
        epochs = [dict(epoch=i + 1, train_seconds=60, metrics=metrics) for i in range(trained)]
        progress = dict(parameters=7, trained_parameters=7, epochs=epochs)
        (work_dir / "progress.json").write_text(json.dumps(progress))

    assert main(arguments) == 0
    data = json.loads((tmp_path / "convergence.json").read_text())
    assert data["budget"] == {"epochs": 4, "seeds": [0, 1]}
    assert data["notes"] == [
        "slow: seed 1 has 1 of 4 epochs; figures up to epoch 1",
        "fast: seed 0 has 0 of 4 epochs; no figures yet, since no epoch is validated",
        data["notes"][-1],
    ]
    assert len(data["notes"]) == 3 and "--target" in data["notes"][-1]
    table = (tmp_path / "convergence.md").read_text()
    assert f"\n- {data['notes'][0]}.\n" in table and "epoch 1 only" in table

    chosen = ["slow.py", *arguments, "--seeds", "0", "--epochs", "2", "--target", "0.5"]
    assert main(chosen) == 0
    data = json.loads((tmp_path / "convergence.json").read_text())
    assert data["summary"][0]["epochs"] == [1, 2] and data["summary"][0]["seeds"] == [0]
    (note,) = data["notes"]
    assert note.startswith("slow, seed 0") and "2 of 4" in note
    # one seed has no range
    assert "| 0.000 | 0.000 (epoch 1) | not reached |" in (tmp_path / "convergence.md").read_text()

    capsys.readouterr()
    assert main(["none.py", *arguments]) == 2
    assert "slow, fast" in capsys.readouterr().err
    assert main([*arguments, "--seeds", "7"]) == 2
    assert "seeds 0, 1" in capsys.readouterr().err
    assert main(["fast.py", *arguments]) == 1


def test_all_runs_failed(tiny_config_file, shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs_module, "find_mim", lambda: "false")
    arguments = [str(tiny_config_file), "--data-root", f"{shapes}/", "--epochs", "1"]
    assert main([*arguments, "--seeds", "0", "1", "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "2 of 2" in error and "tiny, seed 0; tiny, seed 1" in error
