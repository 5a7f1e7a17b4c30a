"""ILSVRC as Kaggle's archive, image-net.org's archives and the devkit unpack, and Tiny-ImageNet: whole and in part."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from tests.datasets import layouts
from tests.datasets.layouts import GOLDFISH, SNAKE, TENCH, VAL, write_devkit, write_image, write_voc_xml
from wsol.datasets import ILSVRC, Dataset, TinyImageNet
from wsol.errors import UserError
from wsol.io import imagenet_classes

IMAGES = "ILSVRC/Data/CLS-LOC"
TINY = ("n01443537", "n01629819", "n02123045")


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    return layouts.write_kaggle(tmp_path / "kaggle")


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    return layouts.write_archives(tmp_path / "imagenet")


def check_val(data: Dataset, boxes: bool = True) -> None:
    """Whatever the layout: the same samples."""
    assert (data.name, data.split, data.role) == ("ilsvrc", "val", "test")
    assert [sample.sample_id for sample in data] == [f"val/{name}.JPEG" for name in VAL]
    assert [data.class_ids[label] for label in data.labels] == [SNAKE, TENCH, SNAKE]
    corners = [[list(box[1:]) for box in objects] if boxes else None for objects in VAL.values()]
    assert [sample.boxes if sample.boxes is None else sample.boxes.tolist() for sample in data] == corners


def test_kaggle_with_and_without_its_csv(kaggle: Path) -> None:
    data = ILSVRC(kaggle)
    check_val(data)
    assert data.class_ids == (TENCH, GOLDFISH, SNAKE)
    assert data.classes == ("tench, Tinca tinca", "goldfish, Carassius auratus", "sea snake")
    check_val(ILSVRC(kaggle / "ILSVRC"))
    (kaggle / "LOC_val_solution.csv").unlink()
    check_val(ILSVRC(kaggle))
    assert [sample.image_size for sample in ILSVRC(kaggle)] == [(32, 24)] * 3


def test_archives_and_boxes_in_a_folder_of_their_own(archives: Path) -> None:
    check_val(ILSVRC(archives))
    data = ILSVRC(archives)
    assert data.class_ids == tuple(imagenet_classes()) and data.classes[:2] == ("tench", "goldfish")
    folder = archives / "ILSVRC2012_bbox_val_v3" / "val"
    folder.mkdir(parents=True)
    for path in (archives / "val").glob("*.xml"):
        path.rename(folder / path.name)
    check_val(ILSVRC(archives))
    check_val(ILSVRC(archives.parent, images=archives / "val", annotations=folder))
    (folder / "ILSVRC2012_val_00000002.xml").write_text("<annotation></annotation>")
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000002\.JPEG"):
        ILSVRC(archives)


def test_val_in_class_folders(kaggle: Path) -> None:
    folder = kaggle / IMAGES / "val"
    for name, objects in VAL.items():
        (folder / objects[0][0]).mkdir(exist_ok=True)
        (folder / f"{name}.JPEG").rename(folder / objects[0][0] / f"{name}.JPEG")
    check_val(ILSVRC(kaggle))
    assert ILSVRC(kaggle)[0].read_image().shape == (24, 32, 3)
    (kaggle / "LOC_val_solution.csv").unlink()
    (kaggle / "ILSVRC/Annotations").rename(kaggle / "gone")
    check_val(ILSVRC(kaggle), boxes=False)


@pytest.mark.parametrize("gone", ["", "val/ILSVRC2012_val_00000002.JPEG"])
def test_without_images(kaggle: Path, gone: str) -> None:
    (kaggle / IMAGES / gone).rename(kaggle / "gone")
    data = ILSVRC(kaggle)
    check_val(data)
    with pytest.raises(UserError, match=r"CLS-LOC/val/ILSVRC2012_val_00000002\.JPEG"):
        data[1].read_image()


def test_devkit_tells_the_classes(tmp_path: Path) -> None:
    folder = write_devkit(tmp_path)
    check_val(ILSVRC(tmp_path), boxes=False)
    (folder / "map_clsloc.txt").unlink()  # the numbers alone mean nothing
    order = [(1, SNAKE, "sea_snake"), (2, GOLDFISH, "goldfish"), (3, TENCH, "tench")]
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
    savemat(folder / "meta.mat", {"synsets": np.array(order, kinds).reshape(-1, 1)})
    check_val(ILSVRC(tmp_path), boxes=False)
    write_image(tmp_path / "val" / "ILSVRC2012_val_00000004.JPEG", (32, 24))
    with pytest.raises(UserError, match="ILSVRC2012_val_00000004"):
        ILSVRC(tmp_path)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("7\n3\n1\n")
    with pytest.raises(UserError, match=r"ILSVRC2012_val_0000000[14] .*2 such"):
        ILSVRC(tmp_path)


def test_train_with_boxes_where_asked_for(kaggle: Path) -> None:
    data = ILSVRC(kaggle, "train")
    assert (data.split, data.role, len(data)) == ("train", "train-weaksup", 4)
    ids = [f"train/{wnid}/{wnid}_{n}.JPEG" for wnid, n in ((TENCH, 18), (TENCH, 36), (GOLDFISH, 2), (SNAKE, 5))]
    assert sorted(sample.sample_id for sample in data) == sorted(ids)
    assert all(data.class_ids[sample.label] in sample.sample_id and sample.boxes is None for sample in data)
    data = ILSVRC(kaggle, "train", annotations=kaggle / "LOC_train_solution.csv")
    assert [(s.sample_id, s.boxes.tolist()) for s in data] == [(f"train/{TENCH}/{TENCH}_36.JPEG", [[1, 2, 3, 4]])]
    folder = kaggle / "ILSVRC/Annotations/CLS-LOC/train"  # some names in there are words
    objects = [("Scottish_deerhound", 0, 0, 5, 5, 0), (TENCH, 0, 0, 1, 1, 0)]
    write_voc_xml(folder / SNAKE / f"{SNAKE}_5.xml", objects, (32, 24))
    data = ILSVRC(kaggle, "train", annotations=folder)
    assert [(s.sample_id, s.boxes.tolist()) for s in data] == [(f"train/{SNAKE}/{SNAKE}_5.JPEG", [[0, 0, 5, 5]])]


def test_some_classes_in_the_order_asked_for(kaggle: Path) -> None:
    data = ILSVRC(kaggle, classes=[SNAKE, GOLDFISH])
    assert (data.classes, data.labels.tolist()) == (("sea snake", "goldfish, Carassius auratus"), [0, 0])
    with pytest.raises(UserError, match="split val.* 1 class"):
        ILSVRC(kaggle, classes=[GOLDFISH])


@pytest.mark.parametrize(
    ("root", "options", "culprit"),
    [("nowhere", {}, "nowhere.*split val.* 1,000 classes"), ("", {"annotations": "/nowhere.csv"}, "/nowhere.csv")],
)
def test_places_that_are_not_there(kaggle: Path, root: str, options: dict[str, str], culprit: str) -> None:
    with pytest.raises(UserError, match=culprit):
        ILSVRC(kaggle / root, **options)


FIRST = "ILSVRC2012_val_00000001.JPEG"


@pytest.mark.parametrize(
    ("split", "change", "culprit"),
    [
        ("val", lambda home: write_image(home / "val/ILSVRC2012_val_00000004.JPEG", (32, 24)), "_00000004.JPEG"),
        ("val", lambda home: (home / f"val/{GOLDFISH}").mkdir()
         or (home / "val" / FIRST).rename(home / f"val/{GOLDFISH}/{FIRST}"), "csv, line 4: .*" + GOLDFISH),
        ("train", lambda home: write_image(home / "train/stray.JPEG", (32, 24)), "stray.JPEG"),
        ("train", lambda home: write_image(home / "train/n99999999/n99999999_1.JPEG", (32, 24)), "n99999999_1"),
    ],
    ids=["no annotation", "two classes", "no class folder", "unknown class"],
)  # fmt: skip
def test_images_and_annotations_that_disagree(kaggle: Path, split: str, change: Callable, culprit: str) -> None:
    change(kaggle / IMAGES)
    with pytest.raises(UserError, match=culprit):
        ILSVRC(kaggle, split)


@pytest.mark.parametrize("split", ["train", "val"])
def test_tiny_imagenet_as_written(tiny_imagenet: Path, split: str) -> None:
    data = TinyImageNet(tiny_imagenet, split)
    assert (data.name, data.split, data.class_ids) == ("tiny_imagenet", split, TINY)
    assert data.classes == ("goldfish, Carassius auratus", "European fire salamander", "tabby, tabby cat")
    assert data.role == {"train": "train-weaksup", "val": "test"}[split]
    rows = {}
    for path in tiny_imagenet.rglob("*_boxes.txt" if split == "train" else "val_annotations.txt"):
        for name, *words in map(str.split, path.read_text().splitlines()):
            wnid = path.parent.name if split == "train" else words[0]
            rows[(path.parent / "images" / name).relative_to(tiny_imagenet).as_posix()] = wnid, words[-4:]
    read = {s.sample_id: (data.class_ids[s.label], [f"{v:.0f}" for v in s.boxes[0]]) for s in data}
    assert read == rows and len(data) == 6
    part = TinyImageNet(tiny_imagenet, split, classes=[TINY[2], TINY[0]])
    assert (part.class_ids, sorted(part.labels.tolist())) == ((TINY[2], TINY[0]), [0, 0, 1, 1])


def test_tiny_imagenet_of_other_content(tiny_imagenet: Path) -> None:
    (tiny_imagenet / "val/val_annotations.txt").write_text(f"val_0.JPEG\t{TINY[2]}\t63\t5\t63\t5\n")
    assert TinyImageNet(tiny_imagenet)[0].boxes.tolist() == [[63, 5, 63, 5]]
    (tiny_imagenet / "val/val_annotations.txt").write_text("\n")
    with pytest.raises(UserError, match=f"{tiny_imagenet}.*val.* 3 classes"):
        TinyImageNet(tiny_imagenet)
    (tiny_imagenet / "words.txt").unlink()
    (tiny_imagenet / "wnids.txt").write_text("\r\n".join([*TINY, TINY[0]]))
    data = TinyImageNet(tiny_imagenet, "train")
    assert data.class_ids == TINY and data.classes == ("goldfish", "European fire salamander", "tabby")
