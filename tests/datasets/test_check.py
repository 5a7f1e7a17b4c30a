"""`wsol check` finds every kind of fault, says which change numbers, and decodes each image once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol import cli
from wsol.datasets import Dataset, Sample, TinyImageNet
from wsol.datasets.check import FAULTS, Checked, box_fault, check_dataset
from wsol.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
BOX = [[2, 3, 11, 7]]  # 10 x 5 pixels of 20 x 12
MASK = np.zeros((12, 20), bool)
MASK[3:8, 2:12] = True
RGB = Image.fromarray(PICTURE)
Make = Callable[[Path], list[Sample | str]]


class Few(Dataset):
    """Samples that a test made; a text is the error that one raises."""

    name, split, classes = "few", "test", ("cat", "dog")

    def __init__(self, *samples: Sample | str) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, str):
            raise UserError(sample)
        return sample


def check(*samples: Sample | str, workers: int = 2) -> Checked:
    return check_dataset(Few(*samples), workers, show_progress=False)


def sample(name: str = "a", label: int = 0, **changes: object) -> Sample:
    return Sample(**({"sample_id": name, "label": label, "image": PICTURE, "boxes": BOX} | changes))


def pictured(name: str, image: Image.Image = RGB, cut: int | None = None, **options: object) -> Make:
    """One sample whose image lies in a file, of which only so many bytes are left."""

    def make(folder: Path) -> list[Sample | str]:
        image.save(folder / name, **options)
        (folder / name).write_bytes((folder / name).read_bytes()[:cut])
        return [sample(image=folder / name)]

    return make


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


DEEP = Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 256)
TWO_FRAMES = {"save_all": True, "append_images": [Image.fromarray(255 - PICTURE)]}
CASES: dict[str, Make] = {
    "annotation unreadable": lambda _: [sample(), "boxes.txt, line 7: no box; fix it"],
    "duplicate sample id": lambda _: [sample(), sample()],
    "unknown label": lambda _: [sample(), sample("b", 2)],
    "image missing": lambda folder: [sample(image=folder / "gone.jpg")],
    "image truncated": pictured("cut.jpg", cut=-60),
    "image unreadable": pictured("none.jpg", cut=0),
    "image size": lambda _: [sample(image_size=(12, 20))],
    "no box": lambda _: [sample(), sample("b", boxes=None)],
    "box not finite": lambda _: [sample(boxes=[[0, 0, np.inf, 3]])],
    "box inverted": lambda _: [sample(boxes=[[9, 3, 2, 7]])],
    "box empty": lambda _: [sample(boxes=[[2, 3, 1, 7]])],
    "box outside": lambda _: [sample(boxes=[[2, 3, 11, 30]])],
    "box one pixel late": lambda _: [sample(boxes=[[2, 3, 20, 7]])],
    "no mask": lambda _: [sample(mask=MASK), sample("b")],
    "mask unreadable": lambda folder: [sample(mask=folder / "gone.png")],
    "mask size": lambda _: [sample(mask=MASK.T)],
    "mask resolution": lambda _: [sample(mask=np.ones((6, 10), bool))],
    "mask empty": lambda _: [sample(mask=np.zeros_like(MASK))],
    "CMYK": pictured("a.jpg", RGB.convert("CMYK")),
    "palette": pictured("a.png", RGB.convert("P")),
    "16-bit": pictured("a.png", DEEP),
    "few bits": pictured("a.png", Image.fromarray(np.asarray(DEEP) >> 4)),
    "animated": pictured("a.webp", **TWO_FRAMES),
    "EXIF-rotated": pictured("a.jpg", exif=orientation(6)),
    "class without images": lambda _: [sample()],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_named(tmp_path: Path, fault: str) -> None:
    checked = check(*CASES[fault](tmp_path))
    rows = checked.faults[checked.faults["fault"] == fault]
    assert len(rows) == 1 and rows["changes_numbers"].tolist() == [FAULTS[fault]]
    assert rows["detail"].iloc[0]
    others = set(checked.faults["fault"]) - {fault, "class without images"}
    assert not others and checked.changing == FAULTS[fault]


def test_figures_of_a_good_dataset() -> None:
    two = [[2, 3, 11, 7], [7, 5, 16, 9]]  # 50 pixels each, of which 5 x 3 are shared
    checked = check(sample(mask=MASK, ignore=~MASK), sample("b", 1, boxes=two, mask=~MASK))
    assert checked.faults.empty
    assert {name: values.tolist() for name, values in checked.figures.items()} == {
        "samples per class": [1, 1],
        "image width": [20, 20],
        "image height": [12, 12],
        "boxes per sample": [1, 2],
        "share covered by boxes": pytest.approx([50 / 240, 85 / 240]),
        "share covered by the mask": pytest.approx([50 / 240, 190 / 240]),
    }


@pytest.mark.parametrize(
    ("box", "size", "fault"),
    [
        ([0, 0, 19, 11], (20, 12), ""), ([0, 0, 20, 12], (20, 12), "box one pixel late"),
        ([0, 0, 20.5, 11], (20, 12), "box outside"), ([-1, 0, 5, 5], (20, 12), "box outside"),
        ([25, 0, 30, 5], (20, 12), "box outside"), ([25, 0, 30, 5], None, ""), ([4, 4, 4, 4], (20, 12), ""),
        ([4, 4, 3, 8], (20, 12), "box empty"), ([4, 4, 2, 8], (20, 12), "box inverted"),
        ([np.nan, 0, 1, 1], None, "box not finite"),
    ],
)  # fmt: skip
def test_box_faults(box: list[float], size: tuple[int, int] | None, fault: str) -> None:
    assert box_fault(np.array(box, np.float64), size) == fault


def test_an_image_with_several_samples_is_decoded_once_and_its_size_serves_them_all() -> None:
    decoded: list[str] = []

    def picture(name: str) -> np.ndarray:
        decoded.append(name)
        return PICTURE

    samples = [sample(f"{name}#{kind}", label, image_id=name, image=lambda name=name: picture(name), boxes=boxes)
               for name, boxes in (("x", BOX), ("y", [[0, 0, 90, 3]]))
               for label, kind in enumerate(("cat", "dog"))]  # fmt: skip
    checked = check(*samples)
    assert sorted(decoded) == ["x", "y"]
    assert (checked.n_images, checked.n_samples) == (2, 4)
    assert checked.figures["image width"].tolist() == [20, 20]
    assert checked.faults["sample_id"].tolist() == ["y#cat", "y#dog"]
    assert set(checked.faults["fault"]) == {"box outside"}


def test_faults_come_in_the_order_of_the_samples_whatever_the_workers(tmp_path: Path) -> None:
    bad = [sample(str(i), i % 2, image=tmp_path / f"{i}.jpg", image_size=(20, 12)) for i in range(70)]
    tables = [check(*bad, workers=workers).faults for workers in (0, 1, 3)]
    assert tables[0]["sample_id"].tolist() == [str(i) for i in range(70)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_no_boxes_at_all_are_none_to_miss_but_an_empty_list_is() -> None:
    checked = check(sample(boxes=None), sample("b", 1, boxes=None))
    assert checked.faults.empty and "boxes per sample" not in checked.figures
    assert check(sample(boxes=np.zeros((0, 4))), sample("b", 1)).faults["fault"].tolist() == ["no box"]


@pytest.fixture
def command(tiny_imagenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command on Tiny ImageNet in an empty folder, in which its own is `out`."""
    monkeypatch.chdir(tmp_path)
    start = ["check", "dataset=tiny_imagenet", f"dataset.root={tiny_imagenet}", "run_dir=out"]
    return lambda *words: cli.main([*start, *words])


