"""Decode pictures and masks, ahead of their use; whatever is wrong with a file is said with its name.

Pixels are read as they are stored: an EXIF orientation is not applied, for boxes and masks of the field's datasets
count stored pixels, and so do the evaluators that their numbers come from. `wsol check` lists such files. (A TIFF's
orientation belongs to the format itself; Pillow applies it, for us as for everybody.)
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageOps

from wsol.errors import UserError, composed_otherwise

SKIP_HINT = "replace the file; an evaluation also takes on_error=skip, which counts it as a miss and goes on"
MASK_HINT = "fix or replace the file"
# Pillow reads forty more; what nobody's images are in is not tried, above all EPS, which would run Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
LIFT = ("this many pixels in a picture are taken for an attack; if you trust the file, set WSOL_MAX_PIXELS=0 in the "
        "environment, or PIL.Image.MAX_IMAGE_PIXELS = None in Python")  # fmt: skip
if (_most := os.environ.get("WSOL_MAX_PIXELS", "")).isdecimal():
    Image.MAX_IMAGE_PIXELS = int(_most) or None

Source = np.ndarray | Path | str | Callable[[], np.ndarray]
T = TypeVar("T")


def read_image(source: Source, name: str) -> np.ndarray:
    """Get a picture as uint8 (H, W, 3): of 16 bits the upper 8, without transparency, of several frames the first."""
    if isinstance(source, str | Path):
        return _decode(Path(source), f"image of sample {name!r}", SKIP_HINT, _colors)
    image = np.asarray(source() if callable(source) else source)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UserError(f"image of sample {name!r} is {image.dtype} {image.shape}; wanted uint8 (height, width, 3)")
    return image


def read_upright(path: Path) -> np.ndarray:
    """Get a picture as people see it, turned as its EXIF orientation says: uint8 (H, W, 3); for those without boxes."""
    return _decode(path, "image", SKIP_HINT, lambda picture: _colors(ImageOps.exif_transpose(picture)))


def read_mask(source: Source, name: str) -> np.ndarray:
    """Get a mask as bool (H, W): every pixel that isn't zero, in whichever channel or as a palette's index."""
    if isinstance(source, str | Path):
        return _decode(Path(source), f"mask of sample {name!r}", MASK_HINT, _object)
    mask = np.asarray(source() if callable(source) else source)
    if mask.ndim != 2 or 0 in mask.shape or (mask != mask).any():
        raise UserError(f"mask of sample {name!r} has shape {mask.shape}, or NaN in it; wanted (height, width)")
    return mask != 0


def read_values(path: Path, name: str) -> np.ndarray:
    """Get the gray values, or a palette's indices, of a file that says what each pixel is: (H, W)."""
    return _decode(path, f"mask of sample {name!r}", MASK_HINT, _levels)


def read_size(path: Path, name: str) -> tuple[int, int]:
    """Get (width, height) of a picture from its header; no pixel is decoded."""
    return _decode(path, f"image of sample {name!r}", SKIP_HINT, lambda picture: picture.size)


