"""Read a whole dataset before a long run does: what is in it, and everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from wsol.console import progress
from wsol.datasets.images import SKIP_HINT, load_ahead, mask_fits, unusual, uses_few_bits
from wsol.datasets.sample import Dataset, Sample, Size, describe_sizes
from wsol.errors import UserError

CHUNK = 32  # samples between two steps of the progress
COLUMNS = ("sample_id", "image_id", "file", "fault", "detail")
Fault = tuple[str, str]  # which of FAULTS, and a detail

# Fault → whether it changes a number or stops a run; the others are read as their detail says, and are good to know.
FAULTS = {
    "annotation unreadable": True, "duplicate sample id": True, "unknown label": True, "image missing": True,
    "image truncated": True, "image unreadable": True, "image size": True, "no box": True, "box not finite": True,
    "box inverted": True, "box empty": True, "box outside": True, "no mask": True, "mask unreadable": True,
    "mask size": True, "mask empty": True, "box one pixel late": False, "mask resolution": False, "CMYK": False,
    "palette": False, "16-bit": False, "few bits": False, "animated": False, "EXIF-rotated": False,
    "class without images": False,
}  # fmt: skip


@dataclass(eq=False)
class Checked:
    """What was found in a dataset."""

    # One row per fault: `sample_id, image_id, file, fault, detail, changes_numbers`; texts are empty where a fault is
    # of no one sample. A fault of an image stands at the first of its samples.
    faults: pd.DataFrame
    figures: dict[str, np.ndarray]  # by what it is ("boxes per sample"); shares are fractions of the image
    n_samples: int
    n_images: int

    @property
    def changing(self) -> int:
        """Number of faults that change a number or stop a run."""
        return int(self.faults["changes_numbers"].sum())


def check_dataset(dataset: Dataset, workers: int = 2, show_progress: bool = True) -> Checked:
    """Decode every image and mask of a dataset and look at every box; `strict=False` reads one with wrong ones."""
    samples: list[_Inspected] = []
    with progress("checking", len(dataset), show_progress) as advance:
        for chunk in load_ahead(range(len(dataset)), partial(_inspect, dataset), CHUNK, workers):
            samples += chunk
            advance(len(chunk))
    labels = [sample.label for sample in samples if sample.label in range(len(dataset.classes))]
    per_class = np.bincount(np.array(labels, np.int64), minlength=len(dataset.classes))
    figures = {"samples per class": per_class} | _judge(samples, len(dataset.classes))
    rows = [(sample.sample_id, sample.image_id, sample.file, *fault) for sample in samples for fault in sample.faults]
    for label in np.flatnonzero(per_class == 0).tolist():
        rows.append(("", "", "", "class without images", f"{label}: {dataset.classes[label]} ({dataset.ids[label]})"))
    faults = pd.DataFrame(rows, columns=list(COLUMNS))
    faults["changes_numbers"] = faults["fault"].map(FAULTS).astype(bool)
    n_samples, n_images = len({sample.sample_id for sample in samples}), len({sample.image_id for sample in samples})
    return Checked(faults, figures, n_samples, n_images)


@dataclass(eq=False)
class _Inspected:
    """What a thread found out about one sample."""

    sample_id: str
    image_id: str
    file: str = ""
    label: int | None = None  # None: the annotation can't be read
    size: Size | None = None  # as decoded, else by the annotation
    boxes: np.ndarray | None = None
    masks: dict[str, Size] = field(default_factory=dict)
    covered: float | None = None  # share of the pixels that the mask has
    faults: list[Fault] = field(default_factory=list)


def _inspect(dataset: Dataset, index: int) -> _Inspected:
    """Read all that a sample has; its image only where the sample before hasn't the same one."""
    try:
        sample = dataset[index]
    except UserError as error:
        return _Inspected(f"[{index}]", f"[{index}]", faults=[("annotation unreadable", str(error))])
    file = str(sample.image) if isinstance(sample.image, Path) else ""
    inspected = _Inspected(sample.sample_id, sample.image_id, file, sample.label, boxes=sample.boxes)
    before = None
    with suppress(UserError):
        before = dataset[index - 1].image_id if index and sample.image_id != sample.sample_id else None
    if sample.image_id != before:
        _inspect_image(sample, inspected)
    for name, read in (("mask", sample.read_mask), ("ignore mask", sample.read_ignore)):
        try:
            mask = read()
        except UserError as error:
            inspected.faults.append(("mask unreadable", f"{name}: {error}"))
            continue
        if mask is not None:
            inspected.masks[name] = mask.shape[1], mask.shape[0]
            inspected.covered = float(mask.mean()) if name == "mask" else inspected.covered
    return inspected


