"""A sweep's picture shows the values of its table: lines for one number, heat maps for two, nothing for names."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wsol.report import sweep_figure
from wsol.report.sweep_figure import draw_sweep


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
    figures: list[Figure] = []
    monkeypatch.setattr(sweep_figure, "save_figure", lambda figure, stem: figures.append(figure) or [stem])
    return figures


def test_one_number_makes_a_line_for_each_method(drawn: list[Figure], tmp_path: Path) -> None:
    frame = sweep(tau=("0.3", "0.1", "0.2"))
    frame.loc[len(frame)] = frame.iloc[0].to_dict() | {"tau": "0.9", "gt_known_loc": "", "error": "broken"}
    draw_sweep(frame, ["tau"], tmp_path / "sweep")
    (axis,) = drawn[0].axes
    lines = [np.array(line.get_xydata()) for line in axis.get_lines()]
    np.testing.assert_allclose(lines[0], [[0.1, 1], [0.2, 2], [0.3, 3]])
    np.testing.assert_allclose(lines[1], [[0.1, 0], [0.2, 1], [0.3, 2]])
    assert [text.get_text() for text in drawn[0].legends[0].get_texts()] == ["cam", "center"]
    assert (axis.get_title(), axis.get_xlabel()) == ("shapes (val), p", "tau")
    assert axis.get_ylabel() == "GT-known localization (%)"


def test_two_numbers_make_a_heat_map_for_each_method(drawn: list[Figure], tmp_path: Path) -> None:
    frame = sweep(tau=("0.1", "0.2", "0.4"), size=("1", "2")).query("not (tau == '0.4' and size == '2')")
    draw_sweep(frame, ["tau", "size"], tmp_path / "sweep")
    maps = [axis for axis in drawn[0].axes if axis.get_xlabel()]
    assert [axis.get_title().splitlines()[-1] for axis in maps] == ["cam", "center"]
    values = maps[0].images[0].get_array()
    np.testing.assert_allclose(values[:, :2], [[11, 12], [21, 22]])
    assert {text.get_text(): text.get_weight() for text in maps[0].texts} == {
        "11.0": "normal", "12.0": "normal", "14.0": "normal", "21.0": "normal", "22.0": "bold",
    }  # fmt: skip
    assert (maps[0].get_xlabel(), maps[0].get_ylabel()) == ("tau", "size")


def test_what_is_no_number_makes_series(drawn: list[Figure], tmp_path: Path) -> None:
    draw_sweep(sweep(tau=("0.1", "0.2"), model=("a_$x$", "b")), ["tau", "model"], tmp_path / "sweep")
    names = [text.get_text() for legend in drawn[0].legends for text in legend.get_texts()]
    assert names == [f"{method}, model={model}" for model in ("a_$x$", "b") for method in ("cam", "center")]


@pytest.mark.parametrize("values", [{"model": ("a", "b")}, {"tau": ("0.1", "null")}, dict.fromkeys("abc", ("1", "2"))])
def test_names_and_three_numbers_make_no_picture(values: dict[str, tuple[str, ...]], tmp_path: Path) -> None:
    assert draw_sweep(sweep(**values), list(values), tmp_path / "sweep") == []
    assert not any(tmp_path.iterdir())


def test_files_are_the_same_each_time_and_carry_their_letters(tmp_path: Path) -> None:
    frame = sweep(tau=("0.0001", "0.1"))
    first, second = (draw_sweep(frame, ["tau"], tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == ["a.svg", "a.png"]
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(first, second, strict=True))
    assert "<text" not in first[0].read_text()
