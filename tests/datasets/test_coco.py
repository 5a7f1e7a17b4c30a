"""COCO's instances: boxes from edges, polygons and runs, crowds, and files that don't fit together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.draw import polygon

from wsol.datasets import COCO
from wsol.datasets.coco import inclusive_corners
from wsol.datasets.coco_masks import draw_region, read_region, unpack_runs
from wsol.datasets.from_masks import BoxesFromMasks
from wsol.errors import UserError


def pack_runs(runs: list[int]) -> str:
    """What `unpack_runs` reads, written by the description of the format: differences in groups of five bits."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            low, value = value & 31, value >> 5
            last = value == (-1 if low & 16 else 0)
            text += chr(48 + low + (0 if last else 32))
            if last:
                break
    return text


def runs_of(mask: np.ndarray) -> list[int]:
    """Lengths of runs down the columns, background first."""
    flat = np.concatenate([[0], mask.T.reshape(-1).astype(int), [2]])
    starts = np.flatnonzero(np.diff(flat))
    return np.diff(np.concatenate([[0], starts])).tolist()


def drawn(region: Any, size: tuple[int, int]) -> np.ndarray:
    return draw_region(read_region(region, size, "here"), size)


def crowd() -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[5:20, 30:60] = True
    mask[8:10, 40:45] = False
    return mask


def content() -> dict[str, Any]:
    """Three images; ids of categories with gaps, as the original has them."""
    crowd_plain = {"size": [40, 60], "counts": runs_of(crowd())}
    packed = {"size": [30, 20], "counts": pack_runs(runs_of(np.eye(30, 20) > 0))}

    def thing(image: int, category: int, bbox: list[float], region: Any, iscrowd: int = 0) -> dict[str, Any]:
        return {
            "id": 1000 * image + int(bbox[0]), "image_id": image, "category_id": category, "bbox": bbox,
            "area": bbox[2] * bbox[3], "iscrowd": iscrowd, "segmentation": region,
        }  # fmt: skip

    square = [[10.0, 5.0, 20.0, 5.0, 20.0, 15.0, 10.0, 15.0]]
    triangle = [[30.25, 10.0, 45.25, 10.0, 30.25, 25.0], [50.0, 30.0, 52.0, 30.0, 52.0, 32.0, 50.0, 32.0]]
    return {
        "info": {"description": "COCO 2017 Dataset"},
        "licenses": [],
        "images": [
            {"id": 139, "file_name": "000000000139.jpg", "width": 60, "height": 40},
            {"id": 285, "file_name": "000000000285.jpg", "width": 20, "height": 30},
            {"id": 632, "file_name": "000000000632.jpg", "width": 10, "height": 10},
        ],
        "annotations": [
            thing(139, 64, [10.0, 5.0, 10.0, 10.0], square),
            thing(285, 1, [0, 0, 20, 20], packed),
            thing(139, 1, [30.25, 10.0, 21.75, 22.0], triangle),
            thing(139, 1, [30, 5, 30, 15], crowd_plain, 1),
            thing(285, 64, [0, 0, 20, 30], {"size": [30, 20], "counts": [0, 600]}, 1),
        ],
        "categories": [
            {"supercategory": "furniture", "id": 64, "name": "potted plant"},
            {"supercategory": "person", "id": 1, "name": "person"},
        ],
    }


