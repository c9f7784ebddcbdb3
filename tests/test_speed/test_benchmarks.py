"""``make bench`` compares equal models."""

import copy
import gc
import json
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from benchmarks import compare, each_part, growth, launches, parts, table, work
from benchmarks.batches import make_batch
from benchmarks.cases import CASES, Side, build_pair
from benchmarks.clocks import Timing, alternate

KEYS = {"model", "what", "device", "dtype", "batch"}
FIGURES = {"ours_ms", "theirs_ms", "ratio_median", "ratio_min", "ratio_max"}
SMALL = ["--models", "conditional-detr", "--image-size", "64", "96", "--threads", "1"]


@pytest.fixture(scope="module")
def pair():
    return build_pair("conditional-detr")


ROWS = {
    f"{'recipe' if recipe else 'small'}: {name}": (recipe, changes)
    for recipe, rows in ((True, each_part.CHANGES), (False, each_part.PARTS))
    for name, changes in rows.items()
}


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS)
def test_each_part_builds_every_row(row):
    init_default_scope("mmdet")
    recipe, changes = ROWS[row]
    args = SimpleNamespace(
        recipe=each_part.RECIPE if recipe else None, data_root="data", classes=["a", "b"],
        image_scale=(64, 64), epochs=2, batch_size=4,
    )  # fmt: skip
    config = each_part.run_config(args, changes, seed=0, work_dir="work")
    assert MODELS.build(config.model).bbox_head.num_classes == 2
    # mmengine refuses to switch off a hook that is not one of its own
    assert [name for name, hook in config.default_hooks.items() if hook is None] == ["checkpoint"]


def test_each_part_trains_on_the_configs_own_dataset():
    demo = each_part.ROOT / "configs/demo/fast-detr-dense_r18_shapes.py"
    args = SimpleNamespace(recipe=demo, data_root=None, classes=None, epochs=2, batch_size=4)
    config, own = each_part.run_config(args, {}, seed=0, work_dir="work"), Config.fromfile(demo)
    assert config.train_dataloader.dataset == own.train_dataloader.dataset
    assert config.val_dataloader.dataset == own.val_dataloader.dataset
    assert config.val_evaluator == own.val_evaluator
    assert config.train_dataloader.batch_size == 4 != own.train_dataloader.batch_size


def test_each_part_selects_rows_by_name_or_part_of_it():
    focal = [row for row in each_part.CHANGES if "focal loss" in row]
    assert list(each_part.select(each_part.CHANGES, ["focal loss"])) == ["focal loss"] != focal
    assert list(each_part.select(each_part.CHANGES, ["cal loss"])) == focal


