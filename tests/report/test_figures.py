"""Figures for a paper: they show their values, need no font, take any name, and color-blind readers can read them."""

import itertools
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from wsol.heatmaps.method import BASELINES
from wsol.report import figures
from wsol.report.charts import GRAY, KINDS, SERIES, by_stratum, series_styles, share_at_least
from wsol.report.figures import FORMATS, draw_figures, draw_sweep, short_text

NAMES = ("cam", "_private", "$\\frac{a$ & <b> 熊猫 \n" + "long " * 30, "center")


def charts(names=NAMES):
    grid = np.arange(0, 1, 0.01)
    curves = {
        delta: {name: np.rint(90 * (1 - grid) ** (float(delta) + n)) for n, name in enumerate(names)}
        for delta in ("0.3", "0.5")
    }
    sizes = {"bins": ["5–10 %", "10–20 %"], "counts": [3, 9]}
    sizes["values"] = {name: [20.0 + n, 50.0 - n] for n, name in enumerate(names)}
    return {
        "count": 100,
        "grid": grid,
        "thresholds": dict.fromkeys(names, 0.2),
        "curves": curves,
        "shares": {name: share_at_least(np.linspace(0, 1, 50) ** (n + 1)) for n, name in enumerate(names)},
        "sizes": sizes,
        "errors": {name: [100 / 6] * 6 for name in names},
    }


@pytest.mark.filterwarnings("error")
def test_every_figure_needs_no_font(tmp_path):
    written = draw_figures({"p/1": charts()}, series_styles(NAMES), tmp_path)
    stems = [f"{name}_p_1" for name in ("accuracy", "iou", "size", "errors")]
    assert sorted(path.name for path in written) == sorted(f"{stem}.{end}" for stem in stems for end in FORMATS)
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 150
                assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
            continue
        if path.suffix == ".pdf":
            fonts = set(re.findall(rb"/Subtype /(Type3|CIDFontType2)", path.read_bytes()))
            assert fonts == {b"CIDFontType2"} and b"/FontFile2" in path.read_bytes(), "TrueType, inside the file"
            continue
        root = ET.parse(path).getroot()
        assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
        assert len(list(root.iter("{http://www.w3.org/2000/svg}use"))) > 20  # letters, drawn
        assert "<dc:date>" not in path.read_text(encoding="utf-8")


@pytest.mark.long
def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        draw_figures({"p": charts()}, series_styles(NAMES), tmp_path / folder)
        draw_sweep(sweep(tau=("0.1", "0.2"), size=("1", "2")), ["tau", "size"], tmp_path / folder / "sweep")
    assert len(list((tmp_path / "a").iterdir())) == 15
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_what_a_run_lacks_is_not_drawn(tmp_path):
    assert draw_figures({"p": {"curves": {}}}, {}, tmp_path) == []


def test_the_chosen_thresholds_are_marked(tmp_path):
    def circles(chosen):
        shown = charts(("cam", "gradcam"))
        shown["thresholds"].update(chosen)
        with figures.figure_style():
            figures.save_figure(figures._accuracy(shown, series_styles(["cam", "gradcam"])), tmp_path / "p", ["svg"])
        return re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #0072b2; stroke: #ffffff',
                          (tmp_path / "p.svg").read_text(encoding="utf-8"))  # fmt: skip

    low, high = circles({"cam": 0.1}), circles({"cam": 0.7})
    assert len(low) == len(high) == 2  # panels
    assert all(float(b[0]) > float(a[0]) and float(b[1]) > float(a[1]) for a, b in zip(low, high, strict=True))


def test_eighteen_methods_differ_and_baselines_are_gray():
    names = [f"m{number}" for number in range(18)] + list(BASELINES)
    styles = series_styles(names)
    assert len({(style.color, style.dash) for style in styles.values()}) == len(names)
    assert {styles[name].variable for name in BASELINES} == {"var(--baseline)"}
    assert series_styles(["mine"], {"mine": "center"})["mine"].variable == "var(--baseline)"


# Machado, Oliveira and Fernandes (2009): what the eye makes of linear RGB without red and without green cones.
BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
}


def lab(color, matrix):
    values = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(matrix) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    f = np.cbrt(xyz / [0.9505, 1, 1.089])
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


STYLE_SHEET = (Path(figures.__file__).parent / "templates" / "base.css").read_text(encoding="utf-8")
LIGHT, DARK = zip(*re.findall(r"--(?:s\d|baseline): light-dark\((#\w{6}), (#\w{6})\)", STYLE_SHEET), strict=True)
COLORS = {"light": LIGHT, "dark": DARK, "kinds": [kind.color for kind in KINDS]}


@pytest.mark.parametrize("kind", [None, *BLIND])
@pytest.mark.parametrize("colors", COLORS.values(), ids=COLORS)
def test_colors_can_be_told_apart_by_color_blind_readers(kind, colors):
    seen = [lab(color, BLIND.get(kind, np.eye(3))) for color in colors]
    nearest = min(float(np.linalg.norm(a - b)) for n, a in enumerate(seen) for b in seen[:n])
    assert nearest > 10


def test_figures_and_page_have_the_same_colors():
    assert (*SERIES, GRAY) == LIGHT


