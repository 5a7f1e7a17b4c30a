"""Heatmaps by sample and method behind one interface: those of a run, anybody's files, and baselines.

A run's folder holds `index.parquet` (sample id, image size, the rectangle of the image that the heatmap covers, whether
it is missing), `heatmaps.json` (where the maps come from) and per method `<method>.npy` (N, h, w) float16 with
`<method>.scale.npy` (N,) float32: each map is divided by its largest absolute value and rounded.
"""

from __future__ import annotations

import math
import sys
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from wsol.console import progress
from wsol.datasets.folder import SUFFIXES
from wsol.datasets.images import load_ahead, read_size
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError, composed_otherwise, first_names
from wsol.heatmaps.method import BASELINES, Method
from wsol.io import check_declared, data_file, read_json, reading, sync, temporary_path, write_json, writing

FORMAT = 1
GENERATED = ("center", "full")  # baselines made at evaluation size whenever they are scored, and never kept
NOISE = (14, 14)  # of the random baseline: what the last layer of a ResNet or VGG of stride 16 gives at 224 x 224
COLUMNS = ["width", "height", "x0", "y0", "x1", "y1"]
UNKNOWN = -1, np.zeros(0, np.int32), np.zeros(0, np.float32)  # rank, best classes and their probabilities
LARGEST_MAP = 2**26  # values of one map
CHUNK = 1024  # samples whose noise is made at a time
Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1 in original pixels, half-open


@dataclass(frozen=True, eq=False)
class StoredHeatmap:
    """What a method gave for a sample, and all that scoring must know of it.

    Raw maps are normalized by each protocol; score maps lie in [0, 1] and never are; "center" and "full" are made at
    evaluation size and have no values here.
    """

    values: np.ndarray | None  # float64 (h, w)
    kind: str  # "raw", "scoremap", "center" or "full"
    image_size: tuple[int, int]  # width, height
    rectangle: Rectangle  # the part of the image that the heatmap covers


@dataclass(eq=False)
class RoundedMaps:
    """Maps of one shape, each divided by its largest absolute value and rounded to half precision."""

    halves: np.ndarray  # (N, h, w) float16
    scales: np.ndarray  # (N,) float32

    def read(self, index: int) -> np.ndarray:
        """Return a sample's map as it was rounded: float64 (h, w)."""
        return self.halves[index].astype(np.float64) * float(self.scales[index])


def check_names(methods: Iterable[str]) -> None:
    """Refuse names of methods that are no names of files."""
    for method in methods:
        if not method or Path(method).name != method or method.startswith("."):
            raise UserError(f"method {method!r}: pass a plain name, for files in heatmaps/ are called so")


