"""How a sweep ends: one table over all its jobs, also where some failed, and the best settings."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from textwrap import shorten as shorten_text
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from wsol.commands.task import RECORD, WAITING, forget_earlier, remove_if_unused
from wsol.console import print_line, print_table
from wsol.errors import quantity
from wsol.io import read_environment, write_text
from wsol.metrics.localization import METRICS, is_oracle
from wsol.report.charts import method_names
from wsol.report.figures import draw_sweep
from wsol.report.latex import HEADINGS, TableOptions, number_texts, or_plain, paper_table
from wsol.report.run import Run, named_intervals
from wsol.report.summary import (
    MEASURES,
    OVERRIDE,
    best_cells,
    best_settings,
    chosen_on,
    markdown_table,
    marked,
    protocol_labels,
    with_intervals,
)
from wsol.report.templating import html_table, render

NAMES = ("method", "protocol", "epochs")
ACCURACIES = ("val_top1", "top1_cls", "top1_loc", "gt_known_loc", "max_box_acc", "max_box_acc_v2", "pxap")
MEASURED = ("train_loss", "threshold", *ACCURACIES, "n_seeds")  # what fits a screen
ORACLE = "τ*: the best on the job's own split (oracle)."
NUMBERS = ("threshold", *METRICS, "val_top1", "train_loss")
SEEDS = ("seed", "model.seed", "dataset.seed")  # what they say is no setting
NO_SETTINGS = ("run_dir", "hydra", "repeat", "table.", "figures.", "published")
LONGEST = 60  # letters of an error in a table; all of it was printed when the job ended


@dataclass(frozen=True)
class SweepTable:
    """All jobs of a sweep, as text: one row per row of each job's `summary.csv`, one per failed job."""

    frame: pd.DataFrame  # job, overrides, the summary's columns, error
    overrides: list[str]  # one that is named as another column is called NAME (override)
    roles: dict[str, str]  # job → what its split is for, where the dataset says so
    status: int  # the program's exit code
    repeats: list[str]  # overrides that are no settings: seeds, and what `repeat` names
    labels: dict[str, str]  # protocol → "a, b", those whose rules make equal outcomes in every job

    def merged(self) -> SweepTable:
        """Make one row of those whose protocols make equal outcomes, as a run does for people."""
        frame = self.frame.replace({"protocol": self.labels} if self.labels else {})
        keys = [name for name in ("job", "method", "protocol") if name in frame]
        return replace(self, frame=frame.drop_duplicates(keys, ignore_index=True))

    def pooled(self) -> SweepTable:
        """Pool jobs that differ in repeats only: numbers are means, `…_std` beside them, `n_seeds` how many.

        Jobs that failed stay as they are, and are not counted.
        """
        frame, settings = self.frame, [name for name in self.overrides if name not in self.repeats]
        if not self.repeats:
            return self
        numbers = [name for name in NUMBERS if name in frame and name not in settings]
        ends = [f"{name}_{end}" for name in numbers for end in ("low", "high")]  # over images, of one run each
        keys = [name for name in frame if name not in (*numbers, *ends, *self.repeats, "job")]
        done = frame[frame["error"] == ""]
        values = done[numbers].apply(pd.to_numeric)
        groups = pd.concat([done[keys], values], axis=1).groupby(keys, sort=False, dropna=False)[numbers]
        spread = groups.std().add_suffix("_std").assign(n_seeds=groups.size())
        jobs = done.groupby(keys, sort=False)["job"].agg(", ".join)
        pooled = pd.concat([jobs, groups.mean(), spread], axis=1).reset_index()
        pooled = pd.concat([pooled, frame[frame["error"] != ""].drop(columns=[*ends, *self.repeats], errors="ignore")])
        pooled["n_seeds"] = pooled["n_seeds"].astype("Int64")
        pooled = pooled.astype(object).where(pooled.notna(), "").map(str).reset_index(drop=True)
        roles = {job: self.roles.get(job.split(",")[0], "") for job in pooled["job"]}
        order = ["job", *settings, *[name for name in pooled if name not in ("job", *settings, "error")], "error"]
        return replace(self, frame=pooled[order], overrides=settings, roles=roles, repeats=[])


