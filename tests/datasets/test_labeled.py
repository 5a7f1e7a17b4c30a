"""Datasets with labels only, read from files as torchvision lays them out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.layouts import write_cifar, write_stl
from wsol.datasets import CIFAR10, STL10, Dataset
from wsol.errors import UserError

KINDS = tuple(f"kind {i}" for i in range(10))


@pytest.mark.usefixtures("any_checksum")
def test_cifar10(tmp_path: Path) -> None:
    pictures = write_cifar(tmp_path)
    train, test = CIFAR10(tmp_path, "train"), CIFAR10(str(tmp_path))
    assert (len(train), len(test), train.classes) == (10, 2, KINDS)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 9, 1, 9, 2, 9, 3, 9, 4, 9], [5, 9])
    assert np.array_equal(train[5].read_image(), pictures[2, 1])
    assert np.array_equal(test[0].read_image(), pictures[5, 0])
    assert (train[5].sample_id, train[5].label, test[0].sample_id) == ("train/00005", 9, "test/00000")
    assert train[5].boxes is None


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize(("split", "labels"), [("train", [0, 9, 3]), ("test", [1, 1, 9])])
def test_stl10(tmp_path: Path, split: str, labels: list[int]) -> None:
    pictures = write_stl(tmp_path)
    data = STL10(tmp_path, split)
    assert (data.classes, data.labels.tolist()) == (KINDS, labels)
    for sample, picture in zip(data, pictures[split], strict=True):
        assert np.array_equal(sample.read_image(), picture)


@pytest.mark.parametrize(("kind", "write"), [(CIFAR10, write_cifar), (STL10, write_stl)])
def test_files_that_are_missing_or_of_another_checksum(
    tmp_path: Path, kind: Callable[..., Dataset], write: Callable
) -> None:
    with pytest.raises(UserError, match=rf"{tmp_path}.*dataset\.root.*dataset\.download=true"):
        kind(tmp_path)
    write(tmp_path)
    with pytest.raises(UserError, match="corrupted"):
        kind(tmp_path)
