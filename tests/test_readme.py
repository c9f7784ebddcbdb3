"""What the README says is so: its code runs, its links and commands lead somewhere."""

import re
from pathlib import Path

import torch

import fastdetr_mmdet

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "configs").glob("*/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def code_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_model_of_the_parts_section_trains_and_predicts():
    (block,) = [code for code in code_blocks("python") if "MODELS.build" in code]
    names: dict = {}
    exec(block, names)
    model = names["model"]
    logits, boxes = model._forward(torch.rand(1, 3, 64, 96))
    assert logits.shape == (3, 1, 30, 6)  # 4 x 6 + 2 x 3 tokens, fewer than the 50 queries
    assert boxes.shape == (3, 1, 30, 4)


def test_variables_for_own_data_are_the_template_s():
    (block,) = [code for code in code_blocks("python") if "train_ann" in code]
    for name in ("conditional-detr_r50_custom.py", "fast-detr_r18_custom.py"):
        template = (ROOT / "configs" / "custom" / name).read_text()
        for line in block.strip().splitlines():
            assert line in template, (name, line)


def test_links_lead_to_files():
    links = [
        (page, link)
        for page in PAGES
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    ]
    assert len(links) > len(PAGES)
    assert [(p, link) for p, link in links if not (p.parent / link).exists()] == []


def test_commands_name_files_that_exist():
    commands = "".join(code_blocks("bash")).replace("\\\n", " ")
    files = re.findall(r"(?:configs|tests|tools)/\S+\.py", commands)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_part_list_is_complete():
    text = (ROOT / "README.md").read_text()
    parts = [
        name
        for name in fastdetr_mmdet.__all__
        if isinstance(getattr(fastdetr_mmdet, name), type)
        and name not in ("DecoderOutput", "Memory", "Proposals", "Queries")
    ]
    assert len(parts) > 10
    assert [name for name in parts if f"`{name}`" not in text] == []
