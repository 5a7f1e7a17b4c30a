"""Progress: a line now and then where there is no terminal, and silence when asked."""

from __future__ import annotations

import logging

import pytest

from wsol import terminal
from wsol.terminal import progress


def test_says_a_line_without_terminal(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "QUIET_SECONDS", -1)
    with caplog.at_level(logging.INFO, "wsol"), progress("maps", 4) as advance:
        advance(3, "75 % right")
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("maps: 3 of 4, ")
    assert caplog.messages[0].endswith("75 % right")


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


def test_draws_a_bar_on_a_terminal(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with progress("maps", 4) as advance:
        advance(4, "all right")
    assert "maps" in capsys.readouterr().err
