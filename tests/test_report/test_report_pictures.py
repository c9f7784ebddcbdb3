"""Pictures of a report, and its hint if no box reaches the minimum score."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fastdetr_mmdet.evaluation.error_types import Kind, judge
from fastdetr_mmdet.evaluation.evaluate import Evaluation
from fastdetr_mmdet.evaluation.results import ImageResult
from fastdetr_mmdet.report.pictures import Box, Drawing, contact_sheets, make_photo, read_image
from fastdetr_mmdet.report.runs import Run
from fastdetr_mmdet.report.samples import _surroundings, find_errors, make_samples, score_hint
from fastdetr_mmdet.utils.cli import UserError
from fastdetr_mmdet.utils.run_history import RunHistory


def make_run(*scores, box=(0, 0, 9, 9), path="none.jpg", name="a"):
    """An evaluated run with one image, one object, and boxes with these scores."""
    labels, boxes = np.zeros(len(scores), int), np.array([box] * len(scores), float).reshape(-1, 4)
    objects = np.array([[0.0, 0, 20, 20]]), np.zeros(1, int), np.zeros(1, bool)
    image = ImageResult(1, str(path), *objects, boxes, labels, np.array(scores, dtype=float))
    evaluation = Evaluation(Path("epoch_1.pth"), "val", ("cat",), [image], 1, {}, None, 1)
    return Run(name, Path(name), RunHistory(), evaluation=evaluation)


@pytest.mark.parametrize(
    ("scores", "highest", "advice"),
    [
        ([0.259, 0.1], "0.25", "0.2"),
        ([0.2999], "0.29", "0.2"),  # not 0.3, which is higher
        ([0.012], "0.012", "0.009"),
        ([3.2e-5], "3.2e-05", "2e-05"),
    ],
)
def test_score_to_give(scores, highest, advice):
    assert score_hint(make_run(0.3), 0.3) is None
    text, option = score_hint(make_run(*scores, name="b"), 0.3)
    assert text.startswith("No box of b ") and text.endswith(f" {highest}.")
    assert option == f"--min-score {advice}"
    assert score_hint(make_run(*scores), float(advice)) is None  # then there are boxes


def test_no_boxes():
    for run in (make_run(name="b"), make_run(0.0, name="b")):
        text, option = score_hint(run, 0.0)
        assert "b " in text and option == ""


@pytest.fixture
def picture(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 60, 3), 7, np.uint8))
    return tmp_path / "a.png"


def test_iou_below_a_threshold_does_not_read_as_if_it_reached_it(picture):
    """IoU 0.498 is badly placed, and 0.50 would be correct."""
    run = make_run(0.9, box=(6.7, 0, 26.7, 20), path=picture)
    (verdict,) = judge(run.evaluation.images[0])
    assert verdict.kind is Kind.BADLY_PLACED and f"{verdict.iou:.2f}" == "0.50"
    found = find_errors(run, 3, 0.3)
    ((drawing, caption),) = found.examples[Kind.BADLY_PLACED]
    assert caption == "cat 0.90, is cat, IoU 0.49" and "a.png" in drawing.label
    assert [box.look for box in drawing.boxes] == ["truth", "wrong"]
    assert found.total == found.objects == 1


def test_samples_are_the_same_images_for_all_runs(picture):
    right = make_run(0.9, 0.1, box=(0, 0, 20, 20), path=picture)
    none, other = make_run(path=picture), make_run(path="other.png")
    (sample,) = make_samples([right, none, other], 5, 0.3)
    assert [box.look for box in sample.truth.boxes] == ["truth"] and sample.file == "a.png"
    looks = [drawing and [box.look for box in drawing.boxes] for _, drawing, _ in sample.runs]
    assert looks == [["right"], ["missed"], None]
    assert [errors for *_, errors in sample.runs] == [0, 1, 0]
    (sample,) = make_samples([other], 5, 0.3)
    assert (sample.file, sample.truth) == ("other.png", None)


def test_photo_of_a_region():
    image = np.zeros((100, 200, 3), np.uint8)
    assert make_photo(image, (90.5, -10, 150, 40), longest=30).region == (90, 0, 150, 40)
    assert make_photo(image).region == (0, 0, 200, 100)
    outside = make_photo(image, (250, 250, 260, 260))  # still a picture
    assert outside.region == (199, 99, 200, 100) and outside.data.startswith("data:image/jpeg;")


def test_names_stay_within_the_picture():
    photo = make_photo(np.zeros((100, 200, 3), np.uint8))
    boxes = [Box(xyxy, "a name", "truth") for xyxy in ((0, 0, 9, 9), (190, 50, 200, 60))]
    drawing = Drawing(photo, boxes, "")
    for box in boxes:
        x, y = drawing.text_place(box)
        assert 0 <= x <= 200 - 0.6 * drawing.text_size * len(box.text)
        assert drawing.text_size <= y <= 100


def test_a_file_that_is_not_an_image(picture):
    broken = picture.with_name("a.jpg")
    broken.write_bytes(b"nothing")
    assert read_image(str(broken)) is None
    assert read_image(str(picture.with_name("b.jpg"))) is None
    assert read_image(str(picture)).shape == (40, 60, 3)


@pytest.mark.parametrize(
    "box", [(0, 0, 5, 5), (180, 80, 200, 100), (0, 0, 200, 100), (50, 20, 90, 40)]
)
def test_crops_hold_their_boxes(box):
    x1, y1, x2, y2 = _surroundings([Box(box, "", "")], (100, 200))
    assert 0 <= x1 <= box[0] and 0 <= y1 <= box[1] and box[2] <= x2 <= 200 and box[3] <= y2 <= 100


def test_other_detectors_have_no_attention_to_show():
    with pytest.raises(UserError, match="Linear"):
        contact_sheets(torch.nn.Linear(2, 2), [], 1)
