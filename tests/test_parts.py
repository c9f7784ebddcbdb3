"""The list of parts: complete, up to date, and true about what fits together."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest
import test_product
from mmdet.registry import MODELS

from fastdetr_mmdet.parts import fit, measure_pairs, measure_product, registered_roles
from fastdetr_mmdet.parts.__main__ import main
from fastdetr_mmdet.parts.pages import full, overview, page
from fastdetr_mmdet.parts.registered import SLOTS, Part

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "parts.md"
ROLES = registered_roles()
PARTS = {part.name: part for role in ROLES for part in role.parts}


@pytest.fixture(scope="module")
def pairs():
    return measure_pairs()


@pytest.fixture(scope="module")
def product(pairs):
    return measure_product(pairs)


def between(pairs, *names):
    (pair,) = [pair for pair in pairs if {pair.first.name, pair.second.name} == set(names)]
    return pair


def decorated_classes():
    """Names of classes with a register_module decorator, read from the source."""
    for path in sorted((ROOT / "fastdetr_mmdet").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and "register_module" in "".join(
                ast.unparse(decorator) for decorator in node.decorator_list
            ):
                yield node.name


@pytest.mark.smoke
def test_page_is_up_to_date(pairs, product):
    command = "python -m fastdetr_mmdet.parts --markdown -o docs/parts.md"
    assert PAGE.read_text() == page(ROLES, pairs, product), f"{PAGE.name} is old; run: {command}"


def test_every_registered_class_is_listed(pairs):
    names = list(decorated_classes())
    assert len(names) > 20
    assert sorted(names) == sorted(part.cls.__name__ for part in PARTS.values())
    text = overview(ROLES, pairs)
    assert [name for name in PARTS if f"\n  {name}(" not in text] == []
    assert [name for name in PARTS if f"\n### {name}\n" not in PAGE.read_text()] == []


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_docstring_names_paper_and_parameters(part):
    if SLOTS[part.role].startswith("model"):  # hooks and the like need not say that they have none
        assert re.match(r"none($|;)|[A-Z].* \d{4}, arXiv \d{4}\.\d{5}", part.paper), part.paper
    parameters = {parameter.name: parameter.text for parameter in part.parameters}
    assert [name for name, text in parameters.items() if not text] == []
    assert sorted(set(part.described) - set(parameters)) == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_role_says_what_it_is_and_where_a_config_names_it(role):
    assert role.text.endswith(".")
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

    part = Part("Thing", "things", "registry", Thing)
    assert part.summary == "Does a thing."
    assert part.paper == "Thing, Doe et al. 2020, arXiv 2001.00001, A.4, ``x``"
    assert part.notes == ["Differs a bit: ``y``.", "One more note."]
    assert part.raises == "ValueError: never."
    assert [(str(p), p.text) for p in part.parameters] == [
        ("a", "First and second."),
        ("b=(1, 2)", "First and second."),
        ("**kwargs", "As for ``Other``; key: value."),
    ]


def test_what_a_part_inherits_is_listed():
    decoder = PARTS["ConditionalDecoder"]
    assert [p.name for p in decoder.parameters][-1] == "**kwargs"
    names = [p.name for p in decoder.inherited]
    assert "refine" in names
    assert "cross_attn" not in names  # its own
    assert all(p.text for p in decoder.inherited)
    assert PARTS["DilatedResNet"].constructor.__name__ == "ResNet"


def test_pairs_that_are_refused_or_need_a_setting(pairs):
    pair = between(pairs, "GaussianPrior", "DeformableAttention")
    assert re.match(test_product.NO_MATRIX, pair.refusal.sentence)
    pair = between(pairs, "LearnedQueries", "SalientGaussianPrior")
    assert re.match(test_product.NO_BOXES.replace("points", "none"), pair.refusal.sentence)
    pair = between(pairs, "LearnedQueries", "GaussianPrior")
    assert pair.refusal is None
    assert pair.settings == (("LearnedQueries", "reference", "mlp"),)
    pair = between(pairs, "SalientGaussianPrior", "SAMAttention")  # finds the aligner by itself
    assert (pair.refusal, pair.settings) == (None, ())
    for pair in pairs:
        assert pair.first.role != pair.second.role
        if pair.refusal:  # a refusal names both
            assert {pair.first.name, pair.second.name} <= pair.refusal.words


def test_model_that_is_found_has_the_parts():
    fixed = {"encoders": PARTS["SMCAEncoder"], "spatial_priors": PARTS["SalientGaussianPrior"]}
    found = fit(fixed, num_levels=3)
    assert found.refusal is None
    transformer = MODELS.build(found.model.config()).transformer
    assert type(transformer.encoder) is PARTS["SMCAEncoder"].cls
    assert type(transformer.decoder.layers[0].spatial_prior) is PARTS["SalientGaussianPrior"].cls


def test_totals_are_those_of_the_product_test(product):
    """Which trains what builds, of all priors but one."""
    axes = (test_product.ENCODERS, test_product.ATTENTIONS, test_product.LEVELS)
    count = len(axes[0]) * len(axes[1]) * len(axes[2]) * 48
    rows = [row for prior, row in product.priors.items() if prior != "SalientGaussianPrior"]
    assert [sum(numbers) for numbers in zip(*rows, strict=True)] == [count, 1800]
    assert product.size - product.built == sum(n for _, n in product.reasons.values())
    sentences = [sentence for sentence, _ in product.reasons.values()]
    for pattern in (test_product.NO_MATRIX, test_product.NO_BOXES):
        assert sum(bool(re.match(pattern, sentence)) for sentence in sentences) == 1


def test_one_part_in_full(capsys):
    assert main(["GaussianPrior"]) == 0
    text = capsys.readouterr().out
    part = PARTS["GaussianPrior"]
    for parameter in part.parameters:
        assert f"\n  {parameter}\n" in text
    assert "arXiv 2101.07448" in text
    assert "unlike the paper" in text  # the notes
    assert "GaussianPrior with DeformableAttention: no (1)" in text
    assert text.strip() == full(part, SLOTS[part.role], measure_pairs(part.name))


@pytest.mark.parametrize(
    ("given", "nearest"), [("GausianPrior", "GaussianPrior"), ("samattention", "SAMAttention")]
)
def test_unknown_name_suggests_the_nearest(given, nearest, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["parts", given])
    monkeypatch.delitem(sys.modules, main.__module__)
    with pytest.raises(SystemExit, match=r"^1$"):  # as python -m fastdetr_mmdet.parts does it
        runpy.run_module("fastdetr_mmdet.parts", run_name="__main__")
    assert f"no part of this package is named '{given}'; did you mean {nearest}?" in (
        capsys.readouterr().err
    )


def test_file_is_written(tmp_path, capsys):
    assert main(["TorchDefault", "-o", str(tmp_path / "part.txt")]) == 0
    assert capsys.readouterr().out == ""
    assert (tmp_path / "part.txt").read_text().startswith("TorchDefault\n")
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["TorchDefault", "--markdown"])


def test_links_lead_somewhere():
    text = PAGE.read_text()
    files, anchors = re.findall(r"\]\((?!http)([^)#]+)\)", text), re.findall(r"\]\(#(.+?)\)", text)
    assert [file for file in files if not (PAGE.parent / file).exists()] == []
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in text.splitlines()}
    assert anchors
    assert [anchor for anchor in anchors if anchor not in headings] == []
