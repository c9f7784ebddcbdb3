"""Training on own classes starts from another detector, class by class."""

import json

import pytest
import torch
from mmdet.datasets import CocoDataset, VOCDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import save_checkpoint
from support.models import randomise
from support.runs import CLASSES, make_runner
from support.small import small_detector

from fastdetr_mmdet.checkpoints import CheckpointError
from fastdetr_mmdet.checkpoints.classes import COCO_IDS, match, names_of_rows
from fastdetr_mmdet.checkpoints.convert import main as convert
from fastdetr_mmdet.checkpoints.fine_tuning import start_from

COCO = CocoDataset.METAINFO["classes"]
CONDITIONAL = "conditional_detr/conditional-detr_r50_8xb2-50e_coco"
DINO = "dino/dino-4scale_r50_8xb2-12e_coco"
TWO_STAGE = "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco"
ATSS = dict(
    type="ATSSHead",
    in_channels=32,
    feat_channels=32,
    stacked_convs=1,
    anchor_generator=dict(
        type="AnchorGenerator", ratios=[1.0, 2.0], octave_base_scale=8, scales_per_octave=1,
        strides=[8, 16, 32, 64]),
)  # fmt: skip
THEIRS, OWN = ["cat", "truck", "Traffic Light"], ["traffic_light", "zebra", "kitty", "lorry"]


def named(*classes):
    return dict(dataset_meta=dict(classes=classes))


@pytest.mark.parametrize(
    ("own", "names", "class_map", "rows"),
    [
        (OWN, THEIRS, {}, [2, None, None, 1]),
        (OWN, THEIRS, dict(kitty="CAT", lorry="traffic light"), [2, None, 0, 2]),
        (["person", "pedestrian"], ["human", "pedestrian"], {}, [0, 1]),  # its own name first
        (["a"], [None, "A"], {}, [1]),
        (["a", "b"], [None, None], {}, [None, None]),
        (["mobile phone", "couch"], COCO, {}, [67, 57]),
    ],
)
def test_rows_by_name(own, names, class_map, rows):
    assert match(own, names, class_map) == rows


def test_every_class_of_voc_is_one_of_coco():
    rows = match(VOCDataset.METAINFO["classes"], COCO, {})
    assert None not in rows and len({*rows}) == 20


@pytest.mark.parametrize(
    ("class_map", "named_in"),
    [(dict(dog="cat"), ["'dog'", "zebra"]), (dict(zebra="horse"), ["'horse'", "Traffic Light"])],
)
def test_a_map_of_classes_that_are_not_there(class_map, named_in):
    with pytest.raises(ValueError, match=r".*".join(["class_map", *named_in])):
        match(OWN, THEIRS, class_map)


@pytest.mark.parametrize(
    ("meta", "count", "expected"),
    [
        (named("a", "b"), 2, ["a", "b"]),
        (dict(dataset_meta=[dict(CLASSES=("a", "b")), dict()]), 2, ["a", "b"]),
        (dict(CLASSES=("a", "b")), 2, ["a", "b"]),  # mmdet 2
        (named("a", "b"), 3, [None] * 3),
        (named("ab"), 2, [None] * 2),
        (None, 80, [*COCO]),
        ({}, 92, [COCO[COCO_IDS.index(n)] if n in COCO_IDS else None for n in range(92)]),
    ],
)
def test_names_of_the_checkpoint(meta, count, expected):
    assert [*names_of_rows(meta, count)] == expected


