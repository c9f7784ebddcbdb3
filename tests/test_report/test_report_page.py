"""The report as a whole, of runs that are hostile, killed, empty or fine."""

import json
import os
import pickle
import re
import shutil
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from support.runs import VAL_IMAGES, newest_metrics, once

from fastdetr_mmdet.report import Settings, make_report
from fastdetr_mmdet.report.__main__ import main

EVIL = "<script>alert(1)</script>"
EVIL_FILE = "<img src=x onerror=alert(2)>.jpg"


class Elements(HTMLParser):
    """Names, attributes and text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def hostile_names(source: Path, tiny_run, folder: Path) -> Path:
    """The run with markup in names of a class, of an image, in the config and of itself."""
    data = shutil.copytree(tiny_run.data_root, folder / "data")
    file = data / "annotations" / "val.json"
    coco = json.loads(file.read_text())
    coco["categories"][0]["name"] = EVIL
    with_objects = min(annotation["image_id"] for annotation in coco["annotations"])
    (image,) = [image for image in coco["images"] if image["id"] == with_objects]
    os.rename(data / "val" / image["file_name"], data / "val" / EVIL_FILE)
    image["file_name"] = EVIL_FILE
    file.write_text(json.dumps(coco))
    work = Path(shutil.copytree(source, folder / "<script>alert(3)<%2Fscript>"))
    for config in [*work.glob("*.py"), *work.glob("*/vis_data/config.py")]:
        text = config.read_text().replace("'disc'", repr(EVIL))
        text = text.replace(str(tiny_run.data_root), str(data)) + f"note = {EVIL!r}\n"
        config.write_text(text)
    return work


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_run) -> Path:
    """A report of runs with hostile names, a hostile checkpoint, a kill, and nothing at all."""

    def make(folder: Path) -> None:
        source = tiny_run.work_dir
        evil = hostile_names(source, tiny_run, folder)

        bomb = Path(shutil.copytree(source, folder / "bomb"))
        for path in bomb.glob("*.pth"):
            torch.save({"state_dict": Bomb(folder / "executed"), "meta": {}}, path)

        killed = Path(shutil.copytree(source, folder / "killed"))
        for path in [*killed.glob("*.pth"), killed / "last_checkpoint"]:
            path.unlink()
        log = sorted(killed.glob("*/vis_data/scalars.json"))[0]
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(lines[:3]) + lines[3][:40])

        (folder / "empty").mkdir()
        done = []
        make_report(
            [evil, bomb, killed, folder / "empty"],
            folder / "report.html",
            Settings(images=3, sheets=1, examples=2, queries=1, min_score=0.05),
            progress=done.append,
        )
        (folder / "progress.txt").write_text("\n".join(done))

    return once(tmp_path_factory, "report", make)


@pytest.fixture(scope="module")
def page(folder) -> str:
    return (folder / "report.html").read_text()


def section(page: str, name: str) -> str:
    return re.search(rf'<section id="{name}".*?(?=<section id=|<footer)', page, re.DOTALL)[0]


def test_it_is_well_formed(page):
    ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def test_it_loads_and_runs_nothing(page):
    elements = Elements(page).found
    addresses = [
        value
        for _, attributes in elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    ]
    assert len(addresses) > 10
    assert [a for a in addresses if not a.startswith(("data:image/jpeg;base64,", "#"))] == []
    tags = {tag for tag, _ in elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "audio"}
    assert not [a for _, attributes in elements for a in attributes if a.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    (policy,) = [a["content"] for t, a in elements if a.get("http-equiv")]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_are_text(page):
    text = Elements(page).text
    assert EVIL in section(page, "coco").replace("&lt;", "<").replace("&gt;", ">")
    for name in (EVIL, EVIL_FILE, "<script>alert(3)<%2Fscript>"):
        assert name in text
    assert "<script" not in page and "<img src=x" not in page
    assert repr(EVIL) in Elements(section(page, "config")).text  # a config's value


@pytest.mark.smoke
def test_figures_are_those_of_mim_test(page, tiny_run):
    """The same weights on the same images, though they are named otherwise here."""
    row = re.search(r"<tbody>(.*?)</tbody>", section(page, "coco"), re.DOTALL)[1]
    cells = re.findall(r"<td>([^<]*)</td>", row)
    tested = newest_metrics(tiny_run.work_dir)
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    expected = [tested[f"coco/bbox_{name}"] for name in names]
    assert cells[:2] == ["epoch_2.pth", str(VAL_IMAGES)]
    assert cells[2:8] == ["—" if value < 0 else f"{value:.3f}" for value in expected]


def test_what_is_missing_is_said(folder, page):
    runs = section(page, "runs")
    killed, empty = (
        re.search(rf"<article[^>]*><h3>(?:(?!</h3>).)*{name}</h3>.*?</article>", runs)[0]
        for name in ("killed", "empty")
    )
    assert "1 line of the log is cut off or unreadable" in killed
    assert "The log ends at epoch 0.75 of 2: the training was stopped or killed" in killed
    assert "No validation was logged: there is no AP curve." in killed
    assert "There is no checkpoint" in killed
    assert "There is no training log, or it is empty" in empty and "There is no config" in empty
    assert "This folder holds no run. Give the folder that --work-dir named" in empty
    assert "There is no checkpoint" in empty and "cannot be run" not in empty
    assert "<li>" not in re.search(r"<article.*?</article>", runs)[0]  # the first run is whole


def test_hostile_checkpoint_is_refused(folder, page):
    assert not (folder / "executed").exists()
    text = Elements(section(page, "runs")).text
    assert re.search(r"was refused: reading it would run \w+\.system, which weights never", text)
    with open(folder / "bomb" / "epoch_2.pth", "rb") as file:  # the bomb is a bomb
        assert b"PK" == file.read(2)
    assert pickle.loads(pickle.dumps(Bomb(folder / "proof"))) == 0 and (folder / "proof").exists()


def test_every_section_has_its_content(page):
    assert section(page, "curves").count("<svg") >= 4
    assert "<code>note</code>" in section(page, "config")
    samples = section(page, "samples")
    assert samples.count('class="sample"') == 3 and samples.count('class="photo"') == 6
    errors = section(page, "errors")
    assert all(word in errors for word in ("missed", "background", "duplicate", "badly placed"))
    assert errors.count('class="photo"') >= 2
    (source,) = re.findall(
        r'<img src="data:image/jpeg;base64,[^"]{2000,}"', section(page, "attention")
    )
    assert source


def test_progress_is_told(folder):
    told = (folder / "progress.txt").read_text()
    assert re.search(r"\[3/4\] killed: 0.75 epochs", told)
    assert f"{VAL_IMAGES} of {VAL_IMAGES} images" in told
    assert told.splitlines()[-1].startswith(str(folder / "report.html"))


def test_command(folder, capsys):
    out = folder / "quick.html"
    assert main([str(folder / "killed"), "--no-predictions", "--out", str(out)]) == 0
    page = out.read_text()
    assert page.count("No checkpoint was run, as was asked for (--no-predictions)") == 1
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ids == re.findall(r'<a href="#(\w+)"', page) == ["runs", "curves", "coco"]
    assert "There is no checkpoint" not in page  # it was not looked for
    assert "[1/1] killed" in capsys.readouterr().out


def test_wrong_arguments(folder, capsys):
    assert main([str(folder / "none"), "--out", str(folder / "x.html")]) == 2
    assert "none does not exist. Give the folder that" in capsys.readouterr().err
    assert main([str(folder / "empty"), "--out", str(folder / "no" / "x.html")]) == 2
    assert "make the folder" in capsys.readouterr().err
    assert main([str(folder / "empty"), "--out", str(folder)]) == 2
    assert "is a folder; name the file to write" in capsys.readouterr().err
    assert main([str(folder / "empty"), "--out", str(folder / "x.html")]) == 2
    assert "empty holds no run: no log, config or checkpoint. Give" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(folder / "empty"), "--min-score", "2"])
    assert not (folder / "x.html").exists()


@pytest.mark.parametrize(
    "name",
    [
        "epoch_1.pth",
        "last_checkpoint",
        "tiny.py",
        "*/*.log",
        "*/vis_data/scalars.json",
        "link.html",
    ],
)
def test_sources_are_not_overwritten(name, tmp_path, tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("fastdetr_mmdet.report.build.read_runs", None)  # not even read
    work = Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))
    (work / "link.html").symlink_to(work / "epoch_1.pth")
    (out, *_) = sorted(work.glob(name))
    before = out.read_bytes()
    assert main([str(work), "--out", str(out)]) == 2
    assert capsys.readouterr().err == (
        f"{out} is there and is no report to replace; name another file to write, one that ends "
        "in .html.\n"
    )
    assert out.read_bytes() == before


def test_a_report_that_cannot_be_written_leaves_the_old_one(folder, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        make_report(
            [folder / "killed"], out, Settings(predictions=False), progress=lambda text: None
        )
    assert out.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


def run_with(folder: Path, source: Path, data: Path, tiny_run) -> str:
    """The notes of a report of a run on another data set."""
    work = Path(shutil.copytree(source, folder / "work"))
    for config in work.glob("*/vis_data/config.py"):
        config.write_text(config.read_text().replace(str(tiny_run.data_root), str(data)))
    (run,) = make_report([work], folder / "r.html", progress=lambda text: None)
    assert run.evaluation is None
    return " ".join(run.notes)


def test_images_outside_of_the_data_set_are_not_opened(tmp_path, tiny_run):
    data = Path(shutil.copytree(tiny_run.data_root, tmp_path / "data"))
    file = data / "annotations" / "val.json"
    coco = json.loads(file.read_text())
    secret = shutil.copy(data / "val" / coco["images"][0]["file_name"], tmp_path / "secret.jpg")
    coco["images"][0]["file_name"] = "../../secret.jpg"
    file.write_text(json.dumps(coco))
    assert Path(secret).exists()
    notes = run_with(tmp_path, tiny_run.work_dir, data, tiny_run)
    assert "1 image of the validation set is outside of the data set's folder or missing" in notes
    assert "secret.jpg" in notes and "it leads to" in notes


def test_images_that_are_missing(tmp_path, tiny_run):
    data = Path(shutil.copytree(tiny_run.data_root, tmp_path / "data"))
    shutil.rmtree(data / "val")
    notes = run_with(tmp_path, tiny_run.work_dir, data, tiny_run)
    assert (
        f"{VAL_IMAGES} images of the validation set are outside of" in notes
        and "data_root=" in notes
    )


def test_a_config_with_code_is_not_run(tmp_path, tiny_run):
    work = Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))
    code = f"open({str(tmp_path / 'executed')!r}, 'w')\n"
    for config in [*work.glob("*.py"), *work.glob("*/vis_data/config.py")]:
        config.write_text(config.read_text() + code)
    (run,) = make_report([work], tmp_path / "r.html", progress=lambda text: None)
    assert not (tmp_path / "executed").exists()
    assert "was not run: line" in " ".join(run.notes) and run.evaluation is None
    assert run.history.progress == 2  # the curves are there all the same


def test_weights_that_do_not_fit_the_config(tmp_path, tiny_run):
    """Part of a model would give figures, and wrong ones."""
    work = Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))
    for config in work.glob("*/vis_data/config.py"):
        config.write_text(
            config.read_text().replace("feedforward_channels=48", "feedforward_channels=40")
        )
    (run,) = make_report([work], tmp_path / "r.html", progress=lambda text: None)
    assert run.evaluation is None
    assert "the weights of epoch_2.pth do not fit its config" in " ".join(run.notes)


def test_data_that_is_elsewhere_now(tmp_path, tiny_run):
    work = Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))
    data = tmp_path / "moved"
    for config in work.glob("*/vis_data/config.py"):
        config.write_text(config.read_text().replace(str(tiny_run.data_root), str(data)))
    settings = Settings(sheets=0, images=1, examples=0, max_images=3)
    (run,) = make_report([work], tmp_path / "r.html", settings, progress=lambda text: None)
    assert run.evaluation is None and "--cfg-options data_root=..." in run.notes[-1]

    shutil.copytree(tiny_run.data_root, data)
    out = tmp_path / "r.html"
    (run,) = make_report([work], out, settings, {"data_root": f"{data}/"}, lambda text: None)
    assert len(run.evaluation.images) == 3 and run.sheets == [] and run.evaluation.model is None
    assert f"3 of {VAL_IMAGES}" in section(out.read_text(), "coco")
