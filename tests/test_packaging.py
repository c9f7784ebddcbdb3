"""Installed packages are complete, and versions are defined once.

Built from the tree: the wheel, the sdist and the wheel of that sdist. Installed: the editable
package of the environment, whose copies of configs and tools mim reads.
"""

import json
import re
import runpy
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fastdetr_mmdet import __version__
from fastdetr_mmdet.utils import environment

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
STACKS = ("onedl", "openmmlab")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(file: str) -> dict[str, Requirement]:
    lines = (ROOT / "requirements" / file).read_text().splitlines()
    found = [Requirement(line) for line in lines if re.match(r"[A-Za-z]", line)]
    return {canonicalize_name(r.name): r for r in found}


def stack_names(stack: str) -> list[str]:
    return [Requirement(text).name for text in environment.REQUIREMENTS[stack].values()]


def mim_files(tree: Path) -> dict[str, bytes]:
    """Return the files that mim must find in the installed package, by their path below .mim."""
    files = {"model-index.yml": tree / "model-index.yml"}
    for folder in ("configs", "tools"):
        for path in (tree / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                files[path.relative_to(tree).as_posix()] = path
    return {name: path.read_bytes() for name, path in files.items()}


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def build(source: Path, target: str, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", folder],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist_tree(tmp_path_factory) -> Path:
    sdist = build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    return tree


def test_wheel_holds_what_mim_reads(wheel):
    files = contents(wheel)
    expected = mim_files(ROOT)
    assert {"tools/train.py", "tools/test.py", "model-index.yml"} <= expected.keys()
    assert any(name.startswith("configs/") for name in expected)
    shipped = {
        name.removeprefix("fastdetr_mmdet/.mim/"): data
        for name, data in files.items()
        if name.startswith("fastdetr_mmdet/.mim/")
    }
    assert shipped == expected


def test_wheel_holds_the_whole_package_and_nothing_else(wheel):
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "fastdetr_mmdet").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    names = {name for name in contents(wheel) if "/.mim/" not in name}
    info = {name for name in names if ".dist-info/" in name}
    assert names - info == modules
    assert any(name.endswith("licenses/LICENSE") for name in info)
    assert len([name for name in info if name.endswith("METADATA")]) == 1


def test_wheel_of_the_sdist_is_the_same(wheel, sdist_tree, tmp_path):
    again = contents(build(sdist_tree, "wheel", tmp_path))
    first = contents(wheel)
    assert again.keys() == first.keys()
    differ = [name for name in first if again[name] != first[name] and not name.endswith("RECORD")]
    assert not differ


def test_sdist_can_be_tested(sdist_tree):
    for name in (
        "tests/test_packaging.py",
        "scripts/setup.sh",
        "requirements/onedl.txt",
        "Makefile",
    ):
        assert (sdist_tree / name).is_file()
    assert not list(sdist_tree.rglob(".venv*")) and not list(sdist_tree.rglob("__pycache__"))


def test_no_config_has_the_name_of_another():
    """mim finds configs by file name only, and converts queries to lower case."""
    stems = Counter(
        path.name for path in (ROOT / "configs").rglob("*.py") if "_base_" not in path.parts
    )
    assert [name for name, count in stems.items() if count > 1] == []
    named = re.compile(r"[a-z0-9-]+(_[a-z0-9-]+)+\.py")
    assert [name for name in stems if not named.fullmatch(name)] == []


def indexed_models() -> list[dict]:
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    files = [yaml.safe_load((ROOT / name).read_text()) for name in index["Import"]]
    return [model for file in files for model in file["Models"]]


def test_index_lists_each_model_by_the_name_of_its_config():
    models = indexed_models()
    assert len(models) >= 4
    for model in models:
        assert (ROOT / model["Config"]).is_file(), model["Config"]
        assert model["Name"] == Path(model["Config"]).stem
        assert "Weights" not in model, "docs/checkpoints.md says that there are none"
    names = Counter(model["Name"] for model in models)
    assert [name for name, count in names.items() if count > 1] == []
    listed = {model["Config"] for model in models}
    published = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*_coco.py")
    }
    assert published <= listed


@pytest.mark.smoke
def test_mim_search_shows_every_model(monkeypatch, capsys):
    from mim.commands.search import cli  # takes a second

    monkeypatch.setenv("COLUMNS", "200")
    cli.main(["fastdetr_mmdet"], standalone_mode=False)
    found = capsys.readouterr().out
    assert [m["Name"] for m in indexed_models() if f"config id: {m['Name']}" not in found] == []


