"""What every dataset is made of: samples that know where their pixels are, the sequence that holds them, its readers.

A layout on disk is read by a function that returns a `Dataset`; `@reader` registers it and knows what its splits are
for. Boxes that can't be boxes are noted, with file and line, and refused when the dataset is handed over, unless
`strict=False`, as `wsol check` passes it, which lists them all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
import pandas as pd

from wsol.datasets.images import load_ahead, mask_fits, read_image, read_mask, read_orientation, read_size
from wsol.errors import UserError, quantity, suggest

COLUMNS: dict[str, type] = {
    "sample_id": str, "image_id": str, "label": np.int64, "image": object, "width": np.int64, "height": np.int64,
    "boxes": object, "mask": object, "ignore": object,
}  # fmt: skip
DESCRIPTION = ("name", "split", "classes", "class_ids", "knobs", "role", "multilabel")

Pixels = np.ndarray | Path | Callable[[], np.ndarray]
Samples: TypeAlias = Union[Sequence["Sample"], "Table", "Dataset"]
Size = tuple[int, int]  # width, height
Measure = Callable[["Sample"], tuple[np.ndarray | None, Size | None]]  # boxes and size that only the files tell
Read = Callable[..., "Dataset"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One image and one class asked for.

    Parameters
    ----------
    sample_id, image_id : str
        The same, or `image_id#class` where an image has several classes.
    label : int
        Index into the dataset's `classes`.
    image : array of uint8 (H, W, 3), path, or function without arguments that returns such an array
        The picture, or where to get it; nothing is decoded before `read_image`.
    boxes : array (G, 4) of float64, optional
        Ground truth `x0 y0 x1 y1` in pixels of the original image, corners inclusive; None: no annotation.
    mask, ignore : array of bool (H, W), path, or function, optional
        The object's pixels, and pixels that do not count.
    image_size : (width, height), optional
        Where it is known without decoding the image.

    Examples
    --------
    >>> picture = np.zeros((2, 3, 3), np.uint8)
    >>> Sample(sample_id="a", label=0, image=picture, boxes=[[0, 0, 2, 1]]).size()
    (3, 2)
    """

    sample_id: str
    label: int
    image: Pixels
    boxes: np.ndarray | None = None
    mask: Pixels | None = None
    ignore: Pixels | None = None
    image_size: Size | None = None
    image_id: str = ""

    def __post_init__(self) -> None:
        if self.boxes is not None:
            object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float64).reshape(-1, 4))
        try:
            self.sample_id.isascii() or self.sample_id.encode()
        except UnicodeEncodeError:
            raise UserError(f"sample id {self.sample_id!r} is no text that a table could hold: rename it") from None
        if not self.image_id:
            object.__setattr__(self, "image_id", self.sample_id)
        if self.image_size is None and isinstance(self.image, np.ndarray):
            object.__setattr__(self, "image_size", (self.image.shape[1], self.image.shape[0]))

    def check_size(self, size: Size) -> None:
        """Refuse an image of another size, in pixels, than the annotation counts in."""
        if self.image_size is not None and tuple(self.image_size) != size:
            raise UserError(f"sample {self.sample_id}: {describe_sizes(self.image_size, size, self.image)}")

    def read_image(self) -> np.ndarray:
        """Decode the picture: uint8 (H, W, 3). Raises `UserError` naming the file if it can't be decoded."""
        return read_image(self.image, self.sample_id)

    def read_mask(self) -> np.ndarray | None:
        """Decode the object's mask: bool (H, W), or None without one."""
        return None if self.mask is None else read_mask(self.mask, self.sample_id)

    def read_ignore(self) -> np.ndarray | None:
        """Decode the mask of pixels that do not count: bool (H, W), or None without one."""
        return None if self.ignore is None else read_mask(self.ignore, self.sample_id)

    def size(self) -> Size:
        """Width and height in pixels; decodes the image only where the annotation doesn't say."""
        if self.image_size is not None:
            return self.image_size
        height, width = self.read_image().shape[:2]
        return width, height


