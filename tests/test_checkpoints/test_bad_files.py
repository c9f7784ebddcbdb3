"""What cannot be converted is refused in one message, without a trace."""

import os
import pickle
import zipfile
from functools import partial

import numpy as np
import pytest
import torch
from support.golden import CASES, GoldenCase

from fastdetr_mmdet.checkpoints import METHODS, CheckpointError, convert_checkpoint, variants
from fastdetr_mmdet.checkpoints.convert import main
from fastdetr_mmdet.checkpoints.state_dicts import translate
from fastdetr_mmdet.checkpoints.variants import shipped_configs

convert = partial(convert_checkpoint, method="conditional_detr")


@pytest.fixture
def refused(tmp_path, dst):
    """Checks that a file is refused and nothing is written; gives the message."""

    def check(src, **options) -> str:
        dst.write_bytes(b"what was there before")
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ValueError) as error:
            convert_checkpoint(src, dst, **dict(dict(method="conditional_detr"), **options))
        assert dst.read_bytes() == b"what was there before"
        assert sorted(tmp_path.iterdir()) == before
        return str(error.value)

    return check


# --------------------------------------------------------------------------------------------------
# Files that are no checkpoints


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is empty; download it again."),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "is not a PyTorch checkpoint: it is a PNG image."),
        (b"\xff\xd8\xff\xe0" + bytes(50), "is not a PyTorch checkpoint: it is a JPEG image."),
        (b"<!DOCTYPE html><html>", "it is a web page, which a download that needs a confirmation"),
        (b"version https://git-lfs.github.com/spec/v1\n", "it is a pointer to a file that Git LFS"),
        (b"some text", "is not a PyTorch checkpoint: it begins with b'some tex'."),
        (b"\x80\x02}q\x00.", "cannot be read: it is damaged, cut off or no PyTorch checkpoint"),
        (b"PK\x03\x04" + bytes(50), "is cut off: its end is missing; download it again."),
    ],
)
def test_other_files(content, sentence, refused, tmp_path):
    src = tmp_path / "official.pth"
    src.write_bytes(content)
    message = refused(src)
    assert message.startswith(str(src))
    assert sentence in message
    assert "weights_only" not in message  # torch's own advice is to load it unguarded


def test_other_archives(refused, tmp_path):
    src = tmp_path / "official.pth"
    with zipfile.ZipFile(src, "w") as archive:
        archive.writestr("text.txt", "text")
    assert "cannot be read: it is damaged, cut off or no PyTorch checkpoint" in refused(src)


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_torchscript(suffix, refused, tmp_path):
    src = tmp_path / f"official{suffix}"
    torch.jit.script(torch.nn.Linear(2, 2)).save(src)
    message = refused(src)
    assert message.startswith(f"{src} is a TorchScript program, not weights: ")
    assert "torch.jit.load(path).state_dict()" in message
    assert "Download it again" not in message


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.999])
def test_truncated(new_format, share, hollow, save, refused):
    src = save(hollow("conditional_r50"), _use_new_zipfile_serialization=new_format)
    src.write_bytes(src.read_bytes()[: int(share * src.stat().st_size)])
    assert "cut off" in refused(src)


def test_missing_file_folder_and_places(hollow, save, refused, tmp_path):
    assert refused(tmp_path / "no.pth") == f"{tmp_path / 'no.pth'} does not exist."
    assert "is a folder; name the checkpoint in it." in refused(tmp_path)
    src = save(hollow("conditional_r50"))
    before = src.read_bytes()
    with pytest.raises(CheckpointError, match="is the file to convert; name another one to write"):
        convert(src, tmp_path / ".." / tmp_path.name / src.name)
    assert src.read_bytes() == before
    with pytest.raises(CheckpointError, match="is a folder; name the file to write in it"):
        convert(src, tmp_path)
    with pytest.raises(CheckpointError, match=r"make the folder .*nowhere first"):
        convert(src, tmp_path / "nowhere" / "ours.pth")


