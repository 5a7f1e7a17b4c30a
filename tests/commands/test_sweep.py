"""How a sweep ends: what is printed and written from the jobs' files, also where some failed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest

from wsol import cli
from wsol.commands.request import read_words
from wsol.commands.sweep import end_sweep
from wsol.commands.task import Job, forget_earlier, renumber
from wsol.report.figures import save_figure
from wsol.report.latex import TableOptions
from wsol.tables import METRIC_COLUMNS


def record(place: Path, number: int, overrides: list[str], error: str = "") -> None:
    place.mkdir(exist_ok=True)
    Job(place, overrides, {}, read_words([])).record(number, error, status=2 if error else 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three jobs over a number, the last of which failed."""
    for job, (tau, value) in enumerate((("0.1", 70.04), ("0.2", 75.4))):
        place = tmp_path / str(job)
        record(place, job, [f"protocols.exact.threshold={tau}", "limit=9"])
        about = {"dataset": "shapes", "split": "val", "protocol": "exact", "threshold": float(tau) + 1e-17}
        rows = [about | {"method": "cam", "gt_known_loc": value}, about | {"method": "center", "gt_known_loc": 20}]
        pd.DataFrame(rows).to_csv(place / "summary.csv", index=False)
        (place / "environment.json").write_text(json.dumps({"role": "train-fullsup"}))
    record(tmp_path / "2", 2, ["protocols.exact.threshold=7", "limit=9"], "threshold = 7 & more")
    return tmp_path


def test_table_picture_and_best_settings_with_their_split(folder: Path, capsys: pytest.CaptureFixture) -> None:
    end_sweep(folder)
    out = capsys.readouterr().out
    assert out.startswith("3 jobs, 1 failed\n| job | protocols.exact.threshold | method ")
    assert "threshold = 7 & more" in out
    assert "| CAM             | exact    | protocols.exact.threshold=0.2 |   1 | GT-known localization | 75.4 |" in out
    assert "| center baseline | exact    | all alike                     |   0 |" in out
    assert "Chosen on shapes (val, role train-fullsup): now run them once on the test split.\n" in out
    names = out.splitlines()[-1].rpartition("sweep.csv, with ")[2].split(", ")
    assert {"best.csv", "sweep.md", "sweep.tex", "sweep.svg", "sweep.png", "sweep.html"} <= set(names)
    assert all((folder / name).is_file() for name in names)
    best = pd.read_csv(folder / "best.csv")
    assert best[["role", "method", "settings", "value"]].values.tolist() == [
        ["train-fullsup", "cam", "protocols.exact.threshold=0.2", 75.4],
        ["train-fullsup", "center", "all alike", 20.0],
    ]
    latex = (folder / "sweep.tex").read_text(encoding="utf-8")
    assert r"0.2 & CAM & exact & 0.200 & \textbf{75.4} \\" in latex
    assert r"0.1 & center baseline & exact & 0.100 & 20.0" in latex
    assert "more" not in latex and "now run them once on the test split" in latex


