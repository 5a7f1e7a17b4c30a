"""Heatmaps that somebody else made: found by sample id, checked one and all, and read when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from wsol.console import progress
from wsol.datasets.folder import SUFFIXES
from wsol.datasets.images import read_size
from wsol.datasets.inside import inside
from wsol.datasets.loader import load_ahead
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.map_files import MapArchive, MapFolder, open_maps
from wsol.heatmaps.store import HeatmapStore

__all__ = ["KINDS", "ForeignHeatmaps", "open_foreign", "place_samples"]

KINDS = ("scoremap", "raw")
NAMED = 5  # so many names in a message
OUTSIDE = "values outside [0, 1]"


@dataclass(eq=False, kw_only=True)
class ForeignHeatmaps(HeatmapStore):
    """Heatmaps of a dataset's samples, in files that wsol did not write.

    Each covers the whole of its image, at any resolution of its own, and is scored as it is: nothing is rounded.

    Parameters
    ----------
    files : MapFolder or MapArchive
    kind : "scoremap" or "raw"
        Whether maps lie in [0, 1] already and are never normalized, or are normalized by each protocol.
    names : list of str or None
        Per sample its map among the files.

    Attributes
    ----------
    shapes : list of (height, width) or None
        Of each map, once it was checked; None: there is none that can be scored.
    """

    files: MapFolder | MapArchive
    kind: str = "scoremap"
    names: list[str | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.own = next(iter(self.methods))
        self.shapes: list[tuple[int, int] | None] = [None] * len(self.sample_ids)

    def heatmap(self, method: str, index: int) -> np.ndarray:
        """Return a sample's map as it is in its file, zeros where there is none: float64 (h, w)."""
        if method != self.own:
            return super().heatmap(method, index)
        name = self.names[index]
        return np.zeros((1, 1)) if name is None or self.missing[index] else self.files.read(name).astype(np.float64)

    def is_score_map(self, method: str) -> bool:
        """Whether a method's maps lie in [0, 1] and are never normalized."""
        return method == self.own and self.kind == "scoremap"

    def missing_for(self, method: str) -> np.ndarray:
        """Samples without a map that can be scored: bool (N,). A baseline beside them lacks none."""
        return self.missing if method == self.own else np.zeros(len(self.sample_ids), bool)

    def check(self, index: int) -> tuple[str, str] | None:
        """Read a map and say what is wrong with it: a kind of fault, and its details."""
        name = self.names[index]
        if name is None:
            return None
        try:
            values = self.files.read(name)
        except UserError as error:
            return "heatmaps that can't be used", str(error)
        if not np.isfinite(values).all():
            return "NaN or infinite values", f"{int((~np.isfinite(values)).sum())} of {values.size}"
        if self.kind == "scoremap" and not (values.min() >= 0 and values.max() <= 1):
            return OUTSIDE, f"{values.min():g} to {values.max():g}"
        self.shapes[index] = (values.shape[0], values.shape[1])
        return None


def open_foreign(
    dataset: Dataset,
    path: Path,
    *,
    kind: str = "scoremap",
    name: str | None = None,
    on_error: str = "stop",
    part: bool = False,
    workers: int = 2,
    show_progress: bool = True,
) -> tuple[ForeignHeatmaps, list[str]]:
    """Find a dataset's heatmaps among somebody's files, and look at each once before anything is scored.

    Parameters
    ----------
    dataset : Dataset
        Its images are not read where it knows their sizes.
    path : Path
        A folder with `<sample id>.npy`, in sub-folders where ids have slashes; or an .npz file with ids as keys.
        The suffix of the image may be left out: for `val2/0/1.jpeg` `val2/0/1.jpeg.npy` or `val2/0/1.npy` will do.
    kind : "scoremap" or "raw"
        See `ForeignHeatmaps`.
    name : str, optional
        What the tables call the method; by default the folder's or file's name.
    on_error : "stop" or "skip"
        Whether faults raise, or are said and count as misses.
    part : bool
        Whether there may be maps of samples that the dataset lacks.
    workers : int
        Threads.
    show_progress : bool

    Returns
    -------
    store : ForeignHeatmaps
    notes : list of str
        What was passed over.

    Raises
    ------
    UserError
        Naming the samples whose maps are missing, unreadable, pickled, of another shape, NaN or out of range, and the
        files that belong to no sample; or if an id leads out of the folder.
    """
    if kind not in KINDS:
        raise UserError(f"heatmaps_kind={kind}: pass scoremap (in [0, 1], scored as it is) or raw (normalized first)")
    if on_error not in ("stop", "skip"):
        raise UserError(f"on_error={on_error}: pass stop or skip")
    files, samples = open_maps(path), list(dataset)
    method = name or path.resolve().stem
    ids = [sample.sample_id for sample in samples]
    found = _Matched(samples, files.names, path)
    about = {method: {"function": kind, "layer": ""}}
    store = ForeignHeatmaps(ids, about, files=files, kind=kind, names=found.names)
    store.folder = path
    place_samples(store, samples)
    faults = found.faults
    with progress("checking heatmaps", len(ids), show_progress) as advance:
        start = 0
        for checked in load_ahead(range(len(ids)), store.check, 64, workers):
            for index, fault in enumerate(checked, start):
                if fault is not None:
                    faults.setdefault(fault[0], []).append(f"{ids[index]} ({fault[1]})")
            start += len(checked)
            advance(len(checked))
    store.missing[:] = [shape is None for shape in store.shapes]
    if not part and found.unused:
        faults[f"files of no sample of {dataset.name} ({dataset.split})"] = sorted(found.unused)
    return store, _said(faults, store, on_error)