def mask_fits(size: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether a mask has its image's size or, to a pixel, its aspect at another resolution, as OpenImages' do."""
    (width, height), (image_width, image_height) = size, image_size
    aspect_fits = abs(width * image_height - height * image_width) <= max(*size, *image_size)
    return size == image_size or (width != image_width and height != image_height and aspect_fits)


def unusual(path: Path) -> dict[str, str]:
    """Say from its header in what way an image that can be decoded differs from most, and how it is read, by kind."""
    kinds = {}
    with Image.open(path, formats=FORMATS) as picture:
        if picture.mode == "CMYK":
            kinds["CMYK"] = "read as RGB"
        if picture.mode in ("P", "PA"):
            kinds["palette"] = "read as the palette's colors"
        if picture.mode[0] == "I" or any(";16" in str(tile[3]) for tile in picture.tile):
            kinds["16-bit"] = "its upper 8 bits are read"
        if getattr(picture, "is_animated", False) and picture.format != "MPO":  # two views of one photograph
            kinds["animated"] = "its first frame is read"
        if (orientation := _orientation(picture)) > 1:
            kinds["EXIF-rotated"] = f"orientation {orientation}; read as stored, so boxes count stored pixels"
    return kinds


def uses_few_bits(image: np.ndarray, source: Source) -> bool:
    """Whether a picture (H, W, 3) came from a file of 16 bits of which the brightest pixel leaves some unused."""
    if not isinstance(source, str | Path) or image.max() > 127:
        return False
    return "16-bit" in unusual(Path(source))


def _orientation(picture: Image.Image) -> int:
    """EXIF's number for how a picture is to be turned, 1 where it isn't."""
    return 1 if picture.format == "TIFF" else int(picture.getexif().get(ExifTags.Base.Orientation, 1))


def read_orientation(path: Path) -> int:
    """EXIF's number for how a picture is to be turned, 1 where it isn't; no pixel is decoded."""
    return _decode(path, "image", SKIP_HINT, _orientation)


def _decode(path: Path, what: str, hint: str, convert: Callable[[Any], T]) -> T:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return convert(picture)
    except Exception as error:  # of a damaged file Pillow's decoders make whatever happens to break
        if isinstance(error, Image.DecompressionBombError):
            hint = LIFT
        elif isinstance(error, FileNotFoundError) and path.parent.is_dir():
            hint = composed_otherwise(path.name, os.listdir(path.parent)).lstrip("; ") or hint
        raise UserError(f"{what} can't be read from {path}: {type(error).__name__}, {error}; {hint}") from error


def _colors(picture: Image.Image) -> np.ndarray:
    """Pixels in three channels; of 16 bits the upper 8, which Pillow would clip to white."""
    if picture.mode[0] in "IF":
        values = np.asarray(picture)
        if picture.mode[0] == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(f"pixels of type {values.dtype} have no known white; save it with 8 or 16 bits")
        picture = Image.fromarray((values >> 8).astype(np.uint8))
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _levels(picture: Image.Image) -> np.ndarray:
    """Gray levels, of colors only where all are gray; of a palette's mask the index counts, not its color."""
    values = _channels(picture)
    if (values != values[..., :1]).any():
        raise ValueError("it has colors, which are no values of pixels; save it in gray")
    return values[..., 0]


def _object(picture: Image.Image) -> np.ndarray:
    return np.asarray(_channels(picture).any(axis=2))


def _channels(picture: Image.Image) -> np.ndarray:
    """Values of a mask without alpha (H, W, channels), which must leave out no other pixels than those with 0."""
    image = picture.convert("RGBA") if picture.mode in ("PA", "RGBa") else picture
    plain = {"1": "L", "LA": "L"} | dict.fromkeys(("RGBA", "RGBX", "CMYK", "YCbCr", "LAB"), "RGB")
    values = np.atleast_3d(np.asarray(image.convert(plain.get(image.mode, image.mode))))
    if (values != values).any():
        raise ValueError("it has NaN, which is neither object nor background")
    if picture.has_transparency_data:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
        if alpha.min() < 255 and ((alpha > 0) != values.any(axis=2)).any():
            raise ValueError("its transparency tells another object than its colors do; save it in gray, 0 outside")
    return values


Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


def load_ahead(
    items: Sequence[Item], load: Callable[[Item], Loaded], batch_size: int, workers: int = 2
) -> Iterator[list[Loaded]]:
    """Yield `[load(item), …]` in batches, in order; an exception of `load` is raised at the batch of its item.

    Without workers the caller's own thread loads; else at most `workers + 2` batches exist at a time.
    """
    if batch_size < 1 or workers < 0:
        raise UserError(f"batch_size={batch_size}, workers={workers}: pass at least 1 image and 0 workers")
    batches = (items[start : start + batch_size] for start in range(0, len(items), batch_size))
    if workers == 0:
        yield from ([load(item) for item in batch] for batch in batches)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="wsol-loader") as pool:
        ahead: deque[list[Future[Loaded]]] = deque()
        try:
            for batch in batches:
                ahead.append([pool.submit(load, item) for item in batch])
                if len(ahead) == workers + 2:
                    yield [future.result() for future in ahead.popleft()]
            while ahead:
                yield [future.result() for future in ahead.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)  # also what is left of the batch that failed
