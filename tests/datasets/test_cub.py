"""CUB-200-2011 as Caltech's archive unpacks: whole, with segmentations, without images, and broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsol.commands.options import compose_application
from wsol.config import build_dataset
from wsol.datasets import CUB, WSOLEvaluation
from wsol.datasets.box_faults import wrong_boxes_kept
from wsol.datasets.cub import inclusive
from wsol.errors import UserError

ALBATROSS, AUKLET = "001.Black_footed_Albatross", "002.Crested_Auklet"
BIRDS = (f"{ALBATROSS}/Bird_0046_18.jpg", f"{ALBATROSS}/Bird_0009_34.jpg", f"{AUKLET}/Bird_0002_55.jpg")
FILES = {
    "images": "".join(f"{i} {bird}\n" for i, bird in enumerate(BIRDS, start=1)),
    "bounding_boxes": "1 2.0 3.0 10.0 20.0\n2 0.0 0.0 30.0 24.0\n3 20.0 1.0 13.0 5.0\n",
    "image_class_labels": "1 1\n2 1\n3 2\n",
    "train_test_split": "1 0\n2 1\n3 0\n",
    "classes": f"1 {ALBATROSS}\n2 {AUKLET}\n",
}


def write_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three birds of 32 × 24 in two classes; the third one's box ends two pixels late."""
    folder = tmp_path / "CUB_200_2011"
    for bird in BIRDS:
        write_image(folder / "images" / bird, np.zeros((24, 32, 3), np.uint8))
    for name, text in FILES.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_both_splits(root: Path) -> None:
    test, train = CUB(root), CUB(root, "train")
    assert (test.name, test.split, test.role, len(test)) == ("cub", "test", "test", 2)
    assert (train.split, train.role, len(train)) == ("train", "train-weaksup", 1)
    assert test.class_ids == train.class_ids == (ALBATROSS, AUKLET)
    assert test.classes == ("Black footed Albatross", "Crested Auklet")
    assert [sample.sample_id for sample in test] == [BIRDS[0], BIRDS[2]]
    assert test.labels.tolist() == [sample.label for sample in test] == [0, 1]
    assert [sample.size() for sample in test] == [(32, 24)] * 2
    assert test[0].read_image().shape == (24, 32, 3)
    assert test[0].mask is None


def test_boxes_end_with_the_image(root: Path) -> None:
    assert [sample.boxes.tolist() for sample in CUB(root)] == [[[2, 3, 12, 23]], [[20, 1, 31, 6]]]
    assert CUB(root, "train")[0].boxes.tolist() == [[0, 0, 30, 23]]
    assert CUB(root)[-1].boxes.tolist() == [[20, 1, 31, 6]]


@pytest.mark.parametrize(
    ("box", "size", "wanted"),
    [
        # Lines of bounding_boxes.txt, and the corners that the field's metadata have for them.
        ((60, 27, 325, 304), (500, 335), [60, 27, 385, 331]),
        ((14, 112, 388, 186), (500, 347), [14, 112, 402, 298]),
        ((139, 30, 153, 264), (500, 336), [139, 30, 292, 294]),
        ((0, 0, 500, 375), (500, 375), [0, 0, 499, 374]),
        ((0, 0, 500, 375), None, [0, 0, 500, 375]),
    ],
)
def test_corners(box: tuple[float, ...], size: tuple[int, int] | None, wanted: list[float]) -> None:
    assert inclusive(np.array(box, np.float64), size).tolist() == [wanted]


def test_ids_and_boxes_are_those_of_the_fields_metadata(root: Path) -> None:
    folder = root.parent / "metadata" / "CUB" / "test"
    folder.mkdir(parents=True)
    own = list(CUB(root))
    lines = [f"{s.sample_id},{','.join(f'{v:.0f}' for v in s.boxes[0])}" for s in own]
    (folder / "image_ids.txt").write_text("\n".join(s.sample_id for s in own))
    (folder / "class_labels.txt").write_text("\n".join(f"{s.sample_id},{s.label}" for s in own))
    (folder / "localization.txt").write_text("\n".join(lines))
    other = WSOLEvaluation(root.parent, "CUB")
    assert (other.classes, other.class_ids) == (CUB(root).classes, CUB(root).class_ids)
    assert [s.boxes.tolist() for s in other] == [s.boxes.tolist() for s in own]


def test_folder_above_and_command_line(root: Path) -> None:
    assert len(CUB(root.parent)) == 2
    words = ["dataset=cub", f"dataset.root={root.parent}", "dataset.split=train"]
    assert len(build_dataset(compose_application("evaluate", words).dataset)) == 1


def test_without_images(root: Path) -> None:
    for bird in BIRDS:
        (root / "images" / bird).unlink()
    sample = CUB(root)[1]
    assert sample.image_size is None
    assert sample.boxes.tolist() == [[20, 1, 33, 6]]
    with pytest.raises(UserError, match=r"Bird_0002_55\.jpg' is missing"):
        sample.read_image()


