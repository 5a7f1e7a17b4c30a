"""What a split is for goes along with the dataset, whatever part of it is taken."""

import pytest

from wsol.datasets import Shapes, TinyImageNet
from wsol.datasets.from_masks import BoxesFromMasks


@pytest.mark.parametrize(("split", "role"), [("train", "train-weaksup"), ("val", "train-fullsup"), ("test", "test")])
def test_shapes(split: str, role: str) -> None:
    data = Shapes(split, length=3)
    assert data.role == data.first(2).role == BoxesFromMasks(data).role == role


def test_tiny_imagenet(tiny_imagenet) -> None:
    assert TinyImageNet(tiny_imagenet, "train").role == "train-weaksup"
    assert TinyImageNet(tiny_imagenet, "val").role == "test"
