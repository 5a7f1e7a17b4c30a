"""Score the stored heatmaps of one method under several protocols: the sweep of every sample, and what adds up."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from wsol.console import progress
from wsol.datasets.images import mask_fits
from wsol.datasets.loader import load_ahead
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.baselines import center, full, profiles
from wsol.heatmaps.store import HeatmapStore, StoredHeatmap
from wsol.localization import Protocol, Sweep, score_map, sweep_thresholds
from wsol.metrics.accumulators import LocalizationAccuracy
from wsol.metrics.drawn_pixels import DrawnPixels
from wsol.metrics.enlarge import at_image_size
from wsol.metrics.histogram import pixel_histograms
from wsol.metrics.pixels import Pointing, PxAP, point_and_energy, point_and_energy_of_product, resize_mask
from wsol.metrics.ready import ready_score_map

__all__ = ["MethodScores", "ProtocolScores", "score_method"]

CHUNK = 64


@dataclass(eq=False)
class ProtocolScores:
    """What one method's heatmaps are worth under one protocol.

    Parameters
    ----------
    protocol : Protocol
    accuracy : LocalizationAccuracy
        Without samples where the dataset has no boxes.
    pxap : PxAP
        Without pixels where the dataset has no masks.
    sweeps : list of Sweep or None
        Per sample; None where the heatmap is missing, and without boxes.
    drawn_pxap : float64 array (R,), optional
        PxAP in each resample of the images.
    """

    protocol: Protocol
    accuracy: LocalizationAccuracy
    pxap: PxAP
    sweeps: list[Sweep | None] = field(default_factory=list)
    drawn_pxap: np.ndarray | None = None


@dataclass(eq=False)
class MethodScores:
    """What one method's heatmaps are worth.

    Parameters
    ----------
    method : str
    protocols : dict of str to ProtocolScores
    pointing : Pointing
    empty : list of str
        Ids of samples whose heatmap's values are all equal.
    """

    method: str
    protocols: dict[str, ProtocolScores]
    pointing: Pointing
    empty: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class _Scored:
    """One sample's part; `sweeps` and `pixels` by the rules they depend on, so that protocols share them."""

    sample_id: str
    sweeps: dict[Protocol, Sweep]
    pixels: dict[Protocol, tuple[np.ndarray, np.ndarray]]
    point: tuple[bool, float] | None
    label: int
    boxed: bool
    empty: bool = False


def score_method(
    dataset: Dataset,
    store: HeatmapStore,
    positions: Mapping[str, int],
    method: str,
    protocols: Mapping[str, Protocol],
    ranks: np.ndarray,
    *,
    draws: tuple[np.ndarray, np.ndarray] | None = None,
    threads: int | None = None,
    show_progress: bool = True,
) -> MethodScores:
    """Score one method.

    Parameters
    ----------
    dataset : Dataset
        Whose boxes and masks are the truth.
    store : HeatmapStore
    positions : mapping of sample id to index in the store
    method : str
    protocols : dict of str to Protocol
    ranks : int array (N,)
        Rank of the true class per sample of the dataset, -1 without a prediction.
    draws : pair of arrays, optional
        How often each image is in each resample, and the image of each sample, as `DrawnPixels` takes them.
    threads : int, optional
        By default as many as there are cores.
    show_progress : bool

    Raises
    ------
    UserError
        If a box or mask doesn't fit its image, naming the sample.
    """
    scores = MethodScores(
        method,
        {
            name: ProtocolScores(
                rules,
                LocalizationAccuracy(
                    rules.grid(),
                    sorted({*rules.iou_thresholds, 0.5}),  # the summary's accuracies are at IoU 0.5
                    rules.iou_comparison,
                    rules.topk_iou_comparison,
                    len(dataset.classes),
                ),
                PxAP(rules.pxap_bin, len(dataset.classes)),
            )
            for name, rules in protocols.items()
        },
        Pointing(len(dataset.classes)),
    )
    drawn: dict[Protocol, DrawnPixels] = {}  # by the rules they depend on: protocols may share them
    if draws is not None:
        for part in scores.protocols.values():
            drawn[_pixel_rules(part.protocol)] = DrawnPixels(*draws, len(part.pxap.edges) - 1)

    def load(index: int) -> _Scored:
        sample = dataset[index]
        try:
            return _score_sample(sample, store, positions[sample.sample_id], method, protocols.values())
        except UserError as error:
            raise UserError(f"sample {sample.sample_id}, method {method}: {error}") from error

    workers = (os.cpu_count() or 1) if threads is None else threads
    with progress(f"scoring {method}", len(dataset), show_progress) as advance:
        start = 0
        for chunk in load_ahead(range(len(dataset)), load, CHUNK, workers):
            _add(scores, chunk, ranks[start : start + len(chunk)])
            _draw(drawn, chunk, start)
            start += len(chunk)
            advance(len(chunk))
    estimates = {rules: pixels.pxap() for rules, pixels in drawn.items()}
    for part in scores.protocols.values():
        part.drawn_pxap = estimates.get(_pixel_rules(part.protocol))
    return scores


