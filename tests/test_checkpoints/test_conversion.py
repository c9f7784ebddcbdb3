"""Conversion of files: reading, writing, and loading by mmengine."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from support.runs import ROOT, make_runner
from support.tolerances import assert_same

from fastdetr_mmdet.checkpoints import Report, convert_checkpoint, convert_state_dict
from fastdetr_mmdet.checkpoints.classes import COCO_IDS, coco_meta
from fastdetr_mmdet.version import __version__

CONFIG = "configs/conditional_detr/conditional-detr_r50_8xb2-50e_coco.py"
# Ids of instances_val2017.json.
NUMBERS = [
    *(*range(1, 12), *range(13, 26), 27, 28, *range(31, 45), *range(46, 66), 67, 70),
    *(*range(72, 83), *range(84, 91)),
]


def weights_of(path: Path) -> dict:
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("form", ["official", "legacy", "ddp", "mmengine ddp"])
def test_forms_of_files(form, hollow, save, dst):
    official = hollow("conditional_r50")
    expected = convert_state_dict(official, "conditional_detr")
    if "ddp" in form:
        src = dst.with_name("official.pth")
        content = {f"module.{key}": value for key, value in official.items()}
        torch.save({"state_dict": content, "meta": {}} if "mmengine" in form else content, src)
    else:
        for name in ("total_ops", "total_params"):  # a profiler's, which the official code skips
            official |= {name: torch.zeros(1), f"transformer.{name}": torch.zeros(1)}
        # before torch 1.6, as the older official files are
        src = save(official, _use_new_zipfile_serialization=form != "legacy")
    report = convert_checkpoint(src, dst, "conditional_detr", classes=91)
    written = torch.load(dst, weights_only=True)
    assert list(written["state_dict"]) == list(expected)
    assert_same(written["state_dict"], expected)
    assert written["meta"] == dict(
        fastdetr_mmdet_version=__version__,
        converted_from="official.pth",
        method="conditional_detr",
        configs=list(report.configs),
        options={"model.num_queries": 16, "model.bbox_head.num_classes": 91},
    )
    assert any("--classes 80" in note for note in report.notes)
    assert [path.name for path in sorted(dst.parent.iterdir())] == ["official.pth", "ours.pth"]
    mask = os.umask(0)
    os.umask(mask)
    assert dst.stat().st_mode & 0o777 == 0o666 & ~mask


def test_halves_do_not_drag_the_whole_along(hollow, save, dst):
    official = hollow("deformable_base")
    official["query_embed.weight"] = torch.rand(3000, 512)
    convert_checkpoint(save(official), dst, "deformable_detr")
    embedding = 3000 * 512 * 4
    assert embedding < dst.stat().st_size < 1.5 * embedding
    written = weights_of(dst)
    halves = [written[f"transformer.queries.{name}.weight"] for name in ("pos", "content")]
    assert torch.equal(torch.cat(halves, dim=1), official["query_embed.weight"])


def test_report(hollow, save, dst):
    report = convert_checkpoint(save(hollow("smca_ss_type2")), dst, "smca_detr")
    configs = [f"configs/smca_detr/smca-detr_r50_8xb2-{epochs}e_coco.py" for epochs in (50, 108)]
    options = [
        "model.num_queries=16",
        "model.transformer.decoder.spatial_prior.scale_type=single",
    ]
    lines = str(report).splitlines()
    assert all(word in lines[0] for word in (str(dst), "smca_detr", "500", "92 -> 80"))
    assert [line.strip() for line in lines if line.startswith("    ")] == [
        *configs,
        *options,
        f"mim test fastdetr_mmdet {configs[0]} -C {dst} --cfg-options {' '.join(options)}",
    ]
    assert all(note in lines for note in report.notes)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("sam_dc5_e50", {}, dict(note="dc5")),
        ("sam_ms_e50", {}, dict(note="12 and 50 epochs")),
        ("deformable_two_stage", {}, dict(note="300")),
        ("conditional_r50", dict(dilation=True), dict(note="dilation=True", dc5=[True])),
        ("conditional_r50", dict(dilation=False), dict(note="dilation=False", dc5=[False])),
        # no config has it
        ("sam_ms_e50", dict(dilation=True), dict(note="dilation=True", dc5=[False, False])),
        # numbers equal to the configs' are not options; other values are ignored
        (
            "deformable_two_stage",
            dict(num_queries=900, nheads=8, smooth="8"),
            dict(options={"num_queries": 900}),
        ),
        # weights overrule the arguments
        (
            "conditional_r50",
            dict(num_queries=900, nheads=4, dilation="yes"),
            dict(
                options={
                    "num_queries": 16,
                    "transformer.encoder.num_heads": 4,
                    "transformer.decoder.num_heads": 4,
                }
            ),
        ),
        (
            "smca_ss_type3",
            dict(nheads=8, smooth=6),
            dict(options={"num_queries": 16, "transformer.decoder.spatial_prior.smooth": 6}),
        ),
    ],
)
def test_what_weights_do_not_tell(name, arguments, expected, hollow, save, dst):
    method = name.split("_")[0] + "_detr"
    report = convert_checkpoint(save(hollow(name), arguments), dst, method)
    if "note" in expected:
        assert any(expected["note"] in note for note in report.notes)
    if "dc5" in expected:
        assert ["-dc5_" in config for config in report.configs] == expected["dc5"]
    if "options" in expected:
        assert report.options == {f"model.{k}": v for k, v in expected["options"].items()}


def test_command_is_quoted_for_the_shell(tmp_path):
    report = Report("m", tmp_path / "a b.pth", ("c.py",), {}, 91, 80, 1, ())
    assert report.command == f"mim test fastdetr_mmdet c.py -C '{tmp_path / 'a b.pth'}'"


def test_fine_tuning_on_other_classes(hollow, save, dst):
    """All but the class branches is written, for `load_from`."""
    official = hollow("deformable_two_stage")
    report = convert_checkpoint(save(official), dst, "deformable_detr", drop_class_head=True)
    assert report.num_classes is None
    assert report.command == (
        f"mim train fastdetr_mmdet {report.configs[0]} --cfg-options load_from={dst}"
    )
    assert any("model.bbox_head.num_classes" in note for note in report.notes)
    assert "dataset_meta" not in torch.load(dst, weights_only=True)["meta"]
    expected = convert_state_dict(official, "deformable_detr")
    left_out = [key for key in expected if key.startswith("bbox_head.cls_branches.")]
    assert len(left_out) == 14
    assert weights_of(dst).keys() == expected.keys() - left_out


@pytest.fixture
def coco(tmp_path) -> Path:
    """A folder that looks like COCO's, with two images."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    (root / "val2017").mkdir()
    size = dict(height=64, width=96)
    images = [dict(id=number, file_name=f"{number}.jpg", **size) for number in (1, 2)]
    for image in images:
        pixels = np.full((64, 96, 3), 40 * image["id"], np.uint8)
        cv2.imwrite(str(root / "val2017" / image["file_name"]), pixels)
    box = dict(id=1, image_id=1, category_id=90, bbox=[8, 8, 40, 30], area=1200, iscrowd=0)
    named = zip(NUMBERS, CocoDataset.METAINFO["classes"], strict=True)
    categories = [dict(id=number, name=name) for number, name in named]
    content = dict(images=images, annotations=[box], categories=categories)
    (root / "annotations/instances_val2017.json").write_text(json.dumps(content))
    return root


