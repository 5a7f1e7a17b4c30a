"""Boxes around masks: exact on generated pictures, and refused where there is nothing to go around."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsol.config import build_dataset
from wsol.datasets import Dataset, Sample, Shapes
from wsol.datasets.from_masks import BoxesFromMasks, boxes_of_mask
from wsol.datasets.sample import Pixels
from wsol.errors import UserError


def test_equal_to_the_exact_boxes() -> None:
    data = Shapes(length=12, objects=3)
    found = BoxesFromMasks(data)
    for own, other in zip(data, found, strict=True):
        assert {tuple(box) for box in own.boxes} == {tuple(box) for box in other.boxes}
        assert own.sample_id == other.sample_id
    assert np.array_equal(found.labels, data.labels)
    assert (found.classes, found.ids, found.knobs) == (data.classes, data.ids, data.knobs)


def test_diagonal_neighbors_are_one_region() -> None:
    assert boxes_of_mask(np.eye(3, dtype=bool)).tolist() == [[0, 0, 2, 2]]
    assert boxes_of_mask(np.zeros((2, 2), bool)).shape == (0, 4)


class Bare(Dataset):
    """One sample, with or without an empty mask."""

    name, split, classes = "bare", "test", ("a",)

    def __init__(self, mask: np.ndarray | None) -> None:
        self.mask = mask

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return Sample(sample_id="x", label=0, image=np.zeros((2, 2, 3), np.uint8), mask=self.mask)


@pytest.mark.parametrize(("mask", "said"), [(None, "no mask"), (np.zeros((2, 2), bool), "an empty mask")])
def test_nothing_to_go_around_is_named(mask: np.ndarray | None, said: str) -> None:
    with pytest.raises(UserError, match=f"sample x has {said}"):
        BoxesFromMasks(Bare(mask))[0]


class Smaller(Bare):
    """A mask of 4 x 3 pixels, of an image of 9 x 7: the same aspect, to a pixel."""

    def __init__(self, image: Pixels) -> None:
        mask = np.zeros((3, 4), bool)
        mask[1:, 1:3] = True
        super().__init__(mask)
        self.image = image

    def __getitem__(self, index: int) -> Sample:
        return Sample(sample_id="x", label=0, image=self.image, mask=self.mask)


def test_boxes_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    picture = np.zeros((7, 9, 3), np.uint8)
    wanted = [[9 / 4, 7 / 3, 3 * 9 / 4 - 1, 6]]
    assert BoxesFromMasks(Smaller(picture))[0].boxes.tolist() == wanted
    Image.fromarray(picture).save(tmp_path / "x.png")
    assert BoxesFromMasks(Smaller(tmp_path / "x.png"))[0].boxes.tolist() == wanted
    (tmp_path / "empty.png").touch()
    for name in ("none.png", "empty.png"):  # said when it is decoded: an evaluation may skip it
        assert BoxesFromMasks(Smaller(tmp_path / name))[0].boxes.tolist() == [[1, 1, 2, 2]]
    assert BoxesFromMasks(Smaller(lambda: picture))[0].boxes.tolist() == [[1, 1, 2, 2]]


def test_from_the_configuration() -> None:
    config = {"_target_": "wsol.datasets.Shapes", "length": 3}
    assert isinstance(build_dataset({**config, "boxes": "from_masks"}), BoxesFromMasks)
    assert isinstance(build_dataset({**config, "boxes": None}), Shapes)
    with pytest.raises(UserError, match="dataset.boxes=masks: pass from_masks"):
        build_dataset({**config, "boxes": "masks"})
