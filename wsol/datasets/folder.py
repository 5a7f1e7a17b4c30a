"""Images in folders: one per class, with boxes or masks of your own; Oxford-IIIT Pet, and torchvision's to train on."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from wsol.datasets.annotations import CORNERS, are_boxes, read_lines, read_table
from wsol.datasets.images import read_mask, read_size, read_values
from wsol.datasets.sample import Dataset, Sample, Size, Table, find_home, reader
from wsol.errors import UserError, closest, composed_otherwise, first_names
from wsol.io import named_classes

logger = logging.getLogger("wsol")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
SUFFIXES = {*IMAGE_SUFFIXES, ".gif"}  # of masks
MEANINGS = {
    "corners": {"inclusive": "x1, y1 are the last pixels inside", "exclusive": "one beyond: x1 = x0 + width"},
    "units": {"pixels": "of the image, from 0", "relative": "shares of its width and height"},
}
PET, BACKGROUND, BORDER = 1, 2, 3  # values of a trimap


@reader("imagefolder")
def ImageFolder(root: str | Path, split: str | None = None) -> Dataset:
    """A folder of class folders: `root/[split/]class/image.jpg`, classes in sorted order.

    Parameters
    ----------
    root : path
    split : str, optional
        A folder between root and classes; None: the classes lie directly under the root.
    """
    home = Path(root).expanduser() / (split or "")
    classes, files, labels = _list_images(home)
    table = Table(home, sample_id=files, label=labels, image=files)
    return Dataset(table, split=split or "all", **named_classes(classes))


def _list_images(home: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Classes, images by their path from the folder, and labels, in the order of torchvision's `ImageFolder`."""
    classes = sorted(entry.name for entry in os.scandir(home) if entry.is_dir()) if home.is_dir() else []
    files: list[str] = []
    counts: list[int] = []
    for name in classes:
        before = len(files)
        for folder, _, names in sorted(os.walk(home / name, followlinks=True)):
            below = Path(folder).relative_to(home).as_posix()
            files += [f"{below}/{image}" for image in sorted(names) if image.lower().endswith(IMAGE_SUFFIXES)]
        counts.append(len(files) - before)
    if not all(counts) or not classes:
        empty = home / classes[counts.index(0)] if classes else home
        raise UserError(f"{empty} holds no image; dataset.root (and dataset.split) must hold a folder for each class")
    return classes, files, np.repeat(np.arange(len(classes)), counts)


@reader("folder")
def AnnotatedFolder(
    root: str | Path, split: str | None = None, boxes_file: str | Path | None = None, box_corners: str | None = None,
    box_units: str | None = None, masks: str | Path | None = None, mask_ignore: int | None = None,
    missing: str = "stop",
) -> Dataset:  # fmt: skip
    """`root/[split/]class/image.jpg`, with boxes from a table, masks from a folder, or both.

    Parameters
    ----------
    root : path
    split : str, optional
        A folder between root and classes; None: the classes lie directly under the root.
    boxes_file : path, optional
        A `.csv` or `.parquet` table with the columns `image, x0, y0, x1, y1`: the image's path from the root, with
        forward slashes, and a box; several rows for several objects. Rows of other splits are passed over; one without
        any corner, `image,,,,`, says that the image has no box.
    box_corners : "inclusive" or "exclusive"
        Needed with `boxes_file`: whether x1 and y1 are the last pixels inside, or one beyond.
    box_units : "pixels" or "relative"
        Needed with `boxes_file`: pixels of the image, from 0; or shares of its width and height.
    masks : path, optional
        A folder with a mask for every image at the same relative path, with any suffix. Each pixel that is not 0
        belongs to the object; use a lossless format. `dataset.boxes=from_masks` puts boxes around its regions.
    mask_ignore : int, optional
        The value, 1 to 255, of pixels that do not count.
    missing : "stop" or "drop"
        What images without a box or mask do: stop, naming them, or be left out.
    """
    if missing not in ("stop", "drop"):
        raise UserError(f"dataset.missing={missing}: pass stop or drop")
    if boxes_file is None and masks is None:
        raise UserError("pass dataset.boxes_file=TABLE or dataset.masks=FOLDER; or dataset=imagefolder to train only")
    top, prefix = Path(root).expanduser(), f"{split}/" if split else ""
    classes, files, labels = _list_images(top / prefix)
    columns: dict[str, dict[str, Any]] = {}  # of Sample's fields, by image
    options: dict[str, Any] = {}
    if boxes_file is not None:
        rules = BoxRules(box_corners, box_units)
        columns["boxes"], options = _read_boxes(Path(boxes_file).expanduser(), rules, prefix, files)
    if masks is not None:
        columns |= _find_masks(Path(masks).expanduser(), mask_ignore, top, prefix, files)
    kept = _keep(files, columns, missing)
    names = [files[row] for row in kept]
    cells = {field: [by_image[name] for name in names] for field, by_image in columns.items()}
    table = Table(top / prefix, sample_id=names, label=labels[kept], image=names, **cells)
    return Dataset(table, split=split or "all", **named_classes(classes), **options)