class Table:
    """Samples by columns, a sequence for each field of `Sample`; images named by text lie in the folder."""

    def __init__(self, folder: Path, **columns: Sequence[Any] | np.ndarray) -> None:
        self.folder, self.columns = folder, columns
        self.labels = np.asarray(columns["label"], np.int64)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int, /) -> Sample:
        row = {name: values[index] for name, values in self.columns.items()}
        image = self.folder / row["image"] if isinstance(row["image"], str) else row["image"]
        return Sample(**row | {"label": int(row["label"]), "image": image})


class Dataset:
    """A sequence of samples with names for its classes.

    Two ways to data of one's own: a subclass that sets the attributes below and defines `__len__` and `__getitem__`
    (building a sample must be cheap: paths, not pixels), or `Dataset(samples, name=…, split=…, classes=…)`; then
    `count` keeps the first so many, and `measure(sample)`, asked once for each, tells (boxes, image_size) where only
    files do.

    Attributes
    ----------
    name, split : str
    classes, class_ids : tuple of str
        What people and what the files call them (WordNet ids, say; empty where they don't differ).
    role : str
        What the split is for (Choe et al., CVPR 2020): "train-weaksup", "train-fullsup", "test", or "".
    multilabel : bool
        Images show several classes, a sample each: none is "the" class, so Top-k stays empty.
    knobs : mapping
        What generated pictures depend on.
    wrong_box : str
        File and line of the first box that can't be one, and why.

    Examples
    --------
    >>> class Two(Dataset):
    ...     name, split, classes = "two", "test", ("cat", "dog")
    ...     def __len__(self): return 2
    ...     def __getitem__(self, index):
    ...         return Sample(sample_id=str(index), label=index, image=np.zeros((8, 8, 3), np.uint8))
    >>> Two().labels
    array([0, 1])
    >>> Dataset([Two()[1]], name="one", split="test", classes=("cat", "dog")).table["label"].tolist()
    [1]
    """

    name: str
    split: str
    classes: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    knobs: Mapping[str, object] = {}
    role: str = ""
    multilabel: bool = False
    wrong_box: str = ""

    # Two underscores: subclasses have attributes of their own.
    __samples: Samples = ()
    __table: pd.DataFrame | None = None

    def __init__(
        self, samples: Samples = (), *, count: int | None = None, measure: Measure | None = None, **description: Any
    ) -> None:
        self.__samples, self.__measure = samples, measure
        self.__count = len(samples) if count is None else min(count, len(samples))
        self.__measured: dict[int, tuple[np.ndarray | None, Size | None]] = {}
        for name, value in description.items():
            setattr(self, name, tuple(value) if name in ("classes", "class_ids") else value)

    def __len__(self) -> int:
        return self.__count

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        sample = self.__samples[index]
        if self.__measure is None:
            return sample
        if index not in self.__measured:
            self.__measured[index] = self.__measure(sample)
        boxes, size = self.__measured[index]
        return replace(sample, boxes=boxes, image_size=size)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        labels = getattr(self.__samples, "labels", None)
        return np.array([sample.label for sample in self], np.int64) if labels is None else labels[: len(self)]

    @property
    def ids(self) -> tuple[str, ...]:
        """What keys the classes on disk (WordNet ids, say); the names where nothing else does."""
        return tuple(self.class_ids) or tuple(self.classes)

    @property
    def table(self) -> pd.DataFrame:
        """All samples as a table, made once by one walk that keeps no pixels; not to be changed.

        Returns
        -------
        DataFrame
            One row per sample, in order: `sample_id`, `image_id` (str), `label` (int64), `image` (Path; None where it
            is no file, to be fetched again by index), `width`, `height` (int64; 0 where the annotation doesn't say),
            `boxes` (float64 (G, 4), or None), `mask`, `ignore` (Path; True where the pixels come otherwise; or None).

        Examples
        --------
        >>> from wsol.datasets import Shapes
        >>> Shapes(length=2).table[["sample_id", "width", "mask"]].values.tolist()
        [['test/00000', 96, True], ['test/00001', 96, True]]
        """
        if self.__table is None:
            rows = [_row(sample) for sample in self]
            table = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
            self.__table = table.astype({name: kind for name, kind in COLUMNS.items() if kind is not object})
        return self.__table

    def first(self, count: int) -> Dataset:
        """Return the first so many samples, at least 1, as a dataset; all of them where there are fewer."""
        if count < 1:
            raise UserError(f"limit={count}: pass at least 1, or null for all samples")
        return Dataset(self, count=count, **_describe(self))


