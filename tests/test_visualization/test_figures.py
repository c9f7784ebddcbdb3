"""Pictures depend on the image, the model and the layer."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from support.mixes import mix
from support.models import NUM_CLASSES, make_batch

from fastdetr_mmdet.evaluation.results import ImageResult
from fastdetr_mmdet.visualization import (
    canvas,
    draw_contact_sheet,
    draw_detection,
    draw_predictions,
    inspect_batch,
)
from fastdetr_mmdet.visualization.contact_sheet import sheet_columns, sheet_title
from fastdetr_mmdet.visualization.heat import blend, density

KINDS = {
    "plain": ["boxes", "attention"],
    "smca on three levels": ["boxes", "attention", "spatial prior"],
    "sam, one level per layer": ["boxes", "attention", "spatial prior", "region"],
    "deformable, two-stage, three levels": ["boxes", "sampling points"],
    "deformable with aligner": ["boxes", "sampling points", "region"],
}


def inspected(name="plain", top_k=2, queries=None, model=None, seed=0, path=""):
    inputs, samples = make_batch(((64, 96),), seed=seed)
    samples[0].set_metainfo(dict(img_path=path))
    pixels = (inputs[0] * 40 + 120).clamp(0, 255).byte()
    batch = dict(inputs=[pixels], data_samples=samples)
    picture = pixels.permute(1, 2, 0).numpy()
    (found,) = inspect_batch(model or mix(name), batch, [picture], top_k, queries)
    return replace(found, classes=tuple(f"class {i} of $5_" for i in range(NUM_CLASSES)))


def is_picture(pixels):
    colours = np.unique(pixels.reshape(-1, 3), axis=0)
    return pixels.dtype == np.uint8 and pixels.std() > 20 and len(colours) > 500


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    """Use fewer pixels, to save time."""
    monkeypatch.setattr(canvas, "DPI", 50)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if "three" in n else []) for n in KINDS]
)
def test_pages_of_every_kind(name):
    found = inspected(name, top_k=1)
    (query,) = found.queries
    columns = [heading for heading, _ in sheet_columns(query, query.layers[-1])]
    assert len(columns) == len(KINDS[name])
    assert all(map(str.startswith, columns, KINDS[name]))
    assert is_picture(draw_contact_sheet(found)) and is_picture(draw_detection(found))


def test_pages_are_the_image_s_the_query_s_and_the_layer_s():
    """A sheet has a row per query."""
    found, other = inspected(), inspected(seed=1)
    sheet, last = draw_contact_sheet(found), draw_contact_sheet(found, 2)
    assert np.array_equal(sheet, last)
    one = draw_contact_sheet(replace(found, queries=found.queries[:1]))
    assert sheet.shape[1] == one.shape[1] and sheet.shape[0] > 1.5 * one.shape[0]
    pairs = [(sheet, draw_contact_sheet(other)), (sheet, draw_contact_sheet(found, 1))]
    pairs.append((draw_detection(found, 0), draw_detection(found, 1)))
    for first, second in pairs:
        assert not np.array_equal(first, second)


def test_what_cannot_be_drawn():
    found = inspected()
    for draw in (lambda: draw_detection(found, 0, 0), lambda: draw_contact_sheet(found, 3)):
        with pytest.raises(ValueError, match=r"layer [03]; the model has 2"):
            draw()
    with pytest.raises(ValueError, match="top_k"):
        draw_contact_sheet(replace(found, queries=()))
    with pytest.raises(IndexError, match=r"index=7 .*: 2\."):
        draw_detection(found, 7)


@pytest.mark.parametrize(
    "name",
    [
        "smca on three levels",
        pytest.param("deformable, two-stage, three levels", marks=pytest.mark.slow),
    ],
)
def test_every_panel_is_drawn_from_its_array(name):
    """A change of a single array changes the picture."""
    found = inspected(name, top_k=1)
    query = found.queries[0]
    last = query.layers[-1]
    before = draw_detection(found)
    changes = dict(box=last.box * 0.5, scores=1 - last.scores)
    for field in ("weights", "prior_logits", "level_weights", "points", "point_weights"):
        value = getattr(last, field)
        if isinstance(value, tuple):  # maps per level
            changes[field] = tuple(maps[:, ::-1] for maps in value)
        elif value is not None:
            changes[field] = value[::-1] * 0.9
    assert len(changes) >= 4
    for field, value in changes.items():
        layers = (*query.layers[:-1], replace(last, **{field: value}))
        after = draw_detection(replace(found, queries=(replace(query, layers=layers),)))
        assert after.shape != before.shape or not np.array_equal(after, before), field


def test_part_that_shows_nothing_has_its_boxes():
    model = mix("plain")
    for layer in model.transformer.decoder.layers:
        layer.cross_attn.__class__ = type("Silent", (type(layer.cross_attn),), {"explain": None})
    found = inspected(model=model)
    assert found.queries[0].layers[-1].weights is None
    assert len(sheet_columns(found.queries[0], found.queries[0].layers[-1])) == 1  # its boxes
    assert is_picture(draw_contact_sheet(found)) and is_picture(draw_detection(found))


@pytest.mark.parametrize("size", [(30, 40), (700, 900)])
@pytest.mark.parametrize("cell", [(0, 0), (3, 5), (2, 1)])
def test_hottest_place_of_the_picture_is_the_cell(size, cell):
    maps = [np.zeros((4, 6)), np.full((2, 3), 1 / 6)]
    maps[0][cell] = 1
    values = density(maps)
    assert values.max() == pytest.approx(24 + 1, rel=0.05)  # all in one of 24 cells, and the mean
    dark = np.zeros((*size, 3), np.uint8)
    picture = blend(dark, values / values.max()).astype(float).sum(-1)
    row, column = np.argwhere(picture > picture.max() - 2).mean(0)
    assert abs((row + 0.5) / picture.shape[0] - (cell[0] + 0.5) / 4) < 0.5 / 4
    assert abs((column + 0.5) / picture.shape[1] - (cell[1] + 0.5) / 6) < 0.5 / 6


def test_density_does_not_depend_on_the_grid():
    """Equal attention on coarse and fine levels is equally bright."""
    coarse, fine = np.full((2, 3), 1 / 6), np.full((20, 30), 1 / 600)
    assert density([coarse]) == pytest.approx(1.0)
    assert density([fine]) == pytest.approx(1.0)
    assert density([fine * 0.3, coarse * 0.7]) == pytest.approx(1.0, rel=1e-5)
    assert density([fine * 60, coarse], shares=False).mean() == pytest.approx((0.1 + 1 / 6) / 2)


@pytest.mark.parametrize(
    "numbers, title",
    [
        (None, "What the top-scoring queries looked at"),
        ([3, 7], "What queries 3 and 7 looked at"),
        ([7, 0, 3], "What queries 7, 0 and 3 looked at"),
        ([4], "What query 4 looked at"),
        (range(9), "What 9 chosen queries looked at"),
    ],
)
def test_title_says_which_queries(numbers, title):
    assert sheet_title(inspected(queries=numbers)) == title


@pytest.mark.parametrize("width", [3.0, 9.0])
def test_titles_fit_the_page(width, monkeypatch):
    """With the full file name if there is room."""
    monkeypatch.setattr(canvas, "DPI", 100)
    lines = []
    write = canvas.Canvas.text
    monkeypatch.setattr(
        canvas.Canvas, "text", lambda *args, **kw: lines.append(args[3]) or write(*args, **kw)
    )
    for file, shown in (
        ("", ""),
        ("$a_1$.jpg", r" in \$a_1\$\.jpg"),
        ("two\nlines.jpg", r" in two\?lines\.jpg"),
        (f"start_{'0123456789' * 20}_end.jpg", r" in start_\d*…\d*_end\.jpg"),
    ):
        page = canvas.Canvas(width, 0.5)
        page.title(0.15, 0.12, "What the top-scoring query looked at", file, 12)
        assert re.fullmatch("What the top-scoring query looked at" + shown, lines.pop())
        assert (page.pixels()[:, -round(0.1 * canvas.DPI) :] == 255).all()


@pytest.mark.parametrize("draw", [draw_contact_sheet, draw_detection])
def test_pages_name_their_image(draw, monkeypatch):
    files = []
    monkeypatch.setattr(canvas.Canvas, "title", lambda *args: files.append(args[4]))
    for path in ("", "/data/val/000012.jpg"):
        draw(inspected(top_k=1, path=path))
    assert files == ["", "000012.jpg"]


def test_predictions_beside_ground_truth(tmp_path):
    """Only boxes with enough score are drawn, on the right."""
    cv2.imwrite(str(tmp_path / "a.png"), np.full((60, 80, 3), 128, np.uint8))
    one, label = np.array([[10.0, 20, 50, 40]]), np.array([0])
    truth, found = (one, label, np.array([False])), (one, label, np.array([0.5]))
    image = ImageResult(1, str(tmp_path / "a.png"), *truth, *found)
    with_box, without = (
        draw_predictions([image], ["disc"], tmp_path / "b.png", min_score, columns=1)
        or cv2.imread(str(tmp_path / "b.png")).astype(int)[30:]  # below the titles
        for min_score in (0.5, 0.51)
    )
    changed = np.abs(with_box - without).max(axis=(0, 2)) > 0
    assert changed.any() and not changed[: len(changed) // 2].any()
    assert with_box[:, : len(changed) // 2].std() > 1
