"""`wsol check`: read a whole dataset before a long run, print what is in it, list what is wrong with it."""

import os
from collections.abc import Mapping

import numpy as np
import pandas as pd
from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import build_dataset, call
from wsol.console import print_line, print_table
from wsol.datasets import Dataset
from wsol.datasets.benchmarks import compare_with_benchmark
from wsol.datasets.check import Checked, check_dataset
from wsol.errors import FaultyDataError, quantity
from wsol.io import atomic_write


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Dataset → a table of what is in it and, in `check.csv`, of its faults."""
    dataset = build_dataset(cfg.dataset, strict=False)
    workers = os.cpu_count() or 1 if cfg.workers is None else cfg.workers
    checked = call(check_dataset, {"workers": workers}, dataset=dataset, show_progress=cfg.progress and job.verbose)
    with atomic_write(job.run_dir / "check.csv") as path:
        checked.faults.to_csv(path, index=False)
    if job.verbose:
        print_check(dataset, checked)
    if checked.changing:
        raise FaultyDataError(f"{checked.changing} faults change numbers or stop a run: see {job.run_dir}/check.csv")
    return {"samples": checked.n_samples, "faults": len(checked.faults)}


def print_check(dataset: Dataset, checked: Checked) -> None:
    """Print what is in a dataset, and its faults by kind."""
    numbers = {"image": checked.n_images, "sample": checked.n_samples, "class": len(dataset.classes)}
    counts = ", ".join(quantity(count, noun) for noun, count in numbers.items())
    role = f"; role {dataset.role}" if dataset.role else ""
    print_table(_figures(checked.figures), f"{dataset.name} ({dataset.split}): {counts}{role}", keys=("",))
    if benchmark := compare_with_benchmark(dataset)[0]:
        print_line(benchmark[0].upper() + benchmark[1:] + ".")
    if checked.faults.empty:
        print_line("No faults.")
    else:
        print_table(_kinds(checked.faults), "Faults", keys=("fault",))


def _figures(figures: Mapping[str, np.ndarray]) -> pd.DataFrame:
    rows = []
    for name, values in figures.items():
        form = "{:.1%}" if name.startswith("share") else "{:.1f}"
        numbers = (values.min(), np.median(values), values.mean(), values.max())
        rows.append([name, *(form.format(number).removesuffix(".0") for number in numbers)])
    return pd.DataFrame(rows, columns=["", "least", "median", "mean", "most"])


def _kinds(faults: pd.DataFrame) -> pd.DataFrame:
    """Count the faults of each kind and give an example; first those that change numbers."""
    pairs = zip(faults["sample_id"], faults["detail"], strict=True)
    examples = [detail if sample_id in detail else f"{sample_id}: {detail}" for sample_id, detail in pairs]
    kinds = faults.assign(example=examples).groupby("fault", sort=False)
    table = kinds.agg(times=("fault", "size"), changes=("changes_numbers", "first"), first=("example", "first"))
    table = table.sort_values(["changes", "times"], ascending=False, kind="stable").reset_index()
    table["changes"] = table["changes"].map({True: "yes", False: "no"})
    return table.set_axis(["fault", "times", "changes numbers", "the first"], axis=1)
