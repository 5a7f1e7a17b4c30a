"""Our own networks: VGG-16, AlexNet and a small one with global average pooling, and ResNet-18 for 64 pixels.

The builders return a `Classifier` in evaluation mode, on the CPU. Of each, `num_classes` is by default the
checkpoint's number, `checkpoint` is a file of weights of this very network (without one they are random), and
`**settings` are `layer`, `seed`, `classes`, `input_size`, `mean`, `std` and `interpolation`, as in
`torchvision_classifier`. They raise `UserError` where a checkpoint does not fit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision import models

from wsol.models.classifier import Classifier
from wsol.models.zoo import build, load_weights, preprocessing, seeded, weights_named

SHIPPED = Path(__file__).with_name("weights") / "shapes.safetensors"
WIDTHS, STRIDES = (24, 40, 80, 80, 128, 128), (2, 2, 2, 1, 1, 1)  # of the network for Shapes


class GlobalAveragePoolingNet(nn.Module):
    """Convolutions, their mean over space, one linear layer: so that CAM is exact (Zhou et al., CVPR 2016).

    Parameters
    ----------
    features : nn.Sequential
        Images (B, 3, H, W) → maps (B, channels, h, w), the last layer a ReLU.
    channels, num_classes : int
        Number of those maps, and of logits.
    dropout : float
        On the pooled features, in training only.
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


