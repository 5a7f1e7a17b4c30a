"""What every layout that is read from disk keeps to, and how damage is named: with file and line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.datasets import layouts
from tests.datasets.layouts import AUKLET, BIRDS, LAYOUTS, SNAKE, TENCH
from wsol import datasets
from wsol.datasets.annotations import are_boxes
from wsol.datasets.images import mask_fits
from wsol.datasets.sample import READERS
from wsol.errors import UserError
from wsol.io import conf_dir


@pytest.fixture(params=[*LAYOUTS, "TinyImageNet", "TinyImageNet train"])
def data(request: pytest.FixtureRequest, tmp_path: Path, any_checksum: None, write_tiny_imagenet: Any) -> Any:
    """A small copy of each layout, read."""
    (tmp_path / "data").mkdir()
    if request.param in LAYOUTS:
        return LAYOUTS[request.param](tmp_path / "data")
    return datasets.TinyImageNet(write_tiny_imagenet(tmp_path / "data"), "train" if "train" in request.param else "val")


def test_contract(data: datasets.Dataset) -> None:
    samples = list(data)
    assert type(data) is datasets.Dataset and len(samples) == len(data) > 0
    assert len({sample.sample_id for sample in samples}) == len(data)
    assert data.labels.dtype == np.int64 and data.labels.tolist() == [sample.label for sample in samples]
    assert all(type(sample.label) is int and 0 <= sample.label < len(data.classes) for sample in samples)
    assert len(data.ids) == len(data.classes) and all(type(text) is str for text in (*data.classes, *data.ids))
    assert data.role in ("", "train-weaksup", "train-fullsup", "test")
    for sample in samples:
        height, width = sample.read_image().shape[:2]
        assert sample.image_size in (None, (width, height))
        for mask in (sample.read_mask(), sample.read_ignore()):
            assert mask is None or (mask.dtype == bool and mask_fits(mask.shape[::-1], (width, height)))
        if sample.boxes is not None:
            assert sample.boxes.dtype == np.float64 and sample.boxes.shape[1:] == (4,) and len(sample.boxes)
            assert (sample.boxes >= 0).all() and (sample.boxes < [width, height, width, height]).all()
            assert (sample.boxes[:, :2] <= sample.boxes[:, 2:]).all()


def test_table_part_and_copy(data: datasets.Dataset) -> None:
    table, samples = data.table, list(data)
    for column in ("sample_id", "image_id", "label"):
        assert table[column].tolist() == [getattr(sample, column) for sample in samples]
    for row, sample in zip(table.itertuples(), samples, strict=True):
        assert row.image == (sample.image if isinstance(sample.image, Path) else None)
        assert (row.width, row.height) == (sample.image_size or (0, 0))
        assert np.array_equal(row.boxes, sample.boxes) if sample.boxes is not None else row.boxes is None
        assert (row.mask is None, row.ignore is None) == (sample.mask is None, sample.ignore is None)
    part = data.first(2)
    assert part.table["sample_id"].tolist() == table["sample_id"].tolist()[:2]
    assert (part.name, part.split, part.role, part.multilabel) == (data.name, data.split, data.role, data.multilabel)
    assert data[-1].sample_id == samples[-1].sample_id
    with pytest.raises(IndexError):
        data[len(data)]
    again = pickle.loads(pickle.dumps(data))
    assert [sample.sample_id for sample in again] == [sample.sample_id for sample in samples]


def test_every_reader_has_a_layout_here_and_a_file_of_its_own() -> None:
    assert {name.split()[0].rstrip(",") for name in LAYOUTS} | {"TinyImageNet"} == set(READERS)
    targets = {yaml.safe_load(path.read_text())["_target_"] for path in (conf_dir() / "dataset").glob("*.yaml")}
    assert targets == {f"wsol.datasets.{name}" for name in [*READERS, "Shapes"]}
    assert set(READERS) < set(datasets.__all__)


Written = Callable[[Path], Path]  # writes a layout, returns the folder that files are named from


def tiny(root: Path) -> Path:
    from tests.conftest import write_tiny_imagenet

    return write_tiny_imagenet(root)


def read_split(folder: Path, **options: Any) -> Any:
    return datasets.WSOLEvaluation(folder.parents[2], folder.parent.name, folder.name, **options)


WRITERS: dict[str, tuple[Written, Callable[..., Any]]] = {
    "CUB": (layouts.write_cub, datasets.CUB),
    "ILSVRC": (layouts.write_kaggle, datasets.ILSVRC),
    "WSOLEvaluation": (layouts.write_cubv2, read_split),
    "OpenImages": (layouts.write_openimages, read_split),
    "Tiny": (tiny, datasets.TinyImageNet),
    "VOC": (layouts.write_voc, lambda home: datasets.VOC(home.parents[1])),
    "Pet": (layouts.write_pets, lambda home: datasets.OxfordPet(home.parent)),
    "COCO": (lambda root: layouts.write_coco(root).parents[1], datasets.COCO),
}
PASSWD = "../../../etc/passwd"

# Layout, file, line, what stands there instead, and what of it (or of what it contradicts) must be named.
DAMAGE = [
    ("CUB", "images.txt", 2, f"2 {PASSWD}", PASSWD),
    ("CUB", "images.txt", 2, f"2 {BIRDS[0]}", "images.txt, line 1"),
    ("CUB", "bounding_boxes.txt", 2, "2 0.0 0.0 30.0", "x y width height"),
    ("CUB", "bounding_boxes.txt", 2, "9 0.0 0.0 30.0 24.0", "images.txt"),
    ("CUB", "image_class_labels.txt", 3, "3 7", "classes.txt"),
    ("CUB", "train_test_split.txt", 1, "1 2", "0 to 1"),
    ("CUB", "classes.txt", 2, f"1 {AUKLET}", "classes.txt, line 1"),
    ("ILSVRC", "LOC_val_solution.csv", 4, "ILSVRC2012_val_00000001", "ImageId,PredictionString"),
    ("ILSVRC", "LOC_val_solution.csv", 4, f"ILSVRC2012_val_00000001,{SNAKE} 1 2 3", "x0 y0 x1 y1"),
    ("ILSVRC", "LOC_val_solution.csv", 4, "ILSVRC2012_val_00000001,n00000000 1 2 3 4", "n00000000"),
    ("ILSVRC", "LOC_val_solution.csv", 4, f"ILSVRC2012_val_00000001,{SNAKE} 1 2 3 4 {TENCH} 1 2 3 4", TENCH),
    ("ILSVRC", "LOC_val_solution.csv", 4, f"ILSVRC2012_val_00000002,{SNAKE} 1 2 3 4", "csv, line 3"),
    ("ILSVRC", "LOC_val_solution.csv", 4, f"{PASSWD},{SNAKE} 1 2 3 4", PASSWD),
    ("ILSVRC", "LOC_synset_mapping.txt", 2, f"{TENCH} again", "txt, line 1"),
    ("WSOLEvaluation", "image_ids.txt", 2, PASSWD, PASSWD),
    ("WSOLEvaluation", "image_ids.txt", 3, BIRDS[0], "image_ids.txt, line 1"),
    ("WSOLEvaluation", "class_labels.txt", 1, f"{BIRDS[0]},1.5", "1.5"),
    ("WSOLEvaluation", "class_labels.txt", 1, f"{BIRDS[0]},-1", "at least 0"),
    ("WSOLEvaluation", "class_labels.txt", 2, f"{BIRDS[0]},0", "class_labels.txt, line 1"),
    ("WSOLEvaluation", "class_labels.txt", 1, "003.New/1.jpg,0", "image_ids.txt"),
    ("WSOLEvaluation", "image_sizes.txt", 2, f"{BIRDS[1]},0,24", "at least 1"),
    ("WSOLEvaluation", "localization.txt", 3, f"{BIRDS[2]},5,5,9", "image id,x0,y0,x1,y1"),
    ("OpenImages", "localization.txt", 1, f"val/0bt_c3/1cd9.jpg,{PASSWD},", PASSWD),
    ("OpenImages", "localization.txt", 1, f"val/0bt_c3/1cd9.jpg,a.png,{PASSWD}", PASSWD),
    ("OpenImages", "localization.txt", 2, "val/0bt_c3/1cd9.jpg,a.png,b.png", "b.png"),
    ("Tiny", "val/val_annotations.txt", 3, "val_0.JPEG n01443537 1 2 3", "file class"),
    ("Tiny", "val/val_annotations.txt", 3, f"{PASSWD} n01443537 1 2 3 4", PASSWD),
    ("Tiny", "val/val_annotations.txt", 3, "val_0.JPEG n01443537 1 2 3 x", "1 2 3 x"),
    ("Tiny", "val/val_annotations.txt", 3, "val_0.JPEG n09999999 1 2 3 4", "n09999999"),
    ("VOC", "ImageSets/Main/test.txt", 2, PASSWD, PASSWD),
    ("Pet", "annotations/test.txt", 3, "Abyssinian_205 1 1", "Abyssinian_205 1 1"),
    ("Pet", "annotations/test.txt", 3, f"{PASSWD} 1 1 1", PASSWD),
]
MISSING = [
    ("CUB", "images.txt"), ("CUB", "classes.txt"), ("WSOLEvaluation", "image_ids.txt"),
    ("WSOLEvaluation", "class_labels.txt"), ("Tiny", "val/val_annotations.txt"), ("Pet", "annotations/test.txt"),
    ("VOC", "ImageSets/Main/test.txt"), ("VOC", "Annotations/000001.xml"),
    ("COCO", "annotations/instances_val2017.json"),
]  # fmt: skip
WRONG_BOXES = [
    ("CUB", "bounding_boxes.txt", 1, "1 {} {} {} {}", [(0, 0, -3, 24), (-1, 0, 3, 24), (0, "inf", 30, 24)]),
    ("ILSVRC", "LOC_val_solution.csv", 4, f"ILSVRC2012_val_00000001,{SNAKE} {{}} {{}} {{}} {{}}",
     [(9, 2, 3, 4), (1, 2, "inf", 4), (-1, 2, 3, 4)]),
    ("WSOLEvaluation", "localization.txt", 3, f"{BIRDS[2]},{{}},{{}},{{}},{{}}",
     [(9, 5, 5, 9), (-1, 5, 5, 9), (5, 5, "nan", 9)]),
    ("Tiny", "val/val_annotations.txt", 3, "val_0.JPEG n01443537 {} {} {} {}",
     [(9, 2, 3, 4), (1, 9, 3, 4), (-1, 2, 3, 4), (1, 2, "nan", 4), (1, 2, "1e400", 4)]),
]  # fmt: skip


def replace_line(path: Path, line: int, text: str) -> None:
    lines = path.read_text().splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))


@pytest.mark.parametrize(("layout", "file"), MISSING)
def test_files_that_are_missing_are_named(tmp_path: Path, layout: str, file: str) -> None:
    write, read = WRITERS[layout]
    home = write(tmp_path / "data")
    (home / file).rename(home / "gone")
    with pytest.raises(UserError, match=Path(file).name):
        read(home)


@pytest.mark.parametrize("name", ["CUB", "ILSVRC", "TinyImageNet", "VOC", "OxfordPet", "CIFAR10", "STL10"])
def test_splits_that_are_none_are_named(name: str) -> None:
    with pytest.raises(UserError, match=r"dataset\.split=dev: "):
        READERS[name]("nowhere", "dev")


@pytest.mark.parametrize(("layout", "file", "line", "text", "culprit"), DAMAGE)
def test_damage_is_named(tmp_path: Path, layout: str, file: str, line: int, text: str, culprit: str) -> None:
    write, read = WRITERS[layout]
    path = write(tmp_path / "data") / file
    home = path.parents[file.count("/")]
    replace_line(path, line, text)
    with pytest.raises(UserError) as error:
        read(home)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert culprit in str(error.value)


@pytest.mark.parametrize(
    ("layout", "file", "line", "text"),
    [(*entry[:3], entry[3].format(*box)) for entry in WRONG_BOXES for box in entry[4]],
)
def test_wrong_boxes_are_refused_with_their_line_or_kept_for_a_check(
    tmp_path: Path, layout: str, file: str, line: int, text: str
) -> None:
    write, read = WRITERS[layout]
    path = write(tmp_path / "data") / file
    home = path.parents[file.count("/")]
    count = len(read(home))
    replace_line(path, line, text)
    with pytest.raises(UserError) as error:
        read(home)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    kept = read(home, strict=False)
    boxes = np.concatenate([sample.boxes for sample in kept])
    assert len(kept) == count and not are_boxes(boxes).all()
    assert kept.wrong_box == str(error.value)
