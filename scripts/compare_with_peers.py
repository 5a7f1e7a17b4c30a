"""Our heatmaps beside those of the libraries `grad-cam` and `torchcam`: how far they are apart, and why.

`python scripts/compare_with_peers.py` writes `results/heatmaps_and_peers.md`. Raw maps at the layer's resolution, of
the same layer and targets, are brought to [0, 1] by their own minimum and maximum. Where they differ, the cause is put
to the proof: what the library does otherwise is done to our recording, or an option changed, and then they must agree.
"""

from __future__ import annotations

import argparse
import copy
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torchvision import models

from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, Recording, make_method
from wsol.heatmaps.gradient import logit, weighted
from wsol.heatmaps.method import METHODS
from wsol.heatmaps.tokens import attention_blocks
from wsol.models import default_layer, shapes_classifier

ALIKE = 1e-4  # maps in [0, 1] that are nowhere farther apart agree
FAINT = 1e-5  # maps whose maximum is lower are not compared
SEED = 7  # of the libraries' own noise


# --- networks ---


@dataclass(frozen=True, eq=False)
class Case:
    """A network, where it is looked at, and what it is shown."""

    name: str
    model: nn.Module
    layer: str
    images: torch.Tensor  # (B, 3, H, W)
    targets: torch.Tensor  # (B,)


def shapes_case() -> Case:
    """Our small network with its shipped weights; two of the pictures that it was made for."""
    classifier, pictures = shapes_classifier(), Shapes("test", length=2)
    pixels = torch.stack([torch.from_numpy(pictures[i].read_image()) for i in range(2)])
    labels = torch.tensor([pictures[i].label for i in range(2)])
    return Case("Shapes", classifier.module.eval(), classifier.layer, classifier.prepare(pixels), labels)


def random_case(title: str, name: str, side: int, settled: bool = True) -> Case:
    """One of torchvision's networks with random weights, two images of noise, the best and the second best class.

    Settled: batch normalizations know the statistics of such images, as after training; otherwise maps fade or grow
    from layer to layer.
    """
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=20).eval()
    if isinstance(model, models.VisionTransformer):
        nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision's head starts at zero
    norms = [module for module in model.modules() if settled and isinstance(module, nn.BatchNorm2d)]
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        for norm in norms:
            norm.train().momentum = None
        model(torch.randn(8, 3, side, side))
        for norm in norms:
            norm.eval()
        order = model(images).argsort(1, descending=True)
    return Case(title, model, default_layer(model), images, torch.stack([order[0, 0], order[1, 1]]))


def cases() -> Iterator[Case]:
    yield shapes_case()
    yield random_case("ResNet-18", "resnet18", 128)
    yield random_case("VGG-16", "vgg16", 128)
    yield random_case("DenseNet-121", "densenet121", 128)
    yield random_case("MobileNet-V3-large", "mobilenet_v3_large", 128)
    yield random_case("ViT-B/16", "vit_b_16", 224)


SMALL = ("Shapes", "ResNet-18", "MobileNet-V3-large")  # where methods of several passes are run
SMALLEST = ("Shapes", "MobileNet-V3-large")


class RectifiedDenseNet(nn.Module):
    """A DenseNet whose last ReLU is a module and leaves its input as it is."""

    def __init__(self, model: models.DenseNet) -> None:
        super().__init__()
        self.features, self.relu, self.classifier = model.features, nn.ReLU(), model.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.relu(self.features(images)).mean((2, 3)))
        return logits


def rectified(case: Case) -> Case | None:
    """Give the same network with a ReLU that can be looked at; None where there is none to be had."""
    if not isinstance(case.model, models.DenseNet):
        return None
    return replace(case, model=RectifiedDenseNet(case.model).eval(), layer="relu")


# --- maps ---

Maps = Callable[[Case], torch.Tensor]  # (B, h, w)


def ours(name: str | Callable[..., torch.Tensor], **options: Any) -> Maps:
    """Maps of one of our methods, or of a function of our recording."""
    method = make_method(name, **options)

    def run(case: Case) -> torch.Tensor:
        with HeatmapExtractor(case.model, {"it": method}, case.layer) as extractor:
            return extractor(case.images, case.targets).maps["it"]

    return run


