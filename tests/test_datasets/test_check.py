"""Each kind of problem in annotations is found, named by id, and fixed in a cleaned copy."""

import math
import re
from pathlib import Path

import pytest
from support.coco import add, box, category, changed, drop, each, image, sound

from fastdetr_mmdet.datasets.check import (
    KINDS,
    CannotCleanError,
    NotCocoError,
    check_annotations,
    clean,
    read_coco,
)

NAN, INF = math.nan, math.inf
CLASSES = ("cat", "dog")
DOCS = Path(__file__).parents[2] / "docs" / "data_check.md"


def letters(coco):
    for entry in coco["categories"]:
        entry["id"] = f"c{entry['id']}"


def many_boxes(make):
    """Ten boxes, enough to guess their format."""

    def apply(coco):
        coco["annotations"] = [
            dict(coco["annotations"][n % 4], id=n + 1, bbox=make(n)) for n in range(10)
        ]

    return apply


FRACTIONS = many_boxes(lambda n: [0.1 + n / 30, 0.2, 0.3, 0.45])
CORNERS = many_boxes(lambda n: [10 + 5 * n, 30, 20 + 8 * n, 75])


def same_file_same_boxes(coco):
    coco["images"][1]["file_name"] = "a.jpg"
    for n in (2, 3):
        coco["annotations"][n]["bbox"] = coco["annotations"][n - 2]["bbox"]


def crowds(coco):
    for annotation in coco["annotations"][:2]:
        annotation["iscrowd"] = 1