def _add(scores: MethodScores, chunk: list[_Scored], ranks: np.ndarray) -> None:
    scores.empty += [scored.sample_id for scored in chunk if scored.empty]
    points = [(*scored.point, scored.label) for scored in chunk if scored.point is not None]
    if points:
        hits, energies, labels = zip(*points, strict=True)
        scores.pointing.update(hits, energies, labels)
    for part in scores.protocols.values():
        rules, pixel_rules = _sweep_rules(part.protocol), _pixel_rules(part.protocol)
        sweeps = [scored.sweeps.get(rules) for scored in chunk]
        part.sweeps += sweeps
        with_box = [i for i, scored in enumerate(chunk) if scored.boxed]
        nothing = np.zeros(len(part.accuracy.thresholds))
        found = (sweeps[i] for i in with_box)
        ious = [nothing if sweep is None else _ious(sweep, part.protocol.component) for sweep in found]
        if ious:
            part.accuracy.update(np.stack(ious), ranks[with_box], np.array([chunk[i].label for i in with_box]))
        for scored in chunk:
            if pixel_rules in scored.pixels:
                part.pxap.update(*scored.pixels[pixel_rules], scored.label)


def _draw(drawn: Mapping[Protocol, DrawnPixels], chunk: list[_Scored], start: int) -> None:
    """Add a chunk's pixels, whose first sample has this number, to the resamples."""
    for rules, pixels in drawn.items():
        counted = [i for i, scored in enumerate(chunk) if rules in scored.pixels]
        if counted:
            of_object, of_background = zip(*(chunk[i].pixels[rules] for i in counted), strict=True)
            pixels.update([start + i for i in counted], np.stack(of_object), np.stack(of_background))


def _ious(sweep: Sweep, component: str) -> np.ndarray:
    return sweep.iou_largest if component == "largest" else sweep.iou_any


def _score_sample(
    sample: Sample, store: HeatmapStore, position: int, method: str, protocols: Iterable[Protocol]
) -> _Scored:
    mask = sample.read_mask()
    if store.missing(method)[position]:
        return _miss(sample, mask, protocols)
    heatmap = store.heatmap(method, position)
    image_size, values = heatmap.image_size, heatmap.values
    boxes = sample.boxes
    sweeps: dict[Protocol, Sweep] = {}
    pixels: dict[Protocol, tuple[np.ndarray, np.ndarray]] = {}
    maps: dict[tuple[object, ...], np.ndarray] = {}

    def score_map_under(rules: Protocol) -> np.ndarray:
        key = (rules.size, rules.interpolation, rules.normalization)
        if key not in maps:
            maps[key] = _score_map(heatmap, rules)
        return maps[key]

    def sweep_under(rules: Protocol, boxes: np.ndarray) -> Sweep:
        if values is None:
            return _baseline_sweep(heatmap.kind, rules.size or image_size, rules).against(boxes, image_size)
        return sweep_thresholds(score_map_under(rules), boxes, rules, image_size)

    for protocol in protocols:
        rules, pixel_rules = _sweep_rules(protocol), _pixel_rules(protocol)
        if boxes is not None and rules not in sweeps:
            sweeps[rules] = sweep_under(rules, boxes)
        if mask is not None and pixel_rules not in pixels:
            scored = score_map_under(pixel_rules)
            pixels[pixel_rules] = _pixels(scored, mask, sample.read_ignore(), image_size, pixel_rules)
    point = None
    if boxes is not None and values is None:
        point = point_and_energy_of_product(*profiles(heatmap.kind, image_size), boxes)
    elif boxes is not None:
        point = point_and_energy(at_image_size(heatmap), boxes)
    empty = values is not None and bool((values == values.flat[0]).all())
    return _Scored(sample.sample_id, sweeps, pixels, point, sample.label, boxes is not None, empty)


