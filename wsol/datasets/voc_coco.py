"""Images that show several classes, PASCAL VOC's and COCO's: a sample for every class on every image."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.annotations import CORNERS, Rows, are_boxes, read_json, read_lines, read_xml, safe_join
from wsol.datasets.labeled import open_torchvision
from wsol.datasets.sample import Dataset, Size, check_split, choose_classes, reader, samples_per_class
from wsol.errors import UserError

__all__ = ["COCO", "VOC"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOC_ROLES = {"train": "train-weaksup", "trainval": "train-weaksup", "val": "train-fullsup", "test": "test"}
LARGEST = 1e300  # number in a JSON file, where whole numbers can have any length
LONGEST_SIDE = 32767  # of an image; a larger size in the file is a mistake, and its masks would fill the memory


@reader
def VOC(
    root: str | Path,
    split: str = "test",
    year: str | int = 2007,
    classes: Sequence[str] | None = None,
    download: bool = False,
) -> Dataset:
    """`VOCdevkit/VOC<year>/` with `Annotations/`, `ImageSets/Main/` and `JPEGImages/`, as the archives unpack.

    Every class on an image makes one sample, `000005#chair`, and Top-k stays empty; GT-known localization is CorLoc.
    Objects marked difficult do not count, and a class of which an image has no others makes no sample there.

    Parameters
    ----------
    root : path
        The folder that holds `VOCdevkit/`; `VOCdevkit/` or `VOC<year>/` themselves will do.
    split : "train", "val", "trainval" or "test"
        `ImageSets/Main/<split>.txt`; the annotations of the test sets after 2007 were never handed out.
    year : str or int
        2007 to 2012.
    classes : sequence of str, optional
        Keep these only, in this order; None: PASCAL VOC's twenty. Other data in this layout names its own.
    download : bool
        Fetch it first where it is missing, through torchvision.

    Raises
    ------
    UserError
        If a file is missing or can't be read, or an annotation has a class that is not known.

    Notes
    -----
    The files count pixels from 1; the samples' boxes are the same corners counted from 0, still inclusive.

    References
    ----------
    Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 88, 2010.
    """
    year = str(year)
    if year not in map(str, range(2007, 2013)):
        raise UserError(f"dataset.year={year}: PASCAL VOC's detection data is of 2007 to 2012")
    check_split(f"VOC {year}", split, ("train", "val", "trainval", *(("test",) if year == "2007" else ())))
    above = _above(Path(root).expanduser(), year)
    if download:
        open_torchvision("VOCDetection", "voc", above, year=year, image_set=split, download=True)
    home = above / ("TrainVal" if year == "2011" else "") / "VOCdevkit" / f"VOC{year}"  # as that archive unpacks
    hint = f"voc: dataset.root={root} must hold VOCdevkit/VOC{year}/, or pass dataset.download=true"
    listing = read_lines(home / "ImageSets" / "Main" / f"{split}.txt", ["image"], separator=None, hint=hint)
    listing.check_paths("image", home / "JPEGImages")
    sizes, image_of, objects = read_xml([home / "Annotations" / f"{image_id}.xml" for image_id in listing["image"]])
    chosen = _voc_classes(objects, classes)
    folder = home / "JPEGImages"
    images = [
        {"image_id": image_id, "image": folder / f"{image_id}.jpg", "image_size": size}
        for image_id, size in zip(listing["image"], sizes, strict=True)
    ]
    corners = objects.floats(CORNERS)
    things = {
        "image": image_of,
        "label": [chosen.index(name) if name in chosen else -1 for name in objects["name"]],
        "box": list(corners - 1),
        "ignored": [text == "1" for text in objects["difficult"]],
        "draw": None,
    }
    right = are_boxes(corners, least=-np.inf)
    # After 2007 nobody but the organizers has the test set's boxes, so results are given on val.
    return samples_per_class(
        "voc",
        f"{year} {split}",
        chosen,
        images,
        pd.DataFrame(things),
        wrong_box=objects.first_wrong(right, "has a box that is inverted or not finite; fix it"),
        role="test" if split == "val" and year != "2007" else VOC_ROLES[split],
    )


def _above(root: Path, year: str) -> Path:
    """Folder that holds `VOCdevkit/`."""
    if root.name == "VOCdevkit":
        return root.parent
    return root.parent.parent if (root.parent.name, root.name) == ("VOCdevkit", f"VOC{year}") else root


def _voc_classes(objects: Rows, classes: Sequence[str] | None) -> tuple[str, ...]:
    """Classes in order: those asked for, or the twenty; a class that is neither is an error, never left out."""
    if classes is not None:
        others = sorted(set(objects["name"]) - set(VOC_CLASSES))
        return choose_classes([*VOC_CLASSES, *others], classes, "PASCAL VOC and these annotations")
    for row, name in enumerate(objects["name"]):
        if name not in VOC_CLASSES:
            objects.refuse(
                row,
                f"is of class {name!r}, not one of PASCAL VOC's twenty; fix it, or name the classes of this data: "
                f"'dataset.classes=[…]'",
            )
    return VOC_CLASSES


@reader
def COCO(
    root: str | Path,
    split: str = "val2017",
    annotations: str | Path | None = None,
    classes: Sequence[str] | None = None,
    masks: bool | None = None,
) -> Dataset:
    """`annotations/instances_<split>.json` and `<split>/`; or any file of that kind with a folder of images.

    Every class on an image makes one sample, `000000000139.jpg#vase`, and Top-k stays empty; GT-known localization is
    CorLoc. A crowd does not count: its box is left out and its pixels are ignored where they are not an object's of
    the same class; a class of which an image has a crowd only makes no sample there.

    Parameters
    ----------
    root : path
        The folder that holds `annotations/` and `<split>/`; with `annotations`, the folder of the images.
    split : str
        As `val2017`; with `annotations`, what the tables call it.
    annotations : path, optional
        A JSON file of COCO's instances.
    classes : sequence of str, optional
        Names of categories: keep these only, in this order; None: all, in the order of their ids.
    masks : bool, optional
        False: boxes only. None: with masks if the objects have segmentations; polygons need `pip install wsol[coco]`.

    Raises
    ------
    UserError
        If a file is missing or can't be read, or an entry doesn't fit the others, naming it.

    References
    ----------
    Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
    """
    base = Path(root).expanduser()
    file = Path(annotations).expanduser() if annotations else base / "annotations" / f"instances_{split}.json"
    folder = base if annotations else base / split
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; dataset.root must hold the images, in {split}/ unless dataset.annotations is "
            f"given"
        )
    content = read_json(file, "pass dataset.annotations=FILE, or the root that has annotations/")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list {key!r}; is it one of COCO's instances files?")
    names = _coco_categories(content["categories"], file)
    chosen = choose_classes(list(names.values()), classes, str(file))
    images = _coco_images(content["images"], file, folder)
    objects, wrong_box = _coco_objects(content["annotations"], file, images, names, chosen, masks)
    # Nobody but the organizers has the test set's boxes, so results are given on val.
    role = "train-weaksup" if split.startswith("train") else "test" if split.startswith("val") else ""
    return samples_per_class("coco", split, chosen, list(images.values()), objects, wrong_box, role)


def _coco_categories(entries: Sequence[Any], file: Path) -> dict[Any, str]:
    """Names by id, in the order of the ids."""
    names: dict[Any, str] = {}
    for number, entry in enumerate(entries):
        where = f"{file}, categories[{number}]"
        key, name = _field(entry, "id", (int, str), where), _field(entry, "name", str, where)
        if key in names or name in names.values() or not name:
            raise UserError(f"{where}: id {key!r}, name {name!r} comes twice or is empty; each needs its own")
        names[key] = name
    return {key: names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))}


def _coco_images(entries: Sequence[Any], file: Path, folder: Path) -> dict[Any, dict[str, Any]]:
    """What a sample's image needs, by id."""
    images: dict[Any, dict[str, Any]] = {}
    for number, entry in enumerate(entries):
        where = f"{file}, images[{number}]"
        key, name = _field(entry, "id", (int, str), where), _field(entry, "file_name", str, where)
        size = _field(entry, "width", int, where), _field(entry, "height", int, where)
        if key in images:
            raise UserError(f"{where}: id {key!r} comes twice; remove one of the images")
        if not (0 < size[0] <= LONGEST_SIDE and 0 < size[1] <= LONGEST_SIDE):
            raise UserError(f"{where}: width {size[0]}, height {size[1]}; wanted 1 to {LONGEST_SIDE} pixels")
        images[key] = {"image_id": name, "image": safe_join(folder, name, where), "image_size": size}
    return images


