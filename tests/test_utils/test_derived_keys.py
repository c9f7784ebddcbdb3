"""--cfg-options of a variable changes what a config derives from it."""

import re

import pytest
from mmengine.config import Config, DictAction
from support.runs import ROOT

from fastdetr_mmdet.utils import config as derived_keys

TEMPLATES = sorted(
    path
    for folder in ("_base_/datasets", "conditional_detr", "custom", "demo")
    for path in (ROOT / "configs" / folder).glob("*.py")
)
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*/*.py") if path.parent.name != "_base_")


def example(**derived) -> Config:
    return Config(
        dict(
            root="data/",
            file="train.json",
            classes=("a", "b"),
            head=dict(num_classes=2),
            loader=dict(root="data/", path="data/train.json", pipeline=[dict(type="A", scale=1)]),
            derived_keys=derived,
        )
    )


def merged(config: Config, **options) -> Config:
    config.merge_from_dict({key.replace("__", "."): value for key, value in options.items()})
    return config


@pytest.mark.parametrize("value", [3, "x", ("x", "y")])
def test_a_variable_itself_keeps_its_type(value):
    config = merged(example(**{"loader.names": "{classes}"}), classes=value)
    assert config.loader.names == value


def test_a_list_becomes_a_tuple():
    """--cfg-options makes lists of 320,240, and mmdet's Resize takes only tuples."""
    config = merged(example(**{"loader.scale": "{classes}"}), classes=[320, 240])
    assert config.loader.scale == (320, 240)


def test_number_of_entries():
    config = merged(example(**{"head.num_classes": "{#classes}"}), classes=["x", "y", "z"])
    assert config.head.num_classes == 3


def test_join():
    config = example(**{"loader.path": "{root}sub/{file}", "loader.note": "{#classes} classes"})
    merged(config, root="/new/", classes=["x"])
    assert config.loader.path == "/new/sub/train.json"
    assert config.loader.note == "1 classes"


@pytest.mark.parametrize("root", ["/new", "/new/"])
def test_paths_are_joined_with_one_slash(root):
    config = example(**{"loader.path": "{root}/{file}", "head.path": "{root}/a/b.json"})
    merged(config, root=root)
    assert config.loader.path == "/new/train.json"
    assert config.head.path == "/new/a/b.json"
    assert merged(config, file="/elsewhere/x.json").loader.path == "/elsewhere/x.json"


def test_only_what_changed_follows():
    config = example(**{"loader.path": "{root}{file}", "head.num_classes": "{#classes}"})
    config.head.num_classes = 7  # as a config that inherits ours may say
    assert merged(config, root="/new/").head.num_classes == 7
    assert merged(config, loader__pipeline=[]).loader.path == "/new/train.json"


@pytest.mark.parametrize(
    "option",
    [
        {"loader.path": "mine"},
        {"loader": {"path": "mine"}},
        {"loader": {"_delete_": True, "path": "mine"}},
    ],
)
def test_what_an_option_says_itself_wins(option):
    config = example(**{"loader.path": "{root}{file}", "loader.root": "{root}"})
    config.merge_from_dict({"root": "/new/", **option})
    assert config.loader.path == "mine"
    assert config.loader.root == "/new/"


def test_below_a_list_that_an_option_replaces_nothing_is_set():
    """An index of the old pipeline means another transform in the new one."""
    config = example(**{"loader.pipeline.0.scale": "{root}"})
    merged(config, root="/new/")
    assert config.loader.pipeline == [dict(type="A", scale="/new/")]
    merged(config, root="/newer/", loader__pipeline=[dict(type="B")])
    assert config.loader.pipeline == [dict(type="B")]


def test_a_share():
    config = merged(example(**{"head.num_classes": "[{classes_count*0.8}]"}), classes_count=12)
    assert config.head.num_classes == [10]


@pytest.mark.parametrize("template", ["{file}", "{root}/{file}", "[{file}]"])
def test_none_stays_none(template):
    """It became the text 'None' within a path."""
    path = merged(example(**{"loader.path": template}), file=None).loader.path
    assert path in (None, [None])


def test_unknown_variable():
    config = example(**{"loader.path": "{root}{fiel}"})
    with pytest.raises(KeyError, match=r"derived_keys\['loader.path'\] uses 'fiel', which the con"):
        merged(config, root="/new/")


def test_configs_without_derived_keys_are_left_alone():
    config = example()
    config.pop("derived_keys")
    merged(config, root="/new/")
    assert config.loader.root == "data/"


def test_install_twice_changes_nothing():
    before = Config.merge_from_dict
    derived_keys.install()
    assert Config.merge_from_dict is before


def test_a_dumped_config_still_derives(tmp_path):
    merged(example(**{"loader.path": "{root}{file}"}), root="/one/").dump(tmp_path / "config.py")
    config = Config.fromfile(tmp_path / "config.py")
    assert config.loader.path == "/one/train.json"
    assert merged(config, root="/two/").loader.path == "/two/train.json"


# --------------------------------------------------------------------------------------------------
# The shipped configs


def lookup(config: Config, key: str):
    value = config
    for part in key.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_shipped_templates_say_what_the_config_says(path):
    """Evaluating the templates with the config's own variables changes nothing."""
    config = Config.fromfile(path)
    names = re.findall(r"\{#?(\w+)", " ".join(config.derived_keys.values()))
    if "model" not in config:  # a part: the model and the schedule come from elsewhere
        names = [name for name in names if name in config]
    derived = derived_keys.update_derived_keys(config, {name: config[name] for name in names})
    if "model" in config:
        assert set(derived) == set(config.derived_keys)
    else:
        derived.pop("model.bbox_head.num_classes", None)
    for key, value in derived.items():
        assert lookup(config, key) == value, key


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_schedules_follow_max_epochs(path):
    """A milestone of 40 stayed for 20 epochs, and in the COCO configs so did their number."""
    config = Config.fromfile(path, import_custom_modules=False)
    before = [dict(scheduler) for scheduler in config.param_scheduler]
    former = config.max_epochs
    config.merge_from_dict(dict(max_epochs=20))
    assert config.train_cfg.max_epochs == 20
    for old, new in zip(before, config.param_scheduler, strict=True):
        assert new.get("by_epoch", True) is False or "end" not in new
        shares = [step / former for step in old.get("milestones", ())]
        assert [step / 20 for step in new.get("milestones", ())] == pytest.approx(shares, abs=0.04)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_no_old_value_remains_in_a_shipped_config(path):
    """Of data_root, the files and the classes, after options have set all of them."""
    names = ("train_ann", "train_images", "val_ann", "val_images")
    config = Config.fromfile(path)
    old = {name: config[name] for name in ("data_root", "classes", *names) if name in config}
    options = {name: f"NEW_{name}/" for name in old}
    if "classes" in options:
        options["classes"] = ["NEW_class"]
    if "image_scale" in config:
        options["image_scale"] = (12, 34)
    config.merge_from_dict(options)
    kinds = ("train_dataloader", "val_dataloader", "test_dataloader")
    used = [*kinds, "val_evaluator", "test_evaluator"]
    text = Config({name: config[name] for name in used}).pretty_text
    for name, value in old.items():
        for word in value if name == "classes" else [value]:
            assert f"'{word}" not in text, (name, word)
    if "image_scale" in options:
        sizes = [
            step["scale"]
            for kind in kinds
            for step in config[kind].dataset.pipeline
            if step["type"] == "Resize"
        ]
        assert sizes == [(12, 34)] * 3


def test_options_as_the_command_line_gives_them():
    """mmengine's own parser makes lists, of one entry too when written with brackets."""
    parse = DictAction._parse_iterable
    config = Config.fromfile(ROOT / "configs/custom/fast-detr_r18_custom.py")
    for text, names in (("['cat','dog']", ["cat", "dog"]), ("cat,dog", ["cat", "dog"])):
        config.merge_from_dict(dict(classes=parse(text)))
        assert list(config.train_dataloader.dataset.metainfo.classes) == names
        assert config.model.bbox_head.num_classes == 2
    config.merge_from_dict(dict(classes=parse("['cell']")))
    assert list(config.val_dataloader.dataset.metainfo.classes) == ["cell"]
    assert config.model.bbox_head.num_classes == 1