class HeatmapStore:
    """Heatmaps by method and sample, whose `methods` {name: {"function", "layer"}} are in the order of the tables."""

    def __init__(
        self,
        sample_ids: Sequence[str],
        methods: Mapping[str, dict[str, str]],
        source: Mapping[str, Any] | None = None,  # where the maps come from: dataset, split, model, weights, view
    ) -> None:
        self.sample_ids, self.methods, self.source = list(sample_ids), dict(methods), dict(source or {})
        self.folder: Path | None = None  # that it was opened from
        self.placement = np.zeros((len(self.sample_ids), len(COLUMNS)))  # image size, rectangle
        self.unreadable = np.zeros(len(self.sample_ids), bool)
        self.score_map_shapes: list[tuple[int, int] | None] = []  # (h, w) of somebody's score maps, None where missing
        self._maps: dict[str, RoundedMaps | MapFiles] = {}
        self._index: pd.Index | None = None
        if repeated := [sample_id for sample_id, times in Counter(self.sample_ids).items() if times > 1]:
            raise UserError(f"sample id {repeated[0]!r} comes more than once: sample ids must be unique")
        check_names(self.methods)

    def heatmap(self, method: str, index: int) -> StoredHeatmap:
        """Return a sample's heatmap by a method; zeros where it is missing."""
        kind = self.kind(method)
        values = None if kind in GENERATED else self._maps[method].read(index)
        return StoredHeatmap(values, kind, self.image_size(index), self.rectangle(index))

    def kind(self, method: str) -> str:
        """Kind of a method's heatmaps, see `StoredHeatmap`."""
        function = self.methods[method]["function"]
        maps = self._maps.get(method)
        return maps.kind if isinstance(maps, MapFiles) else function if function in GENERATED else "raw"

    def has_raw(self) -> bool:
        """Whether some maps may have any values; random ones lie in [0, 1]."""
        return any(self.kind(name) == "raw" and how["function"] != "random" for name, how in self.methods.items())

    def missing(self, method: str) -> np.ndarray:
        """Samples that a method has no heatmap of: bool (N,)."""
        maps = self._maps.get(method)
        return maps.missing if isinstance(maps, MapFiles) else self.unreadable

    def image_size(self, index: int) -> tuple[int, int]:
        """Width and height of the image in pixels."""
        return int(self.placement[index, 0]), int(self.placement[index, 1])

    def rectangle(self, index: int) -> Rectangle:
        """Return the part of the image that the heatmap covers: original pixels, half-open."""
        x0, y0, x1, y1 = self.placement[index, 2:].tolist()
        return x0, y0, x1, y1

    def place(
        self, indices: Sequence[int], image_size: tuple[int, int], rectangle: Sequence[float], missing: bool = False
    ) -> None:
        """Say the (width, height) of some samples' image, the part that heatmaps cover, and whether it has none."""
        self.placement[list(indices)] = (*image_size, *rectangle)
        self.unreadable[list(indices)] = missing

    def positions(self, sample_ids: Iterable[str]) -> np.ndarray:
        """Where samples stand in this store: int64; -1 where it lacks one."""
        if self._index is None:
            self._index = pd.Index(self.sample_ids)
        return self._index.get_indexer(pd.Index(list(sample_ids)))

    def add(self, method: str, indices: Sequence[int], heatmaps: np.ndarray) -> None:
        """Keep finite heatmaps (B, h, w) of some samples; of one method all have one shape."""
        heatmaps = np.asarray(heatmaps, np.float32)
        scales = np.abs(heatmaps).max((1, 2))
        divisors = np.where(scales > 0, scales, 1)[:, None, None]
        self._put(method, indices, RoundedMaps((heatmaps / divisors).astype(np.float16), scales))

    def _put(self, method: str, indices: Sequence[int], rounded: RoundedMaps) -> None:
        maps, shape = self._maps.get(method), (len(self.sample_ids), *rounded.halves.shape[1:])
        if not isinstance(maps, RoundedMaps):
            maps = self._maps[method] = RoundedMaps(np.zeros(shape, np.float16), np.zeros(shape[0], np.float32))
        if maps.halves.shape != shape:
            raise UserError(f"method {method}: maps of {shape[1:]} after {maps.halves.shape[1:]}; fix the view")
        maps.halves[list(indices)], maps.scales[list(indices)] = rounded.halves, rounded.scales

    def fingerprint(self) -> list[Any]:
        """What tells these maps from others: names of files with their sizes; a map's hash where there are none."""
        about: list[Any] = []
        for method, maps in self._maps.items():
            if isinstance(maps, MapFiles):
                about.append([method, maps.kind, str(maps.path), maps.path.stat().st_size, maps.shapes])
            elif self.folder is not None and (self.folder / f"{method}.npy").is_file():
                about.append([method, str(self.folder), (self.folder / f"{method}.npy").stat().st_size])
        return about

    def rounded(self) -> dict[str, RoundedMaps]:
        """Arrays by method, of those that have any."""
        return {name: maps for name, maps in self._maps.items() if isinstance(maps, RoundedMaps)}

    @classmethod
    def open(cls, folder: Path | str) -> HeatmapStore:
        """Open the `heatmaps/` folder of a run that has ended; the arrays are mapped, not read."""
        folder = Path(folder)
        with reading(folder / "heatmaps.json"):
            content = read_json(folder / "heatmaps.json")
            if content["format"] != FORMAT:
                raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
            methods = {
                name: {"function": how["function"], "layer": how["layer"]} for name, how in content["methods"].items()
            }
            source = dict(content["source"])
        with reading(folder / "index.parquet"):
            index = pd.read_parquet(check_declared(folder / "index.parquet"))
            store = cls(list(index["sample_id"]), methods, source)
            store.placement = index[COLUMNS].to_numpy(np.float64)
            store.unreadable = index["missing"].to_numpy(bool)
        for method in methods:
            if store.kind(method) not in GENERATED and not store.unreadable.all():
                halves = _load(folder / f"{method}.npy", len(index), 3)
                scales = _load(folder / f"{method}.scale.npy", len(index), 1)
                store._maps[method] = RoundedMaps(halves, scales)
        store.folder = folder
        return store


