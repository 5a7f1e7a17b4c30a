"""One image, top to bottom: its most likely classes, a heatmap of each by every method, and the box that it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from wsol.console import progress
from wsol.datasets.classes import find_logit
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError
from wsol.heatmaps.baselines import center, full
from wsol.heatmaps.extractor import HeatmapExtractor
from wsol.heatmaps.method import Method
from wsol.localization import Protocol, load_protocol, score_map, sweep_thresholds
from wsol.localization.boxes import to_image
from wsol.localization.kernels.resize import resize
from wsol.models import Classifier, logits_of
from wsol.models.inference import choose_device, frozen

__all__ = ["Answer", "Explanation", "Region", "explain"]

THRESHOLD = 0.2  # of protocols that fix none: that of Zhou et al. (CVPR 2016)
LONGEST_SHOWN = 512  # pixels of a score map that is kept to be looked at


@dataclass(frozen=True, eq=False)
class Region:
    """What a method finds for a class.

    Parameters
    ----------
    heat : float64 array (h, w)
        The score map in [0, 1], for the whole image, made smaller where it was large.
    box : float64 array (4,) or None
        `x0 y0 x1 y1` in pixels of the image, inclusive; None where the score map is empty.
    """

    heat: np.ndarray
    box: np.ndarray | None


@dataclass(frozen=True, eq=False)
class Answer:
    """A class, how likely the classifier finds it, and where the methods see it.

    Parameters
    ----------
    logit : int
        Index of the class.
    name : str
    probability : float
        In [0, 1]: softmax over all logits.
    rank : int
        1 is the most likely.
    regions : dict of method to Region
    """

    logit: int
    name: str
    probability: float
    rank: int
    regions: dict[str, Region]


@dataclass(frozen=True, eq=False)
class Explanation:
    """An image with its answers, and the rules that its boxes were made by.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    answers : list of Answer
    protocol : Protocol
        With the threshold of the boxes.
    layers : dict of method to str
        Where each method looks; "" for none.
    """

    image: np.ndarray
    answers: list[Answer]
    protocol: Protocol
    layers: dict[str, str]


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
    image : uint8 array (H, W, 3)
    classifier : Classifier
        It stays on the device when this returns; its mode is as before.
    methods : sequence of names, or dict of name to Method
    protocol : Protocol, str or path
        The rules by which a heatmap becomes a box; the box is that of the largest region, for without the truth no
        other can be chosen.
    targets : sequence of int or str
        Classes to explain, by index, name or id; by default the most likely ones.
    top : int
        How many of those.
    threshold : float, optional
        τ of the box in [0, 1); by default the protocol's own, or 0.2 where it fixes none.
    view : "squash", "crop" or "tencrop"
        How the image becomes the network's input, see `wsol.datasets.views.View`.
    flip : bool
        Show it mirrored as well, and average.
    score : "logit", "log_prob", "prob" or "rest", optional
        What methods differentiate or watch; by default what each is made for.
    device : str
    seed : int
        For the random baseline and methods that draw.
    chunk : int
        Images in each further pass of the methods that need several.
    show_progress : bool
        Show how far such methods are.

    Returns
    -------
    Explanation

    Raises
    ------
    UserError
        If the image is no such array, a class is unknown (naming the nearest), or a method doesn't fit the network.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> from wsol.models import shapes_classifier
    >>> found = explain(Shapes()[0].read_image(), shapes_classifier(), ["cam"], top=2)
    >>> [answer.rank for answer in found.answers], list(found.answers[0].regions)
    ([1, 2], ['cam'])
    """
    if top < 1:
        raise UserError(f"top={top}: pass how many of the most likely classes are wanted, at least 1")
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        kind = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise UserError(f"image is {kind}: pass an array of uint8 (H, W, 3), 0 to 255")
    rules, place = _rules(protocol, threshold), choose_device(device)
    classifier.module.to(place)
    shown = View(view, classifier.input_size, flip)
    pixels, rectangle = shown.apply(image, classifier.interpolation)
    batch = classifier.prepare(pixels, place)  # (V, 3, h, w)
    with frozen(classifier.module), torch.no_grad():
        logits = logits_of(classifier.module(batch), f"model {classifier.name}").float().mean(0).cpu()  # (C,)
    order = logits.argsort(descending=True, stable=True)
    names = (classifier.classes, classifier.class_ids)
    wanted = [find_logit(str(target), *names, len(logits), "target") for target in targets] or order[:top].tolist()
    extractor = HeatmapExtractor(classifier, methods, score=score, seed=seed, chunk=chunk)
    with extractor, progress("heatmaps", 1, show_progress) as advance:
        extractor.say = lambda text: advance(0, text)
        found = extractor(batch, torch.tensor([wanted] * len(batch), device=place), sample_ids=["0"] * len(batch))
    baselines = {name: method.baseline for name, method in extractor.methods.items()}
    heatmaps = {
        name: maps[0] if baselines[name] else average_crops(maps[None], shown)[0] for name, maps in found.maps.items()
    }
    probabilities = logits.softmax(0)
    answers = []
    size = image.shape[1], image.shape[0]
    for column, logit in enumerate(wanted):
        regions = {}
        for name, maps in heatmaps.items():
            scores = _scores(maps[column], baselines[name], rules, size, rectangle)  # of maps (K, h, w)
            regions[name] = _region(scores, rules, size)
        name = classifier.classes[logit] if classifier.classes else f"class {logit}"
        rank = int((order == logit).nonzero()) + 1
        answers.append(Answer(logit, name, float(probabilities[logit]), rank, regions))
    return Explanation(image, answers, rules, extractor.layers)


def _rules(protocol: Protocol | str | Path, threshold: float | None) -> Protocol:
    rules = load_protocol(protocol)
    tau = next(value for value in (threshold, rules.threshold, THRESHOLD) if value is not None)
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not 0 <= tau < 1:
        raise UserError(f"threshold={tau!r}: pass a number in [0, 1)")
    return replace(rules, component="largest", threshold=tau, thresholds=(tau,))


def _scores(
    heatmap: torch.Tensor,
    baseline: str | None,
    rules: Protocol,
    size: tuple[int, int],
    rectangle: tuple[float, float, float, float],
) -> np.ndarray:
    """Make the score map of an image of (width, height); two baselines never see it and cover all of it."""
    if baseline == "full":
        return full(rules.size or size)
    if baseline == "center":
        return score_map(center(rules.size or size), rules, size)
    return score_map(heatmap, rules, size, rectangle)


def _region(scores: np.ndarray, rules: Protocol, image_size: tuple[int, int]) -> Region:
    size = scores.shape[1], scores.shape[0]
    scale = min(1, LONGEST_SHOWN / max(size))
    heat = resize(scores[None], (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))), "bilinear")[0]
    if not scores.any():
        return Region(heat, None)
    # A sweep wants a truth, which the largest region doesn't depend on.
    everything = [0, 0, image_size[0] - 1, image_size[1] - 1]
    box = sweep_thresholds(scores, everything, rules, image_size).to_inclusive().boxes_largest
    return Region(heat, to_image(box, size, image_size)[0])