def _describe(dataset: Dataset) -> dict[str, Any]:
    return {name: getattr(dataset, name) for name in DESCRIPTION}


def _row(sample: Sample) -> tuple:
    image = Path(sample.image) if isinstance(sample.image, str | Path) else None
    size, places = sample.image_size or (0, 0), (_place(sample.mask), _place(sample.ignore))
    return sample.sample_id, sample.image_id, sample.label, image, *size, sample.boxes, *places


def _place(pixels: Pixels | str | None) -> Path | bool | None:
    """Where pixels are: a file, True where they come otherwise, None where there are none."""
    return None if pixels is None else Path(pixels) if isinstance(pixels, str | Path) else True


READERS: dict[str, Read] = {}  # by name, every layout that is read from disk


def reader(name: str, roles: Mapping[str, str] | None = None) -> Callable[[Read], Read]:
    """Register a function that reads a layout, with the role of each split; other splits are refused, and no samples.

    The function gets a keyword `strict`; with False, wrong boxes are kept. What it doesn't say itself of name, split
    and role is added.
    """

    def register(read: Read) -> Read:
        """Add the reader to READERS, checked before and after it reads."""
        signature = inspect.signature(read)
        keyword = inspect.Parameter("strict", inspect.Parameter.KEYWORD_ONLY, default=True)

        @wraps(read)
        def checked(*args: Any, strict: bool = True, **options: Any) -> Dataset:
            """Refuse an unknown split, then a result without samples or with boxes that can't be boxes."""
            bound = signature.bind(*args, **options)
            bound.apply_defaults()
            root, split = bound.arguments["root"], bound.arguments["split"]
            if roles is not None and split not in roles:
                raise UserError(f"dataset.split={split}: {name} has {', '.join(roles)}")
            dataset = read(*args, **options)
            vars(dataset).update({"name": name, "split": split, "role": (roles or {}).get(split, "")} | vars(dataset))
            if not len(dataset):
                count = quantity(len(dataset.classes), "class")
                raise UserError(f"dataset.root={root}, split {dataset.split}: no sample of {count}; is the copy whole?")
            if strict and dataset.wrong_box:
                raise UserError(dataset.wrong_box)
            return dataset

        parameters = [*signature.parameters.values(), keyword]
        checked.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        READERS[read.__name__] = checked
        return checked

    return register


def find_home(root: str | Path, *places: str) -> Path:
    """The first of these places below a root that is a folder, else the root, which may be that folder itself."""
    top = Path(root).expanduser()
    return next((top / place for place in places if (top / place).is_dir()), top)


def choose_classes(classes: Sequence[str], chosen: Sequence[str] | str | None, where: str) -> tuple[str, ...]:
    """Classes asked for, in the order asked for; all of them when nothing is asked."""
    if chosen is None:
        return tuple(classes)
    names = (chosen,) if isinstance(chosen, str) else tuple(chosen)
    for name in names:
        if name not in classes:
            raise UserError(f"dataset.classes: {name!r} is no class of {where}{suggest(name, classes)}")
    if len(set(names)) != len(names) or not names:
        raise UserError(f"dataset.classes={list(names)}: name at least one class, and each only once")
    return names


def boxes_from_masks(dataset: Dataset) -> Dataset:
    """Give a dataset boxes around its masks' connected regions, in pixels of the image, or else the mask."""
    return Dataset(dataset, measure=_measure_mask, **_describe(dataset))