def join_stores(stores: Sequence[HeatmapStore]) -> HeatmapStore:
    """Put the heatmaps of a run's shards, one after the other, into one store in memory."""
    ids = [sample_id for store in stores for sample_id in store.sample_ids]
    whole, start = HeatmapStore(ids, stores[0].methods, stores[0].source), 0
    for store in stores:
        rows = range(start, start := start + len(store.sample_ids))
        whole.placement[rows], whole.unreadable[rows] = store.placement, store.unreadable
        for method, maps in store.rounded().items():
            whole._put(method, rows, maps)
    return whole


def save_heatmaps(stores: Iterable[HeatmapStore], count: int, folder: Path) -> None:
    """Write the heatmaps of shards, of so many samples in all, one after the other as one `heatmaps/` folder.

    Each shard is read when its turn has come; the folder's files change places when all are there, the index last.
    """
    work = temporary_path(folder)
    arrays: dict[str, tuple[Any, tuple[int, ...], np.ndarray]] = {}  # file, shape of a map, scales
    done, placed = 0, []
    with writing(folder), ExitStack() as opened:
        work.mkdir(parents=True, exist_ok=True)
        for store in stores:
            start, done = done, done + len(store.sample_ids)
            rounded = store.rounded()
            for method, maps in rounded.items():
                shape = maps.halves.shape[1:]
                if method not in arrays:
                    file = opened.enter_context((work / f"{method}.npy").open("wb"))
                    about = {"descr": "<f2", "fortran_order": False, "shape": (count, *shape)}
                    np.lib.format.write_array_header_1_0(file, about)
                    file.write(bytes(2 * start * math.prod(shape)))
                    arrays[method] = file, shape, np.zeros(count, np.float32)
                elif arrays[method][1] != shape:
                    raise UserError(f"method {method}: maps of {shape} after {arrays[method][1]}; fix the view")
                arrays[method][0].write(np.ascontiguousarray(maps.halves, "<f2").data)
                arrays[method][2][start:done] = maps.scales
            for method in arrays.keys() - rounded.keys():  # nothing of this shard could be read
                arrays[method][0].write(bytes(2 * (done - start) * math.prod(arrays[method][1])))
            table = pd.DataFrame(store.placement, columns=COLUMNS).astype({"width": np.int32, "height": np.int32})
            table.insert(0, "sample_id", store.sample_ids)
            placed.append(table.assign(missing=store.unreadable))
    with writing(folder):
        for method, (_, _, scales) in arrays.items():
            np.save(work / f"{method}.scale.npy", scales)
        write_json(work / "heatmaps.json", {"format": FORMAT, "source": store.source, "methods": store.methods})
        pd.concat(placed, ignore_index=True).to_parquet(work / "index.parquet", index=False)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.parquet").unlink(missing_ok=True)
        for path in sorted(work.iterdir(), key=lambda path: path.name == "index.parquet"):
            sync(path)
            path.replace(folder / path.name)
        sync(folder)
        work.rmdir()


