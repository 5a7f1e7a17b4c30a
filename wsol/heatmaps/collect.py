"""One pass over a dataset: every image through the network once, its heatmaps and its prediction kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wsol.datasets.class_map import ClassMap
from wsol.datasets.loader import load_ahead
from wsol.datasets.ranking import allowed_logits, rank_of_true, top_classes
from wsol.datasets.sample import Dataset
from wsol.datasets.view import look
from wsol.errors import UserError
from wsol.heatmaps.extractor import HeatmapExtractor
from wsol.heatmaps.method import Method
from wsol.heatmaps.recording import frozen
from wsol.heatmaps.store import HeatmapStore, describe
from wsol.models import Classifier
from wsol.terminal import progress

__all__ = ["collect_heatmaps", "count_logits"]

logger = logging.getLogger("wsol")


@dataclass(frozen=True, eq=False)
class _Loaded:
    """An image as the network wants it, and what scoring must know of it."""

    index: int
    sample_id: str
    image_id: str
    label: int
    image_size: tuple[int, int]
    rectangle: tuple[float, float, float, float]
    pixels: torch.Tensor | None  # (h, w, 3); None: the image can't be read and is skipped


def collect_heatmaps(
    dataset: Dataset,
    classifier: Classifier,
    methods: Mapping[str, Method],
    class_map: ClassMap,
    *,
    view: str = "squash",
    predict_over: str = "all",
    batch_size: int = 32,
    workers: int = 2,
    device: torch.device | str = "cpu",
    seed: int = 0,
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
        How images are shown, see `wsol.datasets.view`.
    predict_over : "all" or "present"
        Whether the true class competes with all logits or with those of the dataset's classes only.
    batch_size, workers : int
    device : device or str
    seed : int
        For the random baseline.
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
    extractor = HeatmapExtractor(classifier, methods, seed=seed)
    store = HeatmapStore([""] * len(dataset), describe(methods, extractor.layers), dict(source or {}), folder)
    to_model = torch.as_tensor(class_map.to_model)
    rows: list[dict[str, Any]] = []
    known: set[str] = set()

    def load(index: int) -> _Loaded:
        return _load(dataset, index, view, classifier, on_error)

    try:
        with extractor, progress("heatmaps", len(dataset), show_progress) as advance:
            for batch in load_ahead(range(len(dataset)), load, batch_size, workers):
                for item in batch:
                    if item.sample_id in known:
                        raise UserError(f"sample id {item.sample_id!r} comes more than once: sample ids must be unique")
                    known.add(item.sample_id)
                    store.place(item.index, item.sample_id, item.image_size, item.rectangle)
                    store.missing[item.index] = item.pixels is None
                seen = [item for item in batch if item.pixels is not None]
                predictions: dict[int, dict[str, Any]] = {}
                if seen:
                    images = classifier.prepare(
                        torch.stack([item.pixels for item in seen if item.pixels is not None]), device
                    )
                    targets = to_model[[item.label for item in seen]]
                    found = extractor(images, targets.to(device), [item.sample_id for item in seen])
                    for name, heatmaps in found.maps.items():
                        if store.baseline(name) is None:
                            store.add(name, [item.index for item in seen], heatmaps)
                    answers = _predictions(found.logits.double().cpu().numpy(), targets.numpy(), allowed)
                    predictions = {item.index: row for item, row in zip(seen, answers, strict=True)}
                rows += [_row(item, dataset, predictions.get(item.index)) for item in batch]
                advance(len(batch))
        samples = pd.DataFrame(rows)
        store.save()
    except BaseException:
        store.discard()
        raise
    if store.missing.any():
        names = [name for name, missing in zip(store.sample_ids, store.missing, strict=True) if missing]
        logger.warning(
            "%d of %d images could not be read and count as misses: %s", len(names), len(samples), ", ".join(names[:5])
        )
    return store, samples


@torch.inference_mode()
def count_logits(classifier: Classifier, device: torch.device | str = "cpu") -> int:
    """Ask the network how many classes it has, by showing it one black image.

    Raises
    ------
    UserError
        If it doesn't answer with logits (B, C).
    """
    with frozen(classifier.module):
        output = classifier.module(torch.zeros(1, 3, *classifier.input_size, device=device))
    logits = output if isinstance(output, torch.Tensor) else output[0]
    if logits.ndim != 2:
        raise UserError(f"model {classifier.name} answers with shape {tuple(logits.shape)}, not logits (B, C)")
    return int(logits.shape[1])


def _load(dataset: Dataset, index: int, view: str, classifier: Classifier, on_error: str) -> _Loaded:
    sample = dataset[index]
    about = (index, sample.sample_id, sample.image_id, sample.label)
    try:
        image = sample.read_image()
    except UserError:
        if on_error != "skip":
            raise
        return _Loaded(*about, sample.image_size or (0, 0), (0.0, 0.0, 0.0, 0.0), None)
    pixels, rectangle = look(image, view, classifier.input_size, classifier.interpolation)
    return _Loaded(*about, (image.shape[1], image.shape[0]), rectangle, pixels)


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


def _row(item: _Loaded, dataset: Dataset, prediction: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"sample_id": item.sample_id, "image_id": item.image_id, "label": item.label}
    row["class"] = dataset.classes[item.label]
    row |= prediction or {
        "rank": -1,
        "top5": np.zeros(0, np.int32),
        "top5_probability": np.zeros(0, np.float32),
    }
    row |= dict(zip(("width", "height"), item.image_size, strict=True))
    return row | dict(zip(("x0", "y0", "x1", "y1"), item.rectangle, strict=True))
