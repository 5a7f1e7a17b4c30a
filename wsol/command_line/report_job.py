"""`wsol report`: the page and the figures of an old run, made again from its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from wsol.config import build_dataset, build_methods, plain
from wsol.errors import UserError

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.heatmaps.store import HeatmapStore
    from wsol.report.run import Run

__all__ = ["report_job"]


def report_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """A run's folder → `report.html` and `figures/` in it; nothing is written to `run_dir`.

    Raises
    ------
    UserError
        If the folder is no run's, or the run was interrupted: what is missing.
    """
    folder = Path(str(plain(cfg)["run"])).expanduser()
    from wsol.report.page import write_report  # not above: pandas and torch are not loaded for --help
    from wsol.report.run import Run

    run = Run.open(folder)
    dataset, why = _dataset(run.config)
    page = write_report(folder, dataset, _store(run, dataset), why)
    if say:
        print(f"Page and figures: {page}, {folder / 'figures'}")
    return {}


def _dataset(config: Mapping[str, Any]) -> tuple[Dataset | None, str]:
    """Make the dataset that a run was made on, for its images; or say why there is none."""
    if not config.get("dataset"):
        return None, "config.yaml doesn't say which dataset the run was made on"
    try:
        return build_dataset(config["dataset"]), ""
    except UserError as error:
        return None, str(error)


def _store(run: Run, dataset: Dataset | None) -> HeatmapStore | None:
    """Find the heatmaps that `wsol score` read from elsewhere; a run that made its own has them in its folder."""
    path = run.config.get("heatmaps")
    if run.heatmaps is not None or dataset is None or "heatmaps" not in run.config:
        return None
    from wsol.heatmaps.store import add_baselines, open_heatmaps

    kind, name = run.config.get("heatmaps_kind"), run.config.get("heatmaps_name")
    try:
        store, _ = open_heatmaps(
            dataset,
            None if path is None else Path(path).expanduser(),
            kind=kind,
            name=name,
            on_error="skip",
            part=True,
            show_progress=False,
        )
        if run.config.get("methods"):
            add_baselines(store, build_methods(run.config["methods"]), int(run.config.get("seed", 0)))
    except UserError:  # they were moved, or are others now; the page says that they are gone
        return None
    return store if set(run.methods) <= set(store.methods) else None
