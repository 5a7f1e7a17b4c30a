"""The picture of an explanation: all panels and words are there, inside it, and none lies on another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from wsol.errors import UserError
from wsol.explain import Answer, Explanation, Region
from wsol.localization import load_protocol
from wsol.report.side_by_side import draw_side_by_side

NAMES = ("salt & pepper_{$x$}", "a name that goes on and on, with synonyms, " * 4, "猫 кот\nline", "", "100 % #1")


def explanation(width: int, height: int, methods: int) -> Explanation:
    random = np.random.default_rng(0)
    regions = {f"method_{i}_$y$": Region(random.random((8, 8)), np.array([1.0, 2, 20, 9])) for i in range(methods)}
    regions["method_0_$y$"] = Region(np.zeros((8, 8)), None)
    names = NAMES[: 2 if methods > 2 else 5]
    answers = [Answer(i, name, 0.5**i / 1000, i + 1, regions) for i, name in enumerate(names)]
    image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Explanation(image, answers, load_protocol("zhou2016"), dict.fromkeys(regions, "layer4"))


@pytest.mark.parametrize(("size", "methods"), [((30, 200), 1), ((900, 30), 1), ((64, 64), 8)])
def test_words_are_inside_and_apart(size: tuple[int, int], methods: int) -> None:
    figure = draw_side_by_side(
        explanation(*size, methods), "resnet18 (weights: random), layer4. " * 3, np.array([[0, 0, 5, 5]])
    )
    renderer = FigureCanvasAgg(figure).get_renderer()
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    boxes = [text.get_window_extent(renderer) for text in texts]
    right, top = figure.bbox.width, figure.bbox.height
    for text, box in zip(texts, boxes, strict=True):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= right + 1 and box.y1 <= top + 1, text
    panels = [axis.get_window_extent(renderer) for axis in figure.axes]
    for one, two in itertools.combinations([*boxes, *panels], 2):
        overlap = min(one.x1, two.x1) - max(one.x0, two.x0), min(one.y1, two.y1) - max(one.y0, two.y0)
        assert min(overlap) < 1.5, (one, two)


def test_panels_boxes_and_words() -> None:
    figure = draw_side_by_side(explanation(40, 30, 2), "By a network.", np.array([[0, 0, 5, 5]]))
    assert len(figure.axes) == len(NAMES) * 3
    image, empty, found = figure.axes[:3]
    assert [axis.get_title() for axis in (image, empty, found)] == ["image", "method_0_$y$ (empty)", "method_1_$y$"]
    assert [len(axis.findobj(Rectangle)) - 1 for axis in (image, empty, found)] == [2, 2, 4]
    corner = next(box for box in found.findobj(Rectangle) if box.get_width() == 20)
    assert (corner.get_xy(), corner.get_height()) == ((0.5, 1.5), 8)
    words = [text.get_text() for text in figure.texts]
    assert words[0] == "1.  salt & pepper_{$x$}  0.1 %" and words[3].endswith("< 0.1 %")
    caption = " ".join(words[-1].split())
    assert caption.startswith(
        "Orange: the box around the largest region above τ = 0.2 of the map's maximum, by the rules of"
    )
    assert "White: the true box. By a network." in caption


def test_an_unknown_color_map_is_named() -> None:
    with pytest.raises(UserError, match="color_map='rainbowish': there is no such color map in matplotlib"):
        draw_side_by_side(explanation(40, 30, 1), color_map="rainbowish")
