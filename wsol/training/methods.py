"""What training methods do to localize better: to the batch, to the network, to the loss.

Whatever is drawn comes from (seed, stage, epoch, step): `random` in `change_batch`, torch's own generator elsewhere.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from wsol.models import Classifier, logits_of
from wsol.models.reference import adapt, min_max
from wsol.settings import settings

Share = Annotated[float, Field(ge=0, le=1)]
Loss = tuple[torch.Tensor, torch.Tensor]  # logits (B, C), and what is minimized
IGNORED, FEWEST, GUIDE_SIZE = 255, 30, (224, 224)  # SPG: label of undecided pixels, least object, where it compares


@settings
class TrainingMethod:
    """Cross entropy on the images as they are: what a method of one's own changes, in one or more of three hooks.

    Examples
    --------
    A method that hides the brightest pixels, in a file of yours; `conf/training_method/shade.yaml` in the folder of
    `--config-dir` says `_target_: shade.Shade`, and `wsol train training_method=shade` takes it:

    >>> @settings
    ... class Shade(TrainingMethod):
    ...     share: float = 0.1
    ...     def change_batch(self, images, labels, random):
    ...         brightness = images.mean(1, keepdim=True)  # (B, 1, h, w)
    ...         cut = brightness.flatten(1).quantile(1 - self.share, 1)
    ...         return images * (brightness <= cut[:, None, None, None]), labels
    """

    def change_batch(self, images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator) -> tuple[Any, Any]:
        """Normalized images (B, 3, h, w) and what `loss` gets as targets; by default as they are."""
        return images, labels

    def change_network(self, classifier: Classifier) -> None:
        """Put into `classifier.module` what the method needs, before training begins."""

    def loss(self, network: nn.Module, images: torch.Tensor, targets: Any, criterion: nn.Module) -> Loss:
        """Logits (B, C) and the loss that is minimized; `criterion` is the recipe's cross entropy."""
        logits = logits_of(network(images))
        return logits, criterion(logits, targets)


