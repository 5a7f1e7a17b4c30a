"""`wsol report`: the page and the figures of an old run, made again from its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import build_dataset, build_methods, refuse_foreign, to_dict
from wsol.console import print_line
from wsol.datasets import Dataset
from wsol.heatmaps.store import HeatmapStore, add_baselines, open_heatmaps
from wsol.io import expand_path
from wsol.report.page import write_report
from wsol.report.run import Run

RECORDED = ("dataset", "heatmaps", "heatmaps_kind", "heatmaps_name", "methods", "seed")


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """A run's folder → `report.html` and `figures/` in it; nothing is written to the job's own.

    Pictures come from a dataset that is chosen now, else from the one that the run names, if it is wsol's own.
    """
    settings = to_dict(cfg)
    folder = Path(str(settings["run"])).expanduser()
    old_run, chosen = Run.open(folder), {key: settings[key] for key in ("dataset", "heatmaps") if settings.get(key)}
    dataset, heatmaps, why = None, None, "config.yaml doesn't say which dataset the run was made on"
    try:
        config = {key: old_run.config[key] for key in RECORDED if old_run.config.get(key)} | chosen
        refuse_foreign(config, chosen)
        if "dataset" in config:
            dataset = build_dataset(config["dataset"])
            heatmaps = _external_heatmaps(old_run, dataset, config, followed="heatmaps" in chosen)
    except Exception as error:  # images or heatmaps were moved, or are others now, or whatever a folder may say
        if chosen:
            raise
        why = str(error)
    page = write_report(folder, dataset, heatmaps, why)
    if job.verbose:
        print_line(f"Page and figures: {page}, {folder / 'figures'}")
    return {}


def _external_heatmaps(run: Run, dataset: Dataset, config: Mapping[str, Any], followed: bool) -> HeatmapStore | None:
    """Find the heatmaps that `wsol score` read from elsewhere; a run that made its own has them in its folder.

    A folder of files is searched only where the user names it now: the run's may be any, and the whole disk.
    """
    path = expand_path(config.get("heatmaps"))
    own = path is None or (path / "heatmaps.json").is_file() or path.suffix == ".npz"
    if run.heatmaps is not None or not (own or followed):
        return None
    names: dict[str, Any] = {"kind": config.get("heatmaps_kind"), "name": config.get("heatmaps_name")}
    store, _ = open_heatmaps(dataset, path, **names, on_error="skip", part=True, show_progress=False)
    if config.get("methods"):
        add_baselines(store, build_methods(config["methods"]), int(config.get("seed", 0)))
    return store if set(run.methods) <= set(store.methods) else None