def test_seeds_are_pooled_and_never_the_best(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = [("resnet18", 0, 70), ("resnet18", 1, 74), ("vgg16", 0, 60), ("vgg16", 1, 62), ("vgg16", 2, None)]
    for job, (model, seed, value) in enumerate(settings):
        place, words = tmp_path / str(job), [f"model={model}", f"model.seed={seed}", "repeat=[x]", f"x={seed}"]
        record(place, job, words, "no room\n" * 30 if value is None else "")
        row = {"dataset": "shapes", "split": "val", "model": model, "method": "cam", "protocol": "exact"}
        if value is not None:
            pd.DataFrame([row | {"gt_known_loc": value}]).to_csv(place / "summary.csv", index=False)
    end_sweep(tmp_path, TableOptions(rows=["method"], columns=["model", "gt_known_loc"], names={"vgg16": "VGG-16"}))
    out = capsys.readouterr().out
    assert (
        "72.0 ± 2.8" in out and "61.0 ± 1.4" in out and "seed=" not in out and "no room no" not in out.split("Best")[1]
    )
    assert max(map(len, out.splitlines()[1:6])) < 200, "one short cell"
    table = pd.read_csv(tmp_path / "sweep.csv")
    done = table[table["error"].isna()]
    assert done[["job", "gt_known_loc_mean", "n_seeds"]].values.tolist() == [["0, 1", 72, 2], ["2, 3", 61, 2]]
    assert done["gt_known_loc_std"].round(3).tolist() == [2.828, 1.414] and "x" not in table
    assert len(pd.read_csv(tmp_path / "jobs.csv")) == 5
    best = pd.read_csv(tmp_path / "best.csv")
    assert best["settings"].tolist() == ["model=resnet18"] and best["value"].tolist() == [72]
    latex = (tmp_path / "sweep.tex").read_text(encoding="utf-8")
    assert r"method & resnet18 & VGG-16 \\" in latex and r"72.0 \ensuremath{\pm} 2.8" in latex
    assert "72.0 ± 2.8" in (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert "no room" in (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert cli.main(["report", f"run={tmp_path}"]) == 0 and "72.0 ± 2.8" in capsys.readouterr().out


def test_two_names_make_a_grid(folder: Path) -> None:
    for job, words in enumerate((["model=a", "view=x"], ["model=a", "view=y"])):
        record(folder / str(job), job, words)
    record(folder / "2", 2, ["model=b", "view=x"])
    (folder / "2" / "summary.csv").write_text((folder / "1" / "summary.csv").read_text())
    end_sweep(folder)
    assert "view" in (folder / "sweep.svg").read_text(encoding="utf-8")


def test_names_make_bars(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for job, name in enumerate(("resnet18", "vgg16_gap")):
        record(folder / str(job), job, [f"model={name}"])
    (folder / "2" / "job.json").unlink()
    end_sweep(folder)
    assert (folder / "sweep.png").exists() and (folder / "sweep.tex").exists()
    assert "model=vgg16_gap" in capsys.readouterr().out


def test_methods_are_compared_with_the_runs_own_intervals(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for job, (method, value) in enumerate((("cam", 70), ("gradcam", 74), ("center", None))):
        place = tmp_path / str(job)
        record(place, job, [f"method={method}"], "" if value else "broken")
        if value is not None:
            row = {"dataset": "shapes", "split": "val", "method": method, "protocol": "exact", "gt_known_loc": value}
            pd.DataFrame([row]).to_csv(place / "summary.csv", index=False)
            row = {"method": method, "protocol": "exact", "metric": "gt_known_loc", "low": value - 5, "high": value + 3}
            rows = [row, row | {"class": "NA", "low": 0, "high": 100}]
            pd.DataFrame(rows).reindex(columns=METRIC_COLUMNS).to_csv(place / "metrics.csv", index=False)
            (place / "report.html").touch()
    with patch("wsol.report.figures.save_figure", wraps=save_figure) as saved:
        end_sweep(tmp_path, TableOptions(interval=True))
    assert "override" not in capsys.readouterr().out and not (tmp_path / "best.csv").exists()
    table = pd.read_csv(tmp_path / "sweep.csv")
    assert table["method"].tolist() == ["cam", "gradcam", "center"], "the failed one is named"
    assert table["gt_known_loc_low"].tolist()[:2] == [65, 69]
    assert r"\textbf{74.0 {[}69.0, 77.0{]}}" in (tmp_path / "sweep.tex").read_text(encoding="utf-8")
    (bars,) = saved.call_args.args[0].axes
    assert [text.get_text() for text in bars.get_yticklabels()] == ["Grad-CAM", "CAM"]
    assert [line.tolist() for line in bars.collections[0].get_segments()] == [[[69, 0], [77, 0]], [[65, 1], [73, 1]]]
    page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert re.findall(r'data-value="([^"]*)"><a href="(.*?)">(.*?)</a></td>', page) == [
        (job, f"{job}/report.html", job) for job in "01"
    ]
    assert "65.0–73.0" in page and "broken" in page


@pytest.mark.parametrize(("swept", "rows"), [
    ("dataset.size=40,48", ["zhu2022_bagcams, zhu2022_dawsol", "exact"] * 2),
    ("protocols.zhu2022_dawsol.threshold=null,0.3", ["zhu2022_bagcams", "zhu2022_dawsol", "exact"] * 2),
])  # fmt: skip
def test_protocols_that_are_equal_in_every_job_are_one_row_for_people(tmp_path: Path, swept: str, rows: list) -> None:
    protocols = "protocol=[zhu2022_bagcams,zhu2022_dawsol,exact]"
    words = ["score", "-m", "dataset.length=4", "method=full", protocols, "report=false", f"run_dir={tmp_path}"]
    assert cli.main([*words, swept]) == 0
    lines = (tmp_path / "sweep.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line.startswith("|")]
    assert [row[cells[0].index("protocol")] for row in cells[2:]] == rows
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 6, "data is whole"


def test_jobs_that_all_failed_leave_the_table_only(folder: Path, capsys: pytest.CaptureFixture) -> None:
    for job in (0, 1):
        record(folder / str(job), job, ["limit=9"], "broken")
    end_sweep(folder)
    out = capsys.readouterr().out
    assert "3 jobs, 3 failed" in out and "Best settings" not in out
    assert not (folder / "best.csv").exists() and out.splitlines()[-1].endswith("sweep.csv, with sweep.html")


def test_an_earlier_sweep_in_the_same_folder_is_forgotten(folder: Path) -> None:
    end_sweep(folder)
    forget_earlier(folder)
    assert {path.name for path in folder.iterdir() if path.is_file()} == {"sweep.csv"}
    assert not list(folder.glob("*/job.json")) and (folder / "0" / "summary.csv").exists()


def test_jobs_of_an_earlier_sweep_are_found_by_what_was_asked(folder: Path) -> None:
    """Whatever their numbers, and whatever else decides nothing; others lie behind."""
    asked = [
        ["limit=9", f"protocols.exact.threshold={tau}", "workers=3", "resume=true"] for tau in ("0.2", "0.3", "0.1")
    ]
    names = {name: (folder / name / "environment.json").read_text() for name in "01"}
    (folder / "0" / "which").touch()
    renumber(folder, asked)
    assert {path.name for path in folder.iterdir()} == {"0", "2", "3"}
    assert (folder / "2" / "which").exists() and names["1"] == (folder / "0" / "environment.json").read_text()
    assert json.loads((folder / "3" / "job.json").read_text())["error"]
