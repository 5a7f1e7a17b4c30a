"""Best settings of a sweep: judged by one measure, named with their split, never over several splits at once."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest

from wsol.report.figures import draw_sweep
from wsol.report.summary import best_settings, chosen_on

KEYS = ["a", "b"]


def table(*rows: tuple[str, str, str, str, str, str]) -> pd.DataFrame:
    """Rows of job, a, b, method, split and GT-known localization; a job without a value failed."""
    frame = pd.DataFrame(rows, columns=["job", *KEYS, "method", "split", "gt_known_loc"])
    frame["error"] = ["" if value else "broken" for value in frame["gt_known_loc"]]
    return frame.assign(dataset="shapes", protocol="p")


def test_best_of_each_method_and_split_with_failed_jobs_left_out() -> None:
    frame = table(
        ("0", "1", "x", "cam", "val", "70.5"),
        ("0", "1", "x", "center", "val", "20"),
        ("1", "2", "x", "cam", "val", "9.5"),
        ("1", "2", "x", "center", "val", "20"),
        ("2", "2", "x", "cam", "test", "80"),
        ("3", "3", "x", "", "", ""),
    )
    best = best_settings(frame, KEYS, {"0": "train-fullsup", "2": "test"})
    columns = ["split", "role", "method", "settings", "value", "job"]
    assert best[columns].values.tolist() == [
        ["val", "train-fullsup", "cam", "a=1", 70.5, "0"],
        ["val", "train-fullsup", "center", "all alike", 20.0, "0"],
        ["test", "test", "cam", "all alike", 80.0, "2"],
    ]


def test_methods_that_would_be_called_alike_are_lines_of_their_own(tmp_path: Path) -> None:
    values = {("1", "cam"): 70.0, ("1", "CAM"): 10.0, ("2", "cam"): 80.0, ("2", "CAM"): 20.0}
    frame = table(*((a, a, "x", name, "val", str(value)) for (a, name), value in values.items()))
    with patch("wsol.report.figures.save_figure") as saved:
        draw_sweep(frame, KEYS, tmp_path / "sweep")
    (axis,) = saved.call_args.args[0].axes
    assert [line.get_ydata().tolist() for line in axis.lines] == [[70, 80], [10, 20]]


def test_an_override_that_changes_nothing_is_not_named() -> None:
    frame = table(*((f"{a}{b}", a, b, "cam", "val", {"1": "50", "2": "60"}[a]) for a in "12" for b in "xy"))
    assert best_settings(frame, KEYS, {})["settings"].tolist() == ["a=2"]
    frame.loc[3, "gt_known_loc"] = "61"
    assert best_settings(frame, KEYS, {})["settings"].tolist() == ["a=2, b=y"]


def test_protocols_are_judged_by_what_all_their_rows_have() -> None:
    frame = table(("0", "1", "x", "cam", "val", "70"), ("1", "2", "x", "cam", "val", "71"))
    frame["max_box_acc"] = ["90", ""]
    assert best_settings(frame, KEYS, {})["measure"].tolist() == ["gt_known_loc"]
    frame["max_box_acc"] = ["90", "80"]
    assert best_settings(frame, KEYS, {})[["measure", "settings"]].values.tolist() == [["max_box_acc", "a=1"]]
    assert best_settings(frame.drop(columns=["max_box_acc", "gt_known_loc"]), KEYS, {}).empty


@pytest.mark.parametrize(
    ("split", "role", "where", "oracle"),
    [
        ("test", "", "cub (test)", True),
        ("val", "test", "cub (val, role test)", True),
        ("val", "train-fullsup", "cub (val, role train-fullsup)", False),
        ("val", "", "cub (val)", False),
    ],
)
def test_the_split_is_said_and_whether_it_is_an_oracle(split: str, role: str, where: str, oracle: bool) -> None:
    best = pd.DataFrame({"dataset": ["cub"] * 2, "split": [split] * 2, "role": [role] * 2})
    (sentence,) = chosen_on(best)
    assert where in sentence
    assert ("an oracle" in sentence) == oracle
