"""Labels in COCO's, YOLO's and Pascal VOC's form, and their odd cases, give the same boxes."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.exports import ROLES, boxes_of, write_voc, write_yolo

from fastdetr_mmdet.datasets.formats import Found, Split, read_dataset, shared_images, split_off
from fastdetr_mmdet.datasets.formats import split as splitting
from fastdetr_mmdet.utils.cli import UserError


def truth(shapes: Path, split: str) -> dict:
    return boxes_of(json.loads((shapes / f"annotations/{split}.json").read_text()))


def same(found: dict, expected: dict, prefix: str = "") -> None:
    assert found.keys() == {prefix + name for name in expected}
    for name, boxes in expected.items():
        got = found[prefix + name]
        assert [box[0] for box in got] == [box[0] for box in boxes]
        values = [np.array([box[1:] for box in b]).reshape(-1, 4) for b in (got, boxes)]
        assert np.abs(values[0] - values[1]).max(initial=0) < 0.11


def picture(path: Path, size=(200, 100), seed=0, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, **options)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def read(root: Path, role: str = "train") -> dict:
    return boxes_of(read_dataset(root).splits[role].coco)


# --------------------------------------------------------------------------------------------------
# Whole datasets


def test_coco_is_used_as_it_is(shapes):
    found = read_dataset(shapes)
    assert found.form == "COCO" and set(found.splits) == {"train", "val"}
    for role, split in found.splits.items():
        assert split.file == shapes / f"annotations/{role}.json"
        assert split.images == shapes / role


@pytest.mark.parametrize("layout", ["folders", "yaml", "roboflow", "lists"])
def test_yolo(layout, shapes, tmp_path):
    names = write_yolo(shapes, tmp_path)
    entries = {
        "yaml": "path: .\ntrain: images/train\nval: images/held\n",
        "roboflow": "train: ../images/train\nval: ../images/held\n",
        "lists": "train: train.txt\nval: val.txt\n",
    }
    if layout in entries:
        (tmp_path / "images/val").rename(tmp_path / "images/held")  # only the file tells the role
        (tmp_path / "labels/val").rename(tmp_path / "labels/held")
        numbered = "\n".join(f"  {number}: {name}" for number, name in enumerate(names))
        write(tmp_path / "data.yaml", f"{entries[layout]}names:\n{numbered}\n")
    else:
        write(tmp_path / "classes.txt", "\n".join(names) + "\n")
    for role in ROLES if layout == "lists" else ():
        images = sorted((tmp_path / "images" / role.replace("val", "held")).iterdir())
        lines = [f"./{image.relative_to(tmp_path)}" for image in images]
        write(tmp_path / f"{role}.txt", "\n".join(lines))
    found = read_dataset(tmp_path)
    assert found.form == "YOLO" and found.classes == tuple(names)
    for role in ROLES:
        same(boxes_of(found.splits[role].coco), truth(shapes, role))


@pytest.mark.parametrize("first", [0, 1])
def test_voc(first, shapes, tmp_path):
    write_voc(shapes, tmp_path / "VOC2012", first)
    found = read_dataset(tmp_path)
    assert found.form == "Pascal VOC"
    for role in ROLES:
        coco = found.splits[role].coco
        same(boxes_of(coco), truth(shapes, role), f"{role}_")
        kept = json.loads((shapes / f"annotations/{role}.json").read_text())["annotations"]
        assert sum(x["iscrowd"] for x in coco["annotations"]) == sum(x["iscrowd"] for x in kept)


# --------------------------------------------------------------------------------------------------
# Odd cases


def coco(names, supercategory=None) -> str:
    return json.dumps(
        dict(
            images=[dict(id=n, file_name=name, width=200, height=100) for n, name in names.items()],
            annotations=[dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 3, 4], area=12,
                              iscrowd=0)],
            categories=[dict(id=1, name="cat", supercategory=supercategory)] + (
                [dict(id=0, name=supercategory, supercategory="none")] if supercategory else []),
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        ("train/_annotations.coco.json", "a.jpg", "train/a.jpg"),  # Roboflow
        ("annotations/instances_default.json", "a.jpg", "images/default/a.jpg"),  # CVAT
        ("result.json", "images/a.jpg", "images/a.jpg"),  # Label Studio
        ("result.json", "../../label-studio/data/upload/1/a.jpg", "images/a.jpg"),
        ("annotations.json", "JPEGImages/a.jpg", "JPEGImages/a.jpg"),  # labelme
        ("labels.json", r"C:\Users\me\a.jpg", "any/where/a.jpg"),
    ],
)
def test_coco_of_labelling_tools(file, name, image, tmp_path):
    picture(tmp_path / image)
    write(tmp_path / file, coco({1: name}, "animals"))
    found = read_dataset(tmp_path)
    split = found.splits["train"]
    assert (split.images / split.coco["images"][0]["file_name"]).resolve() == tmp_path / image
    assert (split.file is None) == (not (split.images / name).is_file())
    assert found.classes == ("cat",)  # without Roboflow's first category


@pytest.mark.parametrize(
    ("subject", "entry"),
    [
        ("images", dict(id="1")),
        ("categories", dict(id="1")),
        ("annotations", dict(image_id="1")),
        ("annotations", dict(category_id="1")),
        *(
            ("annotations", dict(bbox=None, segmentation=mask))
            for mask in (
                [[1, 2, 4, 2, 4, 6, 1, 6]],
                dict(size=[100, 200], counts=[102, 4, 96, 4, 96, 4, 19694]),
                dict(size=[100, 200], counts="V34P3000^Tc0"),
            )
        ),
    ],
)
def test_coco_that_is_written_as_it_is_meant(subject, entry, tmp_path):
    """Ids that are text in one place and numbers in another; masks without boxes."""
    picture(tmp_path / "a.jpg")
    content = json.loads(coco({1: "a.jpg"}))
    content[subject][0] |= entry
    write(tmp_path / "train.json", json.dumps(content))
    found = read_dataset(tmp_path)
    split = found.splits["train"]
    assert split.file is None and found.notes[0].startswith("train.json: ")
    ids = [split.coco[key][0]["id"] for key in ("images", "categories")]
    (item,) = split.coco["annotations"]
    assert [*ids, item["image_id"], item["category_id"]] == [1] * 4
    assert item["bbox"] == [1, 2, 3, 4] and item["area"] == 12


def test_coco_of_which_images_are_missing(tmp_path):
    """They are missing by their own name, not outside of the folder by another machine's path."""
    picture(tmp_path / "images/a.jpg")
    write(tmp_path / "result.json", coco({1: "/data/upload/a.jpg", 2: "https://a.b/c/d.jpg"}))
    names = [i["file_name"] for i in read_dataset(tmp_path).splits["train"].coco["images"]]
    assert names == ["images/a.jpg", "d.jpg"]


