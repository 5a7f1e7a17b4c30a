"""From heatmaps to sweeps and pixel counts: each sample of a method once, under all protocols together.

Protocols that agree on the rules which a sweep depends on share it, and so do those that agree on PxAP's.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from wsol.datasets.images import load_ahead, mask_fits
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError, first_names, quantity
from wsol.heatmaps.store import HeatmapStore, StoredHeatmap, center, full
from wsol.localization import Protocol, Sweep, score_map, sweep_thresholds
from wsol.localization.sweep import PackedSweeps, sweep_components
from wsol.metrics.localization import ScoredBoxes
from wsol.metrics.pixels import ResampledPxAP, mask_histograms, stored_point_and_energy
from wsol.metrics.statistics import draws_of

logger = logging.getLogger("wsol")

NUMBERS = ("pointing_game", "energy_in_box", "empty_heatmaps", "missing_heatmaps")  # of each sample
CHUNK = 64  # samples whose scores are added up at a time


@dataclass(frozen=True, eq=False)
class SampleScores:
    """One sample's part; sweeps and pixels per bin by the rules that they depend on."""

    sweeps: dict[Protocol, Sweep]
    histograms: dict[Protocol, tuple[np.ndarray, np.ndarray]]
    numbers: tuple[bool, float, bool, bool]  # `NUMBERS`


class ShardScores(NamedTuple):
    """What one method's heatmaps of a shard gave, by the names of rules, see `shared`."""

    sweeps: dict[str, PackedSweeps]
    pixels: dict[str, tuple[np.ndarray, np.ndarray]]  # samples with a mask (m,), pixels per bin (m, 2, bins)
    numbers: np.ndarray  # float64 (n, 4): `NUMBERS`


@dataclass(frozen=True, eq=False)
class MethodScores:
    """What one method's heatmaps gave, of all samples in the order of the dataset."""

    method: str
    layer: str  # "" for none
    sweeps: dict[str, PackedSweeps]  # by the name of their box rules, see `box_rules`
    pixels: dict[str, ResampledPxAP]  # by protocol; empty where the dataset has no masks
    numbers: pd.DataFrame  # (N, 4): `NUMBERS`
    ready_boxes: dict[str, ScoredBoxes] = field(default_factory=dict)  # by protocol: boxes that are no heatmap's


def shared(protocols: Mapping[str, Protocol], rules: Callable[[Protocol], Hashable]) -> dict[str, str]:
    """Name of each protocol's rules: that of the first protocol with equal ones, whose sweeps or pixels it shares."""
    names: dict[Hashable, str] = {}
    return {name: names.setdefault(rules(protocol), name) for name, protocol in protocols.items()}


def box_rules(protocols: Mapping[str, Protocol]) -> dict[str, str]:
    """Name of each protocol's box rules."""
    return shared(protocols, lambda protocol: (protocol.box_rules(), protocol.component))


def ground_truth_boxes(dataset: Dataset) -> list[np.ndarray] | None:
    """Boxes (G, 4) of every sample; None where the dataset has masks only. It must have either, for all samples."""
    table = dataset.table
    boxed = table["boxes"].map(lambda boxes: boxes is not None and len(boxes) > 0)
    if boxed.all():
        return list(table["boxes"])
    if boxed.any():
        missing = table["sample_id"][~boxed]
        raise UserError(f"{len(missing)} of {len(table)} samples have no box ({first_names(missing)}): box all or none")
    if table["mask"].isna().all():
        raise UserError(
            f"dataset {dataset.name} ({dataset.split}) has neither boxes nor masks: it can only be trained on"
        )
    return None


