"""Each type of error, in hand-made cases."""

from collections import Counter

import numpy as np
import pytest

from fastdetr_mmdet.evaluation.error_types import EXPLANATIONS, Kind, judge, overlaps_of
from fastdetr_mmdet.evaluation.results import ImageResult

CAT, DOG = 0, 1
OBJECT = (10, 10, 30, 30)  # 20 x 20


def shifted(box, dx):
    """Shift a box to the right: IoU (20 - dx) / (20 + dx) for a width of 20."""
    return (box[0] + dx, box[1], box[2] + dx, box[3])


def verdicts(found, objects, crowd=None, **options):
    """Verdicts on (box, label, score) with objects (box, label), missed objects last."""
    boxes, true_boxes = (
        np.reshape([x[0] for x in y], (-1, 4)).astype(float) for y in (found, objects)
    )
    labels, true_labels = (np.array([x[1] for x in y], dtype=int) for y in (found, objects))
    crowd = np.zeros(len(objects), dtype=bool) if crowd is None else crowd
    scores = np.array([score for *_, score in found], dtype=float)
    image = ImageResult(1, "", true_boxes, true_labels, crowd, boxes, labels, scores)
    return judge(image, **options)


CASES = {
    "on the object": ([(OBJECT, CAT, 0.9)], [Kind.CORRECT]),
    "just well enough": ([(shifted(OBJECT, 6.6), CAT, 0.9)], [Kind.CORRECT]),
    "too far off": ([(shifted(OBJECT, 6.7), CAT, 0.9)], [Kind.BADLY_PLACED]),
    "near": ([(shifted(OBJECT, 16), CAT, 0.9)], [Kind.BADLY_PLACED]),
    "not near": ([(shifted(OBJECT, 17), CAT, 0.9)], [Kind.BACKGROUND, Kind.MISSED]),
    "elsewhere": ([((60, 60, 80, 80), CAT, 0.9)], [Kind.BACKGROUND, Kind.MISSED]),
    "other class": ([(OBJECT, DOG, 0.9)], [Kind.WRONG_CLASS]),
    "other class, near": ([(shifted(OBJECT, 10), DOG, 0.9)], [Kind.BOTH, Kind.MISSED]),
    "other class, far": ([(shifted(OBJECT, 17), DOG, 0.9)], [Kind.BACKGROUND, Kind.MISSED]),
    "twice": ([(OBJECT, CAT, 0.9), (OBJECT, CAT, 0.8)], [Kind.CORRECT, Kind.DUPLICATE]),
    "twice, the better one less sure": (
        [(OBJECT, CAT, 0.8), (shifted(OBJECT, 5), CAT, 0.9)],
        [Kind.CORRECT, Kind.DUPLICATE],
    ),
    "once right, once wrong": (
        [(OBJECT, DOG, 0.9), (OBJECT, CAT, 0.8)],
        [Kind.CORRECT, Kind.WRONG_CLASS],
    ),
    "duplicate comes before wrong class": (
        [(OBJECT, CAT, 0.9), (OBJECT, CAT, 0.8)],
        [Kind.CORRECT, Kind.DUPLICATE, Kind.MISSED],
        [(OBJECT, CAT), (OBJECT, DOG)],
    ),
    "not sure enough": ([(OBJECT, CAT, 0.29)], [Kind.MISSED]),
    "nothing found": ([], [Kind.MISSED]),
    "no area": ([((10, 10, 10, 10), CAT, 0.9)], [Kind.BACKGROUND, Kind.MISSED]),
    "no objects": ([(OBJECT, CAT, 0.9)], [Kind.BACKGROUND], []),
    "nothing at all": ([], [], []),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_groups(case):
    found, expected, objects = (*case, [(OBJECT, CAT)])[:3]
    assert [verdict.kind for verdict in verdicts(found, objects)] == expected


def test_every_group_has_a_case_and_an_explanation():
    seen = {kind for case in CASES.values() for kind in case[1]}
    assert seen == set(Kind) == set(EXPLANATIONS)


def test_groups_exclude_each_other():
    """Every counted box and every object has exactly one verdict."""
    generator = np.random.default_rng(0)
    for _ in range(60):
        n, m = generator.integers(0, 9, 2)
        corners = generator.uniform(0, 40, (n + m, 2))
        boxes = np.hstack([corners, corners + generator.uniform(5, 30, (n + m, 2))])
        labels = generator.integers(0, 2, n + m)
        scores = generator.uniform(0, 1, n)
        found = list(zip(boxes[:n], labels[:n], scores, strict=True))
        judged = verdicts(found, list(zip(boxes[n:], labels[n:], strict=True)))
        places = sorted(v.box for v in judged if v.box is not None)
        assert places == np.flatnonzero(scores >= 0.3).tolist()
        counts = Counter(verdict.kind for verdict in judged)
        missed = {v.target for v in judged if v.kind is Kind.MISSED}
        taken = {v.target for v in judged if v.kind is Kind.CORRECT}
        meant = {v.target for v in judged if v.kind in (Kind.WRONG_CLASS, Kind.BADLY_PLACED)}
        assert len(missed) == counts[Kind.MISSED] and len(taken) == counts[Kind.CORRECT]
        assert missed | taken | meant == set(range(m)) and not missed & (taken | meant)


def test_a_box_takes_the_object_that_it_overlaps_most():
    found = [(shifted(OBJECT, 2), CAT, 0.5), (shifted(OBJECT, 5), CAT, 0.9)]
    objects = [(OBJECT, CAT), (shifted(OBJECT, 6), CAT)]
    first, second = verdicts(found, objects)
    assert [(v.kind, v.box, v.target) for v in (first, second)] == [
        (Kind.CORRECT, 1, 1),
        (Kind.CORRECT, 0, 0),
    ]
    assert first.iou == pytest.approx(19 / 21)


def test_crowds_are_neither_missed_nor_background():
    crowd = np.array([True, False])
    objects = [((0, 0, 100, 50), CAT), ((0, 60, 20, 80), CAT)]
    inside, half_out = ((10, 10, 30, 30), CAT, 0.9), ((10, 41, 30, 60), CAT, 0.9)
    found = verdicts([inside, half_out], objects, crowd=crowd)
    assert [(v.kind, v.box, v.target) for v in found] == [
        (Kind.BACKGROUND, 1, None),
        (Kind.MISSED, None, 1),
    ]


def test_min_score():
    (verdict,) = verdicts([(OBJECT, CAT, 0.1)], [(OBJECT, CAT)], min_score=0.1)
    assert verdict.kind is Kind.CORRECT


def test_iou():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [3, 3, 3, 9]], dtype=float)
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(overlaps_of(boxes, boxes, np.zeros(3, bool)), expected)