@pytest.mark.parametrize(
    "given, message",
    [
        (["absent row", "--recipe"], "no row has absent row in its name; the rows are\n  the"),
        (["--recipe", "focal loss"], "no config focal loss; names of rows come before"),
        (["--data-root", "x"], "give --data-root and --classes together"),
        (["--data-root", "x", "--classes", "a"], "no file x/train.json; name your dataset"),
        (["--recipe"], "no file data/my_dataset/train.json; name your dataset"),
    ],
)
def test_each_part_refuses_unknown_rows_configs_and_datasets(given, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["each_part", *given])
    with pytest.raises(SystemExit):
        each_part.main()
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_rows_and_table(pair, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(compare, "build_pair", lambda name: pair)
    monkeypatch.setattr(compare, "alternate", partial(alternate, least_seconds=0.0))
    path = tmp_path / "rows.json"
    what = ["inference", "criterion"]
    compare.main([*SMALL, "--rounds", "1", "--what", *what, "--json", str(path)])
    rows = json.loads(path.read_text())
    assert [row["what"] for row in rows] == ["inference", "criterion", "criterion"]
    for row in rows:
        assert KEYS | FIGURES <= row.keys()
        assert row["ours_ms"] > 0 and row["theirs_ms"] > 0
        assert row["ratio_min"] <= row["ratio_median"] <= row["ratio_max"]
    assert [row["objects"] for row in rows[1:3]] == [7, 50]
    assert capsys.readouterr().out.count("\n| conditional-detr | ") == 3


def test_criterion_computes_all_layers_together(pair):
    """mmdet's loops over the six layers."""
    batch = make_batch(1, (64, 96), 7)
    calls = [work.criterion(side, batch, *work.predictions(pair[0], batch)) for side in pair]
    ours, theirs = (launches.count(call, "cpu")["operators"] for call in calls)
    assert 0 < ours < theirs / 2


@pytest.mark.slow
def test_training_and_memory(tmp_path):
    path = tmp_path / "rows.json"
    what = ["launches", "train", "memory"]
    compare.main([*SMALL, "--rounds", "1", "--what", *what, "--json", str(path)])
    counts, train, memory = json.loads(path.read_text())
    assert 0 < counts["ours"]["operators"] < counts["theirs"]["operators"]
    assert train["what"] == "train" and FIGURES <= train.keys()
    assert memory["what"] == "memory"
    # weights, gradients and two moments of 43 million parameters, and libraries' buffers
    assert 600 < memory["ours_mib"] < 2000 and 600 < memory["theirs_mib"] < 2000


def test_unequal_models_are_not_timed(pair):
    batch = make_batch(1, (64, 96))
    compare.check_equal(*pair, batch)
    other = copy.deepcopy(pair[0])
    with torch.no_grad():
        other.model.bbox_head.cls_branches[0].bias.add_(0.01)
    with pytest.raises(AssertionError, match="not close"):
        compare.check_equal(other, pair[1], batch)


def test_every_case_names_configs_that_exist():
    for name, case in CASES.items():
        assert (compare.Path(__file__).parents[2] / "configs" / case.config).is_file(), name
    assert compare.beside("sam-detr") == "conditional-detr"


def test_rounds_alternate():
    calls = []

    a, b = partial(calls.append, "a"), partial(calls.append, "b")
    timing = alternate(a, b, rounds=3, least_seconds=0.0)
    assert "".join(calls).endswith("abbaab")  # after warm-up calls
    assert len(timing.ratios) == 3


def test_ratio_is_of_neighbours():
    row = Timing(ours=(1.0, 2.0, 9.0), theirs=(2.0, 8.0, 9.0)).row()
    assert (row["ratio_min"], row["ratio_median"], row["ratio_max"]) == (0.25, 0.5, 1.0)
    assert (row["ours_ms"], row["theirs_ms"]) == (2000.0, 8000.0)


def test_counts_launches_and_waits_of_a_cuda_step():
    """With events of torch's profiler on a CUDA device."""

    def event(name, parent=None):
        return SimpleNamespace(name=name, cpu_parent=parent)

    linear = event("aten::linear")
    events = [linear, event("aten::addmm", linear), event("cudaLaunchKernel", linear)]
    names = ("aten::relu", "cudaLaunchKernel", "cudaMemcpyAsync", "cudaStreamSynchronize")
    events += map(event, names)
    assert launches.tally(events) == {"operators": 2, "launches": 2, "waits": 1}


def test_table_of_memory():
    row = dict(model="m", what="memory", dtype="fp32", batch=2, beside="mmdet", ours_mib=500.0)
    row |= dict(theirs_mib=1000.0, ratio_median=0.5, ratio_min=0.4, ratio_max=0.6)
    assert "| m | memory | fp32 | 2 | 500 MiB | 1000 MiB (mmdet) | 0.50 (0.40 to 0.60) |" in (
        table.markdown([row], "title")
    )


def test_growth_counts_what_is_kept_and_lets_go_of_it(pair):
    def in_graphs():
        gc.collect()
        return sum(isinstance(x, torch.Tensor) and x.grad_fn is not None for x in gc.get_objects())

    side, before = Side(pair[0].model, pair[0].config), in_graphs()
    small, large = (growth.kept(side, make_batch(1, size)) for size in ((64, 64), (128, 128)))
    assert small < large < 4 * small
    assert in_graphs() == before


def test_parts_are_measured(capsys):
    """Relation and memory fusion add costs."""
    parts.main(["--queries", "60", "--image-size", "64", "96", "--rounds", "1"])
    _, _, *lines = capsys.readouterr().out.splitlines()
    flops, *_, kept = zip(
        *([float(x) for x in line.split("|")[2:-1]] for line in lines), strict=True
    )
    assert len(lines) == len(parts.ATTENTIONS) + len(parts.ENCODERS)
    assert flops[0] < flops[1] and flops[2] < flops[3] and kept[2] < kept[3]
    assert flops[4] > flops[5] > flops[6]


@pytest.mark.slow
def test_growth_draws(tmp_path):
    options = ["--models", "conditional-detr", "--grows", "side", "--steps", "2", "--rounds", "1"]
    growth.main([*options, "--threads", "1", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "growth.json").read_text())
    assert [row["value"] for row in rows] == [160, 320] and all(row["ms"] > 0 for row in rows)
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--rounds", "0"], "--rounds"),
        (["--device", "cud"], "--device cud"),
        (["--device", "cuda"], "CUDA"),
        (["--what", "criterion", "--models", "smca-detr", "sam-detr"], "none of these models"),
        (["--json", "/nowhere/rows.json"], "/nowhere/rows.json"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_measured(capsys, monkeypatch, options, named):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        compare.parse(options)
    assert named in capsys.readouterr().err
