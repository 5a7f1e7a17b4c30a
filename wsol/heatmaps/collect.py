"""One pass over a dataset: every image through the network once, its heatmaps and its prediction kept.

Of an image that shows several classes, each is a sample: they share the decoding and the forward pass, and each has a
column of targets of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wsol.console import progress
from wsol.datasets.classes import ClassMap, allowed_logits, rank_of_true, top_classes
from wsol.datasets.loader import load_ahead
from wsol.datasets.sample import Dataset
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError, first_names
from wsol.heatmaps.extractor import HeatmapExtractor, Heatmaps
from wsol.heatmaps.method import Method
from wsol.heatmaps.store import GENERATED, HeatmapStore, samples_table
from wsol.models import Classifier, logits_of
from wsol.models.inference import frozen

__all__ = ["collect_heatmaps", "count_logits", "describe"]

logger = logging.getLogger("wsol")


@dataclass(frozen=True, eq=False)
class _Image:
    """An image as the network wants it, and the samples that ask for it, by index in the dataset."""

    samples: tuple[int, ...]
    image_id: str
    size: tuple[int, int]
    rectangle: tuple[float, float, float, float]
    pixels: torch.Tensor | None  # (V, h, w, 3), a picture for each of the view's crops; None: it can't be read


def collect_heatmaps(
    dataset: Dataset,
    classifier: Classifier,
    methods: Mapping[str, Method],
    class_map: ClassMap,
    *,
    view: str = "squash",
    flip: bool = False,
    predict_over: str = "all",
    batch_size: int = 32,
    workers: int = 2,
    device: torch.device | str = "cpu",
    seed: int = 0,
    score: str | None = None,
    chunk: int = 32,
    on_error: str = "stop",
    folder: Path | None = None,
    source: Mapping[str, Any] | None = None,
    show_progress: bool = True,
) -> tuple[HeatmapStore, pd.DataFrame]:
    """Run the classifier over a dataset; options are those of `wsol.engine.Options`.

    Returns the store, saved if there is a folder for it, and a table with a row for each sample: sample_id, image_id,
    label, class, rank (0 is the best, -1 where the image was skipped), top5 and top5_probability (lists; logits and
    softmax), width, height, and the view's rectangle x0 y0 x1 y1.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error={on_error!r}: pass stop or skip")
    table, crops = dataset.table, View(view, classifier.input_size, flip)
    true_logits = torch.tensor(np.asarray(class_map.to_model)[table["label"]])  # (N,)
    predictions = _Predictions(len(table), allowed_logits(class_map, predict_over))
    extractor = HeatmapExtractor(classifier, methods, score=score, seed=seed, chunk=chunk)
    described = describe(extractor.methods, extractor.layers)
    store = HeatmapStore(list(table["sample_id"]), described, source, folder)
    images_at_once = max(batch_size // len(crops.crops), min(batch_size, 1))  # what is too small stays so

    def load(samples: tuple[int, ...]) -> _Image:
        return _load(dataset, samples, crops, classifier.interpolation, on_error)

    try:
        with extractor, progress("heatmaps", len(table), show_progress) as advance:
            extractor.say = lambda text: advance(0, text)
            for batch in load_ahead(_by_image(dataset), load, images_at_once, workers):
                for image in batch:
                    store.place(image.samples, image.size, image.rectangle, missing=image.pixels is None)
                images = [image for image in batch if image.pixels is not None]
                if images:
                    columns, asked = _columns(images)
                    targets = true_logits[columns]  # (B, K)
                    heatmaps = _extract(extractor, classifier, images, targets, device)
                    _keep(store, heatmaps, crops, columns, asked)
                    predictions.add(columns, asked, heatmaps.logits, targets)
                advance(sum(len(image.samples) for image in batch))
        store.save()
    except BaseException:
        store.discard()
        raise
    _warn_of_unreadable(table["image_id"], store.unreadable)
    return store, samples_table(dataset, store).assign(**predictions.columns)


@torch.no_grad()  # not inference mode: a network may keep tensors for its next pass
def count_logits(classifier: Classifier, device: torch.device | str = "cpu") -> int:
    """Ask the network how many classes it has, by showing it one black image."""
    with frozen(classifier.module):
        output = classifier.module(torch.zeros(1, 3, *classifier.input_size, device=device))
    return int(logits_of(output, f"model {classifier.name}").shape[1])


def describe(methods: Mapping[str, Method], layers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Say what each method is, for the store's `methods`."""
    return {name: {"function": method.function_name, "layer": layers[name]} for name, method in methods.items()}


class _Predictions:
    """Where the true class stands, and the five best, among the allowed logits; for every sample of a dataset."""

    def __init__(self, count: int, allowed: np.ndarray | None) -> None:
        self.allowed = allowed
        self.columns: dict[str, Any] = {
            "rank": np.full(count, -1),
            "top5": [np.zeros(0, np.int32)] * count,
            "top5_probability": [np.zeros(0, np.float32)] * count,
        }

    def add(self, columns: torch.Tensor, asked: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
        """Rank the samples (B, K) that were asked for, by their images' logits (B·V, C); targets (B, K) are true."""
        averaged = logits.unflatten(0, (len(columns), -1)).double().mean(1).cpu()  # (B, C)
        of_samples = averaged[asked.nonzero()[:, 0]].numpy()  # (S, C)
        self.columns["rank"][columns[asked].numpy()] = rank_of_true(of_samples, targets[asked].numpy(), self.allowed)
        best, probabilities = top_classes(of_samples, 5, self.allowed)  # (S, 5) each
        for row, sample in enumerate(columns[asked].tolist()):
            self.columns["top5"][sample] = best[row].astype(np.int32)
            self.columns["top5_probability"][sample] = probabilities[row].astype(np.float32)


def _by_image(dataset: Dataset) -> list[tuple[int, ...]]:
    """Group the samples of each image, which follow each other; images with the most classes come first.

    A batch then has images with about the same number of classes, and hardly a column is padding.
    """
    if not dataset.multilabel:
        return [(index,) for index in range(len(dataset))]
    runs = groupby(range(len(dataset)), key=list(dataset.table["image_id"]).__getitem__)
    return sorted((tuple(run) for _, run in runs), key=len, reverse=True)


def _load(dataset: Dataset, samples: tuple[int, ...], view: View, interpolation: str, on_error: str) -> _Image:
    sample = dataset[samples[0]]
    try:
        image = sample.read_image()
    except UserError:
        if on_error != "skip":
            raise
        return _Image(samples, sample.image_id, sample.image_size or (0, 0), (0.0, 0.0, 0.0, 0.0), None)
    pixels, rectangle = view.apply(image, interpolation)
    return _Image(samples, sample.image_id, (image.shape[1], image.shape[0]), rectangle, pixels)


def _columns(images: Sequence[_Image]) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of each image (B, K), and which of them were asked for (B, K): the rest is padding."""
    most = max(len(image.samples) for image in images)
    columns = [[*image.samples, *image.samples[:1] * (most - len(image.samples))] for image in images]
    asked = [[column < len(image.samples) for column in range(most)] for image in images]
    return torch.tensor(columns), torch.tensor(asked)


def _extract(
    extractor: HeatmapExtractor,
    classifier: Classifier,
    images: Sequence[_Image],
    targets: torch.Tensor,
    device: torch.device | str,
) -> Heatmaps:
    """Show all pictures of some images to the network: heatmaps (B·V, K, h, w), logits (B·V, C)."""
    pixels = torch.cat([image.pixels for image in images if image.pixels is not None])  # (B·V, h, w, 3)
    pictures = len(pixels) // len(images)
    names = [image.image_id for image in images for _ in range(pictures)]
    repeated = targets.repeat_interleave(pictures, 0).to(device)  # (B·V, K)
    return extractor(classifier.prepare(pixels, device), repeated, names)


def _keep(store: HeatmapStore, heatmaps: Heatmaps, view: View, columns: torch.Tensor, asked: torch.Tensor) -> None:
    """Put heatmaps (B·V, K, h, w) of the samples that were asked for into the store, one for all crops."""
    for name, maps in heatmaps.maps.items():
        if store.kind(name) not in GENERATED:
            merged = average_crops(maps.unflatten(0, (len(columns), -1)), view)  # (B, K, h, w)
            store.add(name, columns[asked].tolist(), merged[asked.to(merged.device)].float().cpu().numpy())


def _warn_of_unreadable(image_ids: pd.Series, unreadable: np.ndarray) -> None:
    if unreadable.any():
        names = image_ids[unreadable].unique()
        logger.warning(
            "%d of %d images could not be read and count as misses: %s",
            *(len(names), image_ids.nunique(), first_names(names)),
        )
