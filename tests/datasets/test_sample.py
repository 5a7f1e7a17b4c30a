"""Samples know where their pixels are; datasets are sequences of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsol.config import build_dataset
from wsol.datasets import Dataset, Sample, Shapes
from wsol.datasets.sample import Pixels, boxes_from_masks, boxes_of_mask, choose_classes
from wsol.errors import UserError

PICTURE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


class Pair(Dataset):
    name, split, classes = "pair", "test", ("cat", "dog")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Sample:
        return Sample(sample_id=f"s{index}", label=1 - index, image=PICTURE)


def test_boxes_become_float64_rows_and_the_image_id_is_the_sample_id_unless_said() -> None:
    for given in ([0, 0, 2, 1], [[0, 0, 2, 1]], np.array([[0, 0, 2, 1]], np.int32)):
        boxes = Sample(sample_id="a", label=0, image=PICTURE, boxes=given).boxes
        assert boxes.dtype == np.float64 and boxes.tolist() == [[0, 0, 2, 1]]
    bare = Sample(sample_id="a", label=0, image=PICTURE)
    assert bare.boxes is None and bare.image_id == "a"
    assert Sample(sample_id="a#cat", label=0, image=PICTURE, image_id="a", boxes=[]).boxes.shape == (0, 4)


def test_nothing_is_decoded_before_it_is_asked_for(tmp_path: Path) -> None:
    calls = []

    def paint() -> np.ndarray:
        calls.append("image")
        return PICTURE

    sample = Sample(sample_id="a", label=0, image=paint, mask=tmp_path / "none.png", image_size=(3, 2))
    assert sample.size() == (3, 2)
    assert not calls
    assert np.array_equal(sample.read_image(), PICTURE)
    assert calls == ["image"]
    with pytest.raises(UserError, match=r"none\.png"):
        sample.read_mask()


def test_size_is_width_then_height_from_wherever_it_is_known(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    assert Sample(sample_id="a", label=0, image=PICTURE).size() == (3, 2)
    assert Sample(sample_id="a", label=0, image=tmp_path / "a.png").size() == (3, 2)
    assert Sample(sample_id="a", label=0, image=lambda: PICTURE).size() == (3, 2)


def test_masks_from_array_file_and_function(tmp_path: Path) -> None:
    truth = np.array([[0, 1, 0], [255, 0, 0]], np.uint8)
    Image.fromarray(truth).save(tmp_path / "m.png")
    sample = Sample(sample_id="a", label=0, image=PICTURE, mask=tmp_path / "m.png", ignore=lambda: truth == 1)
    assert sample.read_mask().dtype == bool
    assert np.array_equal(sample.read_mask(), truth > 0)
    assert np.array_equal(sample.read_ignore(), truth == 1)
    bare = Sample(sample_id="a", label=0, image=PICTURE)
    assert bare.read_mask() is None
    assert bare.read_ignore() is None


def test_dataset_finds_labels_and_ids_by_itself() -> None:
    data = Pair()
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [1, 0]
    assert [sample.sample_id for sample in data] == ["s0", "s1"]
    assert data.ids == ("cat", "dog") and dict(data.knobs) == {}
    data.class_ids = ("n1", "n2")
    assert data.ids == ("n1", "n2")


class Mixed(Dataset):
    """Somebody's own, without `super().__init__()`: pixels from a file, a function and an array."""

    name, split, classes = "mixed", "test", ("cat", "dog")

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        self.asked.append(index)
        return (
            Sample(
                sample_id="a#cat", image_id="a", label=0, image=Path("a.jpg"), boxes=[0, 0, 2, 1], mask=Path("a.png")
            ),
            Sample(sample_id="b", label=1, image=lambda: PICTURE, image_size=(3, 2), ignore=lambda: PICTURE[..., 0]),
            Sample(sample_id="c", label=0, image=PICTURE, boxes=np.zeros((0, 4)), mask=PICTURE[..., 0] > 3),
        )[index]


def test_table_of_a_dataset_of_ones_own() -> None:
    data = Mixed()
    table = data.table
    assert table.index.tolist() == [0, 1, 2]
    assert table["sample_id"].tolist() == ["a#cat", "b", "c"]
    assert table["image_id"].tolist() == ["a", "b", "c"]
    assert table["image"].tolist() == [Path("a.jpg"), None, None]
    assert table[["label", "width", "height"]].values.tolist() == [[0, 0, 0], [1, 3, 2], [0, 3, 2]]
    assert (table[["label", "width", "height"]].dtypes == np.int64).all()
    assert [None if boxes is None else boxes.tolist() for boxes in table["boxes"]] == [[[0, 0, 2, 1]], None, []]
    assert table["mask"].tolist() == [Path("a.png"), None, True]
    assert table["ignore"].tolist() == [None, True, None]
    assert data.table is table
    assert data.asked == [0, 1, 2]


