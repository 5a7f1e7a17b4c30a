"""Tiny-ImageNet's layout, whole, in part, and broken in the ways that downloads are."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wsol.datasets import TinyImageNet
from wsol.errors import UserError

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "tiny-imagenet-20"
GOLDFISH, SALAMANDER, TABBY = "n01443537", "n01629819", "n02123045"


def test_train(tiny_imagenet: Path) -> None:
    data = TinyImageNet(tiny_imagenet, "train")
    assert (data.name, data.split, len(data)) == ("tiny_imagenet", "train", 6)
    assert data.class_ids == data.ids == (GOLDFISH, SALAMANDER, TABBY)
    assert data.classes == ("goldfish, Carassius auratus", "European fire salamander", "tabby, tabby cat")
    assert data.labels.tolist() == [sample.label for sample in data] == [0, 0, 1, 1, 2, 2]
    sample, row = data[1], (tiny_imagenet / "train" / GOLDFISH / f"{GOLDFISH}_boxes.txt").read_text().split()
    assert sample.sample_id == f"train/{GOLDFISH}/images/{GOLDFISH}_1.JPEG"
    assert sample.boxes.tolist() == [[float(value) for value in row[6:10]]]
    assert sample.read_image().shape == (64, 64, 3)


def test_val(tiny_imagenet: Path) -> None:
    data = TinyImageNet(tiny_imagenet)
    rows = [line.split() for line in (tiny_imagenet / "val/val_annotations.txt").read_text().splitlines()]
    assert [sample.sample_id for sample in data] == [f"val/images/{row[0]}" for row in rows]
    assert [data.class_ids[sample.label] for sample in data] == [row[1] for row in rows]
    assert np.array_equal(np.concatenate([sample.boxes for sample in data]), np.float64([r[2:] for r in rows]))
    assert data.labels.dtype == np.int64
    assert all(sample.read_image().dtype == np.uint8 for sample in data)


@pytest.mark.parametrize("split", ["train", "val"])
def test_some_classes_in_the_order_asked_for(tiny_imagenet: Path, split: str) -> None:
    data = TinyImageNet(tiny_imagenet, split, classes=[TABBY, GOLDFISH])
    assert data.class_ids == (TABBY, GOLDFISH)
    assert data.classes == ("tabby, tabby cat", "goldfish, Carassius auratus")
    assert len(data) == 4
    assert sorted(data.labels.tolist()) == [0, 0, 1, 1]
    if split == "train":
        assert all(f"/{data.class_ids[s.label]}/" in s.sample_id for s in data)


def test_one_class_by_its_bare_name(tiny_imagenet: Path) -> None:
    assert TinyImageNet(tiny_imagenet, classes=TABBY).class_ids == (TABBY,)


def test_without_words_names_are_ids(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "words.txt").unlink()
    data = TinyImageNet(tiny_imagenet)
    assert data.classes == data.class_ids


def test_without_wnids_the_folders_count(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "wnids.txt").unlink()
    assert TinyImageNet(tiny_imagenet).class_ids == (GOLDFISH, SALAMANDER, TABBY)


def test_a_class_listed_twice_is_one_class(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "wnids.txt").write_text(f"{GOLDFISH}\r\n{TABBY}\r\n{SALAMANDER}\r\n{TABBY}\r\n")
    assert TinyImageNet(tiny_imagenet).class_ids == (GOLDFISH, SALAMANDER, TABBY)


def test_home_folder_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_tiny_imagenet: Callable[..., Path]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_tiny_imagenet(tmp_path / "data", train=1, val=1)
    assert len(TinyImageNet("~/data")) == 3


def test_missing_root(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.root=.*nowhere: no such folder"):
        TinyImageNet(tmp_path / "nowhere")


def test_another_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither wnids.txt nor train/"):
        TinyImageNet(tmp_path)


@pytest.mark.parametrize("split", ["test", "Val", ""])
def test_unknown_split(tiny_imagenet: Path, split: str) -> None:
    with pytest.raises(UserError, match=rf"dataset\.split={split}: .*train and val"):
        TinyImageNet(tiny_imagenet, split)


@pytest.mark.parametrize(
    ("split", "gone"), [("val", "val/val_annotations.txt"), ("train", f"train/{SALAMANDER}/{SALAMANDER}_boxes.txt")]
)
def test_missing_annotations_name_the_file(tiny_imagenet: Path, split: str, gone: str) -> None:
    (tiny_imagenet / gone).unlink()
    with pytest.raises(UserError, match=f"{gone}: no such file"):
        TinyImageNet(tiny_imagenet, split)


def test_empty_split(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "val/val_annotations.txt").write_text("\n")
    with pytest.raises(UserError, match="no image of the 3 classes"):
        TinyImageNet(tiny_imagenet)


def test_class_in_the_annotations_that_is_not_listed(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "wnids.txt").write_text(f"{GOLDFISH}\n{TABBY}\n")
    with pytest.raises(UserError, match=rf"val_annotations\.txt, line 2: class '{SALAMANDER}' is not in .*wnids"):
        TinyImageNet(tiny_imagenet)
    shutil.rmtree(tiny_imagenet / "train" / SALAMANDER)
    assert len(TinyImageNet(tiny_imagenet, "train")) == 4


def test_unknown_class_asked_for(tiny_imagenet: Path) -> None:
    with pytest.raises(UserError, match=f"'n01443536' .*nearest: {GOLDFISH}"):
        TinyImageNet(tiny_imagenet, classes=["n01443536"])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (f"val_0.JPEG {GOLDFISH} 1 2 3", "wanted 6 columns"),
        (f"val 0.JPEG {GOLDFISH} 1 2 3 4", "wanted 6 columns"),
        (f"../../secret.JPEG {GOLDFISH} 1 2 3 4", "a file name first"),
        (f"/etc/passwd {GOLDFISH} 1 2 3 4", "a file name first"),
        (f".. {GOLDFISH} 1 2 3 4", "a file name first"),
        (f"val_0.JPEG {GOLDFISH} 1 2 3 x", "'1 2 3 x' is not four numbers"),
        (f"val_0.JPEG {GOLDFISH} 9 2 3 4", "'9 2 3 4' is inverted, negative or not finite"),
        (f"val_0.JPEG {GOLDFISH} 1 9 3 4", "inverted"),
        (f"val_0.JPEG {GOLDFISH} -1 2 3 4", "negative"),
        (f"val_0.JPEG {GOLDFISH} 1 2 nan 4", "inverted"),
        (f"val_0.JPEG {GOLDFISH} 1 2 inf 4", "inverted"),
    ],
)
def test_bad_line_names_file_and_line(tiny_imagenet: Path, line: str, why: str) -> None:
    path = tiny_imagenet / "val" / "val_annotations.txt"
    path.write_text(f"val_1.JPEG\t{TABBY}\t0\t0\t63\t63\n\n" + line.replace(" ", "\t") + "\n")
    with pytest.raises(UserError) as error:
        TinyImageNet(tiny_imagenet)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert why in str(error.value)


def test_box_of_one_pixel_is_a_box(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "val/val_annotations.txt").write_text(f"val_0.JPEG\t{TABBY}\t63\t5\t63\t5\n")
    assert TinyImageNet(tiny_imagenet)[0].boxes.tolist() == [[63, 5, 63, 5]]


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_file_that_is_no_text_is_named(tiny_imagenet: Path, name: str) -> None:
    (tiny_imagenet / name).write_bytes(b"\xff\xfe\x00binary\xc3")
    with pytest.raises(UserError, match=f"{name} can't be read as UTF-8"):
        TinyImageNet(tiny_imagenet)


def test_image_that_is_not_there_is_named_when_read(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "val/images/val_2.JPEG").unlink()
    data = TinyImageNet(tiny_imagenet)
    assert data[1].read_image().shape == (64, 64, 3)
    with pytest.raises(UserError, match=r"'val/images/val_2\.JPEG' is missing"):
        data[2].read_image()


@pytest.mark.skipif(not REAL.is_dir(), reason="the real pictures are not here")
@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("val", 1_000)])
def test_real_pictures(split: str, count: int) -> None:
    data = TinyImageNet(REAL, split)
    assert len(data) == count
    assert len(data.classes) == 20
    assert data.classes[data.class_ids.index(TABBY)].startswith("tabby")
    assert np.bincount(data.labels).tolist() == [count // 20] * 20
    boxes = np.concatenate([data[i].boxes for i in range(0, count, 7)])
    assert boxes.min() >= 0
    assert boxes.max() <= 64
    assert (boxes[:, 2:] >= boxes[:, :2]).all()
    assert {data[i].read_image().shape for i in range(0, count, count // 20)} == {(64, 64, 3)}
