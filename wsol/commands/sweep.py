"""How a sweep ends: one table over all its jobs, also where some failed, and the best settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wsol.commands.task import RECORD, WAITING, forget_earlier, remove_if_unused
from wsol.console import print_line, print_table
from wsol.io import read_environment, write_text
from wsol.report.figures import draw_sweep
from wsol.report.summary import MEASURES, best_cells, best_settings, chosen_on, latex_table
from wsol.tables import SHOWN

NAMES = ("method", "protocol", "epochs", "train_loss", "val_top1")
MEASURED = ("threshold", "top1_cls", "top1_loc", "gt_known_loc", "max_box_acc", "max_box_acc_v2", "pxap")


@dataclass(frozen=True)
class SweepTable:
    """All jobs of a sweep, as text: one row per row of each job's `summary.csv`, one per failed job."""

    frame: pd.DataFrame  # job, overrides, the summary's columns, error
    overrides: list[str]  # one that is named as another column is called NAME (override)
    roles: dict[str, str]  # job → what its split is for, where the dataset says so
    status: int  # the program's exit code


def end_sweep(folder: Path) -> int:
    """Make the one table of a sweep, also where it was cut short; return the program's exit code."""
    sweep = collect(folder)
    if (sweep.frame["error"] == WAITING).all():  # none was started: there is nothing to tell
        forget_earlier(folder)
        for place in folder.glob("[0-9]*"):
            remove_if_unused(place)
        remove_if_unused(folder)
    else:
        print_and_write(sweep, folder)
    return sweep.status


def collect(folder: Path) -> SweepTable:
    """Gather the jobs inside a sweep's folder."""
    places = {path.parent: json.loads(path.read_text(encoding="utf-8")) for path in folder.glob(f"*/{RECORD}")}
    jobs = sorted(((record, place) for place, record in places.items()), key=lambda job: job[0]["job"])
    summaries = [_summary(place, record) for record, place in jobs]
    columns = list(dict.fromkeys(column for rows in summaries for row in rows for column in row))
    cells: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for (record, _), rows in zip(jobs, summaries, strict=True):
        values = _values(record["overrides"])
        names |= {key: f"{key} (override)" if key in (*columns, "job", "error") else key for key in values}
        job_cells = {"job": str(record["job"])} | {names[key]: value for key, value in values.items()}
        cells += [job_cells | row | {"error": record["error"]} for row in rows or [{}]]
    frame = pd.DataFrame(cells, columns=["job", *names.values(), *columns, "error"], dtype=object).fillna("")
    roles = {str(record["job"]): str(read_environment(place).get("role") or "") for record, place in jobs}
    status = min((record["status"] for record, _ in jobs if record["status"]), default=0)  # a bug before a mistake
    return SweepTable(frame, list(names.values()), roles, status)


def _values(words: Sequence[str]) -> dict[str, str]:
    """Take overrides apart into keys and values; where a run lies is left out."""
    pairs = (word.lstrip("+~").partition("=") for word in words)
    return {key: value.strip("'\"") for key, _, value in pairs if key != "run_dir" and not key.startswith("hydra")}


def _summary(folder: Path, record: Mapping[str, Any]) -> list[dict[Any, str]]:
    """Rows of a job's summary, all text; or the values that it returned."""
    path = folder / "summary.csv"
    if not record["error"] and path.is_file():
        return pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    return [{key: str(value) for key, value in record["values"].items()}] if record["values"] else []


def shorten(frame: pd.DataFrame, overrides: Sequence[str]) -> pd.DataFrame:
    """The part of a sweep's table that fits a screen: what jobs differ in, and what was measured, rounded."""
    differing = [name for name in overrides if frame[name].nunique() > 1 or len(frame) == 1]
    columns = dict.fromkeys(["job", *differing, *NAMES, *MEASURED, "error"])
    table = frame[[name for name in columns if name in frame and (frame[name] != "").any()]].copy()
    for name in set(table.columns) & set(MEASURED) - set(differing):
        digits = 3 if name == "threshold" else 1
        table[name] = [f"{float(text):.{digits}f}" if text else "" for text in table[name]]
    return table


def print_and_write(sweep: SweepTable, folder: Path) -> None:
    """Print a sweep's table and its best settings; write both, a table for LaTeX and, over numbers, a picture."""
    frame, overrides = sweep.frame, sweep.overrides
    write_text(folder / "sweep.csv", frame.to_csv(index=False, lineterminator="\n"))
    failed = int((frame["error"] != "").sum())
    title = f"{frame['job'].nunique()} jobs" + (f", {failed} failed" if failed else "")
    print_table(shorten(frame, overrides), title, keys=("job", "method", "protocol"))
    best = best_settings(frame, overrides, sweep.roles)
    written: list[Path] = []
    if len(best):
        sentences = chosen_on(best)
        _print_best(best)
        for sentence in sentences:
            print_line(sentence)
        write_text(folder / "best.csv", best.to_csv(index=False))
        write_text(folder / "sweep.tex", _latex(sweep, " ".join(sentences)))
        written = [folder / "best.csv", folder / "sweep.tex", *draw_sweep(frame, overrides, folder / "sweep")]
    names = ", ".join(path.name for path in written)
    print_line(f"One table over all jobs: {folder / 'sweep.csv'}" + (f", with {names}" if names else ""))


def _print_best(best: pd.DataFrame) -> None:
    several = len(best[["dataset", "split"]].drop_duplicates()) > 1
    table = best[["method", "protocol", *(["dataset", "split"] if several else []), "settings", "job"]].assign(
        by=[MEASURES[name][0] for name in best["measure"]], value=best["value"].map("{:.1f}".format)
    )
    headings = {"settings": "best settings", "value": "%"}
    print_table(table.loc[:, (table != "").any()], "Best settings", headings=headings)


def _latex(sweep: SweepTable, note: str) -> str:
    """Make the table that the screen shows, without the jobs that failed."""
    finished = sweep.frame[sweep.frame["error"] == ""]
    table = shorten(finished, sweep.overrides).drop(columns="job")
    same_data = all(finished[name].nunique() == 1 for name in ("dataset", "split") if name in finished)
    scores = [name for name in MEASURED[1:] if same_data and name in table and name not in sweep.overrides]
    best = best_cells(table, scores, "protocol" if "protocol" in table else None)
    headings = SHOWN | {"max_box_acc": "MBA", "val_top1": "validation accuracy", "train_loss": "training loss"}
    return latex_table(table, best, headings=headings, note=note)