def open_heatmaps(
    dataset: Dataset, path: Path | None, *, kind: str | None = None, name: str | None = None, **checking: Any
) -> tuple[HeatmapStore, list[str]]:
    """Open whatever heatmaps there are for a dataset; the notes say what a reader should know of them.

    The path is `heatmaps/` of a run; or a folder with `<sample id>.npy`, in sub-folders where ids have slashes; or an
    .npz file with ids as keys (for `val2/0/1.jpeg` `val2/0/1` will do); or None, for baselines alone. What is said of
    somebody's files: their kind, by default "scoremap"; their method's name, by default the folder's or file's; and for
    `open_map_files`. Images are not read where the dataset knows their sizes.
    """
    if path is not None and (path / "heatmaps" / "heatmaps.json").is_file():
        raise UserError(f"heatmaps={path} is the folder of a run: pass heatmaps={path / 'heatmaps'}")
    if path is not None and (path / "heatmaps.json").is_file():
        if kind not in (None, "raw") or name is not None:
            raise UserError(f"heatmaps_kind={kind}, heatmaps_name={name}: leave these out, for {path} is of a run")
        store = HeatmapStore.open(path)
        store.source["role"] = dataset.role
        _check_sizes(dataset, store, path)
        return store, []
    table, notes = dataset.table, list[str]()
    source = {"dataset": dataset.name, "split": dataset.split, "role": dataset.role, "heatmaps": "none"}
    store = HeatmapStore(list(table["sample_id"]), {}, source)
    if path is not None:
        kind, method = kind or "scoremap", name or path.resolve().stem
        maps, notes = open_map_files(table, path, kind, **checking)
        store.methods[method], store._maps[method] = {"function": kind, "layer": ""}, maps
        store.score_map_shapes = maps.shapes if kind == "scoremap" else []
        scored = "score maps as they are" if kind == "scoremap" else "raw, normalized by each protocol"
        store.source["heatmaps"] = f"{path} ({scored})"
    for index, (width, height) in enumerate(zip(table["width"], table["height"], strict=True)):
        size = (width, height) if width else _image_size(dataset[index])
        store.place([index], size, (0, 0, *size))
    return store, notes


def _check_sizes(dataset: Dataset, store: HeatmapStore, path: Path) -> None:
    """Refuse heatmaps of images that had another size than the annotation counts in."""
    sizes = {sample_id: store.image_size(index) for index, sample_id in enumerate(store.sample_ids)}
    columns = (dataset.table[name] for name in ("sample_id", "width", "height"))
    for sample_id, *annotated in zip(*columns, strict=True):
        size = sizes.get(sample_id, (0, 0))
        if all(annotated) and all(size) and tuple(annotated) != size:
            raise UserError(f"sample {sample_id}: {path} is of an image of {size[0]} x {size[1]} pixels, the dataset's "
                            f"has {annotated[0]} x {annotated[1]}: pass the dataset that the run had")  # fmt: skip


def samples_table(
    dataset: Dataset, store: HeatmapStore, answers: Mapping[int, Sequence[Any]] = {}, rows: range | None = None
) -> pd.DataFrame:
    """Samples of a dataset as in `samples.parquet`; answers are rank, top5 and top5_probability by index in it.

    `rows`: only these.
    """
    table = dataset.table if rows is None else dataset.table.iloc[rows.start : rows.stop].reset_index(drop=True)
    ranks, best, probabilities = zip(*(answers.get(index, UNKNOWN) for index in range(len(table))), strict=True)
    placement = store.placement[store.positions(table["sample_id"])]
    columns = {
        "sample_id": table["sample_id"],
        "image_id": table["image_id"],
        "label": table["label"],
        "class": [dataset.classes[label] for label in table["label"]],
        "rank": ranks,
        "top5": best,
        "top5_probability": probabilities,
        "width": placement[:, 0].astype(int),
        "height": placement[:, 1].astype(int),
    }
    return pd.DataFrame(columns | dict(zip(COLUMNS[2:], placement[:, 2:].T, strict=True)))