def test_all_class_rows_of_a_dino():
    """Rows of layers, proposals, denoising and a dense head with two anchors are selected."""
    source = small_detector(DINO, bbox_head__num_classes=3, aux_heads=[ATSS])
    model = small_detector(DINO, 1, bbox_head__num_classes=4, aux_heads=[ATSS])
    content = dict(state_dict=source.state_dict(), meta=named(*THEIRS))
    said = start_from(model, content, OWN, dict(kitty="cat"), "file.pth")
    assert len(said) == 1 and "3 start from" in said[0] and "mean row (zebra)" in said[0]
    given, loaded, others = source.state_dict(), model.state_dict(), 0
    for key, value in loaded.items():
        if value.shape == given[key].shape:
            others += 1
            assert torch.equal(value, given[key]), key
            continue
        rows = given[key].unflatten(0, (-1, 3))
        expected = torch.stack([rows[:, 2], rows.mean(1), rows[:, 0], rows[:, 1]], dim=1)
        assert torch.equal(value, expected.flatten(0, 1)), key
    assert len(loaded) - others == 2 * 3 + 1 + 2  # branches, label embedding, atss_cls
    assert start_from(model, content, OWN, {}, "file.pth") == []


def test_ids_of_coco_and_proposals_without_classes():
    """The mean ignores gaps in the ids; the first logit of proposals means "object"."""
    source = small_detector(TWO_STAGE, bbox_head__num_classes=91).state_dict()
    model = small_detector(TWO_STAGE, 1, bbox_head__num_classes=2)
    (said,) = start_from(model, dict(state_dict=source), ["tooth-brush", "relic"], {}, "file.pth")
    assert "tooth-brush <- toothbrush" in said
    loaded = model.state_dict()
    for layer in range(2):
        key = f"bbox_head.cls_branches.{layer}.weight"
        mean = source[key][list(COCO_IDS)].mean(0)
        assert torch.equal(loaded[key], torch.stack([source[key][90], mean]))
    assert torch.equal(
        loaded["bbox_head.cls_branches.2.bias"], source["bbox_head.cls_branches.2.bias"][:2]
    )


@pytest.mark.parametrize(
    ("meta", "own", "kept"),
    [({}, "abc", True), (named(*"abc"), "abc", True), (named(*"bca"), "abc", False)],
)
def test_as_many_classes(meta, own, kept):
    """Rows stay if names are unknown or equal, and move otherwise."""
    source = small_detector(TWO_STAGE, bbox_head__num_classes=3).state_dict()
    model = small_detector(TWO_STAGE, 1, bbox_head__num_classes=3)
    said = start_from(model, dict(state_dict=source, meta=meta), own, {}, "file.pth")
    bias = source["bbox_head.cls_branches.0.bias"]
    expected = bias if kept else bias[[2, 0, 1]]
    assert torch.equal(model.state_dict()["bbox_head.cls_branches.0.bias"], expected)
    assert bool(said) != kept


@pytest.mark.parametrize(("before", "after"), [(8, 5), (5, 8)])
def test_another_number_of_queries_and_what_does_not_fit(before, after):
    source = small_detector(DINO, num_queries=before).state_dict()
    model = small_detector(DINO, 1, num_queries=after)
    key = "transformer.queries.queries.query_embedding.weight"
    initial = model.state_dict()[key].clone()
    del source["neck.convs.0.conv.weight"]
    source |= {"backbone.conv1.weight": torch.zeros(7), "relic.a.b": torch.zeros(1)}
    said = start_from(model, dict(state_dict=source, meta=named(*"abcde")), "abcde", {}, "x")
    expected = torch.cat([source[key][:5], initial[5:]])
    assert torch.equal(model.state_dict()[key], expected)
    words = [f"{key} {before} -> {after}", "neck.convs (1)", "backbone.conv1 (1)", "relic.a (1)"]
    assert [word in line for word, line in zip(words, said, strict=True)] == [True] * 4


