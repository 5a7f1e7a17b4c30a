"""Images that show several classes: one sample per class that is present, those of an image in a row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["SeveralClasses", "Thing", "samples_of_image"]

logger = logging.getLogger("wsol")

Draw = Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True)
class Thing:
    """One annotated object in an image.

    Parameters
    ----------
    label : int
    box : (x0, y0, x1, y1)
        Inclusive corners, pixels.
    ignored : bool
        Difficult, or a crowd: it is no truth, but no background either.
    draw : function, optional
        Gives its pixels, bool (H, W).
    """

    label: int
    box: tuple[float, float, float, float]
    ignored: bool = False
    draw: Draw | None = None


class SeveralClasses(Dataset):
    """A dataset whose images show several classes at once.

    Every class that is present in an image makes one sample, `image_id#class`, with the boxes (and the mask) of
    that class only. The samples of one image follow each other, so that one decoding and one forward pass serve
    them all. "The" true class of an image does not exist, so Top-k says nothing and stays empty; GT-known
    localization, which counts classes on images, is then CorLoc.

    Parameters
    ----------
    split : str
    classes : sequence of str
    images : list of lists of Sample
        Per image, from `samples_of_image`; an image without samples is left out.

    Raises
    ------
    UserError
        If nothing is left.

    References
    ----------
    Deselaers, Alexe and Ferrari, "Localizing Objects While Learning Their Appearance", ECCV 2010 (CorLoc).
    """

    multilabel = True

    def __init__(self, split: str, classes: Sequence[str], images: Sequence[Sequence[Sample]]) -> None:
        self.split, self.classes = split, tuple(classes)
        self._samples = [sample for samples in images for sample in samples]
        empty = sum(not samples for samples in images)
        if not self._samples:
            raise UserError(
                f"{self.name}: none of the {len(images)} images of split {split} shows one of the {len(classes)} "
                f"classes asked for; pass another dataset.split or dataset.classes"
            )
        left_out = f"; {empty} more without an object that counts" if empty else ""
        logger.info(
            "%s (%s): %d images, %d classes, %d samples (classes on images)%s",
            *(self.name, split, len(images) - empty, len(self.classes), len(self._samples), left_out),
        )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return np.array([sample.label for sample in self._samples], np.int64)


def samples_of_image(
    image_id: str,
    image: Path,
    image_size: tuple[int, int] | None,
    things: Sequence[Thing],
    classes: Sequence[str],
    masks: bool = False,
) -> list[Sample]:
    """Make one sample for each class of which an image shows an object that counts, in the order of the classes.

    Parameters
    ----------
    image_id : str
    image : Path
    image_size : (width, height), optional
    things : sequence of Thing
        All objects of the image.
    classes : sequence of str
    masks : bool
        Whether to draw masks: the pixels of a class's objects, and of its ignored ones as pixels to ignore.

    Examples
    --------
    >>> things = [Thing(1, (0, 0, 9, 9)), Thing(0, (3, 3, 5, 5)), Thing(1, (4, 4, 6, 6), ignored=True)]
    >>> [(s.sample_id, s.boxes.tolist()) for s in samples_of_image("a", Path("a.jpg"), None, things, ["cat", "dog"])]
    [('a#cat', [[3.0, 3.0, 5.0, 5.0]]), ('a#dog', [[0.0, 0.0, 9.0, 9.0]])]
    """
    samples = []
    for label in sorted({thing.label for thing in things if not thing.ignored}):
        own = [thing for thing in things if thing.label == label]
        counted = [thing for thing in own if not thing.ignored]
        samples.append(
            Sample(
                sample_id=f"{image_id}#{classes[label]}",
                label=label,
                image=image,
                boxes=np.array([thing.box for thing in counted]),
                mask=_union(counted) if masks else None,
                ignore=_union([thing for thing in own if thing.ignored]) if masks else None,
                image_size=image_size,
                image_id=image_id,
            )
        )
    return samples


def _union(things: Sequence[Thing]) -> Draw | None:
    """Return the function that draws all of them, None where there is nothing to draw."""
    draws = [thing.draw for thing in things if thing.draw is not None]
    return (lambda: np.logical_or.reduce([draw() for draw in draws])) if draws else None