class GapNet(GlobalAveragePoolingNet):
    """3 × 3 convolutions with batch normalization and ReLU, then global average pooling and one linear layer.

    Parameters
    ----------
    num_classes : int
    widths, strides : sequence of int
        Channels and stride of each convolution; the strides' product is the side of a map's cell in pixels.

    Examples
    --------
    >>> model = GapNet(10).eval()
    >>> images = torch.zeros(2, 3, 96, 96)
    >>> model.features(images).shape, model(images).shape
    (torch.Size([2, 128, 12, 12]), torch.Size([2, 10]))
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS, strides: Sequence[int] = STRIDES) -> None:
        layers: list[nn.Module] = []
        for inputs, width, stride in zip((3, *widths[:-1]), widths, strides, strict=True):
            layers.append(nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(nn.Sequential(*layers), widths[-1], num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def gapnet(
    num_classes: int, widths: Sequence[int] = WIDTHS, strides: Sequence[int] = STRIDES, seed: int | None = None
) -> GapNet:
    """Build a `GapNet`; with a seed its first weights repeat, and torch's own random state stays as it was.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in gapnet(10, seed=0).parameters())
    337554
    """
    with nullcontext() if seed is None else seeded(seed):
        return GapNet(num_classes, widths, strides)


def shapes_classifier(
    weights: str | os.PathLike[str] | None = "shipped", num_classes: int | None = None, **settings: Any
) -> Classifier:
    """Build the six-layer network with global average pooling, trained on the Shapes set's default knobs.

    Parameters
    ----------
    weights : "shipped", path or None
        The package's own weights, a file of yours, or random ones (None).
    num_classes : int, optional
        By default the file's number; 10 for random weights.

    Examples
    --------
    >>> shapes_classifier(weights=None).input_size
    (96, 96)
    """
    defaults = {"layer": "features", "input_size": (96, 96), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    settings |= {"checkpoint": SHIPPED if weights == "shipped" else weights, "num_classes": num_classes}
    classifier = build("shapes", GapNet, default_classes=10, defaults=defaults, **settings)
    if weights == "shipped":
        classifier.weights = "shipped"
    return classifier


def vgg16_gap(
    num_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    channels: int = 1024,
    groups: int = 1,
    dropout: float = 0.0,
    **settings: Any,
) -> Classifier:
    """Build VGG-16 up to conv5_3, then a 3 x 3 convolution, global average pooling and one linear layer.

    It is VGGnet-GAP of Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016. An image of
    224 x 224 gives a map of 14 x 14. The paper's text says 1,024 units; the authors' released network splits that
    convolution into two groups and drops half of the pooled features: `groups=2 dropout=0.5`.

    Parameters
    ----------
    backbone : str, optional
        Torchvision's name of VGG-16 weights ("IMAGENET1K_V1", "IMAGENET1K_FEATURES") to start training from;
        the input is then normalized as they want it.
    channels, groups : int
        Of the added convolution, whose ReLU is the default target layer, `features`.
    dropout : float
        On the pooled features, in training.

    Examples
    --------
    >>> classifier = vgg16_gap(num_classes=20)
    >>> classifier.layer, classifier.module.features[-2]
    ('features', Conv2d(512, 1024, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)))
    """
    settings |= {"num_classes": num_classes, "checkpoint": checkpoint}
    return _gap("vgg16", backbone, (512, channels), groups, dropout, **settings)


def alexnet_gap(
    num_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    extended: bool = False,
    channels: int | None = None,
    groups: int = 1,
    dropout: float = 0.0,
    **settings: Any,
) -> Classifier:
    """Build AlexNet up to conv5, then convolutions, global average pooling and one linear layer.

    Plain, one 3 x 3 convolution with 1,024 units follows, and an image of 224 x 224 gives a map of 13 x 13. Extended it
    is the paper's AlexNet*-GAP as the authors released it: a max-pool with stride 1 and two 3 x 3 convolutions with 512
    units, map 11 x 11 (released with `groups=2 dropout=0.5`). The five convolutions are torchvision's, whose numbers of
    channels (64, 192, 384, 256, 256) differ from the paper's AlexNet. Parameters and paper: see `vgg16_gap`.

    Examples
    --------
    >>> classifier = alexnet_gap(num_classes=20)
    >>> classifier.module.features(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1024, 13, 13])
    """
    settings |= {"num_classes": num_classes, "checkpoint": checkpoint}
    if not extended:
        return _gap("alexnet", backbone, (256, channels or 1024), groups, dropout, **settings)
    units = channels or 512
    return _gap("alexnet", backbone, (256, units, units), groups, dropout, extended=True, **settings)


def tiny_resnet18(
    num_classes: int | None = None, checkpoint: str | os.PathLike[str] | None = None, **settings: Any
) -> Classifier:
    """ResNet-18 whose stem is one 3 x 3 convolution with stride 2, without max-pool, and whose last stage has stride 1.

    64 x 64 pixels give maps of 32, 16, 8 and 8 cells a side.

    Examples
    --------
    >>> classifier = tiny_resnet18(num_classes=20)
    >>> classifier.input_size, classifier.layer
    ((64, 64), 'layer4')
    """

    def make(count: int) -> nn.Module:
        network = models.resnet18(num_classes=count)
        network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
        nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        network.maxpool = nn.Identity()
        first = network.layer4[0]
        first.conv1.stride = first.downsample[0].stride = (1, 1)
        return network

    settings |= {"num_classes": num_classes, "checkpoint": checkpoint, "defaults": {"input_size": (64, 64)}}
    return build("tiny_resnet18", make, **settings)


def _gap(
    family: str,
    backbone: str | None,
    widths: Sequence[int],
    groups: int,
    dropout: float,
    extended: bool = False,
    **settings: Any,
) -> Classifier:
    """Put convolutions of these widths, and behind them the head of Zhou et al., on a family of torchvision's."""
    ready = None if backbone is None else weights_named(family, backbone)

    def make(count: int) -> nn.Module:
        trunk = _trunk(family, ready)
        if extended:
            trunk.append(nn.MaxPool2d(kernel_size=3, stride=1))
        for inputs, units in pairwise(widths):
            convolution = nn.Conv2d(inputs, units, kernel_size=3, padding=1, groups=groups)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(convolution.get_parameter("bias"))
            trunk.extend([convolution, nn.ReLU(inplace=True)])
        return GlobalAveragePoolingNet(trunk, widths[-1], count, dropout)

    defaults: dict[str, Any] = {"layer": "features"}
    if ready is not None:
        defaults |= preprocessing(ready)
        settings["label"] = f"{family} {ready.name}, the rest random (seed {settings.get('seed', 0)})"
    name = f"{family}_gap_extended" if extended else f"{family}_gap"
    return build(name, make, default_classes=1000, defaults=defaults, **settings)


def _trunk(family: str, ready: models.WeightsEnum | None) -> nn.Sequential:
    """Take the convolutions up to the ReLU before the last pool: the rest is what Zhou et al. leave out."""
    if family == "vgg16" and ready is None:
        # The constructor of the whole network would draw 120 million numbers for layers that are dropped.
        return models.vgg.make_layers(models.vgg.cfgs["D"])[:-1]
    network = models.alexnet(num_classes=1) if ready is None else load_weights(family, ready)
    return nn.Sequential(*list(network.get_submodule("features").children())[:-1])
