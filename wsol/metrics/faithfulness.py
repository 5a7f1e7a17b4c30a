"""Faithfulness: does the network's answer follow what a heatmap calls relevant? Pixels are taken away, and it is asked.

What is measured, and how, says a preset: `wsol.metrics.faithfulness_presets`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from scipy.integrate import trapezoid
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional

from wsol.errors import UserError
from wsol.metrics.faithfulness_presets import CURVES, MASKED, ROAD, Faithfulness, load_faithfulness
from wsol.metrics.statistics import DIGITS, percentile_interval, resampled_means
from wsol.models import Classifier, logits_of
from wsol.models.inference import Folding

if TYPE_CHECKING:
    from wsol.heatmaps.collect import Recorder
    from wsol.heatmaps.extractor import Heatmaps
    from wsol.tables import Results, SampleTable

# What surrounds a pixel in ROAD's linear imputation, and how much it counts.
NEIGHBORS = {(y, x): 1 / 6 if 0 in (y, x) else 1 / 12 for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)}


@dataclass(frozen=True, eq=False)
class Measured:
    """What one preset gives for M methods and B images."""

    values: dict[str, np.ndarray]  # by metric, (M, B)
    curves: dict[str, np.ndarray]  # "deletion" and "insertion": the score at each step, (M, B, steps)
    shares: np.ndarray  # (steps,) of pixels hidden, in [0, 1]


@torch.no_grad()
def measure_faithfulness(
    network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, heatmaps: Mapping[str, torch.Tensor],
    targets: torch.Tensor, preset: Faithfulness, *, mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0), chunk: int = 32, seeds: Sequence[int] | None = None,
) -> Measured:  # fmt: skip
    """Measure one preset on a batch of images (B, C, H, W), normalized by mean and std, and logits (n, C) of `network`.

    M methods have raw maps (B, h, w) of the classes `targets` (B,); all share the passes of the whole and the hidden
    image. `chunk` images make one pass: the memory bound; ROAD's noise comes from a seed for each image.
    """
    bench = _Bench(network, images, targets, preset, mean, std, chunk, seeds or [0] * len(images))
    masks = torch.stack([bench.as_mask(maps) for maps in heatmaps.values()])  # (M, B, H, W)
    pixels, values = masks.shape[2] * masks.shape[3], dict[str, np.ndarray]()
    curved, imputed = preset.measures(CURVES), preset.measures((*ROAD, "road"))
    ranks = _ranks(masks) if curved or imputed else masks
    curves = {name: bench.curve(name, ranks) for name in CURVES if preset.measures([name])}
    shares = np.array(preset.counts(pixels) if curved else [0]) / pixels
    values |= {name: trapezoid(curve, shares, axis=2) for name, curve in curves.items()}
    if preset.measures(MASKED):
        values |= bench.masked(masks)
    if imputed:
        most, least = (bench.road(ranks, masks, name == "road_least") for name in ROAD)
        values |= {"road_most": most, "road_least": least, "road": (least - most) / 2}
    return Measured({name: table for name, table in values.items() if name in preset.metrics}, curves, shares)


def _ranks(masks: torch.Tensor) -> torch.Tensor:
    """Which place each pixel of masks (M, B, H, W) takes, from the most relevant on: (M, B, H·W)."""
    # Stable, so that among equals the first in raster order comes first.
    order = masks.flatten(2).argsort(dim=2, descending=True, stable=True)
    return torch.empty_like(order).scatter_(2, order, torch.arange(order.shape[2]).to(order).expand_as(order))


class Faithful:
    """What a pass asks of every batch, of the first `limit` samples, while the network is at hand; and its tables."""

    def __init__(self, presets: Sequence[str] | Mapping[str, Any], limit: int, seed: int = 0, chunk: int = 32) -> None:
        named = presets.items() if isinstance(presets, Mapping) else ((name, name) for name in presets)
        self.presets = [
            Faithfulness(**{"name": name} | dict(fields)) if isinstance(fields, Mapping) else load_faithfulness(fields)
            for name, fields in named
        ]
        self.limit, self.seed, self.chunk = limit, seed, chunk

    def __call__(
        self, recorder: Recorder, inputs: torch.Tensor, heatmaps: Heatmaps, samples: torch.Tensor, asked: torch.Tensor
    ) -> pd.DataFrame:
        """Measure a batch: heatmaps of samples (B, K), where they are asked for, of normalized images (B, 3, H, W)."""
        if len(recorder.view.crops) > 1:
            raise UserError("faithfulness is measured on one view of each image: pass view=squash or crop, flip=false")
        rows, table = list[pd.DataFrame](), recorder.dataset.table
        for column in range(samples.shape[1]):
            index = (asked[:, column] & (samples[:, column] < self.limit)).nonzero()[:, 0]
            if not len(index):
                continue
            numbers, images = samples[index, column].numpy(), inputs[index.to(inputs.device)]
            ids = table["sample_id"].iloc[numbers].tolist()
            for preset in self.presets:
                targets = heatmaps.targets[index.to(inputs.device), column]
                maps = {name: of_all[index.to(of_all.device), column] for name, of_all in heatmaps.maps.items()}
                if preset.target == "predicted":
                    answers = recorder.extractor(images, None, ids)
                    targets, maps = answers.targets, dict(answers.maps)
                with Folding(recorder.classifier.module).active(self.chunk):
                    measured = measure_faithfulness(
                        partial(_answer, recorder.classifier), images, maps, targets, preset, chunk=self.chunk,
                        mean=recorder.classifier.mean, std=recorder.classifier.std,
                        seeds=[zlib.crc32(f"{self.seed} {name}".encode()) for name in ids],
                    )  # fmt: skip
                rows.append(_rows(measured, preset, list(maps), numbers, ids))
        return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()

    def add_tables(self, results: Results, rows: pd.DataFrame, samples: SampleTable) -> None:
        """Put rows of all shards in order, and their means, with intervals and by class, into a run's tables."""
        keys = ["preset", "method", "metric"]
        places = [pd.factorize(rows[key])[0] for key in keys]
        shares = rows["share"].fillna(-1).to_numpy()
        order = np.lexsort([rows["number"].to_numpy(), shares, *places[::-1]])
        results.faithfulness = rows.iloc[order].drop(columns="number").reset_index(drop=True)
        logits = {preset.name for preset in self.presets if preset.score == "logit"}
        labels, image = samples.table["label"].to_numpy(), pd.factorize(samples.table["image_id"])[0]
        metrics = []
        for names, group in rows[rows["share"].isna()].groupby(keys, sort=False):
            preset, method, metric = tuple(names)  # type: ignore[arg-type]
            scale = 1 if preset in logits and metric != "increase" else 100
            number, values = group["number"].to_numpy(), scale * group["value"].to_numpy()
            low, high = percentile_interval(resampled_means(values[:, None], pd.factorize(image[number])[0]))[:, 0]
            about = {"method": method, "protocol": preset, "metric": metric}
            metrics.append(about | {"value": values.mean(), "low": low, "high": high})
            means = pd.Series(values).groupby(labels[number]).mean()
            names_of = [samples.classes[label] for label in means.index.tolist()]
            metrics += [about | {"class": name, "value": mean} for name, mean in zip(names_of, means, strict=True)]
        table = pd.DataFrame(metrics).reindex(columns=results.metrics.columns)
        table[["value", "low", "high"]] = table[["value", "low", "high"]].round(DIGITS)
        results.metrics = pd.concat([results.metrics, table.astype(results.metrics.dtypes)], ignore_index=True)


