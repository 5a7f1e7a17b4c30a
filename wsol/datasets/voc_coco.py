"""Images that show several classes, PASCAL VOC's and COCO's: a sample, `image_id#class`, for every class on an image.

The samples of one image follow each other, so that one decoding and one forward pass serve them all. "The" true class
of an image does not exist, so Top-k stays empty; GT-known localization is then CorLoc (Deselaers, Alexe and Ferrari,
ECCV 2010).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsol.datasets.annotations import XML_CORNERS, Rows, read_lines, read_xml, safe_join
from wsol.datasets.labeled import open_torchvision
from wsol.datasets.sample import Dataset, Sample, Size, choose_classes, reader
from wsol.errors import UserError

__all__ = ["COCO", "VOC"]

logger = logging.getLogger("wsol")

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC_ROLES = {"train": "train-weaksup", "val": "train-fullsup", "trainval": "train-weaksup", "test": "test"}
LONGEST_SIDE = 32767  # of an image; a larger size in the file is a mistake, and its masks would fill the memory

Draw = Callable[[], np.ndarray]  # gives an object's pixels, bool (H, W)


class _Object(NamedTuple):
    label: int
    box: Sequence[float]  # x0 y0 x1 y1
    ignored: bool = False  # difficult, or a crowd: neither object nor background
    draw: Draw | None = None


class _Image(NamedTuple):
    image_id: str
    path: Path
    size: Any  # (width, height), or None where VOC's file doesn't say
    objects: list[_Object]

    def samples(self, classes: Sequence[str]) -> list[Sample]:
        """A sample for each class of which an object counts, in the order of the classes."""
        image: dict[str, Any] = {"image_id": self.image_id, "image": self.path, "image_size": self.size}
        samples = []
        for label in sorted({thing.label for thing in self.objects if not thing.ignored}):
            counted = [thing for thing in self.objects if thing.label == label and not thing.ignored]
            ignored = [thing for thing in self.objects if thing.label == label and thing.ignored]
            annotation: dict[str, Any] = {
                "boxes": [thing.box for thing in counted],
                "mask": _union(counted),
                "ignore": _union(ignored),
            }
            samples.append(Sample(sample_id=f"{self.image_id}#{classes[label]}", label=label, **image, **annotation))
        return samples


def _union(objects: Sequence[_Object]) -> Draw | None:
    draws = [thing.draw for thing in objects if thing.draw is not None]
    return partial(_draw_all, draws) if draws else None


def _draw_all(draws: Sequence[Draw]) -> np.ndarray:
    return np.logical_or.reduce([draw() for draw in draws])  # (H, W)


def _dataset(images: Sequence[_Image], split: str, classes: Sequence[str], **options: Any) -> Dataset:
    per_image = [image.samples(classes) for image in images]
    samples = [sample for part in per_image for sample in part]
    empty = per_image.count([])
    counts = f"{len(images) - empty} images, {len(classes)} classes, {len(samples)} samples (classes on images)"
    text = f"split {split}: {counts}; {empty} more images without an object that counts"
    if not samples:
        raise UserError(f"{text}; pass another dataset.split or dataset.classes")
    logger.info("%s", text)
    return Dataset(samples, split=split, classes=classes, multilabel=True, **options)


@reader("voc")
def VOC(
    root: str | Path,
    split: str = "test",
    year: str | int = 2007,
    classes: Sequence[str] | None = None,
    download: bool = False,
) -> Dataset:
    """PASCAL VOC's detection data (Everingham et al., IJCV 88, 2010), as the archives unpack.

    Objects marked difficult do not count, and a class of which an image has no others makes no sample there.

    Parameters
    ----------
    root : path
        The folder that holds `VOCdevkit/`; `VOCdevkit/` or `VOC<year>/` themselves, with `Annotations/`,
        `ImageSets/Main/` and `JPEGImages/`, will do.
    split : "train", "val", "trainval" or "test"
        `ImageSets/Main/<split>.txt`; the annotations of the test sets after 2007 were never handed out.
    year : str or int
        2007 to 2012.
    classes : sequence of str, optional
        Keep these only, in this order; None: PASCAL VOC's twenty. Other data in this layout names its own.
    download : bool
        Fetch it first where it is missing, through torchvision.

    Notes
    -----
    The files count pixels from 1; the samples' boxes are the same corners counted from 0, still inclusive.
    """
    year = str(year)
    if year not in map(str, range(2007, 2013)):
        raise UserError(f"dataset.year={year}: PASCAL VOC's detection data is of 2007 to 2012")
    if split not in VOC_ROLES or (split == "test" and year != "2007"):
        known = ", ".join(name for name in VOC_ROLES if name != "test" or year == "2007")
        raise UserError(f"dataset.split={split}: VOC {year} has {known}")
    above = _above(Path(root).expanduser(), year)
    if download:
        open_torchvision("VOCDetection", "voc", above, year=year, image_set=split, download=True)
    home = above / ("TrainVal" if year == "2011" else "") / "VOCdevkit" / f"VOC{year}"  # as that archive unpacks
    hint = f"voc: dataset.root={root} must hold VOCdevkit/VOC{year}/, or pass dataset.download=true"
    listing = read_lines(home / "ImageSets" / "Main" / f"{split}.txt", ["image"], separator=None, hint=hint)
    listing.check_paths("image", home / "JPEGImages")
    ids = listing["image"]
    sizes, image_of, rows = read_xml([home / "Annotations" / f"{image_id}.xml" for image_id in ids])
    chosen = _voc_classes(rows, classes)
    corners, wrong_box = rows.boxes(XML_CORNERS, least=-np.inf)
    folder = home / "JPEGImages"
    images = [_Image(name, folder / f"{name}.jpg", size, []) for name, size in zip(ids, sizes, strict=True)]
    for image, name, box, difficult in zip(image_of, rows["name"], corners - 1, rows["difficult"], strict=True):
        if name in chosen:
            images[image].objects.append(_Object(chosen.index(name), box, difficult == "1"))
    # After 2007 nobody but the organizers has the test set's boxes, so results are given on val.
    role = "test" if split == "val" and year != "2007" else VOC_ROLES[split]
    return _dataset(images, f"{year} {split}", chosen, wrong_box=wrong_box, role=role)


def _above(root: Path, year: str) -> Path:
    """Folder that holds `VOCdevkit/`."""
    if root.name == "VOCdevkit":
        return root.parent
    return root.parent.parent if (root.parent.name, root.name) == ("VOCdevkit", f"VOC{year}") else root


def _voc_classes(rows: Rows, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Classes in order: those asked for, or the twenty; a class that is neither is an error, never left out."""
    others = sorted(set(rows["name"]) - set(VOC_CLASSES))
    if classes is None and others:
        why = "is not of PASCAL VOC's twenty classes; fix it, or name this data's own: 'dataset.classes=[…]'"
        rows.refuse(rows["name"].index(others[0]), why)
    return choose_classes([*VOC_CLASSES, *others], classes, "PASCAL VOC and these annotations")


