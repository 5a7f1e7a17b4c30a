"""Images that show several classes, PASCAL VOC's and COCO's: a sample, `image_id#class`, for every class on an image.

The samples of one image follow each other, so that one decoding and one forward pass serve them all. "The" true class
of an image does not exist, so Top-k stays empty; GT-known localization is then CorLoc (Deselaers, Alexe and Ferrari,
ECCV 2010).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from wsol.datasets.annotations import XML_CORNERS, read_lines, read_xml, safe_join
from wsol.datasets.folder import open_torchvision
from wsol.datasets.sample import Dataset, Sample, Size, choose_classes, find_home, reader
from wsol.errors import UserError, quantity

logger = logging.getLogger("wsol")

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC_2007 = {"train": "train-weaksup", "val": "train-fullsup", "trainval": "train-weaksup", "test": "test"}
# After 2007 nobody but the organizers has the test set's boxes, so results are given on val.
VOC_LATER = {"train": "train-weaksup", "val": "test", "trainval": "train-weaksup"}
LONGEST_SIDE = 32767  # of an image; a larger size in the file is a mistake, and its masks would fill the memory

Draw = Callable[[], np.ndarray]  # gives an object's pixels, bool (H, W)


class _Object(NamedTuple):
    label: int
    box: Sequence[float]  # x0 y0 x1 y1
    ignored: bool  # difficult, or a crowd: neither object nor background
    draw: Draw | None = None


class _Image(NamedTuple):
    image_id: str
    path: Path
    size: Any  # (width, height), or None where VOC's file doesn't say
    objects: list[_Object]


def _dataset(images: Sequence[_Image], split: str, classes: Sequence[str], **options: Any) -> Dataset:
    """A sample for each class of which an object counts on an image, in the order of the classes."""
    samples, empty = [], 0
    for image in images:
        labels = sorted({thing.label for thing in image.objects if not thing.ignored})
        samples += [_sample(image, label, classes[label]) for label in labels]
        empty += not labels
    numbers = {"image": len(images) - empty, "class": len(classes), "sample": len(samples)}
    counts = ", ".join(quantity(count, noun) for noun, count in numbers.items())
    logger.info("split %s: %s (classes on images); %d more without an object that counts", split, counts, empty)
    return Dataset(samples, split=split, classes=classes, multilabel=True, **options)


def _sample(image: _Image, label: int, name: str) -> Sample:
    objects = [thing for thing in image.objects if thing.label == label]
    draws = [[thing.draw for thing in objects if thing.draw and thing.ignored == ignored] for ignored in (False, True)]
    mask, ignore = (partial(_draw_all, each) if each else None for each in draws)
    boxes: Any = [thing.box for thing in objects if not thing.ignored]
    about: Any = {"sample_id": f"{image.image_id}#{name}", "image_id": image.image_id, "image_size": image.size}
    return Sample(image=image.path, label=label, boxes=boxes, mask=mask, ignore=ignore, **about)


def _draw_all(draws: Sequence[Draw]) -> np.ndarray:
    return np.logical_or.reduce([draw() for draw in draws])  # (H, W)


@reader("voc")
def VOC(
    root: str | Path, split: str = "test", year: str | int = 2007, classes: Sequence[str] | None = None,
    download: bool = False,
) -> Dataset:  # fmt: skip
    """PASCAL VOC's detection data (Everingham et al., IJCV 88, 2010), as the archives unpack.

    Objects marked difficult do not count, and a class of which an image has no others makes no sample there.

    Parameters
    ----------
    root : path
        The folder that holds `VOCdevkit/VOC<year>/`, or one of these; `download` fetches it first where it is missing,
        through torchvision.
    split : "train", "val", "trainval" or "test"
        `ImageSets/Main/<split>.txt`; the annotations of the test sets after 2007 were never handed out.
    year : 2007 to 2012
    classes : sequence of str, optional
        Keep these only, in this order; None: PASCAL VOC's twenty. Other data in this layout names its own.

    Notes
    -----
    The files count pixels from 1; the samples' boxes are the same corners counted from 0, still inclusive.
    """
    roles = VOC_2007 if str(year) == "2007" else VOC_LATER
    if split not in roles:
        raise UserError(f"dataset.split={split}: VOC {year} has {', '.join(roles)}")
    if download:
        open_torchvision("VOCDetection", "voc", root, year=str(year), image_set=split, download=True)
    home = find_home(root, f"TrainVal/VOCdevkit/VOC{year}", f"VOCdevkit/VOC{year}", f"VOC{year}")  # 2011 has TrainVal/
    hint = f"dataset.root={root} must hold VOCdevkit/VOC{year}/, or pass dataset.download=true"
    listing = read_lines(home / "ImageSets" / "Main" / f"{split}.txt", ["image"], separator=None, hint=hint)
    listing.check_paths("image", home / "JPEGImages")
    ids = listing["image"]
    sizes, rows = read_xml([home / "Annotations" / f"{image_id}.xml" for image_id in ids])
    others = sorted(set(rows["name"]) - set(VOC_CLASSES))
    if classes is None and others:
        why = "is not of PASCAL VOC's twenty classes; fix it, or name this data's own: 'dataset.classes=[…]'"
        rows.refuse(rows["name"].index(others[0]), why)
    chosen = choose_classes([*VOC_CLASSES, *others], classes, "PASCAL VOC and these annotations")
    corners, wrong_box = rows.boxes(XML_CORNERS, least=1, why="PASCAL VOC counts pixels from 1")
    paths = [home / "JPEGImages" / f"{name}.jpg" for name in ids]
    images = [_Image(name, path, size, []) for name, path, size in zip(ids, paths, sizes, strict=True)]
    for row, (image, name, box) in enumerate(zip(rows["image"], rows["name"], corners - 1, strict=True)):
        if name in chosen:
            with _blaming(rows.where(row), "difficult"):
                ignored = _flag(rows["difficult"][row] or 0)
            images[image].objects.append(_Object(chosen.index(name), box, ignored))
    return _dataset(images, f"{year} {split}", chosen, wrong_box=wrong_box, role=roles[split])


@reader("coco")
def COCO(
    root: str | Path, split: str = "val2017", annotations: str | Path | None = None,
    classes: Sequence[str] | None = None, masks: bool | None = None,
) -> Dataset:  # fmt: skip
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
        False: boxes only. None: with masks if the objects have segmentations, drawn by `pip install wsol[coco]`.
    """
    base = Path(root).expanduser()
    file = Path(annotations).expanduser() if annotations else base / "annotations" / f"instances_{split}.json"
    with _blaming(f"{file}, read as COCO's instances"):
        content = json.loads(file.read_bytes())
        entries = [content[key] for key in ("categories", "images", "annotations")]
    names = _coco_categories(entries[0], file)
    images = _coco_images(entries[1], file, base if annotations else base / split)
    chosen = choose_classes([names[key] for key in sorted(names)], classes, str(file))
    label_of = {key: chosen.index(name) if name in chosen else -1 for key, name in names.items()}
    wrong_box = _add_coco_objects(images, entries[2], file, label_of, masks is not False)
    objects = [(image.image_id, thing) for image in images.values() for thing in image.objects]
    lacking = [image_id for image_id, thing in objects if thing.draw is None and not thing.ignored]
    drawn = any(thing.draw is not None for _, thing in objects)
    if lacking and (masks or drawn):
        raise UserError(f"{file}: an object on {lacking[0]} has no segmentation; add it, or pass dataset.masks=false")
    if drawn and find_spec("pycocotools") is None:
        raise UserError("COCO's masks are drawn with pip install 'wsol[coco]'; or pass dataset.masks=false")
    # Nobody but the organizers has the test set's boxes, so results are given on val.
    role = "train-weaksup" if split.startswith("train") else "test" if split.startswith("val") else ""
    return _dataset(list(images.values()), split, chosen, wrong_box=wrong_box, role=role)