# Expected kind, change of valid annotations, and words that the line must have.
CASES = [
    # the lists
    ("no-images", lambda c: c["images"].clear(), "'images'"),
    ("no-categories", lambda c: c["categories"].clear(), "'categories'"),
    ("boxes-as-fractions", FRACTIONS, "[0.1, 0.2, 0.3, 0.45] in an image of 100 x 80"),
    ("boxes-as-corners", CORNERS, "in an image of 100 x 80"),
    # categories
    ("category-malformed", lambda c: c["categories"].append(None), "number 3 of 'categories'"),
    ("category-malformed", drop("id", "categories", 1), "number 2 of 'categories' (dog)"),
    ("category-malformed", category(id="2"), "category 2 (dog)"),
    ("category-malformed", category(name=["dog"]), "category 2"),
    ("category-id-twice", add("categories", name="fox"), "category 2 (dog); category 2 (fox)"),
    ("category-name-twice", add("categories", id=3), "category 2 (dog); category 3 (dog)"),
    ("category-case", add("categories", id=3, name="Dog"), "category 2 (dog); category 3 (Dog)"),
    ("class-without-category", category(0, name="Cat"), "'cat'; the file has 'Cat'"),
    ("class-without-category", category(0, name="x"), "'cat'; the file has 'x', 'dog'"),
    ("class-order", lambda c: c["categories"].reverse(), "dog, cat"),
    ("category-not-in-classes", add("categories", id=3, name="fox"), "category 3 (fox)"),
    ("category-gap", add("categories", id=9, name="fox"), "(3 to 8)"),
    ("category-unused", each("annotations", category_id=1), "category 2 (dog)"),
    ("ids-in-letters", letters, "'categories'"),
    # images
    ("image-malformed", lambda c: c["images"].append("c.jpg"), "c.jpg"),
    ("image-id", drop("id", "images"), "number 1 of 'images' (a.jpg, no id)"),
    ("image-id", image(id=[7]), "id is [7]"),
    ("image-id", image(id="7"), "id is '7'"),
    ("image-id", image(id=2**63), "image 9223372036854775808 (a.jpg"),
    ("image-id-twice", add("images", file_name="c"), "image 8 (b.jpg); image 8 (c)"),
    ("file-name", drop("file_name", "images"), "image 7 (no file_name)"),
    ("file-name", image(file_name=""), "file_name is ''"),
    ("file-name", image(file_name="a\0.jpg"), r"image 7 (a\x00.jpg"),
    ("file-name", image(file_name="\ud800.jpg"), r"image 7 (\ud800.jpg"),
    ("image-size", drop("width", "images"), "image 7 (a.jpg, missing x 80)"),
    ("image-size", image(height=0), "100 x 0"),
    ("image-size", image(width="100"), "'100' x 80"),
    ("image-size", image(width=NAN), "nan x 80"),
    ("image-size", image(width=10**400), "100000000"),
    ("image-size", image(width=99.5), "99.5 x 80"),
    ("file-shared", image(file_name="b.jpg"), "image 8 (b.jpg, same file as image 7 (b.jpg))"),
    ("file-shared", image(file_name="./b.jpg"), "image 7 (./b.jpg"),
    ("file-twice", same_file_same_boxes, "image 8 (a.jpg, same file as image 7 (a.jpg))"),
    ("image-empty", lambda c: c["annotations"].__delitem__(slice(2)), "image 7 (a.jpg)"),
    ("image-crowds-only", crowds, "image 7 (a.jpg)"),
    ("image-aspect", image(width=5000), "5000 x 80"),
    # annotations
    ("annotation-malformed", lambda c: c["annotations"].append(3), "it is 3"),
    ("unknown-image", drop("image_id"), "annotation 11 (no image_id)"),
    ("unknown-image", box(image_id=9), "annotation 11 (image 9, image_id is 9)"),
    ("unknown-image", box(image_id=[7]), "image_id is [7]"),
    ("unknown-category", drop("category_id"), "annotation 11 (image 7, a.jpg, no category_id)"),
    ("unknown-category", box(category_id=True), "category_id is True"),
    ("bbox-malformed", drop("bbox"), "annotation 11 (image 7, a.jpg, no bbox)"),
    *(
        ("bbox-malformed", box(bbox=value), f"bbox is {value!r}")
        for value in (None, [1, 2, 3], [1, 2, None, 4], ["1", "2", "3", "4"], [True, 2, 3, 4])
    ),
    *(
        ("bbox-not-finite", box(bbox=value), f"bbox is {value!r:.20}")
        for value in ([1, 2, NAN, 4], [1, 2, INF, 4], [-INF, 2, 3, 4], [1, 2, 1e30, 4])
    ),
    ("bbox-not-finite", box(bbox=[1, 2, 10**400, 4]), "bbox is [1, 2, 1000"),
    ("bbox-negative", box(bbox=[50, 2, -30, 4]), "bbox [50.0, 2.0, -30.0, 4.0] in 100 x 80"),
    ("bbox-outside", box(bbox=[101, 2, 30, 4]), "[101.0, 2.0, 30.0, 4.0] in 100 x 80"),
    ("bbox-outside", box(bbox=[10, -30, 30, 30]), "annotation 11 (image 7, a.jpg, bbox"),
    ("bbox-zero", box(bbox=[10, 20, 30, 0]), "annotation 11"),
    ("bbox-subpixel", box(bbox=[10, 20, 0.4, 9]), "annotation 11"),
    ("bbox-partly-outside", box(bbox=[-5, 20, 30, 9]), "annotation 11"),
    ("bbox-aspect", box(bbox=[1, 20, 98, 1.5]), "annotation 11"),
    ("bbox-twice", add("annotations", id=15), "annotation 15 (image 8, b.jpg)"),
    ("area", drop("area"), "annotation 11 (image 7, a.jpg, no area)"),
    *(("area", box(area=value), f"area is {value!r}") for value in (0, None, "12", NAN)),
    *(("iscrowd", box(iscrowd=v), f"iscrowd is {v!r}") for v in ("0", None, 2, [0])),
    ("iscrowd-missing", drop("iscrowd"), "annotation 11"),
    ("annotation-id", drop("id"), "number 1 of 'annotations' (image 7, a.jpg, no id)"),
    ("annotation-id", box(id="a"), "annotation a (image 7, a.jpg, id is 'a')"),
    ("annotation-id-twice", box(id=14), "annotation 14 (image 8, b.jpg)"),
    ("annotation-id-zero", box(id=0), "annotation 0 (image 7, a.jpg)"),
    ("marked-ignore", box(ignore=1), "annotation 11"),
]
# Kinds that need image files: test_check_files.py
OF_FILES = (
    "images-folder file-depth path-outside path-symlink file-missing file-unreadable "
    "file-truncated file-size file-turned "
    "file-orientation file-huge image-too-thin"
).split()


