"""Heatmaps to score without a network: a run's own, somebody else's, and baselines that never look at an image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.heatmaps.baselines import random
from wsol.heatmaps.foreign import open_foreign, place_samples
from wsol.heatmaps.method import BASELINES, Method
from wsol.heatmaps.store import HeatmapStore

__all__ = ["NOISE", "add_baselines", "open_heatmaps"]

NOISE = (14, 14)  # of the random baseline: what the last layer of a ResNet or VGG of stride 16 gives at 224 x 224
CHUNK = 1024


def open_heatmaps(
    dataset: Dataset,
    path: Path | None,
    *,
    kind: str | None = None,
    name: str | None = None,
    on_error: str = "stop",
    part: bool = False,
    workers: int = 2,
    show_progress: bool = True,
) -> tuple[HeatmapStore, list[str]]:
    """Open whatever heatmaps there are for a dataset.

    Parameters
    ----------
    dataset : Dataset
    path : Path, optional
        `heatmaps/` of a run, or what `wsol.heatmaps.foreign.open_foreign` takes; None: none, for baselines alone.
    kind, name, on_error, part, workers, show_progress
        As in `open_foreign`, where kind is "scoremap" by default; a run's own heatmaps are raw and have names.

    Returns
    -------
    store : HeatmapStore
        Its `source` says dataset, split and role, and of foreign heatmaps where they lie.
    notes : list of str
        What a reader should know of them.

    Raises
    ------
    UserError
        If the path leads to no heatmaps, or to faulty ones.
    """
    about = {"dataset": dataset.name, "split": dataset.split, "role": dataset.role}
    if path is None:
        store = HeatmapStore([""] * len(dataset), {}, about | {"heatmaps": "none"})
        place_samples(store, list(dataset))
        return store, []
    if HeatmapStore.is_run(path / "heatmaps"):
        raise UserError(f"heatmaps={path} is the folder of a run: pass heatmaps={path / 'heatmaps'}")
    if HeatmapStore.is_run(path):
        for key, value in (("heatmaps_kind", kind if kind != "raw" else None), ("heatmaps_name", name)):
            if value is not None:
                raise UserError(
                    f"{key}={value}: {path} holds a run's own heatmaps, which are raw and have their methods' names; "
                    f"leave it out"
                )
        store = HeatmapStore.open(path)
        store.source["role"] = dataset.role
        return store, []
    kind = kind or "scoremap"
    foreign, notes = open_foreign(
        dataset,
        path,
        kind=kind,
        name=name,
        on_error=on_error,
        part=part,
        workers=workers,
        show_progress=show_progress,
    )
    scored = "score maps as they are" if kind == "scoremap" else "raw, normalized by each protocol"
    foreign.source = about | {"heatmaps": f"{path} ({scored})"}
    return foreign, notes


def add_baselines(store: HeatmapStore, methods: Mapping[str, Method], seed: int = 0) -> None:
    """Put baselines beside the heatmaps of a store.

    Parameters
    ----------
    store : HeatmapStore
        Changed in memory only.
    methods : dict of str to Method
    seed : int
        Of the random baseline, whose noise is `NOISE` wide and high.

    Raises
    ------
    UserError
        If a method needs a network, or the store has one of that name.

    Examples
    --------
    >>> from wsol.heatmaps import make_method
    >>> store = HeatmapStore(["a"], {})
    >>> add_baselines(store, {"random": make_method("random")})
    >>> store.heatmap("random", 0).shape
    (14, 14)
    """
    for name, method in methods.items():
        if method.baseline is None:
            raise UserError(
                f"method={name} needs a network: wsol evaluate has it; without one there are {', '.join(BASELINES)}"
            )
        if name in store.methods:
            raise UserError(f"method={name}: the heatmaps have a method of that name already; leave it out")
        store.methods[name] = {"function": method.baseline, "layer": ""}
        if store.baseline(name):
            continue
        for start in range(0, len(store.sample_ids), CHUNK):
            ids = store.sample_ids[start : start + CHUNK]
            noise = np.stack([random(NOISE, sample_id, seed) for sample_id in ids])
            store.add(name, range(start, start + len(ids)), torch.from_numpy(noise))
