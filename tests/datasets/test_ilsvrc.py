"""ILSVRC as Kaggle's archive, image-net.org's archives and the devkit unpack: whole, in part, and broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from wsol.commands.options import compose_application
from wsol.config import build_dataset
from wsol.datasets import ILSVRC
from wsol.datasets.box_faults import wrong_boxes_kept
from wsol.datasets.classes import imagenet_wnids, map_classes
from wsol.errors import UserError

TENCH, SNAKE, GOLDFISH = "n01440764", "n01751748", "n01443537"
# What the first images of val show, as annotated: here of 32 × 24.
VAL = {
    "ILSVRC2012_val_00000001": (SNAKE, [(11, 8, 30, 19)]),
    "ILSVRC2012_val_00000002": (TENCH, [(0, 0, 31, 23), (4, 4, 9, 9)]),
    "ILSVRC2012_val_00000003": (SNAKE, [(1, 2, 3, 4)]),
}
TRAIN = {TENCH: (18, 36), SNAKE: (5,), GOLDFISH: (2,)}


def write_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(path, "JPEG")


def xml(name: str, objects: Sequence[tuple[str, tuple[float, ...]]]) -> str:
    """One annotation as the archives have it."""
    boxes = "".join(
        f"\t<object>\n\t\t<name>{wnid}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{x0}</xmin>\n\t\t\t<ymin>{y0}</ymin>\n"
        f"\t\t\t<xmax>{x1}</xmax>\n\t\t\t<ymax>{y1}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for wnid, (x0, y0, x1, y1) in objects
    )
    return (
        f"<annotation>\n\t<folder>val</folder>\n\t<filename>{name}</filename>\n\t<source>\n"
        f"\t\t<database>ILSVRC_2012</database>\n\t</source>\n\t<size>\n\t\t<width>32</width>\n\t\t<height>24</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n{boxes}</annotation>\n"
    )


def write_xml(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (wnid, boxes) in VAL.items():
        (folder / f"{name}.xml").write_text(xml(name, [(wnid, box) for box in boxes]))


def write_solution(path: Path) -> None:
    rows = [
        f"{name},{' '.join(f'{wnid} {x0} {y0} {x1} {y1}' for x0, y0, x1, y1 in boxes)} \n"
        for name, (wnid, boxes) in reversed(VAL.items())
    ]
    path.write_text("ImageId,PredictionString\n" + "".join(rows))


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """`ILSVRC/Data`, `ILSVRC/Annotations` and the files that lie beside `ILSVRC/`."""
    root = tmp_path / "kaggle"
    for wnid, numbers in TRAIN.items():
        for number in numbers:
            write_image(root / "ILSVRC/Data/CLS-LOC/train" / wnid / f"{wnid}_{number}.JPEG")
    for name in VAL:
        write_image(root / "ILSVRC/Data/CLS-LOC/val" / f"{name}.JPEG")
    write_xml(root / "ILSVRC/Annotations/CLS-LOC/val")
    write_solution(root / "LOC_val_solution.csv")
    (root / "LOC_synset_mapping.txt").write_text(
        f"{TENCH} tench, Tinca tinca\n{GOLDFISH} goldfish, Carassius auratus\n{SNAKE} sea snake\n"
    )
    return root


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """`val/` flat, with the boxes' archive unpacked over it, and nothing else."""
    root = tmp_path / "imagenet"
    for name in VAL:
        write_image(root / "val" / f"{name}.JPEG")
    write_xml(root / "val")
    return root


def check_val(data: ILSVRC) -> None:
    """Whatever the layout: the same samples."""
    assert (data.name, data.split, data.role) == ("ilsvrc", "val", "test")
    assert [sample.sample_id for sample in data] == [f"val/{name}.JPEG" for name in VAL]
    assert [data.class_ids[label] for label in data.labels] == [wnid for wnid, _ in VAL.values()]
    assert data.labels.tolist() == [sample.label for sample in data]
    assert [sample.boxes.tolist() for sample in data] == [[list(box) for box in boxes] for _, boxes in VAL.values()]


def test_kaggle(kaggle: Path) -> None:
    data = ILSVRC(kaggle)
    check_val(data)
    assert data.class_ids == (TENCH, GOLDFISH, SNAKE)
    assert data.classes == ("tench, Tinca tinca", "goldfish, Carassius auratus", "sea snake")
    assert all(sample.read_image().shape == (24, 32, 3) for sample in data)
    check_val(ILSVRC(kaggle / "ILSVRC"))