def write_coco(root: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """Write the standard layout; return its JSON file."""
    made = content()
    change(made)
    file = root / "annotations" / "instances_val2017.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(made))
    (root / "val2017").mkdir()
    for entry in content()["images"]:
        Image.new("RGB", (entry["width"], entry["height"])).save(root / "val2017" / entry["file_name"])
    return file


def test_a_sample_for_every_class_on_an_image(tmp_path: Path) -> None:
    file = write_coco(tmp_path)
    for data in (COCO(tmp_path), COCO(tmp_path / "val2017", annotations=str(file))):
        assert data.classes == ("person", "potted plant")  # in the order of the ids
        assert [(sample.sample_id, sample.image_id, sample.label, sample.size()) for sample in data] == [
            ("000000000139.jpg#person", "000000000139.jpg", 0, (60, 40)),
            ("000000000139.jpg#potted plant", "000000000139.jpg", 1, (60, 40)),
            ("000000000285.jpg#person", "000000000285.jpg", 0, (20, 30)),
        ]
        assert data.role == "test"  # COCO's own test set has no boxes that anybody may see
        assert data.multilabel and data.labels.tolist() == [0, 1, 0]
        assert data[2].read_image().shape == (30, 20, 3)


def test_boxes_of_edges_become_inclusive_corners(tmp_path: Path) -> None:
    write_coco(tmp_path)
    person, plant, _ = COCO(tmp_path)
    assert plant.boxes.tolist() == [[10, 5, 19, 14]]
    assert person.boxes.tolist() == [[30.25, 10, 51, 31]]  # the crowd's box is no truth


@given(st.lists(st.integers(0, 400), min_size=4, max_size=4), st.sampled_from([1, 4]))
def test_corners_keep_place_and_width_inside_the_image(numbers: list[int], parts: int) -> None:
    x, y = numbers[0] / parts % 100, numbers[1] / parts % 80
    width, height = min(numbers[2] / parts, 100 - x), min(numbers[3] / parts, 80 - y)
    x0, y0, x1, y1 = inclusive_corners([x, y, width, height], (100, 80))
    assert 0 <= x0 <= x1 <= 99 and 0 <= y0 <= y1 <= 79
    if width >= 1 and height >= 1:
        assert (x0, y0, x1 - x0 + 1, y1 - y0 + 1) == (x, y, width, height)
    assert (x1 - x0 + 1) - width <= 1 and (y1 - y0 + 1) - height <= 1


def test_masks_of_polygons_runs_and_crowds(tmp_path: Path) -> None:
    write_coco(tmp_path)
    person, plant, other = COCO(tmp_path)
    square = np.zeros((40, 60), bool)
    square[5:15, 10:20] = True
    assert np.array_equal(plant.read_mask(), square) and plant.ignore is None
    rows, columns = np.mgrid[:40, :60] + 0.5  # centers
    triangle = (columns > 30.25) & (rows > 10) & (columns - 30.25 + rows - 10 < 15)
    triangle[30:32, 50:52] = True
    assert np.array_equal(person.read_mask(), triangle)
    assert np.array_equal(person.read_ignore(), crowd())
    assert np.array_equal(other.read_mask(), np.eye(30, 20) > 0)


def test_masks_can_be_left_out_or_boxes_made_of_them(tmp_path: Path) -> None:
    write_coco(tmp_path)
    assert all(sample.mask is None and sample.ignore is None for sample in COCO(tmp_path, masks=False))
    plant = BoxesFromMasks(COCO(tmp_path))[1]
    assert plant.boxes.tolist() == [[10, 5, 19, 14]] and BoxesFromMasks(COCO(tmp_path)).multilabel


def test_segmentations_of_all_or_none(tmp_path: Path) -> None:
    write_coco(tmp_path / "none", lambda made: [entry.pop("segmentation") for entry in made["annotations"]])
    assert all(sample.mask is None for sample in COCO(tmp_path / "none"))
    write_coco(tmp_path / "some", lambda made: made["annotations"][0].update(segmentation=[]))
    with pytest.raises(UserError, match=r"000000000139\.jpg has no segmentation.*dataset\.masks=false"):
        COCO(tmp_path / "some")
    assert len(COCO(tmp_path / "some", masks=False)) == 3
    with pytest.raises(UserError, match=r"has no segmentation.*dataset\.masks=false"):
        COCO(tmp_path / "none", masks=True)


def test_some_categories(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = COCO(tmp_path, classes=["potted plant"])
    assert [(sample.sample_id, sample.label) for sample in data] == [("000000000139.jpg#potted plant", 0)]
    with pytest.raises(UserError, match="'plant' is not among the 2 classes of .*the nearest: potted plant"):
        COCO(tmp_path, classes=["plant"])


def test_images_are_not_touched(tmp_path: Path) -> None:
    write_coco(tmp_path)
    for path in (tmp_path / "val2017").iterdir():
        path.write_text("no picture")
    data = COCO(tmp_path)
    assert [sample.size() for sample in data] == [(60, 40), (60, 40), (20, 30)]
    with pytest.raises(UserError, match=r"can't decode .*000000000139\.jpg"):
        data[0].read_image()


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=9))
@settings(max_examples=50)
def test_packed_runs(runs: list[int]) -> None:
    assert unpack_runs(pack_runs(runs)).tolist() == runs


def test_runs_as_the_original_writes_them() -> None:
    """The same region, plain and packed: rows 1 and 2 of columns 2 and 3 of 6 x 4 pixels."""
    plain = {"size": [4, 6], "counts": [9, 2, 2, 2, 9]}
    packed = {"size": [4, 6], "counts": "92207"}
    wanted = np.zeros((4, 6), bool)
    wanted[1:3, 2:4] = True
    assert np.array_equal(drawn(plain, (6, 4)), wanted)
    assert np.array_equal(drawn(packed, (6, 4)), wanted)