class Scorer:
    """The samples of a dataset, which are the ground truth, and the rules that sweeps and pixels depend on.

    An error names the sample whose box or mask doesn't fit its image.
    """

    def __init__(self, dataset: Dataset, protocols: Mapping[str, Protocol], on_error: str = "stop") -> None:
        self.dataset, table, self.on_error = dataset, dataset.table, on_error
        self.sample_ids, self.boxes, self.labels = (table[name].to_numpy() for name in ("sample_id", "boxes", "label"))
        self.masked = table["mask"].notna().to_numpy()
        self.sweep_rules = {  # by the name of the box rules: what a sweep depends on, and the component
            name: (protocols[name].box_rules(), protocols[name].component)
            for name in dict.fromkeys(box_rules(protocols).values())
        }
        wanted = defaultdict[Protocol, set[str]](set)
        for rules, component in self.sweep_rules.values():
            wanted[rules].add(component)
        # Whose boxes are wanted under each box rules; those with more than the largest component's first, as others
        # may take it from them.
        self.components = [(rules, which, rules.component_rules()) for rules, which in wanted.items()]
        self.components.sort(key=lambda of: of[1] == {"largest"})
        self.shared_pixels = shared(protocols if self.masked.any() else {}, Protocol.pixel_rules)
        self.pixel_rules = {name: protocols[name].pixel_rules() for name in {*self.shared_pixels.values()}}

    def score(
        self,
        store: HeatmapStore,
        shard: range,
        workers: int,
        stopping: threading.Event | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> dict[str, ShardScores]:
        """Score all methods' heatmaps of a shard in so many threads; one that is stopping is abandoned."""
        positions = store.positions(self.sample_ids[shard.start : shard.stop])
        missing = {method: store.missing(method) for method in store.methods}
        items = [(method, index, position) for method in store.methods
                 for index, position in zip(shard, positions.tolist(), strict=True)]  # fmt: skip
        scored: list[SampleScores] = []
        score = lambda item: self.score_sample(store, missing[item[0]], *item)  # noqa: E731
        for chunk in load_ahead(items, score, CHUNK, workers):
            if stopping is not None and stopping.is_set():
                raise InterruptedError("abandoned")
            begun, scored = len(scored), scored + chunk
            advance(len(scored) // len(store.methods) - begun // len(store.methods))
        size = len(shard)
        return {
            method: self._collect(scored[number * size : (number + 1) * size], shard)
            for number, method in enumerate(store.methods)
        }

    def _collect(self, scored: list[SampleScores], shard: range) -> ShardScores:
        """Put one method's samples of a shard together."""
        boxed = self.boxes[shard.start] is not None
        sweeps = {
            name: PackedSweeps.pack([scores.sweeps.get(rules) for scores in scored], component, shard.start)
            for name, (rules, component) in self.sweep_rules.items()
        }  # fmt: skip
        masked = [index for index in shard if self.masked[index]]
        pixels = {
            name: (np.array(masked), np.array([scored[index - shard.start].histograms[rules] for index in masked]))
            for name, rules in self.pixel_rules.items() if masked
        }  # fmt: skip
        return ShardScores(sweeps if boxed else {}, pixels, np.array([scores.numbers for scores in scored], np.float64))

    def join(self, method: str, layer: str, shards: Iterable[ShardScores]) -> MethodScores:
        """Put one method's shards together, one after the other; pixels are added up and not kept."""
        classes, draws = len(self.dataset.classes), self._draws
        pixels = {name: ResampledPxAP(rules.pxap_bin, classes, *draws) for name, rules in self.pixel_rules.items()}
        sweeps: dict[str, list[PackedSweeps]] = defaultdict(list)
        numbers = []
        for scores in shards:
            for name, packed in scores.sweeps.items():
                sweeps[name].append(packed)
            for name, (samples, histograms) in scores.pixels.items():
                pixels[name].add(samples, histograms, self.labels[samples])
            numbers.append(scores.numbers)
        table = pd.DataFrame(np.concatenate(numbers), columns=list(NUMBERS))
        table = table.astype(dict.fromkeys((NUMBERS[0], *NUMBERS[2:]), bool))
        if table["empty_heatmaps"].any():
            names = self.sample_ids[table["empty_heatmaps"]]
            equal = f"{quantity(len(names), 'heatmap')} with equal values everywhere"
            logger.warning("%s: %s: %s", method, equal, first_names(names))
        joined = {name: PackedSweeps.join(sweeps.pop(name)) for name in list(sweeps)}  # parts go as soon as they are in
        of_protocols = {name: pixels[shared] for name, shared in self.shared_pixels.items()}
        return MethodScores(method, layer, joined, of_protocols, table)

    @cached_property
    def _draws(self) -> Any:
        return draws_of(self.dataset.table) if self.pixel_rules else ()

    def score_sample(
        self, store: HeatmapStore, missing: np.ndarray, method: str, index: int, position: int
    ) -> SampleScores:
        """Score one sample; one without a heatmap is wrong everywhere: no box, no score on any pixel, no point."""
        boxes = self.boxes[index]
        try:
            heatmap = None if missing[position] else store.heatmap(method, position)
            scores_under = cache(partial(stored_score_map, heatmap))
            histograms = {}
            if self.masked[index]:
                mask, ignore = self._masks(index, heatmap)
                histograms = {
                    rules: mask_histograms(scores_under(rules.map_rules()), mask, ignore, rules)
                    for rules in {*self.pixel_rules.values()}
                }
            if heatmap is None:
                return SampleScores({}, histograms, (False, 0.0, False, True))
            sweeps, hit, energy = {}, False, 0.0
            if boxes is not None:
                sweeps = self._sweeps(heatmap, boxes, scores_under)
                hit, energy = stored_point_and_energy(heatmap, boxes)
        except UserError as error:
            raise UserError(f"sample {self.sample_ids[index]}, method {method}: {error}") from error
        empty = heatmap.values is not None and bool((heatmap.values == heatmap.values.flat[0]).all())
        return SampleScores(sweeps, histograms, (hit, energy, empty, False))

    def _sweeps(
        self, heatmap: StoredHeatmap, boxes: np.ndarray, scores_under: Callable[[Protocol], np.ndarray]
    ) -> dict[Protocol, Sweep]:
        """Sweep under all rules; where only ground truth or IoU differ, the largest component's box is had once."""
        sweeps: dict[Protocol, Sweep] = {}
        largest: dict[Protocol, Sweep] = {}
        for rules, which, component_rules in self.components:
            if heatmap.kind == "scoremap":
                component_rules = _as_it_is(component_rules)
            if which == {"largest"} and component_rules in largest:
                sweeps[rules] = largest[component_rules].largest_under(rules, boxes, heatmap.image_size)
                continue
            sweeps[rules] = _sweep(heatmap, boxes, rules, which, scores_under)
            if "largest" in which:
                largest[component_rules] = sweeps[rules]
        return sweeps

    def _masks(self, index: int, heatmap: StoredHeatmap | None) -> tuple[np.ndarray, np.ndarray | None]:
        """A sample's masks; with on_error="skip" of those that can't be had no pixel counts."""
        try:
            return fitting_masks(self.dataset[index], heatmap)
        except Exception as error:  # of somebody's own dataset whatever may be
            if self.on_error != "skip" and isinstance(error, UserError):
                raise
            if self.on_error != "skip":
                raise UserError(f"its mask: {error}") from error
            logger.warning("sample %s: %s; none of its pixels count", self.sample_ids[index], error)
            return np.zeros((1, 1), bool), np.ones((1, 1), bool)


def fitting_masks(sample: Sample, heatmap: StoredHeatmap | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a sample's mask and ignore mask, of its image's size or at least its aspect."""
    mask, ignore = np.asarray(sample.read_mask()), sample.read_ignore()
    width, height = mask.shape[::-1] if heatmap is None else heatmap.image_size
    for name, pixels in (("mask", mask), ("ignore mask", ignore)):
        if pixels is not None and not mask_fits(pixels.shape[::-1], (width, height)):
            raise UserError(
                f"the {name} has {pixels.shape[1]} x {pixels.shape[0]} pixels, the image {width} x {height}; it must "
                f"have the same size, or the same aspect at another resolution"
            )
    return mask, ignore


def _sweep(
    heatmap: StoredHeatmap,
    boxes: np.ndarray,
    rules: Protocol,
    which: Collection[str],
    scores_under: Callable[[Protocol], np.ndarray],
) -> Sweep:
    if heatmap.values is not None:
        return sweep_components(scores_under(rules.map_rules()), boxes, rules, heatmap.image_size, which)
    sweep = _baseline_sweep(heatmap.kind, rules.evaluation_size(heatmap.image_size), rules)
    return sweep.against(boxes, heatmap.image_size)


def stored_score_map(heatmap: StoredHeatmap | None, rules: Protocol) -> np.ndarray:
    """Score map of a stored heatmap under a protocol: float64 (H, W) in [0, 1]. Not to be written to."""
    if heatmap is None:
        return np.zeros(rules.evaluation_size(rules.mask_size)[::-1])
    size = rules.evaluation_size(heatmap.image_size, None if heatmap.values is None else heatmap.values.shape[::-1])
    if heatmap.values is None:
        return _baseline_map(heatmap.kind, size, rules)
    if heatmap.kind != "scoremap":
        return score_map(heatmap.values, rules, heatmap.image_size, heatmap.rectangle)
    if heatmap.values.shape == size[::-1] and rules.view == "squash":
        return heatmap.values
    return score_map(heatmap.values, _as_it_is(rules), heatmap.image_size, heatmap.rectangle)


@lru_cache(maxsize=64)
def _as_it_is(rules: Protocol) -> Protocol:
    """Score maps that somebody made are never normalized."""
    return replace(rules, normalization="none")


@lru_cache(maxsize=4)
def _baseline_map(kind: str, size: tuple[int, int], rules: Protocol) -> np.ndarray:
    """Score map of a baseline, the same for all images of one evaluation size."""
    return full(size) if kind == "full" else score_map(center(size), replace(rules, size=size, view="squash"))


@lru_cache(maxsize=256)
def _baseline_sweep(kind: str, size: tuple[int, int], rules: Protocol) -> Sweep:
    """Sweep of a baseline: above any cut a Gaussian is one component without holes, and so is the whole of a map."""
    return sweep_thresholds(_baseline_map(kind, size, rules), [0, 0, size[0] - 1, size[1] - 1], rules)


def resizing_notes(dataset: Dataset, store: HeatmapStore, protocols: Mapping[str, Protocol]) -> list[str]:
    """Say which protocols resize score maps that somebody made, for boxes or for PxAP: one text, or none."""
    shapes, masked = store.score_map_shapes, bool(dataset.table["mask"].notna().any())
    sizes = {(shape[::-1], store.image_size(index)) for index, shape in enumerate(shapes) if shape}
    resized = [
        name for name, rules in protocols.items()
        if any(size != rules.evaluation_size(image_size, size) for size, image_size in sizes)
        or (masked and any(size != rules.mask_size for size, _ in sizes))
    ]  # fmt: skip
    return [f"score maps are resized, not normalized, for {', '.join(resized)}"] if resized else []