@pytest.mark.parametrize(
    ("label", "boxes"),
    [
        ("", []),
        (None, []),
        ("\n1 0.5 0.5 0.2 0.4\n\n", [("b", 80, 30, 40, 40)]),
        ("0 0.5 0.5 0.2 0.4 0.87", [("a", 80, 30, 40, 40)]),  # with a score
        ("1.0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4", [("b", 20, 10, 40, 30)]),  # a polygon
        ("0 0.95 0.5 0.2 0.4", [("a", 170, 30, 30, 40)]),  # clipped
        ("0 20 10 60 40", [("a", 20, 10, 40, 30)]),  # corners in pixels
        ("0 190 90 20 20", [("a", 180, 80, 20, 20)]),  # centre in pixels
    ],
)
def test_yolo_labels(label, boxes, tmp_path):
    picture(tmp_path / "images/x.jpg")
    picture(tmp_path / "images/y.jpg")
    write(tmp_path / "labels/y.txt", "")
    if label is not None:
        write(tmp_path / "labels/x.txt", label)
    write(tmp_path / "classes.txt", "a\nb\n")
    found = read_dataset(tmp_path)
    assert boxes_of(found.splits["train"].coco)["x.jpg"] == boxes
    assert any("pixels" in note for note in found.notes) == (" 20 " in (label or ""))


