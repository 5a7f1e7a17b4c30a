"""Figures for a paper: they are there, need no font, take any name, and can be told apart without red and green."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol.report import palette
from wsol.report.chart_data import KIND_NAMES, Charts, SizeShares, share_at_least, sizes_of_objects
from wsol.report.figures import draw_figures
from wsol.report.palette import BASELINES, KIND_COLORS, SERIES, series_styles

NAMES = ("cam", "_private", "$\\frac{a$ & <b> 熊猫 \n" + "long " * 30, "center")


def charts(names=NAMES):
    at = np.arange(0, 1, 0.01)
    curves = {delta: {name: (at, 90 * (1 - at) ** (delta + n)) for n, name in enumerate(names)} for delta in (0.3, 0.5)}
    shares = {name: share_at_least(np.linspace(0, 1, 50) ** (n + 1)) for n, name in enumerate(names)}
    sizes = SizeShares(["5–10 %", "10–20 %"], [3, 9], {name: [20.0 + n, 50.0 - n] for n, name in enumerate(names)})
    errors = {name: dict.fromkeys(KIND_NAMES, 100 / 6) for name in names}
    return Charts(dict.fromkeys(names, 0.2), curves, shares, sizes, errors, {})


@pytest.mark.filterwarnings("error")
def test_every_figure_as_png_and_svg_without_fonts(tmp_path):
    written = draw_figures({"p/1": charts()}, series_styles(NAMES), tmp_path)
    stems = [f"{name}_p_1" for name in ("accuracy", "iou", "size", "errors")]
    assert sorted(path.name for path in written) == sorted(f"{stem}.{end}" for stem in stems for end in ("png", "svg"))
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert min(picture.size) > 150
                assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
            continue
        root = ET.parse(path).getroot()
        assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
        assert len(list(root.iter("{http://www.w3.org/2000/svg}use"))) > 20  # letters, drawn
        assert "<dc:date>" not in path.read_text(encoding="utf-8")


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for folder in ("a", "b"):
        draw_figures({"p": charts()}, series_styles(NAMES), tmp_path / folder)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_what_a_run_lacks_is_not_drawn(tmp_path):
    nothing = Charts({}, {}, {}, None, {}, {})
    assert draw_figures({"p": nothing}, {}, tmp_path) == []


def test_the_chosen_thresholds_are_marked(tmp_path):
    def circles(chosen):
        shown = charts(("cam", "gradcam"))
        shown.thresholds.update(chosen)
        draw_figures({"p": shown}, series_styles(["cam", "gradcam"]), tmp_path)
        return re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #0072b2; stroke: #ffffff',
                          (tmp_path / "accuracy_p.svg").read_text(encoding="utf-8"))  # fmt: skip

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


STYLE_SHEET = (Path(palette.__file__).parent / "templates" / "base.css").read_text(encoding="utf-8")
LIGHT, DARK = zip(*re.findall(r"--(?:s\d|baseline): light-dark\((#\w{6}), (#\w{6})\)", STYLE_SHEET), strict=True)
COLORS = {"light": LIGHT, "dark": DARK, "kinds": [fill for fill, _ in KIND_COLORS.values()]}


@pytest.mark.parametrize("kind", [None, *BLIND])
@pytest.mark.parametrize("colors", COLORS.values(), ids=COLORS)
def test_colors_can_be_told_apart_by_color_blind_readers(kind, colors):
    seen = [lab(color, BLIND.get(kind, np.eye(3))) for color in colors]
    nearest = min(float(np.linalg.norm(a - b)) for n, a in enumerate(seen) for b in seen[:n])
    assert nearest > 10


def test_figures_and_page_have_the_same_colors():
    assert (*SERIES, palette.GRAY) == LIGHT


def test_sizes_and_shares():
    samples = pd.DataFrame({"true_boxes": [[0, 0, 9, 9, 20, 20, 59, 69]], "width": [100], "height": [100]})
    assert sizes_of_objects(samples).tolist() == [20.0]
    at, shares = share_at_least(np.array([0.5, 0.5, 1.0]))
    assert shares[at <= 0.5].tolist() == [100.0] * 51
    assert shares[-1] == pytest.approx(100 / 3)