@contextmanager
def _blaming(where: str, entry: Any = "") -> Iterator[None]:
    """Whatever doesn't fit in the block, this entry of the file is to blame for."""
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError) as error:
        raise UserError(f"{where}: {type(error).__name__}, {error}; fix or remove {str(entry)[:200]}") from error


def _whole(value: Any) -> int:
    """A whole number, also one that some program has made floating or text."""
    if float(value) != int(float(value)):
        raise ValueError(f"{value!r} is no whole number")
    return int(float(value))


def _flag(value: Any) -> bool:
    """Yes or no, as 0 and 1, floating or text too, or in words."""
    return {"0": False, "false": False, "1": True, "true": True}[str(value).lower().removesuffix(".0")]


def _coco_categories(entries: Sequence[Any], file: Path) -> dict[Any, str]:
    """Names by id."""
    names: dict[Any, str] = {}
    for number, entry in enumerate(entries):
        with _blaming(f"{file}, categories[{number}]", entry):
            if entry["id"] in names or entry["name"] in names.values():
                raise ValueError(f"id {entry['id']!r} or name {entry['name']!r} comes twice")
            names[entry["id"]] = str(entry["name"])
    return names


def _coco_images(entries: Sequence[Any], file: Path, folder: Path) -> dict[Any, _Image]:
    images: dict[Any, _Image] = {}
    for number, entry in enumerate(entries):
        where = f"{file}, images[{number}]"
        with _blaming(where, entry):
            size = _whole(entry["width"]), _whole(entry["height"])
            if entry["id"] in images or not 0 < min(size) <= max(size) <= LONGEST_SIDE:
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
            if width < 0 or height < 0 or not math.isfinite(x + y + width + height):
                wrong_box = wrong_box or f"{where}: bbox {entry['bbox']} is not x y width height; fix it"
            region = entry.get("segmentation") if masks and label >= 0 else None
            if isinstance(region, list):
                region = [np.array(polygon, np.float64) for polygon in region]
            draw = partial(draw_region, region, image.size, image.image_id) if region else None
            if label >= 0:
                corners = inclusive_corners((x, y, width, height), image.size)
                image.objects.append(_Object(label, corners, _flag(entry.get("iscrowd") or 0), draw))
    return wrong_box