def test_kaggle_without_its_csv(kaggle: Path) -> None:
    (kaggle / "LOC_val_solution.csv").unlink()
    data = ILSVRC(kaggle)
    check_val(data)
    assert [sample.image_size for sample in data] == [(32, 24)] * 3


def test_archives(archives: Path) -> None:
    data = ILSVRC(archives)
    check_val(data)
    assert data.class_ids == imagenet_wnids()
    assert data.classes[:2] == ("tench", "goldfish")
    by_id = map_classes(data.classes, data.ids, None, imagenet_wnids(), 1000)
    assert (by_id.how, by_id.to_model.tolist()) == ("id", list(range(1000)))


def test_boxes_in_an_archive_of_their_own(archives: Path) -> None:
    folder = archives / "ILSVRC2012_bbox_val_v3" / "val"
    folder.mkdir(parents=True)
    for path in (archives / "val").glob("*.xml"):
        path.rename(folder / path.name)
    check_val(ILSVRC(archives))
    check_val(ILSVRC(archives.parent, images=archives / "val", annotations=folder))


def test_val_in_class_folders(kaggle: Path) -> None:
    folder = kaggle / "ILSVRC/Data/CLS-LOC/val"
    for name, (wnid, _) in VAL.items():
        (folder / wnid).mkdir(exist_ok=True)
        (folder / f"{name}.JPEG").rename(folder / wnid / f"{name}.JPEG")
    data = ILSVRC(kaggle)
    check_val(data)
    assert data[0].read_image().shape == (24, 32, 3)
    (kaggle / "LOC_val_solution.csv").unlink()
    (kaggle / "ILSVRC/Annotations").rename(kaggle / "gone")
    without = ILSVRC(kaggle)
    assert without.labels.tolist() == data.labels.tolist()
    assert without[0].boxes is None


def test_without_images(kaggle: Path) -> None:
    (kaggle / "ILSVRC/Data").rename(kaggle / "gone")
    data = ILSVRC(kaggle)
    check_val(data)
    with pytest.raises(UserError, match=r"no file .*CLS-LOC/val/ILSVRC2012_val_00000001\.JPEG"):
        data[0].read_image()


def test_one_image_that_is_missing(kaggle: Path) -> None:
    (kaggle / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000002.JPEG").unlink()
    data = ILSVRC(kaggle)
    check_val(data)
    with pytest.raises(UserError, match="ILSVRC2012_val_00000002.JPEG' is missing"):
        data[1].read_image()


def write_devkit(root: Path, table: str) -> Path:
    """The devkit numbers classes in an order of its own: here the snake is 1, the goldfish 2, the tench 3."""
    folder = root / "ILSVRC2012_devkit_t12" / "data"
    folder.mkdir(parents=True)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n3\n1\n")
    order = [(1, SNAKE, "sea_snake"), (2, GOLDFISH, "goldfish"), (3, TENCH, "tench")]
    if table == "map_clsloc.txt":
        (folder / table).write_text("".join(f"{wnid} {number} {name}\n" for number, wnid, name in order))
    elif table == "meta.mat":
        kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)]
        savemat(folder / table, {"synsets": np.array(order, kinds).reshape(-1, 1)})
    return folder


@pytest.mark.parametrize("table", ["map_clsloc.txt", "meta.mat"])
def test_devkit_tells_the_classes(archives: Path, table: str) -> None:
    for path in (archives / "val").glob("*.xml"):
        path.unlink()
    write_devkit(archives, table)
    data = ILSVRC(archives)
    assert [data.class_ids[label] for label in data.labels] == [wnid for wnid, _ in VAL.values()]
    assert data[0].boxes is None


def test_devkits_numbers_alone_mean_nothing(archives: Path) -> None:
    for path in (archives / "val").glob("*.xml"):
        path.unlink()
    with pytest.raises(
        UserError, match=r"nothing says which class ILSVRC2012_val_0000000\d has \(3 such.*pass dataset"
    ):
        ILSVRC(archives)
    folder = write_devkit(archives, "")
    with pytest.raises(UserError, match=r"ground_truth\.txt numbers the classes in an order of its own, and neither"):
        ILSVRC(archives)
    (folder / "meta.mat").write_bytes(b"no matrix")
    with pytest.raises(UserError, match=r"meta\.mat can't be read as the devkit's: .*; replace the file"):
        ILSVRC(archives)
    (folder / "map_clsloc.txt").write_text(f"{SNAKE} 1 sea_snake\n")
    with pytest.raises(UserError, match=r"ground_truth\.txt, line 2: '3' is not one of the 1 classes listed"):
        ILSVRC(archives)
    (folder / "map_clsloc.txt").write_text(f"{SNAKE} 1 sea_snake\n{TENCH} 3 tench\n")
    write_image(archives / "val" / "ILSVRC2012_val_00000004.JPEG")
    with pytest.raises(UserError, match=r"val_00000004: .*ground_truth\.txt has lines 1 to 3, none for this image"):
        ILSVRC(archives)