def _measure_mask(sample: Sample) -> tuple[np.ndarray, Size | None]:
    mask = sample.read_mask()
    if mask is None or not mask.any():
        raise UserError(f"sample {sample.sample_id} has no mask, or an empty one: dataset.boxes=from_masks needs it")
    boxes, mask_size = boxes_of_mask(mask), (mask.shape[1], mask.shape[0])
    size = sample.image_size or size_or_none(sample.image)
    return _scale(boxes, mask_size, size) if size is not None and mask_fits(mask_size, size) else boxes, size


def _scale(boxes: np.ndarray, size: Size, image_size: Size) -> np.ndarray:
    """Boxes (G, 4) that count pixels of one size in those of another."""
    if size == image_size:
        return boxes
    pixel = np.array([0, 0, 1, 1])
    return (boxes + pixel) * np.tile(np.divide(image_size, size), 2) - pixel


def scale_to_files(dataset: Dataset) -> Dataset:
    """Scale boxes annotated at another resolution than the files have; another aspect (a turned one) is refused."""
    return Dataset(dataset, measure=_measure_file, **_describe(dataset))


def _measure_file(sample: Sample) -> tuple[np.ndarray | None, Size | None]:
    annotated, size = sample.image_size, size_or_none(sample.image)
    if annotated is None or size is None:
        return sample.boxes, annotated
    if abs(annotated[0] * size[1] - annotated[1] * size[0]) > max(*annotated, *size):
        sample.check_size(size)
    return None if sample.boxes is None else _scale(sample.boxes, annotated, size), size


def check_sizes(dataset: Dataset, workers: int = 2) -> None:
    """Refuse images on the disk whose size is not the one that their annotation counts in; only headers are read."""
    table = dataset.table.drop_duplicates("image_id")
    table = table[(table["width"] > 0) & table["image"].notna()]
    files = list(table[["sample_id", "image", "width", "height"]].itertuples(index=False, name=None))
    sizes = chain.from_iterable(load_ahead([file[1] for file in files], size_or_none, 256, workers))
    wrong = [(*file, size) for file, size in zip(files, sizes, strict=True) if size not in (None, file[2:])]
    if wrong:
        sample_id, image, width, height, size = wrong[0]
        text = describe_sizes((width, height), size, image)
        raise UserError(f"sample {sample_id} ({len(wrong)} of {len(files)} images are such): {text}")


def describe_sizes(annotated: Size, size: Size, image: Pixels) -> str:
    """Say that an image hasn't the annotated size, why that may be, and what to do."""
    orientation = read_orientation(image) if isinstance(image, Path) else 1
    text = f"the annotation counts in {annotated[0]} x {annotated[1]} pixels, the image has {size[0]} x {size[1]}"
    if orientation > 1:
        return f"{text} as stored and EXIF orientation {orientation}: store it turned, or annotate the stored pixels"
    if annotated == size[::-1]:
        return f"{text}: width and height are swapped; fix the annotation's size, or leave it out"
    return f"{text}: replace one of them; where one is the other at another resolution, pass dataset.sizes=scale"


def boxes_of_mask(mask: np.ndarray) -> np.ndarray:
    """Box around each 8-connected region of a mask (H, W), largest region first: float64 (G, 4), inclusive corners."""
    from scipy import ndimage

    regions, count = ndimage.label(mask, np.ones((3, 3)))
    areas = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    boxes = np.array([(x.start, y.start, x.stop - 1, y.stop - 1) for y, x in ndimage.find_objects(regions)], np.float64)
    return boxes.reshape(-1, 4)[np.argsort(-areas, kind="stable")]


def size_or_none(image: Pixels) -> Size | None:
    """Width and height from a file's header; None without one: whoever reads the image says so, or skips it."""
    try:
        return read_size(image, image.name) if isinstance(image, Path) else None
    except UserError:
        return None
