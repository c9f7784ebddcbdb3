"""Image files that are missing, broken, turned, of another size, or not where they may be."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from fastdetr_mmdet.datasets.check import check_annotations, check_files, clean, files
from fastdetr_mmdet.datasets.check import pixels as pixels_module
from fastdetr_mmdet.datasets.check.paths import locate
from fastdetr_mmdet.datasets.check.pixels import look_at

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


def huge_png(width, height):
    """The header of a PNG that claims a size."""

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


JPEG, PNG = encode("JPEG"), encode("PNG")
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
    "empty": (b"", "file-unreadable", "it is empty"),
    "text": (b"no image", "file-unreadable", "OpenCV cannot decode it"),
    "header alone": (JPEG[:200], "file-unreadable", "OpenCV cannot decode it"),
    "half a jpeg": (JPEG[: len(JPEG) // 2], "file-truncated", "truncated"),
    "jpeg without end": (JPEG[:-40], "file-truncated", "truncated"),
    "half a png": (PNG[: len(PNG) // 2], "file-truncated", "truncated"),
    "png without end": (PNG[:-12], "file-truncated", ""),
    "half a bmp": (encode("BMP")[:3000], "file-truncated", "truncated"),
    "bomb": (
        huge_png(60000, 60000),
        "file-unreadable",
        "60000 x 60000 pixels are more than OpenCV",
    ),
    "ribbon": (huge_png(2**21, 1), "file-unreadable", "more than OpenCV reads"),
    "large": (huge_png(20000, 20000), "file-huge", "20000 x 20000 pixels"),
}


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", SOUND)
def test_sound_images(name, decode, tmp_path):
    (tmp_path / "image").write_bytes(SOUND[name])
    look = look_at(str(tmp_path / "image"), decode)
    assert (look.size, look.problem, look.orientation) == ((WIDTH, HEIGHT), "", 1)


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_images(name, decode, tmp_path):
    content, problem, words = BROKEN[name]
    (tmp_path / "image").write_bytes(content)
    look = look_at(str(tmp_path / "image"), decode)
    assert look.problem == problem
    assert words in look.note and look.note


def test_damage_in_the_middle_takes_decoding(tmp_path):
    middle = len(PNG) // 2
    (tmp_path / "image").write_bytes(PNG[:middle] + bytes(40) + PNG[middle + 40 :])
    assert look_at(str(tmp_path / "image")).problem == ""
    assert look_at(str(tmp_path / "image"), decode=True).problem == "file-unreadable"


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_what_training_sees(orientation, kind, decode, tmp_path):
    """OpenCV turns some formats by EXIF and others not."""
    path = tmp_path / "image"
    path.write_bytes(encode(kind, orientation))
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    look = look_at(str(path), decode)
    if pixels is None:  # some versions of OpenCV cannot turn TIFF
        assert look.problem == "file-unreadable"
        return
    assert look.size == pixels.shape[1::-1]
    if kind == "JPEG":
        assert look.stored == (WIDTH, HEIGHT)
        assert look.orientation == orientation
        assert (look.size == look.stored) == (orientation < 5)


def test_any_damage_is_a_look_and_no_exception(tmp_path):
    generator = np.random.default_rng(0)
    for n in range(120):
        content = bytearray([JPEG, PNG, encode("JPEG", 6)][n % 3])
        for place in generator.integers(0, len(content), 3):
            content[place] = generator.integers(256)
        if n % 2:
            del content[generator.integers(len(content)) :]
        (tmp_path / "image").write_bytes(content)
        look = look_at(str(tmp_path / "image"), decode=bool(n % 4 < 2))
        assert look.problem or look.size


def test_no_file_and_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert look_at(str(tmp_path / "pipe")).problem == "file-missing"
    assert look_at(str(tmp_path)).problem == "file-missing"
    assert look_at(str(tmp_path / "none")).note == "No such file or directory"


# --------------------------------------------------------------------------------------------------
# Against annotations


def annotate(*names, width=WIDTH, height=HEIGHT):
    return {
        "images": [
            {"id": n, "file_name": name, "width": width, "height": height}
            for n, name in enumerate(names, start=1)
        ],
        "annotations": [
            {
                "id": n,
                "image_id": n,
                "category_id": 1,
                "bbox": [n, 2, 9, 9],
                "area": 81,
                "iscrowd": 0,
            }
            for n in range(1, len(names) + 1)
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }


def check(coco, images, **options):
    report = check_annotations(coco, "train.json")
    sizes = check_files(report, str(images), **options)
    found = {
        name: [coco["images"][n]["file_name"] for n in finding.positions]
        for name, finding in report.findings.items()
    }
    return report, sizes, found


@pytest.fixture
def opencv_threads():
    """OpenCV with threads at work, which a forked process does not have."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    cv2.resize(np.zeros((400, 400, 3), np.uint8), (1600, 1600), interpolation=cv2.INTER_CUBIC)
    yield
    assert cv2.getNumThreads() == 2
    cv2.setNumThreads(before)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_kinds(tmp_path, workers, monkeypatch, opencv_threads):
    monkeypatch.setattr(files, "_CHUNK", 3)  # several tasks
    contents = {name: content for name, (content, _, _) in BROKEN.items()} | SOUND
    contents |= {"turned": encode("JPEG", 6), "flipped": encode("JPEG", 2)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    coco = annotate(*contents, "missing", "folder")
    (tmp_path / "folder").mkdir()
    coco["images"][-3]["width"] += 1  # flipped
    sizes_said = {"large": (20000, 20000)}
    for image in coco["images"]:
        if image["file_name"] in sizes_said:
            image["width"], image["height"] = sizes_said[image["file_name"]]
    done = []
    report, sizes, found = check(
        coco, tmp_path, workers=workers, progress=lambda *now: done.append(now)
    )
    expected = {"file-missing": ["missing", "folder"], "file-turned": ["turned"]}
    expected["file-size"] = ["flipped"]
    for name, (_, problem, _) in BROKEN.items():
        expected.setdefault(problem, []).append(name)
    assert found == expected
    assert done[-1] == (len(contents), len(contents))
    assert "image 23 (turned, annotations 60 x 40, file 40 x 60 by EXIF orientation 6)" in (
        report.text()
    )
    assert "image 25 (missing, no such file); image 26 (folder, it is a folder)" in report.text()

    cleaned, counts = clean(report, sizes=sizes)
    assert {image["file_name"] for image in cleaned["images"]} == {*SOUND, "large"}
    assert counts["file-truncated"] == 5
    assert counts["box of an image that was left out"] == len(coco["images"]) - len(SOUND) - 1
    assert check(cleaned, tmp_path)[2] == {"file-huge": ["large"]}


def test_orientations(tmp_path):
    """Annotations of the turned size are right; whether flips were seen, nobody can tell."""
    for orientation in range(1, 9):
        (tmp_path / f"{orientation}.jpg").write_bytes(encode("JPEG", orientation))
    names = [f"{orientation}.jpg" for orientation in range(1, 9)]
    assert check(annotate(*names), tmp_path)[2] == {
        "file-orientation": names[1:4],
        "file-turned": names[4:],
    }
    coco = annotate(*names[4:], width=HEIGHT, height=WIDTH)
    assert check(coco, tmp_path)[2] == {}


def test_sizes_that_are_missing_are_read_from_the_files(tmp_path):
    (tmp_path / "a.jpg").write_bytes(JPEG)
    (tmp_path / "b.jpg").write_bytes(encode("JPEG", 6))
    (tmp_path / "c.jpg").write_bytes(b"")
    coco = annotate("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    for image in coco["images"]:
        image["width"] = None
    report, sizes, found = check(coco, tmp_path)
    assert found["image-size"] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    cleaned, counts = clean(report, sizes=sizes)
    assert [(i["width"], i["height"]) for i in cleaned["images"]] == [(60, 40), (40, 60)]
    assert counts["image-size"] == 4


def test_a_file_that_kills_the_process(tmp_path, monkeypatch):
    """Decoders have crashed on hostile files before."""
    monkeypatch.setattr(files, "_CHUNK", 2)
    names = [f"{n}.jpg" for n in range(12)]
    for name in names:
        (tmp_path / name).write_bytes(JPEG)
    (tmp_path / "5.jpg").write_bytes(b"deadly")
    look = pixels_module._look
    parent = os.getpid()

    def fragile(path, decode):
        if path.endswith("5.jpg") and os.getpid() != parent:
            os._exit(1)
        return look(path, decode)

    monkeypatch.setattr(pixels_module, "_look", fragile)
    report, sizes, found = check(annotate(*names), tmp_path, workers=2)
    assert found == {"file-unreadable": ["5.jpg"]}
    assert len(sizes) == 11
    assert "reading it killed the process" in report.text()


# --------------------------------------------------------------------------------------------------
# Paths


@pytest.fixture
def tree(tmp_path):
    """A data set with its images in a folder, and a secret beside it."""
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


CASES = [
    ("a.jpg", "", ""),
    ("./a.jpg", "", ""),
    ("sub/b.jpg", "", ""),
    ("sub/../a.jpg", "", ""),
    ("sub//b.jpg", "", ""),
    ("{tree}/data/train/a.jpg", "", ""),
    ("inner.jpg", "", ""),
    ("../val/c.jpg", "path-outside", ""),
    ("{tree}/data/val/c.jpg", "path-outside", ""),
    ("near/c.jpg", "path-symlink", ""),
    ("../../secret/s.jpg", "path-outside", "path-outside"),
    ("{tree}/secret/s.jpg", "path-outside", "path-outside"),
    ("/etc/passwd", "path-outside", "path-outside"),
    ("../../data-other/o.jpg", "path-outside", "path-outside"),
    ("../../../../../../../../../../../etc/passwd", "path-outside", "path-outside"),
    ("link.jpg", "path-symlink", "path-symlink"),
    ("away/s.jpg", "path-symlink", "path-symlink"),
    # by its letters this stays inside; the system follows the link first
    ("away/../data-other/o.jpg", "path-symlink", "path-symlink"),
    ("none.jpg", "file-missing", "file-missing"),
    ("dangling.jpg", "file-missing", "file-missing"),
    ("none/a.jpg", "file-missing", "file-missing"),
    ("a.jpg/b.jpg", "file-missing", "file-missing"),
    ("sub", "file-missing", "file-missing"),
    ("sub/..", "file-missing", "file-missing"),
    ("x" * 300, "file-missing", "file-missing"),
    ("..", "file-missing", "file-missing"),
]


@pytest.mark.parametrize("name, alone, with_root", CASES)
def test_paths(tree, name, alone, with_root, monkeypatch):
    monkeypatch.chdir(tree)
    name = name.format(tree=tree)
    for images in ("data/train", "data/train/", str(tree / "data/train")):
        for root, problem in ((None, alone), ("data", with_root), (f"{tree}/data/", with_root)):
            (place,) = locate([name], images, root)
            assert (place.problem, bool(place.note)) == (problem, bool(problem))
            assert place.path == os.path.join(images, name)


def test_the_users_own_links_are_no_ones_business(tree, monkeypatch):
    """A data_root or an image folder that is a link itself was named by the config."""
    monkeypatch.chdir(tree)
    (tree / "linked").symlink_to("data")
    (tree / "data/images").symlink_to(tree / "secret")
    places = locate(["a.jpg", "sub/b.jpg"], "linked/train", "linked")
    places += locate(["s.jpg"], "data/images", "data")
    assert [place.problem for place in places] == ["", "", ""]


def test_each_folder_is_listed_once(tree, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
    places = locate(["a.jpg", "b.jpg", None, "sub/b.jpg"] * 50, str(tree / "data/train"))
    assert len(listed) == 2
    assert [place and place.problem for place in places[:4]] == ["", "file-missing", None, ""]


def test_paths_in_a_report(tree):
    coco = annotate("a.jpg", "../../secret/s.jpg", "link.jpg", "none.jpg")
    report, sizes, found = check(coco, tree / "data/train", root=str(tree / "data"), look=False)
    assert found == {
        "path-outside": ["../../secret/s.jpg"],
        "path-symlink": ["link.jpg"],
        "file-missing": ["none.jpg"],
    }
    assert sizes == {}
    assert f"image 2 (../../secret/s.jpg, it leads to {tree / 'secret'})" in report.refusal()
    cleaned, _ = clean(report)
    assert [image["file_name"] for image in cleaned["images"]] == ["a.jpg"]
    assert [annotation["image_id"] for annotation in cleaned["annotations"]] == [1]
