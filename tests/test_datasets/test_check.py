"""Each kind of problem in annotations is found, named by id, and gone from a cleaned copy."""

import copy
import json
import math
import re
from pathlib import Path

import pytest

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


def sound():
    """Two images of 100 x 80 with two boxes each, and nothing wrong."""
    return {
        "info": {"year": 2024},
        "images": [
            {"id": 7, "file_name": "a.jpg", "width": 100, "height": 80},
            {"id": 8, "file_name": "b.jpg", "width": 100, "height": 80},
        ],
        "annotations": [
            {
                "id": 11 + n,
                "image_id": 7 + n // 2,
                "category_id": 1 + n % 2,
                "bbox": [10 + n, 20, 30, 40.5],
                "area": 1200,
                "iscrowd": 0,
                "segmentation": [[10, 20, 40, 20, 40, 60]],
            }
            for n in range(4)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


def change(key, value, n=0, of="annotations"):
    """Set a key of an entry; MISSING deletes it."""

    def apply(coco):
        coco[of][n][key] = value

    return apply


def drop(key, n=0, of="annotations"):
    return lambda coco: coco[of][n].pop(key)


def every(key, value, of="annotations"):
    """Set a key of all entries to a function of their number."""

    def apply(coco):
        for n, entry in enumerate(coco[of]):
            entry[key] = value(n)

    return apply


def same_file_same_boxes(coco):
    coco["images"][1]["file_name"] = "a.jpg"
    for n in (2, 3):
        coco["annotations"][n]["bbox"] = coco["annotations"][n - 2]["bbox"]


def many_boxes(make):
    """Ten boxes, which is enough for a guess at their format."""

    def apply(coco):
        coco["annotations"] = [
            dict(coco["annotations"][n % 4], id=n + 1, bbox=make(n)) for n in range(10)
        ]

    return apply


def add(of, **values):
    def apply(coco):
        coco[of].append(dict(copy.deepcopy(coco[of][-1]), **values))

    return apply


def crowd_image(coco):
    for annotation in coco["annotations"][:2]:
        annotation |= {"iscrowd": 1, "segmentation": {"size": [80, 100], "counts": [10, 20, 30]}}


# What is done, which kind must be found, how often, and what its line must say.
CASES = [
    # the lists
    (lambda c: c["images"].clear(), "no-images", 1, "'images' is an empty list"),
    (lambda c: c["categories"].clear(), "no-categories", 1, "'categories' is an empty list"),
    (
        many_boxes(lambda n: [0.1 + n / 30, 0.2, 0.3, 0.45]),
        "boxes-as-fractions",
        1,
        "such as [0.1, 0.2, 0.3, 0.45] in an image of 100 x 80",
    ),
    (
        many_boxes(lambda n: [10 + 5 * n, 30, 20 + 8 * n, 75]),
        "boxes-as-corners",
        1,
        "in an image of 100 x 80",
    ),
    # categories
    (lambda c: c["categories"].append(None), "category-malformed", 1, "number 3 of 'categories'"),
    (drop("id", 1, "categories"), "category-malformed", 1, "number 2 of 'categories' (dog)"),
    (change("id", "2", 1, "categories"), "category-malformed", 1, "category 2 (dog)"),
    (change("id", 1.5, 1, "categories"), "category-malformed", 1, "category 1.5 (dog)"),
    (drop("name", 1, "categories"), "category-malformed", 1, "category 2"),
    (change("name", ["dog"], 1, "categories"), "category-malformed", 1, "category 2"),
    (
        add("categories", name="fox"),
        "category-id-twice",
        2,
        "category 2 (dog); category 2 (fox)",
    ),
    (add("categories", id=3), "category-name-twice", 2, "category 2 (dog); category 3 (dog)"),
    (change("name", "kat", 0, "categories"), "class-without-category", 1, "(cat)"),
    (
        lambda c: c["categories"].reverse(),
        "class-order",
        1,
        "the file's order, to set there, is dog, cat",
    ),
    (add("categories", id=3, name="fox"), "category-not-in-classes", 1, "category 3 (fox)"),
    (add("categories", id=9, name="fox"), "category-gap", 1, "(3 to 8)"),
    (every("category_id", lambda n: 1), "category-unused", 1, "category 2 (dog)"),
    (every("id", lambda n: f"c{n}", "categories"), "ids-in-letters", 1, "those of 'categories'"),
    # images
    (lambda c: c["images"].append("c.jpg"), "image-malformed", 1, "it is c.jpg"),
    (drop("id", 0, "images"), "image-id", 1, "number 1 of 'images' (a.jpg, no id)"),
    (change("id", None, 0, "images"), "image-id", 1, "(a.jpg, id is None)"),
    (change("id", [7], 0, "images"), "image-id", 1, "id is [7]"),
    (change("id", "7", 0, "images"), "image-id", 1, "id is '7'"),
    (change("id", NAN, 0, "images"), "image-id", 1, "id is nan"),
    (change("id", 2**63, 0, "images"), "image-id", 1, "image 9223372036854775808 (a.jpg"),
    (add("images", file_name="c"), "image-id-twice", 2, "image 8 (b.jpg); image 8 (c)"),
    (drop("file_name", 0, "images"), "file-name", 1, "image 7 (no file_name)"),
    (change("file_name", None, 0, "images"), "file-name", 1, "image 7 (file_name is None)"),
    (change("file_name", 5, 0, "images"), "file-name", 1, "file_name is 5"),
    (change("file_name", "", 0, "images"), "file-name", 1, "file_name is ''"),
    (change("file_name", "a\0.jpg", 0, "images"), "file-name", 1, r"image 7 (a\x00.jpg"),
    (change("file_name", "\ud800.jpg", 0, "images"), "file-name", 1, r"image 7 (\ud800.jpg"),
    (drop("width", 0, "images"), "image-size", 1, "image 7 (a.jpg, missing x 80)"),
    (change("height", 0, 0, "images"), "image-size", 1, "100 x 0"),
    (change("height", -80, 0, "images"), "image-size", 1, "100 x -80"),
    (change("height", None, 0, "images"), "image-size", 1, "100 x None"),
    (change("width", "100", 0, "images"), "image-size", 1, "'100' x 80"),
    (change("width", NAN, 0, "images"), "image-size", 1, "nan x 80"),
    (change("width", INF, 0, "images"), "image-size", 1, "inf x 80"),
    (change("width", 10**400, 0, "images"), "image-size", 1, "100000000"),
    (change("width", 99.5, 0, "images"), "image-size", 1, "99.5 x 80"),
    (change("file_name", "a.jpg", 1, "images"), "file-shared", 1, "same file as image 7 (a.jpg)"),
    (change("file_name", "./a.jpg", 1, "images"), "file-shared", 1, "image 8 (./a.jpg"),
    (same_file_same_boxes, "file-twice", 1, "image 8 (a.jpg, same file as image 7 (a.jpg))"),
    (lambda c: c["annotations"].__delitem__(slice(2)), "image-empty", 1, "image 7 (a.jpg)"),
    (crowd_image, "image-crowds-only", 1, "image 7 (a.jpg)"),
    (change("width", 5000, 0, "images"), "image-aspect", 1, "5000 x 80"),
    # annotations
    (lambda c: c["annotations"].append(3), "annotation-malformed", 1, "it is 3"),
    (drop("image_id"), "unknown-image", 1, "annotation 11 (no image_id)"),
    (change("image_id", 9), "unknown-image", 1, "annotation 11 (image 9, image_id is 9)"),
    (change("image_id", "7"), "unknown-image", 1, "image_id is '7'"),
    (change("image_id", [7]), "unknown-image", 1, "image_id is [7]"),
    (drop("category_id"), "unknown-category", 1, "annotation 11 (image 7, a.jpg, no category_id)"),
    (change("category_id", 3), "unknown-category", 1, "category_id is 3"),
    (change("category_id", "1"), "unknown-category", 1, "category_id is '1'"),
    (change("category_id", True), "unknown-category", 1, "category_id is True"),
    (drop("bbox"), "bbox-malformed", 1, "annotation 11 (image 7, a.jpg, no bbox)"),
    (change("bbox", None), "bbox-malformed", 1, "bbox is None"),
    (change("bbox", [1, 2, 3]), "bbox-malformed", 1, "bbox is [1, 2, 3]"),
    (change("bbox", [1, 2, 3, 4, 5]), "bbox-malformed", 1, "bbox is [1, 2, 3, 4, 5]"),
    (change("bbox", [1, 2, None, 4]), "bbox-malformed", 1, "bbox is [1, 2, None, 4]"),
    (change("bbox", ["1", "2", "3", "4"]), "bbox-malformed", 1, "bbox is ['1', '2', '3', '4']"),
    (change("bbox", [True, 2, 3, 4]), "bbox-malformed", 1, "bbox is [True, 2, 3, 4]"),
    (change("bbox", {"x": 1}), "bbox-malformed", 1, "bbox is {'x': 1}"),
    (change("bbox", "1234"), "bbox-malformed", 1, "bbox is '1234'"),
    (change("bbox", [1, 2, NAN, 4]), "bbox-not-finite", 1, "bbox is [1, 2, nan, 4]"),
    (change("bbox", [1, 2, INF, 4]), "bbox-not-finite", 1, "bbox is [1, 2, inf, 4]"),
    (change("bbox", [-INF, 2, 3, 4]), "bbox-not-finite", 1, "bbox is [-inf, 2, 3, 4]"),
    (change("bbox", [1, 2, 1e30, 4]), "bbox-not-finite", 1, "bbox is [1, 2, 1e+30, 4]"),
    (change("bbox", [1, 2, 10**400, 4]), "bbox-not-finite", 1, "bbox is [1, 2, 1000"),
    (change("bbox", [50, 2, -30, 4]), "bbox-negative", 1, "bbox [50.0, 2.0, -30.0, 4.0] in 100"),
    (change("bbox", [101, 2, 30, 4]), "bbox-outside", 1, "[101.0, 2.0, 30.0, 4.0] in 100 x 80"),
    (change("bbox", [10, -30, 30, 30]), "bbox-outside", 1, "annotation 11 (image 7, a.jpg, bbox"),
    (change("bbox", [10, 20, 30, 0]), "bbox-zero", 1, "annotation 11"),
    (change("bbox", [10, 20, 0.4, 9]), "bbox-subpixel", 1, "annotation 11"),
    (change("bbox", [80, 20, 30, 9]), "bbox-partly-outside", 1, "annotation 11"),
    (change("bbox", [-5, 20, 30, 9]), "bbox-partly-outside", 1, "annotation 11"),
    (change("bbox", [1, 20, 98, 1.5]), "bbox-aspect", 1, "annotation 11"),
    (add("annotations", id=15), "bbox-twice", 1, "annotation 15 (image 8, b.jpg)"),
    (drop("area"), "area", 1, "annotation 11 (image 7, a.jpg, no area)"),
    (change("area", 0), "area", 1, "area is 0"),
    (change("area", None), "area", 1, "area is None"),
    (change("area", "12"), "area", 1, "area is '12'"),
    (change("area", NAN), "area", 1, "area is nan"),
    (change("iscrowd", "0"), "iscrowd", 1, "iscrowd is '0'"),
    (change("iscrowd", None), "iscrowd", 1, "iscrowd is None"),
    (change("iscrowd", 2), "iscrowd", 1, "iscrowd is 2"),
    (change("iscrowd", [0]), "iscrowd", 1, "iscrowd is [0]"),
    (drop("iscrowd"), "iscrowd-missing", 1, "annotation 11"),
    (drop("id"), "annotation-id", 1, "number 1 of 'annotations' (image 7, a.jpg, no id)"),
    (change("id", "a"), "annotation-id", 1, "annotation a (image 7, a.jpg, id is 'a')"),
    (change("id", {}), "annotation-id", 1, "id is {}"),
    (change("id", 14), "annotation-id-twice", 1, "annotation 14 (image 8, b.jpg)"),
    (change("id", 0), "annotation-id-zero", 1, "annotation 0 (image 7, a.jpg)"),
    (change("ignore", 1), "marked-ignore", 1, "annotation 11"),
]
# Kinds that need image files: test_check_files.py
OF_FILES = (
    "path-outside path-symlink file-missing file-unreadable file-truncated file-size file-turned "
    "file-orientation file-huge"
).split()


def spoilt(apply):
    coco = sound()
    apply(coco)
    return coco


@pytest.mark.parametrize(
    "apply, kind, count, words", CASES, ids=[f"{n} {case[1]}" for n, case in enumerate(CASES)]
)
def test_found_named_and_cleaned(apply, kind, count, words):
    coco = spoilt(apply)
    report = check_annotations(coco, "train.json", CLASSES)
    finding = report.findings[kind]
    assert finding.count == count
    line = report.sentence(finding)
    assert line.startswith(f"{KINDS[kind].what}: {count} (")
    assert words in line
    assert line in report.refusal() or not KINDS[kind].stops
    assert kind in report.text()
    assert KINDS[kind].severity == "warning" or report.errors()

    if KINDS[kind].cleaned == "refused":
        with pytest.raises(
            CannotCleanError, match=r"^train.json: nothing to write, no \w+ are left"
        ):
            clean(report, CLASSES)
        return
    before = copy.deepcopy(coco)
    cleaned, counts = clean(report, CLASSES)
    assert repr(coco) == repr(before)
    again = check_annotations(cleaned, "cleaned.json", CLASSES)
    left = {f.kind.name for f in again.errors()}
    # a class that the file lost with its category is for the config to mend
    assert left <= {"class-without-category"}
    if KINDS[kind].cleaned == "kept":
        assert kind in again.findings
    elif kind != "class-without-category":
        assert kind not in again.findings
        assert counts[kind] > 0


def test_every_kind_is_tested():
    assert {case[1] for case in CASES} | set(OF_FILES) == set(KINDS)


def test_nothing_wrong():
    coco = sound()
    coco["annotations"][0] |= {"iscrowd": 1, "segmentation": {"size": [80, 100], "counts": "a1b"}}
    coco["annotations"][1] |= {"bbox": [-0.5, 20, 100.9, 40], "area": 0.1, "ignore": 0}
    coco["annotations"][2] |= {"id": 99.0, "iscrowd": False}
    coco["images"][0]["width"] = 100.0
    report = check_annotations(coco, "train.json", CLASSES)
    assert report.findings == {}
    assert report.verdict() == "Nothing wrong found."
    assert report.refusal() == ""
    assert report.paragraph() == (
        "Data check of train.json (2 images, 4 boxes, 2 categories): nothing wrong found."
    )
    cleaned, counts = clean(report, CLASSES)
    assert cleaned == coco and not counts


@pytest.mark.parametrize(
    "apply, boxes",
    [
        (change("bbox", [10, 20, 0, 0]), 3),
        (change("bbox", [200, 20, 10, 10]), 3),
        (change("image_id", 9), 3),
        (change("iscrowd", 2), 3),
        (drop("bbox"), 3),
        (add("annotations", id=20), 4),
        # of both images, because nobody knows whose the boxes are
        (add("images", id=7, file_name="c.jpg"), 2),
        (add("categories", name="fox"), 2),
        (change("file_name", "", 0, "images"), 2),
        (lambda c: c["images"].append(c["images"][0]), 4),
        (lambda c: c["categories"].append(c["categories"][0]), 4),
        # what can be mended stays
        (drop("area"), 4),
        (change("area", 0), 4),
        (drop("iscrowd"), 4),
        (change("iscrowd", "0"), 4),
        (change("id", 14), 4),
        (change("id", None), 4),
        (change("width", 99.6, 0, "images"), 4),
        (add("categories", id=3), 4),
        (change("file_name", "a.jpg", 1, "images"), 4),
    ],
)
def test_boxes_that_a_cleaned_copy_keeps(apply, boxes):
    cleaned, _ = clean(check_annotations(spoilt(apply)))
    assert len(cleaned["annotations"]) == boxes
    assert check_annotations(cleaned).errors() == []


def test_what_is_mended():
    coco = sound()
    coco["annotations"][0]["area"] = None
    coco["annotations"][1]["iscrowd"] = " True"
    coco["annotations"][2]["id"] = 14
    coco["images"][0] |= {"width": 99.6}
    coco["images"][1]["file_name"] = "./a.jpg"
    coco["categories"].append({"id": 5, "name": "cat"})
    coco["annotations"][3]["category_id"] = 5
    cleaned, counts = clean(check_annotations(coco))
    assert [a["id"] for a in cleaned["annotations"]] == [11, 12, 14, 1]
    assert [a["image_id"] for a in cleaned["annotations"]] == [7] * 4
    assert [a["category_id"] for a in cleaned["annotations"]] == [1, 2, 1, 1]
    assert [a["area"] for a in cleaned["annotations"]] == [1215, 1200, 1200, 1200]
    assert [a["iscrowd"] for a in cleaned["annotations"]] == [0, 1, 0, 0]
    assert [i["width"] for i in cleaned["images"]] == [100]
    assert cleaned["info"] == {"year": 2024}
    assert counts == {
        "image-size": 1,
        "iscrowd": 1,
        "area": 1,
        "annotation-id-twice": 1,
        "category-name-twice": 1,
        "file-shared": 1,
    }


def test_other_box_formats_are_converted():
    fractions = spoilt(many_boxes(lambda n: [0.1 + n / 30, 0.2, 0.3, 0.45]))
    corners = spoilt(many_boxes(lambda n: [10 + 5 * n, 30, 20 + 8 * n, 75]))
    for coco, box, kind in (
        (fractions, [10, 16, 30, 36], "boxes-as-fractions"),
        (corners, [10, 30, 10, 45], "boxes-as-corners"),
    ):
        cleaned, counts = clean(check_annotations(coco))
        assert cleaned["annotations"][0]["bbox"] == pytest.approx(box)
        assert counts == {kind: 10}
        assert check_annotations(cleaned).findings.keys() <= {"bbox-aspect"}
    assert cleaned["annotations"][0]["area"] == 1200  # the area was given, and not in fractions


def test_tight_boxes_of_large_objects_are_not_taken_for_corners():
    report = check_annotations(spoilt(many_boxes(lambda n: [2, 3, 97, 76])))
    assert "boxes-as-corners" not in report.findings


def test_order_of_the_categories_follows_the_classes():
    coco = sound()
    coco["categories"] = [
        {"id": n, "name": name} for n, name in enumerate(("fox", "dog", "cat"), start=1)
    ]
    cleaned, _ = clean(check_annotations(coco, classes=CLASSES), CLASSES)
    assert [c["name"] for c in cleaned["categories"]] == ["cat", "dog", "fox"]
    assert check_annotations(cleaned, classes=CLASSES).errors() == []


def test_training_alone_asks_for_less():
    """What only evaluation needs is no error of a training set; a cleaned copy has it."""
    coco = spoilt(drop("iscrowd"))
    coco["annotations"][1]["id"] = 0
    report = check_annotations(coco, evaluated=False)
    assert report.findings == {}
    cleaned, counts = clean(report)
    assert counts == {"iscrowd-missing": 1, "annotation-id-zero": 1}
    assert check_annotations(cleaned).findings == {}


def test_allowed_kinds():
    report = check_annotations(spoilt(change("area", 0)))
    assert [f.kind.name for f in report.stopping()] == ["area"]
    assert report.errors(["area"]) == [] and report.refusal(["area"]) == ""
    assert re.search(r"^  allowed +1  area ", report.text(["area"]), re.MULTILINE)
    assert report.verdict(["area"]) == "no errors, 1 warning."


def test_refusal_says_what_where_and_what_to_do():
    report = check_annotations(spoilt(change("bbox", [1, 2, NAN, 4])), "data/train.json")
    report.images = "data/images"
    assert report.refusal() == (
        "data/train.json cannot be trained or tested on as it is:\n"
        "- box with NaN, infinite or absurdly large numbers: 1 (annotation 11 (image 7, a.jpg, "
        "bbox is [1, 2, nan, 4])) [bbox-not-finite]\n"
        "Mend the file, or write a copy without these: python -m fastdetr_mmdet.datasets.check "
        "data/train.json --images data/images --write-cleaned CLEANED.json. To run with them all "
        "the same, give the DatasetCheckHook of your custom_hooks allow=['bbox-not-finite']."
    )


def test_no_more_than_five_examples():
    coco = sound()
    coco["annotations"] = [
        dict(coco["annotations"][0], id=n, area=0, bbox=[n, 0, 9, 9]) for n in range(1, 9)
    ]
    report = check_annotations(coco)
    line = report.sentence(report.findings["area"])
    assert line.count("annotation ") == 5 and line.endswith("; ...)") and ": 8 (" in line
    (area,) = [f for f in report.to_dict()["findings"] if f["kind"] == "area"]
    assert [entry["id"] for entry in area["entries"]] == list(range(1, 9))


@pytest.mark.parametrize(
    "content, words",
    [
        ([{"image_id": 1, "score": 0.5}], "a list of detections, as evaluation writes them"),
        ([1], "it is a list, not an object with 'images', 'annotations' and 'categories'"),
        ("text", "it is 'text', not an object"),
        (None, "it is None"),
        ({}, "it has no list 'images', 'annotations', 'categories' (it has nothing)"),
        ({"images": [], "annotations": []}, "no list 'categories' (it has 'images', 'annotations'"),
        ({"images": 1, "annotations": {}, "categories": []}, "'images', 'annotations' must be"),
    ],
)
def test_not_coco(content, words, tmp_path):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(content))
    with pytest.raises(NotCocoError, match=r"file.json is no COCO annotation file: ") as error:
        read_coco(path)
    assert words in str(error.value)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "is no JSON: Expecting value"),
        (b'{"images": [', "is no JSON: Expecting value: line 1 column 13"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark, at which mmdet fails"),
        (b'{"images": "\xff"}', "is no JSON in UTF-8"),
        ('{"images": []}'.encode("utf-16"), "is no JSON in UTF-8"),
        (b"9" * 5000, "is no JSON: Exceeds the limit"),
    ],
)
def test_not_json(content, words, tmp_path):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(NotCocoError) as error:
        read_coco(path)
    assert str(error.value).startswith(f"{path} ") and words in str(error.value)


