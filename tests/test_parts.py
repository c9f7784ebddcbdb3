"""The list of parts is complete, up to date, and read from the classes."""

import ast
import re
from pathlib import Path

import pytest

from fastdetr_mmdet.parts import SLOTS, Registered, registered_roles
from fastdetr_mmdet.parts.__main__ import main
from fastdetr_mmdet.parts.pages import render

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "parts.md"
ROLES = registered_roles()
PARTS = {part.name: part for role in ROLES for part in role.parts}


def decorated_classes():
    """Names of classes with a register_module decorator, read from the source."""
    for path in sorted((ROOT / "fastdetr_mmdet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and "register_module" in "".join(
                ast.unparse(decorator) for decorator in node.decorator_list
            ):
                yield node.name


def test_page_is_up_to_date():
    command = "python -m fastdetr_mmdet parts --markdown -o docs/parts.md"
    assert PAGE.read_text() == render("page.md", roles=ROLES) + "\n", (
        f"{PAGE.name} is old; run: {command}"
    )


def test_every_registered_class_is_listed():
    names = list(decorated_classes())
    assert len(names) > 20
    assert sorted(names) == sorted(part.cls.__name__ for part in PARTS.values())
    text = render("overview.txt", roles=ROLES)
    assert [name for name in PARTS if f"\n  {name}(" not in text] == []
    assert [name for name in PARTS if f"\n| [`{name}`](" not in PAGE.read_text()] == []


def test_api_reference_has_every_part():
    pages = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    shown = re.findall("^::: (.*)$", pages, re.MULTILINE)
    missing = [p.name for p in PARTS.values() if not p.cls.__module__.startswith(tuple(shown))]
    assert missing == []


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_docstring_names_paper_and_parameters(part):
    if SLOTS[part.role].startswith("model"):  # hooks and so on need not say "none"
        assert re.match(r"none($|;)|[A-Z].* \d{4}, arXiv \d{4}\.\d{5}", part.paper), part.paper
        assert "Paper: " in part.cls.__doc__
    parameters = {parameter.name: parameter.text for parameter in part.parameters}
    assert [name for name, text in parameters.items() if not text] == []
    assert sorted(set(part.described) - set(parameters)) == []


def test_role_says_what_it_is_and_where_a_config_names_it():
    for role in ROLES:
        assert role.text.endswith("."), role.name
        assert role.slot == SLOTS[role.name], "a new role: name its place in SLOTS"


def test_docstring_is_taken_apart():
    class Thing:
        """Does a thing.

        Paper: Thing, Doe et al. 2020, arXiv 2001.00001, A.4, ``x``. Differs a bit: ``y``.

        One more
        note.

        Args:
            a, b: First
                and second.
            **kwargs: As for ``Other``; key: value.

        Raises:
            ValueError: never.
        """

        def __init__(self, a, b=(1, 2), **kwargs):
            pass

    part = Registered("Thing", "things", "registry", Thing)
    assert part.summary == "Does a thing."
    assert part.paper == "Thing, Doe et al. 2020, arXiv 2001.00001, A.4, ``x``"
    assert part.paragraphs[2:] == ["One more note.", "Raises: ValueError: never."]
    assert [(str(p), p.text) for p in part.parameters] == [
        ("a", "First and second."),
        ("b=(1, 2)", "First and second."),
        ("**kwargs", "As for ``Other``; key: value."),
    ]


def test_what_a_part_inherits_is_listed():
    decoder = PARTS["ConditionalDecoder"]
    assert decoder.parameters[-1].name == "**kwargs"
    names = [p.name for p in decoder.inherited]
    assert "refine" in names and "cross_attn" not in names  # its own
    assert all(p.text for p in decoder.inherited)
    assert "ResNet" in PARTS["DilatedResNet"].foreign


def test_declarations_say_on_which_argument_they_depend():
    assert PARTS["GaussianPrior"].declares == {
        "reads": ["POINT", "EMBEDDED"],
        "makes": ["PRIOR", "POINT (predict_reference=True)"],
    }
    assert PARTS["DetrDecoder"].declares["reads"] == [
        "POINT (refine=True)",
        "BOX (reference_pos='image')",
        "BOX (reference_pos='canvas')",
    ]
    assert PARTS["FastDETRHead"].declares == {}


def test_one_part_in_full(capsys):
    assert main(["GaussianPrior"]) == 0
    text = capsys.readouterr().out
    part = PARTS["GaussianPrior"]
    for parameter in (*part.parameters[:-1], *part.inherited):
        assert f"\n  {parameter}\n" in text
    for named in ("arXiv 2101.07448", "unlike the paper", "Reads: POINT, EMBEDDED", "layer_index"):
        assert named in text
    assert text.strip() == render("part.txt", part=part, slot=SLOTS[part.role])


def test_command(tmp_path, capsys):
    """An unknown name suggests the nearest."""
    for given, nearest in (("GausianPrior", "GaussianPrior"), ("samattention", "SAMAttention")):
        assert main([given]) == 2
        error = capsys.readouterr().err
        assert given in error and nearest in error
    assert main(["TorchDefault", "-o", str(tmp_path / "part.txt")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "part.txt").read_text().startswith("TorchDefault\n")
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["TorchDefault", "--markdown"])
