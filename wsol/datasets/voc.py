"""PASCAL VOC's detection data through torchvision: a sample for every class on every image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torchvision import datasets

from wsol.datasets.labeled import known_split, open_torchvision
from wsol.datasets.listing import Listing
from wsol.datasets.sample import Sample
from wsol.datasets.several import SeveralClasses, Thing, samples_of_image
from wsol.datasets.subset import choose_classes
from wsol.datasets.voc_xml import XmlObject, read_voc_xml
from wsol.errors import UserError

__all__ = ["VOC", "VOC_CLASSES"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
ROLES = {"train": "train-weaksup", "trainval": "train-weaksup", "val": "train-fullsup", "test": "test"}


class VOC(SeveralClasses):
    """`VOCdevkit/VOC<year>/` with `Annotations/`, `ImageSets/Main/` and `JPEGImages/`, as the archives unpack.

    Every class on an image makes one sample, `000005#chair`, and Top-k stays empty; GT-known localization is CorLoc.
    Objects marked difficult are no truth, and a class of which an image has no others makes no sample there.

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
        Fetch it first where it is missing.

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

    name = "voc"

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        year: str | int = 2007,
        classes: Sequence[str] | None = None,
        download: bool = False,
    ) -> None:
        year = str(year)
        if year not in map(str, range(2007, 2013)):
            raise UserError(f"dataset.year={year}: PASCAL VOC's detection data is of 2007 to 2012")
        known_split(f"VOC {year}", split, ("train", "val", "trainval", *(("test",) if year == "2007" else ())))
        above = _above(Path(root).expanduser(), year)
        open_torchvision(
            datasets.VOCDetection, f"{self.name}: VOCdevkit/VOC{year}", above, year=year, image_set=split,
            download=download,
        )  # fmt: skip
        # After 2007 nobody but the organizers has the test set's boxes, so results are given on val.
        self.role = "test" if split == "val" and year != "2007" else ROLES[split]
        home = above / ("TrainVal" if year == "2011" else "") / "VOCdevkit" / f"VOC{year}"  # as that archive unpacks
        listing = Listing(home / "ImageSets" / "Main" / f"{split}.txt", ["image"], separator=None)
        listing.safe("image", home / "JPEGImages")
        files = [home / "Annotations" / f"{image_id}.xml" for image_id in listing["image"]]
        annotations = [read_voc_xml(file) for file in files]
        names = _names(files, [objects for _, objects in annotations], classes)
        super().__init__(
            f"{year} {split}",
            names,
            [
                _samples(image_id, home / "JPEGImages" / f"{image_id}.jpg", size, objects, names)
                for image_id, (size, objects) in zip(listing["image"], annotations, strict=True)
            ],
        )


def _above(root: Path, year: str) -> Path:
    """Folder that holds `VOCdevkit/`, which is where torchvision begins."""
    if root.name == "VOCdevkit":
        return root.parent
    return root.parent.parent if (root.parent.name, root.name) == ("VOCdevkit", f"VOC{year}") else root


def _names(
    files: Sequence[Path], annotations: Sequence[Sequence[XmlObject]], wanted: Sequence[str] | None
) -> tuple[str, ...]:
    """Classes in order: those asked for, or the twenty; a class that is neither is an error, never left out."""
    found = {thing.name: file for file, things in zip(files, annotations, strict=True) for thing in things}
    if wanted is not None:
        others = sorted(set(found) - set(VOC_CLASSES))
        return choose_classes([*VOC_CLASSES, *others], wanted, "PASCAL VOC and these annotations")
    for name, file in found.items():
        if name not in VOC_CLASSES:
            raise UserError(
                f"{file}: class {name!r} is not one of PASCAL VOC's twenty; mend it, or name the classes of this "
                f"data: 'dataset.classes=[…]'"
            )
    return VOC_CLASSES


def _samples(
    image_id: str, image: Path, size: tuple[int, int] | None, objects: Sequence[XmlObject], names: Sequence[str]
) -> list[Sample]:
    things = []
    for thing in objects:
        if thing.name in names:
            x0, y0, x1, y1 = thing.box
            things.append(Thing(names.index(thing.name), (x0 - 1, y0 - 1, x1 - 1, y1 - 1), thing.difficult))
    return samples_of_image(image_id, image, size, things, names)