def test_no_file(tmp_path):
    for path, words in (
        (tmp_path / "none.json", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (Path("a\0b"), "embedded null"),
    ):
        with pytest.raises(NotCocoError, match=f"cannot be read: .*{words}"):
            read_coco(path)


def test_reading_without_outlines_leaves_out_nothing_else(tmp_path):
    coco = sound()
    coco["annotations"][0]["segmentation"] = {"size": [80, 100], "counts": [1, 2, 3]}
    coco["annotations"][1]["segmentation"] = [[1e-3, -2.5, 3, 4], []]
    coco["annotations"][2]["segmentation"] = ["1", [2]]
    coco["annotations"][3]["note"] = '"segmentation": [[1, 2]]'
    coco['say "segmentation"'] = [1]
    path = tmp_path / "coco.json"
    for indent in (None, 2):
        path.write_text(json.dumps(coco, indent=indent))
        read = read_coco(path, outlines=False)
        assert read["annotations"][1].pop("segmentation") == []
        assert read["annotations"][3].pop("segmentation") == []
        expected = read_coco(path)
        assert expected == coco
        del expected["annotations"][1]["segmentation"], expected["annotations"][3]["segmentation"]
        # a key that ends in the same letters may lose its numbers, as it may: it is not COCO's
        assert read.pop('say "segmentation"') in ([1], [])
        del expected['say "segmentation"']
        assert read == expected


def test_docs_list_every_kind():
    page = (Path(__file__).parents[2] / "docs" / "data_check.md").read_text()
    rows = re.findall(
        r"^\| `([a-z-]+)` \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", page, re.MULTILINE
    )
    expected = [
        (k.name, "stops" if k.stops else k.severity, k.what, k.training, k.cleaned)
        for k in KINDS.values()
    ]
    assert rows == expected