def add_baselines(store: HeatmapStore, methods: Mapping[str, Method], seed: int = 0) -> None:
    """Put baselines beside the heatmaps of a store, in memory only; the random one's noise is `NOISE` wide and high."""
    for name, method in methods.items():
        if method.baseline is None:
            raise UserError(f"method={name} needs a network, as wsol evaluate has; without: {', '.join(BASELINES)}")
        if name in store.methods:
            raise UserError(f"method={name}: the heatmaps have a method of that name already; leave it out")
        store.methods[name] = {"function": method.baseline, "layer": ""}
        for start in range(0, len(store.sample_ids) if method.baseline == "random" else 0, CHUNK):
            sample_ids = store.sample_ids[start : start + CHUNK]
            noise = np.stack([random(NOISE, sample_id, seed) for sample_id in sample_ids])
            store.add(name, range(start, start + len(sample_ids)), noise)


def _image_size(sample: Sample) -> tuple[int, int]:
    """Width and height of a sample's image, from its mask or else from the image's header."""
    mask = sample.read_mask()
    if mask is not None:
        return mask.shape[1], mask.shape[0]
    return read_size(sample.image, sample.sample_id) if isinstance(sample.image, Path) else sample.size()


def _load(path: Path, count: int, rank: int) -> np.ndarray:
    """Map an array of numbers with so many entries and dimensions."""
    with reading(path):
        array = np.load(data_file(path, sys.maxsize), mmap_mode="r", allow_pickle=False)
        if array.ndim != rank or array.dtype.kind != "f" or len(array) != count or array[:1].size > LARGEST_MAP:
            raise ValueError(f"shape {array.shape} of {array.dtype}, for the index's {count} samples")
    return array


def center(size: tuple[int, int]) -> np.ndarray:
    """Gaussian around the center of (width, height), σ a quarter of the size in each direction: float64 (h, w)."""
    return np.outer(*profiles("center", size))


def full(size: tuple[int, int]) -> np.ndarray:
    """Ones everywhere, for a size (width, height): the box is the whole image. float64 (h, w)."""
    return np.ones(size[::-1])


@lru_cache(maxsize=4096)  # a few numbers for each size that images have
def profiles(kind: str, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Down (h,) and across (w,) the center or full map, which is their outer product; shared, not to be written to."""
    if kind == "full":
        return np.ones(size[1]), np.ones(size[0])
    across, down = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 4)) ** 2) for n in size)
    return down, across


def random(size: tuple[int, int], sample_id: str, seed: int = 0) -> np.ndarray:
    """Uniform noise in [0, 1), the same for a sample in whatever order samples come: float64 (h, w)."""
    return np.random.default_rng((seed, zlib.crc32(sample_id.encode()))).random(size[::-1])


LARGEST = 2**28  # bytes of one map in its file, which may be integers of one
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
        size = self._archive.getinfo(name).file_size if self._archive else (self.path / name).stat().st_size
        if size > LARGEST:
            raise UserError(f"{size:,} bytes, more than {LARGEST:,}")
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
        names = list(map(names_of, sample_ids, table["image_id"]))
        keys = [next((name for name in several if name in self.keys), None) for several in names]
        times = Counter(keys)
        self.key_of = [key if times[key] == 1 else None for key in keys]
        pairs = list(zip(sample_ids, keys, strict=True))
        no_file = [sample_id for sample_id, key in pairs if key is None]
        if no_file:
            wanted = names[keys.index(None)]
            no_file[0] += f" (looked for {' or '.join(f'{name}.npy' for name in wanted)}"
            no_file[0] += f"{composed_otherwise(wanted[-1], self.keys)})"
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


def names_of(sample_id: str, image_id: str) -> list[str]:
    """Names that a sample's map may have, with or without the suffix of the image: `a.jpg#cat` or `a#cat`."""
    if not sample_id.startswith(image_id):
        image_id = sample_id
    path, rest = PurePosixPath(image_id), sample_id[len(image_id) :]
    short = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return list(dict.fromkeys((f"{path}{rest}", f"{short}{rest}")))