def _keep(files: Sequence[str], columns: Mapping[str, Container[str]], missing: str) -> list[int]:
    """Numbers of the images that have all annotations; stops at the others unless they may be dropped."""
    kept = [row for row, file in enumerate(files) if all(file in annotated for annotated in columns.values())]
    lacking = [files[row] for row in sorted({*range(len(files))} - {*kept})]
    text = f"{len(lacking)} of {len(files)} images have no {' or no '.join(columns)}"
    if lacking and missing == "stop":
        raise UserError(f"{text}: {first_names(lacking)}; add some, or leave these out: dataset.missing=drop")
    if lacking:
        logger.info("folder: %s and are left out", text)
    return kept


@dataclass(frozen=True)
class BoxRules:
    """What the numbers of a table mean: nothing is guessed."""

    corners: str | None
    units: str | None
    where: str = "dataset.box_"  # the keys that say it, for messages

    def __post_init__(self) -> None:
        for key, meanings in MEANINGS.items():
            if getattr(self, key) not in meanings:
                choices = " or ".join(f"{choice} ({meaning})" for choice, meaning in meanings.items())
                raise UserError(f"{self.where}{key}={getattr(self, key) or ''}: say which: {choices}")

    def right(self, boxes: np.ndarray) -> np.ndarray:
        """Whether each box (N, 4) may be one, whatever its image: bool (N,)."""
        right = are_boxes(boxes) & ((self.units == "pixels") | (boxes <= 1).all(axis=1))
        return right & ((self.corners == "inclusive") | (boxes[:, :2] < boxes[:, 2:]).all(axis=1))

    def to_pixels(self, boxes: np.ndarray, size: Sequence[Any] = (1, 1)) -> np.ndarray:
        """Pixels with inclusive corners (G, 4), at least one wide; size is an image's, or (G,) widths, heights."""
        pixels = boxes * np.array([*size, *size]).T
        if self.corners == "exclusive":
            ends = pixels[:, 2:] - 1
            pixels[:, 2:] = np.where(pixels[:, 2:] > pixels[:, :2], np.maximum(ends, pixels[:, :2]), ends)
        return pixels

    def measure(self, sample: Sample) -> tuple[np.ndarray | None, Size | None]:
        """Boxes in pixels, of shares of the image's sides, and its size."""
        size = read_size(Path(str(sample.image)), sample.sample_id)
        return self.to_pixels(np.asarray(sample.boxes), size), size


