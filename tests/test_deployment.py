"""A detector of a shipped template gives equal results in every way to run it.

Batches of one and eight, DetInferencer, inference_detector, exported file.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from support.models import randomise
from support.onnx_recipe import run_example
from support.runs import CLASSES, ROOT, VAL_IMAGES, command, newest_metrics, val_images

from fastdetr_mmdet import FastDETR, demo
from fastdetr_mmdet.export import __main__ as export

TEMPLATES = sorted(
    path
    for folder in ("custom", "demo", "convergence")
    for path in (ROOT / "configs" / folder).glob("*.py")
)
# Reduced from a ResNet-50 and twelve layers, to save time.
SMALLER = {
    "conditional-detr_r50_custom": {
        "model.backbone.depth": 18,
        "model.backbone.init_cfg": None,
        "model.neck.in_channels": [512],
        "model.transformer.encoder.num_layers": 1,
        "model.transformer.decoder.num_layers": 2,
    }
}
Detections = tuple[np.ndarray, np.ndarray, np.ndarray]  # scores, boxes, labels of an image


def template(path: Path, shapes: Path, work: Path) -> tuple[str, str]:
    """Config and checkpoint of a template for the shapes, with random weights."""
    config = Config.fromfile(path)
    options = dict(
        data_root=f"{shapes}/",
        train_ann="annotations/train.json",
        train_images="train/",
        val_ann="annotations/val.json",
        val_images="val/",
        classes=CLASSES,
        image_scale=(128, 96),
    )
    config.merge_from_dict({**options, **SMALLER.get(path.stem, {})})
    config.dump(work / "config.py")
    detector = init_detector(config, None, device="cpu")
    meta = dict(dataset_meta=dict(classes=CLASSES))
    weights = dict(state_dict=randomise(detector).state_dict(), meta=meta)
    torch.save(weights, work / "weights.pth")
    return str(work / "config.py"), str(work / "weights.pth")


def by_batches(config: str, checkpoint: str, batch_size: int) -> list[Detections]:
    """Detections by the test loop."""
    detector = init_detector(config, checkpoint, device="cpu")
    init_default_scope("mmdet")
    dataset = DATASETS.build(detector.cfg.test_dataloader.dataset)
    found = []
    for start in range(0, len(dataset), batch_size):
        indices = range(start, min(start + batch_size, len(dataset)))
        with torch.no_grad():
            results = detector.test_step(pseudo_collate([dataset[index] for index in indices]))
        found += [result.pred_instances for result in results]
    return [(f.scores.numpy(), f.bboxes.numpy(), f.labels.numpy()) for f in found]


def by_inferencer(
    config: str, checkpoint: str, images: list[str], batch_size: int
) -> list[Detections]:
    infer = DetInferencer(config, checkpoint, device="cpu", show_progress=False)
    return [
        tuple(np.array(found[key]) for key in ("scores", "bboxes", "labels"))
        for found in infer(images, batch_size=batch_size)["predictions"]
    ]


def by_file(onnx_file: Path, images: list[str]) -> list[Detections]:
    """Detections by the page's code for exported files."""
    ran = [run_example(onnx_file, image) for image in images]
    return [(names["scores"], names["boxes"], names["labels"]) for names in ran]


def largest_difference(found: list[Detections], expected: list[Detections]) -> float:
    """Largest difference of scores, and of boxes per 100 pixels, between counterparts."""
    worst = 0.0
    for (scores, boxes, labels), (others, other_boxes, other_labels) in zip(
        found, expected, strict=True
    ):
        worst = max(worst, float(np.abs(scores - others).max()))
        for score, box, label in zip(scores[:20], boxes, labels, strict=False):
            same = (other_labels == label) & (np.abs(others - score) < 1e-3)
            distances = np.abs(other_boxes[same] - box).max(axis=1) / 100
            worst = max(worst, float(distances.min(initial=1.0)))
    return worst