def token_grid(case: Case) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What both libraries call a reshape transform: tokens (B, 1 + h*w, K) → (B, K, h, w)."""
    if not isinstance(case.model, models.VisionTransformer):
        return None
    rows = case.images.shape[2] // case.model.patch_size
    return lambda tokens: tokens[:, 1:].unflatten(1, (rows, -1)).permute(0, 3, 1, 2)


def of_grad_cam(name: str, score: Callable[[int], Callable[[torch.Tensor], torch.Tensor]] | None = None) -> Maps:
    """Maps of grad-cam, caught before they are clipped at 0, enlarged and normalized."""

    def run(case: Case) -> torch.Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        caught = []
        layer, make = case.model.get_submodule(case.layer), score or ClassifierOutputTarget
        with getattr(pytorch_grad_cam, name)(case.model, [layer], reshape_transform=token_grid(case)) as cam:
            base = getattr(cam, "base_cam", cam)
            get = base.get_cam_image
            base.get_cam_image = lambda *given: caught.append(get(*given)) or caught[-1]
            if name == "FinerCAM":  # it finds its targets by itself, one class for all images
                for image, target in zip(case.images, case.targets, strict=True):
                    cam(image[None], target_idx=int(target))
            else:
                cam(case.images, [make(int(target)) for target in case.targets])
        case.model.zero_grad()
        return torch.from_numpy(np.concatenate(caught)).float()

    return run


def fullgrad_of_grad_cam(gain: float) -> Maps:
    """FullGrad of grad-cam, of the score times a number; it is never at a layer's resolution."""

    def run(case: Case) -> torch.Tensor:
        from pytorch_grad_cam import FullGrad

        targets = [lambda logits, c=int(target): gain * logits[c] for target in case.targets]
        with FullGrad(case.model, []) as cam:
            found = cam(case.images.clone(), targets)
        case.model.zero_grad()
        return torch.from_numpy(found).float()

    return run


def guided_of_grad_cam(case: Case) -> torch.Tensor:
    """Guided backpropagation of grad-cam, one image at a time; it exchanges the network's ReLUs, hence the copy."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    found = []
    for image, target in zip(case.images, case.targets, strict=True):
        guided = GuidedBackpropReLUModel(copy.deepcopy(case.model), "cpu")
        found.append(np.abs(guided(image[None].clone(), int(target))).max(2))
    return torch.from_numpy(np.stack(found))


def of_torchcam(name: str, **options: Any) -> Maps:
    """Raw maps of torchcam."""

    def run(case: Case) -> torch.Tensor:
        from torchcam import methods

        torch.manual_seed(SEED)
        own = dict(options) if name == "LeGrad" else dict(options, reshape_transform=token_grid(case))
        layer: str | list[str] = list(attention_blocks(case.model)) if name == "LeGrad" else case.layer
        targets = case.targets.tolist()
        with getattr(methods, name)(case.model, layer, **own) as cam:
            logits = case.model(case.images)
            (found,) = cam(targets, logits, normalized=False)
        case.model.zero_grad()
        return found.detach().float()

    return run


# --- what the libraries do otherwise, done to our recording ---


def plusplus_with_epsilon(recording: Recording) -> torch.Tensor:
    A, G = recording.activations, recording.gradients
    alpha = G**2 / (2 * G**2 + A.sum((2, 3), keepdim=True) * G**3 + 1e-6)
    return weighted((alpha * G.relu()).sum((2, 3)), A)


def plusplus_without_ratio(recording: Recording) -> torch.Tensor:
    A, G = recording.activations, recording.gradients
    return weighted((G**2 * G.relu()).sum((2, 3)), A)


def fem_by_share(recording: Recording) -> torch.Tensor:
    A = recording.activations
    rare = A > A.mean((2, 3), keepdim=True) + 2 * A.std((2, 3), correction=0, keepdim=True)
    return (rare.float().mean((2, 3), keepdim=True) * A).sum(1).relu()


def finer_by_probability(recording: Recording) -> torch.Tensor:
    def difference(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        own = logit(logits, targets)[:, None]
        nearest = (logits - own).detach().abs().argsort(1)[:, 1:4]
        weights = logits.softmax(1).gather(1, nearest)
        return (weights * (own - logits.gather(1, nearest))).sum(1) / weights.sum(1)

    return weighted(recording.gradients_of(difference).mean((2, 3)), recording.activations)


def ablation_far_below(recording: Recording) -> torch.Tensor:
    """Channels set to 1e7 below the lowest activation, the n-th of a batch of 32 to n times that."""
    A, behind = recording.activations, recording.replay()
    full, without = recording.scores_of(recording.logits), torch.empty(A.shape[:2])
    for image in range(len(A)):
        for channels in torch.arange(A.shape[1]).split(32):
            changed = A[image].repeat(len(channels), 1, 1, 1)
            for n, channel in enumerate(channels.tolist()):
                changed[n, channel] = A.min() - 1e7 * (n + 1)
            without[image, channels] = recording.scores_of(behind(changed, image), image)
    return weighted((full[:, None] - without) / full[:, None], A)


def bright(maps: torch.Tensor) -> torch.Tensor:
    """Bring channels (K, 1, h, w) to [0, 1], each by its own minimum and maximum."""
    maps = maps - maps.amin((2, 3), keepdim=True)
    return maps / (maps.amax((2, 3), keepdim=True) + 1e-8)


def enlarged(maps: torch.Tensor, like: torch.Tensor, corners: bool = False) -> torch.Tensor:
    return functional.interpolate(maps, like.shape[2:], mode="bilinear", align_corners=corners)


def by_score(recording: Recording, versions: Iterable[Callable[[torch.Tensor, int], torch.Tensor]]) -> torch.Tensor:
    """Score-CAM with masks (K, 1, H, W) that each version makes of an image's channels (K, 1, h, w) and number."""
    A, images, total = recording.activations, recording.images, torch.zeros(recording.activations.shape[:2])
    for make in versions:
        for i in range(len(images)):
            parts = make(A[i][:, None], i).split(32)
            total[i] += torch.cat([recording.scores_of(recording.run(images[i] * part), i) for part in parts])
    count = len(list(versions))
    return weighted((total / count).softmax(1), A)


