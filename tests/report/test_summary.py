"""The summary for people: what is best is bold, and odd names stay in their cells."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from wsol.report.summary import print_summary, write_summary
from wsol.tables import SUMMARY_COLUMNS, Results


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        ("cam", "choe2020", 0.3264, "oracle", 75.44),
        ("my|own_1", "choe2020", 0.2, "oracle", 70.0),
        ("cam", "zhou2016", 0.2, "fixed", 60.0),
        ("my|own_1", "zhou2016", 0.2, "fixed", 60.04),
    ]
    frame = pd.DataFrame(rows, columns=["method", "protocol", "threshold", "threshold_source", "gt_known_loc"])
    frame = frame.reindex(columns=list(SUMMARY_COLUMNS))
    frame = frame.assign(dataset="shapes", split="test", model="net", view="squash", layer="features")
    frame = frame.assign(n_images=9, n_samples=9)
    return frame.astype(dict.fromkeys(SUMMARY_COLUMNS[-11:], float))


def test_markdown_and_latex(summary: pd.DataFrame, tmp_path: Path) -> None:
    write_summary(summary, tmp_path)
    markdown = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    assert markdown[:4] == [
        "| method | protocol | τ | GT-known |",
        "| --- | --- | ---: | ---: |",
        "| cam | choe2020 | 0.326* | **75.4** |",
        "| my\\|own_1 | choe2020 | 0.200* | 70.0 |",
    ]
    assert "**" not in "".join(markdown[4:6]), "both are 60.0"
    assert markdown[-1].startswith("τ\\*: the best on this very split (oracle)")
    latex = (tmp_path / "summary.tex").read_text(encoding="utf-8")
    assert r"cam & choe2020 & 0.326{*} & \textbf{75.4} \\" in latex
    assert r"my\textbar{}own\_1 & zhou2016 & 0.200 & 60.0 \\" in latex
    assert "very split (oracle)" in latex


def test_printed_without_a_terminal(summary: pd.DataFrame, capsys: pytest.CaptureFixture) -> None:
    empty = pd.DataFrame()
    results = Results(summary, empty, empty, empty, empty, empty, environment={"source": {"weights": "random"}})
    print_summary(results)
    out = capsys.readouterr().out
    assert out.startswith("shapes (test, 9 samples), net, view squash; percent\n| method   | protocol | ")
    assert (
        "| cam      | choe2020 | 0.326* |     75.4 |" in out
        and "Weights: random; layers: cam, my|own_1 at features" in out
    )
    assert "Protocol sensitivity" in out and "|   spread |" not in out and "|   15.4 |" in out
    assert "\x1b" not in out and "\u2501" not in out
