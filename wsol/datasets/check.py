"""Read a whole dataset before a long run does: what is in it, and everything that is wrong with it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from wsol.console import progress
from wsol.datasets.images import SKIP_HINT, mask_fits, unusual
from wsol.datasets.loader import load_ahead
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["FAULTS", "Checked", "check_dataset"]

CHUNK = 32  # samples between two steps of the progress
FIGURES = ("image width", "image height", "boxes per sample", "share covered by boxes", "share covered by the mask")
COLUMNS = ("sample_id", "image_id", "file", "fault", "detail", "changes_numbers")

# Fault → whether it changes a number or stops a run; the others are read as their detail says, and are good to know.
FAULTS = {
    "annotation unreadable": True, "duplicate sample id": True, "unknown label": True, "image missing": True,
    "image truncated": True, "image unreadable": True, "image size": True, "no box": True, "box not finite": True,
    "box inverted": True, "box empty": True, "box outside": True, "no mask": True, "mask unreadable": True,
    "mask size": True, "mask empty": True, "box one pixel late": False, "mask resolution": False, "CMYK": False,
    "palette": False, "16-bit": False, "animated": False, "EXIF-rotated": False, "class without images": False,
}  # fmt: skip


@dataclass(eq=False)
class Checked:
    """What was found in a dataset.

    Parameters
    ----------
    faults : DataFrame
        One row per fault: `sample_id, image_id, file, fault, detail, changes_numbers`; texts are empty where a fault
        is of no one sample. A fault of an image stands at the first of its samples.
    figures : dict of str to array
        What was counted or measured, by what it is ("boxes per sample"); shares are fractions of the image.
    n_samples, n_images : int
    """

    faults: pd.DataFrame
    figures: dict[str, np.ndarray]
    n_samples: int
    n_images: int

    @property
    def changing(self) -> int:
        """Number of faults that change a number or stop a run."""
        return int(self.faults["changes_numbers"].sum())


def check_dataset(dataset: Dataset, workers: int = 2, show_progress: bool = True) -> Checked:
    """Decode every image and mask of a dataset and look at every box.

    Parameters
    ----------
    dataset : Dataset
        Read with `strict=False`, if wrong boxes are to be listed.
    workers : int
        Threads that decode.
    show_progress : bool

    Returns
    -------
    Checked

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> found = check_dataset(Shapes(length=4, classes=2), show_progress=False)
    >>> found.n_images, len(found.faults), found.figures["samples per class"]
    (4, 0, array([2, 2]))
    """
    findings = _Findings(dataset)
    with progress("checking", len(dataset), show_progress) as advance:
        for chunk in load_ahead(range(len(dataset)), partial(_look, dataset), CHUNK, workers):
            for seen in chunk:
                findings.add(seen)
            advance(len(chunk))
    return findings.close()


@dataclass(eq=False)
class _Seen:
    """What a thread found out about one sample."""

    sample_id: str
    image_id: str
    file: str = ""
    label: int | None = None
    size: tuple[int, int] | None = None  # (width, height) as decoded, else by the annotation
    boxes: np.ndarray | None = None
    masks: dict[str, tuple[int, int]] = field(default_factory=dict)  # which one → (width, height)
    masked: float | None = None  # share of the pixels
    faults: list[tuple[str, str]] = field(default_factory=list)  # fault, detail


def _look(dataset: Dataset, index: int) -> _Seen:
    """Read all that a sample has; its image only where the sample before hasn't the same one."""
    try:
        sample = dataset[index]
    except UserError as error:
        return _Seen(f"[{index}]", f"[{index}]", faults=[("annotation unreadable", str(error))])
    seen = _Seen(sample.sample_id, sample.image_id, label=sample.label, boxes=sample.boxes)
    if isinstance(sample.image, Path):
        seen.file = str(sample.image)
    if not _has_image_of_another(dataset, index, sample):
        _look_at_image(sample, seen)
    for name, read in (("mask", sample.read_mask), ("ignore mask", sample.read_ignore)):
        try:
            mask = read()
        except UserError as error:
            seen.faults.append(("mask unreadable", f"{name}: {error}"))
            continue
        if mask is not None:
            seen.masks[name] = mask.shape[1], mask.shape[0]
            seen.masked = float(mask.mean()) if name == "mask" else seen.masked
    return seen


def _has_image_of_another(dataset: Dataset, index: int, sample: Sample) -> bool:
    if index == 0 or sample.image_id == sample.sample_id:
        return False
    try:
        return dataset[index - 1].image_id == sample.image_id
    except UserError:
        return False


def _look_at_image(sample: Sample, seen: _Seen) -> None:
    seen.size = sample.image_size
    try:
        height, width = sample.read_image().shape[:2]
    except UserError as error:
        missing = isinstance(sample.image, Path) and not sample.image.is_file()
        kind = "missing" if missing else "truncated" if "truncated" in str(error) else "unreadable"
        seen.faults.append((f"image {kind}", str(error).removesuffix(f"; {SKIP_HINT}")))
        return
    odd = unusual(sample.image) if isinstance(sample.image, Path) else {}
    seen.faults += odd.items()
    if seen.size not in (None, (width, height)):
        turned = "; the annotation may count pixels as turned" if "EXIF-rotated" in odd else ""
        sizes = f"the annotation says {_times(seen.size)} pixels, the file has {_times((width, height))}{turned}"
        seen.faults.append(("image size", sizes))
    seen.size = width, height


