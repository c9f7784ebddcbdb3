"""The shapes dataset: files, command line, annotations, scenes and placement rules."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fastdetr_mmdet.datasets.shapes import CLASSES, coco, summary, write_shapes
from fastdetr_mmdet.datasets.shapes import write as write_module
from fastdetr_mmdet.datasets.shapes.__main__ import main
from fastdetr_mmdet.datasets.shapes.scene import compose

# Of 40 and 3 images with seed 0
DIGESTS = {
    "train": "d8090dc4886ec124416cf7c9f611ef3e93fccc6119771244c9573484a1802f83",
    "val": "a6e0e9b7a089fd265621e692400dfd5091c98755bd676d5aa821c272cd3b7f4c",
}
# Of these pictures scaled to 4 x 3
# fmt: off
GREY_LEVELS = {
    "train/000001.jpg": [151, 116, 143, 156, 147, 59, 110, 156, 121, 119, 133, 155],
    "train/000020.jpg": [129, 113, 118, 108, 95, 112, 118, 132, 103, 100, 117, 111],
    "train/000033.jpg": [152, 139, 131, 92, 168, 176, 111, 144, 152, 117, 143, 190],
    "val/000002.jpg": [104, 95, 85, 111, 104, 70, 75, 102, 104, 99, 95, 106],
}
# fmt: on


def read_all(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shapes")
    write_shapes(out, train=40, val=3)
    return out


# Files


def test_annotations_never_change(written):
    """The docs' figures use this dataset; annotations are equal on all machines."""
    for split, digest in DIGESTS.items():
        content = (written / f"annotations/{split}.json").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_pictures_never_change(written):
    """On other processors they differ by a few grey levels at most."""
    for name, expected in GREY_LEVELS.items():
        picture = cv2.imread(str(written / name), cv2.IMREAD_GRAYSCALE)
        thumbnail = cv2.resize(picture, (4, 3), interpolation=cv2.INTER_AREA).ravel()
        np.testing.assert_allclose(thumbnail.astype(int), expected, atol=3)


def test_an_image_depends_on_seed_split_and_number_alone(written, tmp_path):
    write_shapes(tmp_path / "few", train=2, val=1)
    few, many = read_all(tmp_path / "few"), read_all(written)
    for name in ("train/000001.jpg", "train/000002.jpg", "val/000001.jpg"):
        assert few[name] == many[name]
    keys = ((0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1))
    assert len({compose(*key).image.tobytes() for key in keys}) == 4


def test_opencv_threads_are_left_as_they_were(tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        expected = cv2.getNumThreads()  # 1 if OpenCV is built without threads
        write_shapes(tmp_path / "out", train=1, val=0)
        assert cv2.getNumThreads() == expected
    finally:
        cv2.setNumThreads(before)


@pytest.mark.parametrize("change", [{"train": 3}, {"val": 2}, {"seed": 1}, {}])
def test_a_different_data_set_is_not_overwritten(tmp_path, monkeypatch, change):
    """With other numbers, or from another version of the generator."""
    arguments = {"train": 2, "val": 1, "seed": 0}
    write_shapes(tmp_path, **arguments)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files}
    write_shapes(tmp_path, **arguments)  # the same one: nothing to write
    if not change:
        monkeypatch.setattr(write_module, "GENERATOR_VERSION", write_module.GENERATOR_VERSION + 1)
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        write_shapes(tmp_path, **(arguments | change))
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in files} == before


def test_foreign_files_are_refused_and_kept(tmp_path, capsys):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000001.jpg").write_bytes(b"a holiday")
    with pytest.raises(FileExistsError, match=str(tmp_path)):
        write_shapes(tmp_path, train=1, val=0)
    assert read_all(tmp_path) == {"train/000001.jpg": b"a holiday"}
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="file"):
        write_shapes(tmp_path / "file")
    assert main([str(tmp_path / "file")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_unfinished_data_sets_are_made_again(tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_shapes(whole, train=3, val=1)

    def interrupted(seed, split, index):
        if index == 2:
            raise KeyboardInterrupt
        return compose(seed, split, index)

    monkeypatch.setattr(write_module, "compose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(out, train=3, val=1)
    monkeypatch.undo()
    assert not (out / "dataset.json").exists()
    with pytest.raises(FileExistsError):
        write_shapes(out, train=2, val=1)
    write_shapes(out, train=3, val=1)
    assert read_all(out) == read_all(whole)
    (out / "train" / "000002.jpg").unlink()
    write_shapes(out, train=3, val=1)
    assert read_all(out) == read_all(whole)


@pytest.mark.parametrize("arguments", [{"train": -1}, {"val": -2}, {"seed": -1}, {"seed": 2**32}])
def test_numbers_out_of_range_are_refused(tmp_path, arguments):
    with pytest.raises(ValueError, match=str(*arguments.values())):
        write_shapes(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


# Annotations


def test_coco_reads_the_annotations(written, capsys):
    coco = COCO(written / "annotations" / "train.json")
    assert tuple(c["name"] for c in coco.loadCats(coco.getCatIds())) == CLASSES
    assert sorted(coco.imgs) == list(range(1, 41))
    assert sorted(coco.anns) == list(range(1, len(coco.anns) + 1))
    for image in coco.imgs.values():
        pixels = cv2.imread(str(written / "train" / image["file_name"]))
        assert pixels.shape == (image["height"], image["width"], 3)
    for ann in coco.anns.values():
        x, y, w, h = ann["bbox"]
        image = coco.imgs[ann["image_id"]]
        assert x >= 0 and y >= 0 and x + w <= image["width"] and y + h <= image["height"]
        assert min(w, h) >= 4
        mask = coco.annToMask(ann).astype(bool)
        assert int(mask.sum()) == pytest.approx(ann["area"], rel=0.1)
        rows, cols = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        box = [cols[0], rows[0], cols[-1] + 1 - cols[0], rows[-1] + 1 - rows[0]]
        np.testing.assert_allclose(box, ann["bbox"], atol=2)


def test_summary_counts_what_is_there(written):
    coco = json.loads((written / "annotations" / "train.json").read_text())
    areas = [a["area"] for a in coco["annotations"] if not a["iscrowd"]]
    text = summary(written, "train")
    assert f"40 images ({40 - len({a['image_id'] for a in coco['annotations']})} empty)" in text
    assert f"{len(areas)} boxes" in text and f"small {sum(a < 1024 for a in areas)}," in text


@pytest.mark.parametrize("corner", [False, True])
def test_rle_is_exact(corner):
    mask = np.random.default_rng(0).random((13, 17)) < 0.4
    mask[0, 0] = corner
    rle = coco_mask.frPyObjects(coco.mask_to_rle(mask), 13, 17)
    assert np.array_equal(coco_mask.decode(rle), mask)


# Scenes


def test_every_object_is_readable():
    hidden = 0
    for scene in (compose(0, "train", index) for index in range(25)):
        claimed = np.zeros(scene.image.shape[:2], int)
        for item, mask in scene.objects:
            claimed += mask
            if item.is_crowd:
                continue
            assert mask.sum() >= max(40, 0.45 * item.full_area)
            assert np.ptp(np.argwhere(mask), axis=0).min() >= 3
            hidden += mask.sum() < item.full_area
        assert claimed.max() <= 1
    assert hidden > 6  # occlusion does happen
