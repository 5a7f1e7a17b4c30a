"""One image, top to bottom: its most likely classes, a heatmap of each by every method, and the box that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from wsol.console import progress
from wsol.datasets.classes import find_logit
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError
from wsol.heatmaps.extractor import HeatmapExtractor
from wsol.heatmaps.method import Method
from wsol.heatmaps.store import GENERATED, StoredHeatmap
from wsol.localization import Protocol, load_protocol, sweep_thresholds
from wsol.localization.boxes import to_image
from wsol.localization.kernels.pixels import resize
from wsol.metrics.scoring import stored_score_map
from wsol.models import Classifier, logits_of
from wsol.models.inference import choose_device, frozen

THRESHOLD = 0.2  # of protocols that fix none: that of Zhou et al. (CVPR 2016)
LONGEST_SHOWN = 512  # pixels of a score map that is kept to be looked at


@dataclass(frozen=True, eq=False)
class Region:
    """What a method sees of a class."""

    heat: np.ndarray  # (h, w) float64: the score map in [0, 1] of the whole image, made smaller where it was large
    box: np.ndarray | None  # (4,) `x0 y0 x1 y1` in pixels of the image, inclusive; None: the score map is empty


@dataclass(frozen=True, eq=False)
class Answer:
    """A class, how likely the classifier finds it (softmax over all logits), and where the methods see it."""

    logit: int
    name: str
    probability: float
    rank: int  # 1 is the most likely
    regions: dict[str, Region] = field(default_factory=dict)  # by method


@dataclass(frozen=True, eq=False)
class Explanation:
    """An image (uint8 (H, W, 3)) with its answers, the protocol that its boxes were made by, and methods' layers."""

    image: np.ndarray
    answers: list[Answer]
    protocol: Protocol  # with the threshold of the boxes
    layers: dict[str, str]  # by method; "" for none


def explain(
    image: np.ndarray,
    classifier: Classifier,
    methods: Sequence[str] | Mapping[str, Method] = ("gradcam",),
    protocol: Protocol | str | Path = "zhou2016",
    *,
    targets: Sequence[int | str] = (),
    top: int = 3,
    threshold: float | None = None,
    view: str = "squash",
    flip: bool = False,
    score: str | None = None,
    device: str = "auto",
    seed: int = 0,
    chunk: int = 32,
    show_progress: bool = False,
) -> Explanation:
    """Find out what a classifier sees in an image, and where.

    Parameters
    ----------
    image, classifier : uint8 array (H, W, 3), and Classifier
        The latter stays on the device when this returns; its mode is as before.
    methods : sequence of names, or dict of name to Method
    protocol, threshold : Protocol, str or path; and float, optional
        Make boxes of heatmaps, each that of the largest region: without ground truth no other can be chosen. τ lies in
        [0, 1); by default it is the protocol's own, or 0.2 where it fixes none.
    targets, top : sequence of int or str, and int
        Classes to explain, by index, name or id; by default so many of the most likely ones.
    view, flip, score, device, seed, chunk, show_progress
        As in `wsol.evaluate` and `wsol.Options`. A `UserError` says what doesn't fit.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> from wsol.models import shapes_classifier
    >>> explanation = explain(Shapes()[0].read_image(), shapes_classifier(), ["cam"], top=2)
    >>> [answer.rank for answer in explanation.answers], list(explanation.answers[0].regions)
    ([1, 2], ['cam'])
    """
    if getattr(image, "dtype", None) != np.uint8 or image.shape[2:] != (3,):
        raise UserError(f"image is {getattr(image, 'dtype', type(image))} {np.shape(image)}: pass uint8 (H, W, 3)")
    rules, way = _with_threshold(load_protocol(protocol), threshold), View(view, classifier.input_size, flip)
    pixels, rectangle = way.apply(image, classifier.interpolation)
    batch = classifier.prepare(pixels, choose_device(device))  # (V, 3, h, w)
    with frozen(classifier.module.to(batch.device)), torch.no_grad():
        logits = logits_of(classifier.module(batch), f"model {classifier.name}").float().mean(0).cpu()  # (C,)
    order, names = logits.argsort(descending=True, stable=True).tolist(), (classifier.classes, classifier.class_ids)
    classes = [find_logit(str(target), *names, len(order), "target") for target in targets] or order[:top]
    with progress("heatmaps", 1, show_progress) as advance:
        say, asked = partial(advance, 0), torch.tensor([classes] * len(batch), device=batch.device)
        with HeatmapExtractor(classifier, methods, score=score, seed=seed, chunk=chunk, say=say) as extractor:
            maps = extractor(batch, asked, ["0"] * len(batch)).maps
    called, likely = classifier.classes or [f"class {logit}" for logit in range(len(order))], logits.softmax(0).tolist()
    answers = [Answer(logit, called[logit], likely[logit], order.index(logit) + 1) for logit in classes]
    for name, method in extractor.methods.items():
        heatmaps = _as_stored(maps[name], method.baseline, way, image, rectangle)
        for answer, heatmap in zip(answers, heatmaps, strict=True):
            answer.regions[name] = _region(heatmap, rules)
    return Explanation(image, answers, rules, extractor.layers)


def _with_threshold(protocol: Protocol, threshold: float | None) -> Protocol:
    """Fix τ: what is asked for, else the protocol's own."""
    tau = next(value for value in (threshold, protocol.threshold, THRESHOLD) if value is not None)
    return replace(protocol, component="largest", threshold=tau, thresholds=(tau,))


def _as_stored(
    maps: torch.Tensor, baseline: str | None, way: View, image: np.ndarray, rectangle: tuple[float, float, float, float]
) -> list[StoredHeatmap]:
    """One heatmap for each class, from those of the view's crops (V, K, h, w); baselines never look at crops."""
    merged = maps[0] if baseline else average_crops(maps[None], way)[0]  # (K, h, w)
    size = image.shape[1], image.shape[0]
    if baseline in GENERATED:
        return [StoredHeatmap(None, baseline, size, rectangle)] * len(merged)
    return [StoredHeatmap(values, "raw", size, rectangle) for values in merged.detach().cpu().double().numpy()]


def _region(heatmap: StoredHeatmap, protocol: Protocol) -> Region:
    scores = stored_score_map(heatmap, protocol)
    size = scores.shape[1], scores.shape[0]
    scale = min(1, LONGEST_SHOWN / max(size))
    heat = resize(scores[None], (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), "bilinear")[0]
    if not scores.any():
        return Region(heat, None)
    # A sweep wants ground truth, which the largest region doesn't depend on.
    everything = [0, 0, heatmap.image_size[0] - 1, heatmap.image_size[1] - 1]
    box = sweep_thresholds(scores, everything, protocol, heatmap.image_size).to_inclusive().boxes_largest
    return Region(heat, to_image(box, size, heatmap.image_size)[0])
