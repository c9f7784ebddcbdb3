"""Errors on wrong environments name the command to run."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fastdetr_mmdet.utils import environment
from fastdetr_mmdet.utils.environment import check_environment


@pytest.fixture
def pretend(monkeypatch):
    """Replaces modules by fakes with a version, or None if missing."""

    def replace(**modules):
        for name, version in modules.items():
            fake = SimpleNamespace(__version__=version) if version is not None else None
            monkeypatch.setitem(sys.modules, name, fake)

    return replace


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """Replaces mmdet by a module with this source."""

    def replace(source):
        (tmp_path / "mmdet.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "mmdet")

    return replace


def complaint() -> str:
    with pytest.raises(ImportError) as error:
        check_environment()
    message = str(error.value)
    assert "\n" not in message and "`make setup`" in message
    return message


COMPILE = "MMCV_WITH_OPS=1 pip install --no-build-isolation"
AGAIN = "--no-cache-dir --force-reinstall --no-deps"
ONEDL, OPENMMLAB = ("onedl-mmcv",), ("mmcv",)


@pytest.mark.parametrize(
    ("distributions", "module", "command"),
    [
        (ONEDL, "mmengine", "`pip install -U 'onedl-mmengine>=0.10.10,<1'`"),
        (ONEDL, "mmdet", "`pip install -U 'onedl-mmdetection>=3.5,<4'`"),
        (OPENMMLAB, "mmengine", "`pip install -U 'mmengine>=0.10.0,<1'`"),
        (OPENMMLAB, "mmdet", "`pip install -U 'mmdet>=3.3,<4'`"),
        # mmcv is compiled for the installed stack
        ((), "mmcv", f"{COMPILE} 'onedl-mmcv>=2.3,<3'`"),
        (("onedl-mmengine",), "mmcv", f"{COMPILE} 'onedl-mmcv>=2.3,<3'`"),
        (("mmengine", "mmdet"), "mmcv", f"{COMPILE} 'mmcv>=2.0.0,<2.2'`"),
        (("mmengine", "onedl-mmdetection"), "mmcv", f"{COMPILE} 'onedl-mmcv>=2.3,<3'`"),
        # only the user knows torch's CUDA version
        ((), "torch", "--index-url"),
        ((), "torch", "`pip install torch`"),
        # without ops; mmcv-lite is uninstalled first
        (ONEDL, "mmcv._ext", f"{AGAIN} onedl-mmcv=="),
        (OPENMMLAB, "mmcv._ext", f"{AGAIN} mmcv=="),
        (("mmcv-lite", "mmdet"), "mmcv._ext", "`pip uninstall -y mmcv-lite && pip install"),
    ],
)
def test_missing_module(pretend, monkeypatch, distributions, module, command):
    installed = lambda name: [name] * (name in distributions)  # noqa: E731
    monkeypatch.setattr(environment.metadata, "distributions", installed)
    pretend(**{module: None})
    message = complaint()
    assert module.partition(".")[0] in message and command in message
    assert ("uninstall" in message) == ("mmcv-lite" in distributions)


@pytest.mark.parametrize(
    "wrong",
    ["mmengine 0.8.5", "mmengine 1.0.0", "mmcv 1.7.2", "mmdet 2.28.2", "mmdet 3.2.0", "mmdet 4.0"],
)
def test_wrong_version(pretend, wrong):
    name, version = wrong.split()
    pretend(**{name: version})
    message = complaint()
    assert all(value in message for value in (name, version, *environment.SUPPORTED[name]))


@pytest.mark.smoke
@pytest.mark.parametrize("version", [None, "3.3.0", "3.5.1", "3.99"])
def test_right_version(pretend, version):
    """None: this environment's."""
    if version:
        pretend(mmdet=version)
    check_environment()


@pytest.mark.parametrize(
    ("source", "problem", "command"),
    [
        (
            "assert False, 'MMCV==2.2.0 is used but incompatible. Please install mmcv<2.2.0.'",
            "MMCV==2.2.0 is used but incompatible",
            "MMCV_WITH_OPS=1 pip install",
        ),
        ("assert False, 'MMEngine==0.6 is used'", "MMEngine==0.6 is used", "mmengine>=0.10"),
        (
            "raise ModuleNotFoundError('No module', name='pkg_resources')",
            "pkg_resources",
            "pip install 'setuptools<81'",
        ),
        ("raise ImportError('libGL.so.1: cannot open')", "OpenCV", "opencv-python-headless"),
    ],
)
def test_package_that_does_not_load(broken, source, problem, command):
    broken(source)
    message = complaint()
    assert problem in message and command in message


def test_an_error_we_know_nothing_of_comes_through_as_it_is(broken):
    broken("import something_else_")
    with pytest.raises(ModuleNotFoundError, match="No module named 'something_else_'"):
        check_environment()


@pytest.mark.smoke
def test_import_of_the_package_checks(tmp_path):
    (tmp_path / "torch.py").touch()
    (tmp_path / "mmengine.py").write_text("__version__ = '0.8.5'")
    result = subprocess.run(
        [sys.executable, "-c", "import fastdetr_mmdet"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError") and "mmengine 0.8.5" in last


@pytest.mark.slow
def test_notices_of_optional_packages_are_not_shown():
    code = "import fastdetr_mmdet"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
