"""Images in folders: one per class, with a table of boxes or a folder of masks of your own; and Oxford-IIIT Pet."""

from __future__ import annotations

import logging
import os
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from wsol.datasets.annotations import are_boxes, read_lines, read_table
from wsol.datasets.images import read_size, read_values
from wsol.datasets.labeled import open_torchvision
from wsol.datasets.sample import Dataset, Sample, Size, Table, check_split, check_text, reader
from wsol.errors import UserError, closest, first_names

__all__ = ["SUFFIXES", "AnnotatedFolder", "ImageFolder", "OxfordPet"]

logger = logging.getLogger("wsol")

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
SUFFIXES = {*IMAGE_SUFFIXES, ".gif"}  # of masks
CORNERS = ("x0", "y0", "x1", "y1")
MEANINGS = {
    "corners": {"inclusive": "x1, y1 are the last pixels inside", "exclusive": "one beyond: x1 = x0 + width"},
    "units": {"pixels": "pixels of the image, from 0", "relative": "shares of its width and height"},
}
PET_COLUMNS = ("picture", "breed", "species", "number")
PET, BACKGROUND, BORDER = 1, 2, 3  # values of a trimap
PET_ROLES = {"trainval": "train-weaksup", "test": "test"}


@reader
def ImageFolder(root: str | Path, split: str | None = None) -> Dataset:
    """A folder of class folders: `root/[split/]class/image.jpg`, classes in sorted order.

    Parameters
    ----------
    root : path
    split : str, optional
        A folder between root and classes; None: the classes lie directly under the root.

    Raises
    ------
    UserError
        If there is no such folder, or no images in it.
    """
    home = Path(root).expanduser() / (split or "")
    classes, files, labels = _list_images(home)
    table = Table(home, sample_id=files, label=labels, image=files)
    return Dataset(table, name="imagefolder", split=split or "all", classes=classes)