def _miss(sample: Sample, mask: np.ndarray | None, protocols: Iterable[Protocol]) -> _Scored:
    """Count a sample without a heatmap as wrong everywhere: no box, no score on any pixel, no point."""
    pixels: dict[Protocol, tuple[np.ndarray, np.ndarray]] = {}
    if mask is not None:
        size = mask.shape[1], mask.shape[0]
        for rules in {_pixel_rules(protocol) for protocol in protocols}:
            pixels[rules] = _pixels(np.zeros(rules.mask_size[::-1]), mask, sample.read_ignore(), size, rules)
    boxed = sample.boxes is not None
    return _Scored(sample.sample_id, {}, pixels, (False, 0.0) if boxed else None, sample.label, boxed)


def _score_map(heatmap: StoredHeatmap, rules: Protocol) -> np.ndarray:
    """Return a sample's score map; the center and full baselines are made at evaluation size."""
    if heatmap.values is None:
        return _baseline_map(heatmap.kind, rules.size or heatmap.image_size, rules)
    if heatmap.kind == "scoremap":
        return ready_score_map(heatmap.values, rules, heatmap.image_size)
    return score_map(heatmap.values, rules, heatmap.image_size, heatmap.rectangle)


@lru_cache(maxsize=4)
def _baseline_map(baseline: str, size: tuple[int, int], rules: Protocol) -> np.ndarray:
    """Score map of a baseline, the same for all images of one evaluation size."""
    return full(size) if baseline == "full" else score_map(center(size), rules, size)


@lru_cache(maxsize=256)
def _baseline_sweep(baseline: str, size: tuple[int, int], rules: Protocol) -> Sweep:
    """Sweep of a baseline: above any cut a Gaussian is one component without holes, and so is the whole of a map."""
    return sweep_thresholds(_baseline_map(baseline, size, rules), [0, 0, size[0] - 1, size[1] - 1], rules)


def _pixels(
    scored: np.ndarray, mask: np.ndarray, ignore: np.ndarray | None, image_size: tuple[int, int], rules: Protocol
) -> tuple[np.ndarray, np.ndarray]:
    for name, other in (("mask", mask), ("ignore mask", ignore)):
        if other is not None and not mask_fits(other.shape[::-1], image_size):
            raise UserError(
                f"the {name} has {other.shape[1]} x {other.shape[0]} pixels, the image {image_size[0]} x "
                f"{image_size[1]}; it must have the same size, or the same aspect at another resolution"
            )
    small_ignore = None if ignore is None else resize_mask(ignore, rules.mask_size)
    edges = PxAP(rules.pxap_bin).edges
    return pixel_histograms(scored, resize_mask(mask, rules.mask_size), small_ignore, edges)


@lru_cache(maxsize=256)
def _sweep_rules(protocol: Protocol) -> Protocol:
    """Return the rules that a sweep depends on, all others set to one value: protocols that share them share it."""
    plain = Protocol(size=protocol.size)
    return replace(
        protocol,
        name="sweep",
        component=plain.component,
        iou_comparison=plain.iou_comparison,
        topk_iou_comparison=plain.topk_iou_comparison,
        iou_thresholds=plain.iou_thresholds,
        mask_size=plain.mask_size,
        mask_interpolation=plain.mask_interpolation,
        pxap_bin=plain.pxap_bin,
    )


@lru_cache(maxsize=256)
def _pixel_rules(protocol: Protocol) -> Protocol:
    """Return the rules that PxAP depends on; its score maps have the masks' size."""
    return Protocol(
        name="pixels",
        size=protocol.mask_size,
        interpolation=protocol.interpolation,
        normalization=protocol.normalization,
        mask_size=protocol.mask_size,
        mask_interpolation=protocol.mask_interpolation,
        pxap_bin=protocol.pxap_bin,
    )