def test_command_passes_a_good_dataset(command, tiny_imagenet: Path, capsys) -> None:
    assert command() == 0
    assert "6 images, 6 samples, 3 classes" in capsys.readouterr().out
    assert Path("out/check.csv").read_text() == "sample_id,image_id,file,fault,detail,changes_numbers\n"
    # What is only good to know is no failure.
    RGB.resize((64, 64)).save(tiny_imagenet / "val/images/val_0.JPEG", "JPEG", exif=orientation(3))
    assert command() == 0
    assert "EXIF-rotated" in capsys.readouterr().out
    assert pd.read_csv("out/check.csv")["changes_numbers"].tolist() == [False]


def test_command_lists_all_boxes_that_an_evaluation_refuses(command, tiny_imagenet: Path, capsys) -> None:
    listing = tiny_imagenet / "val" / "val_annotations.txt"
    lines = listing.read_text().splitlines()
    lines[1] = "\t".join([*lines[1].split("\t")[:2], "30", "5", "10", "9"])
    lines[3] = "\t".join([*lines[3].split("\t")[:2], "3", "5", "10", "1e400"])
    listing.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"val_annotations.txt, line 2: .*30 5 10 9"):
        TinyImageNet(tiny_imagenet)
    assert command("workers=1") == 1
    captured = capsys.readouterr()
    assert "out/check.csv" in captured.err and "box inverted" in captured.out
    table = pd.read_csv("out/check.csv")
    assert table["fault"].tolist() == ["box inverted", "box not finite"]
    assert table["sample_id"].tolist() == ["val/images/val_1.JPEG", "val/images/val_3.JPEG"]
    details = [f"box 0 (from 0, inclusive): {box}, image 64 x 64" for box in ("30 5 10 9", "3 5 10 inf")]
    assert table["detail"].tolist() == details
    assert table["file"].str.endswith(".JPEG").all() and table["changes_numbers"].all()
