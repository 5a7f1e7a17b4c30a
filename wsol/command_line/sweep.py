"""One table over all jobs of a sweep, also where some of them failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from wsol.io import write_text

__all__ = [
    "RememberFolder",
    "SweepTable",
    "collect",
    "for_the_screen",
    "remove_if_unused",
    "sweep_folders",
    "write_record",
]

RECORD = "job.json"
UNFINISHED = "stopped before its end; look at what it printed"
SHOWN = ("method", "protocol", "epochs", "train_loss", "val_top1")
MEASURED = ("threshold", "top1_cls", "top1_loc", "gt_known_loc", "max_box_acc", "max_box_acc_v2", "pxap")
sweep_folders: list[Path] = []


@dataclass(frozen=True)
class SweepTable:
    """All jobs of a sweep: the table, which of its columns are overrides, and the program's exit code.

    `roles` says for each job what its split is for, where the dataset said so.
    """

    frame: pd.DataFrame
    overrides: list[str]
    status: int
    roles: dict[str, str] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many jobs failed."""
        return int((self.frame["error"] != "").sum())


class RememberFolder(Callback):
    """Tells the main process where a sweep lies: Hydra itself forgets it when a job fails."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Keep the folder; jobs of an earlier sweep in it no longer count."""
        folder = Path(str(config.hydra.sweep.dir)).absolute()
        for record in folder.glob(f"*/{RECORD}"):
            record.unlink()
        sweep_folders.append(folder)


def write_record(
    folder: Path,
    number: int,
    overrides: Sequence[str],
    *,
    error: str | None = UNFINISHED,
    unexpected: bool = True,
    values: Mapping[str, object] | None = None,
) -> None:
    """Write down what a job of a sweep was asked for and how it ended; first when it begins.

    Parameters
    ----------
    folder : Path
        The job's own.
    number : int
    overrides : sequence of str
    error : str or None
        None: it ended well.
    unexpected : bool
        The error is not one that the user can mend.
    values : mapping, optional
        Results of a job that writes no `summary.csv`.
    """
    record = {
        "job": number,
        "overrides": list(overrides),
        "error": error,
        "unexpected": unexpected and error is not None,
    }
    record["values"] = dict(values or {})
    write_text(folder / RECORD, json.dumps(record, indent=2) + "\n")


def collect(folder: Path) -> SweepTable:
    """Gather a sweep's jobs into one table and write it to `sweep.csv`.

    Parameters
    ----------
    folder : Path
        The sweep's; its jobs' are inside.

    Returns
    -------
    SweepTable
        `frame`: one row per row of each job's `summary.csv`, one per failed job: `job`, the overrides, the
        summary's columns, `error`. All text, as it stands in the files. An override named as a column of the
        summary is called `NAME (override)`. `status`: 0 where all went well, 2 if something the user can mend
        went wrong, 1 for anything else.
    """
    found = [(json.loads(path.read_text(encoding="utf-8")), path.parent) for path in folder.glob(f"*/{RECORD}")]
    found.sort(key=lambda pair: pair[0]["job"])
    blocks = [(record, _overrides(record["overrides"]), _summary(place, record)) for record, place in found]
    keys = list(dict.fromkeys(key for _, overrides, _ in blocks for key in overrides))
    columns = list(dict.fromkeys(column for _, _, summary in blocks for column in summary.columns))
    names = {key: f"{key} (override)" if key in (*columns, "job", "error") else key for key in keys}
    rows = []
    for record, overrides, summary in blocks:
        asked = {names[key]: overrides.get(key, "") for key in keys}
        cells: list[dict[Any, Any]] = summary.to_dict("records") or [{}]
        for row in cells:
            rows.append({"job": str(record["job"]), **asked, **row, "error": record["error"] or ""})
    table = pd.DataFrame(rows, columns=["job", *names.values(), *columns, "error"], dtype=object).fillna("")
    if rows:
        write_text(folder / "sweep.csv", table.to_csv(index=False, lineterminator="\n"))
    failed = [record for record, _ in found if record["error"]]
    status = 0 if not failed else 1 if any(record["unexpected"] for record in failed) else 2
    roles = {str(record["job"]): _role(place) for record, place in found}
    return SweepTable(table, list(names.values()), status, roles)


def for_the_screen(sweep: SweepTable) -> pd.DataFrame:
    """The part of a sweep's table that fits a screen: what jobs differ in, and what was measured, rounded.

    Examples
    --------
    >>> frame = pd.DataFrame({"job": ["0", "1"], "x": ["1", "2"], "y": ["3", "3"], "pxap": ["40.5056", ""]})
    >>> for_the_screen(SweepTable(frame, ["x", "y"], 0))
      job  x  pxap
    0   0  1  40.5
    1   1  2
    """
    frame, most = sweep.frame, len(sweep.frame)
    asked = [name for name in sweep.overrides if frame[name].nunique() > 1 or most == 1]
    shown = [
        "job",
        *asked,
        *(name for name in (*SHOWN, *MEASURED) if name in frame and name not in asked),
        "error",
    ]
    table = frame[[name for name in shown if name in frame and (frame[name] != "").any()]].copy()
    for name in set(table.columns) & set(MEASURED):
        digits = 3 if name == "threshold" else 1
        table[name] = [f"{float(text):.{digits}f}" if text else "" for text in table[name]]
    return table


def remove_if_unused(folder: Path) -> None:
    """Remove a run's folder in which nothing was written, or only the sweep's plan."""
    if not folder.is_dir():
        return
    inside = {path.name for path in folder.iterdir()}
    if inside <= {"multirun.yaml"}:
        for name in inside:
            (folder / name).unlink()
        folder.rmdir()


def _role(folder: Path) -> str:
    path = folder / "environment.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("role", "")) if path.is_file() else ""


def _overrides(words: Sequence[str]) -> dict[str, str]:
    found = {}
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.get_key_element().lstrip("+~")
        value = None if override.is_delete() else override.value()
        found[key] = value if isinstance(value, str) else override.get_value_element_as_str()
    return {key: value for key, value in found.items() if not key.startswith("hydra") and key != "run_dir"}


def _summary(folder: Path, record: Mapping[str, Any]) -> pd.DataFrame:
    path = folder / "summary.csv"
    if not record["error"] and path.is_file():
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame([{key: str(value) for key, value in record["values"].items()}] if record["values"] else [])
