"""Derived keys follow variables that an option or an inheriting config sets."""

import re

import pytest
from mmengine.config import Config, DictAction
from support.runs import ROOT

from fastdetr_mmdet.utils.cli import UsageError
from fastdetr_mmdet.utils.derived_keys import derive

TEMPLATES = sorted(
    path
    for folder in ("_base_", "_base_/datasets", "custom", "demo")
    for path in (ROOT / "configs" / folder).glob("*.py")
    if "derived_from = " in path.read_text()
)


def example(**derived) -> Config:
    variables = dict(root="data/", file="train.json", classes=("a", "b"), epochs=10)
    loader = dict(
        root="data/",
        path="data/train.json",
        names=("a", "b"),
        note="2 classes",
        pipeline=[dict(type="A", scale="data/")],
    )
    derived = dict(derived_from=dict(variables), derived_keys=derived)
    return Config(dict(**variables, **derived, head=dict(num_classes=2, steps=[8]), loader=loader))


def merged(config: Config, **options) -> Config:
    config.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
    return config


@pytest.mark.parametrize(
    ("key", "template", "option", "value"),
    [
        # one class needs no comma, and may be a number
        ("loader.names", "{classes}", dict(classes=3), ("3",)),
        ("loader.names", "{classes}", dict(classes="x y"), ("x y",)),
        ("loader.names", "{classes}", dict(classes=[1, "2"]), ("1", "2")),
        # several sizes stay a list, for mmcv's RandomChoiceResize
        ("loader.root", "{root}", dict(root=[(1, 2), (3, 4)]), [(1, 2), (3, 4)]),
        ("head.num_classes", "{#classes}", dict(classes=["x", "y", "z"]), 3),
        # --cfg-options makes a list of 320,240, but mmdet's Resize needs a tuple
        ("loader.names", "{classes}", dict(classes=["x", "y"]), ("x", "y")),
        ("loader.names", "{classes}", dict(classes=None), None),
        ("loader.path", "{root}/{file}", dict(file=None), None),
        ("loader.path", "{root}{file}", dict(root="/new/"), "/new/train.json"),
        ("loader.note", "{#classes} classes", dict(classes=["x"]), "1 classes"),
        # paths are joined with one slash, unless the second is absolute
        ("loader.path", "{root}/{file}", dict(root="/new"), "/new/train.json"),
        ("loader.path", "{root}/{file}", dict(root="/new/"), "/new/train.json"),
        ("loader.path", "{root}/{file}", dict(file="/elsewhere/x.json"), "/elsewhere/x.json"),
        ("loader.pipeline.0.scale", "{root}", dict(root="/new/"), "/new/"),
        ("head.steps", "[{epochs*0.8}]", dict(epochs=12), [10]),
    ],
)
def test_what_follows(key, template, option, value):
    """With an option, and with a config that inherits the template."""
    assert lookup(merged(example(**{key: template}), **option), key) == value
    inherits = example(**{key: template}).to_dict() | option
    assert lookup(Config(inherits), key) == value


def test_only_what_nobody_else_changed_follows():
    templates = {"loader.path": "{root}{file}", "head.num_classes": "{#classes}"}
    config = example(**templates)
    config.head.num_classes = 7  # as in an inheriting config
    assert merged(config, root="/new/", classes=["x"]).head.num_classes == 7
    assert config.loader.path == "/new/train.json"

    inherits = example(**templates, **{"loader.root": "{root}"}).to_dict()
    inherits["root"], inherits["loader"]["path"] = "/new/", "mine"
    config = Config(inherits)
    assert (config.loader.root, config.loader.path) == ("/new/", "mine")


@pytest.mark.parametrize(
    "option",
    [
        {"loader.path": "mine"},
        {"loader.path": "data/train.json"},  # unchanged
        {"loader": {"path": "mine"}},
        {"loader": {"_delete_": True, "path": "mine", "root": "data/"}},
    ],
)
def test_what_an_option_says_itself_wins(option):
    config = example(**{"loader.path": "{root}{file}", "head.root": "{root}"})
    config.head.root = "data/"
    config.merge_from_dict({"root": "/new/", **option})
    assert config.loader.path == next(iter(option.values())) or config.loader.path == "mine"
    assert config.head.root == "/new/"


def test_below_a_list_that_an_option_replaces_nothing_is_set():
    """An index means another transform in the new pipeline."""
    config = example(**{"loader.pipeline.0.scale": "{root}"})
    for pipeline in ([dict(type="B")], [dict(type="B", scale="data/")], []):
        merged(config, root="/new/", loader__pipeline=pipeline)
        assert config.loader.pipeline == pipeline


