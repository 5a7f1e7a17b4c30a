"""The layout metadata/<set>/<split>: small copies, broken copies, and the real annotations with golden figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import wsol
from wsol.commands.options import compose_application
from wsol.config import build_dataset
from wsol.datasets import WSOLEvaluation
from wsol.datasets.box_faults import wrong_boxes_kept
from wsol.datasets.classes import imagenet_wnids, map_classes
from wsol.errors import UserError
from wsol.metrics import PxAP
from wsol.metrics.histogram import pixel_histograms
from wsol.metrics.pixels import resize_mask
from wsol.models import Classifier

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "wsolevaluation"
GOLDEN = Path(__file__).parents[1] / "golden"
real = pytest.mark.skipif(not REAL.is_dir(), reason="the real annotations are not beside this checkout")

ALBATROSS, AUKLET = "001.Black_footed_Albatross", "002.Crested_Auklet"
BIRDS = (f"{ALBATROSS}/301.jpg", f"{ALBATROSS}/338.jpg", f"{AUKLET}/117.jpg", f"{AUKLET}/442.jpg")


def write_split(
    root: Path, name: str, split: str, rows: Sequence[tuple[str, int]], truth: Sequence[str] = (), size: str = "32,24"
) -> Path:
    """Write the four files of a split as they are handed out: without a newline at the end, empty without truth."""
    folder = root / "metadata" / name / split
    folder.mkdir(parents=True)
    files = {
        "image_ids": [image for image, _ in rows],
        "class_labels": [f"{image},{label}" for image, label in rows],
        "image_sizes": [f"{image},{size}" for image, _ in rows] if size else [],
        "localization": truth,
    }
    for file, lines in files.items():
        (folder / f"{file}.txt").write_text("\n".join(lines))
    return folder


def write_picture(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def cub(tmp_path: Path) -> Path:
    """CUB val: two classes of two birds, one of them with two boxes."""
    truth = [f"{BIRDS[0]},2,3,20,21", f"{BIRDS[1]},0,0,31,23", f"{BIRDS[2]},5,5,9,9", f"{BIRDS[2]},1,1,3,3"]
    rows = list(zip(BIRDS, (0, 0, 1, 1), strict=True))
    write_split(tmp_path, "CUB", "val", rows, [*truth, f"{BIRDS[3]},4,4,4,4"])
    return tmp_path


def test_cub(cub: Path) -> None:
    data = WSOLEvaluation(cub, "CUB", "val")
    assert (data.name, data.split, data.role, len(data)) == ("CUB", "val", "train-fullsup", 4)
    assert data.class_ids == (ALBATROSS, AUKLET)
    assert data.classes == ("Black footed Albatross", "Crested Auklet")
    assert data.labels.tolist() == [sample.label for sample in data] == [0, 0, 1, 1]
    assert [sample.sample_id for sample in data] == list(BIRDS)
    assert data[2].boxes.tolist() == [[5, 5, 9, 9], [1, 1, 3, 3]]
    assert data[3].boxes.tolist() == [[4, 4, 4, 4]]
    assert data[1].size() == (32, 24)  # with no image on the disk
    with pytest.raises(UserError, match=r"301\.jpg' is missing: no file .*dataset/CUB/001"):
        data[0].read_image()


def test_images_lie_in_dataset_or_where_one_says(cub: Path) -> None:
    write_picture(cub / "dataset" / "CUB" / BIRDS[0], np.zeros((24, 32, 3), np.uint8))
    write_picture(cub / "elsewhere" / BIRDS[0], np.full((24, 32, 3), 255, np.uint8))
    assert WSOLEvaluation(cub, "CUB", "val")[0].read_image().max() == 0
    assert WSOLEvaluation(cub, "CUB", "val", images=cub / "elsewhere")[0].read_image().min() >= 250


def test_options_of_the_command_line(cub: Path) -> None:
    words = ["dataset=wsolevaluation", f"dataset.root={cub}", "dataset.name=CUB", "dataset.split=val"]
    data = build_dataset(compose_application("evaluate", words).dataset)
    assert isinstance(data, WSOLEvaluation)
    assert len(data) == 4
    with pytest.raises(UserError, match="dataset.name is needed"):
        build_dataset(compose_application("evaluate", [*words[:2]]).dataset)


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


def test_classes_meet_a_model(cub: Path) -> None:
    data = WSOLEvaluation(cub, "CUB", "val")
    by_folder = map_classes(data.classes, data.ids, [AUKLET, ALBATROSS, "003.Other"], None, 3)
    assert (by_folder.how, by_folder.to_model.tolist()) == ("id", [1, 0])
    by_name = map_classes(data.classes, data.ids, ["crested auklet", "Black_footed_Albatross"], None, 2)
    assert (by_name.how, by_name.to_model.tolist()) == ("name", [1, 0])


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
    assert data.class_ids == imagenet_wnids()
    assert (data.classes[0], data.classes[65]) == ("tench", "sea snake")
    assert data.labels.tolist() == [label for _, label in rows]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (("train/n01443537/n01443537_2.JPEG", 0), "gives label 0 (n01440764) to an image of folder 'n01443537'"),
        (("val2/7/0.jpeg", 8), "gives label 8 (n01514859) to an image of folder '7'"),
        (("val/ILSVRC2012_val_00000001.JPEG", 1000), "label 1000 is outside: it must be 0 to 999"),
    ],
)
def test_labels_of_ilsvrc_that_mean_something_else(tmp_path: Path, row: tuple[str, int], why: str) -> None:
    folder = write_split(tmp_path, "ILSVRC", "val", [row])
    with pytest.raises(UserError) as error:
        WSOLEvaluation(tmp_path, "ILSVRC", "val")
    assert str(error.value).startswith(f"{folder / 'class_labels.txt'}, line 1: ")
    assert why in str(error.value)


def write_openimages(root: Path) -> list[str]:
    """Two images: one with two masks and pixels to ignore, twice as large as the image; one with a mask alone."""
    ids = ["val/0bt_c3/1cd9.jpg", "val/0by6g/4903.jpg"]
    masks = {name: np.zeros((24, 32), bool) for name in ("1cd9_a", "1cd9_b", "1cd9_ignore", "4903_a")}
    masks["1cd9_a"][:4, :4] = masks["1cd9_b"][20:, 20:] = masks["1cd9_ignore"][:8] = masks["4903_a"][5:9] = True
    folder = root / "dataset" / "OpenImages" / "val"
    for name, mask in masks.items():
        write_picture(folder / ("0by6g" if name[0] == "4" else "0bt_c3") / f"{name}.png", mask)
    for image in ids:
        write_picture(root / "dataset" / "OpenImages" / image, np.full((12, 16, 3), 99, np.uint8))
    first, truth = "val/0bt_c3/1cd9", []
    truth += [f"{first}.jpg,{first}_a.png,{first}_ignore.png", f"{first}.jpg,{first}_b.png,"]
    write_split(root, "OpenImages", "val", [(ids[0], 0), (ids[1], 1)], [*truth, f"{ids[1]},{ids[1][:-4]}_a.png,"], "")
    return ids


def test_openimages(tmp_path: Path) -> None:
    write_openimages(tmp_path)
    data = WSOLEvaluation(tmp_path, "OpenImages", "val")
    assert data.class_ids == data.classes == ("0bt_c3", "0by6g")
    first, second = data
    assert first.boxes is None
    assert first.read_mask().sum() == 4 * 4 + 4 * 12  # the union of its instances
    assert first.read_ignore().sum() == 8 * 32
    assert second.read_mask().sum() == 4 * 32
    assert second.read_ignore() is None


def test_masks_of_another_resolution_are_scored(tmp_path: Path, classifier: Classifier) -> None:
    write_openimages(tmp_path)
    data = WSOLEvaluation(tmp_path, "OpenImages", "val")
    results = wsol.evaluate(
        data, classifier, methods=["center"], protocols=["choe2020"], class_map="position", progress=False
    )
    row = results.summary.iloc[0]
    assert (row["dataset"], row["split"], row["n_images"]) == ("OpenImages", "val", 2)
    assert 0 < row["pxap"] < 100


def test_masks_of_another_aspect_are_not(tmp_path: Path, classifier: Classifier) -> None:
    write_openimages(tmp_path)
    write_picture(tmp_path / "dataset/OpenImages/val/0by6g/4903_a.png", np.ones((32, 24), bool))
    data = WSOLEvaluation(tmp_path, "OpenImages", "val")
    with pytest.raises(UserError, match=r"4903\.jpg.*the mask has 24 x 32 pixels, the image 16 x 12; it must have"):
        wsol.evaluate(
            data, classifier, methods=["center"], protocols=["choe2020"], class_map="position", progress=False
        )


def test_masks_of_one_image_have_one_size(tmp_path: Path) -> None:
    write_openimages(tmp_path)
    folder = tmp_path / "dataset/OpenImages/val/0bt_c3"
    write_picture(folder / "1cd9_b.png", np.zeros((10, 10), bool))
    with pytest.raises(UserError, match=r"1cd9_b\.png has 10 x 10 pixels, .*1cd9_a\.png has 32 x 24: .* one size"):
        WSOLEvaluation(tmp_path, "OpenImages", "val")[0].read_mask()


def test_second_ignore_mask(tmp_path: Path) -> None:
    write_openimages(tmp_path)
    path = tmp_path / "metadata/OpenImages/val/localization.txt"
    path.write_text(path.read_text().replace("_b.png,", "_b.png,val/0bt_c3/other.png"))
    with pytest.raises(UserError, match=r"localization\.txt, line 2: .* second ignore mask of this image; keep one"):
        WSOLEvaluation(tmp_path, "OpenImages", "val")


@pytest.mark.parametrize("column", [1, 2])
def test_masks_stay_in_their_folder(tmp_path: Path, column: int) -> None:
    write_openimages(tmp_path)
    path = tmp_path / "metadata/OpenImages/val/localization.txt"
    lines = [line.split(",") for line in path.read_text().split("\n")]
    lines[0][column] = "../../../etc/passwd"
    path.write_text("\n".join(",".join(line) for line in lines))
    with pytest.raises(UserError, match=r"localization\.txt, line 1: path '../../../etc/passwd' leads out"):
        WSOLEvaluation(tmp_path, "OpenImages", "val")


def test_proxy_sets(cub: Path) -> None:
    (cub / "metadata/CUB/val/image_ids_proxy.txt").write_text(f"{BIRDS[3]}\n{BIRDS[0]}\n")
    data = WSOLEvaluation(cub, "CUB", "val", proxy=True)
    assert [sample.sample_id for sample in data] == [BIRDS[3], BIRDS[0]]
    assert data.labels.tolist() == [1, 0]
    assert [sample.boxes.tolist() for sample in data] == [[[4, 4, 4, 4]], [[2, 3, 20, 21]]]
    assert len(data.classes) == 2
    with pytest.raises(UserError, match=r"class_labels\.txt has no line for image id '009\.New/a\.jpg', which is in"):
        (cub / "metadata/CUB/val/image_ids_proxy.txt").write_text("009.New/a.jpg")
        WSOLEvaluation(cub, "CUB", "val", proxy=True)


def test_no_proxy_set(cub: Path) -> None:
    with pytest.raises(UserError, match=r"image_ids_proxy\.txt: no such file; dataset\.root is the folder"):
        WSOLEvaluation(cub, "CUB", "val", proxy=True)


def test_so_many_of_each_class(cub: Path) -> None:
    draws = [WSOLEvaluation(cub, "CUB", "val", num_val_sample_per_class=1, seed=seed) for seed in (0, 0, 1, 2, 3, 4)]
    names = [[sample.sample_id for sample in data] for data in draws]
    assert all(data.labels.tolist() == [sample.label for sample in data] == [0, 1] for data in draws)
    assert names[0] == names[1]
    assert len(set(map(tuple, names))) > 1
    assert [sample.boxes.tolist() for sample in draws[0]] == [
        sample.boxes.tolist() for sample in WSOLEvaluation(cub, "CUB", "val") if sample.sample_id in names[0]
    ]
    with pytest.raises(UserError, match=r"per_class=3: class 0 of .*class_labels\.txt has 2 images; pass 1 to 2, or 0"):
        WSOLEvaluation(cub, "CUB", "val", num_val_sample_per_class=3)
    with pytest.raises(UserError, match=r"per_class=-1: "):
        WSOLEvaluation(cub, "CUB", "val", num_val_sample_per_class=-1)


def test_other_splits_are_never_drawn_from(tmp_path: Path) -> None:
    write_split(tmp_path, "CUB", "test", [(BIRDS[0], 0), (BIRDS[1], 0)])
    assert len(WSOLEvaluation(tmp_path, "CUB", "test", num_val_sample_per_class=1)) == 2


def test_windows_line_ends_and_byte_order_marks(cub: Path) -> None:
    for path in (cub / "metadata/CUB/val").iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n\r\n") + b"\r\n")
    data = WSOLEvaluation(cub, "CUB", "val")
    assert [sample.sample_id for sample in data] == list(BIRDS)
    assert data[2].boxes.tolist() == [[5, 5, 9, 9], [1, 1, 3, 3]]


@pytest.mark.parametrize(
    ("root", "name", "split", "why"),
    [
        ("nowhere", "CUB", "val", "nowhere: no such folder; dataset.root is the folder that holds metadata"),
        ("metadata", "CUB", "val", "metadata: there is no metadata/ in it; dataset.root is"),
        ("", "cub", "val", "dataset.name=cub: .*metadata has CUB; pass one of these"),
        ("", "../CUB", "val", "dataset.name=../CUB: .* has CUB; pass one"),
        ("", "CUB", "test", "dataset.split=test: .*CUB has val; pass one of these"),
    ],
)
def test_places_that_are_not_there(cub: Path, root: str, name: str, split: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        WSOLEvaluation(cub / root, name, split)


@pytest.mark.parametrize("name", ["image_ids", "class_labels"])
def test_missing_files(cub: Path, name: str) -> None:
    (cub / f"metadata/CUB/val/{name}.txt").unlink()
    with pytest.raises(UserError, match=rf"{name}\.txt: no such file; dataset\.root is the folder that holds"):
        WSOLEvaluation(cub, "CUB", "val")


@pytest.mark.parametrize(
    ("file", "line", "text", "why"),
    [
        ("image_ids", 2, "../../etc/passwd", "path '../../etc/passwd' leads out of"),
        ("image_ids", 2, "/etc/passwd", "path '/etc/passwd' leads out of"),
        ("image_ids", 2, "a/../../b.jpg", "path 'a/../../b.jpg' leads out of"),
        ("image_ids", 2, "..\\b.jpg", "leads out of"),
        ("image_ids", 2, "C:/b.jpg", "leads out of"),
        ("image_ids", 3, BIRDS[0], f"image id '{BIRDS[0]}' stands in line 1 already; remove one"),
        ("class_labels", 1, f"{BIRDS[0]}", f"'{BIRDS[0]}' is not `image id,label`; mend the line"),
        ("class_labels", 1, f"{BIRDS[0]},one", "label 'one' is not a whole number; mend the line"),
        ("class_labels", 1, f"{BIRDS[0]},1.5", "label '1.5' is not a whole number"),
        ("class_labels", 1, f"{BIRDS[0]},-1", "label -1 is outside: it must be at least 0; mend the line"),
        ("class_labels", 1, f"{BIRDS[0]},{'9' * 30}", "is not a whole number"),
        ("class_labels", 2, f"{BIRDS[0]},0", f"image id '{BIRDS[0]}' stands in line 1 already; remove one"),
        ("class_labels", 1, "003.New/1.jpg,0", "'003.New/1.jpg' is not in {folder}/image_ids.txt; add it there"),
        ("class_labels", 4, f"{BIRDS[3]},0", f"pairs folder '{AUKLET}' with label 0, unlike"),
        ("image_sizes", 2, f"{BIRDS[1]},0,24", "width 0 is outside: it must be at least 1"),
        ("image_sizes", 2, f"{BIRDS[1]},32", "is not `image id,width,height`"),
        ("image_sizes", 2, "x.jpg,32,24", "image id 'x.jpg' is not in"),
        ("localization", 3, f"{BIRDS[2]},5,5,9", "is not `image id,x0,y0,x1,y1`"),
        ("localization", 3, f"{BIRDS[2]},5,5,9,x", f"'{BIRDS[2]},5,5,9,x' does not end in the numbers x0 y0 x1 y1"),
        ("localization", 3, f"{BIRDS[2]},9,5,5,9", "has a box that is inverted, negative or not finite; mend it"),
        ("localization", 3, f"{BIRDS[2]},-1,5,5,9", "inverted, negative or not finite"),
        ("localization", 3, f"{BIRDS[2]},5,5,nan,9", "inverted, negative or not finite"),
        ("localization", 3, "x.jpg,5,5,9,9", "image id 'x.jpg' is not in {folder}/image_ids.txt; add it there, or"),
    ],
)
def test_bad_lines_are_named(cub: Path, file: str, line: int, text: str, why: str) -> None:
    folder = cub / "metadata/CUB/val"
    path = folder / f"{file}.txt"
    lines = path.read_text().split("\n")
    lines[line - 1] = text
    path.write_text("\n".join(lines))
    with pytest.raises(UserError) as error:
        WSOLEvaluation(cub, "CUB", "val")
    assert str(error.value).startswith(f"{path}, line {line}: ")
    assert why.format(folder=folder) in str(error.value)


@pytest.mark.parametrize("file", ["class_labels", "image_sizes", "localization"])
def test_an_image_that_another_file_lacks(cub: Path, file: str) -> None:
    path = cub / f"metadata/CUB/val/{file}.txt"
    path.write_text("\n".join(path.read_text().split("\n")[1:]))
    with pytest.raises(UserError) as error:
        WSOLEvaluation(cub, "CUB", "val")
    assert str(error.value).startswith(f"{path} has no line for image id '{BIRDS[0]}', which is in ")


def test_a_split_without_images(cub: Path) -> None:
    (cub / "metadata/CUB/val/image_ids.txt").write_text("\n")
    with pytest.raises(UserError, match=r"image_ids\.txt lists no image; is the copy complete"):
        WSOLEvaluation(cub, "CUB", "val")


def test_check_sees_wrong_boxes(cub: Path) -> None:
    path = cub / "metadata/CUB/val/localization.txt"
    path.write_text(path.read_text().replace("2,3,20,21", "20,3,2,21"))
    with wrong_boxes_kept():
        assert WSOLEvaluation(cub, "CUB", "val")[0].boxes.tolist() == [[20, 3, 2, 21]]


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


@real
def test_every_count_of_the_reference_through_the_dataset() -> None:
    golden = np.load(GOLDEN / "cub_val_100.npz")
    data = WSOLEvaluation(REAL, "CUB", "val")
    samples = {sample.sample_id: sample for sample in data}
    own = [samples[str(name)] for name in golden["image_ids"]]
    maps = (levels / 255.0 for levels in golden["heatmaps_uint8"])
    boxes, sizes = [sample.boxes for sample in own], [sample.size() for sample in own]
    sweeps = list(wsol.sweep_many(maps, boxes, "choe2020", sizes, threads=2))
    for kind, total in (("largest", "max_box_acc"), ("any", "max_box_acc_v2")):
        ious = np.stack([getattr(sweep, f"iou_{kind}") for sweep in sweeps])
        for index, delta in enumerate((0.3, 0.5, 0.7)):
            counts = (ious >= delta).sum(0)
            assert np.array_equal(counts, golden[f"curve_{kind}"][index]), (kind, delta)
            assert 100 * counts.max() / len(own) == pytest.approx(golden[total][index])


@real
def test_real_openimages_gives_the_references_pxap() -> None:
    data = WSOLEvaluation(REAL, "OpenImages", "val")
    assert (len(data), data.class_ids[80:], data.labels.tolist()) == (5, ("0bt_c3", "0by6g"), [80] * 3 + [81] * 2)
    golden, metric = np.load(GOLDEN / "openimages_val_5.npz"), PxAP(0.001)
    samples = {sample.sample_id: sample for sample in data}
    for name, levels in zip(golden["image_ids"], golden["heatmaps_uint8"], strict=True):
        sample = samples[str(name)]
        mask, ignore = (resize_mask(part, (224, 224)) for part in (sample.read_mask(), sample.read_ignore()))
        metric.update(*pixel_histograms(levels / 255.0, mask, ignore, metric.edges))
    assert 100 * float(metric.compute()["pxap"]) == pytest.approx(float(golden["pxap_interval_0.001"]), abs=1e-9)