def _coco_objects(
    entries: Sequence[Any],
    file: Path,
    images: Mapping[Any, Mapping[str, Any]],
    names: Mapping[Any, str],
    chosen: Sequence[str],
    masks: bool | None,
) -> tuple[pd.DataFrame, str]:
    """Objects as `samples_per_class` wants them, and what is wrong with a box."""
    number_of = {key: number for number, key in enumerate(images)}
    label_of = {key: chosen.index(name) if name in chosen else -1 for key, name in names.items()}
    rows, wrong_box = [], ""
    for number, entry in enumerate(entries):
        where = f"{file}, annotations[{number}]"
        image_id, category = (_field(entry, key, (int, str), where) for key in ("image_id", "category_id"))
        for key, value, known in (("image_id", image_id, images), ("category_id", category, names)):
            if value not in known:
                raise UserError(f"{where}: {key} {value!r} is not among the file's; fix it or remove the entry")
        box, label, size = entry.get("bbox"), label_of[category], images[image_id]["image_size"]
        if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))):
            raise UserError(f"{where}: bbox {box!r} is not x y width height; fix it")
        if min(box[2:]) < 0:
            wrong_box = wrong_box or f"{where}: bbox {box!r} is inverted; x y width height are wanted, fix it"
        region, draw = entry.get("segmentation"), None
        if region and label >= 0 and masks is not False:
            draw = read_region(region, size, where)
        rows.append((number_of[image_id], label, inclusive_corners(box, size), bool(entry.get("iscrowd", 0)), draw))
    objects = pd.DataFrame(rows, columns=["image", "label", "box", "ignored", "draw"])
    counted = objects["draw"].isna() & (objects["label"] >= 0) & ~objects["ignored"].astype(bool)
    if counted.any() and (masks or objects["draw"].notna().any()):
        image_id = list(images.values())[objects["image"][counted.idxmax()]]["image_id"]
        raise UserError(
            f"{file}: an object on {image_id} has no segmentation, but masks are wanted of all or none; add it, or "
            f"pass dataset.masks=false for boxes only"
        )
    return objects, wrong_box


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where}: {key} is {value!r}; is this one of COCO's instances files?")
    return value