def test_an_upright_photograph(tmp_path):
    """EXIF says that it is turned, and OpenCV turns it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "x.jpg", exif=exif)
    write(tmp_path / "x.txt", "0 0.5 0.5 0.2 0.4")
    found = read_dataset(tmp_path)
    (image,) = found.splits["train"].coco["images"]
    assert (image["width"], image["height"]) == (100, 200)
    assert read(tmp_path)["x.jpg"] == [("0", 40, 60, 20, 80)] and found.classes == ("0",)


def test_voc_beside_images_with_another_name(tmp_path):
    picture(tmp_path / "train/x.PNG")
    box = "<bndbox><xmax>1.5</xmax><xmin>50</xmin><ymin>0</ymin><ymax>60</ymax></bndbox>"
    write(tmp_path / "train/x.xml", "<annotation><filename>was.jpg</filename>"
          f"<object><name> cat </name>{box}</object></annotation>")  # fmt: skip
    write(tmp_path / "train/lost.xml", "<annotation/>")
    picture(tmp_path / "older/x.PNG")  # further away
    write(tmp_path / "ImageSets/Main/train.txt", "another\n")
    found = read_dataset(tmp_path)
    coco = found.splits["train"].coco
    assert boxes_of(coco) == {"x.PNG": [("cat", 1.5, 0, 48.5, 60)]}
    assert coco["images"][0]["file_name"] == "train/x.PNG"
    lost, unlabelled, listed = found.notes
    assert "lost.xml" in lost and "older/x.PNG" in unlabelled and "ImageSets" in listed


def test_yolo_of_images_that_are_links(tmp_path):
    """Within the folder; the files behind them do not count as images without objects."""
    (tmp_path / "images").mkdir()
    picture(tmp_path / "raw/x.jpg")
    (tmp_path / "images/x.jpg").symlink_to("../raw/x.jpg")
    write(tmp_path / "labels/x.txt", "0 0.5 0.5 0.2 0.4")
    (image,) = read_dataset(tmp_path).splits["train"].coco["images"]
    assert image["file_name"] == "images/x.jpg"


def test_one_split_of_a_yolo_data_set(tmp_path):
    """Its data.yaml lies one level up."""
    picture(tmp_path / "train/images/x.jpg")
    write(tmp_path / "train/labels/x.txt", "1 0.5 0.5 0.2 0.4")
    write(tmp_path / "data.yaml", "names: [a, b]\ntrain: train/images")
    found = read_dataset(tmp_path / "train")
    assert found.classes == ("a", "b") and str(tmp_path / "data.yaml") in found.notes[0]
    assert boxes_of(found.splits["train"].coco) == {"x.jpg": [("b", 80, 30, 40, 40)]}


@pytest.mark.parametrize(
    ("image", "told"),
    [("a.jpg", "a.jpg"), ("a.png", r"C:\me\b.jpg"), ("../images/a.jpg", "../images/a.jpg")],
)
def test_labelme(image, told, tmp_path):
    picture(tmp_path / "val" / image)
    picture(tmp_path / "train/c.jpg")
    shapes = [
        dict(label="cat", points=[[30, 40], [10, 20.5]], shape_type="rectangle"),
        dict(label="50%", points=[[30, 40], [33, 44]], shape_type="circle"),
        dict(label="cat", points=[[1, 2], [5, 2], [3, 8]]),
        dict(label="cat", points=[[1, 2]], shape_type="point"),
    ]
    about = dict(imageData=None, imageHeight=100, imageWidth=200)
    write(tmp_path / "val/a.json", json.dumps(dict(shapes=shapes, imagePath=told, **about)))
    write(tmp_path / "train/c.json", json.dumps(dict(shapes=[], imagePath="c.jpg", **about)))
    found = read_dataset(tmp_path)
    assert found.form == "labelme" and found.classes == ("50%", "cat")
    assert found.splits["train"].coco["annotations"] == [] and "point" in found.notes[-1]
    (boxes,) = boxes_of(found.splits["val"].coco).values()
    assert boxes == [("50%", 25, 35, 10, 10), ("cat", 1, 2, 4, 6), ("cat", 10, 20.5, 20, 19.5)]


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("filename,width,height,class,xmin,ymin,xmax,ymax", "{},200,100,{},20,10,60,40"),
        ("ImageID;LabelName;X_Min;X_Max;Y_Min;Y_Max", "{};{};0.1;0.3;0.1;0.4"),  # shares
    ],
)
def test_tables(header, values, tmp_path):
    for name in ("x.jpg", "y.jpg", "z.jpg"):
        picture(tmp_path / f"images/{name}")
    separator = max(",;", key=header.count)
    empty = separator.join(["images/y.jpg"] + [""] * header.count(separator))
    rows = [header, values.format(r"C:\images\x.jpg", "cat"), empty]
    write(tmp_path / "train_labels.csv", "\ufeff" + "\n".join(rows))
    write(tmp_path / "test_labels.csv", "\n".join([header, values.format("z.jpg", "a dog")]))
    write(tmp_path / "image-labels.csv", "ImageID,LabelName")  # beside OpenImages' boxes
    found = read_dataset(tmp_path)
    assert found.form == "CSV" and found.classes == ("a dog", "cat")
    assert "image-labels.csv has no columns of boxes and is not read." in found.notes
    assert read(tmp_path) == {"x.jpg": [("cat", 20, 10, 40, 30)], "y.jpg": []}
    assert read(tmp_path, "test") == {"z.jpg": [("a dog", 20, 10, 40, 30)]}


@pytest.mark.parametrize(
    ("names", "classes", "note"),
    [
        (None, ("/j/0x", "/m/01"), r"such as /j/0x\..*class-descriptions-boxable.csv"),
        ("LabelName,DisplayName\n/m/01,Cat\n/j/0x,A dog", ("A dog", "Cat"), None),
        ('/m/01,"Cat, small"', ("/j/0x", "Cat, small"), "such as /j/0x"),
        ("/m/01,Cat\n/j/0x,Cat", ("Cat",), None),
    ],
)
def test_names_of_openimages(names, classes, note, tmp_path):
    picture(tmp_path / "train/x.jpg")
    rows = "ImageID,LabelName,XMin,XMax,YMin,YMax\nx,/m/01,0,1,0,1\nx,/j/0x,0,1,0,1"
    table = write(tmp_path / "train-annotations-bbox.csv", rows)
    if names:
        write(tmp_path / "oidv7-class-descriptions-boxable.csv", names)
    for data in (tmp_path, table):
        found = read_dataset(data)
        _, *notes = found.notes
        assert found.classes == classes and len(notes) == (note is not None)
        assert note is None or re.search(note, notes[0])


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"x.md": "a,b"}, "[.]md.*Roboflow"),
        *(
            ({name: text}, f"{name}.*{form}.*COCO")
            for form, name, text in (
                ("VGG", "v.json", '{"x.jpg1": {"filename": "x.jpg", "file_attributes": {}}}'),
                ("VGG", "v.csv", "filename,file_size,file_attributes,region_count,region_id"),
                ("Label Studio", "s.json", '[{"image": "x.jpg", "l": [{"original_width": 9}]}]'),
            )
        ),
        ({"x.csv": "a,b"}, "x.csv.*image.*xmax"),
        ({"x.csv": "image,class,x1,y1,x2,y2\nx.jpg,a,1,2,3,?"}, "x.csv, line 2"),
        ({"x.csv": "image,class,x1,y1,x2,y2\ny.jpg,a,1,2,3,4"}, "y.jpg"),
        ({"x.json": '{"shapes": [{"label": "a"}], "imagePath": "x.jpg"}'}, "x.json"),
        ({"q.json": '{"shapes": [], "imagePath": "y.jpg"}', "z.json": "[]"}, "y.jpg"),
        ({"x.xml": "<annotation>"}, "x.xml"),
        ({"images/x.txt": "0 0.5 0.5 0.2"}, "x.txt, line 1"),
        ({"images/x.txt": "0 20 10 30 20"}, "x_center"),  # centre or corners
        ({"images/x.txt": "2 .5 .5 .2 .2", "classes.txt": "a\nb"}, "class 2"),
        ({"a.json": coco({1: "x.jpg"}), "b.json": coco({1: "x.jpg"})}, "a.json"),
        ({"a.json": coco({1: "y.jpg"})}, "y.jpg"),
        ({"a.json": coco({1: "x.jpg"}).replace('"bbox"', '"segmentation"')}, "annotation 1"),
        ({"images/x.txt": "0 .5 .5 .2 .2", "data.yaml": "names: [a]\ntrain: nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_read(files, named, tmp_path):
    picture(tmp_path / "images/x.jpg")
    for name, text in files.items():
        write(tmp_path / name, text)
    with pytest.raises(UserError, match=named):
        read_dataset(tmp_path)


# --------------------------------------------------------------------------------------------------
# Splits


def found_with(paths, labels=None) -> Found:
    images = [dict(id=n, file_name=str(p), width=64, height=64) for n, p in enumerate(paths)]
    labels = labels or [1] * len(paths)
    items = [dict(id=n, image_id=n, category_id=label) for n, label in enumerate(labels)]
    categories = [dict(id=label, name=str(label)) for label in sorted(set(labels))]
    coco = dict(images=images, annotations=items, categories=categories)
    return Found("COCO", Path("/"), {"train": Split(coco, Path("/"))})


def held_out(found: Found) -> set[str]:
    return {image["file_name"] for image in found.splits["val"].coco["images"]}


def test_frames_of_a_video_stay_together(tmp_path):
    names = [f"clip{c}_frame_{n:04}.jpg" for c in "abcdefgh" for n in range(5)]
    found = found_with([picture(tmp_path / name, seed=n) for n, name in enumerate(names)])
    split_off(found, 0.25)
    held = Counter(Path(name).name[:5] for name in held_out(found))
    assert held and set(held.values()) == {5} and sum(held.values()) == 10
    assert "video" in found.notes[-1]


@pytest.mark.parametrize("library", [True, False])
def test_copies_and_near_equal_images_stay_together(library, tmp_path, monkeypatch):
    """The same picture under another name; smaller too, which the library of hashes finds."""
    paths = []
    for n in range(10):
        first = picture(tmp_path / f"p{n}_jpg.rf.{n}aa.png", seed=n)
        paths += [first, picture(tmp_path / f"p{n}_jpg.rf.{n}bb.png", seed=100 + n)]
        paths.append(tmp_path / f"{'xyzuvwabcd'[n]}.jpg")
        shutil.copy(first, paths[-1])
        if library:
            with Image.open(first) as image:
                image.resize((100, 50)).save(paths[-1])
    if not library:
        monkeypatch.setattr(splitting, "_hashes", lambda paths: None)
    found = found_with(paths)
    split_off(found, 0.3)
    held = held_out(found)
    groups = [sum(str(p) in held for p in paths[i : i + 3]) for i in range(0, 30, 3)]
    assert set(groups) == {0, 3} and sum(groups) == 9
    assert " 30 images do" in found.notes[-1] and ("pip" in found.notes[-1]) == (not library)


def test_classes_are_spread_evenly(tmp_path):
    paths = [picture(tmp_path / f"{n}.png", seed=n) for n in range(40)]
    found = found_with(paths, [2 if n % 8 == 0 else 1 for n in range(40)])
    split_off(found, 0.2)
    labels = Counter(x["category_id"] for x in found.splits["val"].coco["annotations"])
    assert labels == {1: 7, 2: 1}
    assert len(found.splits["train"].coco["images"]) == 32


def test_one_group_cannot_be_split(tmp_path):
    with pytest.raises(UserError, match="--val"):
        split_off(found_with([picture(tmp_path / f"{n}.png") for n in range(3)]), 0.2)


def test_shared_images_are_told(tmp_path):
    train = [picture(tmp_path / f"t{n}.png", seed=n) for n in range(3)]
    val = [picture(tmp_path / "equal.png", seed=0), picture(tmp_path / "other.png", seed=9)]
    with Image.open(train[1]) as image:
        image.save(tmp_path / "near.jpg", quality=70)
    found = found_with(train)
    found.splits["val"] = found_with([*val, tmp_path / "near.jpg"]).splits["train"]
    equal, near = shared_images(found)
    assert "equal.png" in equal and "1 validation images are" in equal
    assert "near.jpg" in near and "1 validation images look" in near
    found.splits["val"] = found_with([val[1]]).splits["train"]
    assert shared_images(found) == []


def test_links_to_folders(tmp_path):
    """The error names the link, its target and what was searched."""
    data, photos = tmp_path / "data", tmp_path / "photos"
    picture(photos / "x.jpg")
    labels = write(data / "labels/x.json", "{}")
    (data / "images").symlink_to(photos)
    for given in (labels, data):
        with pytest.raises(UserError) as error:
            read_dataset(given)
        for path in (given, data / "images", photos):
            assert re.search(rf"{path}(?![/\w])", str(error.value)), path
