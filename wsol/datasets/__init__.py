"""Labeled images with boxes or masks: a function per layout that is found on disk, each returns a `Dataset`.

Every one of them raises `UserError` where a file is missing or can't be read, files disagree, or an annotated box is
none, and names file and line.
"""

from wsol.datasets.cub import CUB
from wsol.datasets.folder import CIFAR10, STL10, AnnotatedFolder, ImageFolder, OxfordPet
from wsol.datasets.imagenet import ILSVRC, TinyImageNet
from wsol.datasets.sample import Dataset, Sample
from wsol.datasets.shapes import Shapes
from wsol.datasets.voc_coco import COCO, VOC
from wsol.datasets.wsolevaluation import WSOLEvaluation

__all__ = [
    "CIFAR10", "COCO", "CUB", "ILSVRC", "STL10", "VOC", "AnnotatedFolder", "Dataset", "ImageFolder", "OxfordPet",
    "Sample", "Shapes", "TinyImageNet", "WSOLEvaluation",
]  # fmt: skip
