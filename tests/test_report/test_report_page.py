"""The whole report, with hostile, killed, empty and normal runs."""

import json
import os
import pickle
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from pycocotools.cocoeval import COCOeval
from support.runs import VAL_IMAGES, newest_metrics, once

from fastdetr_mmdet.report import Settings, make_report
from fastdetr_mmdet.report.__main__ import main
from fastdetr_mmdet.report.page import _environment

EVIL = "<script>alert(1)</script>"
EVIL_FILE = "<img src=x onerror=alert(2)>.jpg"
EVIL_WORK = "<script>alert(3)<%2Fscript>"


def elements(page: str) -> ElementTree.Element:
    """A page or a part of it, which must be well-formed."""
    return ElementTree.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def text_of(page: str) -> str:
    return "".join(elements(page).itertext())


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def hostile_names(source: Path, tiny_run, folder: Path) -> Path:
    """A run with markup in its name, names of a class and an image, and the config."""
    data = shutil.copytree(tiny_run.data_root, folder / "data")
    file = data / "annotations" / "val.json"
    coco = json.loads(file.read_text())
    coco["categories"][0]["name"] = EVIL
    with_objects = min(annotation["image_id"] for annotation in coco["annotations"])
    (image,) = [image for image in coco["images"] if image["id"] == with_objects]
    os.rename(data / "val" / image["file_name"], data / "val" / EVIL_FILE)
    image["file_name"] = EVIL_FILE
    file.write_text(json.dumps(coco))
    work = Path(shutil.copytree(source, folder / EVIL_WORK))
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


def card(page: str, name: str) -> str:
    """The text of a run's card."""
    cards = re.findall(r"<article.*?</article>", section(page, "runs"), re.DOTALL)
    (found,) = [text for card in cards if name in (text := text_of(card))]
    return found


@pytest.mark.parametrize(
    ("text", "shown"), [("<b>&\"'", "&lt;b&gt;&amp;&#34;&#39;"), ("a\x00\ud800", "a\ufffd?")]
)
def test_templates_escape_every_text(text, shown):
    template = _environment().from_string("{{ a }}|{{ a|upper|lower }}|{{ [a]|join }}")
    assert template.render(a=text) == f"{shown}|{shown}|{shown}"


def test_it_loads_and_runs_nothing(page):
    found = [
        (element.tag.rpartition("}")[2], {k.rpartition("}")[2]: v for k, v in element.items()})
        for element in elements(page).iter()
    ]
    names = ("src", "href", "srcset", "action", "data", "poster")
    addresses = [a[name] for _, a in found for name in names if name in a]
    assert len(addresses) > 10
    assert [a for a in addresses if not a.startswith(("data:image/jpeg;base64,", "#"))] == []
    tags = {tag for tag, _ in found}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form", "audio"}
    assert not [a for _, attributes in found for a in attributes if a.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style
    (policy,) = [a["content"] for _, a in found if "http-equiv" in a]
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_names_are_text(page):
    text = text_of(page)
    assert EVIL in section(page, "coco").replace("&lt;", "<").replace("&gt;", ">")
    for name in (EVIL, EVIL_FILE, EVIL_WORK):
        assert name in text
    assert "<script" not in page and "<img src=x" not in page and "{{" not in page
    assert repr(EVIL) in text_of(section(page, "config"))  # a config's value


@pytest.mark.smoke
def test_figures_are_those_of_mim_test(page, tiny_run):
    """Same weights and images, with other names."""
    row = re.search(r"<tbody>(.*?)</tbody>", section(page, "coco"), re.DOTALL)[1]
    cells = re.findall(r"<td>([^<]*)</td>", row)
    tested = newest_metrics(tiny_run.work_dir)
    names = ("mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l")
    expected = [tested[f"coco/bbox_{name}"] for name in names]
    assert cells[:2] == ["epoch_2.pth", str(VAL_IMAGES)]
    assert cells[2:8] == ["—" if value < 0 else f"{value:.3f}" for value in expected]


def test_what_is_missing_is_said(page):
    first, killed, empty = (card(page, name) for name in (EVIL_WORK, "killed", "empty"))
    assert "1 line of the log" in killed and "epoch 0.75 of 2" in killed
    assert "no AP curve" in killed and "no checkpoint" in killed
    assert "no training log" in empty and "no config" in empty and "--work-dir" in empty
    assert "no checkpoint" in empty and "cannot be run" not in empty
    for word in ("log", "config", "There is no"):  # the first run is complete
        assert word not in first.replace("Best AP in the log", "")


def test_hostile_checkpoint_is_refused(folder, page):
    assert not (folder / "executed").exists()
    assert re.search(r"refused.* \w+\.system", card(page, "bomb"))
    with pytest.raises(pickle.UnpicklingError):  # the bomb is a bomb
        torch.load(folder / "bomb" / "epoch_2.pth", weights_only=True)


def test_every_section_has_its_content(page):
    curves = section(page, "curves")
    assert curves.count("<svg") >= 4 and "killed" in text_of(curves)
    figures = section(page, "coco")
    assert figures.count("F1 by least score") == figures.count("best score</th>") >= 1
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert "<code>note</code>" in section(page, "config")
    samples = section(page, "samples")
    assert samples.count('class="sample"') == 3 and samples.count('class="photo"') == 6
    errors = section(page, "errors")
    assert all(word in errors for word in ("missed", "background", "duplicate", "badly placed"))
    assert errors.count('class="photo"') >= 2
    sheets = re.findall(
        r'<img src="data:image/jpeg;base64,[^"]{2000,}"', section(page, "attention")
    )
    assert len(sheets) == 1


def test_progress_is_told(folder):
    told = (folder / "progress.txt").read_text()
    assert re.search(r"\[3/4\] killed: 0.75 epochs", told)
    assert f"{VAL_IMAGES} of {VAL_IMAGES} images" in told
    assert told.splitlines()[-1].startswith(str(folder / "report.html"))


def test_command(folder, capsys):
    out = folder / "quick.html"
    assert main([str(folder / "killed"), "--no-predictions", "--out", str(out)]) == 0
    page = out.read_text()
    assert page.count("--no-predictions") == 1
    ids = re.findall(r'<section id="(\w+)"', page)
    assert ids == re.findall(r'<a href="#(\w+)"', page) == ["runs", "curves", "coco"]
    assert "There is no checkpoint" not in page  # not searched
    assert "[1/1] killed" in capsys.readouterr().out


def test_wrong_arguments(folder, capsys):
    out = folder / "x.html"
    for work, file, word in (
        ("none", out, "none"),
        ("empty", folder / "no" / "x.html", "no"),
        ("empty", folder, str(folder)),
        ("empty", out, "empty"),
    ):
        assert main([str(folder / work), "--out", str(file)]) == 2
        assert word in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([str(folder / "empty"), "--min-score", "2"])
    assert not out.exists()


SOURCES = ["epoch_1.pth", "last_checkpoint", "tiny.py", "*/*.log", "*/vis_data/scalars.json"]


@pytest.mark.parametrize("name", [*SOURCES, "link.html"])
def test_sources_are_not_overwritten(name, tmp_path, tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("fastdetr_mmdet.report.build.read_runs", None)  # not even read
    work = Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))
    (work / "link.html").symlink_to(work / "epoch_1.pth")
    (out, *_) = sorted(work.glob(name))
    before = out.read_bytes()
    assert main([str(work), "--out", str(out)]) == 2
    assert str(out) in capsys.readouterr().err
    assert out.read_bytes() == before


