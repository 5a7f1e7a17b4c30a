"""A small network made for class activation maps: convolutions, global average pooling, one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from wsol.errors import UserError

__all__ = ["GapNet", "gapnet"]


class GapNet(nn.Module):
    """3 × 3 convolutions with batch normalization and ReLU, then global average pooling and one linear layer.

    With nothing between the last map and the mean, the logit of class c is the mean over the map of
    `W_c · A`, plus a bias: the class activation map of Zhou et al., *Learning Deep Features for
    Discriminative Localization*, CVPR 2016, is exact. Its target layer is `features`.

    Parameters
    ----------
    num_classes : int
        Number of logits, 1 or more.
    widths : sequence of int
        Channels of each convolution.
    strides : sequence of int
        Stride of each convolution; their product, 8 by default, is the side of a map's cell in pixels.

    Raises
    ------
    UserError
        If `widths` and `strides` differ in length or hold a number below 1, or `num_classes` is below 1.

    Examples
    --------
    >>> model = GapNet(10).eval()
    >>> images = torch.zeros(2, 3, 96, 96)
    >>> model.features(images).shape, model(images).shape
    (torch.Size([2, 128, 12, 12]), torch.Size([2, 10]))
    """

    def __init__(
        self,
        num_classes: int,
        widths: Sequence[int] = (24, 40, 80, 80, 128, 128),
        strides: Sequence[int] = (2, 2, 2, 1, 1, 1),
    ) -> None:
        super().__init__()
        if not widths or len(widths) != len(strides) or min(*widths, *strides) < 1 or num_classes < 1:
            raise UserError(
                f"widths = {list(widths)}, strides = {list(strides)}, num_classes = {num_classes}: "
                "give one width and one stride, 1 or more, for each convolution, and at least one class"
            )
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in zip(widths, strides, strict=True):
            layers.append(nn.Conv2d(channels, width, 3, stride, padding=1, bias=False))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        for module in self.features:
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes) of normalized images (B, 3, H, W)."""
        maps = self.features(images)  # (B, C, h, w)
        pooled = self.pool(maps).flatten(1)  # (B, C)
        return self.classifier(pooled)  # (B, num_classes)


def gapnet(
    num_classes: int,
    widths: Sequence[int] = (24, 40, 80, 80, 128, 128),
    strides: Sequence[int] = (2, 2, 2, 1, 1, 1),
    seed: int | None = None,
) -> GapNet:
    """Build a `GapNet`; with a seed its first weights repeat, and torch's own random state stays as it was.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in gapnet(10, seed=0).parameters())
    337554
    """
    if seed is None:
        return GapNet(num_classes, widths, strides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GapNet(num_classes, widths, strides)
