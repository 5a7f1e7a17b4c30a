"""Boxes around masks: exact on generated pictures, and refused where there is nothing to go around."""

import numpy as np
import pytest

from wsol.config import build_dataset
from wsol.datasets import Dataset, Sample, Shapes
from wsol.datasets.from_masks import BoxesFromMasks, boxes_of_mask
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


def test_from_the_configuration() -> None:
    config = {"_target_": "wsol.datasets.Shapes", "length": 3}
    assert isinstance(build_dataset({**config, "boxes": "from_masks"}), BoxesFromMasks)
    assert isinstance(build_dataset({**config, "boxes": None}), Shapes)
    with pytest.raises(UserError, match="dataset.boxes=masks: pass from_masks"):
        build_dataset({**config, "boxes": "masks"})
