"""Converted Hugging Face models give transformers' results."""

import io
import json
import os
import re

import pytest
import safetensors.torch
import torch
from support.dino import draw
from support.hf import CASES, compute, read, record
from support.tolerances import assert_near, assert_same

from fastdetr_mmdet.checkpoints import CheckpointError, convert_checkpoint, convert_state_dict


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert value.std() > 0.05, key  # the weights make a difference
        assert_near(found[key], value)


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(name):
    weights, expected = read(name)
    assert_equal(compute(name, convert_state_dict(weights, "hf")), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_equals_installed_transformers(name, tmp_path):
    pytest.importorskip("transformers", reason="not installed: pip install transformers")
    expected, shapes = record(name, tmp_path)
    weights = {key: draw(key, shape) for key, shape in shapes.items()}
    assert_equal(compute(name, convert_state_dict(weights, "hf")), expected)


@pytest.fixture
def hub(tmp_path, only):
    """Writes a small model's folder in the hub's form, and makes its config a shipped one."""

    def write(name, form="model.safetensors", **config):
        weights, _ = read(name)
        folder = tmp_path / "hub"
        folder.mkdir()
        only(name)
        kind = {"conditional": "conditional_detr", "detr": "detr"}.get(name, "deformable_detr")
        told = dict(model_type=kind, num_queries=8, encoder_attention_heads=4, **CASES[name][1])
        (folder / "config.json").write_text(json.dumps({**told, **config}))
        keys = [*weights]
        parts = {form: keys}
        if form.endswith(".index.json"):
            parts = {"1 of 2": keys[:50], "2 of 2": keys[50:]}
            places = {key: part for part in parts for key in parts[part]}
            (folder / form).write_text(json.dumps(dict(metadata={}, weight_map=places)))
        for part, names in parts.items():
            chosen = {key: weights[key] for key in names}
            if "safetensors" in form:
                (folder / part).write_bytes(safetensors.torch.save(chosen))
            else:
                torch.save(chosen, folder / part)
        return folder

    return write


FORMS = ["model.safetensors", "pytorch_model.bin"]
FORMS += [f"{name}.index.json" for name in FORMS]


@pytest.mark.parametrize("form", FORMS)
def test_forms(form, hub, dst):
    """A folder, and the file in it next to config.json, give the same."""
    names = [f"thing {n}" for n in range(5)]
    folder = hub("refine", form, id2label=dict(enumerate(names)))
    expected = convert_state_dict(read("refine")[0], "hf")
    for src in (folder, folder / form):
        report = convert_checkpoint(src, dst, "hf")
        assert (report.options, report.num_classes) == ({}, 5)
        written = torch.load(dst, weights_only=True)
        assert written["meta"]["dataset_meta"] == dict(classes=tuple(names))
        assert_same(written["state_dict"], expected)


def test_detr_is_a_start(hub, dst):
    report = convert_checkpoint(hub("detr"), dst, "hf")
    written = torch.load(dst, weights_only=True)["state_dict"]
    parts = {key.split(".")[1] if key.startswith("tr") else key.split(".")[0] for key in written}
    assert parts == {"backbone", "neck", "encoder"}
    assert report.num_classes is None and f"load_from={dst}" in report.command
    assert any("encoder" in note and "softmax" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "config", "options", "note"),
    [
        ("two_stage", dict(two_stage_num_proposals=7), {"model.num_queries": 7}, ""),
        ("conditional", dict(dilation=True), {}, "dilation=True"),
        ("conditional", dict(encoder_attention_heads=2), ..., ""),
    ],
)
def test_config_tells_what_weights_do_not(name, config, options, note, hub, dst):
    report = convert_checkpoint(hub(name, **config), dst, "hf")
    if options is ...:
        options = {f"model.transformer.{stack}.num_heads": 2 for stack in ("encoder", "decoder")}
    assert report.options == options
    assert any(note in given for given in report.notes) or not note


