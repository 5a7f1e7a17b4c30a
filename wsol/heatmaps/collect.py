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
from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError
from wsol.heatmaps.extractor import HeatmapExtractor
from wsol.heatmaps.method import Method
from wsol.heatmaps.store import GENERATED, HeatmapStore
from wsol.models import Classifier, logits_of
from wsol.models.inference import frozen

__all__ = ["collect_heatmaps", "count_logits"]

logger = logging.getLogger("wsol")


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An image as the network wants it, the samples that ask for it, and what scoring must know of it."""

    samples: dict[int, Sample]  # by index in the dataset
    image_size: tuple[int, int]
    rectangle: tuple[float, float, float, float]
    pixels: (
        torch.Tensor | None
    )  # (V, h, w, 3), a picture for each of the view's crops; None: the image can't be read and is skipped

    @property
    def image_id(self) -> str:
        return next(iter(self.samples.values())).image_id


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
    """Run the classifier over a dataset.

    Parameters
    ----------
    dataset : Dataset
    classifier : Classifier
    methods : dict of str to Method
    class_map : ClassMap
        Which logit stands for which of the dataset's classes.
    view : str
        How images are shown, see `wsol.datasets.views`.
    flip : bool
        Show every image mirrored as well, and average.
    predict_over : "all" or "present"
        Whether the true class competes with all logits or with those of the dataset's classes only.
    batch_size, workers : int
    device : device or str
    seed : int
        For the random baseline, which draws one map per image, and for masks and noise.
    score : "logit", "log_prob", "prob" or "rest", optional
        What gradient methods differentiate; by default the logit (ShapleyCAM: `rest`; RISE and occlusion: `prob`).
    chunk : int
        Images in each further pass of the methods that need several.
    on_error : "stop" or "skip"
        What an image that can't be read does: raise, or be counted as a miss.
    folder : Path, optional
        Where the heatmaps are kept; None: in memory.
    source : mapping, optional
        Where the heatmaps come from, kept with them.
    show_progress : bool

    Returns
    -------
    store : HeatmapStore
        Saved, if there is a folder.
    samples : DataFrame
        One row per sample: sample_id, image_id, label, class, rank (0 is the best, -1 where the image was skipped),
        top5 and top5_probability (lists; logits and softmax), width, height, and the view's rectangle x0 y0 x1 y1.

    Raises
    ------
    UserError
        If an image can't be read, a sample id comes twice, or a method doesn't fit the network.
    """
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error={on_error!r}: pass stop or skip")
    allowed = allowed_logits(class_map, predict_over)
    shown = View(view, classifier.input_size, flip)
    extractor = HeatmapExtractor(classifier, methods, score=score, seed=seed, chunk=chunk)
    described = describe(extractor.methods, extractor.layers)
    store = HeatmapStore(list(dataset.table["sample_id"]), described, source, folder)
    to_model = torch.as_tensor(class_map.to_model)
    rows: dict[int, dict[str, Any]] = {}

    def load(indices: Sequence[int]) -> _Loaded:
        return _load(dataset, indices, shown, classifier, on_error)

    try:
        with extractor, progress("heatmaps", len(dataset), show_progress) as advance:
            extractor.say = lambda text: advance(0, text)
            at_once = max(batch_size // len(shown.crops), min(batch_size, 1))  # what is too small stays so
            for batch in load_ahead(_by_image(dataset), load, at_once, workers):
                for item in batch:
                    _place(item, store)
                seen = [item for item in batch if item.pixels is not None]
                predictions = _run(seen, extractor, classifier, shown, to_model, allowed, store, device) if seen else {}
                for item in batch:
                    for index, sample in item.samples.items():
                        rows[index] = _row(item, sample, dataset, predictions.get(index))
                    advance(len(item.samples))
        samples = pd.DataFrame([rows[index] for index in sorted(rows)])
        store.save()
    except BaseException:
        store.discard()
        raise
    if store.unreadable.any():
        names = list(dict.fromkeys(samples["image_id"][store.unreadable]))
        logger.warning(
            "%d of %d images could not be read and count as misses: %s",
            *(len(names), samples["image_id"].nunique(), ", ".join(names[:5])),
        )
    return store, samples


def describe(methods: Mapping[str, Method], layers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Say what each method is, for the store's `methods`."""
    return {name: {"function": method.function_name, "layer": layers[name]} for name, method in methods.items()}


