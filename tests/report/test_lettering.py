"""Text in figures: on one line, in letters that are there, within its room."""

from __future__ import annotations

import matplotlib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from wsol.report.lettering import families, fitted, printable, text_width, wrapped


@pytest.mark.parametrize("text", ["a & b_{c} $x$", "A very long class name, and its synonyms", "Käse кот"])
def test_width_is_a_little_more_than_what_is_drawn(text: str) -> None:
    with matplotlib.rc_context({"font.family": families(), "text.parse_math": False}):
        figure = Figure(dpi=200)
        drawn = figure.text(0, 0.5, text, fontsize=9).get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert 1 <= text_width(printable(text), 9) / (drawn.width / 200) < 1.08


@settings(max_examples=12, deadline=None)
@given(text=st.text(max_size=60), inches=st.floats(0.5, 3))
def test_whatever_the_text_it_fits(text: str, inches: float) -> None:
    line = printable(text)
    assert "\n" not in line and line.isprintable()
    assert text_width(fitted(line, 8, inches), 8) <= inches
    assert all(text_width(part, 8) <= inches for part in wrapped(line, 8, inches))


def test_wrapping_loses_no_word() -> None:
    text = "Orange: the box around the largest region above the threshold"
    assert " ".join(wrapped(text, 8, 1.5)) == text