def test_first_looks_no_further_and_is_never_more_than_there_are() -> None:
    data = Mixed()
    assert data.first(2).table["sample_id"].tolist() == ["a#cat", "b"]
    assert data.asked == [0, 1]
    assert len(data.first(999)) == 3
    with pytest.raises(UserError, match="limit=0"):
        data.first(0)


def test_subclasses_may_have_attributes_of_any_name() -> None:
    class Own(Pair):
        def __init__(self) -> None:
            self._table = self._samples = self._measure = self._count = "mine"

    assert Own().table["sample_id"].tolist() == ["s0", "s1"] and len(Own().first(1)) == 1


def test_classes_come_in_the_order_asked_for() -> None:
    assert choose_classes(["a", "b", "c"], None, "x") == ("a", "b", "c")
    assert choose_classes(["a", "b", "c"], ["c", "a"], "x") == ("c", "a")
    assert choose_classes(["cat", "dog"], "dog", "x") == ("dog",)
    with pytest.raises(UserError, match=r"'n0144353' .*words\.txt.*n01443537"):
        choose_classes(["n01443537", "n02123045"], ["n0144353"], "words.txt")
    for names in ([], ["a", "a"]):
        with pytest.raises(UserError, match="dataset.classes="):
            choose_classes(["a", "b"], names, "x")


@pytest.mark.long
def test_boxes_from_masks_equal_the_exact_boxes() -> None:
    data = Shapes(length=12, objects=3)
    boxes = boxes_from_masks(data)
    for exact, other in zip(data, boxes, strict=True):
        assert {tuple(box) for box in exact.boxes} == {tuple(box) for box in other.boxes}
        assert exact.sample_id == other.sample_id
    assert np.array_equal(boxes.labels, data.labels)
    assert (boxes.classes, boxes.ids, boxes.knobs, boxes.role) == (data.classes, data.ids, data.knobs, data.role)


def test_regions_are_sorted_by_area_and_diagonal_neighbors_are_one() -> None:
    assert boxes_of_mask(np.eye(3, dtype=bool)).tolist() == [[0, 0, 2, 2]]
    assert boxes_of_mask(np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool)).tolist() == [[0, 0, 1, 1], [3, 0, 3, 0]]
    assert boxes_of_mask(np.array([[1, 0, 1], [0, 0, 1]], bool)).tolist() == [[2, 0, 2, 1], [0, 0, 0, 0]]
    assert boxes_of_mask(np.zeros((2, 2), bool)).shape == (0, 4)


def masked(mask: np.ndarray | None, image: Pixels = PICTURE) -> Dataset:
    sample = Sample(sample_id="x", label=0, image=image, mask=mask)
    return Dataset([sample], name="masked", split="test", classes=["a"])


def test_boxes_from_masks_are_in_pixels_of_the_image(tmp_path: Path) -> None:
    """A mask of 4 x 3 pixels, of an image of 9 x 7: the same aspect, to a pixel."""
    mask, picture = np.zeros((3, 4), bool), np.zeros((7, 9, 3), np.uint8)
    for nothing in (None, mask):
        with pytest.raises(UserError, match="sample x "):
            boxes_from_masks(masked(nothing))[0]
    mask[1:, 1:3] = True
    Image.fromarray(picture).save(tmp_path / "x.png")
    (tmp_path / "empty.png").touch()
    for image in (picture, tmp_path / "x.png"):
        assert boxes_from_masks(masked(mask, image))[0].boxes.tolist() == [[9 / 4, 7 / 3, 3 * 9 / 4 - 1, 6]]
    # What can't be read is said when it is decoded: an evaluation may skip it.
    for image in (tmp_path / "none.png", tmp_path / "empty.png", lambda: picture):
        assert boxes_from_masks(masked(mask, image))[0].boxes.tolist() == [[1, 1, 2, 2]]


def test_boxes_from_masks_by_configuration() -> None:
    config = {"_target_": "wsol.datasets.Shapes", "length": 1, "objects": 2}
    exact, regions = (build_dataset({**config, "boxes": boxes})[0].boxes for boxes in (None, "from_masks"))
    assert sorted(exact.tolist()) == sorted(regions.tolist())
    with pytest.raises(UserError, match="dataset.boxes=masks"):
        build_dataset({**config, "boxes": "masks"})
