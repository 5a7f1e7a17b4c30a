"""Pictures of heatmaps and boxes: all panels and words are there, inside, and none lies on another."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

import wsol
from tests.report.conftest import HostileShapes
from wsol import cli
from wsol.datasets import Sample, Shapes
from wsol.errors import UserError
from wsol.explanation import Answer, Explanation, Region
from wsol.localization import load_protocol
from wsol.report.pictures import draw_explanation, overlay
from wsol.tables import Results

NAMES = ("salt & pepper_{$x$}", "a name that goes on and on, with synonyms, " * 4, "猫 кот\nline", "", "100 % #1")


def explanation(width: int, height: int, methods: int) -> Explanation:
    random = np.random.default_rng(0)
    regions = {f"method_{i}_$y$": Region(random.random((8, 8)), np.array([1.0, 2, 20, 9])) for i in range(methods)}
    regions["method_0_$y$"] = Region(np.zeros((8, 8)), None)
    names = NAMES[: 2 if methods > 2 else 5]
    answers = [Answer(i, name, 0.5**i / 1000, i + 1, regions) for i, name in enumerate(names)]
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Explanation(image, answers, load_protocol("zhou2016"), dict.fromkeys(regions, "layer4"))


def texts(figure: Figure) -> list[Text]:
    return [text for text in (*figure.texts, *(axis.title for axis in figure.axes)) if text.get_text()]


@pytest.mark.parametrize(("size", "methods"), [((30, 200), 1), ((900, 30), 1), ((64, 64), 8)])
def test_words_are_inside_and_apart(size: tuple[int, int], methods: int) -> None:
    about = "resnet18 (weights: random), layer4. " * 3
    figure = draw_explanation(explanation(*size, methods), about, np.array([[0, 0, 5, 5]]))
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    words = texts(figure)
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in words]
    for text, box in zip(words, boxes, strict=True):
        assert box.x0 >= -1 and box.y0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1 and box.y1 <= figure.bbox.height + 1, text
    panels = [axis.get_window_extent(canvas.get_renderer()) for axis in figure.axes]
    for one, two in itertools.combinations([*boxes, *panels], 2):
        overlap = min(one.x1, two.x1) - max(one.x0, two.x0), min(one.y1, two.y1) - max(one.y0, two.y0)
        assert min(overlap) < 1.5, (one, two)


def test_panels_boxes_and_words() -> None:
    figure = draw_explanation(explanation(40, 30, 2), "By a network.", np.array([[0, 0, 5, 5]]))
    assert len(figure.axes) == 1 + len(NAMES) * 2
    image, empty, drawn = figure.axes[:3]
    assert [axis.get_title() for axis in (image, empty, drawn)] == ["image", "method_0_$y$ (empty)", "method_1_$y$"]
    assert [len(axis.findobj(Rectangle)) - 1 for axis in (image, empty, drawn)] == [2, 2, 4]
    corner = next(box for box in drawn.findobj(Rectangle) if box.get_width() == 20)
    assert (corner.get_xy(), corner.get_height()) == ((0.5, 1.5), 8)
    words = [" ".join(text.get_text().split()) for text in texts(figure)]
    assert "1. salt & pepper_{$x$}" in words and words.count("0.1 %") == 1 and words.count("< 0.1 %") == 4
    caption = next(text for text in words if "By a network." in text)
    assert "τ = 0.2" in caption and "zhou2016" in caption and "ground truth" in caption


def test_an_overlay_is_the_image_and_the_colors_of_the_heat() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    heat = torch.tensor([[-1.0, 3.0]])
    low, high = (255 * np.array(matplotlib.colormaps["jet"](value)[:3]) for value in (0.0, 1.0))
    picture = overlay(image, heat, color_map="jet", alpha=0.25)
    assert picture.dtype == np.uint8 and picture.shape == image.shape
    np.testing.assert_allclose(picture[:, 0], 0.75 * image[:, 0] + 0.25 * low, atol=0.51)
    np.testing.assert_allclose(picture[:, -1], 0.75 * image[:, -1] + 0.25 * high, atol=0.51)
    assert not overlay(image, heat, dim=1.0)[:, 0].any() and (overlay(image, heat, alpha=0.0) == image).all()
    for wrong in (np.ones((2, 2, 3)), np.array([[np.nan, 1.0]])):
        with pytest.raises(UserError, match="overlay"):
            overlay(image, wrong)
    with pytest.raises(UserError, match="alpha=2"):
        overlay(image, heat, alpha=2)


def test_an_unknown_color_map_is_named() -> None:
    with pytest.raises(UserError, match="rainbowish"):
        draw_explanation(explanation(40, 30, 1), color_map="rainbowish")


def test_examples_have_a_row_per_image_and_a_column_per_method(run: Results, tmp_path: Path) -> None:
    data, ids = HostileShapes(), ["<i>03</i>.png", "<i>01</i>.png"]
    axes = run.plot_examples(data, ids, ["gradcam", "center"], "zhou2016")
    table = run.per_image.query("protocol == 'zhou2016'").set_index(["sample_id", "method"])
    for row, name in zip(axes, ids, strict=True):
        for axis, method in zip(row[1:], ("gradcam", "center"), strict=True):
            about = table.loc[name, method]
            assert axis.get_title().splitlines()[-1] == f"IoU {about['iou']:.2f}"
            corners = {box.get_xy() for box in axis.findobj(Rectangle)}
            assert (about["x0"] - 0.5, about["y0"] - 0.5) in corners
    assert [axis.get_title().splitlines()[0] for axis in axes[0, 1:]] == ["Grad-CAM", "center baseline"]
    assert len(axes[1, 1].images) == 1
    mine = Figure().subplots(1, 4)
    assert (run.plot_examples(data, ids[:1], axes=mine) == mine).all()
    for wrong, name in (({"sample_ids": ["no"]}, "no"), ({"methods": ["rise"]}, "rise"), ({"protocol": "x"}, "x")):
        with pytest.raises(UserError, match=name):
            run.plot_examples(data, **wrong)
    with pytest.raises(UserError, match="axes"):
        run.plot_examples(data, ids, axes=mine)
    with pytest.raises(UserError, match="test/00000"):
        run.plot_examples(Shapes(length=24))


def test_an_image_that_cannot_be_read_is_left_out_and_named(run: Results, caplog: pytest.LogCaptureFixture) -> None:
    class Lacking(HostileShapes):
        def __getitem__(self, index: int) -> Sample:
            return replace(super().__getitem__(index), **({"image": Path("gone.png")} if index in (1, 2) else {}))

    ids, mine = [f"<i>0{number}</i>.png" for number in (1, 3, 5)], Figure().subplots(3, 2)
    for axes in (run.plot_examples(Lacking(), ids, ["cam"]), run.plot_examples(Lacking(), ids, ["cam"], axes=mine)):
        expected = run.plot_examples(HostileShapes(), ids[1:], ["cam"])
        for axis, other in zip(axes.flat, expected.flat, strict=True):
            assert axis.get_title() == other.get_title()
            np.testing.assert_array_equal(axis.images[0].get_array(), other.images[0].get_array())
    assert (axes == mine[1:]).all()
    assert all(ids[0] in text and "gone.png" in text for text in caplog.messages) and len(caplog.messages) == 2
    with pytest.raises(UserError, match="gone.png"):
        run.plot_examples(Lacking(), ids[:1])


def test_a_run_in_memory_has_its_heatmaps_still() -> None:
    data = Shapes(length=3, size=64)
    (image, center), *_ = wsol.score(data, methods=["center"], progress=False).plot_examples(data)
    pixels, heat = (np.asarray(axis.images[0].get_array(), float).mean(axis=2) for axis in (image, center))
    assert heat[0, 0] < pixels[0, 0], "dimmed where the heatmap is low"


@pytest.mark.long
def test_chosen_examples_are_one_figure_of_every_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["dataset.length=6", "dataset.size=40", "method=[center,full]", "report=false", "pictures=0"]
    assert cli.main(["score", *words, "run_dir=run", "figures.examples=test/00004"]) == 0
    names = [f"examples.{kind}" for kind in ("pdf", "png", "svg")]
    assert sorted(path.name for path in (tmp_path / "run" / "figures").iterdir()) == names
    one = Image.open("run/figures/examples.png").size
    assert cli.main(["report", "run=run", "figures.examples=[test/00004,test/00001]"]) == 0
    two = Image.open("run/figures/examples.png").size
    assert two[0] == pytest.approx(one[0], abs=9) and two[1] > 1.7 * one[1]
    assert cli.main(["report", "run=run", "figures.examples=[nowhere]"]) == 0 and "nowhere" in capsys.readouterr().err
