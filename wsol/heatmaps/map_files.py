"""Arrays that somebody keeps on disk, one map each: a folder of .npy files or one .npz; nothing is ever unpickled."""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from wsol.errors import UserError

__all__ = ["MapArchive", "MapFolder", "open_maps"]

LONGEST_SIDE = 32767
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
ONE_PARSER = threading.Lock()  # Python 3.11 fails where threads parse headers at once (its issue 106905)
DAMAGE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class MapFolder:
    """The .npy files of a folder and its sub-folders.

    Attributes
    ----------
    names : frozenset of str
        Relative paths without `.npy`, with forward slashes; hidden files are passed over.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = frozenset(_npy_names(root))

    def read(self, name: str) -> np.ndarray:
        """Read one map (h, w). Raises `UserError` that says what is wrong, without a name."""
        try:
            with (self.root / f"{name}.npy").open("rb") as stream:
                return _read_map(stream)
        except OSError as error:
            raise UserError(f"can't be read ({error.strerror or error})") from error


class MapArchive:
    """The arrays of an .npz file, decompressed one by one when they are read.

    Attributes
    ----------
    names : frozenset of str
        Keys.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"heatmaps={path} can't be read as an .npz file: {error}; write it with numpy.savez"
            ) from error
        self._lock = threading.Lock()  # a ZipFile counts its readers without one
        self.names = frozenset(name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy"))

    def read(self, name: str) -> np.ndarray:
        """Read one map (h, w). Raises `UserError` that says what is wrong, without a name."""
        try:
            with self._lock, self._zip.open(f"{name}.npy") as stream:
                return _read_map(stream)
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise UserError(f"can't be read ({error})") from error


def open_maps(path: Path) -> MapFolder | MapArchive:
    """Find out what maps there are; none is read yet.

    Parameters
    ----------
    path : Path
        A folder, or an .npz file.

    Raises
    ------
    UserError
        If it is neither, or holds no map.
    """
    if path.is_dir():
        found: MapFolder | MapArchive = MapFolder(path)
        if not found.names:
            raise UserError(
                f"heatmaps={path}: no index.parquet and heatmaps.json there, as the heatmaps/ folder of a run that has "
                f"ended holds them, and no .npy file either; somebody else's heatmaps are files <sample id>.npy"
            )
        return found
    if path.suffix.lower() == ".npz" and path.is_file():
        found = MapArchive(path)
        if not found.names:
            raise UserError(f"heatmaps={path} holds no array; write it with numpy.savez, with sample ids as keys")
        return found
    raise UserError(
        f"heatmaps={path}: {'that is a file of another kind' if path.exists() else 'no such folder or file'}; pass the "
        f"heatmaps/ folder of a run, a folder of <sample id>.npy files, or one .npz file with sample ids as keys"
    )


def _npy_names(root: Path) -> list[str]:
    """Relative paths of all .npy files; links to folders are followed, each folder once."""
    names, visited = [], set()
    for folder, inner, files in os.walk(root, followlinks=True):
        here = os.path.realpath(folder)
        if here in visited:
            inner.clear()
            continue
        visited.add(here)
        above = Path(folder).relative_to(root)
        own = (file for file in files if file.endswith(".npy") and not file.startswith("."))
        names += [(above / file.removesuffix(".npy")).as_posix() for file in own]
    return names


def _read_map(stream: IO[bytes]) -> np.ndarray:
    """Read one array, once its header has shown that it is a map of numbers."""
    try:
        version = np.lib.format.read_magic(stream)
        if version not in HEADERS:
            raise UserError(f"has .npy version {version[0]}.{version[1]}; save it with numpy.save")
        with ONE_PARSER:
            shape, column_first, dtype = HEADERS[version](stream)
        _check_header(shape, dtype)
        values = np.frombuffer(stream.read(shape[0] * shape[1] * dtype.itemsize), dtype)
        return values.reshape(shape, order="F" if column_first else "C")
    except UserError:
        raise
    except DAMAGE as error:
        raise UserError(f"is damaged or no .npy file ({error})") from error


def _check_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise UserError("holds Python objects (a pickle), which are never loaded; save it as an array of numbers")
    if dtype.kind not in "fiub":
        raise UserError(f"holds values of type {dtype}, not real numbers")
    if len(shape) != 2 or not all(1 <= side <= LONGEST_SIDE for side in shape):
        raise UserError(f"has shape {shape}; wanted one map (height, width)")
