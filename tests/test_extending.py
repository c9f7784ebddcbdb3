"""The code of docs/extending.md is saved, built, trained and run as on the page."""

import inspect
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from support.by_hand import attend_by_hand
from support.memories import in_double, make_memory, make_queries
from support.models import (
    EMBED_DIMS,
    NUM_HEADS,
    check_trains,
    make_batch,
    pick,
    randomise,
    tiny_config,
)
from support.runs import BIN
from support.tolerances import assert_near

from fastdetr_mmdet.models.parts import SLOTS, Field, Part
from fastdetr_mmdet.structures import SalientPoints

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
TEXT = PAGE.read_text()
NAME = "DistanceAttention"

QUERIES = ("LearnedQueries", "LearnedBoxQueries", "TwoStageQueries")
ALIGNERS = (None, "SAMSemanticAligner")
PRIORS = (None, "GaussianPrior", "SalientGaussianPrior")


def blocks():
    """The code blocks with the last file name before each."""
    for before, code in zip(TEXT.split("```python\n"), TEXT.split("```python\n")[1:], strict=False):
        yield re.findall(r"`(\w+\.py)`", before)[-1], code.split("```")[0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Root of a clone with the page's files."""
    folder = tmp_path_factory.mktemp("clone")
    for file, code in blocks():
        (folder / file).write_text(code)
    (folder / "configs").symlink_to(ROOT / "configs")
    return folder


@pytest.fixture(scope="module", autouse=True)
def part(root):
    """The new part, registered by the config, from PYTHONPATH."""
    sys.path.insert(0, str(root))
    Config.fromfile(root / "distance_r18_shapes.py")
    yield MODELS.get(NAME)
    sys.path.remove(str(root))
    MODELS._module_dict.pop(NAME)
    del sys.modules["distance_attention"]


@pytest.fixture
def config(root):
    """The page's config, reduced for tests."""
    config = Config.fromfile(root / "distance_r18_shapes.py")
    small = dict(
        num_queries=10,
        backbone=dict(base_channels=8, stem_channels=8),
        neck=dict(in_channels=[32, 64], out_channels=EMBED_DIMS),
        transformer=dict(embed_dims=EMBED_DIMS, decoder=dict(num_heads=4, feedforward_channels=48)),
    )
    config.merge_from_dict(dict(model=small))
    return config


def overrides(queries, aligner, prior):
    """Overrides of tiny_config: a decoder with the new part and others."""
    reference = dict(reference="mlp") if queries == "LearnedQueries" else {}
    layer = dict(num_heads=NUM_HEADS, feedforward_channels=48, dropout=0.0)
    return dict(
        transformer__queries=dict(_delete_=True, type=queries, **reference),
        transformer__decoder=dict(
            _delete_=True,
            type="DetrDecoder",
            num_layers=2,
            **layer,
            cross_attn=dict(type=NAME),
            aligner=aligner and dict(type=aligner),
            spatial_prior=prior and dict(type=prior),
        ),
    )


def test_two_files_and_five_lines():
    assert [file for file, _ in blocks()] == ["distance_attention.py", "distance_r18_shapes.py"]
    (_, part), (_, config) = blocks()
    assert part.count("register_module") == 1
    assert len(config.splitlines()) <= 5
    assert max(map(len, (part + config).splitlines())) <= 100


@pytest.mark.smoke
def test_trains_predicts_and_images_do_not_see_each_other(config):
    model = randomise(MODELS.build(config.model)).train()
    assert type(model.transformer.decoder.layers[0].cross_attn).__name__ == NAME
    inputs, samples = make_batch(num_classes=6)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    check_trains(model, inputs, samples)
    slopes = [p for n, p in model.named_parameters() if n.endswith("slope")]
    assert len(slopes) == 2  # one per layer
    assert all(p.grad.abs().min() > 0 for p in slopes)
    optimizer.step()
    assert all((p != before[n]).any() for n, p in model.named_parameters() if n.endswith("slope"))

    model.eval()
    with torch.no_grad():
        together = model._forward(inputs, samples)
        for image in range(2):
            alone = model._forward(*pick(inputs, samples, image))
            for ours, expected in zip(together, alone, strict=True):
                assert_near(ours[:, image], expected[:, 0])
        found = model.predict(inputs, samples)
    assert [len(sample.pred_instances) for sample in found] == [60, 60]
    assert all(torch.isfinite(sample.pred_instances.bboxes).all() for sample in found)


def combinations():
    for queries, aligner, prior in itertools.product(QUERIES, ALIGNERS, PRIORS):
        boxes = aligner is not None and queries == "LearnedQueries"
        if not boxes and (aligner is not None or prior != "SalientGaussianPrior"):
            yield queries, aligner, prior  # other combinations are always refused


@pytest.mark.parametrize(("queries", "aligner", "prior"), list(combinations()))
def test_combines_as_it_is(queries, aligner, prior):
    model = randomise(MODELS.build(tiny_config(**overrides(queries, aligner, prior))))
    check_trains(model, *make_batch())
    assert len(model.eval().predict(*make_batch())) == 2


@pytest.mark.parametrize(
    "base",
    sorted((ROOT / "configs/_base_/models").glob("*-detr_r*.py")),
    ids=lambda path: path.stem,
)
def test_every_other_config_serves_as_well(base):
    transformer = Config.fromfile(base).model.transformer
    decoder = transformer.decoder
    if decoder.type == "ConditionalDecoder":
        with pytest.raises(ValueError, match=rf"ConditionalDecoder.*{NAME}.*DetrDecoder"):
            MODELS.build(dict(transformer, decoder=dict(decoder, cross_attn=dict(type=NAME))))
        decoder = dict(decoder, type="DetrDecoder")
    built = MODELS.build(dict(transformer, decoder=dict(decoder, cross_attn=dict(type=NAME))))
    assert {type(layer.cross_attn).__name__ for layer in built.decoder.layers} == {NAME}


def test_is_refused_without_reference_points():
    config = tiny_config(
        **overrides("LearnedQueries", None, None), transformer__queries__reference="none"
    )
    with pytest.raises(ValueError, match=f"{NAME} .*LearnedQueries .*transformer.queries"):
        MODELS.build(config)


@pytest.mark.parametrize("salient", [False, True])
def test_equals_the_formula(part, salient):
    """Softmax of q.k / sqrt(d) - slope * (|dx| + |dy|) + prior, without padding."""
    attention = randomise(part(EMBED_DIMS, num_heads=NUM_HEADS, dropout=0.0)).double()
    memory, queries = in_double(make_memory(strides=(8, 16))), in_double(make_queries())
    prior = -torch.rand(2, 1, queries.content.shape[1], memory.tokens.shape[1]).double()
    points = queries.reference.unsqueeze(2)
    if salient:
        shape = (*queries.content.shape[:2], NUM_HEADS)
        found = torch.randn(2, *shape, EMBED_DIMS).double()
        points = torch.rand(*shape, 2).double()
        queries = queries.with_salient(SalientPoints(*found, points))
    with torch.no_grad():
        projected = attention.in_proj(queries.located, memory.located, memory.tokens, NUM_HEADS)
        query, key, value = (x.unflatten(-1, (NUM_HEADS, -1)) for x in projected)
        # (bs, num_queries, num_heads or 1, num_tokens)
        away = (points.unsqueeze(3) - memory.grid()[:, None, None]).abs().sum(-1)
        bias = prior - attention.slope.view(-1, 1, 1) * away.transpose(1, 2)
        scale, padding = (EMBED_DIMS / NUM_HEADS) ** -0.5, memory.padding_mask
        expected = attend_by_hand(query, key, value, scale, padding, bias)
        assert_near(attention(queries, memory, prior), attention.out_proj(expected), torch.float64)
        weights = attention.explain(queries, memory, prior).weights
        read = torch.einsum("bhqk,bkhd->bqhd", weights.double(), value).flatten(2)
        assert_near(read, expected)  # the readable weights are float32


@pytest.mark.slow
def test_commands_run(root, shapes):
    """As on the page, except for the size of the dataset and one epoch."""
    _, block = re.findall(r"```bash\n(.*?)```", TEXT, re.DOTALL)
    render, train = block.strip().splitlines()
    assert render == "python -m fastdetr_mmdet shapes data/shapes"
    (root / "data").mkdir()
    (root / "data" / "shapes").symlink_to(shapes)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{BIN}:{os.environ['PATH']}"}
    result = subprocess.run(
        f"{train} --cfg-options max_epochs=1",
        shell=True,
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert (root / "work_dirs" / "distance_r18_shapes" / "epoch_1.pth").exists()


def rows(section):
    """Cells of the table rows below a head, as lists."""
    table = TEXT.split(section)[1].split("\n\n")[0]
    return [
        [cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.split("\n")[2:]
    ]


def test_page_describes_the_contract():
    for slot, base, call in rows("| key below `model` |"):
        assert SLOTS[slot].__name__ == base
        names = list(inspect.signature(SLOTS[slot].forward).parameters)[1:]
        assert call == f"({', '.join(names)})"
    assert [row[0] for row in rows("| key below `model` |")] == list(SLOTS)
    attributes = {name for name in vars(Part) if not name.startswith("_")} - {"role"}
    assert {row[0] for row in rows("| attribute |")} == attributes
    assert [row[0] for row in rows("| field |")] == [field.name for field in Field]
