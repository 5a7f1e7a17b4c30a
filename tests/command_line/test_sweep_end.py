"""How a sweep ends: what is printed and written from the jobs' files, also where some failed."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from wsol.command_line.sweep import collect, write_record
from wsol.command_line.sweep_end import tell_and_write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three jobs over a number, the last of which failed."""
    for job, (tau, value) in enumerate((("0.1", 70.04), ("0.2", 75.4))):
        place = tmp_path / str(job)
        place.mkdir()
        write_record(place, job, [f"protocols.exact.threshold={tau}", "limit=9"], error=None)
        about = {"dataset": "shapes", "split": "val", "protocol": "exact", "threshold": float(tau) + 1e-17}
        rows = [about | {"method": "cam", "gt_known_loc": value}, about | {"method": "center", "gt_known_loc": 20}]
        pd.DataFrame(rows).to_csv(place / "summary.csv", index=False)
        (place / "environment.json").write_text(json.dumps({"role": "train-fullsup"}))
    (tmp_path / "2").mkdir()
    write_record(
        tmp_path / "2", 2, ["protocols.exact.threshold=7", "limit=9"], error="threshold = 7 & more", unexpected=False
    )
    return tmp_path


def test_table_picture_and_best_settings_with_their_split(folder: Path, capsys: pytest.CaptureFixture) -> None:
    tell_and_write(collect(folder), folder)
    out = capsys.readouterr().out
    assert out.startswith("3 jobs, 1 failed\n| job | protocols.exact.threshold | method | ")
    assert "threshold = 7 & more" in out
    assert "| cam    | exact    | protocols.exact.threshold=0.2 |   1 | GT-known localization | 75.4 |" in out
    assert "| center | exact    | all alike                     |   0 |" in out
    assert "Chosen on shapes (val, role train-fullsup): now run them once on the test split.\n" in out
    assert out.splitlines()[-1].endswith("sweep.csv, with best.csv, sweep.tex, sweep.svg, sweep.png")
    best = pd.read_csv(folder / "best.csv")
    assert best[["role", "method", "settings", "value"]].values.tolist() == [
        ["train-fullsup", "cam", "protocols.exact.threshold=0.2", 75.4],
        ["train-fullsup", "center", "all alike", 20.0],
    ]
    latex = (folder / "sweep.tex").read_text(encoding="utf-8")
    assert r"0.2 & cam & exact & 0.200 & \textbf{75.4} \\" in latex and "0.1 & center & exact & 0.100 & 20.0" in latex
    assert "more" not in latex and "now run them once on the test split" in latex


def test_names_make_no_picture_and_an_earlier_one_goes(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "sweep.png").write_bytes(b"old")
    for job, name in enumerate(("resnet18", "vgg16_gap")):
        write_record(folder / str(job), job, [f"model={name}"], error=None)
    (folder / "2" / "job.json").unlink()
    tell_and_write(collect(folder), folder)
    assert not (folder / "sweep.png").exists() and (folder / "sweep.tex").exists()
    assert "model=vgg16_gap" in capsys.readouterr().out


def test_jobs_that_all_failed_leave_the_table_only(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for job in (0, 1):
        write_record(folder / str(job), job, ["limit=9"], error="broken")
    tell_and_write(collect(folder), folder)
    out = capsys.readouterr().out
    assert "3 jobs, 3 failed" in out and "Best settings" not in out
    assert not (folder / "best.csv").exists() and out.splitlines()[-1].endswith("sweep.csv")
