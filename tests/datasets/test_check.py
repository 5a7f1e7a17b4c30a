"""`wsol check` finds every kind of fault, says which change numbers, and decodes each image once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from wsol import cli
from wsol.datasets import Dataset, Sample, TinyImageNet
from wsol.datasets.check import FAULTS, box_fault, check_dataset
from wsol.datasets.sample import boxes_from_masks
from wsol.errors import UserError

PICTURE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
BOX = [[2, 3, 11, 7]]  # 10 x 5 pixels of 20 x 12


class Some(Dataset):
    """Samples that a test made."""

    name, split, classes = "some", "test", ("cat", "dog")

    def __init__(self, *samples: Sample | str) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if isinstance(sample, str):
            raise UserError(sample)
        return sample


def sample(name: str = "a", label: int = 0, **changes: object) -> Sample:
    about: dict[str, object] = {"sample_id": name, "label": label, "image": PICTURE, "boxes": BOX}
    return Sample(**(about | changes))


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def rgb() -> Image.Image:
    return Image.fromarray(PICTURE)


def orientation(value: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = value
    return exif


def truncated(folder: Path) -> Path:
    path = save(folder / "cut.jpg", rgb())
    path.write_bytes(path.read_bytes()[:-60])
    return path


def text(folder: Path) -> Path:
    (folder / "text.jpg").write_text("<html>404</html>")
    return folder / "text.jpg"


def sixteen(folder: Path) -> Path:
    return save(folder / "deep.png", Image.fromarray(PICTURE[..., 0].astype(np.uint16) * 256))


MASK = np.zeros((12, 20), bool)
MASK[3:8, 2:12] = True

CASES: dict[str, Callable[[Path], Some]] = {
    "annotation unreadable": lambda folder: Some(sample(), "boxes.txt, line 7: no box; mend it"),
    "duplicate sample id": lambda folder: Some(sample(), sample()),
    "unknown label": lambda folder: Some(sample(), sample("b", 2)),
    "image missing": lambda folder: Some(sample(image=folder / "gone.jpg")),
    "image truncated": lambda folder: Some(sample(image=truncated(folder))),
    "image unreadable": lambda folder: Some(sample(image=text(folder))),
    "image size": lambda folder: Some(sample(image=save(folder / "a.png", rgb()), image_size=(12, 20))),
    "no box": lambda folder: Some(sample(), sample("b", boxes=None)),
    "box not finite": lambda folder: Some(sample(boxes=[[0, 0, np.inf, 3]])),
    "box inverted": lambda folder: Some(sample(boxes=[[9, 3, 2, 7]])),
    "box empty": lambda folder: Some(sample(boxes=[[2, 3, 1, 7]])),
    "box outside": lambda folder: Some(sample(boxes=[[2, 3, 11, 30]])),
    "box one pixel late": lambda folder: Some(sample(boxes=[[2, 3, 20, 7]])),
    "no mask": lambda folder: Some(sample(mask=MASK), sample("b")),
    "mask unreadable": lambda folder: Some(sample(mask=folder / "gone.png")),
    "mask size": lambda folder: Some(sample(mask=MASK.T)),
    "mask resolution": lambda folder: Some(sample(mask=np.ones((6, 10), bool))),
    "mask empty": lambda folder: Some(sample(mask=np.zeros_like(MASK))),
    "CMYK": lambda folder: Some(sample(image=save(folder / "a.jpg", rgb().convert("CMYK")))),
    "palette": lambda folder: Some(sample(image=save(folder / "a.png", rgb().convert("P")))),
    "16-bit": lambda folder: Some(sample(image=sixteen(folder))),
    "animated": lambda folder: Some(
        sample(image=save(folder / "a.webp", rgb(), save_all=True, append_images=[Image.fromarray(255 - PICTURE)]))
    ),
    "EXIF-rotated": lambda folder: Some(sample(image=save(folder / "a.jpg", rgb(), exif=orientation(6)))),
    "class without images": lambda folder: Some(sample()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_found_and_named(tmp_path: Path, fault: str) -> None:
    found = check_dataset(CASES[fault](tmp_path), show_progress=False)
    rows = found.faults[found.faults["fault"] == fault]
    assert len(rows) == 1 and rows["changes_numbers"].tolist() == [FAULTS[fault]]
    assert rows["detail"].iloc[0]
    others = set(found.faults["fault"]) - {fault, "class without images"}
    assert not others and found.changing == FAULTS[fault]


def test_a_good_dataset_has_none_and_its_figures_are_right() -> None:
    two = [[2, 3, 11, 7], [7, 5, 16, 9]]  # 50 pixels each, of which 5 x 3 are shared
    found = check_dataset(Some(sample(mask=MASK, ignore=~MASK), sample("b", 1, boxes=two)), show_progress=False)
    assert set(found.faults["fault"]) == {"no mask"}
    figures = {name: values.tolist() for name, values in found.figures.items()}
    assert figures == {
        "samples per class": [1, 1],
        "image width": [20, 20],
        "image height": [12, 12],
        "boxes per sample": [1, 2],
        "share covered by boxes": pytest.approx([50 / 240, 85 / 240]),
        "share covered by the mask": pytest.approx([50 / 240]),
    }


@pytest.mark.parametrize(
    ("box", "size", "fault"),
    [
        ([0, 0, 19, 11], (20, 12), ""),
        ([0, 0, 20, 12], (20, 12), "box one pixel late"),
        ([0, 0, 20.5, 11], (20, 12), "box outside"),
        ([-1, 0, 5, 5], (20, 12), "box outside"),
        ([25, 0, 30, 5], (20, 12), "box outside"),
        ([25, 0, 30, 5], None, ""),
        ([4, 4, 4, 4], (20, 12), ""),
        ([4, 4, 3, 8], (20, 12), "box empty"),
        ([4, 4, 2, 8], (20, 12), "box inverted"),
        ([np.nan, 0, 1, 1], None, "box not finite"),
    ],
)
def test_box_faults(box: list[float], size: tuple[int, int] | None, fault: str) -> None:
    assert box_fault(np.array(box, np.float64), size) == fault


def test_annotated_size_of_the_turned_picture_is_explained(tmp_path: Path) -> None:
    path = save(tmp_path / "phone.jpg", rgb(), exif=orientation(6))
    found = check_dataset(Some(sample(image=path, image_size=(12, 20)), sample("b", 1)), show_progress=False)
    kinds = found.faults.set_index("fault")["detail"]
    assert kinds["EXIF-rotated"] == "orientation 6; read as stored, so boxes count stored pixels"
    assert kinds["image size"].startswith("the annotation says 12 x 20 pixels, the file has 20 x 12; the annot")
    assert np.array_equal(sample(image=path).read_image().shape, PICTURE.shape)


def test_an_image_with_several_samples_is_decoded_once_and_its_size_serves_them_all() -> None:
    decoded, lock = [], threading.Lock()

    def picture(name: str) -> np.ndarray:
        with lock:
            decoded.append(name)
        return PICTURE

    samples = [
        sample(f"{name}#{kind}", label, image_id=name, image=lambda name=name: picture(name), boxes=boxes)
        for name, boxes in (("x", BOX), ("y", [[0, 0, 90, 3]]))
        for label, kind in enumerate(("cat", "dog"))
    ]
    found = check_dataset(Some(*samples), show_progress=False)
    assert sorted(decoded) == ["x", "y"]
    assert (found.n_images, found.n_samples) == (2, 4)
    assert found.figures["image width"].tolist() == [20, 20]
    assert found.faults["sample_id"].tolist() == ["y#cat", "y#dog"]
    assert set(found.faults["fault"]) == {"box outside"}


def test_faults_come_in_the_order_of_the_samples_whatever_the_workers(tmp_path: Path) -> None:
    bad = [sample(str(i), i % 2, image=tmp_path / f"{i}.jpg", image_size=(20, 12)) for i in range(70)]
    tables = [check_dataset(Some(*bad), workers=workers, show_progress=False).faults for workers in (0, 1, 3)]
    assert tables[0]["sample_id"].tolist() == [str(i) for i in range(70)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_boxes_from_masks_name_the_empty_mask() -> None:
    found = check_dataset(boxes_from_masks(Some(sample(mask=MASK), sample("b", 1, mask=0 * MASK))), show_progress=False)
    assert found.faults["fault"].tolist() == ["annotation unreadable", "class without images"]
    assert "sample b has an empty mask" in found.faults["detail"].iloc[0]


def test_training_sets_need_no_boxes() -> None:
    found = check_dataset(Some(sample(boxes=None), sample("b", 1, boxes=None)), show_progress=False)
    assert found.faults.empty and "boxes per sample" not in found.figures


def test_empty_list_of_boxes_is_a_fault_for_itself() -> None:
    found = check_dataset(Some(replace(sample(), boxes=np.zeros((0, 4))), sample("b", 1)), show_progress=False)
    assert found.faults["detail"].tolist() == ["its list of boxes is empty; an evaluation stops there"]


def run(root: Path, *words: str) -> int:
    return cli.main(["check", "dataset=tiny_imagenet", f"dataset.root={root}", "run_dir=out", *words])


def test_command_passes_a_good_dataset(tiny_imagenet: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(tiny_imagenet) == 0
    said = capsys.readouterr().out
    assert "tiny_imagenet (val): 6 images, 6 samples, 3 classes" in said and "No faults." in said
    assert (tmp_path / "out" / "check.csv").read_text() == "sample_id,image_id,file,fault,detail,changes_numbers\n"


def test_command_lists_all_faults_of_boxes_that_an_evaluation_refuses(
    tiny_imagenet: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    listing = tiny_imagenet / "val" / "val_annotations.txt"
    lines = listing.read_text().splitlines()
    lines[1] = "\t".join([*lines[1].split("\t")[:2], "30", "5", "10", "9"])
    lines[3] = "\t".join([*lines[3].split("\t")[:2], "3", "5", "10", "1e400"])
    listing.write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"val_annotations.txt, line 2: .*30 5 10 9"):
        TinyImageNet(tiny_imagenet)
    assert run(tiny_imagenet, "workers=1") == 1
    captured = capsys.readouterr()
    assert captured.err == "wsol: error: 2 faults change numbers or stop a run: see out/check.csv\n"
    table = pd.read_csv("out/check.csv")
    assert table["fault"].tolist() == ["box inverted", "box not finite"]
    assert table["sample_id"].tolist() == ["val/images/val_1.JPEG", "val/images/val_3.JPEG"]
    assert table["detail"].tolist() == ["box 0: 30 5 10 9, image 64 x 64", "box 0: 3 5 10 inf, image 64 x 64"]
    assert table["file"].str.endswith(".JPEG").all() and table["changes_numbers"].all()
    assert "box inverted" in captured.out and "yes" in captured.out


def test_command_tells_what_is_only_good_to_know(tiny_imagenet: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(
        tiny_imagenet / "val/images/val_0.JPEG", "JPEG", exif=orientation(3)
    )
    assert run(tiny_imagenet) == 0
    assert "EXIF-rotated" in capsys.readouterr().out
    assert pd.read_csv("out/check.csv")["changes_numbers"].tolist() == [False]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dataset.root=/none"], "dataset.root=/none: no such folder"),
        (["workers=-1"], "workers=-1"),
        (["method=cam"], "wsol check has no method to choose"),
    ],
)
def test_command_refuses_what_the_user_can_mend(
    tiny_imagenet: Path, tmp_path: Path, monkeypatch, capsys, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(tiny_imagenet, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_sweep_over_splits_ends_with_1_where_one_has_faults(tiny_imagenet: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tiny_imagenet / "val/images/val_0.JPEG").write_bytes(b"")
    assert run(tiny_imagenet, "-m", "dataset.split=train,val") == 1
    table = pd.read_csv("out/sweep.csv", keep_default_na=False)
    assert [bool(error) for error in table["error"]] == [False, True]
    assert pd.read_csv("out/1/check.csv")["fault"].tolist() == ["image unreadable"]
