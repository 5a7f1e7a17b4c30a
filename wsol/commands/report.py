"""`wsol report`: the page and the figures of an old run, made again from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import build_dataset, build_methods, to_dict
from wsol.console import print_line
from wsol.datasets import Dataset
from wsol.errors import UserError
from wsol.heatmaps.store import HeatmapStore, add_baselines, open_heatmaps
from wsol.io import expand_path
from wsol.report.page import write_report
from wsol.report.run import Run

__all__ = ["run"]


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """A run's folder → `report.html` and `figures/` in it; nothing is written to the job's own."""
    folder = Path(str(to_dict(cfg)["run"])).expanduser()
    old_run = Run.open(folder)
    dataset, why = _dataset(old_run.config)
    page = write_report(folder, dataset, _heatmaps(old_run, dataset), why)
    if job.verbose:
        print_line(f"Page and figures: {page}, {folder / 'figures'}")
    return {}


def _dataset(config: Mapping[str, Any]) -> tuple[Dataset | None, str]:
    """Make the dataset that a run was made on, for its images; or say why there is none."""
    if not config.get("dataset"):
        return None, "config.yaml doesn't say which dataset the run was made on"
    try:
        return build_dataset(config["dataset"]), ""
    except UserError as error:
        return None, str(error)


def _heatmaps(run: Run, dataset: Dataset | None) -> HeatmapStore | None:
    """Find the heatmaps that `wsol score` read from elsewhere; a run that made its own has them in its folder."""
    if run.heatmaps is not None or dataset is None or "heatmaps" not in run.config:
        return None
    try:
        store, _ = open_heatmaps(
            dataset,
            expand_path(run.config["heatmaps"]),
            kind=run.config.get("heatmaps_kind"),
            name=run.config.get("heatmaps_name"),
            on_error="skip",
            part=True,
            show_progress=False,
        )
        if run.config.get("methods"):
            add_baselines(store, build_methods(run.config["methods"]), int(run.config.get("seed", 0)))
    except UserError:  # they were moved, or are others now; the page says that they are gone
        return None
    return store if set(run.methods) <= set(store.methods) else None