def end_sweep(folder: Path, options: TableOptions | None = None) -> int:
    """Make the one table of a sweep, also where it was cut short; return the program's exit code."""
    sweep = collect(folder)
    if (sweep.frame["error"] == WAITING).all():  # none was started: there is nothing to tell
        forget_earlier(folder)
        for place in folder.glob("[0-9]*"):
            remove_if_unused(place)
        remove_if_unused(folder)
    else:
        print_and_write(sweep, folder, options or TableOptions())
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
        names |= {key: f"{key}{OVERRIDE}" if key in (*columns, "job", "error") else key for key in values}
        job_cells = {"job": str(record["job"])} | {names[key]: value for key, value in values.items()}
        cells += [job_cells | row | {"error": record["error"]} for row in rows or [{}]]
    frame = pd.DataFrame(cells, columns=["job", *names.values(), *columns, "error"], dtype=object).fillna("")
    for key, name in names.items():  # one column where both say the same
        if key != name and (frame[key] == frame[name]).where(frame["error"] == "", True).all():
            frame, names[key] = frame.drop(columns=key).rename(columns={name: key}), key
    roles = {str(record["job"]): str(read_environment(place).get("role") or "") for record, place in jobs}
    status = min((record["status"] for record, _ in jobs if record["status"]), default=0)  # a bug before a mistake
    named = {word for record, _ in jobs for word in _repeat(record["overrides"])} | set(SEEDS)
    repeats = [names[key] for key in names if key in named and frame[names[key]].nunique() > 1]
    overrides = [name for name in names.values() if name not in ("method", "protocol")]  # they are compared, not set
    return SweepTable(frame, overrides, roles, status, repeats, _labels([place for _, place in jobs], summaries))


def _labels(places: Sequence[Path], summaries: Sequence[Sequence[Mapping[Any, str]]]) -> dict[str, str]:
    """Label of each protocol; which ones are alike may differ between jobs, so all must agree, and have all of them."""
    in_jobs: dict[str, dict[Path, str]] = {}
    for place, rows in zip(places, summaries, strict=True):
        names = dict.fromkeys(row["protocol"] for row in rows if "protocol" in row)
        labels = protocol_labels(Run(place).summary, Run(place).protocols) if len(names) > 1 else {n: n for n in names}
        for name, label in labels.items():
            in_jobs.setdefault(name, {})[place] = label
    alike: dict[Any, list[str]] = {}
    for name, of_jobs in in_jobs.items():
        alike.setdefault(tuple(of_jobs.items()), []).append(name)
    return {name: ", ".join(names) for names in alike.values() for name in names}


def _repeat(words: Sequence[str]) -> list[str]:
    """Keys that `repeat=[…]` names among overrides."""
    lists = [word.partition("=")[2].strip("'\"[]") for word in words if word.startswith("repeat=")]
    return [key.strip() for keys in lists for key in keys.split(",")]


def _values(words: Sequence[str]) -> dict[str, str]:
    """Take overrides apart into keys and values; where a run lies is left out."""
    pairs = (word.lstrip("+~").partition("=") for word in words)
    return {key: value.strip("'\"") for key, _, value in pairs if not key.startswith(NO_SETTINGS)}


def _summary(folder: Path, record: Mapping[str, Any]) -> list[dict[Any, str]]:
    """Rows of a job's summary with intervals, all text; or the values that it returned."""
    path = folder / "summary.csv"
    if not record["error"] and path.is_file():
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if (folder / "metrics.csv").is_file():
            table = with_intervals(table, named_intervals(Run(folder).metrics)).astype(object)
        return table.where(table.notna(), "").map(str).to_dict("records")
    return [{key: str(value) for key, value in record["values"].items()}] if record["values"] else []


