"""COCO's instances: a JSON file with boxes and masks, and a folder of images; a sample for every class on an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wsol.datasets.box_faults import wrong_boxes_stop
from wsol.datasets.coco_masks import draw_region, read_region
from wsol.datasets.inside import inside
from wsol.datasets.sample import Sample
from wsol.datasets.several import SeveralClasses, Thing, samples_of_image
from wsol.datasets.subset import choose_classes
from wsol.errors import UserError

__all__ = ["COCO", "inclusive_corners"]

LARGEST = 1e300  # number in the file; whole numbers can have any length in JSON
LONGEST_SIDE = 32767  # of an image; a larger size in the file is a mistake, and its masks would fill the memory


class COCO(SeveralClasses):
    """`annotations/instances_<split>.json` and `<split>/`; or any file of that kind with a folder of images.

    Every class on an image makes one sample, `000000000139.jpg#vase`, and Top-k stays empty; GT-known localization is
    CorLoc. A crowd is no truth: its box is left out and its pixels are ignored where they are not an object's of the
    same class; a class of which an image has a crowd only makes no sample there.

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
        False: boxes only. None: with masks if the objects have segmentations.

    Raises
    ------
    UserError
        If a file is missing or can't be read, or an entry doesn't fit the others, naming it.

    References
    ----------
    Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014.
    """

    name = "coco"

    def __init__(
        self,
        root: str | Path,
        split: str = "val2017",
        annotations: str | Path | None = None,
        classes: Sequence[str] | None = None,
        masks: bool | None = None,
    ) -> None:
        base = Path(root).expanduser()
        file = Path(annotations).expanduser() if annotations else base / "annotations" / f"instances_{split}.json"
        folder = base if annotations else base / split
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; dataset.root must hold the images, in {split}/ unless "
                            f"dataset.annotations is given")  # fmt: skip
        content = _read(file)
        names = _categories(content, file)
        wanted = choose_classes(list(names.values()), classes, str(file))
        images = _images(content, file, folder)
        _add_things(images, content, file, names, wanted)
        drawn = _with_masks(images, masks, file)
        super().__init__(split, wanted, [image.samples(wanted, drawn) for image in images.values()])
        # Nobody but the organizers has the test set's boxes, so results are given on val.
        self.role = "train-weaksup" if split.startswith("train") else "test" if split.startswith("val") else ""


@dataclass(slots=True)
class _Image:
    image_id: str
    path: Path
    size: tuple[int, int]
    things: list[Thing]

    def samples(self, classes: Sequence[str], masks: bool) -> list[Sample]:
        return samples_of_image(self.image_id, self.path, self.size, self.things, classes, masks)


def inclusive_corners(box: Sequence[float], image_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Convert COCO's box to inclusive corners.

    COCO gives edges: a box at x with width w spans x to x + w, where pixel 0 spans 0 to 1. In inclusive corners that
    is x to x + w - 1, which has the same width, w = x1 - x0 + 1, and the same place; fractions are kept. A box
    narrower than a pixel (COCO has a few) becomes one pixel wide.

    Examples
    --------
    >>> inclusive_corners([10, 20.5, 30, 0.25], (640, 480))
    (10, 20.5, 39, 20.5)
    """
    x, y, width, height = box
    x0, y0 = min(x, image_size[0] - 1), min(y, image_size[1] - 1)
    x1, y1 = x + width - 1, y + height - 1
    return x0, y0, x1 if width < 0 else max(x1, x0), y1 if height < 0 else max(y1, y0)


def _read(file: Path) -> dict[str, list[Any]]:
    if not file.is_file():
        raise UserError(f"{file}: no such file; pass dataset.annotations=FILE, or the root that has annotations/")
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file} can't be read as JSON: {error}; replace the file") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(f"{file} has no list {key!r}; is it one of COCO's instances files?")
    return content


def _categories(content: dict[str, list[Any]], file: Path) -> dict[Any, str]:
    """Names by id, in the order of the ids."""
    names: dict[Any, str] = {}
    for number, entry in enumerate(content["categories"]):
        where = f"{file}, categories[{number}]"
        key, name = _field(entry, "id", (int, str), where), _field(entry, "name", str, where)
        if key in names or name in names.values() or not name:
            raise UserError(f"{where}: id {key!r}, name {name!r} comes twice or is empty; each needs its own")
        names[key] = name
    return {key: names[key] for key in sorted(names, key=lambda key: (isinstance(key, str), key))}


def _images(content: dict[str, list[Any]], file: Path, folder: Path) -> dict[Any, _Image]:
    images: dict[Any, _Image] = {}
    for number, entry in enumerate(content["images"]):
        where = f"{file}, images[{number}]"
        key, name = _field(entry, "id", (int, str), where), _field(entry, "file_name", str, where)
        size = _field(entry, "width", int, where), _field(entry, "height", int, where)
        if key in images:
            raise UserError(f"{where}: id {key!r} comes twice; remove one of the images")
        if not (0 < size[0] <= LONGEST_SIDE and 0 < size[1] <= LONGEST_SIDE):
            raise UserError(f"{where}: width {size[0]}, height {size[1]}; wanted 1 to {LONGEST_SIDE} pixels")
        images[key] = _Image(name, inside(folder, name, where), size, [])
    return images


def _add_things(
    images: dict[Any, _Image], content: dict[str, list[Any]], file: Path, names: dict[Any, str], wanted: Sequence[str]
) -> None:
    labels = {key: wanted.index(name) for key, name in names.items() if name in wanted}
    for number, entry in enumerate(content["annotations"]):
        where = f"{file}, annotations[{number}]"
        image_id, category = (_field(entry, key, (int, str), where) for key in ("image_id", "category_id"))
        for key, value, known in (("image_id", image_id, images), ("category_id", category, names)):
            if value not in known:
                raise UserError(f"{where}: {key} {value!r} is not among the file's; mend it or remove the entry")
        image = images[image_id]
        box = entry.get("bbox")
        numbers = isinstance(box, list) and len(box) == 4 and all(map(_finite, box))
        if not numbers or (wrong_boxes_stop() and min(box[2:]) < 0):
            raise UserError(f"{where}: bbox {box!r} is not x y width height; mend it")
        region, draw = entry.get("segmentation"), None
        if category not in labels:
            continue
        if region:
            draw = partial(draw_region, read_region(region, image.size, where), image.size)
        corners = inclusive_corners(box, image.size)
        image.things.append(Thing(labels[category], corners, bool(entry.get("iscrowd", 0)), draw))


def _with_masks(images: dict[Any, _Image], masks: bool | None, file: Path) -> bool:
    """Whether there are masks: all objects that count have a segmentation, or none may have one."""
    if masks is False:
        return False
    lacking, having = None, False
    for image in images.values():
        for thing in image.things:
            having |= thing.draw is not None
            if thing.draw is None and not thing.ignored:
                lacking = image.image_id
    if lacking is not None and (having or masks):
        raise UserError(
            f"{file}: an object on {lacking} has no segmentation, but masks are wanted of all or none; add it, or pass "
            f"dataset.masks=false for boxes only"
        )
    return having


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{where}: {key} is {value!r}; is this one of COCO's instances files?")
    return value


def _finite(number: Any) -> bool:
    return type(number) in (int, float) and abs(number) < LARGEST