def test_polygons_reach_to_the_border() -> None:
    assert drawn([[0, 0, 5, 0, 5, 4, 0, 4]], (5, 4)).all()
    assert drawn([[-3, -3, 8, -3, 8, 2, -3, 2]], (5, 4)).sum() == 10
    assert drawn([[-1e300, -1e300, 1e300, -1e300, 1e300, 2, -1e300, 2]], (5, 4)).sum() == 10
    assert not drawn([[50, 0, 60, 0, 60, 9, 50, 9], [0, 1, 5, 1, 0, 1]], (5, 4)).any()


@pytest.mark.parametrize("corners", [3, 4, 7, 30])
def test_polygons_are_filled_as_scikit_image_does(corners: int) -> None:
    """Also such as cross themselves and reach outside; no center lies on an edge of random ones."""
    random = np.random.default_rng(corners)
    for _ in range(20):
        points = random.uniform(-10, 60, (corners, 2))
        wanted = np.zeros((40, 50), bool)
        wanted[polygon(points[:, 1] - 0.5, points[:, 0] - 0.5, wanted.shape)] = True
        assert np.array_equal(drawn([points.reshape(-1).tolist()], (50, 40)), wanted)


def change(section: str, number: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda made: made[section][number].update(values)


RUNS = {"size": [40, 60], "counts": [2400]}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (change("images", 1, file_name="../../etc/passwd"), r"images\[1\]: path '\.\./\.\./etc/passwd' leads out of"),
        (change("images", 1, file_name="/etc/passwd"), r"images\[1\]: path '/etc/passwd' leads out of"),
        (change("images", 1, file_name=None), r"images\[1\]: file_name is None; is this one of COCO's"),
        (change("images", 1, id=139), r"images\[1\]: id 139 comes twice"),
        (change("images", 1, width=0), r"images\[1\]: width 0, height 30; wanted 1 to 32767"),
        (change("images", 1, width=10**9), r"images\[1\]: width 1000000000, height 30"),
        (change("categories", 1, name="potted plant"), r"categories\[1\]: id 1, name 'potted plant' comes twice"),
        (change("annotations", 1, image_id=7), r"annotations\[1\]: image_id 7 is not among the file's"),
        (change("annotations", 1, category_id=7), r"annotations\[1\]: category_id 7 is not among the file's"),
        (change("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\]: bbox \[1, 2, 3\] is not x y width height"),
        (change("annotations", 1, bbox=[1, 2, -3, 4]), r"annotations\[1\]: bbox \[1, 2, -3, 4\] is not x y width"),
        (change("annotations", 1, bbox=[1, 2, float("nan"), 4]), r"annotations\[1\]: bbox .* is not x y width"),
        (change("annotations", 1, segmentation=RUNS), r"annotations\[1\]: runs for .* = \[40, 60\], but .* \(30, 20\)"),
        (change("annotations", 0, segmentation={**RUNS, "counts": [2399]}), r"runs cover 2399 pixels, .* 2400"),
        (change("annotations", 0, segmentation={**RUNS, "counts": [-1, 2401]}), r"not a list of lengths"),
        (change("annotations", 0, segmentation={**RUNS, "counts": "9\u00e9"}), r"\[0\]: the runs can't be read: 'é'"),
        (change("annotations", 0, segmentation={**RUNS, "counts": "PPP"}), r"the text ends within a number"),
        (change("annotations", 0, segmentation={**RUNS, "counts": "o" * 99}), r"the runs can't be read"),
        (change("annotations", 0, segmentation=[[1, 2, 3, 4]]), r"\[0\]: polygon \[1, 2, 3, 4\] is not x y x y"),
        (change("annotations", 0, segmentation=[["a"] * 6]), r"\[0\]: polygon .* is not x y x y"),
        (change("annotations", 0, segmentation="x"), r"\[0\]: the segmentation is neither"),
        (lambda made: made.pop("images"), r"instances_val2017\.json has no list 'images'"),
        (lambda made: made["images"].append(3), r"images\[3\]: id is None"),
    ],
)
def test_entries_that_do_not_fit_are_named(tmp_path: Path, made: Callable, message: str) -> None:
    write_coco(tmp_path, made)
    with pytest.raises(UserError, match=message):
        COCO(tmp_path)


def test_files_that_are_not_there_or_no_json(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"val2017: no such folder; dataset\.root must hold the images"):
        COCO(tmp_path)
    file = write_coco(tmp_path)
    file.write_text('{"images": [')
    with pytest.raises(UserError, match=r"instances_val2017\.json can't be read as JSON: .*; replace the file"):
        COCO(tmp_path)
    file.unlink()
    with pytest.raises(UserError, match=r"instances_val2017\.json: no such file; pass dataset\.annotations=FILE"):
        COCO(tmp_path)
