"""What the report says where no box reaches the score that counts."""

from pathlib import Path

import numpy as np
import pytest

from fastdetr_mmdet.evaluation.error_types import Kind, judge
from fastdetr_mmdet.evaluation.evaluate import Evaluation
from fastdetr_mmdet.evaluation.results import ImageResult
from fastdetr_mmdet.report.error_section import _crop, error_section
from fastdetr_mmdet.report.history import History
from fastdetr_mmdet.report.run import Run
from fastdetr_mmdet.report.samples import sample_section
from fastdetr_mmdet.report.score_hint import score_hints


def run(name, *scores):
    """An evaluated run with one image and as many boxes as scores, each on the one object."""
    box = np.array([[0.0, 0.0, 9.0, 9.0]])
    boxes, labels = np.repeat(box, len(scores), 0), np.zeros(len(scores), int)
    truth = box, np.zeros(1, int), np.zeros(1, bool)
    image = ImageResult(1, "none.jpg", *truth, boxes, labels, np.array(scores, dtype=float))
    evaluation = Evaluation(Path("epoch_1.pth"), "val", ("cat",), [image], 1, {}, None, 1)
    return Run(name, Path(name), History(), evaluation=evaluation)


@pytest.mark.parametrize(
    ("scores", "surest", "advice"),
    [
        ([0.259, 0.1], "0.25", "0.2"),
        ([0.2999], "0.29", "0.2"),  # not 0.3, which it does not reach
        ([0.012], "0.012", "0.009"),
        ([3.2e-5], "3.2e-05", "2e-05"),
    ],
)
def test_the_surest_box_and_what_to_give(scores, surest, advice):
    (hint,) = score_hints([run("a", 0.3), run("b", *scores)], 0.3)
    assert f"No box of b reaches a score of 0.3 (the surest has {surest})" in hint
    assert f"give <code>--min-score {advice}</code>." in hint
    assert score_hints([run("b", *scores)], float(advice)) == []  # and then there are some


def test_no_boxes():
    hints = score_hints([run("a"), run("b", 0.0)], 0.0)
    assert all("has found no box at all" in hint for hint in hints) and len(hints) == 2


def test_runs_without_an_evaluation_get_no_hint():
    assert score_hints([Run("a", Path("a"), History())], 0.3) == []


def test_both_sections_say_it():
    runs = [run("a", 0.25)]
    for section in (sample_section(runs, 1, 0.3), error_section(runs, 1, 0.3)):
        assert section.count("No box of a reaches a score of 0.3") == 1
    for section in (sample_section(runs, 1, 0.2), error_section(runs, 1, 0.2)):
        assert "reaches a score" not in section


def test_iou_below_a_threshold_does_not_read_as_if_it_reached_it(monkeypatch):
    """IoU 0.498 is badly placed, and 0.50 would be correct."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    monkeypatch.setattr("fastdetr_mmdet.report.error_section.read_image", lambda path: pixels)
    zero, no = np.zeros(1, int), np.zeros(1, bool)
    true, found = np.array([[0.0, 0, 20, 20]]), np.array([[6.7, 0, 26.7, 20]])
    image = ImageResult(1, "a.jpg", true, zero, no, found, zero, np.array([0.9]))
    (verdict,) = judge(found, zero, image.scores, true, zero)
    assert verdict.kind is Kind.BADLY_PLACED and f"{verdict.iou:.2f}" == "0.50"
    evaluation = Evaluation(Path("e.pth"), "val", ("cat",), [image], 1, {}, None, 1)
    assert "cat 0.90, is cat, IoU 0.49<" in _crop("c", image, verdict, evaluation)
