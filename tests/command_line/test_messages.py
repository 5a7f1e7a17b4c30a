"""What is said on stderr: progress at once, warnings once each at the end, in color only where that is wanted."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from wsol.command_line.messages import complain, logging_to_stderr

logger = logging.getLogger("wsol")


def test_progress_comes_at_once_and_warnings_once_each_at_the_end(capsys: pytest.CaptureFixture) -> None:
    with logging_to_stderr():
        logger.warning("maps are empty: %s", "a")
        logger.info("half of it")
        with logging_to_stderr():  # as the jobs of a sweep do
            logger.warning("maps are empty: %s", "a")
            logger.warning("another")
        assert capsys.readouterr().err == "half of it\n"
    assert capsys.readouterr().err == ("wsol: warning: maps are empty: a (2 times)\nwsol: warning: another\n")


def test_other_packages_warnings_are_among_them(capsys: pytest.CaptureFixture) -> None:
    before = warnings.showwarning
    with logging_to_stderr():
        warnings.warn("something\n is off", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == ("wsol: warning: something is off (UserWarning, command_line/test_messages.py)\n")
    assert warnings.showwarning is before


def test_warnings_come_also_where_it_ends_badly_and_logging_is_as_before(capsys: pytest.CaptureFixture) -> None:
    before = list(logger.handlers), logger.level, logger.propagate
    with pytest.raises(RuntimeError), logging_to_stderr():
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
    complain("no such file")
    assert capsys.readouterr().err == (
        "\033[31mwsol: error:\033[0m no such file\n" if colored else "wsol: error: no such file\n"
    )