# Boxes that a cleaned copy lacks, by kind or by words: one, or those of an image or category.
LOST = (
    dict.fromkeys(
        "annotation-malformed unknown-image unknown-category bbox-malformed bbox-not-finite "
        "bbox-negative bbox-outside bbox-zero bbox-subpixel bbox-twice".split(),
        1,
    )
    | dict.fromkeys(
        "image-id image-id-twice image-size category-id-twice category-malformed file-name".split(),
        2,
    )
    | {"ids-in-letters": 4, "iscrowd is 2": 1, "iscrowd is [0]": 1}
    | {"number 3 of 'categories'": 0, "99.5 x 80": 0}
)


@pytest.mark.parametrize(
    "kind, apply, named", CASES, ids=[f"{n} {case[0]}" for n, case in enumerate(CASES)]
)
def test_found_named_and_cleaned(kind, apply, named):
    coco = changed(apply)
    report = check_annotations(coco, "train.json", CLASSES)
    line = report.sentence(report.findings[kind])
    twice = ("category-id-twice", "category-name-twice", "category-case", "image-id-twice")
    assert report.findings[kind].count == (2 if kind in twice else 1)
    assert named in line
    assert line in report.refusal() or not KINDS[kind].stops
    assert kind in report.text()
    assert KINDS[kind].severity == "warning" or report.errors()

    if KINDS[kind].cleaned == "refused":
        with pytest.raises(CannotCleanError, match=r"train\.json"):
            clean(report, CLASSES)
        return
    before = repr(coco)
    cleaned, counts = clean(report, CLASSES)
    assert repr(coco) == before
    again = check_annotations(cleaned, "cleaned.json", CLASSES)
    # a class without category must be fixed in the config
    assert {f.kind.name for f in again.errors()} <= {"class-without-category"}
    if KINDS[kind].cleaned.startswith("kept"):
        assert kind in again.findings
    else:
        assert kind not in again.findings and counts[kind] > 0
    lost = LOST.get(named, LOST.get(kind, 0))
    assert len(cleaned["annotations"]) == len(coco["annotations"]) - lost


def test_every_kind_is_tested_and_documented():
    assert {case[0] for case in CASES} | set(OF_FILES) == set(KINDS)
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", DOCS.read_text(), re.MULTILINE
    )
    assert rows == [
        (k.name, "stops" if k.stops else k.severity, k.what, k.training, k.cleaned)
        for k in KINDS.values()
    ]


def test_nothing_wrong():
    coco = sound()
    coco["annotations"][0]["iscrowd"] = 1
    coco["annotations"][1] |= {"bbox": [-0.5, 20, 100.9, 40], "area": 0.1, "ignore": 0}
    coco["annotations"][2] |= {"id": 99.0, "iscrowd": False}
    coco["images"][0]["width"] = 100.0
    report = check_annotations(coco, "train.json", CLASSES)
    assert report.findings == {} and report.skipped == 0
    assert report.refusal() == ""
    assert "train.json (2 images, 4 boxes, 2 categories)" in report.paragraph()
    cleaned, counts = clean(report, CLASSES)
    assert cleaned == coco and not counts


def test_what_is_fixed():
    coco = sound()
    coco["annotations"][0]["area"] = None
    coco["annotations"][1]["iscrowd"] = " True"
    coco["annotations"][2]["id"] = 14
    coco["images"][0] |= {"width": 99.6}
    coco["images"][1]["file_name"] = "./a.jpg"
    coco["images"].append(dict(coco["images"][0]))  # of equal entries one stays
    coco["categories"] += [{"id": 5, "name": "cat"}, dict(coco["categories"][0])]
    coco["annotations"][3]["category_id"] = 5
    cleaned, counts = clean(check_annotations(coco))
    assert [a["id"] for a in cleaned["annotations"]] == [11, 12, 14, 1]
    assert [a["image_id"] for a in cleaned["annotations"]] == [7] * 4
    assert [a["category_id"] for a in cleaned["annotations"]] == [1, 2, 1, 1]
    assert [a["area"] for a in cleaned["annotations"]] == [85.5, 81, 81, 81]
    assert [a["iscrowd"] for a in cleaned["annotations"]] == [0, 1, 0, 0]
    assert [i["width"] for i in cleaned["images"]] == [100]
    assert cleaned["info"] == {"year": 2024}
    kinds = "image-size iscrowd area annotation-id-twice category-name-twice file-shared".split()
    twice = dict.fromkeys(("image-id-twice", "category-id-twice"), 2)
    assert counts == dict.fromkeys(kinds, 1) | twice


