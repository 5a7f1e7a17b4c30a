"""Images of one's own: boxes whose units and corners are said, masks by the same path, and what doesn't fit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import wsol
from wsol.datasets import AnnotatedFolder
from wsol.datasets.box_table import BoxRules
from wsol.errors import UserError
from wsol.models import Classifier, gapnet

NAMES = ("cat/a.jpg", "cat/deep/b.png", "dog/c.jpg")
ROWS = [("cat/a.jpg", 2, 3, 10, 20), ("cat/deep/b.png", 0, 0, 39, 29), ("dog/c.jpg", 1, 1, 5, 5),
        ("cat/a.jpg", 20, 3, 30, 8)]  # fmt: skip
STATED = {"box_corners": "inclusive", "box_units": "pixels"}


def write_images(root: Path) -> Path:
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (9, 9, 9)).save(root / name)
    return root


def write_boxes(path: Path, rows: list[tuple] = ROWS, columns: str = "image,x0,y0,x1,y1") -> Path:
    table = pd.DataFrame(rows, columns=columns.split(","))
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)
    return path


def mask() -> np.ndarray:
    values = np.zeros((30, 40), np.uint8)
    values[5:10, 6:12] = 255
    values[20:25, 30:38] = 7
    return values


def write_masks(folder: Path, suffix: str = ".png") -> Path:
    for name in NAMES:
        path = (folder / name).with_suffix(suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask()).save(path)
    return folder


def boxes_of(data: AnnotatedFolder) -> dict[str, list]:
    return {sample.sample_id: sample.boxes.tolist() for sample in data}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_boxes_of_a_table(tmp_path: Path, suffix: str) -> None:
    root = write_images(tmp_path / "r")
    data = AnnotatedFolder(str(root), boxes_file=str(write_boxes(tmp_path / f"boxes{suffix}")), **STATED)
    assert (data.classes, data.labels.tolist()) == (("cat", "dog"), [0, 0, 1])
    assert boxes_of(data) == {
        "cat/a.jpg": [[2, 3, 10, 20], [20, 3, 30, 8]],
        "cat/deep/b.png": [[0, 0, 39, 29]],
        "dog/c.jpg": [[1, 1, 5, 5]],
    }
    assert data[0].mask is None and data[0].read_image().shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("corners", "units", "written"),
    [
        ("inclusive", "pixels", (4, 6, 19, 14)),
        ("exclusive", "pixels", (4, 6, 20, 15)),
        ("exclusive", "relative", (0.1, 0.2, 0.5, 0.5)),
        ("inclusive", "relative", (0.1, 0.2, 0.475, 14 / 30)),
    ],
)
def test_the_same_box_in_four_ways(tmp_path: Path, corners: str, units: str, written: tuple[float, ...]) -> None:
    root = write_images(tmp_path / "r")
    file = write_boxes(tmp_path / "boxes.csv", [(name, *written) for name in NAMES])
    data = AnnotatedFolder(root, boxes_file=file, box_corners=corners, box_units=units)
    np.testing.assert_allclose([sample.boxes[0] for sample in data], [[4, 6, 19, 14]] * 3, rtol=0, atol=1e-12)


def test_a_box_narrower_than_a_pixel_is_one_pixel_wide() -> None:
    rules = BoxRules("exclusive", "pixels")
    assert rules.to_pixels(np.array([[3, 3, 3.5, 9]]), None).tolist() == [[3, 3, 3, 8]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"dataset=folder needs dataset\.boxes_file=TABLE or dataset\.masks=FOLDER.*dataset=imagefolder"),
        ({"boxes_file": "b.csv"}, r"dataset\.box_corners=: .* inclusive \(x1, y1 are the last .* or exclusive \(one"),
        ({"boxes_file": "b.csv", "box_corners": "exclusive"}, r"dataset\.box_units=: .* pixels \(.*or relative \("),
        ({"boxes_file": "b.csv", "box_corners": "xywh"}, r"dataset\.box_corners=xywh: .* inclusive"),
        ({"boxes_file": "b.csv", "box_corners": "inclusive", "box_units": "cm"}, r"dataset\.box_units=cm: .* pixels"),
        ({"masks": "m", "mask_ignore": 0}, r"dataset\.mask_ignore=0: pass a whole number from 1 to 255"),
        ({"masks": "m", "missing": "skip"}, r"dataset\.missing=skip: pass stop or drop"),
        ({"masks": "nowhere"}, r"dataset\.masks=nowhere: no such folder"),
        ({"boxes_file": "nowhere.csv", **STATED}, r"dataset\.boxes_file=nowhere\.csv: no such file"),
    ],
)
def test_what_has_to_be_said(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        AnnotatedFolder(write_images(tmp_path), **options)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("cat/a.jpg", 2, "x", 10, 20), r"boxes\.csv, line 6: box '2 x 10 20' is not four numbers"),
        (("cat/a.jpg", 2, None, 10, 20), r"line 6: box '2  10 20' is not four numbers"),
        (("cat/a.jpg", 2, "nan", 10, 20), r"line 6: box '2 nan 10 20' of image 'cat/a.jpg' is not finite"),
        (("cat/a.jpg", 20, 2, 10, 20), r"line 6: .* is inverted or empty with inclusive corners"),
        (("cat/a.jpg", -1, 2, 10, 20), r"line 6: .* is negative"),
        (("", 1, 2, 10, 20), r"line 6: .* names no image"),
        (("cat/aa.jpg", 1, 2, 10, 20), r"line 6: 'cat/aa\.jpg' is none of the images, such as cat/a\.jpg"),
        (("a.jpg", 1, 2, 10, 20), r"line 6: 'a\.jpg' is none of the images, such as cat/a\.jpg"),
        (("../../etc/passwd", 1, 2, 10, 20), r"line 6: '\.\./\.\./etc/passwd' is none of the images"),
        (("/etc/passwd", 1, 2, 10, 20), r"line 6: '/etc/passwd' is none of the images"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, row: tuple, message: str) -> None:
    file = write_boxes(tmp_path / "boxes.csv", [*ROWS, row])
    with pytest.raises(UserError, match=message):
        AnnotatedFolder(write_images(tmp_path / "r"), boxes_file=file, **STATED)


def test_rows_that_the_stated_units_and_corners_exclude(tmp_path: Path) -> None:
    root, file = write_images(tmp_path / "r"), write_boxes(tmp_path / "boxes.parquet")
    with pytest.raises(UserError, match=r"row 1: box '2 3 10 20' .* exceeds 1, but the units are relative"):
        AnnotatedFolder(root, boxes_file=file, box_corners="inclusive", box_units="relative")
    write_boxes(file, [("cat/a.jpg", 3, 3, 3, 9)])
    with pytest.raises(UserError, match=r"row 1: .* is inverted or empty with exclusive corners"):
        AnnotatedFolder(root, boxes_file=file, box_corners="exclusive", box_units="pixels")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", b"image;x0;y0;x1;y1\n", r"b\.csv has no column image, x0, y0, x1, y1; it has image;x0;y0;x1;y1"),
        ("b.csv", b"image,x0,y0,x1,y1\n", r"b\.csv has no rows; wanted image, x0"),
        ("b.csv", b"", r"b\.csv has no column image, .* it has none"),
        ("b.csv", b"image,x0,y0,x1,y1\ncat/\xff.jpg,1,1,2,2\n", r"b\.csv can't be read as CSV in UTF-8"),
        ("b.parquet", b"PAR1 not really", r"b\.parquet can't be read as Parquet"),
        ("b.xlsx", b"", r"b\.xlsx: wanted a \.csv or \.parquet file"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        AnnotatedFolder(write_images(tmp_path / "r"), boxes_file=tmp_path / name, **STATED)


def test_further_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "boxes.csv"
    rows = "".join(f'{name},"a, b",1,2,3,4\n' for name in NAMES)
    file.write_text("image, note, x0, y0, x1, y1\n" + rows, encoding="utf-8-sig")
    data = AnnotatedFolder(write_images(tmp_path / "r"), boxes_file=file, **STATED)
    assert data[0].boxes.tolist() == [[1, 2, 3, 4]]


def test_images_without_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root, file = write_images(tmp_path / "r"), write_boxes(tmp_path / "boxes.csv", ROWS[1:2])
    with pytest.raises(
        UserError, match=r"2 of 3 images have no box in .*: cat/a\.jpg, dog/c\.jpg; .*dataset\.missing=drop"
    ):
        AnnotatedFolder(root, boxes_file=file, **STATED)
    with caplog.at_level(logging.INFO, "wsol"):
        data = AnnotatedFolder(root, boxes_file=file, missing="drop", **STATED)
    assert "2 of 3 images have no box" in caplog.text
    assert (boxes_of(data), data.classes) == ({"cat/deep/b.png": [[0, 0, 39, 29]]}, ("cat", "dog"))


def test_one_table_for_several_splits(tmp_path: Path) -> None:
    for split in ("train", "val"):
        write_images(tmp_path / "r" / split)
    file = write_boxes(tmp_path / "boxes.csv", [(f"{s}/{row[0]}", *row[1:]) for s in ("train", "val") for row in ROWS])
    data = AnnotatedFolder(tmp_path / "r", "val", boxes_file=file, **STATED)
    assert data.split == "val" and list(boxes_of(data)) == list(NAMES)
    with pytest.raises(UserError, match=r"no image begins with 'val/', as in 'val/cat/a\.jpg'; the first row .*'cat/"):
        AnnotatedFolder(tmp_path / "r", "val", boxes_file=write_boxes(file), **STATED)


@pytest.mark.parametrize("suffix", [".png", ".BMP", ".tif"])
def test_masks_at_the_same_path(tmp_path: Path, suffix: str) -> None:
    root, masks = write_images(tmp_path / "r"), write_masks(tmp_path / "m", suffix)
    for sample in AnnotatedFolder(root, masks=str(masks)):
        assert np.array_equal(sample.read_mask(), mask() > 0)
        assert sample.ignore is None and sample.boxes is None
    for sample in AnnotatedFolder(root, masks=masks, mask_ignore=255):
        assert np.array_equal(sample.read_mask(), mask() == 7)
        assert np.array_equal(sample.read_ignore(), mask() == 255)


def test_masks_that_do_not_fit(tmp_path: Path) -> None:
    root, masks = write_images(tmp_path / "r"), write_masks(tmp_path / "m")
    (masks / "dog/c.png").unlink()
    (masks / "dog/c.txt").write_text("no picture")
    with pytest.raises(UserError, match=r"1 of 3 images have no mask in .*: dog/c\.jpg"):
        AnnotatedFolder(root, masks=masks)
    assert len(AnnotatedFolder(root, masks=masks, missing="drop")) == 2
    with pytest.raises(UserError, match="is the folder of the images"):
        AnnotatedFolder(root, masks=root)
    Image.fromarray(mask()).save(masks / "cat/a.bmp")
    with pytest.raises(UserError, match=r"cat/a\.bmp and cat/a\.png in .* differ only in their suffix"):
        AnnotatedFolder(root, masks=masks)


def small(classes: tuple[str, ...]) -> Classifier:
    module = gapnet(len(classes), widths=(6, 8), strides=(2, 2), seed=0)
    return Classifier(name="small", module=module, layer="features", input_size=(32, 32), classes=classes)


@pytest.mark.parametrize("what", ["boxes", "masks", "both"])
def test_an_evaluation(tmp_path: Path, what: str) -> None:
    root = write_images(tmp_path / "r")
    options: dict[str, Any] = {}
    if what != "masks":
        options = {"boxes_file": write_boxes(tmp_path / "boxes.csv"), **STATED}
    if what != "boxes":
        options["masks"] = write_masks(tmp_path / "m")
    data = AnnotatedFolder(root, **options)
    row = wsol.evaluate(data, small(data.classes), ["center"], ["choe2020"], progress=False).summary.iloc[0]
    assert pd.notna(row["gt_known_loc"]) == (what != "masks")
    assert pd.notna(row["pxap"]) == (what != "boxes")