def place_samples(store: HeatmapStore, samples: Sequence[Sample]) -> None:
    """Tell a store the samples' image sizes; its maps cover whole images.

    Raises
    ------
    UserError
        If a sample id comes twice, or a size is neither annotated nor to be had from mask or image.
    """
    known: set[str] = set()
    for index, sample in enumerate(samples):
        if sample.sample_id in known:
            raise UserError(f"sample id {sample.sample_id!r} comes more than once: sample ids must be unique")
        known.add(sample.sample_id)
        width, height = _size(sample)
        store.place(index, sample.sample_id, (width, height), (0.0, 0.0, width, height))


def _size(sample: Sample) -> tuple[int, int]:
    """Size of a sample's image, from the image itself only where nothing else says it."""
    if sample.image_size is not None:
        return sample.image_size
    mask = sample.read_mask()
    if mask is not None:
        return mask.shape[1], mask.shape[0]
    return read_size(sample.image, sample.sample_id) if isinstance(sample.image, Path) else sample.size()


class _Matched:
    """Which map is whose: by sample id, else by the id without its image's suffix."""

    def __init__(self, samples: Sequence[Sample], names: frozenset[str], path: Path) -> None:
        self.names: list[str | None] = []
        self.faults: dict[str, list[str]] = {}
        owners: dict[str, list[int]] = {}
        for index, sample in enumerate(samples):
            inside(path, sample.sample_id, f"sample {index}")
            wanted = _candidates(sample)
            self.names.append(next((name for name in wanted if name in names), None))
            if self.names[-1] is None:
                lost = self.faults.setdefault("no file", [])
                looked = " or ".join(f"{name}.npy" for name in wanted)
                lost.append(sample.sample_id if lost else f"{sample.sample_id} (looked for {looked})")
            else:
                owners.setdefault(str(self.names[-1]), []).append(index)
        for name, indices in owners.items():
            if len(indices) > 1:
                several = " and ".join(samples[index].sample_id for index in indices)
                self.faults.setdefault("one file for several samples, name it with the suffix", []).append(
                    f"{name} ({several})"
                )
                for index in indices:
                    self.names[index] = None
        self.unused = names - owners.keys()


def _candidates(sample: Sample) -> list[str]:
    image_id, what = sample.image_id, ""
    if sample.sample_id.startswith(image_id):  # image_id#class
        what = sample.sample_id[len(image_id) :]
    else:
        image_id = sample.sample_id
    path = PurePosixPath(image_id)
    short = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return list(dict.fromkeys((f"{path}{what}", f"{short}{what}")))


def _said(faults: dict[str, list[str]], store: ForeignHeatmaps, on_error: str) -> list[str]:
    """Raise for faults, or put them into words, where going on was asked for."""
    if not faults:
        return []
    listed = "; ".join(f"{what}, {len(names)}: {_shortened(names)}" for what, names in faults.items())
    lost, count = int(store.missing.sum()), len(store.sample_ids)
    said = f"heatmaps={store.folder}: {listed}. {lost} of {count} samples have no heatmap that can be scored"
    if on_error == "stop" or lost == count:
        raw = "normalize the values or pass heatmaps_kind=raw; " if OUTSIDE in faults else ""
        skip = "on_error=skip counts them as misses and goes on" if lost else "on_error=skip passes over the others"
        raise UserError(f"{said}: mend the files; {raw}{'none is left to score' if lost == count else skip}")
    return [f"{said} and count as misses"]


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