def test_strata_and_shares():
    boxes = [[0, 0, 9, 9, 20, 20, 59, 69], [0, 0, 99, 99], [0, 0, 9, 9]]
    samples, right = (
        pd.DataFrame({"true_boxes": boxes, "width": 100, "height": 100}),
        pd.DataFrame({"cam": [1, 0, 1.0]}),
    )
    sizes, instances = (by_stratum(kind, samples, right) for kind in ("size", "instances"))
    assert sizes == {"bins": ["1–4 %", "16–25 %", "81–100 %"], "counts": [1, 1, 1], "values": {"cam": [100, 100, 0]}}
    assert instances == {"bins": ["1", "2"], "counts": [2, 1], "values": {"cam": [50, 100]}}
    assert by_stratum("instances", samples[1:], right[1:].reset_index(drop=True)) is None
    shares = share_at_least(np.array([0.5, 0.5, 1.0]))
    assert shares[:51].tolist() == [100.0] * 51
    assert shares[-1] == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("text", "width", "short"),
    [
        ("tabby,\n tabby\tcat \U00013000", 40, "tabby, tabby cat U+13000"),
        ("European fire salamander", 14, "European fire…"),
        ("$x_1$", 40, "$x_1$"),
    ],
)
def test_text_stays_on_one_line_in_letters_that_some_font_has(text, width, short):
    assert short_text(text, width) == short


def sweep(**values: tuple[str, ...]) -> pd.DataFrame:
    """Two methods; GT-known localization is ten times the sum of the numbers, and one less for the center."""
    rows = []
    for job, chosen in enumerate(itertools.product(*values.values())):
        total = 10 * sum(float(text) for text in chosen if text.replace(".", "").isdigit())
        for method in ("cam", "center"):
            value = f"{total - (method == 'center')}"
            rows.append(
                {"job": str(job), **dict(zip(values, chosen, strict=True)), "method": method, "gt_known_loc": value}
            )
    return pd.DataFrame(rows).assign(dataset="shapes", split="val", protocol="p", error="")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Figures that were to be saved."""
    saved: list[Figure] = []
    monkeypatch.setattr(figures, "save_figure", lambda figure, stem: saved.append(figure) or [stem])
    return saved


def test_one_number_makes_a_line_for_each_method(drawn: list[Figure], tmp_path: Path) -> None:
    frame = sweep(tau=("0.3", "0.1", "0.2"))
    frame.loc[len(frame)] = frame.iloc[0].to_dict() | {"tau": "0.9", "gt_known_loc": "", "error": "broken"}
    draw_sweep(frame, ["tau"], tmp_path / "sweep")
    (axis,) = drawn[0].axes
    lines = [np.array(line.get_xydata()) for line in axis.get_lines()]
    np.testing.assert_allclose(lines[0], [[0.1, 1], [0.2, 2], [0.3, 3]])
    np.testing.assert_allclose(lines[1], [[0.1, 0], [0.2, 1], [0.3, 2]])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["CAM", "center baseline"]
    assert (axis.get_title(), axis.get_xlabel()) == ("shapes (val), p", "tau")
    assert axis.get_ylabel() == "GT-known localization (%)"


def test_two_numbers_make_a_heat_map_for_each_method(drawn: list[Figure], tmp_path: Path) -> None:
    frame = sweep(tau=("0.1", "0.2", "0.4"), size=("1", "2")).query("not (tau == '0.4' and size == '2')")
    draw_sweep(frame, ["tau", "size"], tmp_path / "sweep")
    maps = [axis for axis in drawn[0].axes if axis.get_xlabel()]
    assert [axis.get_title().splitlines()[-1] for axis in maps] == ["CAM", "center baseline"]
    values = maps[0].images[0].get_array()
    np.testing.assert_allclose(values[:, :2], [[11, 12], [21, 22]])
    assert {text.get_text(): text.get_weight() for text in maps[0].texts} == {
        "11.0": "normal", "12.0": "normal", "14.0": "normal", "21.0": "normal", "22.0": "bold",
    }  # fmt: skip
    assert (maps[0].get_xlabel(), maps[0].get_ylabel()) == ("tau", "size")


def test_what_is_no_number_makes_series(drawn: list[Figure], tmp_path: Path) -> None:
    layer, frame = "methods.gradcam.layer", sweep(tau=("0.1", "0.2"), model=("a_$x$", "b"))
    draw_sweep(frame, ["tau", "model"], tmp_path / "sweep")
    draw_sweep(frame.assign(**{layer: frame["model"], "model": "a"}), ["tau", layer], tmp_path / "sweep")
    for figure, key in zip(drawn, ("model", "layer"), strict=True):
        names = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
        assert names == [f"{method}, {key}={v}" for v in ("a_$x$", "b") for method in ("CAM", "center baseline")]


@pytest.mark.parametrize("values", [{"model": ("a", "b")}, {"tau": ("0.1", "null")}, dict.fromkeys("abc", ("1", "2"))])
def test_names_and_three_numbers_are_drawn_as_bars(values: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    assert {path.suffix for path in draw_sweep(sweep(**values), list(values), tmp_path / "sweep")} == {
        ".png",
        ".svg",
        ".pdf",
    }


def test_a_sweep_over_orders_of_magnitude_has_a_logarithmic_axis(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_sweep(sweep(tau=("0.0001", "0.1")), ["tau"], tmp_path / "sweep")
    assert drawn[0].axes[0].get_xscale() == "log"
