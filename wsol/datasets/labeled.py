"""Datasets with class labels only, read by torchvision: they train classifiers and can't be localized on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torchvision import datasets

from wsol.datasets.sample import Dataset, Sample, check_text
from wsol.errors import UserError

__all__ = ["CIFAR10", "STL10", "ImageFolder", "known_split", "open_torchvision"]


class _Labeled(Dataset):
    """What the three below share: labels and pictures from a torchvision dataset."""

    def __init__(self, split: str, classes: Sequence[str], labels: Sequence[int]) -> None:
        self.split = split
        self.classes = tuple(classes)
        self._labels = np.asarray(labels, np.int64)
        if not len(self._labels):
            raise UserError(f"{self.name}: split {split!r} has no images")

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._labels


class CIFAR10(_Labeled):
    """CIFAR-10 (32 × 32, ten classes) through torchvision.

    Parameters
    ----------
    root : path
        Folder with `cifar-10-batches-py/`.
    split : "train" or "test"
    download : bool
        Fetch it first where it is missing.

    Raises
    ------
    UserError
        If the files are not there or the split is unknown.
    """

    name = "cifar10"

    def __init__(self, root: str | Path, split: str = "test", download: bool = False) -> None:
        known_split(self.name, split, ("train", "test"))
        data = open_torchvision(datasets.CIFAR10, self.name, root, train=split == "train", download=download)
        super().__init__(split, data.classes, data.targets)
        self._images: np.ndarray = data.data  # (N, 32, 32, 3)

    def __getitem__(self, index: int) -> Sample:
        return Sample(sample_id=f"{self.split}/{index:05d}", label=int(self._labels[index]), image=self._images[index])


class STL10(_Labeled):
    """STL-10 (96 × 96, ten classes) through torchvision.

    Parameters
    ----------
    root : path
        Folder with `stl10_binary/`.
    split : "train" or "test"
    download : bool
        Fetch it first where it is missing.

    Raises
    ------
    UserError
        If the files are not there or the split is unknown.
    """

    name = "stl10"

    def __init__(self, root: str | Path, split: str = "test", download: bool = False) -> None:
        known_split(self.name, split, ("train", "test"))
        data = open_torchvision(datasets.STL10, self.name, root, split=split, download=download)
        if not hasattr(data, "classes"):
            raise UserError(f"stl10: no stl10_binary/class_names.txt in {root}; unpack the archive whole")
        super().__init__(split, data.classes, data.labels)
        self._images: np.ndarray = data.data  # (N, 3, 96, 96)

    def __getitem__(self, index: int) -> Sample:
        image = np.ascontiguousarray(self._images[index].transpose(1, 2, 0))  # (96, 96, 3)
        return Sample(sample_id=f"{self.split}/{index:05d}", label=int(self._labels[index]), image=image)


class ImageFolder(_Labeled):
    """A folder of class folders: `root/[split/]class/image.jpg`, classes in sorted order.

    Parameters
    ----------
    root : path
    split : str, optional
        A folder between root and classes; None: the classes lie directly under the root.

    Raises
    ------
    UserError
        If there is no such folder, or no images in it.
    """

    name = "imagefolder"

    def __init__(self, root: str | Path, split: str | None = None) -> None:
        self.root = Path(root).expanduser() / (split or "")
        if not self.root.is_dir():
            raise UserError(
                f"{self.root}: no such folder; dataset.root (and dataset.split) must hold one folder per class"
            )
        try:
            data = datasets.ImageFolder(str(self.root))
        except FileNotFoundError as error:
            raise UserError(f"{self.root}: {error}; one folder per class with images is wanted") from error
        super().__init__(split or "all", data.classes, data.targets)
        self._paths = [Path(path) for path, _ in data.samples]
        for name in data.classes:
            check_text(name, f"folder in {self.root}")
        _refuse_links(self._paths)

    def __getitem__(self, index: int) -> Sample:
        path = self._paths[index]
        return Sample(sample_id=path.relative_to(self.root).as_posix(), label=int(self._labels[index]), image=path)


def _refuse_links(paths: Sequence[Path]) -> None:
    """Refuse two folders that are one: torchvision follows links, and each image would count several times."""
    known: dict[str, Path] = {}
    for folder in dict.fromkeys(path.parent for path in paths):
        first = known.setdefault(os.path.realpath(folder), folder)
        if first != folder:
            raise UserError(f"{folder} is the folder {first} again, so its images would count twice: remove the link")


def known_split(name: str, split: str, known: tuple[str, ...]) -> None:
    """Raise `UserError` for a split that the dataset doesn't have."""
    if split not in known:
        raise UserError(f"dataset.split={split}: {name} has {', '.join(known)}")


def open_torchvision(kind: Any, name: str, root: str | Path, **options: Any) -> Any:
    """Make a dataset of torchvision's, or raise the `UserError` that says what to do."""
    try:
        return kind(str(Path(root).expanduser()), **options)
    except (RuntimeError, OSError) as error:
        raise UserError(
            f"{name}: can't be read from {root}: {error}; check dataset.root or pass dataset.download=true"
        ) from error
