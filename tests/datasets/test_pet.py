"""Oxford-IIIT Pet as its two archives unpack: breeds, trimaps as masks, the box around a pet, and what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

import wsol
from wsol.datasets import OxfordPet
from wsol.datasets.from_masks import BoxesFromMasks
from wsol.errors import UserError
from wsol.models import Classifier, gapnet

TEST = [("Abyssinian_201", 1, 1, 1), ("american_bulldog_203", 2, 2, 1), ("american_bulldog_204", 2, 2, 1),
        ("Egyptian_Mau_14", 6, 1, 5)]  # fmt: skip
HEAD = "#Image CLASS-ID SPECIES BREED ID\n#ID: 1:37 Class ids\n#SPECIES: 1:Cat 2:Dog\n"


def trimap() -> np.ndarray:
    """A body with a border around it, a tail that is border only, and a second piece of the pet."""
    values = np.full((50, 60), 2, np.uint8)
    values[10:40, 10:35] = 3
    values[12:38, 12:33] = 1
    values[20:22, 35:45] = 3
    values[42:44, 12:15] = 1
    return values


def write_pets(root: Path, rows: list[tuple] = TEST, split: str = "test") -> Path:
    """Write pictures of noise, lists and trimaps; return `oxford-iiit-pet/`."""
    home = root / "oxford-iiit-pet"
    for folder in ("images", "annotations/trimaps", "annotations/xmls"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for name, *_ in rows:
        Image.fromarray(random.integers(0, 256, (50, 60, 3), dtype=np.uint8)).save(home / f"images/{name}.jpg")
        Image.fromarray(trimap()).save(home / f"annotations/trimaps/{name}.png")
    lines = "".join(" ".join(map(str, row)) + "\n" for row in rows)
    (home / f"annotations/{split}.txt").write_text(lines)
    (home / "annotations/list.txt").write_text(HEAD + lines)
    return home


def test_breeds_as_torchvision_calls_them(tmp_path: Path) -> None:
    home = write_pets(tmp_path)
    for data in (OxfordPet(tmp_path), OxfordPet(home)):
        assert data.classes == ("Abyssinian", "American Bulldog", "Egyptian Mau")
        assert list(data.classes) == datasets.OxfordIIITPet(str(tmp_path), "test").classes
        assert data.labels.tolist() == [sample.label for sample in data] == [0, 1, 1, 2]
        assert [sample.sample_id for sample in data] == [row[0] for row in TEST]
        assert (data.split, data.role, data.multilabel) == ("test", "test", False)
        assert data[3].image == home / "images" / "Egyptian_Mau_14.jpg"
        assert data[3].read_image().shape == (50, 60, 3)


def test_the_pet_is_the_mask_and_the_border_is_ignored(tmp_path: Path) -> None:
    write_pets(tmp_path)
    sample = OxfordPet(tmp_path)[1]
    assert np.array_equal(sample.read_mask(), trimap() == 1)
    assert np.array_equal(sample.read_ignore(), trimap() == 3)


def test_one_box_around_pet_and_border(tmp_path: Path) -> None:
    write_pets(tmp_path)
    assert OxfordPet(tmp_path)[0].boxes.tolist() == [[10, 10, 44, 43]]
    regions = BoxesFromMasks(OxfordPet(tmp_path))[0]  # dataset.boxes=from_masks: of the pet's own pixels
    assert regions.boxes.tolist() == [[12, 12, 32, 37], [12, 42, 14, 43]]


def test_trimaps_are_read_when_asked_for(tmp_path: Path) -> None:
    home = write_pets(tmp_path)
    path = home / "annotations/trimaps/Abyssinian_201.png"
    path.write_text("no picture")
    data = OxfordPet(tmp_path)
    assert len(data) == 4 and data[1].label == 1
    with pytest.raises(UserError, match=r"can't decode .*Abyssinian_201\.png"):
        data[0]


@pytest.mark.parametrize(("value", "message"), [(0, "has values 0 to 3; a trimap has 1"), (255, "has values 2 to 255")])
def test_other_masks_are_not_taken_for_trimaps(tmp_path: Path, value: int, message: str) -> None:
    path = write_pets(tmp_path) / "annotations/trimaps/Abyssinian_201.png"
    Image.fromarray(np.where(trimap() == 1, value, trimap()).astype(np.uint8)).save(path)
    with pytest.raises(UserError, match=rf"Abyssinian_201\.png {message}"):
        OxfordPet(tmp_path)[0]


def test_a_trimap_without_a_pet(tmp_path: Path) -> None:
    path = write_pets(tmp_path) / "annotations/trimaps/Abyssinian_201.png"
    Image.fromarray(np.full((50, 60), 2, np.uint8)).save(path)
    with pytest.raises(UserError, match=r"Abyssinian_201\.png has no pixel of the pet"):
        OxfordPet(tmp_path)[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Abyssinian_205 1 1", r"test\.txt, line 5: 'Abyssinian_205 1 1' is not"),
        ("Abyssinian_205 x 1 1", r"test\.txt, line 5: breed 'x' is not a whole number"),
        ("Abyssinian_205 0 1 1", r"test\.txt, line 5: breed 0 is outside"),
        ("../../etc/x_205 1 1 1", r"test\.txt, line 5: path '\.\./\.\./etc/x_205' leads out of"),
        ("/etc/x_205 1 1 1", r"test\.txt, line 5: path '/etc/x_205' leads out of"),
    ],
)
def test_damaged_lines_are_named(tmp_path: Path, line: str, message: str) -> None:
    with (write_pets(tmp_path) / "annotations/test.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=message):
        OxfordPet(tmp_path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        OxfordPet(tmp_path)
    for part in ("pet", str(tmp_path), "dataset.root", "dataset.download=true"):
        assert part in str(error.value)
    with pytest.raises(UserError, match=r"dataset\.split=val: pet has trainval, test"):
        OxfordPet(tmp_path, "val")
    (write_pets(tmp_path) / "annotations/test.txt").write_text("\n")
    with pytest.raises(UserError, match=r"test\.txt lists no pictures"):
        OxfordPet(tmp_path)


def test_download_is_torchvisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(_url: str, download_root: str, **_about: object) -> None:
        write_pets(Path(download_root).parent, split="trainval")

    monkeypatch.setattr(datasets.oxford_iiit_pet, "download_and_extract_archive", fetch)
    data = OxfordPet(tmp_path, "trainval", download=True)
    assert (len(data), data.role) == (4, "train-weaksup")


def test_an_evaluation_fills_boxes_masks_and_top_k(tmp_path: Path) -> None:
    write_pets(tmp_path)
    data = OxfordPet(tmp_path)
    module = gapnet(3, widths=(6, 8), strides=(2, 2), seed=0)
    small = Classifier(name="small", module=module, layer="features", input_size=(32, 32), classes=data.classes)
    row = wsol.evaluate(data, small, ["center"], ["choe2020"], progress=False).summary.iloc[0]
    assert row[["top1_loc", "gt_known_loc", "pxap"]].notna().all()
    assert (row["n_images"], row["n_samples"]) == (4, 4)
