"""Files are written atomically, and damaged checkpoints are recognised."""

import os
import re
from errno import EDQUOT, EINVAL, EIO, ENOSPC
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend, get_file_backend

from fastdetr_mmdet.checkpoints.integrity import numbered_checkpoints, what_is_broken
from fastdetr_mmdet.engine.hooks.atomic_checkpoint import AtomicBackend, whole_files
from fastdetr_mmdet.utils import files
from fastdetr_mmdet.utils.files import UNFINISHED, remove_unfinished, write_atomically


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "epoch_1.pth"
    state = dict(weight=torch.rand(64, 64), bias=torch.rand(64))
    torch.save(dict(meta=dict(epoch=1, iter=4), state_dict=state), path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --------------------------------------------------------------------------------------------------
# Writing


@pytest.fixture
def written(tmp_path) -> Path:
    """A file in a new folder, written twice."""
    path = tmp_path / "new" / "file"
    for content in (b"first, and longer", b"old"):
        write_atomically(path, content)
        assert path.read_bytes() == content and names(path.parent) == ["file"]
    return path


def test_backend(tmp_path):
    before = get_file_backend("x")
    with whole_files():
        backend = get_file_backend("x")
        assert type(backend) is AtomicBackend
        assert type(get_file_backend("x", backend_args=dict(backend="local"))) is AtomicBackend
        with pytest.raises(KeyError), whole_files():
            raise KeyError
        assert type(get_file_backend("x")) is AtomicBackend
    assert type(get_file_backend("x")) is type(before) is LocalBackend
    backend.put(b"bytes", str(tmp_path / "a"))
    backend.put_text("text ä", tmp_path / "b")
    assert backend.get(tmp_path / "a") == b"bytes"
    assert backend.get_text(tmp_path / "b") == "text ä"
    assert names(tmp_path) == ["a", "b"]


def test_content_reaches_the_disk_before_the_name(tmp_path, monkeypatch):
    """And the rename is synced before anything else."""
    done = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        done.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def spy_replace(source, target):
        done.append(f"rename {source.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_atomically(tmp_path / "file", b"content")
    assert done == [f"sync file{UNFINISHED}", f"rename file{UNFINISHED}", f"sync {tmp_path.name}"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize(
    "error",
    [*(OSError(code, os.strerror(code)) for code in (ENOSPC, EDQUOT, EIO)), KeyboardInterrupt()],
)
def test_an_error_leaves_the_old_content(written, monkeypatch, function, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(error)) as caught:
        write_atomically(written, b"x" * 2048)
    if isinstance(error, OSError):
        assert (caught.value.errno, caught.value.filename) == (error.errno, str(written))
        reason = rf"{error.strerror}; 2 KiB to write, [\d.]+ [KMG]iB free"
        assert re.fullmatch(reason, caught.value.strerror)
    assert written.read_bytes() == b"old" and names(written.parent) == ["file"]


def test_a_folder_that_cannot_be_synced(written, monkeypatch):
    """Some network file systems cannot sync folders; the file is still written."""

    def refuse(*_):
        raise OSError(EINVAL, "Invalid argument")

    monkeypatch.setattr(files.os, "open", refuse)
    write_atomically(written, b"content")
    assert written.read_bytes() == b"content"


def test_unfinished_files_are_removed(tmp_path):
    keep = ("epoch_1.pth", "last_checkpoint", "notes.unfinished", "mine.tmp")
    for name in (*keep, f"epoch_2.pth{UNFINISHED}", f"last_checkpoint{UNFINISHED}"):
        (tmp_path / name).write_text("x")
    removed = [path.name.removesuffix(UNFINISHED) for path in remove_unfinished(tmp_path)]
    assert removed == ["epoch_2.pth", "last_checkpoint"]
    assert names(tmp_path) == sorted(keep)
    assert remove_unfinished(tmp_path / "missing") == []


# --------------------------------------------------------------------------------------------------
# Recognising


def test_every_truncation_is_recognised(checkpoint):
    assert what_is_broken(checkpoint) is None is what_is_broken(str(checkpoint))
    content = checkpoint.read_bytes()
    for length in {*range(0, len(content), 97), 3, 4, len(content) - 1, len(content) - 22}:
        checkpoint.write_bytes(content[:length])
        assert what_is_broken(checkpoint) is not None, length


def test_zeros_as_after_a_power_cut_are_recognised(checkpoint):
    """A file system may keep the length of a file but lose blocks."""
    content = checkpoint.read_bytes()
    for start in range(0, len(content) - 4096, 4096):
        checkpoint.write_bytes(content[:start] + bytes(4096) + content[start + 4096 :])
        assert what_is_broken(checkpoint) is not None, start


def test_a_changed_byte_is_recognised(checkpoint):
    content = bytearray(checkpoint.read_bytes())
    position = content.index(torch.load(checkpoint)["state_dict"]["weight"].numpy().tobytes())
    content[position + 5] ^= 1
    checkpoint.write_bytes(content)
    assert re.search(r"/data/\d+ in it has a wrong checksum", what_is_broken(checkpoint))


def test_checksums_turned_off(checkpoint, monkeypatch):
    """Without checksums, a file with all entries counts as intact."""
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this torch always writes checksums")
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(dict(weight=torch.rand(100)), checkpoint)
        assert what_is_broken(checkpoint) is None
        checkpoint.write_bytes(checkpoint.read_bytes()[:-30])
        assert what_is_broken(checkpoint) is not None
    finally:
        torch.serialization.set_crc32_options(True)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.pth", None, "does not exist"),
        (".", None, "does not exist"),
        ("empty.pth", b"", "is empty"),
        ("page.pth", b"<html>404", "is not a file of torch.save"),
        ("cut.pth", b"PK\x03\x04" + bytes(99), "is cut short: the list of contents at its end"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, name, content, problem):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert what_is_broken(tmp_path / name).startswith(problem)


def test_torch_s_older_format(tmp_path):
    """torchvision's weights have it. Unknown classes are not damage; mmengine decides on them."""
    path, older = tmp_path / "old.pth", dict(_use_new_zipfile_serialization=False)
    for content in (dict(path=Path("x")), dict(weight=torch.rand(100))):
        torch.save(content, path, **older)
        assert what_is_broken(path) is None
    path.write_bytes(path.read_bytes()[:-50])
    assert what_is_broken(path).startswith("is cut short or damaged")


# --------------------------------------------------------------------------------------------------
# Names


def test_numbered_checkpoints(tmp_path):
    for name in ("epoch_2.pth", "epoch_10.pth", "epoch_x.pth", "best_epoch_3.pth", "epoch_4.pth.a"):
        (tmp_path / name).touch()
    found = numbered_checkpoints(tmp_path, "epoch_{}.pth")
    assert list(found) == [10, 2] and found[2] == tmp_path / "epoch_2.pth"
    (tmp_path / "a+007.ckpt").touch()
    assert list(numbered_checkpoints(tmp_path, "a+{:03d}.ckpt")) == [7]
    assert numbered_checkpoints(tmp_path / "missing", "epoch_{}.pth") == {}
