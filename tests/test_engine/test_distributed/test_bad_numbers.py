"""Numbers that go bad in one of two processes: both stop at the same step, or leave it out."""

import pytest
import torch
from support.runs import ITERS, log_rows

DDP: dict = {}
FSDP = {"runner_type": "FlexibleRunner", "strategy": dict(type="FullFSDPStrategy")}
kinds = pytest.mark.parametrize("kind", [DDP, FSDP], ids=["ddp", "fsdp"])
faults = pytest.mark.parametrize("what", ["image", "loss"])


@pytest.fixture
def run(processes, tiny_config_file, shapes, tmp_path):
    """Trains one epoch of four steps; at the second, process 1 has a fault."""

    def train(what, options, **hook):
        options = {
            "data_root": f"{shapes}/",
            "train_dataloader.batch_size": 2,
            "train_cfg.max_epochs": 1,
            "train_cfg.val_interval": 100,
            "custom_hooks": [dict(type="NumbersCheckHook", **hook)],
            **options,
        }
        arguments = dict(config=str(tiny_config_file), work_dir=str(tmp_path), options=options)
        return processes.run(
            "train_with_bad_numbers", tmp_path, what=what, step=2, rank=1, **arguments
        )

    return train


def bundles(folder):
    return {
        path.name: torch.load(path, weights_only=True)
        for path in sorted((folder / "debug").glob("*.pth"))
    }


@kinds
@faults
def test_both_stop(run, tmp_path, what, kind):
    """The process at fault names its images, the other one says that they are not its own."""
    other, guilty = run(what, kind)
    assert other["iterations"] == guilty["iterations"] == 1  # steps done
    if what == "image":
        assert guilty["message"].startswith("Matching cost is not finite for image (id ")
    else:
        start = "The loss is not finite in iteration 2 (epoch 1): loss_bbox of decoder layer 0 is n"
        assert guilty["message"].startswith(start)
    start = "The gradient is not finite in iteration 2 (epoch 1), although this process's loss is: "
    assert other["message"].startswith(start)
    assert "the images of another may be the cause." in other["message"]
    found = bundles(tmp_path)
    assert list(found) == ["iter_2_rank0.pth", "iter_2_rank1.pth"]
    assert ("state_dict" in found["iter_2_rank0.pth"]) == (kind is DDP)
    assert "state_dict" not in found["iter_2_rank1.pth"]
    images = [
        [sample["metainfo"]["img_id"] for sample in bundle["batches"][0]["data_samples"]]
        for bundle in found.values()
    ]
    assert len(set(images[0] + images[1])) == 4
    for image in images[1]:
        assert f"(id {image}, " in guilty["message"]
    for weights in (other["weights"], guilty["weights"]):
        assert all(tensor.isfinite().all() for tensor in weights.values())


def check_left_out(results, folder, kind):
    """Both processes came to the end, with sound weights; in DDP the same ones."""
    assert [result["message"] for result in results] == [None, None]
    assert len(log_rows(folder)) == ITERS
    for name, tensor in results[0]["weights"].items():
        assert tensor.isfinite().all()
        if kind is DDP:
            torch.testing.assert_close(results[1]["weights"][name], tensor, rtol=0, atol=0)


@kinds
@faults
def test_both_leave_the_step_out(run, tmp_path, what, kind):
    results = run(what, kind, max_skips=1)
    check_left_out(results, tmp_path, kind)
    assert all("state_dict" not in bundle for bundle in bundles(tmp_path).values())


def accumulating(kind):
    """The second of four steps is then between updates, where no gradients are exchanged."""
    return kind | {"optim_wrapper.accumulative_counts": 3}


@kinds
def test_both_stop_between_updates(run, tmp_path, kind):
    other, guilty = run("loss", accumulating(kind))
    assert other["iterations"] == guilty["iterations"] == 1
    assert guilty["message"].startswith(
        "The loss is not finite in iteration 2 (epoch 1): loss_bbox"
    )
    start = "The loss of another process is not finite in iteration 2 (epoch 1)."
    assert other["message"].startswith(start)
    assert list(bundles(tmp_path)) == ["iter_2_rank0.pth", "iter_2_rank1.pth"]


@kinds
def test_both_leave_the_update_out(run, tmp_path, kind):
    results = run("loss", accumulating(kind), max_skips=1)
    check_left_out(results, tmp_path, kind)
