"""For any annotation file, the check reports problems, and the cleaned copy loads."""

import contextlib
import copy
import io
import json
import math

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from support.coco import sound

from fastdetr_mmdet.datasets.check import CannotCleanError, NotCocoError, check_annotations, clean
from fastdetr_mmdet.datasets.check.read import LISTS

NASTY = [
    *(None, True, False, "", "1", "0", "cat", "a.jpg", "../a.jpg", "/etc/passwd", "\ud800", "a\0b"),
    *("\x1b[2J", 0, -1, 1, 2, 3, 1.0, 0.5, 1e-320, 1e308, 10**400, 2**63, math.nan, math.inf),
    *(-math.inf, [], {}, [1], {"id": 1}, [[[[]]]]),
]
# Wrong values of particular keys.
LIKELY = {
    "bbox": [
        *([1, 2, 3, 4], [1, 2, 3], [5, 5, 9, "4"]),
        *([5, 5, width, 4] for width in (math.nan, math.inf, 1e30, -3, 0, 0.5)),
        *([5, 5, 1e-320, 1e-320], [500, 5, 9, 4], [-5, -5, 9, 8], [-5, -5, 5, 5]),
        *([0.1, 0.1, 0.5, 0.5], [0, 0, 40, 30], [3, 3, 30, 0.99]),
    ],
    "area": [0, -1, 0.0, "12", math.nan],
    "iscrowd": ["0", "1", " true", None, 2, -1, 0.0, True],
    "file_name": ["0.jpg", "./0.jpg", "1.jpg", "x//0.jpg", "..", "0.jpg/"],
    "width": [640.5, 0.2, "640", 2**21, 3],
    "height": [30.0, 0, -30, None],
    "ignore": [1, 0, "yes"],
    "id": [1, 7, 8, 12, 0, "2", 1.0, 1.5],
    "image_id": [7, 8, 10, 1, "7", 8.0],
    "category_id": [1, 2, 3, "1", 2.0],
    "name": ["cat", "dog", "fox", ""],
}
VALUES = st.sampled_from(NASTY)
SETTINGS = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@st.composite
def changed(draw):
    """Valid annotations after a few random changes."""
    coco = sound(*(f"{n}.jpg" for n in range(draw(st.integers(1, 4)))), width=40, height=30)
    del coco["annotations"][draw(st.integers(0, 8)) :]
    # weighted by the number of possible changes
    lists = ["annotations"] * 4 + ["images"] * 2 + ["categories"]
    accidents = ["set"] * 5 + ["drop", "twice", "replace", "remove", "all"]
    for _ in range(draw(st.integers(0, 5))):
        entries = coco[draw(st.sampled_from(lists))]
        accident = draw(st.sampled_from(accidents))
        if not entries:
            continue
        n = draw(st.integers(0, len(entries) - 1))
        keys = sorted(entries[n]) if isinstance(entries[n], dict) else []
        more = ["bbox"] * 3 + ["ignore"] if "bbox" in keys else []
        key = draw(st.sampled_from(keys + more)) if keys else None
        values = st.sampled_from(LIKELY.get(key, NASTY)) | VALUES
        if accident == "set" and keys:
            entries[n][key] = copy.deepcopy(draw(values))
        elif accident == "drop" and keys:
            entries[n].pop(key, None)
        elif accident == "twice":
            entries.append(copy.deepcopy(entries[n]))
        elif accident == "replace":
            entries[n] = copy.deepcopy(draw(VALUES))
        elif accident == "remove":
            del entries[n]
        elif keys:
            value = draw(values)
            for entry in entries:
                if isinstance(entry, dict):
                    entry[key] = copy.deepcopy(value)
    return coco


def load(path, classes, coco):
    """Images and boxes that mmdet loads from annotations."""
    path.write_text(json.dumps(coco))
    with contextlib.redirect_stdout(io.StringIO()):
        dataset = CocoDataset(
            ann_file=str(path),
            data_prefix=dict(img="images"),
            metainfo=dict(classes=classes),
            filter_cfg=dict(filter_empty_gt=False),
            serialize_data=False,
            pipeline=[],
        )
    return len(dataset), sum(len(image["instances"]) for image in dataset.data_list)


def check_words(report):
    """Call all outputs of a report."""
    for text in (report.text(), report.refusal(), report.paragraph()):
        assert all(line.isprintable() for line in text.splitlines())
        text.encode()
    json.dumps(report.to_dict())


def names(coco):
    found = [c.get("name") for c in coco["categories"] if isinstance(c, dict)]
    return tuple(dict.fromkeys(name for name in found if isinstance(name, str)))


def boxes_of_known_images(coco):
    known = {image["id"] for image in coco["images"]}
    return sum(annotation["image_id"] in known for annotation in coco["annotations"])


@settings(SETTINGS, max_examples=250)
@given(coco=changed())
@example(coco=sound())
def test_changed_annotations(coco, tmp_path):
    """Accepted and cleaned annotations load in mmdet, with the reported number of boxes."""
    before = json.dumps(coco)
    report = check_annotations(coco)
    check_words(report)
    path = tmp_path / "coco.json"
    if not report.stopping():
        expected = len(coco["images"]), boxes_of_known_images(coco) - report.skipped
        assert load(path, names(coco), coco) == expected
    try:
        cleaned, counts = clean(report)
    except CannotCleanError:
        assert report.errors()
        return
    assert json.dumps(coco) == before
    again = check_annotations(cleaned)
    assert again.errors() == []
    assert bool(counts) == (json.dumps(cleaned) != before)  # True == 1 in Python
    expected = len(cleaned["images"]), len(cleaned["annotations"]) - again.skipped
    assert load(path, names(cleaned), cleaned) == expected
    # only boxes marked 'ignore' are skipped
    assert again.skipped == len(getattr(again.findings.get("marked-ignore"), "positions", ()))


KEYS = st.sampled_from([*LISTS, *LIKELY])
JSON = st.recursive(
    VALUES | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)


@settings(SETTINGS, max_examples=60)
@given(coco=JSON | st.fixed_dictionaries({k: st.lists(JSON) for k in LISTS}))
def test_any_json(coco):
    try:
        report = check_annotations(coco, classes=("cat", "dog"))
    except NotCocoError as error:
        assert "annotations" in str(error)
        return
    check_words(report)
    with contextlib.suppress(CannotCleanError):
        cleaned, _ = clean(report)
        assert check_annotations(cleaned).errors() == []
