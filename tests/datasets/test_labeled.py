"""Datasets with labels only, read from files as torchvision lays them out."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

import wsol
from wsol.datasets import CIFAR10, STL10, Dataset, ImageFolder
from wsol.errors import UserError
from wsol.models import gapnet

CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
STL_NAMES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


@pytest.fixture
def any_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take files of any content for the original ones, and forbid downloads."""

    def refuse(*_args: object, **_options: object) -> None:
        raise AssertionError("a download")

    for module in (datasets.cifar, datasets.stl10):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: Path(path).is_file())
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)


def write_cifar(root: Path) -> np.ndarray:
    """Two pictures in each batch of `cifar-10-batches-py`; return them all: (6, 2, 32, 32, 3)."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 2, 32, 32, 3), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for label, (name, pair) in enumerate(zip(names, pictures, strict=True)):
        rows = pair.transpose(0, 3, 1, 2).reshape(2, 3072)  # red plane, green plane, blue plane
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": [label, 9]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_NAMES}))
    return pictures


def write_stl(root: Path) -> dict[str, np.ndarray]:
    """Three pictures each in `stl10_binary`; return them by split: (3, 96, 96, 3)."""
    folder, random = root / "stl10_binary", np.random.default_rng(0)
    folder.mkdir(parents=True)
    pictures = {}
    for split in ("train", "test", "unlabeled"):
        pictures[split] = random.integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
        pictures[split].transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")  # column by column
    np.array([1, 10, 4], np.uint8).tofile(folder / "train_y.bin")
    np.array([2, 2, 10], np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("\n".join(STL_NAMES))
    return pictures


@pytest.mark.usefixtures("any_checksum")
def test_cifar10(tmp_path: Path) -> None:
    pictures = write_cifar(tmp_path)
    train, test = CIFAR10(tmp_path, "train"), CIFAR10(str(tmp_path))
    assert (len(train), len(test)) == (10, 2)
    assert train.classes == tuple(CIFAR_NAMES)
    assert train.labels.tolist() == [0, 9, 1, 9, 2, 9, 3, 9, 4, 9]
    assert test.labels.tolist() == [5, 9]
    assert np.array_equal(train[5].read_image(), pictures[2, 1])
    assert np.array_equal(test[0].read_image(), pictures[5, 0])
    assert (train[5].sample_id, train[5].label, test[0].sample_id) == ("train/00005", 9, "test/00000")
    assert train[5].boxes is None


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize(("split", "labels"), [("train", [0, 9, 3]), ("test", [1, 1, 9])])
def test_stl10(tmp_path: Path, split: str, labels: list[int]) -> None:
    pictures = write_stl(tmp_path)
    data = STL10(tmp_path, split)
    assert data.classes == tuple(STL_NAMES)
    assert data.labels.tolist() == labels == [sample.label for sample in data]
    for sample, picture in zip(data, pictures[split], strict=True):
        assert np.array_equal(sample.read_image(), picture)


@pytest.mark.usefixtures("any_checksum")
def test_stl10_without_names(tmp_path: Path) -> None:
    write_stl(tmp_path)
    (tmp_path / "stl10_binary" / "class_names.txt").unlink()
    with pytest.raises(UserError, match=r"class_names\.txt"):
        STL10(tmp_path)


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize("kind", [CIFAR10, STL10])
def test_files_that_are_not_there(tmp_path: Path, kind: type[Dataset]) -> None:
    with pytest.raises(UserError) as error:
        kind(tmp_path)
    for part in (str(tmp_path), "dataset.root", "dataset.download=true"):
        assert part in str(error.value)


@pytest.mark.parametrize(("kind", "write"), [(CIFAR10, write_cifar), (STL10, write_stl)])
def test_files_with_another_checksum(tmp_path: Path, kind: type[Dataset], write: object) -> None:
    write(tmp_path)
    with pytest.raises(UserError, match="corrupted"):
        kind(tmp_path)


@pytest.mark.parametrize("kind", [CIFAR10, STL10])
def test_unknown_split(tmp_path: Path, kind: type[Dataset]) -> None:
    with pytest.raises(UserError, match=r"dataset\.split=val: .* has train, test"):
        kind(tmp_path, "val")


def write_folder(root: Path) -> None:
    for name, value in (("dog/b.png", 10), ("cat/a.jpg", 20), ("cat/deep/c.png", 30)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), (value, value, value)).save(root / name)
    (root / "cat" / "notes.txt").write_text("not a picture")


def test_image_folder(tmp_path: Path) -> None:
    write_folder(tmp_path / "train")
    for data in (ImageFolder(tmp_path, "train"), ImageFolder(tmp_path / "train")):
        assert data.classes == ("cat", "dog")
        assert [s.sample_id for s in data] == ["cat/a.jpg", "cat/deep/c.png", "dog/b.png"]
        assert data.labels.tolist() == [s.label for s in data] == [0, 0, 1]
        assert [int(s.read_image()[0, 0, 0]) for s in data] == [20, 30, 10]
    assert ImageFolder(tmp_path, "train").split == "train"
    assert ImageFolder(tmp_path / "train").split == "all"


def test_image_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val: no such folder; dataset\.root"):
        ImageFolder(tmp_path, "val")


def test_image_folder_without_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one folder per class"):
        ImageFolder(tmp_path)


def test_image_folder_with_an_empty_class_names_it(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "horse").mkdir()
    with pytest.raises(UserError, match="horse"):
        ImageFolder(tmp_path)


@pytest.mark.usefixtures("any_checksum")
@pytest.mark.parametrize(("kind", "write"), [(CIFAR10, write_cifar), (STL10, write_stl), (ImageFolder, write_folder)])
def test_localization_needs_boxes(tmp_path: Path, kind: type[Dataset], write: Callable[[Path], object]) -> None:
    write(tmp_path)
    data = kind(tmp_path)
    with pytest.raises(UserError, match=rf"dataset {data.name} \(.*\) has neither boxes nor masks, .* trained on"):
        wsol.evaluate(data, gapnet(len(data.classes)), ["center"], progress=False)
