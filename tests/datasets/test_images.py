"""Pictures of every usual kind become uint8 (H, W, 3); whatever can't is named with its file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wsol.datasets.images import mask_fits, read_image, read_mask, read_size, read_upright, unusual
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
    Image.fromarray(whole).save(
        tmp_path / name, save_all=True, append_images=[Image.fromarray(whole // 2)], lossless=True
    )
    assert np.array_equal(read_image(tmp_path / name, "a"), whole)
    assert unusual(tmp_path / name)["animated"] == "its first frame is read"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_pixels_are_read_as_they_are_stored_whatever_exif_says(tmp_path: Path, name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.tile(COLOR, (4, 5, 1)))
    picture.save(tmp_path / f"plain_{name}")
    picture.save(tmp_path / name, exif=exif)
    assert np.array_equal(read_image(tmp_path / name, "a"), read_image(tmp_path / f"plain_{name}", "a"))
    assert read_size(tmp_path / name, "a") == (15, 8)
    said = f"orientation {orientation}; read as stored, so boxes count stored pixels"
    assert unusual(tmp_path / name) == ({} if orientation == 1 else {"EXIF-rotated": said})


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, COLOR),
        (2, COLOR[:, ::-1]),
        (3, COLOR[::-1, ::-1]),
        (4, COLOR[::-1]),
        (5, COLOR.transpose(1, 0, 2)),
        (6, np.rot90(COLOR, -1)),
        (7, np.rot90(COLOR, 2).transpose(1, 0, 2)),
        (8, np.rot90(COLOR)),
    ],
)
def test_upright_is_as_people_see_it(tmp_path: Path, name: str, orientation: int, turned: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOR).save(tmp_path / name, exif=exif)
    assert np.array_equal(read_upright(tmp_path / name), turned)


def test_orientation_of_tiff_is_its_own_and_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, to be turned clockwise
    path = tmp_path / "a.tif"
    Image.fromarray(COLOR).save(path, exif=exif)
    assert np.array_equal(read_image(path, "a"), np.rot90(COLOR, -1))
    assert read_size(path, "a") == (2, 3) and unusual(path) == {}


def test_usual_pictures_have_nothing_unusual(tmp_path: Path) -> None:
    for name, picture in {"a.jpg": COLOR, "b.png": COLOR, "c.jpg": GRAY, "d.png": GRAY}.items():
        assert unusual(save(tmp_path / name, Image.fromarray(picture))) == {}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.fromarray(COLOR).save(path, exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    assert unusual(path) == {} and read_image(path, "a").shape == COLOR.shape


def test_sixteen_bits_of_color_keep_their_upper_eight(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    deep = (COLOR.astype(np.uint16) * 256 + 200).astype(">u2").tobytes()  # Pillow can't write such a file
    rows = b"".join(b"\0" + deep[start : start + 18] for start in (0, 18))
    header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert np.array_equal(read_image(tmp_path / "a.png", "a"), COLOR)
    assert unusual(tmp_path / "a.png") == {"16-bit": "its upper 8 bits are read"}


@pytest.mark.parametrize(
    ("size", "fits"),
    [
        ((500, 375), True),
        ((250, 188), True),
        ((1000, 750), True),
        ((375, 500), False),
        ((500, 374), False),
        ((224, 224), False),
    ],
)
def test_masks_may_have_another_resolution_but_no_other_aspect(size: tuple[int, int], fits: bool) -> None:
    assert mask_fits(size, (500, 375)) == fits


@pytest.mark.parametrize("name", ["gone.jpg", "."])
def test_missing_file_names_sample_and_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"image of sample 'val/7' .*{(tmp_path / name)}"):
        read_image(tmp_path / name, "val/7")
    with pytest.raises(UserError, match=f"mask of sample 'val/7' .*{(tmp_path / name)}"):
        read_mask(tmp_path / name, "val/7")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:20],
        lambda whole: b"",
        lambda whole: b"<html>404 not found</html>",
        lambda whole: bytes(1000),
    ],
    ids=["truncated", "header only", "empty", "text", "zeros"],
)
def test_damaged_file_names_sample_and_file(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path / "broken.jpg", Image.fromarray(noise))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=r"'val/7' .*broken\.jpg"):
        read_image(path, "val/7")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "bomb.png", Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(UserError, match=r"bomb\.png.*decompression bomb"):
        read_image(path, "a")


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


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((0, 4, 3), np.uint8),
    ],
    ids=["gray", "four channels", "channels first", "float", "no rows"],
)
def test_arrays_of_another_kind_are_named(image: np.ndarray) -> None:
    with pytest.raises(UserError, match="'val/7'"):
        read_image(image, "val/7")
    with pytest.raises(UserError, match="'val/7'"):
        read_image(lambda: image, "val/7")


def test_mask_counts_every_pixel_that_is_not_zero(tmp_path: Path) -> None:
    values = np.array([[0, 1, 128], [255, 0, 2]], np.uint8)
    path = save(tmp_path / "m.png", Image.fromarray(values))
    for source in (values, path, str(path), lambda: values, values.astype(np.float32)):
        assert np.array_equal(read_mask(source, "a"), values > 0)


def test_mask_of_sixteen_bits_keeps_small_values(tmp_path: Path) -> None:
    values = np.array([[0, 1, 3000]], np.uint16)
    assert read_mask(save(tmp_path / "m.png", Image.fromarray(values)), "a").tolist() == [[False, True, True]]


@pytest.mark.parametrize("mask", [np.zeros((2, 2, 1)), np.zeros(4), np.zeros((0, 3))])
def test_mask_of_another_shape_is_named(mask: np.ndarray) -> None:
    with pytest.raises(UserError, match="mask of sample 'a'"):
        read_mask(mask, "a")