def _inspect_image(sample: Sample, inspected: _Inspected) -> None:
    inspected.size = sample.image_size
    try:
        image = sample.read_image()
    except UserError as error:
        missing = isinstance(sample.image, Path) and not sample.image.is_file()
        kind = "missing" if missing else "truncated" if "truncated" in str(error) else "unreadable"
        inspected.faults.append((f"image {kind}", str(error).removesuffix(f"; {SKIP_HINT}")))
        return
    kinds = unusual(sample.image) if isinstance(sample.image, Path) else {}
    if uses_few_bits(image, sample.image):
        kinds["few bits"] = f"{kinds.pop('16-bit')}, but of the brightest pixel that leaves {image.max()} of 255"
    inspected.faults += kinds.items()
    size = image.shape[1], image.shape[0]
    if inspected.size is not None and inspected.size != size:
        inspected.faults.append(("image size", describe_sizes(inspected.size, size, sample.image)))
    inspected.size = size


def _judge(samples: Sequence[_Inspected], num_classes: int) -> dict[str, np.ndarray]:
    """Add the faults that only all samples together show, or that need the image's size; measure what there is."""
    has_boxes = any(sample.boxes is not None and len(sample.boxes) for sample in samples)
    has_masks = any(sample.covered is not None for sample in samples)
    sizes: dict[str, Size] = {}  # of each image
    sample_ids: set[str] = set()
    box_counts, box_shares = [], []
    for sample in samples:
        sample.size = sample.size or sizes.get(sample.image_id)
        if sample.size is not None:
            sizes.setdefault(sample.image_id, sample.size)
        if sample.sample_id in sample_ids:
            sample.faults.append(("duplicate sample id", "an earlier sample has it; an evaluation stops there"))
        sample_ids.add(sample.sample_id)
        if sample.label is None:
            continue
        if sample.label not in range(num_classes):
            sample.faults.append(("unknown label", f"label {sample.label}; there are {num_classes} classes, from 0"))
        box_faults = list(_box_faults(sample, has_boxes))
        sample.faults += [*box_faults, *_mask_faults(sample, has_masks)]
        if sample.boxes is not None and len(sample.boxes):
            box_counts.append(len(sample.boxes))
            box_shares += [_covered(sample.boxes, sample.size)] if sample.size and not box_faults else []
    widths, heights = zip(*sizes.values(), strict=True) if sizes else ((), ())
    masked = [sample.covered for sample in samples if sample.covered is not None]
    figures = {"image width": widths, "image height": heights, "boxes per sample": box_counts}
    figures |= {"share covered by boxes": box_shares, "share covered by the mask": masked}
    return {name: np.array(values) for name, values in figures.items() if values}


def _box_faults(sample: _Inspected, has_boxes: bool) -> Iterator[Fault]:
    if sample.boxes is None and has_boxes:
        yield "no box", "other samples have a box"
    if sample.boxes is not None and len(sample.boxes) == 0:
        yield "no box", "its list of boxes is empty; an evaluation stops there"
    image = f", image {_times(sample.size)}" if sample.size else ""
    for number, box in enumerate(() if sample.boxes is None else sample.boxes):
        if fault := box_fault(box, sample.size):
            yield fault, f"box {number} (from 0, inclusive): {' '.join(f'{value:g}' for value in box)}{image}"


def box_fault(box: np.ndarray, image_size: Size | None) -> str:
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
    return "box one pixel late" if x1 > width - 1 or y1 > height - 1 else ""  # as if corners were exclusive


def _mask_faults(sample: _Inspected, has_masks: bool) -> Iterator[Fault]:
    if has_masks and "mask" not in sample.masks and "mask unreadable" not in dict(sample.faults):
        yield "no mask", "other samples have a mask"
    for name, size in sample.masks.items():
        if sample.size is not None and size != sample.size:
            fault = "mask resolution" if mask_fits(size, sample.size) else "mask size"
            yield fault, f"the {name} has {_times(size)} pixels, the image {_times(sample.size)}"
    if sample.covered == 0:
        yield "mask empty", "no pixel belongs to the object"


def _covered(boxes: np.ndarray, size: Size) -> float:
    """Share of an image that lies in at least one of the boxes."""
    inside = np.zeros(size[::-1], bool)
    for x0, y0, x1, y1 in boxes.round().astype(int):
        inside[y0 : y1 + 1, x0 : x1 + 1] = True
    return float(inside.mean())


def _times(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
