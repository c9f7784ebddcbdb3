"""Image files that are missing, damaged, rotated, of another size, or outside of the dataset."""

import functools
import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile, Resize
from PIL import Image
from support.coco import sound

from fastdetr_mmdet.datasets.check import check_annotations, check_files, clean
from fastdetr_mmdet.datasets.check import files as files_module
from fastdetr_mmdet.datasets.check.files import Loader, locate, look_at
from fastdetr_mmdet.datasets.check.sets import CheckedSet

WIDTH, HEIGHT = 60, 40


def picture():
    generator = np.random.default_rng(0)
    small = generator.integers(0, 255, (8, 12, 3), dtype=np.uint8)
    return cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encode(kind, orientation=None, mode="RGB"):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    options = {"exif": exif} if orientation else {}
    Image.fromarray(picture()).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


JPEG, PNG = encode("JPEG"), encode("PNG")


def huge_png(width, height):
    """A PNG whose header claims a size."""
    header = PNG[12:16] + struct.pack(">II", width, height) + PNG[24:29]
    return PNG[:12] + header + struct.pack(">I", zlib.crc32(header)) + PNG[33:]


SOUND = {
    "jpeg": JPEG,
    "grey": encode("JPEG", mode="L"),
    "cmyk": encode("JPEG", mode="CMYK"),
    "padded jpeg": JPEG + bytes(3),
    "jpeg and more": JPEG + b"more" * 2000,
    "png": PNG,
    "alpha": encode("PNG", mode="RGBA"),
    "bmp": encode("BMP"),
    "webp": encode("WEBP"),
    "tiff": encode("TIFF"),
    "ppm": encode("PPM"),
}
BROKEN = {
    "empty": (b"", "file-unreadable"),
    "text": (b"no image", "file-unreadable"),
    "header alone": (JPEG[:200], "file-unreadable"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "file-truncated"),
    "jpeg without end": (JPEG[:-40], "file-truncated"),
    "half a png": (PNG[: len(PNG) // 2], "file-truncated"),
    "png without end": (PNG[:-12], "file-truncated"),
    "half a bmp": (encode("BMP")[:3000], "file-truncated"),
    "bomb": (huge_png(60000, 60000), "file-unreadable"),
    "ribbon": (huge_png(2**21, 1), "file-unreadable"),
    "large": (huge_png(20000, 20000), "file-huge"),
    "less large": (huge_png(14000, 14000), "file-huge"),
}


def look(path, decode=False, **options):
    return look_at(str(path), Loader([LoadImageFromFile(**options)]), {}, decode)


def test_damage_in_the_middle_takes_decoding(tmp_path):
    middle = len(PNG) // 2
    (tmp_path / "image").write_bytes(PNG[:middle] + bytes(40) + PNG[middle + 40 :])
    assert look(tmp_path / "image").problem == ""
    assert look(tmp_path / "image", decode=True).problem == "file-unreadable"


@pytest.mark.parametrize("color_type", ["color", "color_ignore_orientation", "unchanged"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_size_is_what_training_sees(kind, color_type, tmp_path):
    """OpenCV applies EXIF orientation in some formats only, and only with some loaders."""
    path = tmp_path / "image"
    for orientation in range(1, 9):
        path.write_bytes(encode(kind, orientation))
        try:
            loaded = LoadImageFromFile(color_type=color_type)({"img_path": str(path)})["img_shape"]
        except AssertionError:  # some versions of OpenCV do not rotate TIFF
            loaded = None
        for decode in (False, True):
            found = look(path, decode, color_type=color_type)
            assert found.size == (loaded and loaded[::-1])
        if kind == "JPEG":
            turned = color_type == "color" and orientation > 4
            assert found.size == ((HEIGHT, WIDTH) if turned else (WIDTH, HEIGHT))


def test_any_damage_is_a_look_and_no_exception(tmp_path):
    generator = np.random.default_rng(0)
    for n in range(120):
        content = bytearray([JPEG, PNG, encode("JPEG", 6)][n % 3])
        for place in generator.integers(0, len(content), 3):
            content[place] = generator.integers(256)
        if n % 2:
            del content[generator.integers(len(content)) :]
        (tmp_path / "image").write_bytes(content)
        found = look(tmp_path / "image", decode=bool(n % 4 < 2))
        assert found.problem or found.size
    os.mkfifo(tmp_path / "pipe")  # opening it would block
    assert look(tmp_path / "pipe").problem == look(tmp_path).problem == "file-missing"


# --------------------------------------------------------------------------------------------------
# Against annotations


annotated = functools.partial(sound, width=WIDTH, height=HEIGHT)


def check(coco, images, pipeline=None, **options):
    report = check_annotations(coco, "train.json")
    checked = CheckedSet("train.json", str(images), pipeline=pipeline)
    sizes = check_files(report, checked, **options)
    found = {
        name: [coco["images"][n]["file_name"] for n in finding.positions]
        for name, finding in report.findings.items()
        if finding.kind.subject != "annotations"
    }
    return report, sizes, found


@pytest.mark.parametrize("decode, workers", [(False, 1), (True, 3)])
def test_all_kinds(tmp_path, decode, workers, monkeypatch):
    monkeypatch.setattr(files_module, "_BATCH", 5)
    limit = Image.MAX_IMAGE_PIXELS
    contents = {name: content for name, (content, _) in BROKEN.items()} | SOUND
    contents |= {"turned": encode("JPEG", 6), "flipped": encode("JPEG", 2)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    coco = annotated(*contents, "missing", "folder")
    (tmp_path / "folder").mkdir()
    coco["images"][-3]["width"] += 1  # flipped
    done = []
    options = dict(decode=decode, workers=workers, progress=lambda *now: done.append(now))
    report, sizes, found = check(coco, tmp_path, **options)
    expected = {"file-missing": ["missing", "folder"], "file-turned": ["turned"]}
    expected["file-size"] = ["flipped"]
    for name, (_, problem) in BROKEN.items():
        expected.setdefault(problem, []).append(name)
    assert found == expected
    names = [sizes.get(n) and image["file_name"] for n, image in enumerate(coco["images"])]
    assert {sizes[names.index(name)] for name in SOUND} == {(WIDTH, HEIGHT)}
    assert limit == Image.MAX_IMAGE_PIXELS
    assert done == [(n, len(contents)) for n in range(1, len(contents) + 1)]
    for words in ("60 x 40, as loaded 40 x 60, EXIF orientation 6", "image 32 (missing,"):
        assert words in report.text()

    cleaned, counts = clean(report, sizes=sizes)
    kept = {*SOUND, "large", "less large"}
    assert {image["file_name"] for image in cleaned["images"]} == kept
    assert len(cleaned["annotations"]) == 2 * len(kept)
    assert counts["file-truncated"] == 5
    assert check(cleaned, tmp_path)[2] == {"file-huge": ["large", "less large"]}


DEEP = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("name", "pixels", "deep"),
    [("a.tiff", DEEP, True), ("a.png", DEEP, True), ("b.png", np.dstack([DEEP] * 3), True),
     ("b.tiff", np.dstack([DEEP] * 3), True), ("c.png", DEEP.astype(np.uint8), False)],
)  # fmt: skip
def test_sixteen_bits_are_told(name, pixels, deep, tmp_path):
    """OpenCV silently keeps the upper 8 bits, which are black here."""
    cv2.imwrite(str(tmp_path / name), pixels)
    assert check(annotated(name), tmp_path)[2] == ({"file-depth": [name]} if deep else {})
    assert look(tmp_path / name, color_type="unchanged").problem == ""


@pytest.mark.parametrize("folder", ["none", "."])
def test_a_wrong_folder_is_named_and_nothing_else(folder, tmp_path):
    report, _, found = check(annotated("a.jpg", "b.jpg"), tmp_path / folder)
    assert list(found) == ["images-folder"]
    text = report.refusal()
    assert str(tmp_path / folder) in text and "--write-cleaned" not in text and "allow" not in text


def test_orientations(tmp_path):
    """Annotations must have the loaded size; flips cannot be checked."""
    names = [f"{orientation}.jpg" for orientation in range(1, 9)]
    for orientation, name in enumerate(names, start=1):
        (tmp_path / name).write_bytes(encode("JPEG", orientation))
    stored = annotated(*names)
    turned = annotated(*names[4:], width=HEIGHT, height=WIDTH)
    assert check(stored, tmp_path)[2] == {"file-orientation": names[1:4], "file-turned": names[4:]}
    assert check(turned, tmp_path)[2] == {}
    pipeline = [LoadImageFromFile(color_type="color_ignore_orientation")]
    assert check(stored, tmp_path, pipeline=pipeline)[2] == {}
    assert check(turned, tmp_path, pipeline=pipeline)[2] == {"file-turned": names[4:]}


class LoadArray:
    """A user's own transform, for files that OpenCV does not read."""

    def __call__(self, results):
        results["img"] = np.load(results["img_path"])
        return results


def test_the_pipeline_reads_the_images(tmp_path):
    for n in range(4):
        np.save(tmp_path / f"{n}.npy", np.zeros((HEIGHT, WIDTH, 5), np.uint16))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    coco = annotated("0.npy", "1.npy", "2.npy", "3.npy", "broken.npy")
    coco["images"][1]["width"] += 1
    pipeline = [lambda results: dict(results, seen=True), LoadArray()]
    _, sizes, found = check(coco, tmp_path, pipeline=pipeline)
    assert found == {"file-size": ["1.npy"], "file-unreadable": ["broken.npy"]}
    assert sizes == dict.fromkeys(range(4), (WIDTH, HEIGHT))
    assert check(coco, tmp_path, pipeline=pipeline, most=3)[1].keys() == {0, 2}
    assert len(check(coco, tmp_path)[2]["file-unreadable"]) == 5  # by OpenCV, without a pipeline


def test_images_that_resize_to_nothing(tmp_path):
    """Without the check OpenCV's assertion fails in the middle of an epoch."""
    sizes = {"line.png": (3000, 1), "thread.png": (2, 2000), "bar.png": (200, 2)}
    coco = annotated(*sizes)
    for image, (width, height) in zip(coco["images"], sizes.values(), strict=True):
        cv2.imwrite(str(tmp_path / image["file_name"]), np.zeros((height, width, 3), np.uint8))
        image.update(width=width, height=height)
    pipeline = [LoadImageFromFile(), Resize(scale=(160, 160), keep_ratio=True)]
    report, _, found = check(coco, tmp_path, pipeline=pipeline)
    assert found["image-aspect"] == ["line.png", "thread.png", "bar.png"]
    assert found["image-too-thin"] == ["line.png", "thread.png"]
    assert "line.png" in report.refusal() and "Resize" in report.refusal()


def test_sizes_that_are_missing_are_read_from_the_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(encode("JPEG", 6))
    (tmp_path / "c.jpg").write_bytes(b"")
    coco = annotated("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    for image in coco["images"]:
        image["width"] = None
    report, sizes, found = check(coco, tmp_path)
    assert found["image-size"] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    cleaned, _ = clean(report, sizes=sizes)
    assert [(i["width"], i["height"]) for i in cleaned["images"]] == [(60, 40), (40, 60)]


# --------------------------------------------------------------------------------------------------
# Paths


@pytest.fixture
def tree(tmp_path):
    """A dataset with a folder of images, and a secret outside of it."""
    for name in ("data/train/a.jpg", "data/train/sub/b.jpg", "data/val/c.jpg", "secret/s.jpg"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(JPEG)
    (tmp_path / "data/train/link.jpg").symlink_to(tmp_path / "secret/s.jpg")
    (tmp_path / "data/train/inner.jpg").symlink_to("sub/b.jpg")
    (tmp_path / "data/train/dangling.jpg").symlink_to("none.jpg")
    (tmp_path / "data/train/away").symlink_to(tmp_path / "secret")
    (tmp_path / "data/train/near").symlink_to(tmp_path / "data/val")
    (tmp_path / "data-other").mkdir()
    (tmp_path / "data-other/o.jpg").write_bytes(JPEG)
    return tmp_path


# A file name, its problem with --images alone, and with --root too
PATHS = [
    *((name, "", "") for name in ("a.jpg", "./a.jpg", "sub/b.jpg", "sub/../a.jpg", "sub//b.jpg")),
    *((name, "", "") for name in ("inner.jpg", "{tree}/data/train/a.jpg")),
    ("../val/c.jpg", "path-outside", ""),
    ("{tree}/data/val/c.jpg", "path-outside", ""),
    ("near/c.jpg", "path-symlink", ""),
    *(
        (name, "path-outside", "path-outside")
        for name in ("../../secret/s.jpg", "{tree}/secret/s.jpg", "../../data-other/o.jpg")
    ),
    ("../../../../../../../../../../../etc/passwd", "path-outside", "path-outside"),
    # the last path looks inside, but the system follows the link first
    *(
        (name, "path-symlink", "path-symlink")
        for name in ("link.jpg", "away/s.jpg", "away/../data-other/o.jpg")
    ),
    *(
        (name, "file-missing", "file-missing")
        for name in (
            *("none.jpg", "dangling.jpg", "none/a.jpg", "a.jpg/b.jpg", "sub", "sub/..", ".."),
            "x" * 300,
        )
    ),
]


def test_paths(tree, monkeypatch):
    monkeypatch.chdir(tree)
    names = [name.format(tree=tree) for name, _, _ in PATHS]
    for images in ("data/train", "data/train/", str(tree / "data/train")):
        for root, column in ((None, 1), ("data", 2), (f"{tree}/data/", 2)):
            for name, (problem, note), case in zip(
                names, locate(names, images, root), PATHS, strict=True
            ):
                assert (problem, bool(note)) == (case[column], bool(case[column])), name
    # data_root and image folder may be links, because the config names them
    (tree / "linked").symlink_to("data")
    (tree / "data/images").symlink_to(tree / "secret")
    assert locate(["a.jpg", "sub/b.jpg"], "linked/train", "linked") == [("", "")] * 2
    assert locate(["s.jpg"], "data/images", "data") == [("", "")]


def test_each_folder_is_listed_once(tree, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    places = locate(["a.jpg", "sub/b.jpg"] * 50, str(tree / "data/train"))
    assert len(listed) == 2
    assert places == [("", "")] * 100


@pytest.mark.parametrize(
    "name, named",
    [
        ("sub\\b.jpg", ("sub/b.jpg", "\\")),
        ("C:\\data\\train\\a.jpg", ("there is a.jpg",)),
        ("train/a.jpg", ("remove train/", "--images", "data/")),
        ("images/a.jpg", ("remove images/",)),
        ("/elsewhere/train/a.jpg", ("there is a.jpg",)),
        ("A.JPG", ("there is a.jpg", "lower case")),
        ("SUB/b.jpg", ("there is sub/b.jpg", "lower case")),
        ("a.png", ("there is a.jpg",)),
        ("b.jpg", ("there is sub/b.jpg",)),
    ],
)
def test_a_similar_name_is_named_with_the_fix(tree, monkeypatch, name, named):
    monkeypatch.chdir(tree)
    ((problem, note),) = locate([name], "data/train")
    assert problem in ("file-missing", "path-outside")
    assert all(words in note for words in named), note
