"""CUB-200-2011 as Caltech's archive unpacks: whole, with segmentations, without images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.layouts import ALBATROSS, AUKLET, BIRDS, write_cub, write_image, write_split
from wsol.datasets import CUB, Sample, WSOLEvaluation
from wsol.datasets.cub import _end_with_image
from wsol.errors import UserError


def test_both_splits(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    for test, train in ((CUB(root), CUB(root, "train")), (CUB(tmp_path), CUB(str(tmp_path), split="train"))):
        assert (test.name, test.split, test.role, len(test)) == ("cub", "test", "test", 2)
        assert (train.split, train.role, len(train)) == ("train", "train-weaksup", 1)
        assert test.class_ids == train.class_ids == (ALBATROSS, AUKLET)
        assert test.classes == ("Black footed Albatross", "Crested Auklet")
        assert [sample.sample_id for sample in test] == [BIRDS[0], BIRDS[2]]
        assert [sample.boxes.tolist() for sample in test] == [[[2, 3, 12, 23]], [[20, 1, 31, 6]]]
        assert train[0].boxes.tolist() == [[0, 0, 30, 23]]


@pytest.mark.parametrize(
    ("box", "size", "corners"),
    [
        # Lines of bounding_boxes.txt, and the corners that the field's metadata have for them.
        ((60, 27, 325, 304), (500, 335), [60, 27, 385, 331]),
        ((14, 112, 388, 186), (500, 347), [14, 112, 402, 298]),
        ((139, 30, 153, 264), (500, 336), [139, 30, 292, 294]),
        ((0, 0, 500, 375), (500, 375), [0, 0, 499, 374]),
        ((0, 0, 500, 375), None, [0, 0, 500, 375]),
    ],
)
def test_corners(tmp_path: Path, box: tuple[int, ...], size: tuple[int, int] | None, corners: list[int]) -> None:
    x, y, width, height = box
    image = tmp_path / "a.png" if size is None else write_image(tmp_path / "a.png", size)
    sample = Sample(sample_id="a", label=0, image=image, boxes=[x, y, x + width, y + height])
    boxes, image_size = _end_with_image(sample)
    assert (boxes.tolist(), image_size) == ([corners], size)


def test_ids_and_boxes_are_those_of_the_fields_metadata(tmp_path: Path) -> None:
    caltech = CUB(write_cub(tmp_path))
    lines = [f"{s.sample_id},{','.join(f'{v:.0f}' for v in s.boxes[0])}" for s in caltech]
    write_split(tmp_path, "CUB", "test", [(s.sample_id, s.label) for s in caltech], lines)
    other = WSOLEvaluation(tmp_path, "CUB")
    assert (other.classes, other.class_ids) == (caltech.classes, caltech.class_ids)
    assert [s.boxes.tolist() for s in other] == [s.boxes.tolist() for s in caltech]


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_masks_are_what_most_annotators_say(tmp_path: Path, place: str) -> None:
    root = write_cub(tmp_path)
    if place == "beside":
        (root / "segmentations").rename(tmp_path / "segmentations")
    assert CUB(root)[0].read_mask()[0, :7].tolist() == [False, False, False, True, True, True, False]
    next(tmp_path.rglob("Bird_0002_55.png")).unlink()
    with pytest.raises(UserError, match=r"Bird_0002_55\.png"):
        CUB(root)[1].read_mask()


def test_a_split_without_images(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    (root / "train_test_split.txt").write_text("1 0\n2 0\n3 0\n")
    with pytest.raises(UserError, match=f"{root}.*train"):
        CUB(root, "train")


def test_boxes_are_clipped_once_and_never_below_zero_pixels(tmp_path: Path) -> None:
    data = CUB(write_cub(tmp_path))
    first = data[0]
    (tmp_path / "CUB_200_2011/images" / BIRDS[0]).unlink()
    assert np.array_equal(data[0].boxes, first.boxes) and data[0].image_size == first.image_size == (32, 24)
