"""Parts of a dataset: some of its classes, or its first samples."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["First", "choose_classes"]


class First(Dataset):
    """The first samples of a dataset.

    Parameters
    ----------
    dataset : Dataset
    count : int
        From 1; no more than there are.

    Raises
    ------
    UserError
        If the count is less than 1.
    """

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
        if not 0 <= index < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        return self._dataset[index]

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._dataset.labels[: self._count]


def choose_classes(known: Sequence[str], wanted: Sequence[str] | str | None, where: str) -> tuple[str, ...]:
    """Return the classes asked for, in the order asked for; all of them when nothing is asked.

    Raises
    ------
    UserError
        If a class is unknown (naming the nearest) or asked for twice.

    Examples
    --------
    >>> choose_classes(["cat", "dog"], ["dog"], "labels.txt")
    ('dog',)
    """
    if wanted is None:
        return tuple(known)
    wanted = [wanted] if isinstance(wanted, str) else wanted
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 3, 0.4)
            raise UserError(
                f"dataset.classes: {name!r} is not among the {len(known)} classes of {where}"
                + (f"; the nearest: {', '.join(near)}" if near else "")
            )
    if len(set(wanted)) != len(wanted) or not wanted:
        raise UserError(f"dataset.classes={list(wanted)}: name at least one class, and each only once")
    return tuple(wanted)