def test_disk_full(hollow, save, refused, monkeypatch):
    """What was written so far is removed."""

    def save_half(content, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    src = save(hollow("conditional_r50"))
    monkeypatch.setattr(torch, "save", save_half)
    assert refused(src).endswith("could not be written: No space left on device.")


# --------------------------------------------------------------------------------------------------
# Files that would run code


class Payload:
    """Its unpickling calls a function, as any object's may."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize(
    ("function", "name"), [(os.mkdir, f"{os.name}.mkdir"), (eval, "eval"), (getattr, "getattr")]
)
def test_code_is_not_run(function, name, new_format, hollow, save, refused, tmp_path):
    trace = tmp_path / "trace"
    argument = f"__import__('os').mkdir({str(trace)!r})" if function is eval else str(trace)
    official = hollow("conditional_r50")
    official["payload"] = Payload(function, argument)
    src = save(official, _use_new_zipfile_serialization=new_format)
    message = refused(src)
    assert not trace.exists()
    if function is getattr:  # for which a harmless stand-in is registered
        assert "cannot be read" in message
    else:
        assert f"was refused: reading it would run {name}, which weights never need" in message


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_an_array_of_objects_is_not_run(new_format, hollow, save, refused, tmp_path):
    """Of which the array, not the code in it, is refused: it comes first."""
    trace = tmp_path / "trace"
    official = hollow("conditional_r50")
    official["payload"] = np.array([Payload(os.mkdir, str(trace))], dtype=object)
    message = refused(save(official, _use_new_zipfile_serialization=new_format))
    assert not trace.exists()
    assert "was refused: it is not the plain data that weights are (Can only build" in message
    assert "reading was stopped before that" in message
    assert "Download it again" not in message


def test_attributes_are_not_handed_out(hollow, save, refused):
    official = hollow("conditional_r50")
    official["payload"] = Payload(getattr, torch.nn.Parameter, "__init__")
    message = refused(save(official))
    assert "was refused: it is not the plain data that weights are (It asks for the attr" in message


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_plain_pickle_is_not_run(protocol, refused, tmp_path):
    src, trace = tmp_path / "official.pth", tmp_path / "trace"
    src.write_bytes(pickle.dumps({"model": Payload(os.mkdir, str(trace))}, protocol))
    message = refused(src)
    assert "was refused" in message
    assert not trace.exists()


# --------------------------------------------------------------------------------------------------
# Checkpoints of something else


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([torch.zeros(2)], "holds a list, not a checkpoint, which is a dict."),
        ({}, "(its entries: none)."),
        ({"model": {}}, "(its entries: model)."),
        ({"model": {"a": torch.zeros(1), "b": "text"}, "epoch": 3}, "(its entries: model, epoch)."),
        ({"optimizer": {}, "epoch": 3}, "holds no weights: neither its entry 'model' nor"),
    ],
)
def test_no_weights(content, sentence, refused, tmp_path):
    src = tmp_path / "official.pth"
    torch.save(content, src)
    assert sentence in refused(src)


def test_all_that_is_wrong_in_one_message(hollow, save, refused):
    official = hollow("conditional_r50")
    del official["transformer.decoder.layers.3.norm2.weight"]
    del official["input_proj.bias"]
    official["head.weight"] = torch.zeros(3)
    official["backbone.0.body.layer1.0.extra"] = torch.zeros(3)
    official["bbox_embed.layers.0.weight"] = torch.zeros(256, 128)
    src = save(official)
    message = refused(src, classes=20)
    start = (
        f"{src} does not hold the weights of an official conditional_detr model; nothing was "
        "written. Compared with configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py:"
    )
    assert message.splitlines() == [
        start,
        "  - its class branches have 91 logits, which cannot become 20; --classes may be 91 "
        "(COCO's category ids), 80 (mmdet's labels of COCO). For other classes give "
        "--drop-class-head instead, and train them.",
        "  - 1 unknown key: head.weight",
        "  - 1 surplus key: backbone.0.body.layer1.0.extra",
        "  - 2 missing keys, by our names: neck.convs.0.conv.bias, "
        "transformer.decoder.layers.3.norm2.weight",
        "  - 1 wrong shape: bbox_embed.layers.0.weight (256, 128) instead of (256, 256)",
    ]


def test_long_lists_are_counted(hollow, save, refused):
    kept = {k: v for k, v in hollow("conditional_r50").items() if "encoder" not in k}
    message = refused(save(kept))
    assert "72 missing keys, by our names: transformer.encoder.layers.0." in message
    assert message.endswith(" and 64 more")


def test_numbers_that_no_model_can_have(hollow, save, refused):
    """Neither heads that do not divide the width, nor a name that asks for a million layers."""
    official = hollow("conditional_r50")
    src = save(official, dict(nheads=7))
    message = refused(src)
    assert message.startswith(f"{src} was not converted: no config of conditional_detr can be ")
    assert "model.transformer.encoder.num_heads=7" in message
    official["transformer.encoder.layers.1000000.norm1.weight"] = torch.zeros(256)
    message = refused(save(official))
    assert "surplus key: transformer.encoder.layers.1000000.norm1.weight" in message


def test_configs_are_missing(hollow, save, refused, monkeypatch, tmp_path):
    """As in an installation by other means than pip."""
    monkeypatch.setattr(variants, "__file__", str(tmp_path / "package" / "checkpoints" / "v.py"))
    shipped_configs.cache_clear()
    try:
        message = refused(save(hollow("conditional_r50")))
    finally:
        shipped_configs.cache_clear()
    assert "was not converted: this installation of fastdetr_mmdet has no configs in" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_gone_bad(bad, hollow, save, refused):
    weights = dict(hollow("conditional_r50"))
    weights["class_embed.bias"] = torch.full((91,), bad)
    assert "NaN or infinite numbers in 1: class_embed.bias" in refused(save(weights))


def test_contradicting_copies(hollow, save, refused):
    official = hollow("deformable_refine")
    key = "transformer.decoder.bbox_embed.2.layers.1.bias"
    official[key] = official[key] + 1
    message = refused(save(official), method="deformable_detr")
    assert f"  - {key} should be the same tensor as bbox_embed.2.layers.1.bias" in message


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("conditional_r50", "smca_detr"),
        ("deformable_base", "sam_detr"),
        ("sam_ms_e50", "deformable_detr"),
        ("smca_ms_conv", "conditional_detr"),
        ("conditional_r50", "mmdet"),
    ],
)
def test_wrong_method(name, given, hollow, save, refused):
    right = GoldenCase(name).method
    message = refused(save(hollow(name)), method=given)
    assert f"Its keys are those of an official {right} model: try --method {right}." in message


@pytest.mark.parametrize("name", CASES)
def test_keys_are_of_one_method_only(name, hollow):
    """So that the hint is unambiguous."""
    official = hollow(name)
    knows = [method for method in METHODS if not translate(official, method)[0].unknown]
    assert knows == [GoldenCase(name).method]


def test_converted_already(hollow, save, refused, tmp_path):
    converted = tmp_path / "converted.pth"
    convert(save(hollow("conditional_r50")), converted)
    assert "Its keys are our own names: it needs no conversion." in refused(converted)


def test_contradicting_options(hollow, save, refused):
    src = save(hollow("conditional_r50"))
    assert "give one of the two" in refused(src, classes=80, drop_class_head=True)
    assert "Unknown method 'detr'; choose one of" in refused(src, method="detr")


def test_command_fails_with_the_message(tmp_path, dst, capsys):
    assert main([str(tmp_path / "no.pth"), str(dst), "--method", "sam_detr"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'no.pth'} does not exist.\n"
    assert not dst.exists()