def _answer(classifier: Classifier, images: torch.Tensor) -> torch.Tensor:
    return logits_of(classifier.module(images.clone()), f"model {classifier.name}")  # it may normalize in place


def _rows(
    measured: Measured, preset: Faithfulness, methods: Sequence[str], numbers: np.ndarray, ids: Sequence[str]
) -> pd.DataFrame:
    """Values of samples, and at most 21 points of each curve, long."""
    points = np.unique(np.linspace(0, len(measured.shares) - 1, 21).round().astype(int))
    tables = [(metric, np.nan, values) for metric, values in measured.values.items()]
    for metric, curve in measured.curves.items():
        tables += [(metric, measured.shares[point], curve[..., point]) for point in points]
    parts = [
        {"preset": preset.name, "method": method, "metric": metric, "share": share, "sample_id": ids,
         "value": values[row], "number": numbers}
        for metric, share, values in tables for row, method in enumerate(methods)
    ]  # fmt: skip
    return pd.concat(map(pd.DataFrame, parts), ignore_index=True)


class _Bench:
    """A batch, its network, and what is the same for every method."""

    def __init__(
        self, network: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor, targets: torch.Tensor,
        preset: Faithfulness, mean: Sequence[float], std: Sequence[float], chunk: int, seeds: Sequence[int],
    ) -> None:  # fmt: skip
        self.network, self.images, self.targets, self.preset = network, images, targets, preset
        self.mean, self.std = (images.new_tensor(color)[: images.shape[1], None, None] for color in (mean, std))
        self.chunk, self.seeds = chunk, seeds
        self.at_the_end: dict[str, np.ndarray] = {}
        self.whole = self.scores(images, np.arange(len(images)))  # (B,)

    def scores(self, images: torch.Tensor, index: np.ndarray) -> np.ndarray:
        """Score of the class of image `index` (n,) in each of these images (n, C, H, W): float64 (n,)."""
        logits = torch.cat([self.network(part).double() for part in images.split(self.chunk)])
        answers = logits.softmax(1) if self.preset.score == "prob" else logits
        return answers.gather(1, self.targets[index, None])[:, 0].cpu().numpy()

    def as_mask(self, maps: torch.Tensor) -> torch.Tensor:
        """Bring raw maps (B, h, w) to the input's size and to [0, 1]: float64 (B, H, W)."""
        maps = maps.to(self.images.device, torch.float64)
        if self.preset.normalization == "before":
            maps = _to_unit(maps)
        maps = functional.interpolate(maps[:, None], self.images.shape[2:], mode=self.preset.interpolation)[:, 0]
        return maps.clamp(0, 1) if self.preset.normalization == "before" else _to_unit(maps)

    def hidden(self, baseline: str) -> torch.Tensor:
        """What the images are where everything is hidden: (B, C, H, W)."""
        if baseline == "mean":
            return torch.zeros_like(self.images)
        if baseline == "black":
            return (-self.mean / self.std).expand_as(self.images)
        side, colors = self.preset.blur_kernel, self.images.shape[1]
        # A point blurred within the kernel's own window, mirrored at its border: what RISE's evaluation does.
        profile = torch.from_numpy(gaussian_filter1d(np.eye(side)[side // 2], self.preset.blur_sigma))
        kernel = (profile[:, None] * profile).to(self.images).expand(colors, 1, side, side)
        return functional.conv2d(self.images, kernel, padding=side // 2, groups=colors)

    def scores_hidden(self, baseline: str) -> np.ndarray:
        """Score of each image where everything is hidden, asked for once: (B,)."""
        if baseline not in self.at_the_end:
            self.at_the_end[baseline] = self.scores(self.hidden(baseline), np.arange(len(self.images)))
        return self.at_the_end[baseline]

    def curve(self, name: str, ranks: torch.Tensor) -> np.ndarray:
        """Score while pixels are hidden, or shown, from the most relevant on: (M, B, steps)."""
        inserting = name == "insertion"
        baseline = self.preset.insertion_baseline if inserting else self.preset.deletion_baseline
        hidden = self.hidden(baseline)
        counts = self.preset.counts(ranks.shape[2])
        ends = self.whole, self.scores_hidden(baseline)
        curve = np.empty((*ranks.shape[:2], len(counts)))
        curve[..., 0], curve[..., -1] = reversed(ends) if inserting else ends
        inner = np.array(counts[1:-1], np.int64)
        jobs = np.indices((*ranks.shape[:2], len(inner))).reshape(3, -1)
        for start in range(0, jobs.shape[1], self.chunk):
            method, image, step = jobs[:, start : start + self.chunk]
            reached = torch.from_numpy(inner[step, None]).to(ranks)
            before = ranks[method, image] < reached  # (n, H·W)
            visible = (before if inserting else ~before).view(-1, 1, *self.images.shape[2:])
            curve[method, image, step + 1] = self.scores(torch.where(visible, self.images[image], hidden[image]), image)
        return curve

    def masked(self, masks: torch.Tensor) -> dict[str, np.ndarray]:
        """What becomes of the score when the image is multiplied by the map: (M, B) each."""
        after, black = np.empty(masks.shape[:2]), -self.mean / self.std
        for method, mask in enumerate(masks):
            visible = mask[:, None].to(self.images)
            changed = self.images * visible  # to the last bit the image where nothing is hidden
            if self.preset.space == "pixels":
                changed += (1 - visible) * black
            after[method] = self.scores(changed, np.arange(len(mask)))
        lost, won = np.maximum(self.whole - after, 0), np.maximum(after - self.whole, 0)
        if self.preset.relative:
            lost = np.divide(lost, self.whole, out=np.zeros_like(lost), where=self.whole > 0)
            won = np.divide(won, 1 - self.whole, out=np.zeros_like(won), where=self.whole < 1)
        return {"average_drop": lost, "increase": (after > self.whole).astype(np.float64), "gain": won}

    def road(self, ranks: torch.Tensor, masks: torch.Tensor, least: bool) -> np.ndarray:
        """Mean over shares of the change of the score when the most, or least, relevant pixels are imputed: (M, B)."""
        change = np.zeros(ranks.shape[:2])
        for image, seed in enumerate(self.seeds):
            pixels = self.images[image].cpu().double().numpy()
            noise = self.preset.noise * np.random.default_rng(seed).standard_normal(pixels.shape)
            jobs = [(method, share) for method in range(len(ranks)) for share in self.preset.shares]
            for start in range(0, len(jobs), self.chunk):
                part = jobs[start : start + self.chunk]
                gone = [self._removed(ranks[m, image], masks[m, image], share, least) for m, share in part]
                imputed = np.stack([np.where(away, impute(pixels, ~away) + noise, pixels) for away in gone])
                changed = torch.from_numpy(imputed).to(self.images)
                scores = self.scores(changed, np.full(len(part), image))
                np.add.at(change[:, image], [method for method, _ in part], scores - self.whole[image])
        return change / len(self.preset.shares)

    def _removed(self, ranks: torch.Tensor, mask: torch.Tensor, share: float, least: bool) -> np.ndarray:
        """Which pixels are taken away: bool (H, W)."""
        if self.preset.ties == "percentile":
            relevance = (1 - mask if least else mask).cpu().numpy()
            return relevance >= np.percentile(relevance, 100 * (1 - share))
        count = round(share * len(ranks))
        away = ranks >= len(ranks) - count if least else ranks < count
        return away.view(mask.shape).cpu().numpy()


def _to_unit(maps: torch.Tensor) -> torch.Tensor:
    """Bring each map to [0, 1] by its minimum and maximum; a constant one to 1 if it is positive, else to 0."""
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return torch.where(high > low, (maps - low) / torch.where(high > low, high - low, 1), (high > 0).to(maps))


def impute(image: np.ndarray, is_kept: np.ndarray) -> np.ndarray:
    """Fill pixels so that each is the weighted mean of its eight neighbors: float64 (C, H, W) from (C, H, W).

    Neighbors at the sides count 1/6, at the corners 1/12; those outside the image don't count. `is_kept` (H, W) says
    which pixels stay; where none does, all become 0. Rong et al., "A Consistent and Efficient Evaluation Strategy for
    Attribution Methods", ICML 2022, section 4.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.linalg import splu

    (height, width), missing = is_kept.shape, np.flatnonzero(~is_kept)
    if len(missing) in (0, is_kept.size):
        return image if len(missing) == 0 else np.zeros_like(image)
    flat, y, x = image.reshape(len(image), -1), *np.divmod(missing, width)
    equation = np.full(is_kept.size, -1)
    equation[missing] = np.arange(len(missing))
    total, right, entries = np.zeros(len(missing)), np.zeros((len(missing), len(image))), []
    for (down, across), weight in NEIGHBORS.items():
        inside = np.flatnonzero((y + down >= 0) & (y + down < height) & (x + across >= 0) & (x + across < width))
        neighbor = missing[inside] + down * width + across
        total[inside] += weight
        is_value = is_kept.ravel()[neighbor]
        right[inside[is_value]] += weight * flat[:, neighbor[is_value]].T
        entries.append((inside[~is_value], equation[neighbor[~is_value]], np.full((~is_value).sum(), -weight)))
    entries.append((np.arange(len(missing)), np.arange(len(missing)), total))
    rows, columns, weights = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = coo_matrix((weights, (rows, columns))).tocsc()
    # It is symmetric: this ordering halves the time of the usual one.
    solver = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
    filled = flat.copy()
    filled[:, missing] = solver.solve(right).T
    return filled.reshape(image.shape)