def test_train(kaggle: Path) -> None:
    data = ILSVRC(kaggle, "train")
    assert (data.split, data.role, len(data)) == ("train", "train-weaksup", 4)
    ids = [f"train/{TENCH}/{TENCH}_18.JPEG", f"train/{TENCH}/{TENCH}_36.JPEG", f"train/{GOLDFISH}/{GOLDFISH}_2.JPEG"]
    assert sorted(sample.sample_id for sample in data) == sorted([*ids, f"train/{SNAKE}/{SNAKE}_5.JPEG"])
    assert all(data.class_ids[sample.label] in sample.sample_id for sample in data)
    assert all(sample.boxes is None and sample.read_image().size for sample in data)


def test_train_with_boxes_where_asked_for(kaggle: Path) -> None:
    path = kaggle / "LOC_train_solution.csv"
    path.write_text(f"ImageId,PredictionString\n{TENCH}_36,{TENCH} 1 2 3 4 \n")
    assert len(ILSVRC(kaggle, "train")) == 4
    data = ILSVRC(kaggle, "train", annotations=path)
    assert [(s.sample_id, s.boxes.tolist()) for s in data] == [(f"train/{TENCH}/{TENCH}_36.JPEG", [[1, 2, 3, 4]])]
    assert data[0].read_image().shape == (24, 32, 3)
    folder = kaggle / "ILSVRC/Annotations/CLS-LOC/train"
    (folder / SNAKE).mkdir(parents=True)  # some names in there are words
    (folder / SNAKE / f"{SNAKE}_5.xml").write_text(
        xml("", [("Scottish_deerhound", (0, 0, 5, 5)), (TENCH, (0, 0, 1, 1))])
    )
    data = ILSVRC(kaggle, "train", annotations=folder)
    assert [(s.sample_id, s.boxes.tolist()) for s in data] == [(f"train/{SNAKE}/{SNAKE}_5.JPEG", [[0, 0, 5, 5]])]


def test_some_classes_in_the_order_asked_for(kaggle: Path) -> None:
    data = ILSVRC(kaggle, classes=[SNAKE, GOLDFISH])
    assert data.classes == ("sea snake", "goldfish, Carassius auratus")
    assert data.labels.tolist() == [0, 0]
    with pytest.raises(UserError, match=rf"'n01440765' .*nearest: {TENCH}"):
        ILSVRC(kaggle, classes=["n01440765"])
    with pytest.raises(UserError, match="no image of split val and the 1 classes asked for"):
        ILSVRC(kaggle, classes=[GOLDFISH])


def test_options_of_the_command_line(kaggle: Path) -> None:
    words = ["dataset=ilsvrc", f"dataset.root={kaggle}"]
    check_val(build_dataset(compose_application("evaluate", words).dataset))


@pytest.mark.parametrize(
    ("root", "options", "why"),
    [
        ("nowhere", {}, "nowhere: no such folder; pass the one that holds train/ and val/"),
        ("", {"split": "test"}, r"dataset\.split=test: ILSVRC has train, val"),
        ("", {"images": "/nowhere"}, r"dataset\.images=/nowhere: no such folder; pass the one with the images of val"),
        ("", {"annotations": "/nowhere"}, r"dataset\.annotations=/nowhere holds no annotation; pass a CSV or"),
        ("", {"annotations": "/nowhere.csv"}, r"/nowhere\.csv: no such file"),
    ],
)
def test_places_that_are_not_there(kaggle: Path, root: str, options: dict[str, str], why: str) -> None:
    with pytest.raises(UserError, match=why):
        ILSVRC(kaggle / root, **options)


