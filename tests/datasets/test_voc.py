"""PASCAL VOC in the layout of its archives: classes per image, difficult objects, boxes from 1, and what is wrong."""

from __future__ import annotations

import io
import logging
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

import wsol
from wsol.datasets import VOC, Shapes
from wsol.datasets.voc import VOC_CLASSES
from wsol.datasets.voc_xml import read_voc_xml
from wsol.errors import UserError
from wsol.models import Classifier, gapnet

# Name, xmin, ymin, xmax, ymax, difficult.
IMAGES = {
    "000001": [("dog", 48, 240, 195, 371, 0), ("person", 8, 12, 352, 498, 0)],
    "000004": [("car", 13, 311, 84, 362, 0), ("car", 362, 330, 500, 389, 1), ("car", 235, 328, 334, 375, 0)],
    "000006": [("chair", 1, 1, 20, 30, 1)],
    "000008": [("sofa", 1, 1, 500, 375, 0), ("dog", 192, 16, 364, 249, 0), ("person", 100, 10, 200, 300, 1)],
}
SIZES = {"000001": (353, 500), "000004": (500, 406), "000006": (500, 375), "000008": (500, 375)}

OBJECT = """\t<object>
\t\t<name>{}</name>
\t\t<pose>Left</pose>
\t\t<truncated>1</truncated>
\t\t<difficult>{}</difficult>
\t\t<bndbox>
\t\t\t<xmin>{}</xmin>
\t\t\t<ymin>{}</ymin>
\t\t\t<xmax>{}</xmax>
\t\t\t<ymax>{}</ymax>
\t\t</bndbox>
{}\t</object>
"""
HEAD = "\t\t<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>\n"


def xml(image_id: str, things: list[tuple], size: tuple[int, int]) -> str:
    objects = "".join(OBJECT.format(name, hard, *box, HEAD if name == "person" else "") for name, *box, hard in things)
    return (
        f"<annotation>\n\t<folder>VOC2007</folder>\n\t<filename>{image_id}.jpg</filename>\n"
        "\t<source><database>The VOC2007 Database</database><image>flickr</image></source>\n"
        f"\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segmented>0</segmented>\n{objects}</annotation>\n"
    )