def test_broken_image_is_said_when_it_is_read(root: Path) -> None:
    (root / "images" / BIRDS[0]).write_bytes(b"no picture")
    sample = CUB(root)[0]
    assert sample.boxes.tolist() == [[2, 3, 12, 23]]
    with pytest.raises(UserError, match=r"can't decode .*Bird_0046_18\.jpg"):
        sample.read_image()


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_masks_are_what_most_annotators_say(root: Path, place: str) -> None:
    levels = np.zeros((24, 32), np.uint8)
    levels[:, :6] = (0, 51, 102, 153, 204, 255)
    folder = (root if place == "inside" else root.parent) / "segmentations"
    write_image((folder / BIRDS[0]).with_suffix(".png"), levels)
    data = CUB(root)
    assert data[0].read_mask()[0, :7].tolist() == [False, False, False, True, True, True, False]
    with pytest.raises(UserError, match=r"mask of sample '002.*Bird_0002_55\.jpg' is missing: no file .*55\.png"):
        data[1].read_mask()


def test_files_in_another_order(root: Path) -> None:
    before = [(s.sample_id, s.label, s.boxes.tolist()) for s in CUB(root)]
    for name in ("bounding_boxes", "image_class_labels", "train_test_split"):
        (root / f"{name}.txt").write_text("".join(reversed(FILES[name].splitlines(keepends=True))))
    assert [(s.sample_id, s.label, s.boxes.tolist()) for s in CUB(root)] == before


def test_places_that_are_not_there(root: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no such folder; dataset\.root is CUB_200_2011/"):
        CUB(root / "nowhere")
    with pytest.raises(UserError, match=r"dataset\.split=val: CUB-200-2011 has train, test"):
        CUB(root, "val")


@pytest.mark.parametrize("name", list(FILES))
def test_missing_files(root: Path, name: str) -> None:
    (root / f"{name}.txt").unlink()
    with pytest.raises(UserError, match=rf"{name}\.txt: no such file; dataset\.root is CUB_200_2011/"):
        CUB(root)


@pytest.mark.parametrize(
    ("name", "line", "text", "why"),
    [
        ("images", 1, "1", "'1' is not `image id file`; mend the line"),
        ("images", 2, "2 ../../secret.jpg", "path '../../secret.jpg' leads out of"),
        ("images", 2, "2 /etc/passwd", "path '/etc/passwd' leads out of"),
        ("images", 2, f"1 {BIRDS[1]}", "image id '1' stands in line 1 already; remove one"),
        ("images", 2, f"2 {BIRDS[0]}", f"file '{BIRDS[0]}' stands in line 1 already; remove one"),
        ("bounding_boxes", 2, "2 0.0 0.0 30.0", "is not `image id x y width height`"),
        ("bounding_boxes", 2, "2 0.0 0.0 30.0 tall", "does not end in the numbers x y width height"),
        ("bounding_boxes", 2, "2 0.0 0.0 -3.0 24.0", "is negative or not finite; a box is x y width height"),
        ("bounding_boxes", 2, "2 0.0 inf 30.0 24.0", "is negative or not finite"),
        ("bounding_boxes", 2, "9 0.0 0.0 30.0 24.0", "image id '9' is not in"),
        ("image_class_labels", 3, "3 7", "has a class that is not in"),
        ("image_class_labels", 3, "2 2", "image id '2' stands in line 2 already"),
        ("train_test_split", 1, "1 2", "in train 2 is outside: it must be 0 to 1; mend the line"),
        ("train_test_split", 1, "1 yes", "in train 'yes' is not a whole number"),
        ("classes", 2, "2", "is not `class name`"),
        ("classes", 2, f"1 {AUKLET}", "class '1' stands in line 1 already"),
    ],
)
def test_bad_lines_are_named(root: Path, name: str, line: int, text: str, why: str) -> None:
    path = root / f"{name}.txt"
    lines = FILES[name].splitlines()
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        CUB(root)
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert why in str(error.value)


@pytest.mark.parametrize("name", ["bounding_boxes", "image_class_labels", "train_test_split"])
def test_an_image_that_another_file_lacks(root: Path, name: str) -> None:
    (root / f"{name}.txt").write_text("".join(FILES[name].splitlines(keepends=True)[:2]))
    with pytest.raises(UserError, match=rf"{name}\.txt has no line for image id '3', which is in .*images\.txt; add"):
        CUB(root)


def test_empty_split(root: Path) -> None:
    (root / "train_test_split.txt").write_text("1 0\n2 0\n3 0\n")
    with pytest.raises(UserError, match=r"train_test_split\.txt has no image in split train; is the copy complete"):
        CUB(root, "train")


def test_check_sees_wrong_boxes(root: Path) -> None:
    (root / "bounding_boxes.txt").write_text(FILES["bounding_boxes"].replace("2.0 3.0 10.0", "2.0 3.0 -10.0"))
    with wrong_boxes_kept():
        assert CUB(root)[0].boxes.tolist() == [[2, 3, -8, 23]]