def test_nothing_at_all(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no image of split val and the 1000 classes .*; pass dataset\.images=FOLDER"):
        ILSVRC(tmp_path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ILSVRC2012_val_00000001", "is not `ImageId,PredictionString`"),
        (f"ILSVRC2012_val_00000001,{SNAKE} 1 2 3", "with boxes in order; mend the line"),
        (f"ILSVRC2012_val_00000001,{SNAKE} 1 2 3 x", "with boxes in order; mend the line"),
        (f"ILSVRC2012_val_00000001,{SNAKE} 9 2 3 4", "with boxes in order; mend the line"),
        (f"ILSVRC2012_val_00000001,{SNAKE} 1 2 inf 4", "with boxes in order; mend the line"),
        (f"ILSVRC2012_val_00000001,{SNAKE} -1 2 3 4", "with boxes in order; mend the line"),
        ("ILSVRC2012_val_00000001,", "with boxes in order; mend the line"),
        ("ILSVRC2012_val_00000001,n00000000 1 2 3 4", "class 'n00000000' is not one of ILSVRC's 3; mend it, or list"),
        (f"ILSVRC2012_val_00000001,{SNAKE} 1 2 3 4 {TENCH} 1 2 3 4", "objects of 2 classes (n01440764, n01751748)"),
        (f"ILSVRC2012_val_00000002,{SNAKE} 1 2 3 4", "ImageId 'ILSVRC2012_val_00000002' stands in line 3 already"),
        (f"../../etc/passwd,{SNAKE} 1 2 3 4", "path '../../etc/passwd' leads out of"),
    ],
)
def test_bad_lines_are_named(kaggle: Path, text: str, why: str) -> None:
    path = kaggle / "LOC_val_solution.csv"
    lines = path.read_text().splitlines()
    lines[3] = text
    path.write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        ILSVRC(kaggle)
    assert str(error.value).startswith(f"{path}, line 4: ")
    assert why in str(error.value)


def test_image_without_annotation(kaggle: Path) -> None:
    write_image(kaggle / "ILSVRC/Data/CLS-LOC/val/ILSVRC2012_val_00000004.JPEG")
    with pytest.raises(
        UserError, match=r"00000004\.JPEG has no annotation in .*solution\.csv \(1 of 4 images\); compl"
    ):
        ILSVRC(kaggle)


def test_folder_and_annotation_of_two_classes(kaggle: Path) -> None:
    folder = kaggle / "ILSVRC/Data/CLS-LOC/val"
    (folder / GOLDFISH).mkdir()
    (folder / "ILSVRC2012_val_00000001.JPEG").rename(folder / GOLDFISH / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(
        UserError, match=rf"csv, line 4: the image is of class {GOLDFISH}, its objects of {SNAKE}; mend"
    ):
        ILSVRC(kaggle)


def test_one_image_in_two_folders(kaggle: Path) -> None:
    write_image(kaggle / "ILSVRC/Data/CLS-LOC/val" / SNAKE / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(UserError, match="one image twice; remove one of them"):
        ILSVRC(kaggle)


def test_training_image_without_class_folder(kaggle: Path) -> None:
    write_image(kaggle / "ILSVRC/Data/CLS-LOC/train/stray.JPEG")
    with pytest.raises(UserError, match=r"train/stray\.JPEG: training images lie in a folder for each class"):
        ILSVRC(kaggle, "train")


def test_training_folder_of_an_unknown_class(kaggle: Path) -> None:
    write_image(kaggle / "ILSVRC/Data/CLS-LOC/train/n99999999/n99999999_1.JPEG")
    with pytest.raises(UserError, match=r"n99999999_1\.JPEG: class 'n99999999' is not one of ILSVRC's 3; mend it"):
        ILSVRC(kaggle, "train")


@pytest.mark.parametrize(
    ("text", "why"),
    [("<annotation>", "can't be read as XML"), (xml("", []), "has no object; add its boxes, or remove")],
)
def test_bad_xml_is_named(archives: Path, text: str, why: str) -> None:
    path = archives / "val" / "ILSVRC2012_val_00000002.xml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        ILSVRC(archives)
    assert str(error.value).startswith(str(path))
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("goldfish", "is not `class name`"),
        ("fish goldfish", "does not begin with a WordNet id"),
        (f"{TENCH} again", f"class '{TENCH}' stands in line 1 already"),
    ],
)
def test_bad_synsets_are_named(kaggle: Path, line: str, why: str) -> None:
    path = kaggle / "LOC_synset_mapping.txt"
    path.write_text(f"{TENCH} tench\n{line}\n{SNAKE} sea snake\n")
    with pytest.raises(UserError) as error:
        ILSVRC(kaggle)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert why in str(error.value)


def test_check_sees_wrong_boxes(kaggle: Path) -> None:
    path = kaggle / "LOC_val_solution.csv"
    path.write_text(path.read_text().replace("11 8 30 19", "30 8 11 19"))
    with wrong_boxes_kept():
        assert ILSVRC(kaggle)[0].boxes.tolist() == [[30, 8, 11, 19]]
