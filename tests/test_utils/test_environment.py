"""Each way an environment can be wrong is told in one sentence that names the command to run."""

import os
import pickle
import subprocess
import sys
from importlib import metadata
from types import ModuleType

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub

from fastdetr_mmdet.checkpoints.safe_loading import allow_mmengine_checkpoints
from fastdetr_mmdet.utils import environment
from fastdetr_mmdet.utils.environment import check_environment


@pytest.fixture
def pretend(monkeypatch):
    """Replaces modules by fakes of a version, or by None for one that is missing."""

    def replace(**modules):
        for name, version in modules.items():
            name = name.replace("__", ".")
            fake = None
            if version is not None:
                fake = ModuleType(name)
                fake.__version__ = version
            monkeypatch.setitem(sys.modules, name, fake)

    return replace


@pytest.fixture
def installed(monkeypatch):
    """Replaces the list of installed distributions."""

    def replace(*names):
        def version(name):
            if name in names:
                return "1.0"
            raise metadata.PackageNotFoundError(name)

        monkeypatch.setattr(environment.metadata, "version", version)

    return replace


def complaint() -> str:
    with pytest.raises(ImportError) as error:
        check_environment()
    sentence = str(error.value)
    assert "\n" not in sentence
    assert "run `" in sentence and sentence.endswith("`make setup` in a clone of fastdetr_mmdet.")
    return sentence


@pytest.mark.smoke
def test_this_environment_is_fit():
    check_environment()


@pytest.mark.parametrize(
    ("stack", "name", "command"),
    [
        ("onedl", "mmengine", "run `pip install -U 'onedl-mmengine>=0.10.10,<1'`"),
        ("onedl", "mmdet", "run `pip install -U 'onedl-mmdetection>=3.5,<4'`"),
        ("openmmlab", "mmengine", "run `pip install -U 'mmengine>=0.10.0,<1'`"),
        ("openmmlab", "mmdet", "run `pip install -U 'mmdet>=3.3,<4'`"),
    ],
)
def test_missing_package(pretend, installed, stack, name, command):
    installed("onedl-mmcv" if stack == "onedl" else "mmcv")
    pretend(**{name: None})
    sentence = complaint()
    assert f"needs {name}, which is not installed" in sentence
    assert command in sentence


@pytest.mark.parametrize(
    ("distributions", "wanted"),
    [
        ((), "'onedl-mmcv>=2.3,<3'"),
        (("onedl-mmengine",), "'onedl-mmcv>=2.3,<3'"),
        (("mmengine", "mmdet"), "'mmcv>=2.0.0,<2.2'"),
        (("mmengine", "onedl-mmdetection"), "'onedl-mmcv>=2.3,<3'"),
    ],
)
def test_missing_mmcv_is_compiled_from_the_family_that_is_there(
    pretend, installed, distributions, wanted
):
    installed(*distributions)
    pretend(mmcv=None)
    sentence = complaint()
    assert f"MMCV_WITH_OPS=1 pip install --no-build-isolation {wanted}`" in sentence


def test_missing_torch(pretend):
    pretend(torch=None)
    assert "pip install torch==" in complaint()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("mmengine", "0.8.5"),
        ("mmengine", "1.0.0"),
        ("mmcv", "1.7.2"),
        ("mmdet", "2.28.2"),
        ("mmdet", "3.2.0"),
        ("mmdet", "4.0.0"),
    ],
)
def test_wrong_version(pretend, name, version):
    pretend(**{name: version})
    sentence = complaint()
    assert f"{name} {version} is installed" in sentence
    lowest, too_new = environment.SUPPORTED[name]
    assert f">= {lowest} and < {too_new}" in sentence


@pytest.mark.parametrize("version", ["3.3.0", "3.5.1", "3.99"])
def test_right_version(pretend, version):
    pretend(mmdet=version)
    check_environment()


@pytest.mark.parametrize(("family", "name"), [("onedl-mmcv", "onedl-mmcv"), ("mmcv", "mmcv")])
def test_mmcv_without_ops(pretend, installed, family, name):
    installed(family)
    pretend(mmcv___ext=None)
    sentence = complaint()
    assert "has no compiled ops" in sentence
    assert "--no-cache-dir --force-reinstall --no-deps " + name + "==" in sentence
    assert "uninstall" not in sentence