@settings
class HaS(TrainingMethod):
    """Hide-and-Seek: each cell of a grid is hidden with probability `drop_rate`, image by image.

    Hidden is 0 after normalization, the mean color. Cells are `grid_size` pixels wide, the last ones cut short.
    Singh and Lee, "Hide-and-Seek: Forcing a Network to be Meticulous for Weakly-supervised Object and Action
    Localization", ICCV 2017, section 3.1.
    """

    grid_size: Annotated[int, Field(ge=0)] = 4  # pixels; 0: nothing is hidden
    drop_rate: Share = 0.5

    def change_batch(self, images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator) -> tuple[Any, Any]:
        """Hide cells."""
        if self.grid_size == 0:
            return images, labels
        height, width = images.shape[2:]
        rows, columns = (-(-side // self.grid_size) for side in (height, width))
        kept = torch.from_numpy(random.random((len(images), rows, columns)) > self.drop_rate)
        mask = kept.repeat_interleave(self.grid_size, 1).repeat_interleave(self.grid_size, 2)[:, :height, :width]
        return images * mask[:, None].to(images.device), labels


@settings
class CutMix(TrainingMethod):
    """CutMix: a box of another image is pasted; the loss mixes both labels by their share of the pixels.

    λ ~ Beta(β, β), once a batch; the box has √(1 − λ) of the sides and a random center, and λ is counted again from
    what is left of it inside the image.
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", ICCV 2019,
    eq. 1 and 2.
    """

    beta: Annotated[float, Field(gt=0)] = 1.0
    prob: Share = 1.0  # of a batch being mixed

    def change_batch(self, images: torch.Tensor, labels: torch.Tensor, random: np.random.Generator) -> tuple[Any, Any]:
        """Paste a box of a partner; targets are the labels, the partners' and the first ones' share."""
        if random.random() >= self.prob:
            return images, (labels, labels, 1.0)
        height, width = images.shape[2:]
        side = np.sqrt(1 - random.beta(self.beta, self.beta))
        partner = torch.from_numpy(random.permutation(len(images))).to(labels.device)
        top, bottom = _span(int(random.integers(height)), int(height * side), height)
        left, right = _span(int(random.integers(width)), int(width * side), width)
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = images[partner, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return mixed, (labels, labels[partner], share)

    def loss(self, network: nn.Module, images: torch.Tensor, targets: Any, criterion: nn.Module) -> Loss:
        """Weigh the cross entropies of both labels."""
        first, second, share = targets
        logits = logits_of(network(images))
        return logits, share * criterion(logits, first) + (1 - share) * criterion(logits, second)


def _span(center: int, side: int, end: int) -> tuple[int, int]:
    """Where a box of this side, halved to a whole number, begins and ends inside an image."""
    return max(center - side // 2, 0), min(center + side // 2, end)


@settings
class ADL(TrainingMethod):
    """Attention-based dropout layers inside the network, see `wsol.models.reference.ADL`; the loss is as ever.

    `layers` names those behind which they stand, each in an nn.Sequential; by default where Choe et al. put them.
    """

    drop_rate: Share = 0.75
    threshold: Share = 0.9
    layers: tuple[str, ...] = ()

    def change_network(self, classifier: Classifier) -> None:
        """Put them in."""
        layers = {"layers": self.layers} if self.layers else {}
        adapt(classifier, "adl", drop_rate=self.drop_rate, threshold=self.threshold, **layers)


@settings
class ACoL(TrainingMethod):
    """Two heads, the second behind what the first attends to, erased; both learn: see `wsol.models.reference.ACoL`."""

    threshold: Share = 0.7

    def change_network(self, classifier: Classifier) -> None:
        """Replace the head by two."""
        adapt(classifier, "acol", threshold=self.threshold)

    def loss(self, network: nn.Module, images: torch.Tensor, targets: Any, criterion: nn.Module) -> Loss:
        """Sum of both heads' cross entropies."""
        heads = network(images, targets)
        return heads["logits"], criterion(heads["logits"], targets) + criterion(heads["erased"], targets)


@settings
class SPG(TrainingMethod):
    """Self-produced guidance: maps of side branches learn from confident pixels of deeper ones.

    With the class's own map, and b1, b2 and c of `wsol.models.reference.SPG`, all enlarged to 224 × 224: b2 learns
    from the map between 0 and 1, b1 from sigmoid(b2), c from the mean of sigmoid(b1) and sigmoid(b2). Pixels above
    `high` are object (where fewer than 30 are, those above 0.7 of the maximum), those below `low` ground, the others
    are ignored. Zhang et al., "Self-produced Guidance for Weakly-supervised Object Localization", ECCV 2018, eq. 1, 2.
    """

    high: tuple[Share, Share, Share] = (0.7, 0.5, 0.7)  # for b2, b1 and c
    low: tuple[Share, Share, Share] = (0.01, 0.05, 0.1)

    def change_network(self, classifier: Classifier) -> None:
        """Add the branches."""
        adapt(classifier, "spg")

    def loss(self, network: nn.Module, images: torch.Tensor, targets: Any, criterion: nn.Module) -> Loss:
        """Cross entropy of the classes and of the three branches."""
        maps = network(images, targets)
        class_map, b2, b1 = (
            min_max(_enlarge(maps["class_map"].detach())),
            *(_enlarge(maps[b]).sigmoid() for b in ("b2", "b1")),
        )
        pairs = ("b2", class_map), ("b1", b2), ("c", (b2 + b1) / 2)
        loss = criterion(maps["logits"], targets)
        for (name, guide), high, low in zip(pairs, self.high, self.low, strict=True):
            loss = loss + guidance_loss(_enlarge(maps[name]), seeds(guide.detach(), high, low))
        return maps["logits"], loss


def _enlarge(maps: torch.Tensor) -> torch.Tensor:
    return functional.interpolate(maps[:, None].float(), GUIDE_SIZE, mode="bilinear")[:, 0]


def seeds(guide: torch.Tensor, high: float, low: float) -> torch.Tensor:
    """Label the pixels of guides (B, h, w) in [0, 1]: 1 object, 0 ground, 255 ignored."""
    confident = guide > high
    few = confident.sum((1, 2), keepdim=True) < FEWEST
    confident = torch.where(few, guide > 0.7 * guide.amax((1, 2), keepdim=True), confident)
    labels = torch.where(confident, 1, IGNORED)
    return torch.where(guide < low, 0, labels)


def guidance_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean binary cross entropy of logits (B, h, w) over the pixels of the batch that aren't ignored; 0 without any."""
    decided = labels != IGNORED
    losses = functional.binary_cross_entropy_with_logits(logits, labels.clamp(max=1).to(logits.dtype), reduction="none")
    return (losses * decided).sum() / decided.sum().clamp(min=1)
