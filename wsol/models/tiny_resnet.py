"""ResNet-18 for small pictures: a 64-pixel stem and a last stage that keeps its resolution give an 8 x 8 last map."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import nn
from torchvision import models

from wsol.models.build import build_classifier
from wsol.models.classifier import Classifier

__all__ = ["tiny_resnet18"]


def tiny_resnet18(
    num_classes: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    layer: str | None = None,
    seed: int = 0,
    classes: str | Sequence[str] | None = None,
    input_size: int | Sequence[int] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """ResNet-18 whose stem is one 3 x 3 convolution with stride 2, without max-pool, and whose last stage has stride 1.

    64 x 64 pixels give maps of 32, 16, 8 and 8 cells a side. A stem of stride 1 with a last stage of stride 2 gives
    8 x 8 as well, at more than twice the arithmetic.

    Parameters
    ----------
    num_classes : int, optional
        By default as many as the checkpoint has; without a checkpoint it must be given.
    checkpoint : path, optional
        Trained weights (safetensors or a state dict); without it they are random.
    layer : str, optional
        Dotted name of the target layer, by default `layer4`.
    seed : int
        For random weights.
    classes : "imagenet" or sequence of str, optional
        What a foreign checkpoint's logits mean; our own checkpoints say it themselves.
    input_size, mean, std : optional
        By default 64 pixels and ImageNet's normalization, or what the checkpoint says.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU.

    Raises
    ------
    UserError
        If neither `num_classes` nor `checkpoint` is given, or the checkpoint does not fit.

    Examples
    --------
    >>> classifier = tiny_resnet18(num_classes=20)
    >>> classifier.input_size, classifier.layer
    ((64, 64), 'layer4')
    """
    return build_classifier(
        "tiny_resnet18",
        _small_stem,
        num_classes=num_classes,
        checkpoint=checkpoint,
        classes=classes,
        seed=seed,
        layer=layer,
        shown={"input_size": (64, 64)},
        asked={"input_size": input_size, "mean": mean, "std": std},
    )


def _small_stem(num_classes: int) -> nn.Module:
    network = models.resnet18(num_classes=num_classes)
    network.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=2, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    first = network.layer4[0]
    first.conv1.stride = first.downsample[0].stride = (1, 1)
    return network
