"""The code of docs/visualization.md works."""

import re
from pathlib import Path

import pytest
from mmdet.registry import HOOKS, MODELS
from mmengine.config import Config

from fastdetr_mmdet.visualize import _parser

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "visualization.md"
TEXT = PAGE.read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("name", ["smca_r18_shapes.py", "sam_r18_shapes.py"])
def test_configs_build(name, tmp_path):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    smca, sam = (block for block in BLOCKS if block.startswith("_base_"))
    (tmp_path / "smca_r18_shapes.py").write_text(smca)
    (tmp_path / "sam_r18_shapes.py").write_text(sam)
    config = Config.fromfile(tmp_path / name)
    decoder = MODELS.build(config.model).transformer.decoder
    assert type(decoder.layers[0].cross_attn).__name__.lower().startswith(name[:3])
    assert len(decoder.layers) == 3
    last = config.param_scheduler[-1]
    assert config.train_cfg.max_epochs == last.end


def test_hook_of_the_page_is_built():
    (block,) = [block for block in BLOCKS if "custom_hooks" in block]
    names: dict = {}
    exec(block, names)
    runtime = Config.fromfile(ROOT / "configs/_base_/default_runtime.py")
    assert names["custom_hooks"][:-1] == runtime.custom_hooks  # repeated on the page
    hook = HOOKS.build(names["custom_hooks"][-1])
    assert hook.interval == 2 and hook.num_images == 4


def test_options_of_the_page_exist():
    known = {flag for action in _parser()._actions for flag in action.option_strings}
    flags = set(re.findall(r"^\| `(--\w+)", TEXT, re.MULTILINE))
    assert {"--top", "--query", "--layer"} == flags <= known


def test_pictures_are_small():
    pictures = [PAGE.parent / name for name in re.findall(r"\]\((?!http)([^)#]+\.jpg)\)", TEXT)]
    assert len(pictures) == 4
    assert max(path.stat().st_size for path in pictures) <= 150_000
