"""The networks on which heatmaps are compared, what they are shown, and versions of them that prove a cause."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import nn
from torchvision import models

from wsol.datasets import Shapes
from wsol.models import default_layer, shapes_classifier


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
    sized = {"image_size": side} if name.startswith("vit") else {}  # its positions are learned
    model = models.get_model(name, weights=None, num_classes=20, **sized).eval()
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
    """All of them. Images are small, with maps of 4 × 4 mostly: some methods run once for every channel."""
    yield shapes_case()
    yield random_case("ResNet-18", "resnet18", 128)
    yield random_case("VGG-16", "vgg16", 64)
    yield random_case("DenseNet-121", "densenet121", 128)
    yield random_case("MobileNet-V3-large", "mobilenet_v3_large", 128)
    yield random_case("ViT-B/16", "vit_b_16", 64)


class RectifiedDenseNet(nn.Module):
    """A DenseNet whose last ReLU is a module and leaves its input as it is."""

    def __init__(self, model: models.DenseNet) -> None:
        super().__init__()
        self.features, self.relu, self.classifier = model.features, nn.ReLU(), model.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, C)."""
        logits: torch.Tensor = self.classifier(self.relu(self.features(images)).mean((2, 3)))
        return logits


def rectified(case: Case) -> Case:
    """Give a DenseNet's case with a last ReLU that can be looked at; any other as it is."""
    if not isinstance(case.model, models.DenseNet):
        return case
    return replace(case, model=RectifiedDenseNet(case.model).eval(), layer="relu")


def exact(case: Case) -> Case:
    """Give the same network in float64."""
    return replace(case, model=copy.deepcopy(case.model).double(), images=case.images.double())