def _numbers(frame: pd.DataFrame, overrides: Sequence[str]) -> pd.DataFrame:
    """The same with numbers for what was measured, NaN where there is nothing; accuracies are percent."""
    names = [
        name + end for name in (*NUMBERS, "n_seeds") if name not in overrides for end in ("", "_std", "_low", "_high")
    ]
    frame = frame.assign(**{name: pd.to_numeric(frame[name]).astype(float) for name in names if name in frame})
    return frame.assign(**{name: 100 * frame[name] for name in ("val_top1", "val_top1_std") if name in frame})


def shorten(frame: pd.DataFrame, overrides: Sequence[str]) -> pd.DataFrame:
    """The part of a sweep's table that fits a screen: what jobs differ in, and what was measured, rounded."""
    differing = [name for name in overrides if frame[name].nunique() > 1 or len(frame) == 1]
    columns = dict.fromkeys(["job", *differing, *NAMES, *MEASURED, "n_seeds", "error"])
    table, numbers = (
        frame[[name for name in columns if name in frame and (frame[name] != "").any()]].copy(),
        _numbers(frame, overrides),
    )
    for name in (name for name in MEASURED if name in table and name not in differing):
        table[name] = number_texts(numbers, name)
    if "threshold" in table and "threshold" not in differing and "threshold_source" in frame:
        is_marked = frame["threshold_source"].map(is_oracle) & (table["threshold"] != "")
        table["threshold"] += np.where(is_marked, "*", "")
    if "method" in table:
        table["method"] = table["method"].map(method_names(table["method"]))
    if "error" in table:
        table["error"] = [shorten_text(text, LONGEST, placeholder="…") for text in table["error"]]
    return table


def print_and_write(sweep: SweepTable, folder: Path, options: TableOptions) -> None:
    """Print a sweep's table and its best settings; write both, a table for LaTeX and Markdown, a picture, a page.

    Where seeds are pooled, `jobs.csv` has a row for each job.
    """
    raw, sweep = sweep, sweep.pooled()
    frame, failed = sweep.frame, int(sweep.frame.loc[sweep.frame["error"] != "", "job"].nunique())
    title = quantity(raw.frame["job"].nunique(), "job") + (f", {failed} failed" if failed else "")
    title += f"; mean ± std over {', '.join(raw.repeats)}" if raw.repeats else ""
    written = {"jobs.csv": raw.frame.to_csv(index=False, lineterminator="\n")} if raw.repeats else {}
    means = {name: f"{name}_mean" for name in NUMBERS if f"{name}_std" in frame}
    write_text(folder / "sweep.csv", frame.rename(columns=means).to_csv(index=False, lineterminator="\n"))
    best_of_all, sweep = best_settings(frame, sweep.overrides, sweep.roles), sweep.merged()
    frame = sweep.frame
    table, best = shorten(frame, sweep.overrides), best_settings(frame, sweep.overrides, sweep.roles)
    highest = _highest(table, _numbers(frame, sweep.overrides))
    print_table(table, title, keys=("job", "method", "protocol"), headings=HEADINGS, bold=marked(highest))
    measured, pictures = len(best) > 0, list[Path]()
    best = best[:0] if (best["settings"] == "all alike").all() else best
    has_oracle = "threshold" in table and table["threshold"].str.endswith("*").any()
    sentences = [*chosen_on(best), *([ORACLE] if has_oracle else [])]
    if len(best):
        print_table(_best_table(best), "Best settings")
        written["best.csv"] = best_of_all.to_csv(index=False)
    for sentence in sentences:
        print_line(sentence)
    if measured:
        written["sweep.md"] = markdown_table(table, highest) + "".join(f"\n{text}\n" for text in sentences)
        written["sweep.tex"] = or_plain(partial(_latex, sweep, " ".join(chosen_on(best))), options)
        pictures = draw_sweep(frame, sweep.overrides, folder / "sweep")
    written["sweep.html"] = render(
        "sweep.html.j2",
        title=f"Sweep over {_swept(raw)}",
        lead=title,
        table=_html(table, frame, highest, folder),
        linked=any((folder / job / "report.html").is_file() for job in raw.frame["job"]),
        intervals=not frame.filter(like="_low").empty,
        best=html_table(_best_table(best)),
        several=len(best) > 0,
        sentences=sentences,
        pictures=[b64encode(path.read_bytes()).decode() for path in pictures if path.suffix == ".svg"],
    )
    for name, text in written.items():
        write_text(folder / name, text)
    names = ", ".join([*written, *(path.name for path in pictures)])
    print_line(f"One table over all jobs: {folder / 'sweep.csv'}, with {names}")


