"""Heatmaps that somebody else made: files found by sample id, each looked at once, read when asked for.

Nothing is ever unpickled.
"""

from __future__ import annotations

import threading
import zipfile
import zlib
from collections import Counter
from glob import glob
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from wsol.console import progress
from wsol.datasets.folder import SUFFIXES
from wsol.datasets.loader import load_ahead
from wsol.errors import UserError, first_names

LARGEST = 2**30  # bytes of one map
DAMAGE = (OSError, EOFError, ValueError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)


class MapFiles:
    """The maps of a dataset's samples among the .npy files below a folder, or the arrays of an .npz.

    Each covers the whole of its image, at any resolution of its own, and is scored as it is: nothing is rounded.
    """

    def __init__(self, path: Path, kind: str) -> None:
        if kind not in ("scoremap", "raw"):
            raise UserError(f"heatmaps_kind={kind}: pass scoremap (in [0, 1], scored as it is) or raw (normalized)")
        self.path, self.kind = path, kind
        self.key_of: list[str | None] = []  # each sample's map among the keys
        self.shapes: list[tuple[int, int] | None] = []  # its (h, w), None where there is none that can be scored
        self._archive: zipfile.ZipFile | None = None
        # A ZipFile counts its readers without a lock, and Python 3.11 fails where threads parse headers at once
        # (its issue 106905).
        self._lock = threading.Lock()
        if path.is_dir():
            names = glob("**/*.npy", root_dir=path, recursive=True)
        else:
            try:
                self._archive = zipfile.ZipFile(path)
            except DAMAGE as error:
                hint = "heatmaps/ of a run, a folder of <sample id>.npy files, or an .npz with sample ids as keys"
                raise UserError(f"heatmaps={path} is no folder and no .npz ({error}): pass {hint}") from error
            names = [name for name in self._archive.namelist() if name.endswith(".npy")]
        self.keys = frozenset(name.removesuffix(".npy") for name in names)

    @property
    def missing(self) -> np.ndarray:
        """Samples without a map that can be scored: bool (N,)."""
        return np.array([shape is None for shape in self.shapes], bool)

    def read(self, index: int) -> np.ndarray:
        """Return a sample's map, zeros where there is none: float64 (h, w)."""
        key = self.key_of[index]
        return np.zeros((1, 1)) if key is None or self.shapes[index] is None else self._load(key)

    def _load(self, key: str) -> np.ndarray:
        """Read one map: float64 (h, w)."""
        name = f"{key}.npy"
        if self._archive and self._archive.getinfo(name).file_size > LARGEST:
            raise UserError(f"more than {LARGEST} bytes")
        try:
            with self._lock, self._archive.open(name) if self._archive else (self.path / name).open("rb") as stream:
                values = np.lib.format.read_array(stream, allow_pickle=False)
        except DAMAGE as error:
            raise UserError(f"damaged, or no .npy file of numbers: {error}") from error
        if values.dtype.kind not in "fiub" or values.ndim != 2 or not values.size:
            raise UserError(f"{values.dtype} of shape {values.shape}, not real numbers (height, width)")
        return np.array(values, np.float64)

    def match(self, table: pd.DataFrame) -> dict[str, list[str]]:
        """Find each sample's map, by its id or by the id without its image's suffix; return faults by their kind."""
        sample_ids = list(table["sample_id"])
        names = list(map(_names_of, sample_ids, table["image_id"]))
        keys = [next((name for name in several if name in self.keys), None) for several in names]
        times = Counter(keys)
        self.key_of = [key if times[key] == 1 else None for key in keys]
        pairs = list(zip(sample_ids, keys, strict=True))
        no_file = [sample_id for sample_id, key in pairs if key is None]
        if no_file:
            no_file[0] += f" (looked for {' or '.join(f'{name}.npy' for name in names[keys.index(None)])})"
        shared = [f"{sample_id} ({key})" for sample_id, key in pairs if key is not None and times[key] > 1]
        unused = sorted(self.keys - times.keys())
        return {"no file": no_file, "one file for several, use the suffix": shared, "files of no sample": unused}

    def check(self, index: int) -> tuple[int, int] | str | None:
        """Return the shape of a sample's map, or what is wrong with it; None where there is none."""
        key = self.key_of[index]
        if key is None:
            return None
        try:
            values = self._load(key)
        except UserError as error:
            return str(error)
        if not np.isfinite(values).all():
            return "NaN or infinite values"
        if self.kind == "scoremap" and not (values.min() >= 0 and values.max() <= 1):
            return f"values from {values.min():g} to {values.max():g}: outside [0, 1], pass heatmaps_kind=raw"
        return values.shape[0], values.shape[1]


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
    broken = faults["heatmaps that can't be used"] = []
    if part:
        faults.pop("files of no sample")
    with progress("checking heatmaps", len(table), show_progress) as advance:
        for batch in load_ahead(range(len(table)), maps.check, 64, workers):
            for checked in batch:
                if isinstance(checked, str):
                    broken.append(f"{table['sample_id'][len(maps.shapes)]} ({checked})")
                maps.shapes.append(None if isinstance(checked, str) else checked)
            advance(len(batch))
    lists = [f"{fault}, {len(names)}: {first_names(names)}" for fault, names in faults.items() if names]
    if not lists:
        return maps, []
    missing, count = int(maps.missing.sum()), len(table)
    text = f"heatmaps={path}: {'; '.join(lists)}. {missing} of {count} samples have no heatmap that can be scored"
    if on_error == "stop" or missing == count:
        raise UserError(f"{text}: fix the files, or pass on_error=skip to count these as misses, if others are left")
    return maps, [f"{text} and count as misses"]


def _names_of(sample_id: str, image_id: str) -> list[str]:
    """Names that a sample's map may have, with or without the suffix of the image: `a.jpg#cat` or `a#cat`."""
    if not sample_id.startswith(image_id):
        image_id = sample_id
    path, rest = PurePosixPath(image_id), sample_id[len(image_id) :]
    short = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return list(dict.fromkeys((f"{path}{rest}", f"{short}{rest}")))