def _read_boxes(
    path: Path, rules: BoxRules, prefix: str, files: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Boxes of each image that has some, and what the dataset must know of them."""
    rows = read_table(path, ("image", *CORNERS))
    file_of = {prefix + file: file for file in files}
    for row, name in enumerate(rows["image"]):
        if name not in file_of and (not isinstance(name, str) or name.startswith(prefix)):
            near = composed_otherwise(str(name), file_of) or f", such as {(closest(name, file_of) or [*file_of])[0]}"
            rows.refuse(row, f"is a box of none of the images{near}; fix or remove the row")
    rows = rows.filled(CORNERS)
    corners, members = rows.numbers(CORNERS), dict[str, list[int]]()
    for row, name in enumerate(rows["image"]):
        if name in file_of:
            members.setdefault(file_of[name], []).append(row)
    why = f"has a box that is none with {rules.corners} corners in {rules.units}; fix it"
    options: dict[str, Any] = {"wrong_box": rows.first_wrong(rules.right(corners), why)}
    if rules.units == "relative":
        options["measure"] = rules.measure
    else:
        corners = rules.to_pixels(corners)
    return {file: corners[group] for file, group in members.items()}, options


def _find_masks(folder: Path, ignore: int | None, top: Path, prefix: str, files: Sequence[str]) -> dict[str, Any]:
    """What reads the mask, and the pixels to ignore, of each image that has one: at the same path, with any suffix."""
    if ignore is not None and not 0 < ignore < 256:
        raise UserError(f"dataset.mask_ignore={ignore}: pass a whole number from 1 to 255, or null")
    if folder.resolve() == top.resolve():
        raise UserError(f"dataset.masks={folder} is the folder of the images; masks need one of their own")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    masks = {path.with_suffix(""): path for path in paths}
    stem_of = {file: (folder / prefix / file).with_suffix("") for file in files}
    path_of = {file: masks[stem] for file, stem in stem_of.items() if stem in masks}
    if len(masks) < len(paths) or len({stem_of[file] for file in path_of}) < len(path_of):
        raise UserError(f"{folder}: names that differ in their suffix only have one mask; give each a name of its own")
    columns = {"mask": {file: partial(_read_object, path, file, ignore) for file, path in path_of.items()}}
    if ignore is not None:
        columns["ignore"] = {file: partial(_read_value, path, file, ignore) for file, path in path_of.items()}
    return columns


def _read_object(path: Path, name: str, ignore: int | None) -> np.ndarray:
    if ignore is None:
        return read_mask(path, name)
    values = read_values(path, name)
    return (values != 0) & (values != ignore)


def _read_value(path: Path, name: str, value: int) -> np.ndarray:
    return read_values(path, name) == value


@reader("pet", {"trainval": "train-weaksup", "test": "test"})
def OxfordPet(root: str | Path, split: str = "test", download: bool = False) -> Dataset:
    """Oxford-IIIT Pet (Parkhi et al., CVPR 2012): `oxford-iiit-pet/` with `images/`, lists and trimaps.

    Parameters
    ----------
    root : path
        The folder that holds `oxford-iiit-pet/`, or that folder; `download` fetches it first where it is missing,
        through torchvision.
    split : "trainval" or "test"

    Notes
    -----
    A trimap tells pet, background and border, the band where the annotators did not decide. The mask is the pet, and
    the border is ignored: PxAP counts neither a hit nor a false alarm there. The box surrounds pet and border
    together, since thin parts such as tails and ears are all border. The boxes in `annotations/xmls/` are of the heads
    only, and only of some pictures, so they are not used.
    """
    if download:
        open_torchvision("OxfordIIITPet", "pet", root, split=split, download=True)
    home = find_home(root, "oxford-iiit-pet")
    hint = f"dataset.root={root} must hold oxford-iiit-pet/, or pass dataset.download=true"
    columns = ("picture", "breed", "species", "number")
    rows = read_lines(home / "annotations" / f"{split}.txt", columns, separator=None, hint=hint)
    rows.check_paths("picture", home / "images")
    names, breeds = rows["picture"], rows.integers("breed", least=1)
    _, first_rows, labels = np.unique(breeds, return_index=True, return_inverse=True)
    trimaps = home / "annotations" / "trimaps"
    masks, borders = ([partial(_read_trimap, trimaps, name, value) for name in names] for value in (PET, BORDER))
    images = [f"{name}.jpg" for name in names]
    classes = [" ".join(part.title() for part in names[row].split("_")[:-1]) for row in first_rows]
    table = Table(home / "images", sample_id=names, label=labels, image=images, mask=masks, ignore=borders)
    return Dataset(table, measure=partial(_measure_trimap, trimaps), classes=classes)


def _read_trimap(trimaps: Path, name: str, value: int) -> np.ndarray:
    """Where a trimap has a value: bool (H, W)."""
    path = trimaps / f"{name}.png"
    values = read_values(path, name)
    if values.min() < PET or values.max() > BORDER or not (values == PET).any():
        raise UserError(f"{path} is no trimap: values {np.unique(values).tolist()}, not 1, 2 and 3; replace the file")
    return values == value


def _measure_trimap(trimaps: Path, sample: Sample) -> tuple[np.ndarray, Size | None]:
    """Box around pet and border."""
    rows, columns = np.nonzero(~_read_trimap(trimaps, sample.sample_id, BACKGROUND))
    return np.array([[columns.min(), rows.min(), columns.max(), rows.max()]], np.float64), sample.image_size


ROLES = {"train": "", "test": ""}  # nobody's in the field


@reader("cifar10", ROLES)
def CIFAR10(root: str | Path, split: str = "test", download: bool = False) -> Dataset:
    """CIFAR-10 (32 × 32, ten classes) through torchvision.

    Parameters
    ----------
    root : path
        Folder with `cifar-10-batches-py/`; `download` fetches it first where it is missing.
    split : "train" or "test"
    """
    data = open_torchvision("CIFAR10", "cifar10", root, train=split == "train", download=download)
    return _labeled(split, data.classes, data.targets, data.data)


@reader("stl10", ROLES)
def STL10(root: str | Path, split: str = "test", download: bool = False) -> Dataset:
    """STL-10 (96 × 96, ten classes) through torchvision.

    Parameters
    ----------
    root : path
        Folder with `stl10_binary/`; `download` fetches it first where it is missing.
    split : "train" or "test"
    """
    data = open_torchvision("STL10", "stl10", root, split=split, download=download)
    return _labeled(split, data.classes, data.labels, data.data.transpose(0, 2, 3, 1))


def _labeled(split: str, classes: Any, labels: Any, images: Any) -> Dataset:
    ids = [f"{split}/{index:05d}" for index in range(len(labels))]
    return Dataset(Table(Path(), sample_id=ids, label=labels, image=images), classes=classes)


def open_torchvision(kind: str, name: str, root: str | Path, **options: Any) -> Any:
    """Make a dataset of torchvision's, or raise the error that says what to do."""
    from torchvision import datasets

    try:
        return getattr(datasets, kind)(str(Path(root).expanduser()), **options)
    except (RuntimeError, OSError) as error:
        advice = "check dataset.root or pass dataset.download=true"
        raise UserError(f"{name}: can't be read from {root}: {error}; {advice}") from error