@pytest.mark.parametrize(
    "apply, kind, first, area",
    [
        (FRACTIONS, "boxes-as-fractions", [10, 16, 30, 36], 1080),
        # the area was given, and not in fractions
        (CORNERS, "boxes-as-corners", [10, 30, 10, 45], 81),
    ],
)
def test_other_box_formats_are_converted(apply, kind, first, area):
    cleaned, counts = clean(check_annotations(changed(apply)))
    assert cleaned["annotations"][0]["bbox"] == pytest.approx(first)
    assert cleaned["annotations"][0]["area"] == pytest.approx(area)
    assert counts == {kind: 10}
    assert check_annotations(cleaned).findings.keys() <= {"bbox-aspect"}
    for make in (lambda n: [2, 3, 97, 76], lambda n: [60 + n, 50, 45, 25]):
        assert kind not in check_annotations(changed(many_boxes(make))).findings


@pytest.mark.parametrize("wrong", [1, 2.5, True, None])
def test_classes_that_cfg_options_took_for_no_strings(wrong):
    """`--cfg-options classes=1,2` makes numbers, which are not names of categories."""
    report = check_annotations(changed(category(name=str(wrong))), classes=("cat", wrong))
    line = report.sentence(report.findings["class-without-category"])
    assert f"{wrong!r}; the file has '{wrong}'" in line
    assert "--cfg-options" in line and type(wrong).__name__ in line


def test_training_alone_asks_for_less():
    """Requirements of evaluation are not errors in a training set; a cleaned copy meets them."""
    coco = changed(drop("iscrowd"))
    coco["annotations"][1]["id"] = 0
    report = check_annotations(coco, evaluated=False)
    assert report.findings == {}
    cleaned, counts = clean(report)
    assert counts == {"iscrowd-missing": 1, "annotation-id-zero": 1}
    assert check_annotations(cleaned).findings == {}


def test_refusal_names_file_entry_kind_and_fix():
    report = check_annotations(changed(box(bbox=[1, 2, NAN, 4])), "data/train.json")
    report.images = "data/images"
    first, line, fix = report.refusal().splitlines()
    assert "data/train.json" in first
    assert "1 (annotation 11 (image 7, a.jpg, bbox is [1, 2, nan, 4])) [bbox-not-finite]" in line
    command = "check data/train.json --images data/images --write-cleaned CLEANED.json"
    assert f"python -m fastdetr_mmdet {command}" in fix
    assert "allow=['bbox-not-finite']" in fix


def test_no_more_than_five_examples():
    coco = sound()
    coco["annotations"] = [dict(coco["annotations"][0], id=n, area=0) for n in range(1, 9)]
    report = check_annotations(coco)
    line = report.sentence(report.findings["area"])
    assert line.count("annotation ") == 5 and line.endswith("; ...)") and ": 8 (" in line
    (area,) = [f for f in report.to_dict()["findings"] if f["kind"] == "area"]
    assert [entry["id"] for entry in area["entries"]] == list(range(1, 9))


@pytest.mark.parametrize(
    "content, named",
    [
        (b'[{"image_id": 1, "score": 0.5}]', "detections"),
        (b"[1]", "list"),
        (b'"text"', "str"),
        (b"null", "NoneType"),
        (b"{}", "'categories'"),
        (b'{"images": [], "annotations": []}', "images, annotations"),
        (b'{"images": 1, "annotations": {}, "categories": []}', "images, annotations"),
        (b"", "Expecting value"),
        (b'{"images": [', "column 13"),
        (b"\xef\xbb\xbf{}", "BOM"),  # mmdet fails, too
        (b'{"images": "\xff"}', "utf-8"),
        ('{"images": []}'.encode("utf-16"), "utf-8"),
        (b"9" * 5000, "limit"),
        (b"[" * 100_000, "recursion"),
        (None, "no annotation file"),
    ],
)
def test_not_coco(content, named, tmp_path):
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotCocoError) as error:
        read_coco(path)
    assert str(path) in str(error.value) and named in str(error.value)
