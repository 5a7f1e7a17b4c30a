"""From heatmaps to sweeps and pixel counts: each sample of a method once, under all protocols together.

Protocols that agree on the rules which a sweep depends on share it, and so do those that agree on PxAP's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache, lru_cache, partial

import numpy as np
import pandas as pd

from wsol.console import progress
from wsol.datasets.images import mask_fits
from wsol.datasets.loader import load_ahead
from wsol.datasets.sample import Dataset
from wsol.errors import UserError, first_names
from wsol.heatmaps.baselines import center, full
from wsol.heatmaps.store import HeatmapStore, StoredHeatmap
from wsol.localization import Protocol, Sweep, score_map, sweep_thresholds
from wsol.localization.kernels.resize import resize
from wsol.metrics.pixels import (
    PixelScores,
    PxAP,
    at_image_size,
    pixel_histograms,
    point_and_energy,
    point_and_energy_of_baseline,
    resize_mask,
)
from wsol.metrics.statistics import draws_of

__all__ = ["MethodScores", "ground_truth_boxes", "resizing_notes", "score_heatmaps", "stored_score_map"]

logger = logging.getLogger("wsol")

CHUNK = 64  # samples whose scores are added up at a time
MAP_RULES = ("size", "interpolation", "normalization")  # what a score map depends on
PIXEL_RULES = ("interpolation", "normalization", "mask_size", "mask_interpolation", "pxap_bin")
READ_LATER = ("name", "component", "iou_comparison", "topk_iou_comparison", "iou_thresholds")  # from the same sweep
SWEEP_RULES = tuple(
    rule.name for rule in fields(Protocol) if rule.name not in (*READ_LATER, *PIXEL_RULES) or rule.name in MAP_RULES
)


@dataclass(frozen=True, eq=False)
class SampleScores:
    """One sample's part; sweeps and pixels per bin by the rules that they depend on."""

    sweeps: dict[Protocol, Sweep]
    histograms: dict[Protocol, tuple[np.ndarray, np.ndarray]]
    hit: bool = False
    energy: float = 0.0
    empty: bool = False


@dataclass(eq=False)
class MethodScores:
    """What one method's heatmaps gave, sample by sample in the order of the dataset.

    Parameters
    ----------
    method : str
    missing : bool array (N,)
        Samples without a heatmap.
    pixels : dict of protocol to PixelScores
        An empty dict where the dataset has no masks.
    sweeps : dict of protocol to list (N,) of Sweep or None
        None where the heatmap is missing, or the dataset has no boxes.
    hits, energies : lists (N,) of bool and float
        Pointing game, and share of the energy that lies in the boxes.
    empty : list (N,) of bool
        Whether the heatmap's values are all equal.
    """

    method: str
    missing: np.ndarray
    pixels: dict[str, PixelScores]
    sweeps: dict[str, list[Sweep | None]]
    hits: list[bool] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    empty: list[bool] = field(default_factory=list)


def ground_truth_boxes(dataset: Dataset) -> list[np.ndarray] | None:
    """Boxes (G, 4) of every sample; None where the dataset has masks only. It must have either, for all samples."""
    table = dataset.table
    count = np.array([0 if boxes is None else len(boxes) for boxes in table["boxes"]])
    if table["boxes"].notna().any():
        if not count.all():
            lacking = table["sample_id"][count == 0]
            raise UserError(
                f"{len(lacking)} of {len(table)} samples have no box ({first_names(lacking)}): annotate all or none"
            )
        return list(table["boxes"])
    if table["mask"].isna().all():
        raise UserError(
            f"dataset {dataset.name} ({dataset.split}) has neither boxes nor masks, so nothing can be localized on it; "
            f"it can be trained on"
        )
    return None


