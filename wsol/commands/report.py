"""`wsol report`: the page and the figures of an old run, made again from its folder."""

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


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """A run's folder → `report.html` and `figures/` in it; nothing is written to the job's own."""
    folder = Path(str(to_dict(cfg)["run"])).expanduser()
    old_run = Run.open(folder)
    dataset, heatmaps, why = None, None, "config.yaml doesn't say which dataset the run was made on"
    try:
        if old_run.config.get("dataset"):
            dataset = build_dataset(old_run.config["dataset"])
            heatmaps = _external_heatmaps(old_run, dataset)
    except UserError as error:  # images or heatmaps were moved, or are others now: the page says so
        why = str(error)
    page = write_report(folder, dataset, heatmaps, why)
    if job.verbose:
        print_line(f"Page and figures: {page}, {folder / 'figures'}")
    return {}


def _external_heatmaps(run: Run, dataset: Dataset) -> HeatmapStore | None:
    """Find the heatmaps that `wsol score` read from elsewhere; a run that made its own has them in its folder."""
    config = run.config
    if run.heatmaps is not None or "heatmaps" not in config:
        return None
    names: dict[str, Any] = {"kind": config.get("heatmaps_kind"), "name": config.get("heatmaps_name")}
    path = expand_path(config["heatmaps"])
    store, _ = open_heatmaps(dataset, path, **names, on_error="skip", part=True, show_progress=False)
    if config.get("methods"):
        add_baselines(store, build_methods(config["methods"]), int(config.get("seed", 0)))
    return store if set(run.methods) <= set(store.methods) else None
