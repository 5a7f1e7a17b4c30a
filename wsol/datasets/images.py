"""Decode pictures and masks; whatever is wrong with a file is said with its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from wsol.errors import UserError

__all__ = ["read_image", "read_mask"]

SKIP_HINT = "replace the file; an evaluation also takes on_error=skip, which counts it as a miss and goes on"


def read_image(source: np.ndarray | Path | str | Callable[[], np.ndarray], name: str) -> np.ndarray:
    """Get a picture as uint8 (H, W, 3).

    Parameters
    ----------
    source : array, path or function
        Where the picture is; a function is called without arguments.
    name : str
        The sample's id, for messages.

    Raises
    ------
    UserError
        If the file is missing or can't be decoded, or an array has another shape or type.

    Notes
    -----
    Of 16 bits the upper 8 are kept; gray becomes three equal channels, transparency is dropped.

    Examples
    --------
    >>> read_image(np.zeros((2, 3, 3), np.uint8), "a").shape
    (2, 3, 3)
    """
    if isinstance(source, str | Path):
        return _decode(Path(source), name, "RGB")
    image = np.asarray(source() if callable(source) else source)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise UserError(
            f"image of sample {name!r} has shape {image.shape} and type {image.dtype}; "
            f"wanted uint8 of shape (height, width, 3)"
        )
    return image


def read_mask(source: np.ndarray | Path | str | Callable[[], np.ndarray], name: str) -> np.ndarray:
    """Get a mask as bool (H, W): every pixel that isn't zero belongs to it.

    Raises
    ------
    UserError
        If the file is missing or can't be decoded, or the array has not two dimensions.

    Examples
    --------
    >>> read_mask(np.array([[0, 255]], np.uint8), "a")
    array([[False,  True]])
    """
    if isinstance(source, str | Path):
        return _decode(Path(source), name, "L") > 0
    mask = np.asarray(source() if callable(source) else source)
    if mask.ndim != 2 or 0 in mask.shape:
        raise UserError(f"mask of sample {name!r} has shape {mask.shape}; wanted (height, width)")
    return mask > 0


def _decode(path: Path, name: str, mode: str) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"image of sample {name!r} is missing: no file {path}; {SKIP_HINT}")
    try:
        with Image.open(path) as picture:
            if mode == "L":  # of a palette's mask the index counts, not the color that it is shown in
                return np.asarray(picture if picture.mode == "P" else picture.convert(mode))
            return np.asarray(_eight_bits(picture).convert(mode))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"can't decode {path} (sample {name!r}): {error}; {SKIP_HINT}") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Keep the upper 8 of 16 bits, which Pillow would clip to white; leave other pictures as they are."""
    if picture.mode[0] not in "IF":
        return picture
    values = np.asarray(picture)
    if picture.mode[0] == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"pixels of type {values.dtype} have no known white; save it with 8 or 16 bits")
    return Image.fromarray((values >> 8).astype(np.uint8))
