"""Wrong data is found before a run is started, and the sentence says what to give."""

import json

import pytest
from mmengine.config import Config

from fastdetr_mmdet.convergence import check_data

KEYS = {
    "train_dataloader.dataset.data_root": "{data_root}",
    "train_dataloader.dataset.metainfo.classes": "{classes}",
}


def config(root, classes=("cat",), wrapped=False, **more):
    """As one of ours that lists its derived keys; the validation's data are the training's."""
    dataset = dict(data_root=str(root), ann_file="train.json", metainfo=dict(classes=classes))
    dataset.update(more)
    if wrapped:
        dataset = dict(type="RepeatDataset", times=2, dataset=dataset)
    loader = dict(dataset=dataset)
    return Config(
        dict(
            train_dataloader=loader,
            val_dataloader=loader,
            train_ann="train.json",
            derived_keys=KEYS,
        )
    )


@pytest.fixture
def root(tmp_path):
    categories = [{"id": 1, "name": "nine"}, {"id": 2, "name": "ten"}]
    (tmp_path / "train.json").write_text(json.dumps({"categories": categories}))
    return tmp_path


def test_data_that_is_there(root):
    check_data(config(root, ("ten",)), "own.py")
    check_data(config("s3://bucket", ("cat",)), "own.py")
    check_data(config("nowhere", ("cat",), backend_args=dict(backend="petrel")), "own.py")
    check_data(Config(), "own.py")


@pytest.mark.parametrize("wrapped", [False, True])
def test_missing_file(root, wrapped):
    message = r"own\.py: there is no annotation file .*no.train\.json; .*--data-root.*train_ann="
    with pytest.raises(FileNotFoundError, match=message):
        check_data(config(root / "no", wrapped=wrapped), "own.py")


@pytest.mark.parametrize("wrapped", [False, True])
def test_other_classes(root, wrapped):
    message = r"trains cat, which .* categories are nine, ten"
    with pytest.raises(ValueError, match=message) as info:
        check_data(config(root, wrapped=wrapped), "own.py")
    assert "These classes are the config's defaults. To train all" in str(info.value)
    assert str(info.value).endswith("give --cfg-options classes=nine,ten")
    with pytest.raises(ValueError, match="To train all of the file's, give") as info:
        check_data(config(root), "own.py", {"classes": ["cat"]})
    assert "defaults" not in str(info.value)
    with pytest.raises(ValueError, match="given with a comma, --cfg-options classes=nine,"):
        check_data(config(root, "nine"), "own.py")


@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (["ten"], "classes=ten,"),
        (["a ten", "nine"], "rename the categories"),
        (["10", "9"], "rename the categories"),
    ],
)
def test_advice_is_what_the_option_understands(tmp_path, names, advice):
    """--cfg-options drops spaces and takes digits for numbers."""
    file = tmp_path / "train.json"
    file.write_text(json.dumps({"categories": [{"name": name} for name in names]}))
    with pytest.raises(ValueError, match="trains cat, which") as info:
        check_data(config(tmp_path), "own.py")
    assert advice in str(info.value)


def test_no_annotation_file(root):
    (root / "train.json").write_text("[]")
    with pytest.raises(ValueError, match="is not an annotation file of COCO's form"):
        check_data(config(root), "own.py")
