"""One pass over a dataset: every image through the network once, its heatmaps and its prediction kept.

Of an image that shows several classes, each is a sample: they share the decoding and the forward pass, and each has a
column of targets of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wsol.console import progress
from wsol.datasets.classes import ClassMap, allowed_logits, rank_of_true, top_classes
from wsol.datasets.images import load_ahead, uses_few_bits
from wsol.datasets.sample import Dataset
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError, first_names
from wsol.heatmaps.extractor import HeatmapExtractor
from wsol.heatmaps.method import Method
from wsol.heatmaps.store import GENERATED, HeatmapStore, samples_table
from wsol.models import Classifier, logits_of
from wsol.models.inference import frozen

logger = logging.getLogger("wsol")


@dataclass(frozen=True, eq=False)
class _Image:
    """An image as the network wants it, and the samples that ask for it, by index in the dataset."""

    samples: tuple[int, ...]
    image_id: str
    size: tuple[int, int]
    rectangle: tuple[float, float, float, float]
    pixels: torch.Tensor | None  # (V, h, w, 3), a picture for each of the view's crops; None: it can't be read
    few_bits: bool = False


@dataclass(eq=False)
class _Pass:
    """What images are shown to, and where their heatmaps and the network's answers go."""

    classifier: Classifier
    extractor: HeatmapExtractor
    view: View
    true_logits: torch.Tensor  # (N,)
    allowed: np.ndarray | None  # logits that compete
    device: torch.device | str
    store: HeatmapStore
    answers: dict[int, Sequence[Any]] = field(default_factory=dict)  # rank, top5 and their probabilities by sample

    def run(self, images: Sequence[_Image]) -> None:
        """Show images to the network; where one has fewer samples than another, its first stands in for the rest."""
        most, crops = max(len(image.samples) for image in images), len(self.view.crops)
        columns = torch.tensor([image.samples + image.samples[:1] * (most - len(image.samples)) for image in images])
        asked = torch.tensor([[column < len(image.samples) for column in range(most)] for image in images])
        samples, targets = columns[asked].tolist(), self.true_logits[columns]  # (S,), (B, K)
        pixels = torch.cat([image.pixels for image in images if image.pixels is not None])  # (B·V, h, w, 3)
        heatmaps = self.extractor(
            self.classifier.prepare(pixels, self.device),
            targets.repeat_interleave(crops, 0).to(self.device),  # (B·V, K)
            [image.image_id for image in images for _ in range(crops)],
        )
        for name, maps in heatmaps.maps.items():
            if self.store.kind(name) not in GENERATED:
                merged = average_crops(maps.unflatten(0, (-1, crops)), self.view)  # (B, K, h, w)
                self.store.add(name, samples, merged[asked.to(merged.device)].float().cpu().numpy())
        logits = heatmaps.logits.unflatten(0, (-1, crops)).double().mean(1).cpu()  # (B, C)
        logits = logits[asked.nonzero()[:, 0]].numpy()  # (S, C)
        ranks = rank_of_true(logits, targets[asked].numpy(), self.allowed)
        best, probabilities = top_classes(logits, 5, self.allowed)  # (S, 5) each
        rows = zip(samples, ranks, best.astype(np.int32), probabilities.astype(np.float32), strict=True)
        self.answers |= {sample: answer for sample, *answer in rows}

    def run_or_skip(self, images: Sequence[_Image], on_error: str) -> None:
        """Show images to the network; with on_error="skip" those that it, or a method, fails on alone are missing."""
        try:
            self.run(images)
        except Exception as error:
            if on_error != "skip":
                raise
            for image in images if len(images) > 1 else ():
                self.run_or_skip([image], on_error)
            if len(images) == 1:
                logger.warning("image %s: %s", images[0].image_id, error)
                self.store.place(images[0].samples, images[0].size, images[0].rectangle, missing=True)
            elif all(self.store.unreadable[image.samples[0]] for image in images):  # no fault of one image
                raise


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

    Returns the store, saved if there is a folder for it, and `samples_table` with the network's answers: rank (0 is the
    best, -1 where the image was skipped), top5 and top5_probability (lists; logits and softmax).
    """
    table, way = dataset.table, View(view, classifier.input_size, flip)
    true_logits = torch.tensor(np.asarray(class_map.to_model)[table["label"]])
    allowed = allowed_logits(class_map, predict_over)
    images_at_once = max(batch_size // len(way.crops), min(batch_size, 1))  # what is too small stays so
    load = partial(_load, dataset, way, classifier.interpolation, on_error)
    with progress("heatmaps", len(table), show_progress) as advance:
        extractor = HeatmapExtractor(classifier, methods, score=score, seed=seed, chunk=chunk, say=partial(advance, 0))
        described = {
            name: {"function": method.function_name, "layer": extractor.layers[name]}
            for name, method in extractor.methods.items()
        }
        store = HeatmapStore(list(table["sample_id"]), described, source, folder)
        dark = list[str]()
        network = _Pass(classifier, extractor, way, true_logits, allowed, device, store)
        try:
            with extractor:
                for batch in load_ahead(_by_image(dataset), load, images_at_once, workers):
                    for image in batch:
                        store.place(image.samples, image.size, image.rectangle, missing=image.pixels is None)
                        dark += [image.image_id] if image.few_bits else []
                    if images := [image for image in batch if image.pixels is not None]:
                        network.run_or_skip(images, on_error)
                    advance(sum(len(image.samples) for image in batch))
            store.save()
        except BaseException:
            store.discard()
            raise
    if dark:
        logger.warning(
            "%d images of 16 bits use fewer, so the network sees them dark: %s", len(dark), first_names(dark)
        )
    if store.unreadable.any():
        ids, total = table["image_id"][store.unreadable].unique(), table["image_id"].nunique()
        failed = f"{len(ids)} of {total} images could not be read, or have no heatmap"
        logger.warning("%s, and count as misses: %s", failed, first_names(ids))
    return store, samples_table(dataset, store, network.answers)


@torch.no_grad()  # not inference mode: a network may keep tensors for its next pass
def count_logits(classifier: Classifier, device: torch.device | str = "cpu") -> int:
    """Ask the network how many classes it has, by showing it one black image."""
    with frozen(classifier.module):
        output = classifier.module(torch.zeros(1, 3, *classifier.input_size, device=device))
    return int(logits_of(output, f"model {classifier.name}").shape[1])


def _by_image(dataset: Dataset) -> list[tuple[int, ...]]:
    """Group the samples of each image, which follow each other; images with the most classes come first.

    A batch then has images with about the same number of classes, and hardly a column is padding.
    """
    if not dataset.multilabel:
        return [(index,) for index in range(len(dataset))]
    runs = groupby(range(len(dataset)), key=list(dataset.table["image_id"]).__getitem__)
    return sorted((tuple(run) for _, run in runs), key=len, reverse=True)


def _load(dataset: Dataset, view: View, interpolation: str, on_error: str, samples: tuple[int, ...]) -> _Image:
    try:
        sample = dataset[samples[0]]
        image = sample.read_image()
        few_bits = uses_few_bits(image, sample.image)
    except Exception as error:  # of somebody's own dataset whatever may be
        row = dataset.table.iloc[samples[0]]
        if on_error != "skip":
            named = error if isinstance(error, UserError) else UserError(f"sample {row['sample_id']!r}: {error}")
            raise named from error
        return _Image(samples, row["image_id"], (row["width"], row["height"]), (0.0, 0.0, 0.0, 0.0), None)
    size = image.shape[1], image.shape[0]
    sample.check_size(size)
    return _Image(samples, sample.image_id, size, *view.apply(image, interpolation)[::-1], few_bits)
