"""The shapes data set: files, command line and annotations."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from fastdetr_mmdet.datasets import shapes, shapes_coco
from fastdetr_mmdet.datasets.shapes import CLASSES, main, summary, write_shapes
from fastdetr_mmdet.datasets.shapes_scene import compose


def read_all(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def decode(segmentation: list, height: int, width: int) -> np.ndarray:
    rles = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shapes")
    write_shapes(out, train=40, val=3)
    return out


# Files


def test_same_arguments_give_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shapes(tmp_path / name, train=3, val=2, seed=7)
    first, second = read_all(tmp_path / "a"), read_all(tmp_path / "b")
    assert len(first) == 3 + 2 + 2 + 1
    assert first == second


def test_an_image_does_not_depend_on_how_many_are_asked_for(tmp_path):
    write_shapes(tmp_path / "few", train=2, val=1)
    write_shapes(tmp_path / "many", train=4, val=3)
    few, many = read_all(tmp_path / "few"), read_all(tmp_path / "many")
    for name in ("train/000001.jpg", "train/000002.jpg", "val/000001.jpg"):
        assert few[name] == many[name]
    few, many = (json.loads(f["annotations/train.json"]) for f in (few, many))
    assert few["images"] == many["images"][:2]
    assert few["annotations"] == many["annotations"][: len(few["annotations"])]


def test_seed_split_and_number_each_change_the_image():
    images = [compose(*key).image for key in ((0, "train", 0), (1, "train", 0), (0, "val", 0))]
    images.append(compose(0, "train", 1).image)
    assert len({image.tobytes() for image in images}) == 4


def test_opencv_threads_are_left_as_they_were(tmp_path):
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        expected = cv2.getNumThreads()  # 1 where OpenCV is built without threads
        write_shapes(tmp_path / "out", train=1, val=0)
        assert cv2.getNumThreads() == expected
    finally:
        cv2.setNumThreads(before)


def test_the_second_call_writes_nothing(tmp_path):
    write_shapes(tmp_path, train=2, val=1)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    before = {p: p.stat().st_mtime_ns for p in files}
    write_shapes(tmp_path, train=2, val=1)
    assert before == {p: p.stat().st_mtime_ns for p in files}


@pytest.mark.parametrize("change", [{"train": 3}, {"val": 2}, {"seed": 1}])
def test_a_different_data_set_is_not_overwritten(tmp_path, change):
    arguments = {"train": 2, "val": 1, "seed": 0}
    write_shapes(tmp_path, **arguments)
    before = read_all(tmp_path)
    with pytest.raises(FileExistsError, match=r"different data set.*choose another"):
        write_shapes(tmp_path, **(arguments | change))
    assert read_all(tmp_path) == before


def test_a_data_set_of_another_generator_version_is_not_taken_for_ours(tmp_path, monkeypatch):
    write_shapes(tmp_path, train=1, val=0)
    monkeypatch.setattr(shapes, "GENERATOR_VERSION", shapes.GENERATOR_VERSION + 1)
    with pytest.raises(FileExistsError, match="different data set"):
        write_shapes(tmp_path, train=1, val=0)


def test_foreign_files_are_refused_and_kept(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "000001.jpg").write_bytes(b"a holiday")
    with pytest.raises(FileExistsError, match="empty folder"):
        write_shapes(tmp_path, train=1, val=0)
    assert read_all(tmp_path) == {"train/000001.jpg": b"a holiday"}


def test_an_interrupted_run_is_not_complete_and_is_made_again(tmp_path, monkeypatch):
    out, whole = tmp_path / "out", tmp_path / "whole"
    write_shapes(whole, train=3, val=1)

    def interrupted(seed, split, index):
        if index == 2:
            raise KeyboardInterrupt
        return compose(seed, split, index)

    monkeypatch.setattr(shapes, "compose", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_shapes(out, train=3, val=1)
    monkeypatch.undo()
    assert not (out / "dataset.json").exists()
    with pytest.raises(FileExistsError, match="different data set"):
        write_shapes(out, train=2, val=1)
    write_shapes(out, train=3, val=1)
    assert read_all(out) == read_all(whole)


def test_a_lost_image_is_made_again(tmp_path):
    write_shapes(tmp_path, train=2, val=1)
    before = read_all(tmp_path)
    (tmp_path / "train" / "000002.jpg").unlink()
    write_shapes(tmp_path, train=2, val=1)
    assert read_all(tmp_path) == before


@pytest.mark.parametrize(
    "arguments, message",
    [({"train": -1}, "0 or more"), ({"val": -2}, "0 or more"), ({"seed": -1}, "seed must be")],
)
def test_numbers_out_of_range_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        write_shapes(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; give a folder"):
        write_shapes(tmp_path / "file")
    assert main([str(tmp_path / "file")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert (tmp_path / "file").read_text() == "mine"


def test_command_line(tmp_path):
    out, root = tmp_path / "out", Path(shapes.__file__).parents[2]
    command = [sys.executable, "-m", "fastdetr_mmdet.datasets.shapes", str(out)]
    done = subprocess.run(
        [*command, "--train", "2", "--val", "1", "--seed", "3"],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "train: 2 images" in done.stdout and "val: 1 images" in done.stdout
    write_shapes(tmp_path / "same", train=2, val=1, seed=3)
    assert read_all(out) == read_all(tmp_path / "same")


def test_only_numpy_and_opencv_are_imported():
    allowed = {"numpy", "cv2", "fastdetr_mmdet"} | set(sys.stdlib_module_names)
    files = sorted(Path(shapes.__file__).parent.glob("shapes*.py"))
    assert len(files) == 5
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert {name.split(".")[0] for name in names} <= allowed
            ours = [name for name in names if name.startswith("fastdetr_mmdet")]
            assert all(name.startswith("fastdetr_mmdet.datasets") for name in ours)


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
    boxes = [a for a in coco["annotations"] if not a["iscrowd"]]
    text = summary(written, "train")
    assert f"40 images ({40 - len({a['image_id'] for a in coco['annotations']})} empty)" in text
    assert f"{len(boxes)} boxes" in text
    assert f"small {sum(a['area'] < 1024 for a in boxes)}," in text


def test_summary_of_no_images(tmp_path):
    write_shapes(tmp_path, train=0, val=0)
    assert "0 images (0 empty), 0 boxes" in summary(tmp_path, "val")


@pytest.mark.parametrize("corner", [False, True])
def test_rle_is_exact(corner):
    mask = np.random.default_rng(0).random((13, 17)) < 0.4
    mask[0, 0] = corner
    rle = shapes_coco.mask_to_rle(mask)
    assert np.array_equal(decode([rle], 13, 17), mask)


def test_polygons_keep_holes_and_parts():
    mask = np.zeros((60, 80), bool)
    mask[5:40, 10:50] = True
    mask[15:25, 20:30] = False
    mask[28:36, 33:45] = False
    mask[50:58, 60:80] = True
    polygons = shapes_coco.mask_to_polygons(mask)
    assert len(polygons) == 2
    # Corners of holes may be cut by the tolerance of the polygons; a lost hole has 80 pixels.
    assert (decode(polygons, 60, 80) != mask).sum() <= 8


def test_polygons_follow_the_masks():
    objects = [o for index in range(40) for o in compose(0, "val", index).objects]
    ious = []
    for item in objects:
        drawn = decode(shapes_coco.mask_to_polygons(item.mask), *item.mask.shape)
        ious.append((drawn & item.mask).sum() / (drawn | item.mask).sum())
    assert np.mean(ious) > 0.96 and min(ious) > 0.75