def _swept(sweep: SweepTable) -> str:
    """What jobs differ in, and on what data they ran."""
    done = sweep.frame[sweep.frame["error"] == ""]
    jobs = (done if len(done) else sweep.frame).groupby("job")
    names = [name for name in (*sweep.overrides, "method", "protocol") if name in sweep.frame]
    differ = [name.removesuffix(OVERRIDE) for name in dict.fromkeys(names) if jobs[name].agg(tuple).nunique() > 1]
    data = done.reindex(columns=["dataset", "split"], fill_value="").drop_duplicates().to_numpy().tolist()
    where = f" on {data[0][0]} ({data[0][1]})" if len(data) == 1 and data[0][0] else ""
    return ", ".join(differ or ["nothing"]) + where


def _highest(table: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """Which numbers are the best of their column among rows of one dataset, split and protocol."""
    numbers = [name for name in map(str, table) if name in ACCURACIES]
    group = frame.reindex(columns=["dataset", "split", "protocol"], fill_value="").agg(" ".join, axis=1)
    best = best_cells(frame[numbers].assign(group=group), numbers, "group")
    return best.reindex(columns=table.columns, fill_value=False)


def _html(table: pd.DataFrame, frame: pd.DataFrame, best: pd.DataFrame, folder: Path) -> Markup:
    """The table of the page: intervals below the numbers, and links to the runs' pages."""
    link = Markup('<a href="{0}/report.html">{0}</a>').format
    cells = table.drop(columns="job")
    for name in (name for name in cells if f"{name}_low" in frame):
        ends = zip(cells[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        small = Markup('{} <small class="interval">{:.1f}–{:.1f}</small>').format
        texts = [small(text, float(low), float(high)) if low else text for text, low, high in ends]
        cells[name] = pd.Series(texts, cells.index, dtype=object)
    jobs = [[link(job) if (folder / job / "report.html").is_file() else job for job in text.split(", ")]
            for text in table["job"]]  # fmt: skip
    cells["job"] = pd.Series([Markup(", ").join(job) for job in jobs], cells.index, dtype=object)
    return html_table(cells.rename(columns=HEADINGS), best=best[list(cells)].to_numpy())


def _best_table(best: pd.DataFrame) -> pd.DataFrame:
    """The best settings as texts, without columns that say nothing."""
    several = len(best[["dataset", "split"]].drop_duplicates()) > 1
    columns = ["method", "protocol", *(["dataset", "split"] if several else []), "settings", "job"]
    table = best[columns].rename(columns={"settings": "best settings"})
    table["method"] = table["method"].map(method_names(table["method"]))
    table["by"] = [MEASURES[name][0] for name in best["measure"]]
    table["%"] = best["value"].map("{:.1f}".format)
    return table.loc[:, (table != "").any()]


def _latex(sweep: SweepTable, note: str, options: TableOptions) -> str:
    """Make the table that the screen shows, without the jobs that failed."""
    finished = sweep.frame[sweep.frame["error"] == ""].reset_index(drop=True)
    on_screen = [name for name in map(str, shorten(finished, sweep.overrides)) if name != "job"]
    frame, columns = _numbers(finished, sweep.overrides), options.columns or ()
    keys = [name for name in on_screen if name not in MEASURED]
    keys += [name for name in ("dataset", "split") if name in frame and frame[name].nunique() > 1 and name not in keys]
    keys = [name for name in keys if name.removesuffix(OVERRIDE) not in columns or OVERRIDE not in name]
    keys = ["job", *keys] if frame.duplicated(keys).any() else keys  # Optuna may ask for the same again
    columns = columns or tuple(name for name in on_screen if name in MEASURED and name not in keys)
    return paper_table(frame, keys, replace(options, columns=columns), note)