def test_another_size_of_learned_positions():
    """Interpolation keeps rows and columns; one line in the log names all learned tables."""
    learned = dict(_delete_=True, type="LearnedPositionalEncoding", num_feats=16)
    row, col = "positional_encoding.row_embed.weight", "positional_encoding.col_embed.weight"
    queries = "transformer.queries.pos.weight"
    models = [
        small_detector(CONDITIONAL, num_queries=n, positional_encoding=dict(
            learned, row_num_embed=n * n, col_num_embed=9))
        for n in (3, 4)
    ]  # fmt: skip
    source = models[0].state_dict()
    source[row] = torch.arange(9.0)[:, None].expand(9, 16)
    (said,) = start_from(models[1], dict(state_dict=source, meta=named(*"abcde")), "abcde", {}, "x")
    assert f"{row} 9 -> 16" in said and f"{queries} 3 -> 4" in said
    loaded = models[1].state_dict()
    steps = loaded[row][1:-1].diff(dim=0)
    assert torch.allclose(steps, torch.full_like(steps, 9 / 16)) and not loaded[row][0].any()
    assert torch.equal(loaded[col], source[col])
    assert torch.equal(loaded[queries][:3], source[queries])


@pytest.mark.parametrize(
    ("weights", "named_in"),
    [
        ({"conv1.weight": torch.zeros(1)}, ["load_from=it.pth", "conv1.weight", "init_cfg"]),
        ({"class_embed.0.bias": torch.zeros(91)}, ["it.pth", "--method deformable_detr"]),
    ],
)
def test_weights_of_other_models(weights, named_in):
    with pytest.raises(CheckpointError, match=r".*".join(named_in)):
        start_from(small_detector(TWO_STAGE), dict(state_dict=weights), OWN, {}, "it.pth")


def test_load_from_in_a_config(tiny_config_file, shapes, tmp_path, capsys):
    """Training starts from rows by name; a test of the same file is refused."""
    given = dict(Config.fromfile(tiny_config_file).model)
    source = randomise(MODELS.build(given)).state_dict()
    save_checkpoint(dict(state_dict=source, meta=named(*CLASSES)), str(tmp_path / "a.pth"))
    options = dict(
        classes=("ring", "anvil", "disc"),
        load_from=str(tmp_path / "a.pth"),
        default_hooks__resume_check__class_map=dict(anvil="star"),
    )
    runner = make_runner(tiny_config_file, tmp_path, shapes, **options)
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.load_or_resume()
    bias = source["bbox_head.cls_branches.2.bias"]
    found = runner.model.state_dict()["bbox_head.cls_branches.2.bias"]
    assert torch.equal(found, bias[[5, 3, 0]])
    assert "anvil <- star" in "".join(capsys.readouterr())
    runner = make_runner(tiny_config_file, tmp_path, shapes, **options)
    with pytest.raises(CheckpointError, match="of another shape"):
        runner.test()


def test_the_converter_takes_own_classes(hollow, save, dst, tmp_path, capsys):
    weights = hollow("deformable_two_stage")
    for key, value in weights.items():
        if "class_embed" in key:
            weights[key] = torch.arange(91.0).view(-1, *[1] * (value.dim() - 1)).expand(value.shape)
    mine = tmp_path / "train.json"
    mine.write_text(json.dumps(dict(categories=[dict(name=name) for name in ("relic", "Kitty")])))
    words = ["--method", "deformable_detr", "--classes-of", str(mine), "--map", "Kitty=cat"]
    assert convert([str(save(weights)), str(dst), *words]) == 0
    said = capsys.readouterr().out
    assert "Kitty <- cat" in said and f"classes=relic,Kitty load_from={dst}" in said
    content = torch.load(dst, weights_only=True)
    bias = [content["state_dict"][f"bbox_head.cls_branches.{layer}.bias"] for layer in (0, 6)]
    assert bias[0].tolist() == pytest.approx([sum(COCO_IDS) / 80, 17])
    assert bias[1].tolist() == [0, 1]
    assert content["meta"]["dataset_meta"]["classes"] == ["relic", "Kitty"]
    mine.write_text("{}")
    assert convert([str(save(weights)), str(dst), *words]) == 2
    assert "train.json names no classes" in capsys.readouterr().err
