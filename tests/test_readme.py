"""What the README says is so: its code runs, its links and commands lead somewhere."""

import re
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from fastdetr_mmdet.__main__ import COMMANDS  # and registers the parts

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "configs").glob("*/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def code_blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_mix_trains_and_predicts():
    register_all_modules(init_default_scope=True)
    (block,) = code_blocks("python")
    names: dict = {}
    exec(block, names)
    model = MODELS.build(names["model"])
    logits, boxes = model._forward(torch.rand(1, 3, 64, 96))
    assert logits.shape == (3, 1, 30, 6)  # 4 x 6 + 2 x 3 tokens, fewer than the 50 queries
    assert boxes.shape == (3, 1, 30, 4)


def test_variables_for_own_data_are_the_template_s():
    (block,) = [code for code in code_blocks("python", "docs/start.md") if "train_ann" in code]
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
    pages = [str(page.relative_to(ROOT)) for page in PAGES]
    commands = "".join(block for page in pages for block in code_blocks("bash", page))
    commands = commands.replace("\\\n", " ")
    files = re.findall(r"(?:configs|tests|tools)/\S+\.py", commands)
    assert files
    assert [file for file in files if not (ROOT / file).exists()] == []


def test_readme_is_short_and_names_every_command():
    text = (ROOT / "README.md").read_text()
    assert len(text) <= 7000
    tools = text[text.index("## Tools") :]
    missing = [name for name in COMMANDS if f"`{name}`" not in tools]
    assert missing == ["shapes", "demo"]  # `make demo` calls them


# STYLE: words that nobody searches for, and turns that have to be read twice.
BANNED = re.compile(
    r"\b(mend(s|ed|ing)?|surest|anew|spoil(s|t|ed|ing)?|learnt|heed(s|ed)?|untold|absurd"
    r"|in the place of|files of strangers|put through|of today|goes bad)\b"
    r"|(?<=\S )(?<!there )\b(is|are|was|were|be) no (?!longer|more|less)",
    re.IGNORECASE,
)


def test_plain_words():
    files = [
        path
        for folder in "benchmarks configs docs fastdetr_mmdet scripts tests tools".split()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".md", ".py", ".sh", ".yaml", ".yml") and path != Path(__file__)
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in [*files, *ROOT.glob("*.md"), ROOT / "Makefile"]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if BANNED.search(line)
    ]
    assert not found, "\n".join(found)