class _Findings:
    """Adds up what was seen of the samples, in their order."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.rows: list[tuple[str, str, str, str, str]] = []
        self.figures: dict[str, list[float]] = defaultdict(list)
        self.per_class = np.zeros(len(dataset.classes), np.int64)
        self.sample_ids: set[str] = set()
        self.image_ids: set[str] = set()
        self.without: dict[str, list[_Seen]] = {"box": [], "mask": []}
        self.image: tuple[str, tuple[int, int] | None] = "", None  # id and size of the image before

    def add(self, seen: _Seen) -> None:
        """Add one sample."""
        if seen.image_id == self.image[0]:
            seen.size = seen.size or self.image[1]
        elif seen.size is not None and seen.image_id not in self.image_ids:
            self.figures["image width"].append(seen.size[0])
            self.figures["image height"].append(seen.size[1])
        self.image = seen.image_id, seen.size
        faults = [*seen.faults, *self._faults_of_ids(seen), *_faults_of_boxes(seen), *_faults_of_masks(seen)]
        self._note(seen, *faults)
        self.sample_ids.add(seen.sample_id)
        self.image_ids.add(seen.image_id)
        if seen.label is None:
            return
        if seen.boxes is None:
            self.without["box"].append(seen)
        if "mask" not in seen.masks and "mask unreadable" not in dict(seen.faults):
            self.without["mask"].append(seen)
        if seen.boxes is not None and len(seen.boxes):
            self.figures["boxes per sample"].append(len(seen.boxes))
            if seen.size is not None and not any(fault.startswith("box ") for fault, _ in faults):
                self.figures["share covered by boxes"].append(_covered(seen.boxes, seen.size))
        if seen.masked is not None:
            self.figures["share covered by the mask"].append(seen.masked)

    def close(self) -> Checked:
        """Add what only all samples together show, and make the tables."""
        known = len(self.sample_ids)
        for name, figure in (("box", "boxes per sample"), ("mask", "share covered by the mask")):
            for seen in self.without[name] if self.figures[figure] else ():
                self._note(seen, (f"no {name}", f"other samples have a {name}"))
        for label in np.flatnonzero(self.per_class == 0):
            name, key = self.dataset.classes[label], self.dataset.ids[label]
            about = repr(name) if name == key else f"{key} ({name!r})"
            self.rows.append(("", "", "", "class without images", f"label {label}, {about}"))
        faults = pd.DataFrame(self.rows, columns=list(COLUMNS[:-1]))
        faults["changes_numbers"] = faults["fault"].map(FAULTS).astype(bool)
        figures = {"samples per class": self.per_class}
        figures |= {name: np.array(self.figures[name]) for name in FIGURES if self.figures[name]}
        return Checked(faults, figures, known, len(self.image_ids))

    def _note(self, seen: _Seen, *faults: tuple[str, str]) -> None:
        self.rows += [(seen.sample_id, seen.image_id, seen.file, fault, detail) for fault, detail in faults]

    def _faults_of_ids(self, seen: _Seen) -> Iterator[tuple[str, str]]:
        if seen.sample_id in self.sample_ids:
            yield "duplicate sample id", "an earlier sample has it; an evaluation stops there"
        if seen.label is None:
            return
        if 0 <= seen.label < len(self.per_class):
            self.per_class[seen.label] += 1
        else:
            yield "unknown label", f"label {seen.label}; there are {len(self.per_class)} classes, from 0"


def _faults_of_boxes(seen: _Seen) -> Iterator[tuple[str, str]]:
    if seen.boxes is not None and len(seen.boxes) == 0:
        yield "no box", "its list of boxes is empty; an evaluation stops there"
    for number, box in enumerate(() if seen.boxes is None else seen.boxes):
        fault = box_fault(box, seen.size)
        if fault:
            image = "" if seen.size is None else f", image {_times(seen.size)}"
            yield fault, f"box {number}: {' '.join(f'{value:g}' for value in box)}{image}"


def box_fault(box: np.ndarray, image_size: tuple[int, int] | None) -> str:
    """Name what is wrong with a box (4,), inclusive corners; "" where nothing is, or the size isn't known to tell."""
    x0, y0, x1, y1 = map(float, box)
    if not np.isfinite([x0, y0, x1, y1]).all():
        return "box not finite"
    if x1 < x0 - 1 or y1 < y0 - 1:
        return "box inverted"
    if x1 < x0 or y1 < y0:
        return "box empty"
    width, height = image_size or (np.inf, np.inf)
    if x0 < 0 or y0 < 0 or x0 >= width or y0 >= height or x1 > width or y1 > height:
        return "box outside"
    return "box one pixel late" if x1 > width - 1 or y1 > height - 1 else ""


def _faults_of_masks(seen: _Seen) -> Iterator[tuple[str, str]]:
    for name, size in seen.masks.items():
        if seen.size is not None and size != seen.size:
            fault = "mask resolution" if mask_fits(size, seen.size) else "mask size"
            yield fault, f"the {name} has {_times(size)} pixels, the image {_times(seen.size)}"
    if seen.masked == 0:
        yield "mask empty", "no pixel belongs to the object"


def _covered(boxes: np.ndarray, size: tuple[int, int]) -> float:
    """Share of an image that lies in at least one of the boxes."""
    left, top = boxes[:, 0], boxes[:, 1]
    right, bottom = np.minimum(boxes[:, 2] + 1, size[0]), np.minimum(boxes[:, 3] + 1, size[1])
    xs, ys = np.unique([left, right]), np.unique([top, bottom])  # between two neighbors nothing begins or ends
    inside = np.zeros((len(ys) - 1, len(xs) - 1), bool)
    for x0, y0, x1, y1 in zip(left, top, right, bottom, strict=True):
        inside[np.searchsorted(ys, y0) : np.searchsorted(ys, y1), np.searchsorted(xs, x0) : np.searchsorted(xs, x1)] = 1
    return float(np.diff(ys) @ inside @ np.diff(xs)) / (size[0] * size[1])


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
