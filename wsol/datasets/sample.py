"""What every dataset is made of: samples that know where their pixels are, and the sequence that holds them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from wsol.datasets.images import read_image, read_mask
from wsol.errors import UserError

__all__ = ["Dataset", "Pixels", "Sample", "check_text"]

COLUMNS: dict[str, type] = {
    "sample_id": str, "image_id": str, "label": np.int64, "image": object, "width": np.int64, "height": np.int64,
    "boxes": object, "mask": object, "ignore": object,
}  # fmt: skip

Pixels = np.ndarray | Path | Callable[[], np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Sample:
    """One image and one class asked for.

    Parameters
    ----------
    sample_id : str
        `image_id`, or `image_id#class` where an image has several classes.
    label : int
        Index into the dataset's `classes`.
    image : array of uint8 (H, W, 3), path, or function without arguments that returns such an array
        The picture, or where to get it; nothing is decoded before `read_image`.
    boxes : array (G, 4) of float64, optional
        True boxes `x0 y0 x1 y1` in pixels of the original image, corners inclusive; None: no annotation.
    mask, ignore : array of bool (H, W), path, or function, optional
        The object's pixels, and pixels that do not count.
    image_size : (width, height), optional
        Where it is known without decoding the image.
    image_id : str, optional
        By default the sample id; the samples of one image have the same.

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
    image_size: tuple[int, int] | None = None
    image_id: str = ""

    def __post_init__(self) -> None:
        if self.boxes is not None:
            object.__setattr__(self, "boxes", np.asarray(self.boxes, np.float64).reshape(-1, 4))
        check_text(self.sample_id, "sample id")
        if not self.image_id:
            object.__setattr__(self, "image_id", self.sample_id)
        if self.image_size is None and isinstance(self.image, np.ndarray):
            object.__setattr__(self, "image_size", (self.image.shape[1], self.image.shape[0]))

    def read_image(self) -> np.ndarray:
        """Decode the picture: uint8 (H, W, 3). Raises `UserError` naming the file if it can't be decoded."""
        return read_image(self.image, self.sample_id)

    def read_mask(self) -> np.ndarray | None:
        """Decode the object's mask: bool (H, W), or None without one."""
        return None if self.mask is None else read_mask(self.mask, self.sample_id)

    def read_ignore(self) -> np.ndarray | None:
        """Decode the mask of pixels that do not count: bool (H, W), or None without one."""
        return None if self.ignore is None else read_mask(self.ignore, self.sample_id)

    def size(self) -> tuple[int, int]:
        """Width and height in pixels; decodes the image only where the annotation doesn't say."""
        if self.image_size is not None:
            return self.image_size
        height, width = self.read_image().shape[:2]
        return width, height


def check_text(name: str, what: str) -> None:
    """Refuse a name that no table could hold: of a file, say, whose bytes are no UTF-8.

    Raises
    ------
    UserError
        With the name, and what it is.
    """
    try:
        name.isascii() or name.encode()
    except UnicodeEncodeError:
        raise UserError(f"{what} {name!r} is no text in UTF-8, so no table can hold it: rename it") from None


class Dataset(ABC):
    """A sequence of samples with names for its classes. Subclass it for your own data.

    A subclass sets `name`, `split`, `classes` (and `class_ids`, where the files name classes otherwise than
    people do; and `role`, what the split is for in the sense of Choe et al., CVPR 2020: "train-weaksup",
    "train-fullsup" or "test") and defines `__len__` and `__getitem__`. Building a sample must be cheap: paths, not
    pixels.

    Examples
    --------
    >>> class Two(Dataset):
    ...     name, split, classes = "two", "test", ("cat", "dog")
    ...     def __len__(self): return 2
    ...     def __getitem__(self, index):
    ...         return Sample(sample_id=str(index), label=index, image=np.zeros((8, 8, 3), np.uint8))
    >>> Two().labels
    array([0, 1])
    """

    name: str
    split: str
    classes: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    knobs: Mapping[str, object] = {}
    role: str = ""  # what the split is for: "train-weaksup", "train-fullsup", "test"; "" where nobody said
    multilabel: bool = False  # images show several classes, a sample each: none is "the" class, so Top-k stays empty

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Sample: ...

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return np.array([sample.label for sample in self], np.int64)

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
            is an array or a function), `width`, `height` (int64; 0 where the annotation doesn't say), `boxes` (float64
            (G, 4) as in `Sample`, or None), `mask`, `ignore` (Path; True where the pixels come otherwise; None where
            there is none). What is no file is fetched again by index.

        Examples
        --------
        >>> from wsol.datasets import Shapes
        >>> Shapes(length=2).table[["sample_id", "width", "mask"]].values.tolist()
        [['test/00000', 96, True], ['test/00001', 96, True]]
        """
        if "_table" not in self.__dict__:
            self.__dict__["_table"] = _walk(self)
        return self.__dict__["_table"]

    def first(self, count: int) -> Dataset:
        """Return the first so many samples as a dataset; all of them where there are fewer.

        Raises
        ------
        UserError
            If the count is less than 1.
        """
        return _First(self, count)


class _First(Dataset):
    def __init__(self, dataset: Dataset, count: int) -> None:
        if count < 1:
            raise UserError(f"limit={count}: pass at least 1, or null for all samples")
        self._dataset, self._count = dataset, min(count, len(dataset))
        self.name, self.split, self.knobs = dataset.name, dataset.split, dataset.knobs
        self.multilabel, self.role = dataset.multilabel, dataset.role
        self.classes, self.class_ids = dataset.classes, dataset.class_ids

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Sample:
        return self._dataset[range(self._count)[index]]

    @property
    def labels(self) -> np.ndarray:
        return self._dataset.labels[: self._count]


def _walk(dataset: Dataset) -> pd.DataFrame:
    rows = [
        (
            *(sample.sample_id, sample.image_id, sample.label),
            None if _place(sample.image) is True else _place(sample.image),
            *(sample.image_size or (0, 0)),
            *(sample.boxes, _place(sample.mask), _place(sample.ignore)),
        )
        for sample in dataset
    ]
    columns = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    return pd.DataFrame(
        {name: pd.Series(list(values), dtype=COLUMNS[name]) for name, values in zip(COLUMNS, columns, strict=True)}
    )


def _place(pixels: Pixels | str | None) -> Path | bool | None:
    """Where pixels are: a file, True where they come otherwise, None where there are none."""
    return None if pixels is None else Path(pixels) if isinstance(pixels, str | Path) else True