def _is_finite(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) < LARGEST


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


def read_region(region: Any, size: Size, where: str) -> partial[np.ndarray]:
    """Read a segmentation, polygons or runs, without drawing it; what is returned gives its pixels, bool (H, W)."""
    if isinstance(region, Mapping):
        return partial(_draw_runs, _read_runs(region, size, where), size)
    if not isinstance(region, list) or not region:
        raise UserError(f"{where}: the segmentation is neither a list of polygons nor runs; fix it")
    if importlib.util.find_spec("pycocotools") is None:
        raise UserError(f"{where}: drawing polygons needs pip install 'wsol[coco]'; or pass dataset.masks=false")
    return partial(_draw_polygons, [_read_polygon(polygon, size, where) for polygon in region], size)


def _read_polygon(polygon: Any, size: Size, where: str) -> np.ndarray:
    """Corners x y x y …, float64, at least three; none so far outside that walking along the edge takes forever."""
    try:
        points = np.asarray(polygon)
    except ValueError:  # lists of several lengths
        points = np.zeros(0)
    listed = points.ndim == 1 and points.size >= 6 and points.size % 2 == 0 and points.dtype.kind in "if"
    if listed:
        sides = np.tile(size, points.size // 2)
        listed = bool(((points >= -sides) & (points <= 2 * sides)).all())
    if not listed:
        text = str(polygon) if len(str(polygon)) < 60 else f"{str(polygon)[:60]} …"
        raise UserError(f"{where}: polygon {text} is not x y x y x y …, three points or more near the image; fix it")
    return points.astype(np.float64)


def _draw_polygons(polygons: Sequence[np.ndarray], size: Size) -> np.ndarray:
    from pycocotools import mask as coco_mask

    runs = coco_mask.frPyObjects([polygon.tolist() for polygon in polygons], size[1], size[0])
    return coco_mask.decode(coco_mask.merge(runs)).astype(bool)


def _read_runs(region: Mapping[str, Any], size: Size, where: str) -> np.ndarray:
    """Lengths of runs down the columns, background first: int64, together exactly the image."""
    counts = region.get("counts")
    try:
        runs = unpack_runs(counts) if isinstance(counts, str) else np.array(counts, np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: the runs can't be read: {error}; fix them") from error
    pixels = size[0] * size[1]
    # One by one first: the sum of large ones could wrap around.
    right = runs.ndim == 1 and len(runs) > 0 and ((runs >= 0) & (runs <= pixels)).all() and runs.sum() == pixels
    if not right or region.get("size") != [size[1], size[0]]:
        raise UserError(
            f"{where}: runs for [height, width] = {region.get('size')} do not fill an image of {[size[1], size[0]]}; "
            f"fix them"
        )
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