def test_variables_of_other_files_and_of_old_templates():
    """An old template has no derived_from; the variables before the merge are used."""
    config = example(**{"loader.path": "{root}{elsewhere}"})
    assert merged(config, root="/new/").loader.path == "data/train.json"
    config = example(**{"loader.path": "{root}{file}"})
    config.pop("derived_from")
    assert merged(config, root="/new/").loader.path == "/new/train.json"


def test_a_dumped_config_still_derives(tmp_path):
    merged(example(**{"loader.path": "{root}{file}"}), root="/one/").dump(tmp_path / "config.py")
    config = Config.fromfile(tmp_path / "config.py")
    assert config.loader.path == "/one/train.json"
    assert merged(config, root="/two/").loader.path == "/two/train.json"


@pytest.mark.parametrize(
    ("option", "right"),
    [
        ("epochs", "max_epochs"),
        ("lr", "optim_wrapper.optimizer.lr"),
        ("batch_size", "train_dataloader.batch_size"),
        ("klasses", "classes"),
        ("num_classes", "classes"),
        ("mobel.num_queries", "model.num_queries"),
        ("work_dirs", "work_dir"),
        ("qqqq", "see the config"),
    ],
)
def test_an_option_that_changes_nothing_is_refused(option, right):
    for path in ("dino/dino-4scale_r50_8xb2-12e_coco.py", "custom/fast-detr_r18_custom.py"):
        config = Config.fromfile(ROOT / "configs" / path)
        with pytest.raises(UsageError, match=f"'{option}'.*{right}"):
            config.merge_from_dict({option: 1})


def test_options_that_the_runner_reads_are_accepted():
    config = Config.fromfile(ROOT / "configs/dino/dino-4scale_r50_8xb2-12e_coco.py")
    config.merge_from_dict({"randomness.seed": 1, "work_dir": "x", "compile": False})
    Config(dict(a=1)).merge_from_dict(dict(epochs=1))  # not a config of this package


# --------------------------------------------------------------------------------------------------
# The shipped configs


def lookup(config: Config, key: str):
    value = config
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_shipped_templates_say_what_the_config_says(path):
    """Every key equals its template's value, so it follows the variables."""
    config = Config.fromfile(path)
    keys = set(config.derived_keys)
    names = set(re.findall(r"\{[#~]?(\w+)", " ".join(config.derived_keys.values())))
    if "model" not in config:  # a base without model and schedule
        names &= set(config)
        keys -= {key for key in keys if "max_epochs" in config.derived_keys[key]}
        keys.discard("model.bbox_head.num_classes")
    before = {name: config[name] for name in names}
    assert set(config.derived_from) <= names
    assert all(before[name] == value for name, value in config.derived_from.items())
    changed = Config({**config.to_dict(), "derived_from": {}, **dict.fromkeys(names)})
    assert set(derive(changed, before)) == keys


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_old_value_remains_in_a_shipped_config(path):
    """After options have set data_root, files, classes and sizes."""
    names = ("data_root", "train_ann", "train_images", "val_ann", "val_images")
    config = Config.fromfile(path)
    options = {name: f"NEW_{name}/" for name in names if name in config}
    options |= dict(classes=["NEW_class"]) if "classes" in config else {}
    options |= dict(image_scale=(12, 34)) if "image_scale" in config else {}
    old = {name: config[name] for name in options}
    config.merge_from_dict(options)
    loaders = [config[f"{kind}_dataloader"] for kind in ("train", "val", "test")]
    text = Config(dict(a=[*loaders, config.val_evaluator, config.test_evaluator])).pretty_text
    size = old.pop("image_scale", None)
    for name, value in old.items():
        for word in value if name == "classes" else [value]:
            assert f"'{word}" not in text, (name, word)
    if size is not None:
        steps = [step for loader in loaders for step in loader.dataset.pipeline]
        assert {step.scale for step in steps if step.type == "Resize"} == {(12, 34)}


def test_options_as_the_command_line_gives_them():
    """mmengine's parser makes lists, also of one entry in brackets."""
    parse = DictAction._parse_iterable
    config = Config.fromfile(ROOT / "configs/custom/fast-detr_r18_custom.py")
    for text, names in (("['cat','dog']", ["cat", "dog"]), ("cat,dog", ["cat", "dog"])):
        config.merge_from_dict(dict(classes=parse(text)))
        assert list(config.train_dataloader.dataset.metainfo.classes) == names
        assert config.model.bbox_head.num_classes == 2
    config.merge_from_dict(dict(classes=parse("['cell']")))
    assert list(config.val_dataloader.dataset.metainfo.classes) == ["cell"]
    assert config.model.bbox_head.num_classes == 1
