"""Pictures of every usual kind become uint8 (H, W, 3), ahead of their use but not far; what cannot is named."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from wsol.datasets.images import load_ahead, mask_fits, read_image, read_mask, read_size, read_upright, unusual
from wsol.errors import UserError

GRAY = np.array([[0, 51, 102], [153, 204, 255]], np.uint8)
COLOR = np.stack([GRAY, 255 - GRAY, np.full_like(GRAY, 77)], -1)


def save(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


PALETTE = Image.fromarray(np.array([[0, 1], [1, 2]], np.uint8)).convert("P")
PALETTE.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
RED = np.array([255, 0, 0], np.uint8)
INKS = np.zeros((8, 8, 4), np.uint8)
INKS[..., 1:3] = 255  # magenta and yellow: red


@pytest.mark.parametrize(
    ("name", "image", "pixels"),
    [
        *((f"a.{kind}", Image.fromarray(COLOR), COLOR) for kind in ("png", "bmp", "tif", "ppm")),
        ("gray.png", Image.fromarray(GRAY), np.stack([GRAY] * 3, -1)),
        ("bits.png", Image.fromarray(GRAY > 100), 255 * np.stack([GRAY > 100] * 3, -1).astype(np.uint8)),
        ("palette.png", PALETTE, np.eye(3, dtype=np.uint8)[[[0, 1], [1, 2]]] * 255),
        ("transparent.png", Image.fromarray(np.dstack([COLOR, GRAY])), COLOR),
        ("gray_transparent.png", Image.fromarray(np.dstack([GRAY, 255 - GRAY]), "LA"), np.stack([GRAY] * 3, -1)),
        ("cmyk.tif", Image.fromarray(INKS, "CMYK"), np.broadcast_to(RED, (8, 8, 3))),
    ],
)
def test_every_usual_picture_becomes_rgb(tmp_path: Path, name: str, image: Image.Image, pixels: np.ndarray) -> None:
    path = save(tmp_path / name, image)
    for source in (path, str(path)):
        assert read_image(source, "a").dtype == np.uint8
        assert np.array_equal(read_image(source, "a"), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path, name: str) -> None:
    deep = GRAY.astype(np.uint16) * 256 + 200
    pixels = read_image(save(tmp_path / name, Image.fromarray(deep)), "a")
    assert np.array_equal(pixels, np.stack([GRAY] * 3, -1))


@pytest.mark.parametrize("values", [np.float32([[0.2, 0.9]]), np.int32([[-1, 5]]), np.int32([[0, 70000]])])
def test_pixels_without_a_known_white_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(values))
    with pytest.raises(UserError, match=r"a\.tif.*no known white"):
        read_image(path, "a")


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_read(tmp_path: Path, name: str) -> None:
    whole = np.full((8, 8, 3), 200, np.uint8)
    more = [Image.fromarray(whole // 2)]
    Image.fromarray(whole).save(tmp_path / name, save_all=True, append_images=more, lossless=True)
    assert np.array_equal(read_image(tmp_path / name, "a"), whole)
    assert unusual(tmp_path / name)["animated"] == "its first frame is read"


TURNED = {
    1: COLOR, 2: COLOR[:, ::-1], 3: COLOR[::-1, ::-1], 4: COLOR[::-1], 5: COLOR.transpose(1, 0, 2),
    6: np.rot90(COLOR, -1), 7: np.rot90(COLOR, 2).transpose(1, 0, 2), 8: np.rot90(COLOR),
}  # fmt: skip


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_pixels_are_read_as_stored_or_upright_as_people_see_them(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOR).save(tmp_path / name, exif=exif, lossless=True)
    # A TIFF's orientation is its own, and applied.
    stored = TURNED[orientation] if name == "a.tif" else COLOR
    assert np.array_equal(read_image(tmp_path / name, "a"), stored)
    assert read_size(tmp_path / name, "a") == stored.shape[1::-1]
    assert np.array_equal(read_upright(tmp_path / name), TURNED[orientation])
    kinds = unusual(tmp_path / name)
    assert list(kinds) == (["EXIF-rotated"] if orientation > 1 and name != "a.tif" else [])
    assert all(f"orientation {orientation}" in detail for detail in kinds.values())


def test_usual_pictures_have_nothing_unusual(tmp_path: Path) -> None:
    for name, picture in {"a.jpg": COLOR, "b.png": COLOR, "c.jpg": GRAY, "d.png": GRAY}.items():
        assert unusual(save(tmp_path / name, Image.fromarray(picture))) == {}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOR).save(path, exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    assert unusual(path) == {} and read_image(path, "a").shape == COLOR.shape


def test_sixteen_bits_of_color_keep_their_upper_eight(tmp_path: Path) -> None:
    deep = COLOR.astype(np.uint16) * 256 + 200
    assert cv2.imwrite(str(tmp_path / "a.png"), deep[..., ::-1])  # Pillow can't write such a file
    assert np.array_equal(read_image(tmp_path / "a.png", "a"), COLOR)
    assert unusual(tmp_path / "a.png") == {"16-bit": "its upper 8 bits are read"}


def test_masks_may_have_another_resolution_but_no_other_aspect() -> None:
    assert all(mask_fits(size, (500, 375)) for size in ((500, 375), (250, 188), (1000, 750)))
    assert not any(mask_fits(size, (500, 375)) for size in ((375, 500), (500, 374), (224, 224)))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "gif", "tif", "webp", "bmp"])
def test_random_damage_never_gets_past_as_another_error(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    random, path = np.random.default_rng(1), tmp_path / f"a.{kind}"
    whole = save(path, Image.fromarray(np.tile(COLOR, (8, 8, 1)))).read_bytes()
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 8):
            damaged[place] = random.integers(256)
        path.write_bytes(damaged[: random.integers(1, len(whole) + 1)])
        try:
            assert read_image(path, "a").shape[2] == 3
        except UserError as error:
            refused += 1
            assert f"a.{kind}" in str(error)
    assert refused > 10


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (3, 4, 4), (0, 4, 3)])
def test_arrays_of_another_kind_are_named(shape: tuple[int, ...]) -> None:
    for image in (np.zeros(shape, np.uint8), lambda: np.zeros(shape, np.uint8), np.zeros((4, 4, 3))):
        with pytest.raises(UserError, match="'val/7'"):
            read_image(image, "val/7")


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 1)), np.zeros(4), np.zeros((0, 3))])
def test_mask_of_another_shape_is_named(mask: np.ndarray) -> None:
    with pytest.raises(UserError, match="mask of sample 'a'"):
        read_mask(mask, "a")


def alive() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("wsol-loader")]


class Load:
    """Hands on items and remembers which; one is broken."""

    def __init__(self, broken: int = -1, seconds: float = 0.0) -> None:
        self.begun: list[int] = []
        self.broken, self.seconds = broken, seconds

    def __call__(self, item: int) -> int:
        self.begun.append(item)
        if item == self.broken:
            raise UserError(f"item {item} is broken")
        time.sleep(self.seconds)
        return item

    def settled(self) -> int:
        """How many there are once no more come."""
        count = -1
        while count != len(self.begun):
            count = len(self.begun)
            time.sleep(0.05)
        return count


@pytest.mark.parametrize("workers", [0, 1, 2, 7])
@pytest.mark.parametrize("batch_size", [1, 3, 10, 99])
def test_order_is_kept(workers: int, batch_size: int) -> None:
    def load(item: int) -> int:
        time.sleep(0.001 * (item % 3))  # later items are ready before earlier ones
        return item * item

    batches = list(load_ahead(range(10), load, batch_size, workers))
    assert [value for batch in batches for value in batch] == [i * i for i in range(10)]
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert not alive()
    assert list(load_ahead([], str, 4, workers)) == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_exception_comes_at_the_batch_of_its_item(workers: int) -> None:
    batches = load_ahead(range(12), Load(broken=5), 2, workers)
    assert next(batches) == [0, 1]
    assert next(batches) == [2, 3]
    with pytest.raises(UserError, match="item 5"):
        next(batches)
    assert not alive()


def test_after_an_exception_the_rest_is_not_loaded() -> None:
    load = Load(broken=0, seconds=0.01)
    with pytest.raises(UserError):
        next(load_ahead(range(1000), load, 500, 1))
    assert len(load.begun) < 100


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_look_ahead_is_bounded(workers: int) -> None:
    load = Load()
    batches = load_ahead(range(1000), load, 5, workers)
    next(batches)
    assert 5 < load.settled() <= (workers + 2) * 5
    next(batches)
    assert load.settled() <= (workers + 3) * 5
    assert alive()
    batches.close()
    assert not alive()
    assert len(load.begun) <= (workers + 3) * 5


def test_without_workers_nothing_is_loaded_ahead() -> None:
    load = Load()
    next(load_ahead(range(9), load, 3, 0))
    assert load.begun == [0, 1, 2]


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 2), (-1, 0), (4, -1)])
def test_impossible_numbers_are_refused(batch_size: int, workers: int) -> None:
    with pytest.raises(UserError, match=f"batch_size={batch_size}, workers={workers}"):
        list(load_ahead([1], str, batch_size, workers))
