"""With NaN in one of two processes both stop at the same step, or skip it."""

import pytest
import torch
from support.runs import ITERS, log_rows

KINDS: dict[str, dict] = {
    "ddp": {},
    "fsdp": {"runner_type": "FlexibleRunner", "strategy": dict(type="FullFSDPStrategy")},
}


def cases(fast, faults):
    """Combinations of faults and kinds of training; all but one are slow."""
    every = [(what, kind) for what in faults for kind in KINDS]
    return pytest.mark.parametrize(
        "what, kind",
        [pytest.param(*one, marks=[] if one == fast else pytest.mark.slow) for one in every],
    )


@pytest.fixture
def run(processes, tiny_config_file, shapes, tmp_path):
    """Trains one epoch of four steps with a fault in process 1 at the second."""

    def train(what, kind, start=processes.run, accumulate=1, **hook):
        options = {
            "data_root": f"{shapes}/",
            "train_dataloader.batch_size": 2,
            "train_cfg.max_epochs": 1,
            "train_cfg.val_interval": 100,
            "custom_hooks": [dict(type="NumbersCheckHook", **hook)],
            "optim_wrapper.accumulative_counts": accumulate,
            **KINDS[kind],
        }
        arguments = dict(config=str(tiny_config_file), work_dir=str(tmp_path), options=options)
        return start("train_with_bad_numbers", tmp_path, what=what, step=2, rank=1, **arguments)

    return train


def bundles(folder):
    paths = sorted((folder / "debug").glob("*.pth"))
    return {path.name: torch.load(path, weights_only=True) for path in paths}


@cases(("label", "ddp"), ["image", "loss", "label"])
def test_both_stop(run, tmp_path, what, kind):
    """The process with the fault names its images; the other one says that its images are fine."""
    other, guilty = run(what, kind)
    assert other["iterations"] == guilty["iterations"] == 1  # steps done
    words = {
        "image": "Matching cost is not finite for image (id ",
        "loss": "iteration 2 (epoch 1): loss_bbox of decoder layer 0 is nan",
        "label": "Class index 6 of image (id ",
    }
    assert words[what] in guilty["message"]
    assert "The gradient is not finite in iteration 2 (epoch 1)" in other["message"]
    assert "images may be the cause" in other["message"]
    found = bundles(tmp_path)
    assert list(found) == ["iter_2_rank0.pth", "iter_2_rank1.pth"]
    assert ("state_dict" in found["iter_2_rank0.pth"]) == (kind == "ddp")
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


def check_skipped(results, folder, kind):
    """Check that both processes finished with finite weights, in DDP equal ones."""
    assert [result["message"] for result in results] == [None, None]
    assert len(log_rows(folder)) == ITERS
    for name, tensor in results[0]["weights"].items():
        assert tensor.isfinite().all()
        if kind == "ddp":
            torch.testing.assert_close(results[1]["weights"][name], tensor, rtol=0, atol=0)


# A wrong label is in the data, so it always stops the training.
@cases(("image", "fsdp"), ["image", "loss"])
def test_both_skip_the_step(run, tmp_path, what, kind):
    results = run(what, kind, max_skips=1)
    check_skipped(results, tmp_path, kind)
    assert all("state_dict" not in bundle for bundle in bundles(tmp_path).values())


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
@pytest.mark.parametrize("max_skips", [0, 1])
def test_between_updates(run, tmp_path, kind, max_skips):
    """Gradients are exchanged at the update, so the other process learns of it only then."""
    results = run("loss", kind, accumulate=3, max_skips=max_skips)
    if max_skips:
        check_skipped(results, tmp_path, kind)
        return
    other, guilty = results
    assert other["iterations"] == guilty["iterations"] == 2
    assert "iteration 3 (epoch 1): loss_bbox of decoder layer 0 is nan" in guilty["message"]
    assert "images may be the cause" in other["message"]
    assert list(bundles(tmp_path)) == ["iter_3_rank0.pth", "iter_3_rank1.pth"]


def test_a_mistake_that_is_not_to_be_skipped(run, processes):
    """A wrong label stops its process, with any max_skips."""
    outcome = run("label", "ddp", start=processes.attempt, max_skips=1)
    assert "Class index 6 of image (id " in outcome.results[1]["message"]
