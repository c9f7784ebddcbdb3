"""Check the required packages at import, and name the fix.

Two families of distributions install the import names mmengine, mmcv and mmdet: OpenMMLab's own and
the maintained onedl forks. This package supports both, so it cannot declare dependencies on either.
Instead an error names each problem and the command that fixes it.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import platform
import re
import warnings
from importlib import metadata
from types import ModuleType
from typing import NoReturn

from packaging.version import Version

# Import name -> lowest version, first unsupported version.
SUPPORTED = {
    "mmengine": ("0.10.0", "1"),
    "mmcv": ("2.0.0", "3"),
    "mmdet": ("3.3", "4"),
}


# Import name -> requirement; the same as the extras in pyproject.toml (tested).
REQUIREMENTS = {
    "onedl": {
        "mmengine": "onedl-mmengine>=0.10.10,<1",
        "mmcv": "onedl-mmcv>=2.3,<3",
        "mmdet": "onedl-mmdetection>=3.5,<4",
    },
    "openmmlab": {
        "mmengine": "mmengine>=0.10.0,<1",
        "mmcv": "mmcv>=2.0.0,<2.2",  # mmdet 3.3 refuses 2.2
        "mmdet": "mmdet>=3.3,<4",
    },
}


# mmcv is compiled against the installed torch, so without pip's build isolation.
COMPILE = (
    "pip install 'setuptools>=80,<81' wheel ninja packaging && "
    "MMCV_WITH_OPS=1 pip install --no-build-isolation"
)


def check_environment() -> None:
    """Check that torch, mmengine, mmcv with compiled ops and mmdet can be imported.

    Raises:
        ImportError: if one is missing, has an unsupported version, or (mmcv) has no compiled ops;
            the message names the command to run.
    """
    _import("torch")
    for name, (lowest, too_new) in SUPPORTED.items():
        version = Version(_import(name).__version__)
        if not Version(lowest) <= version < Version(too_new):
            _fail(
                f"fastdetr_mmdet needs {name} >= {lowest} and < {too_new}, "
                f"but {name} {version} is installed",
                _install(name),
            )
        if name == "mmcv":
            _check_mmcv_ops(version)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # onedl's mmdet prints and warns about unused optional packages
        warnings.simplefilter("ignore")
        for noisy in ("mmdet.datasets", "mmdet.evaluation"):
            importlib.import_module(noisy)


def versions() -> dict[str, str]:
    """Versions of Python, this package and its requirements."""
    found = {"python": platform.python_version()}
    found["fastdetr_mmdet"] = metadata.version("fastdetr_mmdet")
    for name in ("torch", *SUPPORTED):
        found[name] = importlib.import_module(name).__version__
    return found


def _check_mmcv_ops(version: Version) -> None:
    try:
        importlib.import_module("mmcv._ext")
    except ImportError as error:
        # mmcv-lite, or a wheel built without torch or for another torch.
        remove = "pip uninstall -y mmcv-lite && " if _is_installed("mmcv-lite") else ""
        distribution = "onedl-mmcv" if _family() == "onedl" else "mmcv"
        _fail(
            f"mmcv {version} has no compiled ops that work with this torch ({error})",
            f"{remove}{COMPILE} --no-cache-dir --force-reinstall --no-deps "
            f"{distribution}=={version}",
            error,
        )


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, AssertionError) as error:
        match error:
            case ModuleNotFoundError() if error.name == name:
                lack = f"fastdetr_mmdet needs {name}, which is not installed"
                if name == "torch":  # only the user knows which build
                    lack += " (https://pytorch.org lists the --index-url of every CUDA version)"
                _fail(lack, _install(name), error)
            case ModuleNotFoundError(name="pkg_resources"):  # mmengine 0.10.7
                lack = f"{name} needs pkg_resources, which setuptools 82 removed"
                _fail(lack, "pip install 'setuptools<81'", error)
            case ImportError() if "libGL" in str(error):
                lack = f"{name} cannot load OpenCV, as this machine has no GUI libraries ({error})"
                headless = "'opencv-python-headless<4.13'"
                _fail(lack, f"pip install --force-reinstall --no-deps {headless}", error)
            case AssertionError():  # mmdet 3.3 refuses other versions of mmcv and mmengine
                reason = str(error).strip().rstrip(".")
                culprit = "mmcv" if "mmcv" in reason.lower() else "mmengine"
                _fail(f"{name} refuses to load ({reason})", _install(culprit), error)
        raise


def _install(name: str) -> str:
    """Return the command that installs a required package."""
    if name == "torch":
        return "pip install torch"
    wanted = REQUIREMENTS[_family()][name]
    return f"{COMPILE} '{wanted}'" if name == "mmcv" else f"pip install -U '{wanted}'"


def _fail(problem: str, fix: str, cause: Exception | None = None) -> NoReturn:
    raise ImportError(
        f"{problem}: run `{fix}`, or, for a tested environment, `make setup` in a clone of "
        "fastdetr_mmdet."
    ) from cause


def _family() -> str:
    """Return the installed stack, even if incomplete; onedl if none is installed."""
    onedl, openmmlab = (
        any(_is_installed(re.split(r"[<>=]", requirement)[0]) for requirement in stack.values())
        for stack in REQUIREMENTS.values()
    )
    return "openmmlab" if openmmlab and not onedl else "onedl"


def _is_installed(distribution: str) -> bool:
    return any(metadata.distributions(name=distribution))
