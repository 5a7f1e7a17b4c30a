"""Progress, tables and messages: a bar and boxes on a terminal, plain lines elsewhere, and silence when asked."""

from __future__ import annotations

import logging
import re
import sys
import warnings

import pandas as pd
import pytest

from wsol import console
from wsol.console import print_message, print_table, progress, showing_messages

logger = logging.getLogger("wsol")
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
    monkeypatch.setattr(console, "QUIET_SECONDS", -1)
    with caplog.at_level(logging.INFO, "wsol"), progress("maps", 4) as advance:
        advance(2)
        advance(1, "75 % right")
    assert len(caplog.messages) == 2
    assert re.fullmatch("maps: 3 of 4, 0:00:0[01] left, 75 % right", caplog.messages[-1])


@pytest.mark.parametrize(("show", "seconds"), [(False, -1), (True, 20)])
def test_says_nothing_when_not_asked_or_too_soon(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, show: bool, seconds: int
) -> None:
    monkeypatch.setattr(console, "QUIET_SECONDS", seconds)
    with caplog.at_level(logging.INFO, "wsol"), progress("maps", 4, show) as advance:
        advance(2)
        advance(2)
    assert not caplog.messages


def test_draws_a_bar(on_terminal: None, capsys: pytest.CaptureFixture) -> None:
    with progress("maps [of] all", 400) as advance:
        advance(200, "all right")
    err = plain(capsys.readouterr().err)
    assert "maps [of] all" in err and "200/400" in err and "all right" in err


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


def test_progress_comes_at_once_and_warnings_once_each_at_the_end(capsys: pytest.CaptureFixture) -> None:
    with showing_messages():
        logger.warning("maps are empty: %s", "a")
        logger.info("half of it")
        with showing_messages():  # as the jobs of a sweep do
            logger.warning("maps are empty: %s", "a")
            logger.warning("another")
        assert capsys.readouterr().err == "half of it\n"
    assert capsys.readouterr().err == ("wsol: warning: maps are empty: a (2 times)\nwsol: warning: another\n")


def test_other_packages_warnings_are_among_them(capsys: pytest.CaptureFixture) -> None:
    before = warnings.showwarning
    with showing_messages():
        warnings.warn("something\n is off", UserWarning, stacklevel=1)
    assert re.search(r"wsol: warning: .*test_console.py:\d+: UserWarning: something is off", capsys.readouterr().err)
    assert warnings.showwarning is before


def test_warnings_come_also_where_it_ends_badly_and_logging_is_as_before(capsys: pytest.CaptureFixture) -> None:
    before = list(logger.handlers), logger.level, logger.propagate
    with pytest.raises(RuntimeError), showing_messages():
        logger.warning("beware")
        raise RuntimeError
    assert capsys.readouterr().err == "wsol: warning: beware\n"
    assert before == (logger.handlers, logger.level, logger.propagate)


@pytest.mark.parametrize(
    ("terminal", "variables", "colored"),
    [(True, {}, True), (False, {}, False), (True, {"NO_COLOR": "1"}, False), (True, {"TERM": "dumb"}, False)],
)
def test_color(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, terminal: bool, variables: dict, colored: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    print_message("no such file")
    assert capsys.readouterr().err == (
        "\033[31mwsol: error:\033[0m no such file\n" if colored else "wsol: error: no such file\n"
    )
