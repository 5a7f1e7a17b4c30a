"""Datasets with class labels only, in files that torchvision reads: nothing can be localized on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wsol.datasets.sample import Dataset, Table, reader
from wsol.errors import UserError

ROLES = {"train": "", "test": ""}  # nobody's in the field


@reader("cifar10", ROLES)
def CIFAR10(root: str | Path, split: str = "test", download: bool = False) -> Dataset:
    """CIFAR-10 (32 × 32, ten classes) through torchvision.

    Parameters
    ----------
    root : path
        Folder with `cifar-10-batches-py/`; `download` fetches it first where it is missing.
    split : "train" or "test"
    """
    data = open_torchvision("CIFAR10", "cifar10", root, train=split == "train", download=download)
    return _labeled(split, data.classes, data.targets, data.data)


@reader("stl10", ROLES)
def STL10(root: str | Path, split: str = "test", download: bool = False) -> Dataset:
    """STL-10 (96 × 96, ten classes) through torchvision.

    Parameters
    ----------
    root : path
        Folder with `stl10_binary/`; `download` fetches it first where it is missing.
    split : "train" or "test"
    """
    data = open_torchvision("STL10", "stl10", root, split=split, download=download)
    if not hasattr(data, "classes"):
        raise UserError(f"stl10: no stl10_binary/class_names.txt in {root}; unpack the archive whole")
    return _labeled(split, data.classes, data.labels, data.data.transpose(0, 2, 3, 1))


def _labeled(split: str, classes: Any, labels: Any, images: Any) -> Dataset:
    ids = [f"{split}/{index:05d}" for index in range(len(labels))]
    return Dataset(Table(Path(), sample_id=ids, label=labels, image=images), classes=classes)


def open_torchvision(kind: str, name: str, root: str | Path, **options: Any) -> Any:
    """Make a dataset of torchvision's, or raise the error that says what to do."""
    from torchvision import datasets

    try:
        return getattr(datasets, kind)(str(Path(root).expanduser()), **options)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{name}: can't be read from {root}: {error}; check dataset.root or pass dataset.download=true"
        ) from error
