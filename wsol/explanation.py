"""One image, top to bottom: its most likely classes, a heatmap of each by every method, and the box that it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import nan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsol.console import progress
from wsol.datasets.classes import find_logit
from wsol.datasets.images import read_upright
from wsol.datasets.views import View, average_crops
from wsol.errors import UserError
from wsol.heatmaps.extractor import HeatmapExtractor, scores_of
from wsol.heatmaps.method import Method
from wsol.heatmaps.store import GENERATED, StoredHeatmap
from wsol.localization import Protocol, load_protocol, sweep_thresholds
from wsol.localization.boxes import to_image
from wsol.localization.kernels.pixels import resize
from wsol.metrics.scoring import stored_score_map
from wsol.models import Classifier, logits_of
from wsol.models.inference import choose_device, frozen

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = (".png", ".svg", ".pdf")
COLOR_MAP = "viridis"
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
    probability: float | None  # None: of a score function's values
    rank: int  # 1 is the most likely
    regions: dict[str, Region] = field(default_factory=dict)  # by method
    value: float = nan  # the logit, or the score function's value


@dataclass(frozen=True, eq=False)
class Explanation:
    """An image with its answers: what `explain` returns.

    Attributes
    ----------
    image : uint8 array (H, W, 3)
    answers : list of Answer
        K classes in the order in which they were asked for, by default the most likely first.
    protocol : Protocol
        With the threshold of the boxes.
    layers : dict of str to str
        Target layer by method; "" for none.
    """

    image: np.ndarray
    answers: list[Answer]
    protocol: Protocol
    layers: dict[str, str]

    @property
    def heatmaps(self) -> dict[str, np.ndarray]:
        """Score maps of the whole image by method, (K, h, w) float64 in [0, 1], no side longer than 512 pixels."""
        return {name: np.stack([answer.regions[name].heat for answer in self.answers]) for name in self.layers}

    @property
    def boxes(self) -> dict[str, np.ndarray]:
        """Boxes by method, (K, 4) `x0 y0 x1 y1` in pixels of the image, inclusive; NaN where the map is empty."""
        nothing = np.full(4, nan)
        regions = {name: [answer.regions[name] for answer in self.answers] for name in self.layers}
        return {name: np.stack([nothing if r.box is None else r.box for r in rs]) for name, rs in regions.items()}

    def plot(self, remarks: str = "", gt_boxes: np.ndarray | None = None, color_map: str = COLOR_MAP) -> Figure:
        """Draw the image and each class's heatmaps and boxes as one matplotlib figure.

        `remarks` end its caption; `gt_boxes` (G, 4) are inclusive, in pixels of the image; `color_map` is matplotlib's.
        """
        from wsol.report.pictures import draw_explanation

        return draw_explanation(self, remarks, gt_boxes, color_map)

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write that figure as PNG, SVG or PDF, as the file's name ends; `options` are those of `plot`."""
        from wsol.report.figures import save_figure

        path = check_picture(Path(path).expanduser())
        path.parent.mkdir(parents=True, exist_ok=True)
        return save_figure(self.plot(**options), path.with_suffix(""), [path.suffix[1:]])[0]

    def _repr_png_(self) -> bytes:
        """Show the figure in a notebook."""
        with TemporaryDirectory() as folder:
            return self.save(Path(folder, "explanation.png")).read_bytes()


def check_picture(path: Path, where: str = "") -> Path:
    """Refuse a name of a picture that doesn't say which kind it is to be."""
    if path.suffix not in KINDS:
        raise UserError(f"{where}{path}: pass a file that ends in {', '.join(KINDS)}")
    return path


