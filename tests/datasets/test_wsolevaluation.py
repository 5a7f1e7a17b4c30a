"""The layout metadata/<set>/<split>: classes' names, masks, parts, and the real annotations' golden figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import wsol
from tests.datasets.layouts import ALBATROSS, AUKLET, BIRDS, write_cubv2, write_image, write_openimages, write_split
from wsol.datasets import WSOLEvaluation
from wsol.errors import UserError
from wsol.io import imagenet_classes
from wsol.models import Classifier

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "wsolevaluation"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not beside this checkout")


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """CUB val: three birds in two classes."""
    return write_cubv2(tmp_path).parents[2]


def test_cub(cub: Path) -> None:
    data = WSOLEvaluation(cub, "CUB", "val")
    assert (data.name, data.split, data.role, len(data)) == ("CUB", "val", "train-fullsup", 3)
    assert (data.class_ids, data.classes) == ((ALBATROSS, AUKLET), ("Black footed Albatross", "Crested Auklet"))
    assert [sample.sample_id for sample in data] == list(BIRDS)
    assert data[0].boxes.tolist() == [[2, 3, 20, 21], [5, 5, 9, 9]]
    assert data[2].boxes.tolist() == [[4, 4, 4, 4]]
    (cub / "dataset" / "CUB" / BIRDS[0]).unlink()
    assert WSOLEvaluation(cub, "CUB", "val")[0].size() == (32, 24)  # with no image on the disk
    with pytest.raises(UserError, match=r"Bird_0046_18\.jpg"):
        data[0].read_image()
    write_image(cub / "elsewhere" / BIRDS[0], (32, 24))
    assert WSOLEvaluation(cub, "CUB", "val", images=cub / "elsewhere")[0].read_image().shape == (24, 32, 3)


@pytest.mark.parametrize(
    ("split", "role"), [("train", "train-weaksup"), ("val", "train-fullsup"), ("test", "test"), ("hard", "")]
)
def test_roles(tmp_path: Path, split: str, role: str) -> None:
    write_split(tmp_path, "CUB", split, [(BIRDS[0], 0)])
    assert WSOLEvaluation(tmp_path, "CUB", split).role == role


def test_without_localization_there_are_no_boxes(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "CUB", "train", [(BIRDS[0], 0)], size="")
    for _ in range(2):
        sample = WSOLEvaluation(tmp_path, "CUB", "train")[0]
        assert (sample.boxes, sample.mask, sample.image_size) == (None, None, None)
        for name in ("localization", "image_sizes"):
            (folder / f"{name}.txt").unlink(missing_ok=True)


def test_classes_without_images_here_are_named_by_other_splits(tmp_path: Path) -> None:
    write_split(tmp_path, "CUB", "val", [(BIRDS[2], 1)])
    assert WSOLEvaluation(tmp_path, "CUB", "val").class_ids == ("0", AUKLET)
    write_split(tmp_path, "CUB", "train", [(BIRDS[0], 0), ("004.Groove_billed_Ani/a.jpg", 3)])
    data = WSOLEvaluation(tmp_path, "CUB", "val")
    assert data.class_ids == (ALBATROSS, AUKLET, "2", "004.Groove_billed_Ani")
    assert data.classes == ("Black footed Albatross", "Crested Auklet", "2", "Groove billed Ani")
    assert data.labels.tolist() == [1]


def test_classes_of_other_sets(tmp_path: Path) -> None:
    write_split(tmp_path, "mine", "test", [("test/cat/a.png", 1), ("test/dog/a.png", 0)])
    assert WSOLEvaluation(tmp_path, "mine").classes == ("dog", "cat")
    write_split(tmp_path, "flat", "test", [("a.png", 1), ("b.png", 0), ("c.png", 1)])
    assert WSOLEvaluation(tmp_path, "flat").class_ids == ("0", "1")


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train", [("train/n01443537/n01443537_2.JPEG", 1), ("train/n01440764/n01440764_18.JPEG", 0)]),
        ("val", [("val2/1/0.jpeg", 1), ("val2/999/3.jpeg", 999)]),
        ("test", [("val/ILSVRC2012_val_00000001.JPEG", 65), ("val/ILSVRC2012_val_00000293.JPEG", 0)]),
    ],
)
def test_labels_of_ilsvrc_are_sorted_wordnet_ids(tmp_path: Path, split: str, rows: list[tuple[str, int]]) -> None:
    write_split(tmp_path, "ILSVRC", split, rows)
    data = WSOLEvaluation(tmp_path, "ILSVRC", split)
    assert data.class_ids == tuple(imagenet_classes())
    assert (data.classes[0], data.classes[65]) == ("tench", "sea snake")
    assert data.labels.tolist() == [label for _, label in rows]


@pytest.mark.parametrize(
    ("image", "label", "culprit"),
    [
        ("train/n01443537/n01443537_2.JPEG", 0, "n01440764"),
        ("val2/7/0.jpeg", 8, "n01514859"),
        ("val/ILSVRC2012_val_00000001.JPEG", 1000, "0 to 999"),
    ],
)
def test_labels_of_ilsvrc_that_mean_something_else(tmp_path: Path, image: str, label: int, culprit: str) -> None:
    path = write_split(tmp_path, "ILSVRC", "val", [(image, label)]) / "class_labels.txt"
    with pytest.raises(UserError, match=f"^{path}, line 1: .*{image}.*{culprit}"):
        WSOLEvaluation(tmp_path, "ILSVRC", "val")


def test_openimages(tmp_path: Path) -> None:
    data = WSOLEvaluation(write_openimages(tmp_path).parents[2], "OpenImages", "val")
    assert data.class_ids == data.classes == ("0bt_c3", "0by6g")
    first, second = data
    assert first.boxes is None
    assert first.read_mask().sum() == 4 * 4 + 4 * 12  # the union of its instances
    assert first.read_ignore().sum() == 8 * 32
    assert (second.read_mask().sum(), second.read_ignore()) == (4 * 32, None)


def test_masks_of_another_resolution_are_scored_but_not_of_another_aspect(
    tmp_path: Path, classifier: Classifier
) -> None:
    write_openimages(tmp_path)
    data = WSOLEvaluation(tmp_path, "OpenImages", "val")
    options = {"methods": ["center"], "protocols": ["choe2020"], "class_map": "position", "progress": False}
    row = wsol.evaluate(data, classifier, **options).summary.iloc[0]
    assert (row["dataset"], row["split"], row["n_images"]) == ("OpenImages", "val", 2)
    assert 0 < row["pxap"] < 100
    write_image(tmp_path / "dataset/OpenImages/val/0by6g/4903_a.png", np.ones((32, 24), bool))
    with pytest.raises(UserError, match=r"4903\.jpg.* 24 x 32 .* 16 x 12"):
        wsol.evaluate(data, classifier, **options)


def test_proxy_sets(cub: Path) -> None:
    data = WSOLEvaluation(cub, "CUB", "val", proxy=True)
    assert [sample.sample_id for sample in data] == [BIRDS[2], BIRDS[0]]
    assert (data.labels.tolist(), len(data.classes)) == ([1, 0], 2)
    assert [sample.boxes.tolist() for sample in data] == [[[4, 4, 4, 4]], [[2, 3, 20, 21], [5, 5, 9, 9]]]
    (cub / "metadata/CUB/val/image_ids_proxy.txt").write_text("009.New/a.jpg")
    with pytest.raises(UserError, match=r"class_labels\.txt .*009\.New/a\.jpg"):
        WSOLEvaluation(cub, "CUB", "val", proxy=True)


def test_so_many_of_each_class(cub: Path) -> None:
    draws = [WSOLEvaluation(cub, "CUB", "val", num_val_sample_per_class=1, seed=seed) for seed in (0, 0, 1, 2, 3, 4)]
    names = [[sample.sample_id for sample in data] for data in draws]
    assert all(data.labels.tolist() == [sample.label for sample in data] == [0, 1] for data in draws)
    assert names[0] == names[1] and len(set(map(tuple, names))) > 1
    boxes = {sample.sample_id: sample.boxes.tolist() for sample in WSOLEvaluation(cub, "CUB", "val")}
    assert all(sample.boxes.tolist() == boxes[sample.sample_id] for data in draws for sample in data)
    with pytest.raises(ValueError, match="larger sample than population"):
        WSOLEvaluation(cub, "CUB", "val", num_val_sample_per_class=2)
    write_split(cub, "CUB", "test", [(BIRDS[0], 0), (BIRDS[1], 0)])  # other splits are never drawn from
    assert len(WSOLEvaluation(cub, "CUB", "test", num_val_sample_per_class=1)) == 2


@real
def test_real_cub() -> None:
    data = WSOLEvaluation(REAL, "CUB", "val")
    assert (len(data), len(data.classes), data.role) == (1000, 200, "train-fullsup")
    assert data.class_ids[199] == "200.Common_Yellowthroat"
    assert sum(len(sample.boxes) for sample in data) == 1000
    sample = data[0]
    assert (sample.sample_id, sample.size()) == ("001.Black_footed_Albatross/30107316117.jpg", (560, 419))
    assert sample.boxes.tolist() == [[176, 136, 459, 291]]
    assert data[-1].boxes.tolist() == [[376, 214, 696, 494]]


@real
def test_real_ilsvrc() -> None:
    data = WSOLEvaluation(REAL, "ILSVRC", "val")
    assert (len(data), len(data.classes)) == (10_000, 1000)
    assert np.bincount(data.labels).tolist() == [10] * 1000
    samples = list(data)
    assert sum(len(sample.boxes) for sample in samples) == 18_532
    assert all(((s.boxes >= 0) & (s.boxes < [*s.size(), *s.size()])).all() for s in samples)
    assert samples[2].boxes.tolist() == [[28, 94, 485, 303]]
    chosen = WSOLEvaluation(REAL, "ILSVRC", "val", num_val_sample_per_class=5)
    assert np.bincount(chosen.labels).tolist() == [5] * 1000
