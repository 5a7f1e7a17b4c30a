"""Progress and tables: a bar and boxes on a terminal, plain lines elsewhere, and silence when asked."""

from __future__ import annotations

import logging
import re

import pandas as pd
import pytest

from wsol import terminal
from wsol.terminal import print_table, progress

WIDE = pd.DataFrame({"method": ["gradcam", "cam"], **{f"column {i}": [f"{i}.25", "70.0"] for i in range(12)}})


@pytest.fixture
def on_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 80 columns, as far as rich can tell."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_says_a_line_without_terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", -1)
    with caplog.at_level(logging.INFO, "wsol"), progress("maps", 4) as advance:
        advance.start -= 6
        advance(3, "75 % right")
    assert caplog.messages == ["maps: 3 of 4, 2 s left, 2.0 s each, 75 % right"]


@pytest.mark.parametrize(("show", "seconds"), [(False, -1), (True, 20)])
def test_says_nothing_when_not_asked_or_too_soon(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, show: bool, seconds: int
) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", seconds)
    with caplog.at_level(logging.INFO, "wsol"), progress("maps", 4, show) as advance:
        advance(2)
        advance(2)
    assert advance.done == 4
    assert not caplog.messages


def test_draws_a_bar_with_rate_and_time_left(on_terminal: None, capsys: pytest.CaptureFixture) -> None:
    with progress("maps [of] all", 400) as advance:
        advance.start -= 10
        advance(200, "all right")
    shown = plain(capsys.readouterr().err)
    assert "maps [of] all" in shown and "200/400" in shown and "10 s left, 20/s, all right" in shown


def test_a_table_elsewhere_is_plain_text_on_one_line_each(capsys: pytest.CaptureFixture) -> None:
    print_table(WIDE, "All of it", headings={"column 0": "τ"}, keys=("method",), bold={(0, "column 1")})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "All of it" and len(lines) == 5
    assert lines[1].startswith("| method  |    τ | column 1 |") and lines[3].startswith("| gradcam | 0.25 |     1.25 |")
    assert all(line == line.rstrip() and line.startswith("|") for line in lines[1:])
    assert not set("".join(lines)) - set("τ" + "".join(map(chr, range(32, 127))))


def test_a_narrow_terminal_gets_the_table_in_parts(on_terminal: None, capsys: pytest.CaptureFixture) -> None:
    print_table(WIDE, "All of it", keys=("method",))
    lines = plain(capsys.readouterr().out).splitlines()
    assert max(map(len, lines)) <= 80 and "…" not in "".join(lines)
    headings = [line for line in lines if "column" in line and "more columns" not in line]
    assert len(headings) > 1 and all("method" in line for line in headings)
    assert [f"column {i}" for i in range(12)] == re.findall(r"column \d+", "".join(headings))


def test_texts_are_no_markup_and_long_ones_are_folded(on_terminal: None, capsys: pytest.CaptureFixture) -> None:
    frame = pd.DataFrame({"key": ["[bold]a[/]"], "error": ["words " * 40]})
    print_table(frame, "[red]title")
    lines = plain(capsys.readouterr().out).splitlines()
    assert lines[0] == "[red]title" and max(map(len, lines)) <= 80
    assert "".join(lines).count("words") == 40 and "[bold]a[/]" in "".join(lines)


def test_no_color_is_respected_and_bold_remains(
    on_terminal: None, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    print_table(WIDE, bold={(1, "column 1")})
    with progress("maps", 4) as advance:
        advance(4)
    out, err = capsys.readouterr()
    assert not re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", out + err), "no color"
    assert re.search(r"\x1b\[1m *70\.0", out)


def test_letters_that_the_output_lacks_do_not_stop_it(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        monkeypatch.setattr("sys.stdout", file)
        print_table(pd.DataFrame({"τ": ["猫"]}))
    assert (tmp_path / "log").read_text() == "| ?  |\n|----|\n| ? |\n"