def explain(
    image: np.ndarray | str | Path,
    model: Classifier | torch.nn.Module,
    methods: Sequence[str] | Mapping[str, Method] = ("gradcam",),
    protocol: Protocol | str | Path = "zhou2016",
    *,
    targets: Sequence[int | str] | int | str = (),
    top: int = 3,
    threshold: float | None = None,
    view: str = "squash",
    flip: bool = False,
    score: str | Callable[[Any], torch.Tensor] | None = None,
    device: str = "auto",
    seed: int = 0,
    chunk: int = 32,
    show_progress: bool = False,
) -> Explanation:
    """Find out what a classifier sees in an image, and where.

    Parameters
    ----------
    image : uint8 array (H, W, 3), or path
        A file is turned upright as its EXIF orientation says.
    model : Classifier or nn.Module
        A plain module is shown images of 224 × 224 with ImageNet's mean and standard deviation. It stays on the device
        when this returns; its mode is as before.
    methods : sequence of names, or dict of name to Method
    protocol, threshold : Protocol, str or path; and float, optional
        Make boxes of heatmaps, each that of the largest region: without ground truth no other can be chosen. τ lies in
        [0, 1); by default it is the protocol's own, or 0.2 where it fixes none.
    targets, top : sequence of int or str, or one, and int
        Classes to explain, by index, name or id; by default so many of the most likely ones.
    view, flip, device, seed, chunk, show_progress
        As in `wsol.evaluate` and `wsol.Options`. A `UserError` says what doesn't fit.
    score : str or callable, optional
        As in `wsol.HeatmapExtractor`: a function makes scores of what any network answers, and these are explained.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> from wsol.models import shapes_classifier
    >>> explanation = explain(Shapes()[0].read_image(), shapes_classifier(), ["cam"], top=2)
    >>> [answer.rank for answer in explanation.answers], explanation.boxes["cam"].shape
    ([1, 2], (2, 4))
    """
    image = read_upright(Path(image)) if isinstance(image, str | Path) else image
    if getattr(image, "dtype", None) != np.uint8 or image.shape[2:] != (3,):
        raise UserError(f"image is {getattr(image, 'dtype', type(image))} {np.shape(image)}: pass uint8 (H, W, 3)")
    if not isinstance(model, Classifier):
        model = Classifier(name=type(model).__name__.lower(), module=model, layer="")
    rules, way = _with_threshold(load_protocol(protocol).for_dataset(), threshold), View(view, model.input_size, flip)
    pixels, rectangle = way.apply(image, model.interpolation)
    batch = model.prepare(pixels, choose_device(device))  # (V, 3, h, w)
    answers = _answers(model, batch, score, [targets] if isinstance(targets, int | str) else targets, top)
    with progress("heatmaps", 1, show_progress) as advance:
        say, classes = partial(advance, 0), [answer.logit for answer in answers]
        asked = torch.tensor([classes] * len(batch), device=batch.device)
        with HeatmapExtractor(model, methods, score=score, seed=seed, chunk=chunk, say=say) as extractor:
            maps = extractor(batch, asked, ["0"] * len(batch)).maps
    for name, method in extractor.methods.items():
        heatmaps = _as_stored(maps[name], method.baseline, way, image, rectangle)
        for answer, heatmap in zip(answers, heatmaps, strict=True):
            answer.regions[name] = _region(heatmap, rules)
    return Explanation(image, answers, rules, extractor.layers)


def _answers(
    model: Classifier, batch: torch.Tensor, score: object, targets: Sequence[int | str], top: int
) -> list[Answer]:
    """The classes asked for, or the most likely ones, by the mean logits of a view's pictures (V, 3, h, w)."""
    with frozen(model.module.to(batch.device)), torch.no_grad():
        answer = model.module(batch)
    values = scores_of(score, answer) if callable(score) else logits_of(answer, f"model {model.name}")
    values = values.float().mean(0).cpu()  # (C,)
    order, shares = values.argsort(descending=True, stable=True).tolist(), values.softmax(0).tolist()
    same = model.classes is not None and len(model.classes) == len(order)
    names = model.classes if same and model.classes else None
    ids = model.class_ids if same else None
    called = names or [f"{'score' if callable(score) else 'class'} {logit}" for logit in range(len(order))]
    logits = [find_logit(str(target), names, ids, len(order), "target") for target in targets] or order[:top]
    likely = [None] * len(order) if callable(score) else shares
    return [Answer(c, called[c], likely[c], order.index(c) + 1, value=float(values[c])) for c in logits]


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