def test_runner_tests_it(hollow, save, dst, coco, tmp_path, monkeypatch):
    """Config, dataset, check of classes and metric accept the file."""
    monkeypatch.setattr(Config, "pretty_text", "")  # takes seconds
    report = convert_checkpoint(save(hollow("conditional_r50")), dst, "conditional_detr")
    assert report.configs[0] == CONFIG
    pipeline = Config.fromfile(ROOT / CONFIG).test_pipeline
    pipeline[1].scale = (96, 64)
    options = {key.replace(".", "__"): value for key, value in report.options.items()}
    runner = make_runner(
        ROOT / CONFIG,
        tmp_path / "work",
        coco,
        load_from=str(dst),
        test_dataloader__num_workers=0,
        test_dataloader__persistent_workers=False,
        test_dataloader__dataset__pipeline=pipeline,
        **options,
    )
    meta = torch.load(dst, weights_only=True)["meta"]
    assert meta["dataset_meta"] == coco_meta()
    assert runner.test_loop.dataloader.dataset.cat_ids == NUMBERS == [*COCO_IDS]
    metrics = runner.test()
    assert 0 <= metrics["coco/bbox_mAP"] <= 1
    written = weights_of(dst)
    loaded = runner.model.state_dict().items()
    assert_same({k: v for k, v in loaded if not k.endswith("num_batches_tracked")}, written)
