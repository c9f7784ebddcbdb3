"""What torch may build while it reads a checkpoint."""

import os
import pickle

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

import fastdetr_mmdet  # noqa: F401 (allows what mmengine's checkpoints hold)


def runner_like_checkpoint() -> dict:
    hub = MessageHub("test_safe_loading")
    for step in range(5):
        hub.update_scalar("train/loss", np.float32(step) / 2)
        hub.update_info("iter", np.int64(step))
    hub.update_info("epoch", np.array([1, 2]))
    return {"state_dict": {"w": torch.ones(2)}, "message_hub": hub.state_dict()}


@pytest.mark.smoke
def test_checkpoint_of_the_runner_loads(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(runner_like_checkpoint(), path)
    # onedl-mmengine's loader adds these for one load, and then removes them for the whole process
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype, getattr]):
        pass
    loaded = torch.load(path, weights_only=True)
    buffer = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == pytest.approx(1.0)
    assert loaded["message_hub"]["runtime_info"]["iter"] == 4


class Reach:
    """Unpickles to an attribute of something."""

    def __init__(self, owner, name):
        self.call = (getattr, (owner, name))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "entry",
    [
        Reach(HistoryBuffer, "__init__"),
        Reach(HistoryBuffer, "_statistics_methods"),
        Reach(torch.Tensor, "cpu"),
        os.system,
    ],
    ids=["dunder", "private", "tensor", "system"],
)
def test_other_things_stay_shut(tmp_path, entry):
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": entry}, path)
    with pytest.raises((ValueError, pickle.UnpicklingError)):
        torch.load(path, weights_only=True)