def score_heatmaps(
    dataset: Dataset,
    store: HeatmapStore,
    protocols: Mapping[str, Protocol],
    *,
    workers: int | None = None,
    show_progress: bool = True,
) -> Iterator[MethodScores]:
    """Score one method of a store after the other.

    Parameters
    ----------
    dataset : Dataset
        Whose boxes and masks are the ground truth; the store has all its samples.
    store : HeatmapStore
    protocols : dict of str to Protocol
    workers : int, optional
        Threads; by default as many as there are cores.
    show_progress : bool

    Raises
    ------
    UserError
        If a box or mask doesn't fit its image, naming the sample.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    draws = draws_of(dataset.table) if dataset.table["mask"].notna().any() else None
    for method in store.methods:
        yield _score_method(dataset, store, method, protocols, draws, workers, show_progress)


def _score_method(
    dataset: Dataset,
    store: HeatmapStore,
    method: str,
    protocols: Mapping[str, Protocol],
    draws: tuple[np.ndarray, np.ndarray] | None,
    workers: int,
    show_progress: bool,
) -> MethodScores:
    table = dataset.table
    sample_ids, labels, all_boxes = (table[name].to_numpy() for name in ("sample_id", "label", "boxes"))
    masked = table["mask"].notna().to_numpy()
    positions = pd.Index(store.sample_ids).get_indexer(pd.Index(sample_ids))
    missing = store.missing(method)[positions]
    sweep_rules = {name: _only(SWEEP_RULES, protocol) for name, protocol in protocols.items()}
    pixel_rules = {name: _only(PIXEL_RULES, protocol) for name, protocol in protocols.items()}
    pixels = {
        rules: PixelScores(rules.pxap_bin, len(dataset.classes), *draws) for rules in pixel_rules.values() if draws
    }
    scores = MethodScores(
        method,
        missing,
        {name: pixels[rules] for name, rules in pixel_rules.items() if draws},
        {n: [] for n in protocols},
    )

    def load(index: int) -> SampleScores:
        sample = dataset[index] if masked[index] else None
        try:
            masks = (None, None) if sample is None else (sample.read_mask(), sample.read_ignore())
            if missing[index]:
                return _score_missing(*masks, {*pixel_rules.values()})
            heatmap = store.heatmap(method, int(positions[index]))
            return _score_sample(heatmap, all_boxes[index], *masks, {*sweep_rules.values()}, {*pixel_rules.values()})
        except UserError as error:
            raise UserError(f"sample {sample_ids[index]}, method {method}: {error}") from error

    with progress(f"scoring {method}", len(dataset), show_progress) as advance:
        for chunk in load_ahead(range(len(dataset)), load, CHUNK, workers):
            start = len(scores.hits)
            numbers = start + np.flatnonzero(masked[start : start + len(chunk)])
            for rules, counts in pixels.items() if len(numbers) else ():
                histograms = np.array([chunk[number - start].histograms[rules] for number in numbers])  # (n, 2, bins)
                counts.add(numbers, histograms, labels[numbers])
            for name, rules in sweep_rules.items():
                scores.sweeps[name] += [one.sweeps.get(rules) for one in chunk]
            scores.hits += [one.hit for one in chunk]
            scores.energies += [one.energy for one in chunk]
            scores.empty += [one.empty for one in chunk]
            advance(len(chunk))
    if any(scores.empty):
        names = first_names(sample_ids[scores.empty])
        logger.warning("%s: %d heatmaps have equal values everywhere: %s", method, sum(scores.empty), names)
    return scores


@lru_cache(maxsize=1024)
def _only(names: tuple[str, ...], protocol: Protocol) -> Protocol:
    """Keep these rules, all others at their defaults: protocols that agree on them share what depends on them."""
    rules = Protocol(**{name: getattr(protocol, name) for name in names})
    return replace(rules, size=rules.mask_size) if names == PIXEL_RULES else rules  # there maps have the masks' size


def _score_missing(mask: np.ndarray | None, ignore: np.ndarray | None, pixel_rules: Iterable[Protocol]) -> SampleScores:
    """A sample without a heatmap is wrong everywhere: no box, no score on any pixel, no point."""
    if mask is None:
        return SampleScores({}, {})
    _check_size("ignore mask", ignore, mask.shape[::-1])
    nothing = {rules: np.zeros(rules.mask_size[::-1]) for rules in pixel_rules}
    return SampleScores({}, {rules: _histograms(scores, mask, ignore, rules) for rules, scores in nothing.items()})


def _score_sample(
    heatmap: StoredHeatmap,
    boxes: np.ndarray | None,
    mask: np.ndarray | None,
    ignore: np.ndarray | None,
    sweep_rules: Iterable[Protocol],
    pixel_rules: Iterable[Protocol],
) -> SampleScores:
    sweeps: dict[Protocol, Sweep] = {}
    histograms: dict[Protocol, tuple[np.ndarray, np.ndarray]] = {}
    score_map_under = cache(partial(stored_score_map, heatmap))
    for rules in sweep_rules if boxes is not None else ():
        if heatmap.values is None:
            sweep = _baseline_sweep(heatmap.kind, rules.size or heatmap.image_size, rules)
            sweeps[rules] = sweep.against(boxes, heatmap.image_size)
        else:
            scores = score_map_under(_only(MAP_RULES, rules))
            sweeps[rules] = sweep_thresholds(scores, boxes, rules, heatmap.image_size)
    if mask is not None:
        _check_size("mask", mask, heatmap.image_size)
        _check_size("ignore mask", ignore, heatmap.image_size)
        for rules in pixel_rules:
            histograms[rules] = _histograms(score_map_under(_only(MAP_RULES, rules)), mask, ignore, rules)
    hit, energy = (False, 0.0) if boxes is None else _point(heatmap, boxes)
    empty = heatmap.values is not None and bool((heatmap.values == heatmap.values.flat[0]).all())
    return SampleScores(sweeps, histograms, hit, energy, empty)


def _check_size(name: str, mask: np.ndarray | None, image_size: tuple[int, int]) -> None:
    if mask is not None and not mask_fits(mask.shape[::-1], image_size):
        raise UserError(
            f"the {name} has {mask.shape[1]} x {mask.shape[0]} pixels, the image {image_size[0]} x {image_size[1]}; "
            f"it must have the same size, or the same aspect at another resolution"
        )


def stored_score_map(heatmap: StoredHeatmap, rules: Protocol) -> np.ndarray:
    """Score map of a stored heatmap under a protocol: float64 (H, W) in [0, 1]. Not to be written to."""
    size = rules.size or heatmap.image_size
    if heatmap.values is None:
        return _baseline_map(heatmap.kind, size, rules)
    if heatmap.kind != "scoremap":
        return score_map(heatmap.values, rules, heatmap.image_size, heatmap.rectangle)
    if heatmap.values.shape == size[::-1]:
        return heatmap.values
    # Never normalized; but what bicubic interpolation pushes out of [0, 1] is clipped.
    return np.clip(resize(heatmap.values[None], size, rules.interpolation)[0], 0, 1)


@lru_cache(maxsize=4)
def _baseline_map(kind: str, size: tuple[int, int], rules: Protocol) -> np.ndarray:
    """Score map of a baseline, the same for all images of one evaluation size."""
    return full(size) if kind == "full" else score_map(center(size), rules, size)


@lru_cache(maxsize=256)
def _baseline_sweep(kind: str, size: tuple[int, int], rules: Protocol) -> Sweep:
    """Sweep of a baseline: above any cut a Gaussian is one component without holes, and so is the whole of a map."""
    return sweep_thresholds(_baseline_map(kind, size, rules), [0, 0, size[0] - 1, size[1] - 1], rules)


def _point(heatmap: StoredHeatmap, boxes: np.ndarray) -> tuple[bool, float]:
    if heatmap.values is None:
        return point_and_energy_of_baseline(heatmap.kind, heatmap.image_size, boxes)
    return point_and_energy(at_image_size(heatmap), boxes)


def _histograms(
    scores: np.ndarray, mask: np.ndarray, ignore: np.ndarray | None, rules: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels per bin, of the object and of the background, at the masks' size: int64 (bins,) each."""
    ignore = None if ignore is None else resize_mask(ignore, rules.mask_size)
    return pixel_histograms(scores, resize_mask(mask, rules.mask_size), ignore, PxAP(rules.pxap_bin).edges)


