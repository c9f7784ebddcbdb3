"""A resumed training equals an uninterrupted one, in all kinds of training."""

import shutil

import pytest
import torch
from comparing import check_same, last_checkpoint, logged, state

from fastdetr_mmdet.utils.files import UNFINISHED

CHECKPOINT = "default_hooks__checkpoint__"
ITERATIONS = {
    "train_cfg": dict(_delete_=True, type="IterBasedTrainLoop", max_iters=14, val_interval=7),
    "log_processor__by_epoch": False,
    CHECKPOINT + "by_epoch": False,
    CHECKPOINT + "interval": 5,
}
WORKERS = {"train_dataloader__num_workers": 2, "train_dataloader__persistent_workers": True}
NO_WORKERS = {"train_dataloader__num_workers": 0, "train_dataloader__persistent_workers": False}
SIMILAR_SHAPES = {"train_dataloader__batch_sampler": dict(type="AspectRatioBatchSampler")}
AMP = {"optim_wrapper__type": "AmpOptimWrapper", "optim_wrapper__dtype": "bfloat16"}


def finish(server, config, work_dir, **options):
    """Train to the end; return the output."""
    result = server.train(config, work_dir, **options)
    assert result.code == 0, result.output[-4000:]
    return result.output


def step_after(whole, checkpoint):
    """The file operation after last_checkpoint named a checkpoint."""
    steps = (whole / "steps.txt").read_text().splitlines()
    named = steps.index(f"rename {checkpoint}{UNFINISHED}")
    return steps.index(f"rename last_checkpoint{UNFINISHED}", named) + 1


def check_resumes(server, config, tmp_path, after, faults=None, **options):
    """Kill a run when last_checkpoint names a file, resume it, and compare."""
    faults, whole, run = faults or {}, tmp_path / "whole", tmp_path / "run"
    steps = whole / "steps.txt"
    finish(server, config, whole, faults=dict(faults, steps_to=str(steps)), **options)
    point = step_after(whole, after)
    killed = server.train(config, run, faults=dict(faults, kill_at=point), **options)
    assert killed.killed, killed.output[-4000:]
    assert last_checkpoint(run).name == after
    finish(server, config, run, faults=faults, resume=True, **options)
    check_same(run, whole)
    return run


def test_the_number_of_workers_does_not_matter(server, config, whole, tmp_path):
    finish(server, config, tmp_path, **NO_WORKERS)
    check_same(tmp_path, whole)


def by_iteration(interval):
    return {CHECKPOINT + "by_epoch": False, CHECKPOINT + "interval": interval}


def sampler(name):
    return {"train_dataloader__sampler__type": f"{name}Sampler"}


# without BatchNorm, whose statistics differ per process and are stored for rank 0 only
TWO = {"processes": 2, "model__backbone__norm_eval": True, "train_dataloader__batch_size": 2}
STEPS = {"param_scheduler": [dict(type="StepLR", step_size=1, gamma=0.5, by_epoch=True)]}
# including the log of every third and the last iteration
LOG = {"log_processor__window_size": 50, "default_hooks__logger__interval": 3}
ENDLESS = sampler("Infinite") | ITERATIONS
# Place of the kill, and options.
RESUMES = {
    "in an epoch": ("iter_6.pth", by_iteration(3) | NO_WORKERS | LOG),
    # batches by aspect ratio, collected over the epoch
    "in an epoch, 2 workers": ("iter_6.pth", by_iteration(3) | WORKERS | SIMILAR_SHAPES),
    # the checkpoint comes before schedulers and validation
    "at an epoch's end": ("iter_8.pth", by_iteration(4) | STEPS | NO_WORKERS),
    "similar shapes": ("iter_10.pth", sampler("Default") | ITERATIONS | SIMILAR_SHAPES),
    "similar shapes, endless": ("iter_10.pth", ENDLESS | SIMILAR_SHAPES),
    # the optimizer steps every third iteration; the checkpoint is in between
    "accumulated gradients": (
        "iter_8.pth",
        by_iteration(4) | {"optim_wrapper__accumulative_counts": 3},
    ),
    # each process has its own images and random numbers; rank 0 writes checkpoints
    "two processes": ("epoch_2.pth", TWO),
    "two processes by iterations": ("iter_10.pth", TWO | ENDLESS),
    # mmengine's runner for FSDP, here with one process
    "flexible runner": ("epoch_2.pth", {"runner_type": "FlexibleRunner"}),
}


@pytest.mark.parametrize(
    "name",
    [
        name if name == "in an epoch" else pytest.param(name, marks=pytest.mark.slow)
        for name in RESUMES
    ],
)
def test_resumes(server, config, tmp_path, name):
    after, options = RESUMES[name]
    check_resumes(server, config, tmp_path, after, **options)


@pytest.mark.slow
@pytest.mark.parametrize("after", ["iter_5.pth", "iter_10.pth"])
@pytest.mark.parametrize("workers", [NO_WORKERS, WORKERS], ids=["no workers", "2 workers"])
@pytest.mark.parametrize("kind", ["Default", "Infinite"])
def test_by_iterations(server, config, tmp_path, kind, workers, after):
    """14 iterations are three and a half passes through the data."""
    options = sampler(kind) | ITERATIONS | workers
    run = check_resumes(server, config, tmp_path, after, **options)
    position = state(run / "iter_14.pth")["exact_resume"]
    assert (position["passes"], position["batches"]) == ((0, 14) if kind == "Infinite" else (3, 2))


@pytest.mark.slow
def test_loss_scaler(server, config, tmp_path):
    faults = dict(amp_on_cpu=True)
    run = check_resumes(server, config, tmp_path, "epoch_2.pth", faults=faults, **AMP)
    scaler = torch.load(run / "epoch_3.pth", weights_only=True)["optimizer"]["loss_scaler"]
    assert scaler["scale"] == 2.0**16 * 2**4  # doubled in steps 3, 6, 9 and 12


@pytest.mark.slow
def test_a_run_without_a_seed(server, config, whole, tmp_path):
    """Both runs draw a seed; the checkpoint's is used."""
    first, second, same = (tmp_path / name for name in ("first", "second", "same"))
    faults = dict(kill_at=step_after(whole, "epoch_1.pth"))
    for work_dir in (first, second):
        assert server.train(config, work_dir, faults=faults, randomness__seed=None).killed
    assert logged(first)["loss at 2"] != logged(second)["loss at 2"]

    finish(server, config, first, resume=True, randomness__seed=None)
    seed = torch.load(first / "epoch_3.pth", weights_only=True)["meta"]["seed"]
    finish(server, config, same, randomness__seed=seed)
    check_same(first, same)


@pytest.mark.slow
def test_killed_while_it_validates(server, config, whole, tmp_path):
    """The validation is repeated, even the last one."""
    for name in ("epoch_2.pth", "epoch_3.pth"):
        run = tmp_path / name
        assert server.train(config, run, faults=dict(kill_at=step_after(whole, name))).killed
        metrics = {name for name in logged(run) if name.startswith("coco")}
        said = finish(server, config, run, resume=True)
        assert "The validation after this checkpoint was not finished" in said
        assert {name for name in logged(run) if name.startswith("coco")} > metrics
        check_same(run, whole)


def test_a_finished_run_has_nothing_to_do(server, config, whole, tmp_path):
    """And does not repeat the validation."""
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    said = finish(server, config, run, resume=True)
    assert "resuming from" in said  # last_checkpoint names the file in the other folder
    assert "Epoch(train)" not in said and "Epoch(val)" not in said
    check_same(run, whole)