@reader("coco")
def COCO(
    root: str | Path,
    split: str = "val2017",
    annotations: str | Path | None = None,
    classes: Sequence[str] | None = None,
    masks: bool | None = None,
) -> Dataset:
    """COCO's instances (Lin et al., ECCV 2014), or any file of that kind with a folder of images.

    A crowd does not count: its box is left out and its pixels are ignored where they are not an object's of the same
    class; a class of which an image has a crowd only makes no sample there.

    Parameters
    ----------
    root : path
        The folder that holds `annotations/instances_<split>.json` and `<split>/`; with `annotations`, the folder of
        the images.
    split : str
        As `val2017`; with `annotations`, what the tables call it.
    annotations : path, optional
        A JSON file of COCO's instances.
    classes : sequence of str, optional
        Names of categories: keep these only, in this order; None: all, in the order of their ids.
    masks : bool, optional
        False: boxes only. None: with masks if the objects have segmentations; polygons need `pip install wsol[coco]`.
    """
    base = Path(root).expanduser()
    file = Path(annotations).expanduser() if annotations else base / "annotations" / f"instances_{split}.json"
    folder = base if annotations else base / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; dataset.root holds the images, in {split}/ unless "
                        f"dataset.annotations is given")  # fmt: skip
    content = _read_json(file)
    names, images = _coco_categories(content["categories"], file), _coco_images(content["images"], file, folder)
    chosen = choose_classes(list(names.values()), classes, str(file))
    label_of = {key: chosen.index(name) if name in chosen else -1 for key, name in names.items()}
    wrong_box = _add_coco_objects(images, content["annotations"], file, label_of, masks is not False)
    objects = [(image.image_id, thing) for image in images.values() for thing in image.objects]
    lacking = [image_id for image_id, thing in objects if thing.draw is None and not thing.ignored]
    if lacking and (masks or any(thing.draw is not None for _, thing in objects)):
        raise UserError(f"{file}: an object on {lacking[0]} has no segmentation, but masks are wanted of all or none; "
                        f"add it, or pass dataset.masks=false for boxes only")  # fmt: skip
    # Nobody but the organizers has the test set's boxes, so results are given on val.
    role = "train-weaksup" if split.startswith("train") else "test" if split.startswith("val") else ""
    return _dataset(list(images.values()), split, chosen, wrong_box=wrong_box, role=role)


