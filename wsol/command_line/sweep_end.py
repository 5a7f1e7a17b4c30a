"""How a sweep ends: its table on the screen and in LaTeX, its picture, and the best settings with their split."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from wsol.command_line.sweep import MEASURED, SweepTable, for_the_screen
from wsol.console import console, print_table
from wsol.io import atomic_write, write_text
from wsol.report.latex import latex_table
from wsol.report.sweep_best import MEASURES, best_settings, chosen_on
from wsol.report.sweep_figure import draw_sweep
from wsol.tables import SHOWN

__all__ = ["tell_and_write"]

FILES = ("sweep.tex", "best.csv", "sweep.png", "sweep.svg")


def tell_and_write(sweep: SweepTable, folder: Path) -> None:
    """Print a sweep's table and its best settings, and write what else there is to say beside `sweep.csv`.

    Parameters
    ----------
    sweep : SweepTable
        With at least one row.
    folder : Path
        `sweep.tex`, `best.csv` and, where one or two numbers were swept, `sweep.png` and `sweep.svg` go here; those
        of an earlier sweep are removed.
    """
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    jobs = f"{sweep.frame['job'].nunique()} jobs" + (f", {sweep.failed} failed" if sweep.failed else "")
    print_table(for_the_screen(sweep), jobs, keys=("job", "method", "protocol"))
    best = best_settings(sweep.frame, sweep.overrides, sweep.roles)
    written = [folder / "sweep.csv"]
    if len(best):
        sentences = chosen_on(best)
        _print_best(best)
        for sentence in sentences:
            console().print(sentence, soft_wrap=True, markup=False)
        with atomic_write(folder / "best.csv") as path:
            best.to_csv(path, index=False)
        write_text(folder / "sweep.tex", _latex(sweep, " ".join(sentences)))
        written += [folder / "best.csv", folder / "sweep.tex"]
        written += draw_sweep(sweep.frame, sweep.overrides, folder / "sweep")
    names = ", ".join(path.name for path in written[1:])
    console().print(f"One table over all jobs: {written[0]}" + (f", with {names}" if names else ""), soft_wrap=True)


def _print_best(best: pd.DataFrame) -> None:
    several = best[["dataset", "split"]].drop_duplicates().shape[0] > 1
    shown = pd.DataFrame({"method": best["method"], "protocol": best["protocol"]})
    if several:
        shown["split"] = best["dataset"] + " (" + best["split"] + ")"
    shown["best settings"] = best["settings"]
    shown["job"] = best["job"]
    shown["by"] = [MEASURES[name][0] for name in best["measure"]]
    shown["%"] = [f"{value:.1f}" for value in best["value"]]
    print_table(shown.loc[:, (shown != "").any()], "Best settings")


def _latex(sweep: SweepTable, note: str) -> str:
    """Make the table of what is shown on the screen, without the jobs that failed."""
    went_well = sweep.frame[sweep.frame["error"] == ""]
    shown = for_the_screen(SweepTable(went_well, sweep.overrides, 0)).drop(columns="job")
    measured = [name for name in MEASURED if name in shown and name not in sweep.overrides]
    exact = shown.assign(**{name: pd.to_numeric(went_well[name]) for name in measured})
    same_data = all(went_well[name].nunique() == 1 for name in ("dataset", "split") if name in went_well)
    best = [name for name in measured if name != "threshold"] if same_data else []
    within = "protocol" if "protocol" in exact else None
    headings = SHOWN | {"max_box_acc": "MBA", "val_top1": "validation accuracy", "train_loss": "training loss"}
    return latex_table(exact, headings=headings, decimals={"threshold": 3}, best=best, within=within, note=note)