def score_corner_to_corner(recording: Recording) -> torch.Tensor:
    return by_score(recording, [lambda a, _: bright(enlarged(a, recording.images, corners=True))])


def score_bright_first(recording: Recording) -> torch.Tensor:
    return by_score(recording, [lambda a, _: enlarged(bright(a), recording.images)])


def integrated_bright_first(recording: Recording, steps: int) -> torch.Tensor:
    factors = np.cumsum(np.arange(1, steps + 1) / steps).tolist()
    return by_score(recording, [lambda a, _, t=t: t * enlarged(bright(a), recording.images) for t in factors])


def noisy_bright_first(recording: Recording, samples: int, std: float) -> torch.Tensor:
    """Noise of its own for each channel, drawn as torchcam draws it."""
    torch.manual_seed(SEED)
    shape = (*recording.activations.shape[:2], *recording.images.shape[2:])
    draws = [std * torch.randn(shape) for _ in range(samples)]  # each (B, K, H, W)
    return by_score(
        recording, [lambda a, i, n=draw: enlarged(bright(a), recording.images) + n[i][:, None] for draw in draws]
    )


def smooth_last_sample(recording: Recording, samples: int, std: float) -> torch.Tensor:
    """A and ReLU(G) of the last noisy image alone, ε of 1e-8, and Σ A G³ in the place of S Σ G³."""
    torch.manual_seed(SEED)
    numbers = torch.arange(len(recording.images))
    second = third = torch.zeros(())
    for _ in range(samples):
        last = recording.again(recording.images + std * torch.randn(recording.images.shape), numbers)
        second, third = second + last.gradients**2 / samples, third + last.gradients**3 / samples
    below = 2 * second + (third * recording.activations).sum((2, 3), keepdim=True) + 1e-8
    return weighted((second / below * last.gradients.relu()).sum((2, 3)), last.activations)


# --- the comparison ---


def unit(heatmap: torch.Tensor) -> torch.Tensor:
    low, high = heatmap.min(), heatmap.max()
    return (heatmap - low) / (high - low) if high > low else torch.zeros_like(heatmap)