def write_voc(root: Path, images: dict = IMAGES, split: str = "test", base: str = "VOCdevkit/VOC2007") -> Path:
    """Write pictures of noise and their annotations as the archive unpacks; return `VOC2007/`."""
    home = root / base
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for image_id, things in images.items():
        size = SIZES.get(image_id, (60, 50))
        pixels = random.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(home / "JPEGImages" / f"{image_id}.jpg")
        (home / "Annotations" / f"{image_id}.xml").write_text(xml(image_id, things, size))
    (home / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{image_id}\n" for image_id in images))
    return home


def test_a_sample_for_every_class_on_an_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = write_voc(tmp_path)
    with caplog.at_level(logging.INFO, "wsol"):
        data = VOC(tmp_path)
    assert "voc (2007 test): 3 images, 20 classes, 5 samples (classes on images); 1 more without" in caplog.text
    names = ["000001#dog", "000001#person", "000004#car", "000008#dog", "000008#sofa"]
    assert [sample.sample_id for sample in data] == names
    assert [sample.image_id for sample in data] == [name.split("#")[0] for name in names]
    assert [data.classes[label] for label in data.labels] == [name.split("#")[1] for name in names]
    assert data.labels.tolist() == [sample.label for sample in data]
    assert (data.classes, data.multilabel, data.role, data.split) == (VOC_CLASSES, True, "test", "2007 test")
    assert [sample.size() for sample in data] == [SIZES[sample.image_id] for sample in data]
    assert data[2].image == home / "JPEGImages" / "000004.jpg"
    assert data[2].read_image().shape == (406, 500, 3)


def test_boxes_count_from_0_and_difficult_objects_are_no_truth(tmp_path: Path) -> None:
    write_voc(tmp_path)
    boxes = {sample.sample_id: sample.boxes.tolist() for sample in VOC(tmp_path)}
    assert boxes["000001#dog"] == [[47, 239, 194, 370]]
    assert boxes["000004#car"] == [[12, 310, 83, 361], [234, 327, 333, 374]]
    assert boxes["000008#sofa"] == [[0, 0, 499, 374]]  # the whole image
    assert {name for name in boxes if name.startswith(("000006", "000008#person"))} == set()


def test_some_classes_in_the_order_asked_for(tmp_path: Path) -> None:
    write_voc(tmp_path)
    data = VOC(tmp_path, classes=["sofa", "dog"])
    assert [(sample.sample_id, sample.label) for sample in data] == [
        ("000001#dog", 1), ("000008#sofa", 0), ("000008#dog", 1),
    ]  # fmt: skip
    with pytest.raises(UserError, match=r"dataset\.classes: 'sofas' is not among .* the nearest: sofa"):
        VOC(tmp_path, classes=["sofas"])
    with pytest.raises(UserError, match=r"none of the 4 images of split 2007 test shows one of the 1 classes"):
        VOC(tmp_path, classes=["chair"])


@pytest.mark.parametrize("deeper", ["", "VOCdevkit", "VOCdevkit/VOC2007"])
def test_the_root_may_lie_deeper(tmp_path: Path, deeper: str) -> None:
    write_voc(tmp_path)
    assert len(VOC(tmp_path / deeper)) == 5


@pytest.mark.parametrize(("year", "base"), [(2012, "VOCdevkit/VOC2012"), ("2011", "TrainVal/VOCdevkit/VOC2011")])
def test_other_years(tmp_path: Path, year: int | str, base: str) -> None:
    write_voc(tmp_path, split="trainval", base=base)
    data = VOC(tmp_path, "trainval", year)
    assert (data.split, data.role, len(data)) == (f"{year} trainval", "train-weaksup", 5)


@pytest.mark.parametrize(("year", "role"), [(2007, "train-fullsup"), (2012, "test")])
def test_val_is_what_results_are_given_on_where_test_was_never_handed_out(tmp_path: Path, year: int, role: str) -> None:
    write_voc(tmp_path, split="val", base=f"VOCdevkit/VOC{year}")
    assert VOC(tmp_path, "val", year).role == role


def test_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the archive unpacks to is what is read; the archive itself comes from here, not from the network."""
    write_voc(tmp_path / "made", split="val")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(tmp_path / "made" / "VOCdevkit", "VOCdevkit")

    def fetch(url: str, root: str, **_about: object) -> None:
        assert url.endswith(".tar")
        with tarfile.open(fileobj=io.BytesIO(archive.getvalue())) as tar:
            tar.extractall(root, filter="data")

    monkeypatch.setattr(datasets.voc, "download_and_extract_archive", fetch)
    assert len(VOC(tmp_path / "new", "val", 2007, download=True)) == 5


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        VOC(tmp_path)
    for part in ("VOCdevkit/VOC2007", str(tmp_path), "dataset.root", "dataset.download=true"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"year": 2013}, r"dataset\.year=2013: .* 2007 to 2012"),
        ({"split": "val2017"}, r"dataset\.split=val2017: VOC 2007 has train, val, trainval, test"),
        ({"split": "test", "year": 2012}, r"dataset\.split=test: VOC 2012 has train, val, trainval$"),
    ],
)
def test_unknown_options(tmp_path: Path, options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        VOC(tmp_path, **options)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "C:\\secret"])
def test_ids_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    home = write_voc(tmp_path)
    with (home / "ImageSets/Main/test.txt").open("a") as file:
        file.write(name + "\n")
    with pytest.raises(UserError, match=r"test\.txt, line 5: path '.*' leads out of .*JPEGImages"):
        VOC(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("<name>dog</name>", "<name>kangaroo</name>"), r"000001\.xml: class 'kangaroo' is not one of .*classes=\["),
        (("<name>dog</name>", "<name> </name>"), r"000001\.xml, object 1: no <name>"),
        (("<xmin>48</xmin>", ""), r"000001\.xml, object 1 \('dog'\): box '\? 240 195 371' is not xmin ymin xmax ymax"),
        (("<xmin>48</xmin>", "<xmin>nan</xmin>"), r"box 'nan 240 195 371' is inverted or not finite"),
        (("<xmin>48</xmin>", "<xmin>480</xmin>"), r"box '480 240 195 371' is inverted"),
        (("</annotation>", ""), r"000001\.xml can't be read as XML: .*; replace the file"),
        (("annotation>", "html>"), r"000001\.xml: the outermost element is <html>, wanted <annotation>"),
        (("<annotation>", '<!DOCTYPE x [<!ENTITY a "b">]><annotation>'), r"document type declaration .* is refused"),
    ],
)
def test_damaged_annotations_are_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = write_voc(tmp_path) / "Annotations" / "000001.xml"
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))
    with pytest.raises(UserError, match=message):
        VOC(tmp_path)


def test_missing_annotation(tmp_path: Path) -> None:
    (write_voc(tmp_path) / "Annotations" / "000004.xml").unlink()
    with pytest.raises(UserError, match=r"000004\.xml: no such file; unpack the annotations whole"):
        VOC(tmp_path)


def test_class_names_are_only_text(tmp_path: Path) -> None:
    """Data of one's own in VOC's layout: a name like a path is never followed, and comes back as it is."""
    hostile = '../x, <b>猫</b> & "y"#'
    escaped = hostile.replace("&", "&amp;").replace("<", "&lt;")
    write_voc(tmp_path, {"a": [(escaped, 1, 1, 20, 20, 0), ("dog", 3, 3, 9, 9, 0)]})
    assert [sample.sample_id for sample in VOC(tmp_path, classes=[hostile])] == [f"a#{hostile}"]


def test_a_size_that_is_not_given(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text(xml("a", [("dog", 1.5, 1, 9, 9, 0)], (0, 0)))
    size, (dog,) = read_voc_xml(path)
    assert (size, dog.box, dog.difficult) == (None, (1.5, 1, 9, 9), False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> wsol.Results:
    """A small network on eight pictures that show one to three classes each."""
    root = tmp_path_factory.mktemp("voc")
    random, images = np.random.default_rng(1), {}
    for number in range(8):
        images[f"{number:06d}"] = []
        for name in random.choice(["cat", "dog", "sofa", "bird"], 1 + number % 3, replace=False):
            (x0, y0), (x1, y1) = random.integers(1, 20, 2), random.integers(25, 50, 2)
            images[f"{number:06d}"].append((str(name), x0, y0, x1, y1, 0))
    images["000007"].append(("tvmonitor", 1, 1, 9, 9, 1))
    write_voc(root, images)
    data = VOC(root)
    module = gapnet(20, widths=(6, 8), strides=(2, 2), seed=0)
    small = Classifier(name="small", module=module, layer="features", input_size=(32, 32), classes=data.classes)
    return wsol.evaluate(
        data, small, ("cam", "gradcam", "center"), ("choe2020", "zhou2016"), progress=False, run_dir=root / "run",
        report=False, pictures=0,
    )  # fmt: skip


def test_tables_of_an_evaluation(run: wsol.Results) -> None:
    summary = run.summary
    assert summary["n_images"].eq(8).all() and summary["n_samples"].eq(15).all()
    top = ["top1_cls", "top5_cls", "top1_loc", "top5_loc"]
    assert summary[top].isna().all(axis=None)
    assert summary[["gt_known_loc", "mean_iou", "max_box_acc_50"]].notna().all(axis=None)
    assert run.per_image[["top1_loc", "top5_loc"]].isna().all(axis=None)
    assert run.curves[["top1_loc", "top5_loc"]].isna().all(axis=None)
    assert not run.metrics["metric"].str.startswith(("top", "error_wrong_class")).any()
    assert "wrong_class" not in set(run.per_image["error_kind"])
    kinds = run.metrics[run.metrics["metric"].str.startswith("error_") & (run.metrics["class"] == "")]
    assert np.allclose(kinds.groupby(["method", "protocol"])["value"].sum(), 100)
    assert (run.samples["rank"] >= 0).all()  # where each class stands is still known

    keys = ["method", "protocol"]
    counted = run.per_image.assign(right=100.0 * run.per_image["gt_known_loc"].astype(float))
    corloc = counted.groupby([*keys, "class"])["right"].mean()
    own = run.metrics[(run.metrics["metric"] == "gt_known_loc") & (run.metrics["class"] != "")]
    own = own.set_index([*keys, "class"])["value"]
    assert len(own) == len(corloc) == 6 * 4
    assert np.allclose(own, corloc.loc[own.index])
    mean = run.metrics[run.metrics["metric"] == "corloc"].set_index(keys)["value"]
    assert np.allclose(mean, corloc.groupby(keys).mean().loc[mean.index])

    assert run.run_dir is not None
    again = wsol.score(VOC(run.run_dir.parent), run.run_dir / "heatmaps", ("choe2020", "zhou2016"), progress=False)
    for name in ("summary", "metrics", "per_image"):
        wanted, found = getattr(run, name), getattr(again, name)
        assert wanted.drop(columns="layer", errors="ignore").equals(found.drop(columns="layer", errors="ignore")), name


def test_a_part_of_the_samples_stays_without_top_k(run: wsol.Results) -> None:
    """Cut within an image's classes, to one sample an image: what the dataset is decides, not what is left of it."""
    assert run.run_dir is not None
    part = VOC(run.run_dir.parent).first(1)
    assert part.multilabel and not Shapes(length=2).first(1).multilabel
    found = wsol.score(part, run.run_dir / "heatmaps", ["choe2020"], limit=1, progress=False)
    assert found.summary["top1_loc"].isna().all() and found.summary["n_samples"].eq(1).all()
