"""Labeled images with boxes or masks."""

from wsol.datasets.labeled import CIFAR10, STL10, ImageFolder
from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.shapes import Shapes
from wsol.datasets.tiny_imagenet import TinyImageNet

__all__ = ["CIFAR10", "STL10", "Dataset", "ImageFolder", "Sample", "Shapes", "TinyImageNet"]