HEADER = dict(dtype="F32", shape=[2], data_offsets=[0, 8])


def packed(data=bytes(8), **header):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def saved(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "model.safetensors"),
        ({"model.safetensors": packed(a=HEADER)[:-1]}, "cut short"),
        ({"model.safetensors": (1 << 60).to_bytes(8, "little") + b"{"}, "header too large"),
        ({"model.safetensors": (9**5).to_bytes(8, "little") + b'{"a":' * 9**5}, "cut short"),
        ({"model.safetensors": packed(a={**HEADER, "shape": [1 << 62]})}, "cut short"),
        ({"model.safetensors": packed(a={**HEADER, "dtype": "F8"})}, "F8"),
        ({"model.safetensors": packed(a={**HEADER, "dtype": "F8_E4M3", "shape": [8]})}, "float8"),
        ({"model.safetensors": packed(bytes(9), a=HEADER)}, "not fully covered"),
        ({"pytorch_model.bin": b"<html>"}, "web page"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "../b"}}'}, "weight_map"),
        ({"model.safetensors.index.json": b'{"weight_map": {"a": "b"}}'}, "hub/b"),
        ({"model.safetensors.index.json": b"[" * 100000}, "index.json"),
        ({"model.safetensors": packed(a=HEADER), "config.json": b"no"}, "config.json"),
        *(
            ({"model.safetensors": packed(a=HEADER), "config.json": json.dumps(config).encode()}, t)
            for config, t in (
                ({}, "model_type=None"),
                (dict(model_type="dab_detr"), "'dab_detr'"),
                (dict(model_type="detr", activation_function="gelu"), "'gelu'"),
                (dict(model_type="detr", position_embedding_type="learned"), "'learned'"),
                (dict(model_type="conditional_detr", auxiliary_loss=True), "auxiliary_loss=True"),
            )
        ),
        # other ways to run code: test_bad_files.py
        ({"pytorch_model.bin": saved(os.mkdir)}, "mkdir"),
        ({"model.safetensors": saved(os.mkdir)}, "model.safetensors"),
    ],
)
def test_bad_files(files, named, tmp_path, dst):
    folder = tmp_path / "hub"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        convert_checkpoint(folder, dst, "hf")
    assert named in str(error.value) and str(folder) in str(error.value)
    assert not dst.exists()


def in_memory(key):
    """Names of transformers 5's state_dict(), which save_pretrained renames."""
    for old, new in (
        (r"backbone\.conv_encoder\.", "backbone."),
        (r"(self_attn|encoder_attn)\.out_proj", r"\1.o_proj"),
        (r"layers\.(\d)\.fc", r"layers.\1.mlp.fc"),
        (r"sa_([qk])(content|pos)_proj", r"self_attn.\1_\2_proj"),
        (r"sa_v_proj", "self_attn.v_proj"),
        (r"ca_([qk])(content|pos)_proj", r"encoder_attn.\1_\2_proj"),
        (r"ca_v_proj", "encoder_attn.v_proj"),
        (r"ca_qpos_sine_proj", "encoder_attn.q_pos_sine_proj"),
    ):
        key = re.sub(old, new, key)
    return key


def of_timm(key):
    """timm's ResNet has torchvision's names."""
    ours = next(iter(convert_state_dict({key: torch.zeros(1)}, "hf"))) if ".conv_enc" in key else ""
    return f"model.backbone.conv_encoder.model.{ours.removeprefix('backbone.')}" if ours else key


@pytest.mark.parametrize("other", [in_memory, of_timm])
@pytest.mark.parametrize("name", ["two_stage", "conditional", "detr"])
def test_other_names(name, other):
    weights, _ = read(name)
    renamed = {other(key): value for key, value in weights.items()}
    assert renamed.keys() != weights.keys()
    assert_same(*(convert_state_dict(w, "hf") for w in (renamed, weights)))
