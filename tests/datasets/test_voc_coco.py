"""Images that show several classes: PASCAL VOC's and COCO's boxes, masks, difficult objects, crowds, and damage."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision import datasets

import wsol
from tests.conftest import small
from tests.datasets.layouts import VOC_IMAGES, crowd, write_coco, write_voc
from wsol.datasets import COCO, VOC
from wsol.datasets.sample import boxes_from_masks
from wsol.datasets.voc_coco import VOC_CLASSES, draw_region, inclusive_corners
from wsol.errors import UserError


def test_voc_has_a_sample_for_every_class_on_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_voc(tmp_path)
    with caplog.at_level(logging.INFO, "wsol"):
        data = VOC(tmp_path)
    for text in ("2007 test", "3 images", "20 classes", "5 samples", "1 more"):
        assert text in caplog.text
    boxes = {sample.sample_id: sample.boxes.tolist() for sample in data}
    assert boxes == {  # counted from 0; difficult objects do not count
        "000001#dog": [[47, 39, 94, 70]],
        "000001#person": [[7, 11, 91, 97]],
        "000004#car": [[12, 10, 83, 61], [22, 27, 33, 74]],
        "000008#dog": [[18, 15, 35, 48]],
        "000008#sofa": [[0, 0, 99, 99]],  # the whole image
    }
    assert [f"{sample.image_id}#{data.classes[sample.label]}" for sample in data] == list(boxes)
    assert (data.classes, data.multilabel, data.role, data.split) == (VOC_CLASSES, True, "test", "2007 test")


def test_voc_some_classes_in_the_order_asked_for(tmp_path: Path) -> None:
    home = write_voc(tmp_path)
    ids = [("000001#dog", 1), ("000008#sofa", 0), ("000008#dog", 1)]
    assert [(sample.sample_id, sample.label) for sample in VOC(tmp_path, classes=["sofa", "dog"])] == ids
    with pytest.raises(UserError, match="'sofas' .*sofa"):
        VOC(tmp_path, classes=["sofas"])
    with pytest.raises(UserError, match="2007 test.* 1 class;"):
        VOC(tmp_path, classes=["chair"])
    path = home / "Annotations/000001.xml"
    path.write_text(path.read_text().replace(">dog<", ">kangaroo<"))
    assert [sample.sample_id for sample in VOC(tmp_path, classes=["kangaroo"])] == ["000001#kangaroo"]


@pytest.mark.parametrize(
    ("year", "split", "base", "role"),
    [
        (2012, "trainval", "VOCdevkit/VOC2012", "train-weaksup"),
        ("2011", "trainval", "TrainVal/VOCdevkit/VOC2011", "train-weaksup"),  # as that archive unpacks
        (2007, "val", "VOCdevkit/VOC2007", "train-fullsup"),
        (2012, "val", "VOCdevkit/VOC2012", "test"),  # the test set's boxes were never handed out
    ],
)
def test_voc_of_other_years(tmp_path: Path, year: int | str, split: str, base: str, role: str) -> None:
    write_voc(tmp_path, split, base)
    data = VOC(tmp_path, split, year)
    assert (data.split, data.role, len(data)) == (f"{year} {split}", role, 5)


def test_voc_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the archive unpacks to is what is read; it comes from here, not from the network."""
    write_voc(tmp_path / "made", "val")

    def fetch(url: str, root: str, **_options: object) -> None:
        assert url.endswith(".tar")
        shutil.copytree(tmp_path / "made", root, dirs_exist_ok=True)

    monkeypatch.setattr(datasets.voc, "download_and_extract_archive", fetch)
    assert len(VOC(tmp_path / "new", "val", 2007, download=True)) == 5


