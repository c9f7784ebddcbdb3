"""The command line, and the commands and claims of docs/checkpoints.md."""

import re
import shlex

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.golden import ROOT
from support.renamed import detrex, official_dino

from fastdetr_mmdet.checkpoints import METHODS, convert_state_dict
from fastdetr_mmdet.checkpoints.convert import main
from fastdetr_mmdet.checkpoints.exporting import TARGETS
from fastdetr_mmdet.checkpoints.fine_tuning import start_from
from fastdetr_mmdet.checkpoints.state_dicts import restore_state_dict

PAGE = (ROOT / "docs" / "checkpoints.md").read_text()
COMMANDS = [
    shlex.split(command)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for command in block.replace("\\\n", " ").splitlines()
]
CONVERSIONS = [words[4:] for words in COMMANDS if "--method" in words]


def test_what_is_missing_on_the_command_line(dst, capsys):
    for words in ([], ["a", "b"], ["a", "b", "--method", "detr"]):
        with pytest.raises(SystemExit, match="2"):
            main(words)
        assert "python -m fastdetr_mmdet convert" in capsys.readouterr().err
    assert main(["no.pth", str(dst), "--method", "conditional_detr"]) == 2
    assert "no.pth" in capsys.readouterr().err


@pytest.fixture
def published(hollow, hollow_mmdet):
    """State dict with a published model's sizes."""

    def make(method: str) -> dict:
        if method == "mmdet":
            return hollow_mmdet("deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py")
        if method in ("dino", "detrex"):
            weights = official_dino(hollow_mmdet("dino/dino-4scale_r50_8xb2-12e_coco.py"))
            return detrex(weights) if method == "detrex" else weights
        if method == "hf":
            official = published_official("deformable_refine")
            weights = convert_state_dict(official, "deformable_detr")
            return restore_state_dict(weights, "hf_deformable_detr")
        return published_official(
            {
                "conditional_detr": "conditional_r50",
                "deformable_detr": "deformable_base",
                "sam_detr": "sam_ms_smca_e50",
                "smca_detr": "smca_ss_type3",
            }[method]
        )

    def published_official(name: str) -> dict:
        official = hollow(name)
        width = official["query_embed.weight"].shape[1]
        official["query_embed.weight"] = torch.zeros(300, width)
        return official

    return make


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(CONVERSIONS[0], marks=pytest.mark.smoke),
        *(pytest.param(w, marks=() if "hf" in w else pytest.mark.slow) for w in CONVERSIONS[1:]),
    ],
    ids=lambda words: words[-1] + words[-2],
)
def test_commands_of_the_page(words, published, save, tmp_path, monkeypatch, capsys):
    src, dst, method = words[0], words[1], words[words.index("--method") + 1]
    monkeypatch.chdir(tmp_path)
    save(published(method)).rename(src)
    assert main(words) == 0
    assert (tmp_path / dst).exists()
    printed = capsys.readouterr().out
    if words == CONVERSIONS[0]:
        assert f"```text\n{printed}```" in PAGE
    assert "    model." not in printed  # options


def test_all_methods_are_on_the_page():
    shown = {words[words.index("--method") + 1] for words in CONVERSIONS}
    assert shown == set(METHODS)
    assert {words[-1] for words in COMMANDS if "--to" in words} == set(TARGETS)
    assert all(f"| `{method}` |" in PAGE for method in METHODS)


def test_training_command_of_the_page(published):
    """The page's config loads the page's converted file."""
    (words,) = [words for words in COMMANDS if words[0] == "mim"]
    config = Config.fromfile(ROOT / words[3])
    options = dict(word.split("=") for word in words[words.index("--cfg-options") + 1 :])
    assert [key for key in options if key.split(".")[0] not in config] == []
    made = [words[1] for words in CONVERSIONS if words[-1] == "conditional_detr"]
    assert made == [options["load_from"]]
    classes = options["classes"].split(",")
    config.model.bbox_head.num_classes = len(classes)
    config.model.backbone.init_cfg = None
    with torch.device("meta"):
        model = MODELS.build(config.model)
    converted = convert_state_dict(published("conditional_detr"), "conditional_detr")
    (said,) = start_from(model, dict(state_dict=converted), classes, {}, "")
    assert said.split(" The checkpoint")[0] in " ".join(PAGE.split())
