"""The heatmaps of a run: per method one array in half precision, kept so that scoring never needs the network again.

A folder holds `index.parquet` (sample id, image size, the rectangle of the image that the heatmap covers, whether it
is missing), `heatmaps.json` (where the maps come from) and per method `<method>.npy` (N, h, w) float16 with
`<method>.scale.npy` (N,) float32: each map is divided by its largest absolute value and rounded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from wsol.errors import UserError
from wsol.heatmaps.method import Method
from wsol.io import write_text

__all__ = ["HeatmapStore", "describe"]

FORMAT = 1
KEYS = ("function", "layer")
COLUMNS = ("width", "height", "x0", "y0", "x1", "y1")


@dataclass(eq=False)
class HeatmapStore:
    """Raw heatmaps by method and sample.

    Parameters
    ----------
    sample_ids : list of str
    methods : dict of str to {"function": str, "layer": str}
        In the order of the tables; the center and full baselines depend on the evaluation size only and keep no maps.
    source : dict
        Where the maps come from, for the tables: dataset, split, model, weights, view.
    folder : Path, optional
        Where `save` puts them; until then the arrays are memory-mapped in a hidden folder beside it, so that a run
        that stops leaves an older one's heatmaps as they were. None: they stay in memory.

    Examples
    --------
    >>> store = HeatmapStore(["a", "b"], {"cam": {"function": "cam", "layer": "layer4"}})
    >>> store.add("cam", [0, 1], torch.rand(2, 7, 7))
    >>> store.heatmap("cam", 1).shape
    (7, 7)
    """

    sample_ids: list[str]
    methods: dict[str, dict[str, str]]
    source: dict[str, Any] = field(default_factory=dict)
    folder: Path | None = None

    def __post_init__(self) -> None:
        count = len(self.sample_ids)
        for name in self.methods if self.folder is not None else ():
            _check_name(name)
        self.placement = np.zeros((count, len(COLUMNS)))  # image size, rectangle
        self.missing = np.zeros(count, bool)
        self._maps: dict[str, np.ndarray] = {}
        self._scales: dict[str, np.ndarray] = {}
        self._work: Path | None = None
        if self.folder is not None:
            self._work = self.folder.with_name(f".{self.folder.name}.{os.getpid()}.tmp")
            self._work.mkdir(parents=True, exist_ok=True)

    def place(self, index: int, sample_id: str, image_size: tuple[int, int], rectangle: tuple[float, ...]) -> None:
        """Name a sample, and say its image's (width, height) and the part of it that its heatmaps cover."""
        self.sample_ids[index] = sample_id
        self.placement[index] = (*image_size, *rectangle)

    def add(self, method: str, indices: Sequence[int], maps: torch.Tensor) -> None:
        """Keep the heatmaps (B, h, w) of some samples.

        Raises
        ------
        UserError
            If a map is not finite, naming the sample, or has another shape than the method's maps before it.
        """
        heatmaps = maps.detach().float().cpu().numpy()
        finite = np.isfinite(heatmaps).all((1, 2))
        if not finite.all():
            name = self.sample_ids[indices[int(np.argmin(finite))]]
            raise UserError(f"method {method} gave values that are not finite for sample {name}")
        if method not in self._maps:
            self._maps[method] = self._array(f"{method}.npy", (len(self.sample_ids), *heatmaps.shape[1:]))
            self._scales[method] = np.zeros(len(self.sample_ids), np.float32)
        if self._maps[method].shape[1:] != heatmaps.shape[1:]:
            raise UserError(
                f"method {method} gave maps of shape {heatmaps.shape[1:]} after {self._maps[method].shape[1:]}: "
                f"one run needs one shape; set dataset view or model input size to be fixed"
            )
        scales = np.abs(heatmaps).max((1, 2))
        safe = np.where(scales > 0, scales, 1)[:, None, None]
        self._maps[method][list(indices)] = (heatmaps / safe).astype(np.float16)
        self._scales[method][list(indices)] = scales

    def heatmap(self, method: str, index: int) -> np.ndarray:
        """Return a sample's raw heatmap as it was rounded: float64 (h, w)."""
        return self._maps[method][index].astype(np.float64) * float(self._scales[method][index])

    def baseline(self, method: str) -> str | None:
        """Name of the baseline if the method keeps no maps, because they depend on the evaluation size only."""
        function = self.methods[method]["function"]
        return function if function in ("center", "full") else None

    def is_score_map(self, method: str) -> bool:
        """Whether a method's maps lie in [0, 1] and are never normalized; a run keeps raw heatmaps only."""
        return False

    def missing_for(self, method: str) -> np.ndarray:
        """Samples without a heatmap of a method: bool (N,)."""
        return self.missing

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return int(self.placement[index, 0]), int(self.placement[index, 1])

    def rectangle(self, index: int) -> tuple[float, float, float, float]:
        """Return the part of the image that the heatmap covers: original pixels, half-open."""
        x0, y0, x1, y1 = self.placement[index, 2:]
        return float(x0), float(y0), float(x1), float(y1)

    def discard(self) -> None:
        """Remove what was written: a run that stopped leaves no halves behind."""
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)

    def save(self) -> None:
        """Write what is not written yet; the index comes last, so a folder with an index is whole."""
        if self.folder is None or self._work is None:
            return
        for method, scales in self._scales.items():
            maps = self._maps[method]
            if isinstance(maps, np.memmap):
                maps.flush()
            np.save(self._work / f"{method}.scale.npy", scales)
        about = {"format": FORMAT, "source": self.source, "methods": self.methods}
        write_text(self._work / "heatmaps.json", json.dumps(about, indent=1, ensure_ascii=False) + "\n")
        index = pd.DataFrame(self.placement, columns=list(COLUMNS)).astype({"width": np.int32, "height": np.int32})
        index.insert(0, "sample_id", list(self.sample_ids))
        index["missing"] = self.missing
        index.to_parquet(self._work / "index.parquet", index=False)
        self.folder.mkdir(exist_ok=True)
        (self.folder / "index.parquet").unlink(missing_ok=True)
        for path in sorted(self._work.iterdir(), key=lambda path: path.name == "index.parquet"):
            path.replace(self.folder / path.name)
        self._work.rmdir()

    @staticmethod
    def is_run(folder: Path, ended: bool = False) -> bool:
        """Whether a folder holds a run's heatmaps, or the beginning of them."""
        files = ((folder / name).is_file() for name in ("index.parquet", "heatmaps.json"))
        return all(files) if ended else any(files)

    @classmethod
    def open(cls, folder: Path | str) -> HeatmapStore:
        """Open the `heatmaps/` folder of a run; the arrays are mapped, not read.

        Raises
        ------
        UserError
            If a file is missing or doesn't fit the others.
        """
        folder = Path(folder)
        if not cls.is_run(folder, ended=True):
            raise UserError(
                f"heatmaps={folder}: no index.parquet and heatmaps.json there; pass the heatmaps/ folder of a run "
                f"that has ended"
            )
        try:
            about = json.loads((folder / "heatmaps.json").read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise UserError(f"{folder}: format {about['format']}, this version reads {FORMAT}")
            index = pd.read_parquet(folder / "index.parquet")
            methods = {name: {key: how[key] for key in KEYS} for name, how in dict(about["methods"]).items()}
            for name in methods:
                _check_name(name)
            store = cls(list(index["sample_id"]), methods, dict(about["source"]))
            store.placement = index[list(COLUMNS)].to_numpy(np.float64)
            store.missing = index["missing"].to_numpy(bool)
        except UserError:
            raise
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise UserError(f"{folder}: heatmaps.json or index.parquet is damaged: {error!r}") from error
        for method in about["methods"]:
            if store.baseline(method) is None and not store.missing.all():
                store._maps[method] = _load(folder / f"{method}.npy", len(index), 3, "r")
                store._scales[method] = _load(folder / f"{method}.scale.npy", len(index), 1, None)
        store.folder = folder
        return store

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        if self._work is None:
            return np.zeros(shape, np.float16)
        return np.lib.format.open_memmap(self._work / name, "w+", np.float16, shape)


def describe(methods: Mapping[str, Method], layers: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Say what each method is, for the store's `methods`."""
    return {name: {"function": method.function_name, "layer": layers[name]} for name, method in methods.items()}


def _check_name(method: str) -> None:
    """Refuse a method whose files would lie elsewhere."""
    if not method or Path(method).name != method or method.startswith(".") or "\0" in method:
        raise UserError(f"method name {method!r} can't be that of a file in heatmaps/: pass a plain name, such as cam")


def _load(path: Path, count: int, rank: int, mode: Any) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode=mode, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} can't be read: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != rank or array.dtype.kind != "f":
        raise UserError(f"{path} is no array of numbers with {rank} dimensions; is it a run's?")
    if len(array) != count:
        raise UserError(f"{path} holds {len(array)} maps, the index {count} samples; is the run complete?")
    return array