def test_later_test_sets_of_voc_were_never_handed_out(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dataset.split=test: VOC 2012 "):
        VOC(tmp_path, "test", 2012)


@pytest.mark.parametrize(
    ("old", "new", "place", "culprit"),
    [
        ("<name>dog</name>", "<name>kangaroo</name>", ", object 1", "kangaroo"),
        ("<xmin>48</xmin>", "", ", object 1", "dog"),
        ("<xmin>48</xmin>", "<xmin>nan</xmin>", ", object 1", "nan 40 95 71"),
        ("<xmin>48</xmin>", "<xmin>480</xmin>", ", object 1", "480 40 95 71"),
        ("</annotation>", "", "", "XML"),
    ],
)
def test_voc_damage_is_named(tmp_path: Path, old: str, new: str, place: str, culprit: str) -> None:
    path = write_voc(tmp_path) / "Annotations" / "000001.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=f"^{path}{place}\\b.*{culprit}"):
        VOC(tmp_path)


def test_voc_boxes_that_a_check_wants_to_see(tmp_path: Path) -> None:
    write_voc(tmp_path, images={**VOC_IMAGES, "000001": [("dog", 195, 40, 48, 71, 0)]})
    with pytest.raises(UserError, match="000001.xml, object 1"):
        VOC(tmp_path)
    assert VOC(tmp_path, strict=False)[0].boxes.tolist() == [[194, 39, 47, 70]]


def test_tables_of_an_evaluation(tmp_path: Path) -> None:
    """On eight pictures that show one to three classes each: CorLoc per class, and nothing of Top-k."""
    random, images = np.random.default_rng(1), {}
    for number in range(8):
        names = random.choice(["cat", "dog", "sofa", "bird"], 1 + number % 3, replace=False)
        corners = [(*random.integers(1, 20, 2), *random.integers(25, 50, 2)) for _ in names]
        images[f"{number:06d}"] = [(name, *box, 0) for name, box in zip(names, corners, strict=True)]
    images["000007"].append(("tvmonitor", 1, 1, 9, 9, 1))
    write_voc(tmp_path, images=images)
    data = VOC(tmp_path)
    options = {"progress": False, "run_dir": tmp_path / "run", "report": False, "pictures": 0}
    run = wsol.evaluate(data, small(data), ("cam", "gradcam", "center"), ("choe2020", "zhou2016"), **options)
    summary = run.summary
    assert summary["n_images"].eq(8).all() and summary["n_samples"].eq(15).all()
    assert summary[["top1_cls", "top5_cls", "top1_loc", "top5_loc"]].isna().all(axis=None)
    assert summary[["gt_known_loc", "mean_iou", "max_box_acc_50"]].notna().all(axis=None)
    for table in (run.per_image, run.curves):
        assert table[["top1_loc", "top5_loc"]].isna().all(axis=None)
    assert not run.metrics["metric"].str.startswith(("top", "error_wrong_class")).any()
    assert (run.samples["rank"] >= 0).all()  # where each class stands is still known

    keys = ["method", "protocol"]
    counted = run.per_image.assign(right=100.0 * run.per_image["gt_known_loc"].astype(float))
    corloc = counted.groupby([*keys, "class"])["right"].mean()
    per_class = run.metrics[(run.metrics["metric"] == "gt_known_loc") & (run.metrics["class"] != "")]
    per_class = per_class.set_index([*keys, "class"])["value"]
    assert len(per_class) == len(corloc) == 6 * 4
    assert np.allclose(per_class, corloc.loc[per_class.index])
    mean = run.metrics[run.metrics["metric"] == "corloc"].set_index(keys)["value"]
    assert np.allclose(mean, corloc.groupby(keys).mean().loc[mean.index])

    # Cut within an image's classes, to one sample an image: what the dataset is decides, not what is left of it.
    part = wsol.score(data.first(1), tmp_path / "run/heatmaps", ["choe2020"], limit=1, progress=False).summary
    assert part["top1_loc"].isna().all() and part["n_samples"].eq(1).all()


def test_coco_has_a_sample_for_every_class_on_an_image(tmp_path: Path) -> None:
    file = write_coco(tmp_path)
    for data in (COCO(tmp_path), COCO(tmp_path / "val2017", annotations=str(file))):
        assert data.classes == ("person", "potted plant")  # in the order of the ids
        assert [(sample.sample_id, sample.image_id, sample.label, sample.size()) for sample in data] == [
            ("000000000139.jpg#person", "000000000139.jpg", 0, (60, 40)),
            ("000000000139.jpg#potted plant", "000000000139.jpg", 1, (60, 40)),
            ("000000000285.jpg#person", "000000000285.jpg", 0, (20, 30)),
        ]
        assert (data.role, data.multilabel, data.labels.tolist()) == ("test", True, [0, 1, 0])
        # Edges become inclusive corners; the crowd's box is left out.
        boxes = [[[30.25, 10, 51, 31]], [[10, 5, 19, 14]], [[0, 0, 19, 19]]]
        assert [sample.boxes.tolist() for sample in data] == boxes


@given(st.lists(st.integers(0, 400), min_size=4, max_size=4), st.sampled_from([1, 4]))
def test_corners_keep_place_and_width_inside_the_image(numbers: list[int], parts: int) -> None:
    x, y = numbers[0] / parts % 100, numbers[1] / parts % 80
    width, height = min(numbers[2] / parts, 100 - x), min(numbers[3] / parts, 80 - y)
    x0, y0, x1, y1 = inclusive_corners([x, y, width, height], (100, 80))
    assert 0 <= x0 <= x1 <= 99 and 0 <= y0 <= y1 <= 79
    if width >= 1 and height >= 1:
        assert (x0, y0, x1 - x0 + 1, y1 - y0 + 1) == (x, y, width, height)
    assert (x1 - x0 + 1) - width <= 1 and (y1 - y0 + 1) - height <= 1


def test_coco_masks_of_polygons_runs_and_crowds(tmp_path: Path) -> None:
    write_coco(tmp_path)
    person, plant, other = COCO(tmp_path)
    square = np.zeros((40, 60), bool)
    square[5:15, 10:20] = True
    assert np.array_equal(plant.read_mask(), square) and plant.ignore is None
    assert np.array_equal(person.read_ignore(), crowd())
    assert np.array_equal(other.read_mask(), np.eye(30, 20) > 0)
    assert person.read_mask()[30:32, 50:52].all() and person.read_mask()[:30].any()  # both polygons
    assert boxes_from_masks(COCO(tmp_path))[1].boxes.tolist() == [[10, 5, 19, 14]]
    assert boxes_from_masks(COCO(tmp_path)).multilabel
    assert all(sample.mask is None and sample.ignore is None for sample in COCO(tmp_path, masks=False))


def test_runs_as_the_original_writes_them() -> None:
    """The same region, plain and packed: rows 1 and 2 of columns 2 and 3 of 6 x 4 pixels."""
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:4] = True
    assert np.array_equal(draw_region({"size": [4, 6], "counts": [9, 2, 2, 2, 9]}, (6, 4)), mask)
    assert np.array_equal(draw_region({"size": [4, 6], "counts": "92207"}, (6, 4)), mask)


