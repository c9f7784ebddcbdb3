"""Users' mistakes, end to end: a clear error, or it works."""

import cv2
import numpy as np
import pytest
import torch
from support.runs import (
    ITERS,
    change_annotations,
    log_rows,
    make_runner,
)


@pytest.fixture
def runner(tiny_config_file, shapes, tmp_path):
    """Makes a runner of one epoch with the given options."""

    def make(**options):
        options = dict(train_cfg__max_epochs=1, **options)
        return make_runner(tiny_config_file, tmp_path / "work", shapes, **options)

    return make


def check_trained(work_dir, iters=ITERS):
    rows = log_rows(work_dir)
    assert len(rows) == iters
    assert np.isfinite([[row["loss"], row["grad_norm"]] for row in rows]).all()
    return rows


# --------------------------------------------------------------------------------------------------
# Classes


@pytest.mark.smoke
def test_number_of_classes_disagrees(runner, no_steps):
    """Other cases are in the hook's own tests."""
    with pytest.raises(ValueError, match=r"num_classes=80\b.*train_dataloader.*\b6 "):
        runner(model__bbox_head__num_classes=80).train()


# --------------------------------------------------------------------------------------------------
# Objects


def test_images_without_objects(runner, shapes, tmp_path):
    """With background only, training runs and reports no AP.

    20 memory tokens give at most 20 of the 900 queries and 120 of the 5000 detections.
    """
    for split in ("train", "val"):
        change_annotations(
            shapes / f"annotations/{split}.json",
            tmp_path / f"{split}.json",
            lambda coco: coco["annotations"].clear(),
        )
    run = runner(
        train_ann=str(tmp_path / "train.json"),
        val_ann=str(tmp_path / "val.json"),
        val_evaluator__ann_file=str(tmp_path / "val.json"),
        model__num_queries=900,
        model__test_cfg__max_per_img=5000,
    )
    run.train()
    rows = check_trained(tmp_path / "work")
    assert all(row["loss_bbox"] == row["loss_iou"] == 0 < row["loss_cls"] for row in rows)
    assert run.message_hub.get_scalar("val/coco/bbox_mAP").current() == -1  # COCO's "none"


def test_odd_objects_and_images(runner, shapes, tmp_path):
    """Boxes without area, a crowd, more objects than queries, two pixels of height for the network.

    mmdet drops these boxes on loading; images without others become background.
    """
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    for path in (shapes / "train").glob("*.jpg"):
        image = cv2.imread(str(path))
        cv2.imwrite(str(folder / "train" / path.name), image[:8] if path.stem < "000004" else image)

    def change(coco):
        for image in coco["images"][:3]:
            image["height"] = 8
        for annotation in coco["annotations"][::2]:
            annotation["bbox"][3] = 0
            annotation["area"] = 0
        coco["annotations"][-1]["iscrowd"] = 1

    change_annotations(shapes / "annotations/train.json", folder / "train.json", change)
    options = dict(
        train_ann=str(folder / "train.json"),
        train_images=str(folder / "train"),
        model__num_queries=2,
    )
    runner(**options).train()
    check_trained(tmp_path / "work")


def test_boxes_of_zero_area_in_the_model(runner):
    """Augmentation can make such boxes after loading."""
    run = runner()
    data = next(iter(run.build_dataloader(run.cfg.train_dataloader)))
    data = run.model.data_preprocessor(data, True)
    found = 0
    for sample in data["data_samples"]:
        boxes = sample.gt_instances.bboxes
        boxes = boxes.tensor if hasattr(boxes, "tensor") else boxes
        boxes[:, 2:] = boxes[:, :2]
        found += len(boxes)
    assert found
    loss, _ = run.model.parse_losses(run.model(**data, mode="loss"))
    loss.backward()
    gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
    assert gradients and all(torch.isfinite(gradient).all() for gradient in gradients)
