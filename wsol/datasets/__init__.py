"""Labeled images with boxes or masks."""

from wsol.datasets.coco import COCO
from wsol.datasets.cub import CUB
from wsol.datasets.folder import AnnotatedFolder
from wsol.datasets.ilsvrc import ILSVRC
from wsol.datasets.labeled import CIFAR10, STL10, ImageFolder
from wsol.datasets.pet import OxfordPet
from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.shapes import Shapes
from wsol.datasets.tiny_imagenet import TinyImageNet
from wsol.datasets.voc import VOC
from wsol.datasets.wsolevaluation import WSOLEvaluation

__all__ = [
    "CIFAR10",
    "COCO",
    "CUB",
    "ILSVRC",
    "STL10",
    "VOC",
    "AnnotatedFolder",
    "Dataset",
    "ImageFolder",
    "OxfordPet",
    "Sample",
    "Shapes",
    "TinyImageNet",
    "WSOLEvaluation",
]