def _list_images(home: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Classes, images by their path from the folder, and labels, in the order of torchvision's `ImageFolder`."""
    if not home.is_dir():
        raise UserError(f"{home}: no such folder; dataset.root (and dataset.split) must hold one folder per class")
    classes = sorted(entry.name for entry in os.scandir(home) if entry.is_dir())
    if not classes:
        raise UserError(f"{home} holds no folder; one folder per class with images is wanted")
    files: list[str] = []
    labels: list[int] = []
    first_name: dict[str, str] = {}  # by the real path of each folder with images
    for label, name in enumerate(classes):
        check_text(name, f"folder in {home}")
        before = len(files)
        for folder, _, names in sorted(os.walk(home / name, followlinks=True)):
            images = [image for image in sorted(names) if image.lower().endswith(IMAGE_SUFFIXES)]
            if images and first_name.setdefault(os.path.realpath(folder), folder) != folder:
                raise UserError(
                    f"{folder} is the folder {first_name[os.path.realpath(folder)]} again, so its images would count "
                    f"twice: remove the link"
                )
            below = Path(folder).relative_to(home).as_posix()
            files += [f"{below}/{image}" for image in images]
        if len(files) == before:
            raise UserError(f"{home / name} holds no image; one folder per class with images is wanted")
        labels += [label] * (len(files) - before)
    return classes, files, np.array(labels, np.int64)


@reader
def AnnotatedFolder(
    root: str | Path,
    split: str | None = None,
    boxes_file: str | Path | None = None,
    box_corners: str | None = None,
    box_units: str | None = None,
    masks: str | Path | None = None,
    mask_ignore: int | None = None,
    missing: str = "stop",
) -> Dataset:
    """`root/[split/]class/image.jpg`, with boxes from a table, masks from a folder, or both.

    Parameters
    ----------
    root : path
    split : str, optional
        A folder between root and classes; None: the classes lie directly under the root.
    boxes_file : path, optional
        A `.csv` or `.parquet` table with the columns `image, x0, y0, x1, y1`: the image's path from the root, with
        forward slashes, and a box; several rows for several objects. Rows of other splits are passed over.
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

    Raises
    ------
    UserError
        If neither boxes nor masks are given, what their numbers mean is not said, a row or mask fits no image or an
        image lacks its own.

    See Also
    --------
    wsol.datasets.ImageFolder : the same folder, to train on without boxes.
    """
    _check_options(boxes_file, masks, mask_ignore, missing)
    top = Path(root).expanduser()
    home, prefix = top / (split or ""), f"{split}/" if split else ""
    classes, files, labels = _list_images(home)
    columns: dict[str, Sequence[Any]] = {}
    kept, measure, wrong_box = np.arange(len(files)), None, ""
    if boxes_file is not None:
        rules = _BoxRules(box_corners, box_units)
        boxes, wrong_box = _read_boxes(Path(boxes_file).expanduser(), rules, prefix, files)
        kept = _keep(kept, files, boxes, f"box in {boxes_file}", missing)
        columns["boxes"] = [boxes.get(file) for file in files]
        measure = rules.measure if box_units == "relative" else None
    if masks is not None:
        paths = _find_masks(Path(masks).expanduser(), top, prefix, files)
        kept = _keep(kept, files, paths, f"mask in {masks}", missing)
        columns["mask"] = [partial(_read_object, paths.get(file), file, mask_ignore) for file in files]
        if mask_ignore is not None:
            columns["ignore"] = [partial(_read_value, paths.get(file), file, mask_ignore) for file in files]
    columns = {name: [cells[row] for row in kept] for name, cells in (columns | {"image": files}).items()}
    return Dataset(
        Table(home, sample_id=columns["image"], label=labels[kept], **columns),
        measure=measure,
        wrong_box=wrong_box,
        name="folder",
        split=split or "all",
        classes=classes,
    )


def _check_options(
    boxes_file: str | Path | None, masks: str | Path | None, mask_ignore: int | None, missing: str
) -> None:
    if missing not in ("stop", "drop"):
        raise UserError(f"dataset.missing={missing}: pass stop or drop")
    if boxes_file is None and masks is None:
        raise UserError(
            "dataset=folder needs dataset.boxes_file=TABLE or dataset.masks=FOLDER; to train on classes alone, "
            "pass dataset=imagefolder"
        )
    if mask_ignore is not None and not (type(mask_ignore) is int and 0 < mask_ignore < 256):
        raise UserError(f"dataset.mask_ignore={mask_ignore}: pass a whole number from 1 to 255, or null")


def _keep(kept: np.ndarray, files: Sequence[str], annotated: Container[str], what: str, missing: str) -> np.ndarray:
    """Images that are annotated, of those kept so far; stops at the others unless they may be dropped."""
    lacking = [files[row] for row in kept if files[row] not in annotated]
    if lacking and (missing == "stop" or len(lacking) == len(kept)):
        raise UserError(
            f"{len(lacking)} of {len(kept)} images have no {what}: {first_names(lacking)}; add them"
            + (", or pass dataset.missing=drop to leave such images out" if len(lacking) < len(kept) else "")
        )
    if lacking:
        logger.info("folder: %d of %d images have no %s and are left out", len(lacking), len(kept), what)
    return np.array([row for row in kept if files[row] in annotated])


@dataclass(frozen=True)
class _BoxRules:
    """What the numbers of a table mean: nothing is guessed."""

    corners: str | None
    units: str | None

    def __post_init__(self) -> None:
        for key, meanings in MEANINGS.items():
            if getattr(self, key) not in meanings:
                choices = " or ".join(f"{name} ({meaning})" for name, meaning in meanings.items())
                raise UserError(
                    f"dataset.box_{key}={getattr(self, key) or ''}: with dataset.boxes_file say which, it can't be "
                    f"told from the numbers: {choices}"
                )

    def right(self, boxes: np.ndarray) -> np.ndarray:
        """Whether each box (N, 4) may be one, whatever its image: bool (N,)."""
        right = are_boxes(boxes) & ((self.units == "pixels") | (boxes <= 1).all(axis=1))
        return right & ((self.corners == "inclusive") | (boxes[:, :2] < boxes[:, 2:]).all(axis=1))

    def to_pixels(self, boxes: np.ndarray, size: Size = (1, 1)) -> np.ndarray:
        """Pixels with inclusive corners (G, 4); a box narrower than a pixel becomes one pixel wide."""
        pixels = boxes * np.array([*size, *size])
        if self.corners == "exclusive":
            ends = pixels[:, 2:] - 1
            pixels[:, 2:] = np.where(pixels[:, 2:] > pixels[:, :2], np.maximum(ends, pixels[:, :2]), ends)
        return pixels

    def measure(self, sample: Sample) -> tuple[np.ndarray | None, Size | None]:
        """Boxes in pixels, of shares of the image's sides, and its size."""
        assert isinstance(sample.image, Path) and sample.boxes is not None
        size = read_size(sample.image, sample.sample_id)
        return self.to_pixels(sample.boxes, size), size


def _read_boxes(path: Path, rules: _BoxRules, prefix: str, files: Sequence[str]) -> tuple[dict[str, np.ndarray], str]:
    """Boxes of each image that has some, as written where units are relative; and what is wrong with one."""
    if not path.is_file():
        raise UserError(f"dataset.boxes_file={path}: no such file")
    rows = read_table(path, ("image", *CORNERS))
    if not len(rows):
        raise UserError(f"{path} has no rows; wanted image, {', '.join(CORNERS)}")
    corners, known = rows.floats(CORNERS), {prefix + file: file for file in files}
    members: dict[str, list[int]] = {}
    for row, name in enumerate(rows["image"]):
        if not isinstance(name, str) or not name:
            rows.refuse(row, "names no image; fix the row")
        if name.startswith(prefix):
            if name not in known:
                near = closest(name, known) or list(known)[:1]
                rows.refuse(row, f"is a box of none of the images, such as {', '.join(near)}; fix or remove the row")
            members.setdefault(known[name], []).append(row)
    if not members:
        raise UserError(
            f"{path}: no image begins with {prefix!r}, as in {next(iter(known))!r}; the first row names "
            f"{rows['image'][0]!r}, but paths are wanted from dataset.root on"
        )
    wrong = f"is no box with {rules.corners} corners in {rules.units}: inverted, empty, negative or too large; fix it"
    boxes = corners if rules.units == "relative" else rules.to_pixels(corners)
    return {file: boxes[group] for file, group in members.items()}, rows.first_wrong(rules.right(corners), wrong)


def _find_masks(folder: Path, top: Path, prefix: str, files: Sequence[str]) -> dict[str, Path]:
    """Mask of each image that has one: at the same path from the root, whatever its suffix."""
    if not folder.is_dir():
        raise UserError(f"dataset.masks={folder}: no such folder")
    if folder.resolve() == top.resolve():
        raise UserError(f"dataset.masks={folder} is the folder of the images; masks need a folder of their own")
    paths = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    masks = _by_stem([path.relative_to(folder).as_posix() for path in paths], f"in {folder}")
    images = _by_stem(files, f"in {top / prefix}, of which each wants a mask,")
    return {file: folder / masks[prefix + stem] for stem, file in images.items() if prefix + stem in masks}


def _by_stem(names: Sequence[str], where: str) -> dict[str, str]:
    """Names by what they are without suffix, which must tell them apart."""
    by_stem: dict[str, str] = {}
    for name in names:
        stem = PurePosixPath(name).with_suffix("").as_posix()
        if stem in by_stem:
            raise UserError(f"{by_stem[stem]} and {name} {where} differ only in their suffix; rename or remove one")
        by_stem[stem] = name
    return by_stem


def _read_object(path: Path, name: str, ignore: int | None) -> np.ndarray:
    values = read_values(path, name)
    return (values > 0) & (values != ignore)


def _read_value(path: Path, name: str, value: int) -> np.ndarray:
    return read_values(path, name) == value


@reader
def OxfordPet(root: str | Path, split: str = "test", download: bool = False) -> Dataset:
    """Oxford-IIIT Pet: `oxford-iiit-pet/` with `images/`, `annotations/<split>.txt` and `annotations/trimaps/`.

    Parameters
    ----------
    root : path
        The folder that holds `oxford-iiit-pet/`, or that folder itself.
    split : "trainval" or "test"
    download : bool
        Fetch it first where it is missing, through torchvision.

    Raises
    ------
    UserError
        If a file is missing or a line can't be read; when a sample is made, if its trimap is no trimap.

    Notes
    -----
    A trimap tells pet, background and border, the band where the annotators did not decide. The mask is the pet, and
    the border is ignored: PxAP counts neither a hit nor a false alarm there. The box surrounds pet and border
    together, since thin parts such as tails and ears are all border. The boxes in `annotations/xmls/` are of the heads
    only, and only of some pictures, so they are not used.

    References
    ----------
    Parkhi et al., "Cats and Dogs", CVPR 2012.
    """
    check_split("pet", split, tuple(PET_ROLES))
    base = Path(root).expanduser()
    base = base.parent if base.name == "oxford-iiit-pet" else base
    home = base / "oxford-iiit-pet"
    if download:
        open_torchvision("OxfordIIITPet", "pet", base, split=split, download=True)
    hint = f"dataset.root={root} must hold oxford-iiit-pet/, or pass dataset.download=true"
    rows = read_lines(home / "annotations" / f"{split}.txt", PET_COLUMNS, separator=None, hint=f"pet: {hint}")
    for column in PET_COLUMNS[1:]:
        rows.integers(column, least=1)
    rows.check_paths("picture", home / "images")
    if not len(rows):
        raise UserError(f"{rows.path} lists no pictures; replace the file")
    names, trimaps = rows["picture"], home / "annotations" / "trimaps"
    _, first_rows, labels = np.unique(rows.integers("breed"), return_index=True, return_inverse=True)
    return Dataset(
        Table(
            home / "images",
            sample_id=names,
            label=labels,
            image=[f"{name}.jpg" for name in names],
            mask=[partial(_read_trimap, trimaps / f"{name}.png", name, PET) for name in names],
            ignore=[partial(_read_trimap, trimaps / f"{name}.png", name, BORDER) for name in names],
        ),
        measure=partial(_measure_trimap, trimaps),
        name="pet",
        split=split,
        role=PET_ROLES[split],
        classes=[" ".join(part.title() for part in names[row].split("_")[:-1]) for row in first_rows],
    )


def _trimap(path: Path, name: str) -> np.ndarray:
    values = read_values(path, name)
    if values.min() < PET or values.max() > BORDER:
        raise UserError(
            f"{path} has values {values.min()} to {values.max()}; a trimap has 1 (pet), 2 (background) and 3 (border): "
            f"replace the file"
        )
    return values


def _read_trimap(path: Path, name: str, value: int) -> np.ndarray:
    return _trimap(path, name) == value


def _measure_trimap(trimaps: Path, sample: Sample) -> tuple[np.ndarray, Size | None]:
    """Box around pet and border."""
    path = trimaps / f"{sample.sample_id}.png"
    values = _trimap(path, sample.sample_id)
    if not (values == PET).any():
        raise UserError(f"{path} has no pixel of the pet (value 1); replace the file")
    rows, columns = np.nonzero(values != BACKGROUND)
    return np.array([[columns.min(), rows.min(), columns.max(), rows.max()]], np.float64), sample.image_size
