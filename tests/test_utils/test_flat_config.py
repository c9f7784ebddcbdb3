"""Flattened configs keep all settings."""

from mmengine.config import Config

from fastdetr_mmdet.utils.config import flatten


def test_values_by_key():
    config = dict(a=dict(b=dict(c="d")), hooks=[dict(n=1), dict(n=2)], scale=(1, 2), x={}, y=[])
    flat = {"a.b.c": "'d'", "hooks.0.n": "1", "hooks.1.n": "2", "scale": "[1, 2]"}
    flat |= {"x": "{}", "y": "[]"}
    assert flatten(config) == flat
    assert flatten(Config(config)) == flat
    assert flatten(dict(a="b" * 1000)) == {"a": repr("b" * 1000)}


def test_lists_and_tuples_are_alike_at_any_depth():
    assert flatten(dict(a=((1, 2), (3,)))) == flatten(dict(a=[[1, 2], [3]]))