def test_coco_segmentations_of_all_or_none(tmp_path: Path) -> None:
    write_coco(tmp_path / "none", lambda made: [entry.pop("segmentation") for entry in made["annotations"]])
    assert all(sample.mask is None for sample in COCO(tmp_path / "none"))
    write_coco(tmp_path / "some", lambda made: made["annotations"][0].update(segmentation=[]))
    assert len(COCO(tmp_path / "some", masks=False)) == 3
    for folder, masks in (("some", None), ("none", True)):
        with pytest.raises(UserError, match=r"000000000\d+\.jpg .*dataset\.masks=false"):
            COCO(tmp_path / folder, masks=masks)


def test_coco_polygons_without_pycocotools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    monkeypatch.delitem(sys.modules, "pycocotools.mask", raising=False)
    with pytest.raises(UserError, match=r"wsol\[coco\].*dataset\.masks=false"):
        COCO(tmp_path)
    assert len(COCO(tmp_path, masks=False)) == 3


def test_coco_some_categories(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = COCO(tmp_path, classes=["potted plant"])
    assert [(sample.sample_id, sample.label) for sample in data] == [("000000000139.jpg#potted plant", 0)]
    with pytest.raises(UserError, match="'plant' .*potted plant"):
        COCO(tmp_path, classes=["plant"])


def change(section: str, number: int, **values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda made: made[section][number].update(values)


RUNS = {"size": [40, 60], "counts": [2400]}
POLYGON = [10.0, 5.0, 20.0, 5.0, 1e300, 15.0]


@pytest.mark.parametrize(
    ("made", "culprit"),
    [
        (change("images", 1, file_name="../../etc/passwd"), r"images\[1\]: .*\.\./\.\./etc/passwd"),
        (change("images", 1, id=139), r"images\[1\]: .*id 139"),
        (change("images", 1, width=0), r"images\[1\]: .*'width': 0"),
        (change("categories", 1, name="potted plant"), r"categories\[1\]: .*'potted plant'"),
        (change("annotations", 1, image_id=7), r"annotations\[1\]: .*'image_id': 7"),
        (change("annotations", 1, category_id=7), r"annotations\[1\]: .*'category_id': 7"),
        (change("annotations", 1, bbox=[1, 2, 3]), r"annotations\[1\]: .*\[1, 2, 3\]"),
        (change("annotations", 1, bbox=[1, 2, -3, 4]), r"annotations\[1\]: .*bbox \[1, 2, -3, 4\]"),
        (change("annotations", 1, bbox=[1, 2, float("nan"), 4]), r"annotations\[1\]: .*bbox"),
        (change("annotations", 0, segmentation=[["a"] * 6]), r"annotations\[0\]: .*'a'"),
        (change("annotations", 0, segmentation=[[1, 2, 3, 4]]), "139"),
        (change("annotations", 0, segmentation=[POLYGON]), "139"),
        (change("annotations", 0, segmentation=[[1, 2, 9, 2, 9, 9, 1]]), "139"),
        (change("annotations", 0, segmentation="x"), "139"),
        (change("annotations", 1, segmentation=RUNS), r"285.*\[40, 60\].*\[30, 20\]"),
        *(
            (change("annotations", 0, segmentation={**RUNS, "counts": counts}), "139")
            for counts in ([2401], [2399], [-1, 2401], [2**62] * 4, [[2400]], "9\u00e9", "PPP", "P", "o" * 99)
        ),
        (lambda made: made.pop("images"), r"instances_val2017\.json.*'images'"),
    ],
)
def test_coco_entries_that_do_not_fit_are_named(tmp_path: Path, made: Callable, culprit: str) -> None:
    write_coco(tmp_path, made)
    with pytest.raises(UserError, match=culprit):
        for sample in COCO(tmp_path):
            sample.read_mask()


def test_coco_files_that_are_no_json(tmp_path: Path) -> None:
    file = write_coco(tmp_path)
    file.write_text('{"images": [')
    with pytest.raises(UserError, match=f"{file}.*JSON"):
        COCO(tmp_path)
