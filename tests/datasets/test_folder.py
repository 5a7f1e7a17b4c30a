"""Images in folders: boxes whose units and corners are said, masks, trimaps; and what torchvision lays out."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from torchvision import datasets

import wsol
from tests.conftest import small
from tests.datasets.layouts import (
    BOXES,
    PETS,
    PHOTOS,
    STATED,
    photo_mask,
    trimap,
    write_boxes,
    write_cifar,
    write_image,
    write_masks,
    write_pets,
    write_photos,
    write_stl,
)
from wsol.datasets import CIFAR10, STL10, AnnotatedFolder, Dataset, ImageFolder, OxfordPet
from wsol.datasets.folder import BoxRules
from wsol.datasets.sample import boxes_from_masks
from wsol.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "r")


def boxes_of(data: Dataset) -> dict[str, list]:
    return {sample.sample_id: sample.boxes.tolist() for sample in data}


def test_image_folder_is_torchvisions(root: Path) -> None:
    (root / "cat" / "é").mkdir()
    write_image(root / "cat" / "é" / "Z.JPEG", (5, 4))
    write_image(root / "cat" / "deep-er.png", (5, 4))
    theirs = datasets.ImageFolder(str(root))
    for data in (ImageFolder(root), ImageFolder(root.parent, "r")):
        assert list(data.classes) == theirs.classes
        assert [(str(sample.image), sample.label) for sample in data] == theirs.samples
        ids = [str(Path(path).relative_to(root)) for path, _ in theirs.samples]
        assert [sample.sample_id for sample in data] == ids
    assert (ImageFolder(root).split, ImageFolder(root.parent, "r").split) == ("all", "r")


def test_image_folders_that_are_none(root: Path) -> None:
    with pytest.raises(UserError, match="r/val "):
        ImageFolder(root, "val")
    with pytest.raises(UserError, match="deep"):
        ImageFolder(root / "cat" / "deep")
    (root / "horse").mkdir()
    with pytest.raises(UserError, match="horse"):
        ImageFolder(root)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_boxes_of_a_table(root: Path, suffix: str) -> None:
    data = AnnotatedFolder(str(root), boxes_file=str(write_boxes(root.parent / f"boxes{suffix}")), **STATED)
    assert (data.classes, data.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    cats = {"cat/a.jpg": [[2, 3, 10, 20], [20, 3, 30, 8]], "cat/deep/b.png": [[0, 0, 39, 29]]}
    assert boxes_of(data) == cats | {"dog/c.jpg": [[1, 1, 5, 5]]}
    assert data[0].mask is None


@pytest.mark.parametrize(
    ("corners", "units", "written"),
    [
        ("inclusive", "pixels", (4, 6, 19, 14)),
        ("exclusive", "pixels", (4, 6, 20, 15)),
        ("exclusive", "relative", (0.1, 0.2, 0.5, 0.5)),
        ("inclusive", "relative", (0.1, 0.2, 0.475, 14 / 30)),
    ],
)
def test_the_same_box_in_four_ways(root: Path, corners: str, units: str, written: tuple[float, ...]) -> None:
    file = write_boxes(root.parent / "boxes.csv", [(name, *written) for name in PHOTOS])
    data = AnnotatedFolder(root, boxes_file=file, box_corners=corners, box_units=units)
    np.testing.assert_allclose([sample.boxes[0] for sample in data], [[4, 6, 19, 14]] * 3, rtol=0, atol=1e-12)


def test_a_box_narrower_than_a_pixel_is_one_pixel_wide() -> None:
    assert BoxRules("exclusive", "pixels").to_pixels(np.array([[3, 3, 3.5, 9]])).tolist() == [[3, 3, 3, 8]]


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({}, r"dataset\.boxes_file.*dataset\.masks.*dataset=imagefolder"),
        ({"boxes_file": "b.csv"}, r"dataset\.box_corners=: .*inclusive.* exclusive"),
        ({"boxes_file": "b.csv", "box_corners": "exclusive"}, r"dataset\.box_units=: .*pixels.* relative"),
        ({"boxes_file": "b.csv", "box_corners": "xywh"}, r"dataset\.box_corners=xywh"),
        ({"masks": "m", "mask_ignore": 0}, r"dataset\.mask_ignore=0"),
        ({"masks": "m", "missing": "skip"}, r"dataset\.missing=skip"),
        ({"masks": "nowhere"}, r"3 of 3 .* no mask"),
        ({"boxes_file": "nowhere.csv", **STATED}, r"nowhere\.csv"),
    ],
)
def test_what_has_to_be_said(root: Path, options: dict[str, Any], culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        AnnotatedFolder(root, **options)


@pytest.mark.parametrize(
    "row",
    [
        ("cat/a.jpg", 2, "x", 10, 20), ("cat/a.jpg", 2, None, 10, 20), ("cat/a.jpg", 20, 2, 10, 20),
        ("cat/a.jpg", -1, 2, 10, 20), ("", 1, 2, 10, 20), ("a.jpg", 1, 2, 10, 20),
    ],
)  # fmt: skip
def test_damaged_rows_are_named(root: Path, row: tuple) -> None:
    file = write_boxes(root.parent / "boxes.csv", [*BOXES, row])
    with pytest.raises(UserError, match=f"^{file}, line 6: .*{row[0]}"):
        AnnotatedFolder(root, boxes_file=file, **STATED)


@pytest.mark.parametrize(
    ("box", "corners", "units"), [((2, 3, 10, 20), "inclusive", "relative"), ((3, 3, 3, 9), "exclusive", "pixels")]
)
def test_rows_that_the_stated_units_and_corners_exclude(root: Path, box: tuple, corners: str, units: str) -> None:
    file = write_boxes(root.parent / "boxes.parquet", [(name, *box) for name in PHOTOS])
    options = {"boxes_file": file, "box_corners": corners, "box_units": units}
    with pytest.raises(UserError, match=f"^{file}, row 1: .*{corners}.*{units}"):
        AnnotatedFolder(root, **options)
    assert len(AnnotatedFolder(root, strict=False, **options)[0].boxes) == 1


def test_images_without_boxes(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write_boxes(root.parent / "boxes.csv", BOXES[1:2])
    with pytest.raises(UserError, match=r"2 of 3 .*cat/a\.jpg, dog/c\.jpg.*dataset\.missing=drop"):
        AnnotatedFolder(root, boxes_file=file, **STATED)
    with caplog.at_level(logging.INFO, "wsol"):
        data = AnnotatedFolder(root, boxes_file=file, missing="drop", **STATED)
    assert "2 of 3 images have no box" in caplog.text
    assert (boxes_of(data), data.classes) == ({"cat/deep/b.png": [[0, 0, 39, 29]]}, ("cat", "dog"))


def test_one_table_and_one_folder_of_masks_for_several_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_photos(tmp_path / "r" / split)
        write_masks(tmp_path / "m" / split)
    rows = [(f"{split}/{row[0]}", *row[1:]) for split in ("train", "val") for row in BOXES]
    file = write_boxes(tmp_path / "boxes.csv", rows)
    data = AnnotatedFolder(tmp_path / "r", "val", boxes_file=file, masks=tmp_path / "m", **STATED)
    assert data.split == "val" and list(boxes_of(data)) == list(PHOTOS)
    assert all(np.array_equal(sample.read_mask(), photo_mask() > 0) for sample in data)
    with pytest.raises(UserError, match=r"3 of 3 .* no box"):
        AnnotatedFolder(tmp_path / "r", "val", boxes_file=write_boxes(file), **STATED)


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif"])
def test_masks_at_the_same_path(root: Path, suffix: str) -> None:
    masks = write_masks(root.parent / "m", suffix)
    for sample in AnnotatedFolder(root, masks=str(masks)):
        assert np.array_equal(sample.read_mask(), photo_mask() > 0)
        assert sample.ignore is None and sample.boxes is None
    for sample in AnnotatedFolder(root, masks=masks, mask_ignore=255):
        assert np.array_equal(sample.read_mask(), photo_mask() == 7)
        assert np.array_equal(sample.read_ignore(), photo_mask() == 255)


def test_masks_that_do_not_fit(root: Path) -> None:
    masks = write_masks(root.parent / "m")
    (masks / "dog/c.png").rename(masks / "dog/c.txt")
    with pytest.raises(UserError, match=r"1 of 3 .*dog/c\.jpg"):
        AnnotatedFolder(root, masks=masks)
    assert len(AnnotatedFolder(root, masks=masks, missing="drop")) == 2
    with pytest.raises(UserError, match=f"dataset.masks={root}"):
        AnnotatedFolder(root, masks=root)
    (masks / "dog/c.txt").rename(masks / "dog/c.png")
    shutil.copy(root / "dog/c.jpg", root / "dog/c.jpeg")
    with pytest.raises(UserError, match="suffix"):
        AnnotatedFolder(root, masks=masks)


def test_an_evaluation(root: Path) -> None:
    boxes = {"boxes_file": write_boxes(root.parent / "boxes.csv"), **STATED}
    masks = {"masks": write_masks(root.parent / "m")}
    write_pets(root.parent)
    folders = [AnnotatedFolder(root, **options) for options in (boxes, masks, boxes | masks)]
    filled = []
    for data in (*folders, OxfordPet(root.parent)):
        row = wsol.evaluate(data, small(data), ["center"], ["choe2020"], progress=False).summary.iloc[0]
        filled.append((pd.notna(row["gt_known_loc"]), pd.notna(row["pxap"]), pd.notna(row["top1_cls"])))
    assert filled == [(True, False, True), (False, True, True), (True, True, True), (True, True, True)]


def test_breeds_as_torchvision_calls_them(tmp_path: Path) -> None:
    home, data = write_pets(tmp_path), OxfordPet(tmp_path)
    assert list(data.classes) == datasets.OxfordIIITPet(str(tmp_path), "test").classes
    assert (data.labels.tolist(), [sample.sample_id for sample in data]) == ([0, 1, 1, 2], [row[0] for row in PETS])
    assert (data.split, data.role, data.multilabel) == ("test", "test", False)
    (home / "annotations/test.txt").write_text("\n")
    with pytest.raises(UserError, match=f"{tmp_path}.*test"):
        OxfordPet(tmp_path)


def test_pets_mask_border_and_box(tmp_path: Path) -> None:
    write_pets(tmp_path)
    sample = OxfordPet(tmp_path)[1]
    assert np.array_equal(sample.read_mask(), trimap() == 1)
    assert np.array_equal(sample.read_ignore(), trimap() == 3)
    assert sample.boxes.tolist() == [[10, 10, 44, 43]]  # around pet and border
    regions = boxes_from_masks(OxfordPet(tmp_path))[0]  # dataset.boxes=from_masks: of the pet's own pixels
    assert regions.boxes.tolist() == [[12, 12, 32, 37], [12, 42, 14, 43]]


@pytest.mark.parametrize("values", [np.where(trimap() == 1, 0, trimap()), np.where(trimap() == 1, 255, trimap()),
                                    np.full((50, 60), 2), None])  # fmt: skip
def test_trimaps_are_read_and_judged_when_asked_for(tmp_path: Path, values: np.ndarray | None) -> None:
    path = write_pets(tmp_path) / "annotations/trimaps/Abyssinian_201.png"
    path.write_text("no picture") if values is None else write_image(path, values.astype(np.uint8))
    data = OxfordPet(tmp_path)
    assert (len(data), data[1].label) == (4, 1)
    with pytest.raises(UserError, match=r"Abyssinian_201\.png"):
        data[0]


def test_pet_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_url: str, download_root: str, **_options: object) -> None:
        write_pets(Path(download_root).parent, split="trainval")

    with pytest.raises(UserError, match=f"{tmp_path}.*dataset.download=true"):
        OxfordPet(tmp_path)
    monkeypatch.setattr(datasets.oxford_iiit_pet, "download_and_extract_archive", fetch)
    data = OxfordPet(tmp_path, "trainval", download=True)
    assert (len(data), data.role) == (4, "train-weaksup")


def test_folders_of_wordnet_ids_have_names(tmp_path):
    for wnid in ("n02123045", "n01443537"):
        (tmp_path / wnid).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / wnid / "a.png")
    data = ImageFolder(tmp_path)
    assert (data.classes, data.ids) == (("goldfish", "tabby"), ("n01443537", "n02123045"))
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "mine" / "a.png")
    assert ImageFolder(tmp_path).classes == ImageFolder(tmp_path).ids == ("mine", "n01443537", "n02123045")


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
