"""Charts show their data, as pictures and as SVG for pages."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from fastdetr_mmdet.utils import plotting
from fastdetr_mmdet.utils.plotting import Chart, Line, chart_svg, printable, save_charts, shorten

SVG = "{http://www.w3.org/2000/svg}"


def lines_of(svg):
    """Drawn points of each line, (n, 2) with y downwards, and its style."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        if re.fullmatch(r"c-line\d+", group.get("id") or ""):
            path = group.find(f"{SVG}path")
            numbers = re.findall(r"-?[\d.]+", path.get("d"))
            points = np.array(numbers, dtype=float).reshape(-1, 2)
            found.append((points, path.get("style")))
    return found


def texts_of(svg):
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_svg_shows_what_it_is_given():
    rising = Line("rising", 0, [0, 5, 10], [0.0, 0.5, 1.0])
    flat = Line("flat", 1, [0, 4], [0.25, 0.25])
    svg = chart_svg(Chart([rising, flat, Line("none", 2, [], [])], "epoch"), "c")
    (first, _), (second, _) = lines_of(svg)
    assert np.diff(first, axis=0)[0] == pytest.approx(np.diff(first, axis=0)[1], abs=0.1)
    assert first[0, 1] > first[2, 1]  # larger values are higher
    assert second[:, 1] == pytest.approx(first[0, 1] + (first[2, 1] - first[0, 1]) / 4, abs=0.1)
    assert {"rising", "flat", "epoch"} <= set(texts_of(svg))
    assert "rising" not in texts_of(chart_svg(Chart([rising], "epoch"), "c"))  # one: no name


def test_svg_is_made_for_a_page():
    """Deterministic; uses the page's colours and fonts, loads nothing, has unique ids."""
    chart = Chart([Line(f"run {n}", n, [0, 1], [1, n]) for n in range(16)], "epoch")
    svg = chart_svg(chart, "c")
    assert svg == chart_svg(chart, "c") and re.search("20[0-9]{2}-", svg) is None
    assert re.findall('#[0-9a-f]{6}|font-family|http[^"]*', svg) == [SVG[1:-1]]
    assert {f"var(--s{n})" for n in range(8)} <= set(re.findall(r"var\(--s\d\)", svg))
    ids = re.findall(r' id="([^"]*)"', svg)
    assert len(set(ids)) == len(ids) and all(name.startswith("c-") for name in ids)
    targets = re.findall(r'(?:href="|url\()#([^")]*)', svg)
    assert targets and set(targets) <= set(ids)
    assert len({style for _, style in lines_of(svg)}) == 16


@pytest.mark.parametrize(
    "values", [[5.0], [0.0, 0.0], [1e-9, 2e-9], [-5.0, 5.0], [1.0, 1.0 + 1e-9], [1, 1e6]], ids=str
)
def test_odd_values(values):
    for log in (False, True):
        svg = chart_svg(Chart([Line("run", 0, range(len(values)), values)], "x", log_y=log), "c")
        ((points, _),) = lines_of(svg)
        assert (points >= 0).all() and (points <= (420, 270)).all()


def test_names_at_lines_do_not_overlap():
    lines = [Line(f"run {n}", n, [0, 1], [1.0, 1.0 + n / 1000]) for n in range(6)]
    root = ElementTree.fromstring(chart_svg(Chart(lines, "x", y_range=(0, None)), "c"))
    texts = {"".join(text.itertext()): float(text.get("y")) for text in root.iter(f"{SVG}text")}
    places = [texts[f"run {n}"] for n in range(6)]
    assert np.diff(places).max() < -12  # in the order of the lines, 9 px high


@pytest.mark.parametrize("name", ["</text><script>", "a\x00b", "_a", "$x_1$", "\ud800", "日本"])
def test_names_are_text(name, tmp_path):
    lines = [Line(name, 0, [0, 1], [0, 1]), Line("b", 1, [0, 1], [0, 2])]
    assert printable(name) in texts_of(chart_svg(Chart(lines, "x"), "c")) or len(name) > 14
    if name != "日本":  # the picture's font does not have it
        save_charts([Chart(lines, "x", title="$", note="$")], tmp_path / "a.png", "$")
        assert (tmp_path / "a.png").stat().st_size > 5000


def test_shorten_and_printable():
    assert shorten("short") == "short"
    assert len(shorten("a" * 40 + "z")) == 14 and shorten("a" * 40 + "z").endswith("z")
    assert printable("a\x00b\ud800\tc") == "a\ufffdb?\tc"


def test_long_lines_are_thinned():
    y = [float(n % 2) for n in range(9_999)] + [1.0]
    ((points, _),) = lines_of(chart_svg(Chart([Line("loss", 0, range(10_000), y)], "x"), "c"))
    assert 300 < len(points) <= 402
    assert points[-1, 1] < points[:-2, 1].min()  # means, and the logged last value


def test_legend_and_levels(monkeypatch, tmp_path):
    """A level far above does not flatten the curves, and is still named."""
    saved = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: saved.append(figure))
    line = Line("_a", 0, [1, 2], [0.1, 0.5], ([0, 0.1], [0.2, 0.6]))
    chart = Chart([line], "epoch", "AP", y_range=(0, 0.6), levels={"near": 0.2, "far": 0.9})
    save_charts([chart, chart], tmp_path / "a.png")
    axis, _ = saved[0].axes
    names = [text.get_text() for text in axis.get_legend().get_texts()]
    assert names == ["_a", "near", "far: above the picture"]
    near, far = axis.get_lines()[1:]
    assert list(near.get_ydata()) == [0.2, 0.2] and list(far.get_ydata()) == []
    assert axis.get_ylim() == (0, 0.6) and len(axis.collections) == 1
    assert plotting.MARKS[0] == axis.get_lines()[0].get_marker()