@pytest.mark.smoke
def test_installed_copies_are_current():
    distribution = metadata.distribution("fastdetr_mmdet")
    direct_url = json.loads(distribution.read_text("direct_url.json") or "{}")
    assert direct_url.get("dir_info", {}).get("editable"), "the tests expect an editable install"
    installed = Path(distribution.locate_file("fastdetr_mmdet/.mim"))
    assert mim_files(installed) == mim_files(ROOT), "configs or tools changed: run `make setup`"


@pytest.mark.smoke
def test_version_is_said_once():
    assert metadata.version("fastdetr_mmdet") == __version__
    assert "version" in project()["dynamic"] and "version" not in project()
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_core_dependencies_change_nothing_of_a_working_environment():
    """Each has no version bound, and is already required by torch, mmdet or mmcv."""
    core = [Requirement(text) for text in project()["dependencies"]]
    assert [str(r) for r in core if r.specifier or r.marker or r.extras] == []
    asked = set()
    for name in ["torch", *stack_names("onedl"), *stack_names("openmmlab")]:
        try:
            asked |= {canonicalize_name(Requirement(r).name) for r in metadata.requires(name) or []}
        except metadata.PackageNotFoundError:
            continue
    assert {canonicalize_name(r.name) for r in core} <= asked


@pytest.mark.parametrize("stack", STACKS)
def test_extras_admit_the_pins(stack):
    pins = requirements(f"{stack}.txt")
    extras = project()["optional-dependencies"]
    wanted = [Requirement(text) for text in extras[stack] + (extras["mim"] * (stack == "onedl"))]
    assert {"torch", *map(canonicalize_name, stack_names(stack))} <= {
        canonicalize_name(r.name) for r in wanted
    }
    for requirement in wanted:
        pin = pins[canonicalize_name(requirement.name)]
        for specifier in pin.specifier:
            if specifier.operator == "==":
                assert requirement.specifier.contains(specifier.version), requirement


@pytest.mark.parametrize("stack", STACKS)
def test_environment_check_names_the_extras(stack):
    extra = {Requirement(text) for text in project()["optional-dependencies"][stack]}
    assert {Requirement(text) for text in environment.REQUIREMENTS[stack].values()} <= extra


def test_both_stacks_pin_one_torch():
    assert len({str(requirements(f"{stack}.txt")["torch"]) for stack in STACKS}) == 1


@pytest.mark.parametrize("stack", STACKS)
def test_stack_is_pinned_exactly(stack):
    pins = requirements(f"{stack}.txt")
    loose = [
        str(pin)
        for name, pin in pins.items()
        if name != "setuptools" and [s.operator for s in pin.specifier] != ["=="]
    ]
    assert not loose


@pytest.mark.smoke
def test_environment_is_as_pinned(monkeypatch, capsys):
    names = {dist.name for dist in metadata.distributions()}
    stacks = STACKS if "onedl-mmdetection" in names else STACKS[::-1]
    for stack, status in zip(stacks, (0, 1), strict=True):
        script = ROOT / "scripts" / "verify_stack.py"
        monkeypatch.setattr(sys, "argv", [script, ROOT / "requirements" / f"{stack}.txt"])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(script), run_name="__main__")
        error = capsys.readouterr().err
        assert ended.value.code == status, error
    assert "is not installed" in error


def test_everything_our_extras_bring_is_capped():
    caps = requirements("constraints.txt")
    extras = project()["optional-dependencies"]
    ours = ("analysis", "docs", "export", "lint", "test")
    named = [Requirement(t) for extra in ours for t in extras[extra]]
    named += [Requirement(t) for t in project()["dependencies"]]
    assert {canonicalize_name(r.name) for r in named} <= caps.keys()


def test_damaged_environment_is_noticed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import venv_intact

    site = tmp_path / "site-packages"
    info = site / "thing-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "thing.py").write_text("")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
    record = "thing.py,,\nthing-1.0.dist-info/METADATA,,\n"
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text(record + "thing-1.0.dist-info/INSTALLER,,\n")
    monkeypatch.setattr(sys, "path", [str(site)])
    assert venv_intact.damage() == []
    (site / "thing.py").unlink()
    assert venv_intact.damage() == ["thing lacks thing.py"]
    (info / "RECORD").write_text(record)
    unfinished = "thing-1.0.dist-info was not completely installed"
    assert venv_intact.damage() == [unfinished, "thing lacks thing.py"]
    (info / "RECORD").unlink()
    assert venv_intact.damage() == [unfinished]
    (site / "~hing").mkdir()
    assert f"{site / '~hing'} is a leftover of pip" in venv_intact.damage()
