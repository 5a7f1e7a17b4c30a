"""Heatmaps that somebody else made: files found by sample id, each looked at once, read when asked for.

Nothing is ever unpickled.
"""

from __future__ import annotations

import os
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from wsol.console import progress
from wsol.datasets.annotations import safe_join
from wsol.datasets.folder import SUFFIXES
from wsol.datasets.loader import load_ahead
from wsol.errors import UserError, first_names

__all__ = ["KINDS", "MapFiles", "open_map_files"]

KINDS = ("scoremap", "raw")
LARGEST = 2**30  # bytes of one map
DAMAGE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class MapFiles:
    """The maps of a dataset's samples among the .npy files below a folder, or the arrays of an .npz.

    Each covers the whole of its image, at any resolution of its own, and is scored as it is: nothing is rounded.

    Parameters
    ----------
    path : Path
    kind : "scoremap" or "raw"
        Whether maps lie in [0, 1] already and are never normalized, or are normalized by each protocol.

    Attributes
    ----------
    keys : frozenset of str
        Relative paths or names of arrays, without `.npy`.
    key_of : list of str or None
        Per sample its map among them.
    shapes : list of (h, w) or None
        Of each sample's map, once it was checked; None: there is none that can be scored.
    """

    def __init__(self, path: Path, kind: str) -> None:
        if kind not in KINDS:
            raise UserError(f"heatmaps_kind={kind}: pass scoremap (in [0, 1], scored as it is) or raw (normalized)")
        self.kind, self.path = kind, path
        self.key_of: list[str | None] = []
        self.shapes: list[tuple[int, int] | None] = []
        self._archive: zipfile.ZipFile | None = None
        # A ZipFile counts its readers without a lock, and Python 3.11 fails where threads parse headers at once
        # (its issue 106905).
        self._lock = threading.Lock()
        if path.is_dir():
            names = _npy_files(path)
        elif path.suffix.lower() == ".npz" and path.is_file():
            try:
                self._archive = zipfile.ZipFile(path)
            except DAMAGE as error:
                raise UserError(f"heatmaps={path} can't be read as an .npz file: {error}") from error
            names = [name for name in self._archive.namelist() if name.endswith(".npy")]
        else:
            problem = "that is a file of another kind" if path.exists() else "no such folder or file"
            raise UserError(
                f"heatmaps={path}: {problem}; pass the heatmaps/ folder of a run, a folder of <sample id>.npy files, "
                f"or one .npz file with sample ids as keys"
            )
        self.keys = frozenset(name.removesuffix(".npy") for name in names)
        if not self.keys:
            raise UserError(
                f"heatmaps={path} holds no map: neither index.parquet and heatmaps.json of a run that has ended, nor "
                f"arrays <sample id>.npy of somebody else"
            )

    @property
    def missing(self) -> np.ndarray:
        """Samples without a map that can be scored: bool (N,)."""
        return np.array([shape is None for shape in self.shapes], bool)

    def read(self, index: int) -> np.ndarray:
        """Return a sample's map, zeros where there is none: float64 (h, w)."""
        key = self.key_of[index]
        return np.zeros((1, 1)) if key is None or self.shapes[index] is None else self.load(key)

    def load(self, key: str) -> np.ndarray:
        """Read one map: float64 (h, w)."""
        name = f"{key}.npy"
        try:
            if self._archive is not None and self._archive.getinfo(name).file_size > LARGEST:
                raise UserError(f"holds more than {LARGEST} bytes")
            with self._lock, self._archive.open(name) if self._archive else (self.path / name).open("rb") as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
        except UserError:
            raise
        except DAMAGE as error:
            raise UserError(f"is damaged, or no .npy file of numbers: {error}") from error
        if values.dtype.kind not in "fiub":
            raise UserError(f"holds values of type {values.dtype}, not real numbers")
        if values.ndim != 2 or not values.size:
            raise UserError(f"has shape {values.shape}; wanted one map (height, width)")
        return np.array(values, np.float64)

    def match(self, table: pd.DataFrame) -> dict[str, list[str]]:
        """Find each sample's map, by its id or by the id without its image's suffix; return faults by their kind."""
        faults: dict[str, list[str]] = {}
        owners: dict[str, list[int]] = {}
        for index, (sample_id, image_id) in enumerate(zip(table["sample_id"], table["image_id"], strict=True)):
            safe_join(self.path, sample_id, f"sample {index}")
            candidates = _candidates(sample_id, image_id)
            key = next((key for key in candidates if key in self.keys), None)
            self.key_of.append(key)
            if key is not None:
                owners.setdefault(key, []).append(index)
                continue
            hint = "" if "no file" in faults else f" (looked for {' or '.join(f'{key}.npy' for key in candidates)})"
            faults.setdefault("no file", []).append(sample_id + hint)
        for key, indices in owners.items():
            if len(indices) > 1:
                names = f"{key} ({' and '.join(table['sample_id'][indices])})"
                faults.setdefault("one file for several samples, name it with the suffix", []).append(names)
                for index in indices:
                    self.key_of[index] = None
        self.unused = self.keys - owners.keys()
        return faults

    def check(self, index: int) -> tuple[int, ...] | str:
        """Return the shape of a sample's map, or what is wrong with it; "" where there is none."""
        key = self.key_of[index]
        if key is None:
            return ""
        try:
            values = self.load(key)
        except UserError as error:
            return str(error)
        if not np.isfinite(values).all():
            return "NaN or infinite values"
        if self.kind == "scoremap" and not (values.min() >= 0 and values.max() <= 1):
            return f"values from {values.min():g} to {values.max():g}: outside [0, 1], pass heatmaps_kind=raw"
        return values.shape