def test_mmcv_lite_is_removed_first(pretend, installed):
    installed("mmcv-lite", "mmdet")
    pretend(mmcv___ext=None)
    assert "run `pip uninstall -y mmcv-lite && pip install" in complaint()


@pytest.mark.parametrize(
    ("source", "problem", "command"),
    [
        (
            "assert False, 'MMCV==2.2.0 is used but incompatible. Please install mmcv<2.2.0.'",
            "mmdet refuses to load (MMCV==2.2.0 is used but incompatible",
            "MMCV_WITH_OPS=1 pip install",
        ),
        (
            "assert False, 'MMEngine==0.6 is used but incompatible.'",
            "mmdet refuses to load (MMEngine==0.6 is used",
            "mmengine>=0.10",
        ),
        (
            "raise ModuleNotFoundError('No module', name='pkg_resources')",
            "mmdet needs pkg_resources, which setuptools dropped",
            "pip install 'setuptools<81'",
        ),
        (
            "raise ImportError('libGL.so.1: cannot open shared object file')",
            "mmdet cannot load OpenCV",
            "opencv-python-headless",
        ),
    ],
)
def test_package_that_does_not_load(monkeypatch, tmp_path, source, problem, command):
    (tmp_path / "mmdet.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mmdet")
    sentence = complaint()
    assert problem in sentence and command in sentence


def test_an_error_we_know_nothing_of_comes_through_as_it_is(monkeypatch, tmp_path):
    (tmp_path / "mmdet.py").write_text("import something_else_")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mmdet")
    with pytest.raises(ModuleNotFoundError, match="No module named 'something_else_'"):
        check_environment()


@pytest.mark.smoke
def test_import_of_the_package_checks(tmp_path):
    (tmp_path / "mmdet.py").write_text("__version__ = '2.28.2'")
    result = subprocess.run(
        [sys.executable, "-c", "import fastdetr_mmdet"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "ImportError: fastdetr_mmdet needs mmdet >= 3.3 and < 4, but mmdet 2.28.2"
    )


def runner_like_checkpoint() -> dict:
    hub = MessageHub("test_environment")
    for step in range(5):
        hub.update_scalar("train/loss", np.float32(step) / 2)
        hub.update_info("iter", np.int64(step))
    hub.update_info("epoch", np.array([1, 2]))
    return {"state_dict": {"w": torch.ones(2)}, "message_hub": hub.state_dict()}


@pytest.mark.smoke
def test_checkpoint_of_the_runner_loads(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save(runner_like_checkpoint(), path)
    allow_mmengine_checkpoints()
    loaded = torch.load(path, weights_only=True)
    buffer = loaded["message_hub"]["log_scalars"]["train/loss"]
    assert isinstance(buffer, HistoryBuffer)
    assert buffer.mean() == pytest.approx(1.0)
    assert loaded["message_hub"]["runtime_info"]["iter"] == 4


def test_allowance_outlives_the_loader_of_onedl(tmp_path):
    """It adds the same classes for one load and then removes them from the list of the process."""
    path = tmp_path / "checkpoint.pth"
    torch.save(runner_like_checkpoint(), path)
    allow_mmengine_checkpoints()
    with torch.serialization.safe_globals([HistoryBuffer, np.ndarray, np.dtype, getattr]):
        pass
    assert torch.load(path, weights_only=True)["message_hub"]["log_scalars"]


class Reach:
    """Unpickles to an attribute of something."""

    def __init__(self, owner, name):
        self.call = (getattr, (owner, name))

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("owner", "name"),
    [(HistoryBuffer, "__init__"), (HistoryBuffer, "_statistics_methods"), (torch.Tensor, "cpu")],
)
def test_getattr_stays_shut(tmp_path, owner, name):
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": Reach(owner, name)}, path)
    allow_mmengine_checkpoints()
    with pytest.raises((ValueError, pickle.UnpicklingError), match=r"never do|Unsupported global"):
        torch.load(path, weights_only=True)


def test_other_classes_stay_shut(tmp_path):
    path = tmp_path / "hostile.pth"
    torch.save({"state_dict": os.system}, path)
    allow_mmengine_checkpoints()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
