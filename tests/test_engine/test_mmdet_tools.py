"""tools/ run mmdet's own scripts with this package imported."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from mmengine.config.utils import MODULE2PACKAGE

from fastdetr_mmdet.engine import mmdet_tools

ROOT = Path(__file__).parents[2]


@pytest.fixture
def mmdet_at(monkeypatch, tmp_path):
    """Pretends that mmdet is installed in tmp_path with the given files."""

    def place(*files, text=""):
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).write_text(text)
        fake = SimpleNamespace(__file__=str(tmp_path / "mmdet" / "__init__.py"), __version__="3.9")
        monkeypatch.setitem(sys.modules, "mmdet", fake)
        return tmp_path.resolve()

    return place


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["train.py", "test.py", "analysis_tools/get_flops.py"])
def test_installed_mmdet_has_the_tool(name):
    script = mmdet_tools.find_script(name)
    assert "import mmdet" in (text := script.read_text()) or "from mmdet" in text
    assert ROOT / "tools" not in script.parents


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["mmdet/.mim/tools/train.py", "tools/train.py", "model-index.yml"], True),  # a wheel
        (["tools/train.py", "model-index.yml"], True),  # a clone
        (["tools/train.py"], False),  # a stray folder in site-packages
    ],
)
def test_where_the_tool_is_found(mmdet_at, files, found):
    root = mmdet_at(*files)
    if found:
        assert mmdet_tools.find_script("train.py") == root / files[0]
        return
    with pytest.raises(FileNotFoundError, match=r"mmdet 3\.9 has no tools/train\.py .* install"):
        mmdet_tools.find_script("train.py")


def test_run_makes_the_package_known(mmdet_at, monkeypatch):
    source = (
        "import sys\n"
        "from mmengine.config.utils import MODULE2PACKAGE\n"
        "from pathlib import Path\n"
        "Path(sys.argv[1]).write_text(__name__ + ' ' + MODULE2PACKAGE['fastdetr_mmdet'])\n"
    )
    root = mmdet_at("mmdet/.mim/tools/train.py", text=source)
    monkeypatch.setattr(sys, "argv", ["train.py", str(root / "out")])
    monkeypatch.setitem(MODULE2PACKAGE, "fastdetr_mmdet", "")
    monkeypatch.delitem(MODULE2PACKAGE, "fastdetr_mmdet")
    mmdet_tools.run("train.py")
    assert (root / "out").read_text() == "__main__ fastdetr_mmdet"


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("tool", "flags"),
    [
        ("train.py", ["--work-dir", "--amp", "--resume", "--auto-scale-lr", "--cfg-options"]),
        ("test.py", ["--work-dir", "--out", "--show-dir", "--tta", "--cfg-options"]),
    ],
)
def test_tools_take_mmdets_flags(tool, flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [tool, "-h"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert [flag for flag in flags if flag not in text] == []
