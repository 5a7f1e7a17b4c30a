"""`wsol check`: read a whole dataset before a long run, print what is in it, list what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from wsol.command_line.values import check_values
from wsol.config import build_dataset, plain
from wsol.errors import FaultyDataError

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.datasets.check import Checked

__all__ = ["check_job"]


def check_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """Dataset → a table of what is in it and, in `check.csv`, of its faults.

    Raises
    ------
    FaultyDataError
        If a fault would change a number.
    """
    from wsol.datasets.box_faults import wrong_boxes_kept  # not above: torch is not loaded for --help
    from wsol.datasets.check import check_dataset
    from wsol.io import atomic_write

    settings = plain(cfg)
    check_values(settings, may_be_null=("workers",))
    with wrong_boxes_kept():
        dataset = build_dataset(settings["dataset"])
    workers = (os.cpu_count() or 1) if cfg.workers is None else cfg.workers
    checked = check_dataset(dataset, workers, cfg.progress and say)
    with atomic_write(run_dir / "check.csv") as path:
        checked.faults.to_csv(path, index=False)
    if say:
        print_check(dataset, checked)
    if checked.changing:
        raise FaultyDataError(f"{checked.changing} faults change numbers or stop a run: see {run_dir / 'check.csv'}")
    return {"samples": checked.n_samples, "faults": len(checked.faults)}


def print_check(dataset: Dataset, checked: Checked) -> None:
    """Print what is in a dataset, and its faults by kind.

    Parameters
    ----------
    dataset : Dataset
    checked : Checked
    """
    from wsol.console import console, print_table

    counts = f"{checked.n_images:,} images, {checked.n_samples:,} samples, {len(dataset.classes):,} classes"
    role = f"; role {dataset.role}" if dataset.role else ""
    print_table(_figures(checked.figures), f"{dataset.name} ({dataset.split}): {counts}{role}", keys=("",))
    if checked.faults.empty:
        console().print("No faults.")
        return
    print_table(_kinds(checked.faults), "Faults", keys=("fault",))


def _figures(figures: Mapping[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for name, values in figures.items():
        shown = (values.min(), np.median(values), values.mean(), values.max())
        share = name.startswith("share")
        rows.append([name, *(f"{value:.1%}" if share else f"{value:.1f}".removesuffix(".0") for value in shown)])
    return pd.DataFrame(rows, columns=["", "least", "median", "mean", "most"])


def _kinds(faults: pd.DataFrame) -> pd.DataFrame:
    """Count the faults of each kind and give an example; first those that change numbers."""
    rows: list[tuple[str, str, str, str]] = []
    for kind, of_kind in faults.groupby("fault", sort=False):
        first = of_kind.iloc[0]
        named = first["sample_id"] in first["detail"]  # also if it is empty: a class is no sample's
        example = first["detail"] if named else f"{first['sample_id']}: {first['detail']}"
        rows.append((str(kind), str(len(of_kind)), "yes" if first["changes_numbers"] else "no", example))
    rows.sort(key=lambda row: (row[2] == "no", -int(row[1])))
    return pd.DataFrame(rows, columns=["fault", "times", "changes numbers", "the first"])
