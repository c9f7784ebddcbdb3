"""A detector gets all of its weights, or an error."""

import os
import pickle

import pytest
import torch
from mmdet.apis import init_detector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, save_checkpoint
from support.models import randomise
from support.tolerances import assert_same

from fastdetr_mmdet.checkpoints import CheckpointError
from fastdetr_mmdet.checkpoints.files import read_content
from fastdetr_mmdet.checkpoints.loading import fill, load_detector, refusal
from fastdetr_mmdet.checkpoints.safe_loading import read_data
from fastdetr_mmdet.export.__main__ import main as export
from fastdetr_mmdet.utils.cli import UsageError
from fastdetr_mmdet.visualize import main as visualize


@pytest.fixture(scope="module")
def weights(tiny_config_file):
    return randomise(MODELS.build(Config.fromfile(tiny_config_file).model)).state_dict()


@pytest.fixture
def save(tmp_path):
    def write(state_dict, **more):
        path = tmp_path / "weights.pth"
        save_checkpoint(dict(dict(state_dict=state_dict, meta={}), **more), str(path))
        return path

    return write


def test_a_checkpoint_of_the_model(tiny_config_file, weights, save):
    """From DistributedDataParallel, without batch-norm counters, and with EMA weights."""
    kept = {f"module.{k}": v for k, v in weights.items() if "num_batches_tracked" not in k}
    path = save(kept, ema_state_dict={k: v * 0 for k, v in kept.items()}, optimizer={})
    model = load_detector(tiny_config_file, path)
    loaded = {k: v for k, v in model.state_dict().items() if "num_batches_tracked" not in k}
    assert_same({f"module.{k}": v for k, v in loaded.items()}, kept)
    assert not model.training


def test_it_is_read_once_and_as_mmdet_would(tiny_config_file, weights, save, monkeypatch):
    """With class names and colours, from old and new files and from files without them."""
    read = []
    load = CheckpointLoader.load_checkpoint
    monkeypatch.setattr(
        CheckpointLoader,
        "load_checkpoint",
        lambda *args, **kw: read.append(args) or load(*args, **kw),
    )
    new = dict(dataset_meta=dict(CLASSES=("a", "b"), palette=[(1, 2, 3)] * 2))
    for palette in (True, False):
        config = Config.fromfile(tiny_config_file)
        if not palette:  # the dataset has none
            config.test_dataloader.dataset.metainfo = dict(classes=("x", "y"), palette=None)
        for meta in (new, dict(dataset_meta=dict(classes=("c",))), dict(CLASSES=("d", "e"))):
            path = save(weights, meta=meta)
            read.clear()
            model = load_detector(config, path)
            assert len(read) == 1
            theirs = init_detector(config, str(path), device="cpu")
            assert model.dataset_meta == theirs.dataset_meta
            assert model.cfg is config and not model.training
    with pytest.warns(UserWarning, match="no class names; using COCO's"):
        assert load_detector(config, save(weights)).dataset_meta["classes"][0] == "person"


def test_another_size_of_images_than_in_training(tiny_config_file, weights, save):
    cfg = "test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(7, 5))]))"
    with pytest.warns(UserWarning, match="image_scale=7,5"):
        load_detector(tiny_config_file, save(weights, meta=dict(cfg=cfg)))


def test_configs_that_are_none(tiny_config_file, weights, save, tmp_path):
    path = save(weights)
    (tmp_path / "broken.py").write_text("model = (")
    for config, sentence in (
        ("no.py", r"^There is no config no.py\. Give the path of a file\.$"),
        (tmp_path / "broken.py", r"broken.py cannot be read as a config \("),
        (Config(dict(lr=1)), r"^The config has no model and no test_dataloader; give the config"),
    ):
        with pytest.raises(UsageError, match=sentence):
            load_detector(config, path)
    with pytest.raises(UsageError, match=r"no\.pth"):
        load_detector(tiny_config_file, "no.pth")


def test_missing_weights_are_refused(tiny_config_file, weights, save):
    total = sum("num_batches_tracked" not in key for key in weights)
    missing = "neck.fpn_convs.0.conv.weight"
    with pytest.raises(CheckpointError) as error:
        load_detector(tiny_config_file, save({k: v for k, v in weights.items() if k != missing}))
    said = f"tiny.py: of {total} weights 1 missing, for example {missing}."
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("left_out", "added", "unknown", "said"),
    [
        ("1.num_batches_tracked", {}, True, ""),
        ("", dict(more=1), False, ""),  # surplus weights are ignored, as in mmengine
        ("", dict(more=1), True, "1 unknown to the model, for example more"),
        ("0.bias", {"0.weight": 7}, False, "1 missing, 1 of another shape, for example 0.bias"),
        ("", {"0.weight": 7}, False, "1 of another shape, for example 0.weight, (7,) in the file "
                                     "and (3, 2) in the model"),
    ],
)  # fmt: skip
def test_what_does_not_fit(left_out, added, unknown, said):
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    given = {key: value for key, value in model.state_dict().items() if key != left_out}
    given |= {key: torch.zeros(size) for key, size in added.items()}
    found = fill(model, dict(state_dict=given), unknown)
    assert found == (said and f"of 6 weights {said}")


def test_what_is_no_checkpoint(tmp_path):
    """Broken files: test_bad_files.py."""
    path = tmp_path / "list.pth"
    torch.save([1, 2], path)
    for place, reason in (
        (path, "is not a checkpoint: it holds no dict of weights"),
        (tmp_path, "is a folder"),
        ("http://127.0.0.1:1/x", "cannot be read"),
    ):
        with pytest.raises(CheckpointError, match=f"{place} {reason}"):
            read_content(place)


def test_read_data_takes_the_arguments_of_the_function_that_it_replaces(save):
    """onedl-mmengine's: file, map_location, weights_only."""
    weights = read_data(save({"w": torch.ones(1)}), "meta", False)["state_dict"]
    assert weights["w"].is_meta


@pytest.mark.parametrize("used", [None, "other.py", "beside.py"])
def test_a_refusal_names_the_config_beside_the_checkpoint(used, tmp_path):
    """But not the one that was refused."""
    beside = tmp_path / "beside.py"
    beside.touch()
    said = str(refusal("1 missing", tmp_path / "a.pth", used and str(tmp_path / used)))
    assert (f"That is {beside}" in said) == (used != "beside.py")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no weights", "is not a file of torch.save"),
        (pickle.dumps(os.system), "was refused"),
        (None, "does not belong to"),
    ],
)
def test_commands_refuse(content, reason, tiny_config_file, save, tmp_path, capsys):
    image = tmp_path / "image.jpg"
    image.write_bytes(b"is looked at later")
    path = save({"of.another.model": torch.zeros(1)})
    if content:
        path.write_bytes(content)
    for main, last in ((visualize, [image, "--out", tmp_path / "out"]), (export, [tmp_path / "o"])):
        assert main([str(x) for x in (tiny_config_file, path, *last)]) == 1
        said = capsys.readouterr()
        assert said.err.startswith(f"error: {path} {reason}") and said.err.count("\n") == 1
        assert main([str(x) for x in ("no.py", path, *last)]) == 2
        assert "no.py" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