def test_a_report_that_cannot_be_written_leaves_the_old_one(folder, tmp_path, monkeypatch):
    out = tmp_path / "report.html"
    out.write_text("old")

    monkeypatch.setattr(os, "replace", Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        make_report([folder / "killed"], out, Settings(predictions=False))
    assert out.read_text() == "old" and os.listdir(tmp_path) == ["report.html"]


@pytest.fixture
def moved_run(tiny_run, tmp_path):
    """Copies the run with changed configs, and its data; returns the run and a report's notes."""
    work = Path(shutil.copytree(tiny_run.work_dir, tmp_path / "work"))
    data = Path(shutil.copytree(tiny_run.data_root, tmp_path / "data"))

    def report(change=str, settings=None, options=None):
        for config in [*work.glob("*.py"), *work.glob("*/vis_data/config.py")]:
            text = config.read_text().replace(str(tiny_run.data_root), str(data))
            config.write_text(change(text))
        out = tmp_path / "r.html"
        (run,) = make_report([work], out, settings, options, progress=lambda text: None)
        return run, " ".join(run.notes)

    report.data = data
    return report


def test_images_that_are_missing_or_outside_of_the_data_set(moved_run, tmp_path):
    """None is opened."""
    file = moved_run.data / "annotations" / "val.json"
    coco = json.loads(file.read_text())
    image = moved_run.data / "val" / coco["images"][0]["file_name"]
    assert Path(shutil.copy(image, tmp_path / "secret.jpg")).exists()
    coco["images"][0]["file_name"] = "../../secret.jpg"
    file.write_text(json.dumps(coco))
    run, notes = moved_run()
    assert run.evaluation is None and "1 image is" in notes and "secret.jpg" in notes
    shutil.rmtree(moved_run.data / "val")
    run, notes = moved_run()
    assert run.evaluation is None
    assert f"{VAL_IMAGES} images are" in notes and "data_root=" in notes


def test_a_config_with_code_is_not_run(moved_run, tmp_path):
    run, notes = moved_run(lambda text: f"{text}open({str(tmp_path / 'executed')!r}, 'w')\n")
    assert not (tmp_path / "executed").exists()
    assert run.evaluation is None and "was not run: line" in notes
    assert run.history.progress == 2  # the curves are still shown


def test_weights_that_do_not_fit_the_config(moved_run):
    """A partly loaded model would give wrong metrics."""
    size = "feedforward_channels="
    run, notes = moved_run(lambda text: text.replace(f"{size}48", f"{size}40"))
    assert run.evaluation is None and "epoch_2.pth" in notes


def test_data_that_is_elsewhere_now(moved_run, tmp_path, monkeypatch):
    """COCOeval runs once, not in the evaluator, too."""
    calls, evaluate = [], COCOeval.evaluate
    monkeypatch.setattr(COCOeval, "evaluate", lambda self: calls.append(self) or evaluate(self))
    there = shutil.move(moved_run.data, tmp_path / "moved")
    settings = Settings(sheets=0, images=1, examples=0, max_images=3)
    run, notes = moved_run(settings=settings)
    assert run.evaluation is None and "--cfg-options data_root=..." in notes
    run, notes = moved_run(settings=settings, options={"data_root": f"{there}/"})
    assert len(run.evaluation.images) == 3 and run.sheets == [] and run.evaluation.model is None
    assert len(calls) == 1 and run.evaluation.table is not None
    assert f"3 of {VAL_IMAGES}" in section((tmp_path / "r.html").read_text(), "coco")


def test_other_evaluators_have_their_own_figures(moved_run, tmp_path):
    own = "\nval_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')\n"
    run, notes = moved_run(lambda text: text + own, Settings(sheets=0, images=0, examples=0))
    assert run.evaluation.table is None and "pascal_voc/mAP" in run.evaluation.metrics, notes
    assert "pascal_voc/mAP" in section((tmp_path / "r.html").read_text(), "coco")