def open_map_files(
    table: pd.DataFrame,
    path: Path,
    kind: str = "scoremap",
    *,
    on_error: str = "stop",
    part: bool = False,
    workers: int = 2,
    show_progress: bool = True,
) -> tuple[MapFiles, list[str]]:
    """Find the maps of a dataset's samples and look at each once; the notes say what was passed over.

    Maps that are missing, unreadable, pickled, of another shape, NaN or out of range, and files of no sample (unless
    the samples are a `part` of a dataset) are named: in a `UserError`, or with on_error="skip" in a note.
    """
    maps = MapFiles(path, kind)
    faults = maps.match(table)
    with progress("checking heatmaps", len(table), show_progress) as advance:
        for batch in load_ahead(range(len(table)), maps.check, 64, workers):
            for checked in batch:
                if isinstance(checked, str) and checked:
                    sample_id = table["sample_id"][len(maps.shapes)]
                    faults.setdefault("heatmaps that can't be used", []).append(f"{sample_id} ({checked})")
                maps.shapes.append(None if isinstance(checked, str) else (checked[0], checked[1]))
            advance(len(batch))
    if maps.unused and not part:
        faults["files of no sample"] = sorted(maps.unused)
    if not faults:
        return maps, []
    lists = "; ".join(f"{fault}, {len(names)}: {first_names(names)}" for fault, names in faults.items())
    missing, count = int(maps.missing.sum()), len(table)
    text = f"heatmaps={path}: {lists}. {missing} of {count} samples have no heatmap that can be scored"
    if on_error == "stop" or missing == count:
        raise UserError(f"{text}: fix the files, or pass on_error=skip to count these as misses, if others are left")
    return maps, [f"{text} and count as misses"]


def _candidates(sample_id: str, image_id: str) -> list[str]:
    """Names that a sample's map may have, with or without the suffix of the image: `a.jpg#cat` or `a#cat`."""
    if not sample_id.startswith(image_id):
        image_id = sample_id
    path, rest = PurePosixPath(image_id), sample_id[len(image_id) :]
    short = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return list(dict.fromkeys((f"{path}{rest}", f"{short}{rest}")))


def _npy_files(root: Path) -> list[str]:
    """Relative paths of all .npy files that are not hidden; links to folders are followed, each folder once."""
    names, visited = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(folder))
        relative = Path(folder).relative_to(root)
        names += [(relative / file).as_posix() for file in files if file.endswith(".npy") and file[0] != "."]
    return names
