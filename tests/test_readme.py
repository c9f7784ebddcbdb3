"""The README's code runs, and its links and commands exist."""

import importlib
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules

from fastdetr_mmdet.__main__ import COMMANDS  # registers the parts, too

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


def shown_commands() -> list[tuple[str, str]]:
    """Every command in a block or in backticks on a page, on one line."""
    pages = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
    found = []
    for page in pages:
        text = page.read_text().replace("\\\n", " ")
        spans = re.findall(r"`([^`\n]+)`", text)
        spans += [
            line
            for block in re.findall(r"```bash\n(.*?)```", text, re.S)
            for line in block.split("\n")
        ]
        found += [(page.name, span.split(" #")[0]) for span in spans]
    return found


def test_options_of_commands_exist(capsys):
    """Checked by commands' --help, scripts' source, and the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    passed_on = {"--cfg-options", "--work-dir", "--resume", "--amp", "--launcher", "--seeds"}
    helps: dict[str, str] = {}
    unknown, checked = [], 0
    for page, command in shown_commands():
        ours = re.match(r".*?python -m fastdetr_mmdet([. ])([a-z]+)", command)
        script = re.match(r".*?python (?:-m (benchmarks\.\w+)|(tests/\S+\.py))", command)
        options = set(re.findall(r"(?<=\s)--[a-z][\w-]*", command))
        if make := re.match(r"make ((?:[a-z-]+ ?)+)(?![\w/.])", command):
            unknown += [(page, command)] * (not set(make[1].split()) <= targets)
        elif ours:
            name = COMMANDS.get(ours[2], ("",))[0] if ours[1] == " " else ""  # one spelling
            name = name or unknown.append((page, command)) or "parts"
            if name not in helps:
                module = importlib.import_module(f"fastdetr_mmdet.{name}")
                if not hasattr(module, "main"):
                    module = importlib.import_module(f"fastdetr_mmdet.{name}.__main__")
                with pytest.raises(SystemExit, match=r"^0$"):
                    module.main(["--help"])
                helps[name] = capsys.readouterr().out
            allowed = passed_on if name == "engine.start.train" else set()
            missing = {o for o in options - allowed if not re.search(rf"{o}\b", helps[name])}
            unknown += [(page, command, missing)] * bool(missing)
            checked += 1
        elif script:
            path = ROOT / (script[2] or f"{script[1].replace('.', '/')}.py")
            text = path.read_text() if path.exists() else ""
            missing = {o for o in options if f'"{o}"' not in text}
            unknown += [(page, command, missing)] * (not text or bool(missing))
            checked += 1
    assert not unknown, unknown
    assert checked > 50 and len(helps) > 8


def test_a_run_is_tested_with_the_config_that_it_saved():
    found = [re.search(r"mim test \S+ +(\S+) +-C work_dirs/(\S+)/", c) for _, c in shown_commands()]
    tested = [match.groups() for match in found if match]
    assert tested
    assert [c for c, run in tested if c.rpartition("/")[0] != f"work_dirs/{run}"] == []


def test_readme_is_short_and_names_every_command():
    text = (ROOT / "README.md").read_text()
    assert len(text) <= 7000
    tools = text[text.index("## Tools") :]
    missing = [name for name in COMMANDS if f"`{name}`" not in tools]
    assert missing == ["shapes", "demo"]  # `make demo` calls them


# Words that nobody searches for, and phrases that have to be read twice.
BANNED = re.compile(
    r"\b(mend(s|ed|ing)?|surest|anew|spoil(s|t|ed|ing)?|learnt|heed(s|ed)?|untold|absurd"
    r"|in the place of|files of strangers|put through|goes bad|data[- ]sets?)\b"
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
