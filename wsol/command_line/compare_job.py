"""`wsol compare`: runs side by side, and for each pair of methods whether the difference is more than noise."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import DictConfig

from wsol.command_line.values import check_values
from wsol.config import plain
from wsol.errors import UserError

__all__ = ["compare_job"]

ON_SCREEN = 30  # sentences


def compare_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """Runs → `compare.html`, `compare.csv`, `compare.tex` in `run_dir`."""
    settings = plain(cfg)
    check_values(settings)
    runs, metrics = _texts(settings, "runs"), settings["metrics"]
    from wsol.report.comparison import compare  # not above: pandas and torch are not loaded for --help
    from wsol.report.comparison_files import write_comparison

    comparison = compare(
        runs,
        against=None if settings["against"] is None else str(settings["against"]),
        shared=settings["shared"],
        metrics=None if metrics is None else _texts(settings, "metrics"),
        most=settings["most"],
        resamples=settings["resamples"],
        seed=settings["seed"],
    )
    write_comparison(comparison, run_dir, os.environ.get("WSOL_COMMAND", ""))
    if say:
        _print(comparison, metrics is not None)
        print(f"Page and tables: {run_dir}/compare.html, compare.csv, compare.tex")
    return {"pairs": len(comparison.pairs), "more_than_noise": int(comparison.pairs["more_than_noise"].sum())}


def _texts(settings: Mapping[str, Any], key: str) -> list[str]:
    """Take one text or a list of them."""
    value = settings[key]
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(text, str) and text for text in values):
        raise UserError(f"{key}={value!r}: pass a list, such as '{key}=[A,B]'")
    return values


def _print(comparison: Any, chosen_metrics: bool) -> None:
    """Print the summaries side by side, and what differs in words."""
    from wsol.console import console, print_table
    from wsol.report.comparison import ALPHA
    from wsol.report.sentences import headlines, meaning
    from wsol.report.summary import best_cells, short_summary
    from wsol.tables import SHOWN

    summary, pairs = comparison.summary.assign(method=comparison.summary["title"]), comparison.pairs
    first, screen = summary.iloc[0], console()

    def line(text: str) -> None:
        screen.print(text, soft_wrap=True, markup=False)

    title = f"{first['dataset']} ({first['split']}, {first['n_samples']} samples); percent"
    print_table(short_summary(summary), title, headings=SHOWN, keys=("method", "protocol"), bold=best_cells(summary))
    for note in comparison.notes:
        line(f"Mind: {note}")
    chosen: pd.DataFrame = pairs if chosen_metrics else headlines(pairs)
    for protocol, rows in chosen.head(ON_SCREEN).groupby("protocol", sort=False):
        line(f"{str(protocol) or 'classification'}:")
        for text in rows["sentence"]:
            line(f"  {text}")
    if len(chosen) > ON_SCREEN:
        line(f"and {len(chosen) - ON_SCREEN} more: see compare.html or compare.csv")
    for note in meaning(pairs, comparison.tests, ALPHA):
        line(note)