# One detector per kind of decoder, and a template with separate_sizes.
QUICK = (
    "deformable-detr_r18_convergence",
    "fast-detr_r18_custom",
    "sam-detr-smca_r18_convergence",
)


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=() if p.stem in QUICK else pytest.mark.slow) for p in TEMPLATES],
    ids=lambda path: path.stem,
)
def test_batches_and_inferencers_agree(path, shapes, tmp_path):
    """With images of different sizes and orientations."""
    files = template(path, shapes, tmp_path)
    images = val_images(shapes)
    alone = by_batches(*files, batch_size=1)
    detector = init_detector(*files, device="cpu")
    single = [inference_detector(detector, image).pred_instances for image in images]
    others = {
        "batches": by_batches(*files, batch_size=VAL_IMAGES),
        "DetInferencer": by_inferencer(*files, images, batch_size=1),
        "DetInferencer, batches": by_inferencer(*files, images, batch_size=VAL_IMAGES),
        "inference_detector": [
            (f.scores.numpy(), f.bboxes.numpy(), f.labels.numpy()) for f in single
        ],
    }
    worst = {name: largest_difference(found, alone) for name, found in others.items()}
    assert max(worst.values()) < 2e-4, worst


@pytest.mark.slow  # a small detector: test_export/test_export_command.py
@pytest.mark.parametrize("dynamic", [[], ["--dynamic"]], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_exported_file_agrees(path, dynamic, shapes, tmp_path):
    """With the page's code; refused if results would differ."""
    pytest.importorskip("onnxruntime")
    config, checkpoint = template(path, shapes, tmp_path)
    out = tmp_path / "detector.onnx"
    status = export.main([config, checkpoint, str(out), *dynamic])
    detector = init_detector(config, None, device="cpu")
    if not isinstance(detector, FastDETR) or (detector.separate_sizes and not dynamic):
        assert status == 1 and not out.exists()
        return
    assert status == 0
    alone = by_batches(config, checkpoint, batch_size=1)
    assert largest_difference(by_file(out, val_images(shapes)), alone) < 2e-4


def average_precision(annotations: Path, found: list[Detections]) -> float:
    """COCO AP of detections in the order of the annotation file's images."""
    coco = COCO(str(annotations))
    categories = coco.getCatIds()
    rows = [
        dict(
            image_id=image_id,
            category_id=categories[label],
            bbox=[*map(float, [*box[:2], *(box[2:] - box[:2])])],
            score=float(score),
        )
        for image_id, detections in zip(coco.getImgIds(), found, strict=True)
        for score, box, label in zip(*detections, strict=True)
    ]
    evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


@pytest.mark.slow
def test_the_demos_ap_is_the_ap_that_is_deployed(tmp_path):
    """After a complete `make demo`, every way gives its AP within 0.005."""
    pytest.importorskip("onnxruntime")
    work, data = tmp_path / "work", tmp_path / "shapes"
    folders = ["--work-dir", work, "--data-root", data]
    command("python", "-m", "fastdetr_mmdet.demo", *folders)
    reported = json.loads((work / "summary.json").read_text())["bbox_mAP"]
    assert reported > 0.45
    config, checkpoint = work / Path(demo.CONFIG).name, demo.last_checkpoint(work)
    annotations = data / "annotations/val.json"
    images = [
        str(data / "val" / row["file_name"]) for row in COCO(str(annotations)).dataset["images"]
    ]
    found = {
        f"DetInferencer, batch size {batch_size}": by_inferencer(
            str(config), str(checkpoint), images, batch_size
        )
        for batch_size in (1, 8)
    }
    for name, options in (("fixed", []), ("dynamic", ["--dynamic"])):
        out = tmp_path / f"{name}.onnx"
        assert export.main([str(config), str(checkpoint), str(out), *options]) == 0
        found[f"ONNX, {name}"] = by_file(out, images)
    measured = {name: average_precision(annotations, f) for name, f in found.items()}
    command(
        *("mim", "test", "fastdetr_mmdet", config, "-C", checkpoint),
        *("--work-dir", tmp_path / "alone", "--cfg-options", "test_dataloader.batch_size=1"),
    )
    measured["mim test, batch size 1"] = newest_metrics(tmp_path / "alone")["coco/bbox_mAP"]
    print(reported, measured)
    assert all(abs(ap - reported) <= 0.005 for ap in measured.values()), (reported, measured)
