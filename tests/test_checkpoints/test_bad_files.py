"""Files that cannot be converted are refused, and nothing is written."""

import os
import zipfile

import numpy as np
import pytest
import torch
from support.golden import CASES, GoldenCase

from fastdetr_mmdet.checkpoints import (
    METHODS,
    CheckpointError,
    convert_checkpoint,
    convert_state_dict,
    shipped_configs,
)
from fastdetr_mmdet.checkpoints.safe_loading import CheckpointRefusedError
from fastdetr_mmdet.checkpoints.state_dicts import translate
from fastdetr_mmdet.utils.cli import UserError


@pytest.fixture
def refused(tmp_path, dst):
    """Checks that a file is refused and nothing is written; returns the message."""

    def check(src, kind=CheckpointError, **options) -> str:
        dst.write_bytes(b"what was there before")
        before = sorted(tmp_path.iterdir())
        with pytest.raises(kind) as error:
            convert_checkpoint(src, dst, **dict(dict(method="conditional_detr"), **options))
        assert dst.read_bytes() == b"what was there before"
        assert sorted(tmp_path.iterdir()) == before
        message = str(error.value)
        assert kind is not CheckpointError or str(src) in message
        return message

    return check


# --------------------------------------------------------------------------------------------------
# Files that are not checkpoints


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "PNG"),
        (b"\xff\xd8\xff\xe0" + bytes(50), "JPEG"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"some text", "b'some tex'"),
        (b"\x80\x02}q\x00.", "damaged"),
        (b"PK\x03\x04" + bytes(50), "cut short"),
    ],
)
def test_other_files(content, what, refused, tmp_path):
    src = tmp_path / "official.pth"
    src.write_bytes(content)
    message = refused(src)
    assert what in message
    assert "weights_only" not in message  # torch's own advice is to load it unguarded


def test_other_archives(refused, tmp_path):
    src = tmp_path / "official.pth"
    with zipfile.ZipFile(src, "w") as archive:
        archive.writestr("text.txt", "text")
    assert "damaged" in refused(src)
    torch.jit.script(torch.nn.Linear(2, 2)).save(src)
    assert "torch.jit.load(path).state_dict()" in refused(src)


def test_missing_file_folder_and_places(hollow, save, refused, tmp_path):
    refused(tmp_path / "no.pth")
    refused(tmp_path)
    src = save(hollow("conditional_r50"))
    before = src.read_bytes()
    for place in (
        tmp_path / ".." / tmp_path.name / src.name,
        tmp_path,
        tmp_path / "nowhere" / "ours.pth",
    ):
        with pytest.raises(UserError) as error:
            convert_checkpoint(src, place, "conditional_detr")
        assert str(place) in str(error.value)
    assert src.read_bytes() == before


def test_disk_full(hollow, save, refused, dst, monkeypatch):
    def fail(descriptor):
        raise OSError(28, "No space left on device")

    src = save(hollow("conditional_r50"))
    monkeypatch.setattr(os, "fsync", fail)
    message = refused(src, (CheckpointError,))
    assert str(dst) in message and "No space left on device" in message


# --------------------------------------------------------------------------------------------------
# Files that would run code