def resizing_notes(dataset: Dataset, store: HeatmapStore, protocols: Mapping[str, Protocol]) -> list[str]:
    """Say which protocols resize score maps that somebody made, from which sizes to which: one text, or none."""
    shapes = store.score_map_shapes
    masked = dataset.table["mask"].notna().any()
    asked: dict[tuple[tuple[int, int] | None, str], list[str]] = {}  # who evaluates at a size
    for name, rules in protocols.items() if shapes else ():
        asked.setdefault((rules.size, rules.interpolation), []).append(name)
        if masked:
            asked.setdefault((rules.mask_size, rules.interpolation), []).append(f"{name}'s PxAP")
    changes = []
    for (size, interpolation), names in asked.items():
        goals = [size or store.image_size(index) for index in range(len(shapes))]
        resized = {shape[::-1] for shape, goal in zip(shapes, goals, strict=True) if shape and shape[::-1] != goal}
        if resized:
            goal = f"{size[0]} x {size[1]}" if size else "their image's size"
            changes.append(f"{_size_range(resized)} to {goal} ({interpolation}) for {', '.join(dict.fromkeys(names))}")
    return [f"score maps are resized, not normalized: {'; '.join(changes)}"] if changes else []


def _size_range(sizes: Collection[tuple[int, int]]) -> str:
    ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    first, last = (f"{width} x {height}" for width, height in (ordered[0], ordered[-1]))
    return first if len(ordered) == 1 else f"{len(ordered)} sizes from {first} to {last}"