def inclusive_corners(box: Sequence[float], image_size: Size) -> tuple[float, float, float, float]:
    """Convert COCO's box to inclusive corners; one narrower than a pixel (COCO has a few) becomes one pixel wide.

    COCO gives edges: a box at x with width w spans x to x + w, where pixel 0 spans 0 to 1. In inclusive corners that
    is x to x + w - 1, which has the same width, w = x1 - x0 + 1, and the same place; fractions are kept.
    """
    x, y, width, height = box
    x0, y0 = min(x, image_size[0] - 1), min(y, image_size[1] - 1)
    x1, y1 = x + width - 1, y + height - 1
    return x0, y0, x1 if width < 0 else max(x1, x0), y1 if height < 0 else max(y1, y0)


def draw_region(region: Any, size: Size, image_id: str = "") -> np.ndarray:
    """Draw a segmentation, polygons or the lengths of runs, with COCO's own tools: bool (H, W)."""
    from pycocotools import mask

    width, height = size
    try:
        if isinstance(region, Mapping):
            if region["size"] != [height, width]:
                raise ValueError(f"size {region['size']} is not the image's {[height, width]}")
            if not isinstance(region["counts"], str) and sum(region["counts"]) != height * width:
                raise ValueError(f"the runs have {sum(region['counts'])} pixels, not the image's {height * width}")
            runs = region if isinstance(region["counts"], str) else mask.frPyObjects(region, height, width)
        else:
            far = 2 * max(size)  # an edge that leads there would be followed forever
            if any(len(points) < 6 or len(points) % 2 or not np.abs(points).max() <= far for points in region):
                raise ValueError("a polygon is not x y x y x y …, three points or more, near the image")
            runs = mask.merge(mask.frPyObjects(region, height, width))
        pixels = mask.decode(runs)
        if pixels.sum(dtype=np.int64) != mask.area(runs):
            raise ValueError("the runs end before the image does, so the rest is whatever was in memory")
        return pixels.astype(bool)
    except Exception as error:  # whatever pycocotools makes of a damaged file
        raise UserError(f"a segmentation on {image_id} can't be drawn: {error}; fix {str(region)[:80]}") from error