class Payload:
    """Calls a function when unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("entry", "asked"),
    [
        (lambda trace: Payload(os.mkdir, str(trace)), f"{os.name}.mkdir"),
        # the array is refused before the code in it
        (lambda trace: np.array([Payload(os.mkdir, str(trace))], dtype=object), ""),
        # the stand-in for getattr returns no attributes
        (lambda trace: Payload(getattr, torch.nn.Parameter, "__init__"), "'__init__'"),
    ],
    ids=["mkdir", "array", "getattr"],
)
def test_code_is_not_run(entry, asked, hollow, save, refused, tmp_path):
    """Other formats and places: tests/test_faults/test_hostile_files.py."""
    trace = tmp_path / "trace"
    src = save(hollow("conditional_r50") | {"payload": entry(trace)})
    message = refused(src, CheckpointRefusedError)
    assert asked in message
    assert "Download it again" not in message
    assert not trace.exists(), "the payload was run"


# --------------------------------------------------------------------------------------------------
# Checkpoints of other models


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([torch.zeros(2)], "list"),
        ({}, "none"),
        ({"model": {}}, "model"),
        ({"model": {"a": torch.zeros(1), "b": "text"}, "epoch": 3}, "model, epoch"),
        ({"optimizer": {}, "epoch": 3}, "optimizer, epoch"),
    ],
)
def test_no_weights(content, named, refused, tmp_path):
    src = tmp_path / "official.pth"
    torch.save(content, src)
    assert named in refused(src)


def test_all_that_is_wrong_in_one_message(hollow, save, refused):
    official = hollow("conditional_r50")
    del official["transformer.decoder.layers.3.norm2.weight"]
    del official["input_proj.bias"]
    official["head.weight"] = torch.zeros(3)
    official["transformer.decoder.norm.extra"] = torch.zeros(3)
    official["bbox_embed.layers.0.weight"] = torch.zeros(256, 128)
    official["class_embed.bias"] = torch.full((91,), float("nan"))
    message = refused(save(official), classes=20)
    start, *problems = message.splitlines()
    assert "configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py" in start
    classes, bad, unknown, surplus, missing, shapes = problems
    assert all(number in classes for number in ("91", "20", "80"))
    for line, count, names in (
        (bad, 1, "class_embed.bias"),
        (unknown, 1, "head.weight"),
        (surplus, 1, "transformer.decoder.norm.extra"),
        (missing, 2, "neck.convs.0.conv.bias, transformer.decoder.layers.3.norm2.weight"),
        (shapes, 1, "bbox_embed.layers.0.weight (256, 128) instead of (256, 256)"),
    ):
        assert line.startswith(f"  - {count} ") and line.endswith(f": {names}")


def test_long_lists_are_counted(hollow, save, refused):
    kept = {k: v for k, v in hollow("conditional_r50").items() if "encoder" not in k}
    message = refused(save(kept))
    assert "72 missing" in message and message.endswith(" 64 more")


def test_numbers_that_no_model_can_have(hollow, save, refused):
    """Refuses heads that do not divide the width, and a name for a million layers."""
    official = hollow("conditional_r50")
    assert "'transformer.encoder.num_heads': 7" in refused(save(official, dict(nheads=7)))
    official["transformer.encoder.layers.1000000.norm1.weight"] = torch.zeros(256)
    assert "1 surplus: transformer.encoder.layers.1000000.norm1" in refused(save(official))


def test_configs_are_missing(hollow, save, refused, monkeypatch, tmp_path):
    """For example if not installed by pip."""
    place = tmp_path / "package" / "checkpoints" / "module.py"
    monkeypatch.setattr(shipped_configs, "__file__", str(place))
    shipped_configs.shipped_configs.cache_clear()
    try:
        message = refused(save(hollow("conditional_r50")))
    finally:
        shipped_configs.shipped_configs.cache_clear()
    assert str(tmp_path / "configs" / "conditional_detr") in message


def test_contradicting_copies(hollow, save, refused):
    official = hollow("deformable_refine")
    key = "transformer.decoder.bbox_embed.2.layers.1.bias"
    official[key] = official[key] + 1
    message = refused(save(official), method="deformable_detr")
    assert f"1 should repeat another tensor: {key}" in message
    original = key.removeprefix("transformer.decoder.")
    with pytest.raises(ValueError, match=rf"{key} \(differs from {original}\)"):
        convert_state_dict(official, "deformable_detr")


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("smca_ms_conv", "conditional_detr"),
        pytest.param("conditional_r50", "mmdet", marks=pytest.mark.slow),
    ],
)
def test_wrong_method(name, given, hollow, save, refused):
    assert f"--method {GoldenCase(name).method}." in refused(save(hollow(name)), method=given)


@pytest.mark.parametrize("name", CASES)
def test_keys_are_of_one_method_only(name, hollow):
    """This makes the hint unambiguous."""
    official = hollow(name)
    knows = [method for method in METHODS if not translate(official, method).unknown]
    assert knows == [GoldenCase(name).method]


def test_converted_already(hollow, save, refused, tmp_path):
    converted = tmp_path / "converted.pth"
    convert_checkpoint(save(hollow("conditional_r50")), converted, "conditional_detr")
    assert "needs no conversion" in refused(converted)


def test_contradicting_options(hollow, save, refused):
    src = save(hollow("conditional_r50"))
    message = refused(src, ValueError, classes=80, drop_class_head=True)
    assert "--classes 80" in message and "--drop-class-head" in message
    assert "'detr'" in refused(src, ValueError, method="detr")
