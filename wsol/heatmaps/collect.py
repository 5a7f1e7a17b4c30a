"""One pass over a dataset: every image through the network once, its heatmaps and its prediction kept.

Of an image that shows several classes, each is a sample: they share the decoding and the forward pass, and each has a
column of targets of its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from wsol.datasets.classes import ClassMap, allowed_logits, rank_of_true, top_classes
from wsol.datasets.images import load_ahead, uses_few_bits
from wsol.datasets.sample import Dataset
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError
from wsol.heatmaps.extractor import HeatmapExtractor
from wsol.heatmaps.method import Method
from wsol.heatmaps.store import GENERATED, HeatmapStore, samples_table
from wsol.models import Classifier, logits_of
from wsol.models.inference import frozen

logger = logging.getLogger("wsol")
# What else is asked of a batch while the network is at hand, see `wsol.metrics.faithfulness.Faithful`.
Measure = Callable[..., pd.DataFrame]
# Of a shard: heatmaps, samples, faithfulness; its forward passes, and images whose 16 bits are hardly used.
Recorded = tuple[HeatmapStore, pd.DataFrame, pd.DataFrame | None, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class _Image:
    """An image as the network wants it, and the samples that ask for it, by index in the dataset."""

    samples: tuple[int, ...]
    image_id: str
    size: tuple[int, int]
    rectangle: tuple[float, float, float, float]
    pixels: torch.Tensor | None  # (V, h, w, 3), a picture for each of the view's crops; None: it can't be read
    few_bits: bool = False


class Recorder:
    """A classifier's pass over a dataset, shard by shard; options are those of `wsol.engine.Options`.

    Batches have one size, that of the set where it is smaller: the last one is filled up with copies of its last image,
    for with another size a network takes other kernels. As long as the context lasts the network is prepared, and
    algorithms are deterministic where torch has such.
    """

    def __init__(
        self,
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
        source: Mapping[str, Any] | None = None,
        measure: Measure | None = None,
    ) -> None:
        self.measure = measure
        self.dataset, self.classifier, self.device, self.source = dataset, classifier, device, source
        self.view, self.workers = View(view, classifier.input_size, flip), workers
        self.true_logits = torch.tensor(np.asarray(class_map.to_model)[dataset.table["label"]])  # (N,)
        self.allowed = allowed_logits(class_map, predict_over)  # logits that compete
        self.images_at_once = max(batch_size // len(self.view.crops), min(batch_size, 1))  # what is too small stays so
        self.images_at_once = min(self.images_at_once, dataset.table["image_id"].nunique())
        self.on_error = on_error
        self.load = partial(_load, dataset, self.view, classifier.interpolation, on_error)
        self.advance: Callable[..., None] = lambda *_: None
        say = lambda note: self.advance(0, note)  # noqa: E731
        self.extractor = HeatmapExtractor(classifier, methods, score=score, seed=seed, chunk=chunk, say=say)
        self.methods = {
            name: {"function": method.function_name, "layer": self.extractor.layers[name]}
            for name, method in self.extractor.methods.items()
        }
        self.forward_passes = 0

    def shard_images(self, wanted: int) -> int:
        """Round the number of images in a shard up, so that all batches but the last of the set are full."""
        return math.ceil(wanted / max(self.images_at_once, 1)) * max(self.images_at_once, 1)

    def __enter__(self) -> Self:
        cudnn, before = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
        self._before = cudnn.benchmark, before, torch.is_deterministic_algorithms_warn_only_enabled()
        cudnn.benchmark = False
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True, warn_only=True)
        self.extractor.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.extractor.__exit__(*error)
        benchmark, deterministic, warn_only = self._before
        torch.backends.cudnn.benchmark = benchmark
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)

    def record(self, shards: Sequence[range], advance: Callable[..., None] = lambda *_: None) -> Iterator[Recorded]:
        """Yield the heatmaps of each shard, its samples with the network's answers, see `samples_table`, faithfulness.

        Images are decoded ahead also of the next shard.
        """
        images = [_by_image(self.dataset, shard) for shard in shards]
        every = [samples for of_shard in images for samples in of_shard]
        batches = load_ahead(every, self.load, self.images_at_once, self.workers)
        self.advance = advance
        for shard, of_shard in zip(shards, images, strict=True):
            ids = self.dataset.table["sample_id"].iloc[shard.start : shard.stop]
            store, answers = HeatmapStore(list(ids), self.methods, self.source), dict[int, Sequence[Any]]()
            self.measured, before, dark = list[pd.DataFrame](), self.forward_passes, list[str]()
            for _ in range(0, len(of_shard), max(self.images_at_once, 1)):
                batch = next(batches)
                for image in batch:
                    rows = [sample - shard.start for sample in image.samples]
                    store.place(rows, image.size, image.rectangle, missing=image.pixels is None)
                    dark += [image.image_id] if image.few_bits else []
                if readable := [image for image in batch if image.pixels is not None]:
                    answers |= self._run_or_skip(readable, store, shard.start)
                advance(sum(len(image.samples) for image in batch))
            measured = pd.concat(self.measured, ignore_index=True) if self.measured else None
            about = {"forward_passes": self.forward_passes - before, "dark": dark}
            yield store, samples_table(self.dataset, store, answers, shard), measured, about

    def _run(self, images: Sequence[_Image], store: HeatmapStore, start: int) -> dict[int, Sequence[Any]]:
        """Show a batch to the network: ranks, best classes and their probabilities, by the sample's row in the store.

        Where an image has fewer samples than another, its first stands in for the rest.
        """
        count = len(images)
        images = [*images, *[images[-1]] * (self.images_at_once - count)]
        most, crops = max(len(image.samples) for image in images), len(self.view.crops)
        columns = torch.tensor([image.samples + image.samples[:1] * (most - len(image.samples)) for image in images])
        asked = torch.tensor([[column < len(image.samples) for column in range(most)] for image in images])
        asked[count:] = False
        samples, targets = columns[asked] - start, self.true_logits[columns]  # (S,), (B, K)
        pixels = torch.cat([image.pixels for image in images if image.pixels is not None])  # (B·V, h, w, 3)
        inputs = self.classifier.prepare(pixels, self.device)
        heatmaps = self.extractor(
            inputs,
            targets.repeat_interleave(crops, 0).to(self.device),  # (B·V, K)
            [image.image_id for image in images for _ in range(crops)],
        )
        self.forward_passes += 1
        for name, maps in heatmaps.maps.items():
            if store.kind(name) not in GENERATED:
                merged = average_crops(maps.unflatten(0, (-1, crops)), self.view)  # (B, K, h, w)
                store.add(name, samples.tolist(), merged[asked.to(merged.device)].float().cpu().numpy())
        if self.measure is not None:
            self.measured.append(self.measure(self, inputs, heatmaps, columns, asked))
        logits = heatmaps.logits.unflatten(0, (-1, crops)).double().mean(1).cpu()  # (B, C)
        logits = logits[asked.nonzero()[:, 0]].numpy()  # (S, C)
        ranks = rank_of_true(logits, targets[asked].numpy(), self.allowed)
        best, probabilities = top_classes(logits, 5, self.allowed)  # (S, 5) each
        rows = zip(samples.tolist(), ranks, best.astype(np.int32), probabilities.astype(np.float32), strict=True)
        return {sample: answer for sample, *answer in rows}

    def _run_or_skip(self, images: Sequence[_Image], store: HeatmapStore, start: int) -> dict[int, Sequence[Any]]:
        """The same; with on_error="skip" images that the network, or a method, fails on alone are missing."""
        try:
            return self._run(images, store, start)
        except Exception as error:
            if self.on_error != "skip":
                raise
            answers = dict[int, Sequence[Any]]()
            for image in images if len(images) > 1 else ():
                answers |= self._run_or_skip([image], store, start)
            if len(images) == 1:
                logger.warning("image %s: %s", images[0].image_id, error)
                rows = [sample - start for sample in images[0].samples]
                store.place(rows, images[0].size, images[0].rectangle, missing=True)
            elif all(store.unreadable[image.samples[0] - start] for image in images):  # no fault of one image
                raise
            return answers


@torch.no_grad()  # not inference mode: a network may keep tensors for its next pass
def count_logits(classifier: Classifier, device: torch.device | str = "cpu") -> int:
    """Ask the network how many classes it has, by showing it one black image."""
    height, width = classifier.input_size
    try:
        with frozen(classifier.module):
            output = classifier.module(torch.zeros(1, 3, height, width, device=device))
    except RuntimeError as error:
        text = f"model {classifier.name} does not run on {width} x {height} pixels of 3 colors"
        raise UserError(f"{text}: {error}") from error
    return int(logits_of(output, f"model {classifier.name}").shape[1])


def _by_image(dataset: Dataset, shard: range) -> list[tuple[int, ...]]:
    """Group the samples of each image, which follow each other; images with the most classes come first.

    A batch then has images with about the same number of classes, and hardly a column is padding.
    """
    if not dataset.multilabel:
        return [(index,) for index in shard]
    runs = groupby(shard, key=list(dataset.table["image_id"]).__getitem__)
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
