"""VGG-16 and AlexNet with global average pooling instead of fully connected layers, as in Zhou et al."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.models.build import build_classifier
from wsol.models.classifier import Classifier
from wsol.models.torchvision_models import load_weights, preprocessing, weights_named

__all__ = ["GlobalAveragePoolingNet", "alexnet_gap", "vgg16_gap"]


class GlobalAveragePoolingNet(nn.Module):
    """Convolutions, their mean over space, one linear layer: so that CAM is exact.

    Parameters
    ----------
    features : nn.Sequential
        Images (B, 3, H, W) → maps (B, channels, h, w), the last layer a ReLU.
    channels : int
        Number of those maps.
    num_classes : int
    dropout : float
        On the pooled features, in training only.

    Examples
    --------
    >>> net = GlobalAveragePoolingNet(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), 8, num_classes=5)
    >>> net(torch.zeros(2, 3, 16, 16)).shape
    torch.Size([2, 5])
    """

    def __init__(self, features: nn.Sequential, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes) of normalized images (B, 3, H, W)."""
        maps = self.features(images)  # (B, channels, h, w)
        pooled = self.flatten(self.pool(maps))  # (B, channels)
        return self.classifier(self.dropout(pooled))  # (B, C)


def vgg16_gap(
    num_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    channels: int = 1024,
    groups: int = 1,
    dropout: float = 0.0,
    layer: str | None = None,
    seed: int = 0,
    classes: str | Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """Build VGG-16 up to conv5_3, then a 3 x 3 convolution, global average pooling and one linear layer.

    An image of 224 x 224 gives a map of 14 x 14. The paper's text says 1,024 units; the authors' released
    network splits that convolution into two groups and drops half of the pooled features in training:
    `groups=2 dropout=0.5`.

    Parameters
    ----------
    num_classes : int, optional
        By default the checkpoint's number, else 1,000.
    checkpoint : path, optional
        Weights of this very network; without it they are random.
    backbone : str, optional
        Torchvision's name of VGG-16 weights ("IMAGENET1K_V1", "IMAGENET1K_FEATURES") to start training from;
        the input is then normalized as they want it.
    channels, groups : int
        Of the added convolution.
    dropout : float
        On the pooled features, in training.
    layer : str, optional
        Dotted name of the target layer; by default `features`, the ReLU behind the added convolution.
    seed : int
        For random weights.
    classes, input_size, mean, std : optional
        As in `torchvision_classifier`.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If a checkpoint does not fit, the backbone's weights can't be had, or both are asked for.

    References
    ----------
    Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features for Discriminative Localization, CVPR
    2016 ("VGGnet-GAP").

    Examples
    --------
    >>> classifier = vgg16_gap(num_classes=20)
    >>> classifier.layer, classifier.module.features[-2]
    ('features', Conv2d(512, 1024, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)))
    """

    def make(count: int) -> nn.Module:
        trunk = _trunk("vgg16", backbone)
        trunk.extend(_convolution(512, channels, groups))
        return GlobalAveragePoolingNet(trunk, channels, count, dropout)

    return _gap_classifier(
        "vgg16_gap", "vgg16", make, num_classes, checkpoint, backbone, layer, seed, classes,
        {"input_size": input_size, "mean": mean, "std": std},
    )  # fmt: skip


def alexnet_gap(
    num_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    extended: bool = False,
    channels: int | None = None,
    groups: int = 1,
    dropout: float = 0.0,
    layer: str | None = None,
    seed: int = 0,
    classes: str | Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """Build AlexNet up to conv5, then convolutions, global average pooling and one linear layer.

    Plain, one 3 x 3 convolution with 1,024 units follows, and an image of 224 x 224 gives a map of 13 x 13.
    Extended it is the paper's AlexNet*-GAP as the authors released it: a max-pool with stride 1 and two 3 x 3
    convolutions with 512 units, map 11 x 11 (released with `groups=2 dropout=0.5`). The five convolutions are
    torchvision's, whose numbers of channels (64, 192, 384, 256, 256) differ from the paper's AlexNet.

    Parameters
    ----------
    extended : bool
        Two convolutions instead of one.
    channels : int, optional
        Units of the added convolutions: 1,024, or 512 when extended.
    num_classes, checkpoint, backbone, groups, dropout, layer, seed, classes, input_size, mean, std
        As in `vgg16_gap`.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If a checkpoint does not fit, the backbone's weights can't be had, or both are asked for.

    References
    ----------
    Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016 ("AlexNet-GAP",
    "AlexNet*-GAP").

    Examples
    --------
    >>> classifier = alexnet_gap(num_classes=20)
    >>> classifier.module.features(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1024, 13, 13])
    """
    units = channels or (512 if extended else 1024)

    def make(count: int) -> nn.Module:
        trunk = _trunk("alexnet", backbone)
        if extended:
            trunk.append(nn.MaxPool2d(kernel_size=3, stride=1))
            trunk.extend(_convolution(256, units, groups))
        trunk.extend(_convolution(units if extended else 256, units, groups))
        return GlobalAveragePoolingNet(trunk, units, count, dropout)

    name = "alexnet_gap_extended" if extended else "alexnet_gap"
    return _gap_classifier(
        name, "alexnet", make, num_classes, checkpoint, backbone, layer, seed, classes,
        {"input_size": input_size, "mean": mean, "std": std},
    )  # fmt: skip


def _gap_classifier(
    name: str,
    family: str,
    make: Callable[[int], nn.Module],
    num_classes: int | None,
    checkpoint: str | os.PathLike[str] | None,
    backbone: str | None,
    layer: str | None,
    seed: int,
    classes: str | Sequence[str] | None,
    asked: dict[str, Any],
) -> Classifier:
    if backbone is not None and checkpoint is not None:
        raise UserError(f"{name}: backbone={backbone} and checkpoint={checkpoint} exclude each other: pass one")
    classifier = build_classifier(
        name,
        make,
        num_classes=num_classes,
        default_classes=1000,
        checkpoint=checkpoint,
        classes=classes,
        seed=seed,
        layer=layer or "features",
        shown=preprocessing(weights_named(family, backbone)) if backbone else {},
        asked=asked,
    )
    if backbone is not None:
        classifier.weights = f"{family} {weights_named(family, backbone).name}, the rest random (seed {seed})"
    return classifier


def _trunk(family: str, backbone: str | None) -> nn.Sequential:
    """Take the convolutions up to the ReLU before the last pool: the rest is what Zhou et al. leave out."""
    if backbone is not None:
        ready = load_weights(family, weights_named(family, backbone)).get_submodule("features")
        return nn.Sequential(*list(ready.children())[:-1])
    if family == "vgg16":
        # The constructor of the whole network would draw 120 million numbers for layers that are dropped.
        return models.vgg.make_layers(models.vgg.cfgs["D"])[:-1]
    return models.alexnet(num_classes=1).features[:-1]


def _convolution(inputs: int, units: int, groups: int) -> list[nn.Module]:
    if groups < 1 or inputs % groups or units % groups:
        raise UserError(f"groups={groups} does not divide the convolution's {inputs} inputs and {units} outputs")
    convolution = nn.Conv2d(inputs, units, kernel_size=3, padding=1, groups=groups)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(convolution.get_parameter("bias"))
    return [convolution, nn.ReLU(inplace=True)]