def _read_json(file: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can't be read as JSON: {error}; pass dataset.annotations=FILE") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list {key!r}; is it one of COCO's instances files?")
    return content


@contextmanager
def _blaming(where: str, entry: Any) -> Iterator[None]:
    """Whatever doesn't fit in the block, this entry of the file is to blame for."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        why = f"{type(error).__name__}, {error}"
        raise UserError(f"{where}: {why}; fix or remove {str(entry)[:200]}") from error


def _coco_categories(entries: Sequence[Any], file: Path) -> dict[Any, str]:
    """Names by id, in the order of the ids."""
    names: dict[Any, str] = {}
    for number, entry in enumerate(entries):
        with _blaming(f"{file}, categories[{number}]", entry):
            if entry["id"] in names or entry["name"] in names.values() or not entry["name"]:
                raise ValueError(f"id {entry['id']!r} or name {entry['name']!r} comes twice or is empty")
            names[entry["id"]] = str(entry["name"])
    return {key: names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))}


def _coco_images(entries: Sequence[Any], file: Path, folder: Path) -> dict[Any, _Image]:
    images: dict[Any, _Image] = {}
    for number, entry in enumerate(entries):
        where = f"{file}, images[{number}]"
        with _blaming(where, entry):
            size = int(entry["width"]), int(entry["height"])
            if entry["id"] in images or not (min(size) > 0 and max(size) <= LONGEST_SIDE):
                raise ValueError(f"id {entry['id']!r} comes twice, or {size} is not 1 to {LONGEST_SIDE} pixels each")
            images[entry["id"]] = _Image(entry["file_name"], safe_join(folder, entry["file_name"], where), size, [])
    return images


def _add_coco_objects(
    images: Mapping[Any, _Image], entries: Sequence[Any], file: Path, label_of: Mapping[Any, int], masks: bool
) -> str:
    """Add objects to their images; returns what is wrong with the first box that can't be one."""
    wrong_box = ""
    for number, entry in enumerate(entries):
        where = f"{file}, annotations[{number}]"
        with _blaming(where, entry):
            image, label = images[entry["image_id"]], label_of[entry["category_id"]]
            x, y, width, height = map(float, entry["bbox"])
            if not np.isfinite([x, y, width, height]).all():
                raise ValueError(f"bbox {entry['bbox']} is not finite")
            if width < 0 or height < 0:
                wrong_box = wrong_box or f"{where}: bbox {entry['bbox']} is not x y width height; fix it"
            if label >= 0:
                region = entry.get("segmentation") if masks else None
                draw = read_region(region, image.size) if region else None
                corners = inclusive_corners((x, y, width, height), image.size)
                image.objects.append(_Object(label, corners, bool(entry.get("iscrowd", 0)), draw))
    return wrong_box


def inclusive_corners(box: Sequence[float], image_size: Size) -> tuple[float, float, float, float]:
    """Convert COCO's box to inclusive corners.

    COCO gives edges: a box at x with width w spans x to x + w, where pixel 0 spans 0 to 1. In inclusive corners that
    is x to x + w - 1, which has the same width, w = x1 - x0 + 1, and the same place; fractions are kept. A box
    narrower than a pixel (COCO has a few) becomes one pixel wide.
    """
    x, y, width, height = box
    x0, y0 = min(x, image_size[0] - 1), min(y, image_size[1] - 1)
    x1, y1 = x + width - 1, y + height - 1
    return x0, y0, x1 if width < 0 else max(x1, x0), y1 if height < 0 else max(y1, y0)


def read_region(region: Any, size: Size) -> Draw:
    """Read a segmentation, polygons or runs, without drawing it; what is returned gives its pixels, bool (H, W)."""
    if isinstance(region, Mapping):
        return partial(_draw_runs, _read_runs(region, size), size)
    try:
        import pycocotools.mask  # noqa: F401
    except ImportError:
        raise UserError(
            "COCO's polygons are drawn with pip install 'wsol[coco]'; or pass dataset.masks=false"
        ) from None
    return partial(_draw_polygons, [_read_polygon(polygon, size) for polygon in region], size)


def _read_polygon(polygon: Any, size: Size) -> np.ndarray:
    """Corners x y x y …, float64, at least three; none so far outside that following the edge would take forever."""
    points = np.array(polygon, np.float64)
    sides = np.resize(size, points.shape)
    near = ((points >= -sides) & (points <= 2 * sides)).all()
    if points.ndim != 1 or points.size < 6 or points.size % 2 or not near:
        raise ValueError(f"polygon {str(polygon)[:60]} is not x y x y x y …, three points or more, near the image")
    return points


def _draw_polygons(polygons: Sequence[np.ndarray], size: Size) -> np.ndarray:
    from pycocotools import mask

    runs = mask.frPyObjects([polygon.tolist() for polygon in polygons], size[1], size[0])
    return mask.decode(mask.merge(runs)).astype(bool)


def _read_runs(region: Mapping[str, Any], size: Size) -> np.ndarray:
    """Lengths of runs down the columns, background first: int64, together exactly the image."""
    counts, pixels, shape = region["counts"], size[0] * size[1], [size[1], size[0]]
    runs = unpack_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    # One by one first: the sum of large ones could wrap around.
    fill = runs.ndim == 1 and ((runs >= 0) & (runs <= pixels)).all() and runs.sum() == pixels
    if not fill or region["size"] != shape:
        raise ValueError(f"runs for {region['size']} don't fill an image of {shape}, height and width")
    return runs


def _draw_runs(runs: np.ndarray, size: Size) -> np.ndarray:
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size).T


def unpack_runs(text: str) -> np.ndarray:
    """Read run lengths, int64, that were packed into text.

    Each character carries five bits above "0", the lowest first, and says in a sixth whether more follow; from the
    fourth number on, what is written is the difference to the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"{character!r} at an unexpected place")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the text ends within a number")
    return np.array(runs, np.int64)