@torch.no_grad()  # not inference mode: a network may keep tensors for its next pass
def count_logits(classifier: Classifier, device: torch.device | str = "cpu") -> int:
    """Ask the network how many classes it has, by showing it one black image.

    Raises
    ------
    UserError
        If it doesn't answer with logits (B, C).
    """
    with frozen(classifier.module):
        output = classifier.module(torch.zeros(1, 3, *classifier.input_size, device=device))
    return int(logits_of(output, f"model {classifier.name}").shape[1])


def _by_image(dataset: Dataset) -> list[tuple[int, ...]]:
    """Group the samples of each image, which follow each other; images with the most classes come first.

    A batch then has images with about the same number of classes, and hardly a column is padding.
    """
    if not dataset.multilabel:
        return [(index,) for index in range(len(dataset))]
    runs = groupby(range(len(dataset)), key=lambda index: dataset[index].image_id)
    return sorted((tuple(run) for _, run in runs), key=len, reverse=True)


def _load(dataset: Dataset, indices: Sequence[int], view: View, classifier: Classifier, on_error: str) -> _Loaded:
    samples = {index: dataset[index] for index in indices}
    sample = samples[indices[0]]
    try:
        image = sample.read_image()
    except UserError:
        if on_error != "skip":
            raise
        return _Loaded(samples, sample.image_size or (0, 0), (0.0, 0.0, 0.0, 0.0), None)
    pixels, rectangle = view.apply(image, classifier.interpolation)
    return _Loaded(samples, (image.shape[1], image.shape[0]), rectangle, pixels)


def _place(item: _Loaded, store: HeatmapStore) -> None:
    for index in item.samples:
        store.place(index, item.image_size, item.rectangle)
        store.unreadable[index] = item.pixels is None


def _run(
    seen: Sequence[_Loaded],
    extractor: HeatmapExtractor,
    classifier: Classifier,
    view: View,
    to_model: torch.Tensor,
    allowed: np.ndarray | None,
    store: HeatmapStore,
    device: torch.device | str,
) -> dict[int, dict[str, Any]]:
    """Show a batch to the network, keep the heatmaps, and return the predictions by index in the dataset."""
    images = classifier.prepare(torch.cat([item.pixels for item in seen if item.pixels is not None]), device)
    pictures = len(view.crops)
    columns = max(len(item.samples) for item in seen)
    labels = torch.zeros(len(seen), columns, dtype=torch.int64)  # (B, K)
    asked = torch.zeros(len(seen), columns, dtype=torch.bool)  # (B, K): the rest is padding
    for row, item in enumerate(seen):
        own = [sample.label for sample in item.samples.values()]
        labels[row] = torch.tensor(own + own[:1] * (columns - len(own)))
        asked[row, : len(own)] = True
    targets = to_model[labels]
    names = [item.image_id for item in seen for _ in range(pictures)]
    found = extractor(images, targets.repeat_interleave(pictures, 0).to(device), names)
    indices = [index for item in seen for index in item.samples]  # in the order of `asked`
    for name, heatmaps in found.maps.items():
        if store.kind(name) not in GENERATED:
            merged = average_crops(heatmaps.unflatten(0, (len(seen), pictures)), view)
            store.add(name, indices, merged[asked.to(heatmaps.device)].detach().float().cpu().numpy())
    averaged = found.logits.unflatten(0, (len(seen), pictures)).double().mean(1)
    logits = averaged.cpu().numpy()[asked.nonzero()[:, 0].numpy()]  # a row for each sample
    answers = _predictions(logits, targets[asked].numpy(), allowed)
    return dict(zip(indices, answers, strict=True))


def _predictions(logits: np.ndarray, targets: np.ndarray, allowed: np.ndarray | None) -> list[dict[str, Any]]:
    """Rank the true class and list the five best, among the allowed logits."""
    ranks = rank_of_true(logits, targets, allowed)
    best, shares = top_classes(logits, 5, allowed)
    return [
        {
            "rank": int(ranks[i]),
            "top5": best[i].astype(np.int32),
            "top5_probability": shares[i].astype(np.float32),
        }
        for i in range(len(logits))
    ]


def _row(item: _Loaded, sample: Sample, dataset: Dataset, prediction: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"sample_id": sample.sample_id, "image_id": sample.image_id, "label": sample.label}
    row["class"] = dataset.classes[sample.label]
    row |= prediction or {
        "rank": -1,
        "top5": np.zeros(0, np.int32),
        "top5_probability": np.zeros(0, np.float32),
    }
    row |= dict(zip(("width", "height"), item.image_size, strict=True))
    return row | dict(zip(("x0", "y0", "x1", "y1"), item.rectangle, strict=True))