def apart(one: torch.Tensor, other: torch.Tensor, faint: float = FAINT) -> float | None:
    """Largest difference between maps (B, h, w), each brought to [0, 1]; None where ours are too faint to compare."""
    pairs = [(a, b) for a, b in zip(one.double(), other.double(), strict=True) if float(a.max()) > faint]
    return max((float((unit(a) - unit(b)).abs().max()) for a, b in pairs), default=None)


def clipped(one: torch.Tensor, other: torch.Tensor) -> float | None:
    """Compare with maps whose negative part was cut off, as grad-cam always does."""
    return apart(one, other.relu())


def turned(one: torch.Tensor, other: torch.Tensor) -> float | None:
    """Compare with whole maps that are turned the way ours are."""
    along = ((one - one.mean((1, 2), keepdim=True)) * other).sum((1, 2), keepdim=True)
    return apart(one, torch.where(along < 0, -other, other))


Compare = Callable[[torch.Tensor, torch.Tensor], float | None]


@dataclass(frozen=True)
class Cause:
    """Why maps differ, and what to compare to prove it: our side, theirs, or the way they are compared, changed."""

    text: str
    ours: Maps | None = None
    theirs: Maps | None = None
    compare: Compare | None = None


@dataclass(frozen=True)
class Row:
    """One method of ours and the library's; where it runs (everywhere, if empty) and why maps may differ."""

    method: str
    label: str
    theirs: Maps
    causes: tuple[Cause, ...] = ()
    where: tuple[str, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    compare: Compare = apart

    @property
    def ours(self) -> Maps:
        return ours(self.method, **dict(self.options))


IN_PLACE = Cause(
    "A DenseNet ends in a ReLU that works in place. grad-cam takes A behind that ReLU, as it shares the memory, but G "
    "before it; both libraries agree with us when that ReLU is a module of its own."
)


@dataclass(frozen=True)
class Verdict:
    """What a comparison came to: a difference as it is, and what is left of it without its causes."""

    difference: float | None = None
    causes: tuple[Cause, ...] = ()
    left: float | None = None
    refusal: str = ""

    @property
    def agrees(self) -> bool:
        return self.difference is not None and self.difference < ALIKE

    @property
    def explained(self) -> bool:
        return self.agrees or (self.left is not None and self.left < ALIKE)


def judge(row: Row, case: Case) -> Verdict:
    """Compare, and where maps differ look for the cause that is the whole of it."""
    if row.where and case.name not in row.where:
        return Verdict(refusal="not run")
    try:
        mine = row.ours(case)
    except UserError:
        return Verdict(refusal="not defined")
    try:
        difference = row.compare(mine, row.theirs(case))
    except Exception as error:  # whatever it is, the library can't do this
        return Verdict(refusal=f"it fails: {type(error).__name__}")
    if difference is None or difference < ALIKE:
        return Verdict(difference)
    attempts = [(cause, case, (cause,)) for cause in row.causes]
    if (beside := rectified(case)) is not None:
        attempts += [(cause, beside, (cause, IN_PLACE)) for cause in row.causes]
        attempts.append((Cause(""), beside, (IN_PLACE,)))
    found = []
    for cause, shown, names in attempts:
        one = (cause.ours or row.ours)(case)
        left = (cause.compare or row.compare)(one, (cause.theirs or row.theirs)(shown))
        found.append((left if left is not None else float("inf"), len(names), names))
    good = [attempt for attempt in found if attempt[0] < ALIKE]
    left, _, names = min(good, key=lambda attempt: attempt[1]) if good else min(found, default=(None, 0, ()))
    return Verdict(difference, names, left)


SIGN = "The sign of a singular vector is arbitrary: grad-cam takes what LAPACK returns and then clips at 0, so that a "
TURNED = SIGN + "map may be cut to its wrong half; ours is turned to go with {}, and not clipped."


def grad_cam_rows() -> list[Row]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST

    eigen = Cause(
        f"{TURNED.format('the mean of the channels')} grad-cam also takes each channel's mean off first (our "
        "`center=True`), the paper doesn't.",
        ours=ours("eigencam", center=True),
        compare=turned,
    )
    finer = Cause(
        "grad-cam compares with three classes weighted by their probabilities, at full strength, and differentiates "
        "the weights too; the paper's equation has the plain mean of the logits times γ, by default 0.6.",
        ours=ours(finer_by_probability),
    )
    shapley = Cause(
        "grad-cam differentiates the logit unless it is given `ClassifierOutputReST`, the paper's score, our default.",
        theirs=of_grad_cam("ShapleyCAM", ClassifierOutputReST),
    )
    far = Cause(
        "Where activations are negative somewhere, grad-cam sets an ablated channel not to 0 but to 1e7 below the "
        "lowest, and to n times that for the n-th channel of a batch.",
        ours=ours(ablation_far_below),
    )
    negative = Cause("where the score itself is negative it turns the map around", ours=None)
    assert negative
    by = partial(Row, compare=clipped)
    return [
        by("gradcam", "GradCAM", of_grad_cam("GradCAM")),
        by("gradcampp", "GradCAMPlusPlus", of_grad_cam("GradCAMPlusPlus"), (Cause(
            "grad-cam adds ε = 1e-6 to the denominator of α, which is no small number beside squared gradients; ours "
            "cancels G² and needs no ε.", ours=ours(plusplus_with_epsilon)),)),
        by("gradcamelementwise", "GradCAMElementWise", of_grad_cam("GradCAMElementWise")),
        by("xgradcam", "XGradCAM", of_grad_cam("XGradCAM")),
        by("hirescam", "HiResCAM", of_grad_cam("HiResCAM")),
        by("layercam", "LayerCAM", of_grad_cam("LayerCAM")),
        by("eigencam", "EigenCAM", of_grad_cam("EigenCAM"), (eigen,)),
        by("eigengradcam", "EigenGradCAM", of_grad_cam("EigenGradCAM"), (
            Cause(TURNED.format("HiResCAM"), compare=turned),)),
        by("kpcacam", "KPCA_CAM", of_grad_cam("KPCA_CAM"), (
            Cause(TURNED.format("the mean of the channels"), compare=turned),)),
        by("finercam", "FinerCAM", of_grad_cam("FinerCAM"), (finer,)),
        by("fem", "FEM", of_grad_cam("FEM"), (Cause(
            "grad-cam weighs each channel's activations by the share of places above the threshold; the paper sums "
            "binary maps weighted by the channel's mean.", ours=ours(fem_by_share)),)),
        by("shapleycam", "ShapleyCAM", of_grad_cam("ShapleyCAM"), (shapley,)),
        by("scorecam", "ScoreCAM", of_grad_cam("ScoreCAM"), (Cause(
            "grad-cam enlarges masks corner to corner (`align_corners=True`); ours by half-pixel centers.",
            ours=ours(score_corner_to_corner)),), SMALL),
        by("ablationcam", "AblationCAM", of_grad_cam("AblationCAM"), (far,), SMALL),
        by("fullgrad", "FullGrad", fullgrad_of_grad_cam(1), (Cause(
            "grad-cam adds 1e-7 to the maximum that each channel's gradient is divided by; they agree when its score "
            "is taken a million times.", theirs=fullgrad_of_grad_cam(1e6)),)),
        by("guidedbackprop", "GuidedBackpropReLUModel", guided_of_grad_cam),
    ]  # fmt: skip


def torchcam_rows() -> list[Row]:
    few = (("samples", 3),)
    return [
        Row("cam", "CAM", of_torchcam("CAM")),
        Row("gradcam", "GradCAM", of_torchcam("GradCAM")),
        Row("gradcampp", "GradCAMpp", of_torchcam("GradCAMpp"), (Cause(
            "torchcam divides a copy: α stays G², the ratio is lost.", ours=ours(plusplus_without_ratio)),)),
        Row("xgradcam", "XGradCAM", of_torchcam("XGradCAM")),
        Row("layercam", "LayerCAM", of_torchcam("LayerCAM")),
        Row("finercam", "FinerCAM", of_torchcam("FinerCAM")),
        Row("scorecam", "ScoreCAM", of_torchcam("ScoreCAM"), (Cause(
            "torchcam brings a channel to [0, 1] before it is enlarged; the paper and ours afterwards, so that every "
            "mask reaches 0 and 1.", ours=ours(score_bright_first)),), SMALL),
        Row("sscam", "SSCAM", of_torchcam("SSCAM", num_samples=3), (Cause(
            "torchcam draws noise of its own for every channel (ours: the same for all), and masks are as in its "
            "Score-CAM.", ours=ours(noisy_bright_first, samples=3, std=2.0)),), SMALLEST, few),
        Row("iscam", "ISCAM", of_torchcam("ISCAM", num_samples=3), (Cause(
            "torchcam's factors pile up, 1/N, 3/N, 6/N, … (our `cumulative=True`), and masks are as in its Score-CAM.",
            ours=ours(integrated_bright_first, steps=3)),), SMALLEST, (("steps", 3),)),
        Row("smoothgradcampp", "SmoothGradCAMpp", of_torchcam("SmoothGradCAMpp", num_samples=3), (Cause(
            "torchcam takes A and ReLU(G) of the last noisy image alone, Σ A G³ for S Σ G³, ε = 1e-8 and noise of 0.3 "
            "whatever the image's range.", ours=ours(smooth_last_sample, samples=3, std=0.3)),), (), few),
        Row("legrad", "LeGrad", of_torchcam("LeGrad")),
    ]  # fmt: skip


# --- the page ---


def short(number: float) -> str:
    if number >= 0.01:
        return f"{number:.2f}"
    digits, exponent = f"{number:.0e}".split("e")
    return f"{digits}e{int(exponent)}" if number else "0"


def cell(verdict: Verdict, letters: dict[str, str]) -> str:
    """Write a verdict down; causes get letters in the order in which they come up."""
    if verdict.refusal:
        return "–" if verdict.refusal == "not defined" else verdict.refusal
    if verdict.difference is None:
        return "too faint"
    if verdict.agrees:
        return f"agrees, {short(verdict.difference)}"
    if not verdict.explained:
        return f"**{short(verdict.difference)}**, unexplained"
    marks = ", ".join(letters.setdefault(cause.text, "abcdefghijklmnopqrstuvwxyz"[len(letters)]) for cause in verdict.causes)
    return f"**{short(verdict.difference)}** ({marks}), then {short(verdict.left or 0)}"


def table(rows: Sequence[Row], shown: Sequence[Case], letters: dict[str, str]) -> list[str]:
    lines = [f"| ours | theirs | {' | '.join(case.name for case in shown)} |", "| --- | --- |" + " --- |" * len(shown)]
    for row in rows:
        cells = [cell(judge(row, case), letters) for case in shown]
        given = ", ".join(f"{name}={value}" for name, value in row.options)
        lines.append(f"| {row.method}{f' ({given})' if given else ''} | `{row.label}` | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def faint_maps() -> list[str]:
    """A network as torchvision leaves it: what becomes of maps far below one."""
    case = random_case("", "mobilenet_v3_large", 128, settled=False)
    lines = ["| method | maximum of ours | grad-cam | torchcam |", "| --- | ---: | ---: | ---: |"]
    for method, first, second in (("gradcam", "GradCAM", "GradCAM"), ("xgradcam", "XGradCAM", "XGradCAM"),
                                  ("gradcampp", "GradCAMPlusPlus", "GradCAMpp")):  # fmt: skip
        mine = ours(method)(case)
        peers = (of_grad_cam(first)(case).relu(), of_torchcam(second)(case))
        cells = [short(apart(mine, theirs, 0) or 0) for theirs in peers]
        lines.append(f"| {method} | {short(float(mine.max()))} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "heatmaps_and_peers.md")
    asked = parser.parse_args()
    shown = list(cases())
    lines = []
    for title, rows in (("grad-cam", grad_cam_rows()), ("torchcam", torchcam_rows())):
        letters: dict[str, str] = {}
        lines += [f"## Beside {title} {version(title)}", "", *table(rows, shown, letters), ""]
        lines += [f"- **{letter}**: {text}" for text, letter in letters.items()]
        none = [name for name in METHODS if name not in {row.method for row in rows}]
        lines += ["", f"{title} has no {', '.join(none)}.", ""]
    text = "\n".join(lines)
    print(text)
    asked.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
