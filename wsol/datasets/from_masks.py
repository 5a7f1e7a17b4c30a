"""True boxes for data that was annotated with masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from skimage.measure import label, regionprops

from wsol.datasets.images import mask_fits, read_size
from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["BoxesFromMasks", "boxes_of_mask"]


class BoxesFromMasks(Dataset):
    """A dataset whose boxes are those around each connected region of the masks.

    Boxes are in pixels of the image: of a mask at another resolution they are enlarged. Where neither the annotation
    nor a file tells the image's size, it is taken to be the mask's.

    Parameters
    ----------
    dataset : Dataset
        With masks; boxes that it has are replaced.

    Examples
    --------
    >>> from wsol.datasets import Shapes
    >>> data = Shapes(length=3)
    >>> bool((BoxesFromMasks(data)[0].boxes == data[0].boxes).all())
    True
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self.name, self.split, self.knobs = dataset.name, dataset.split, dataset.knobs
        self.multilabel, self.role = dataset.multilabel, dataset.role
        self.classes, self.class_ids = dataset.classes, dataset.class_ids

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self._dataset[index]
        mask = sample.read_mask()
        if mask is None or not mask.any():
            raise UserError(
                f"sample {sample.sample_id} has {'no mask' if mask is None else 'an empty mask'}, so dataset.boxes="
                f"from_masks gives no box; leave it out or mend the mask"
            )
        boxes, own, size = boxes_of_mask(mask), (mask.shape[1], mask.shape[0]), _size(sample)
        if size is not None and size != own and mask_fits(own, size):
            pixel = np.array([0, 0, 1, 1])
            boxes = (boxes + pixel) * np.tile(np.divide(size, own), 2) - pixel
        return replace(sample, boxes=boxes, image_size=size)

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._dataset.labels


def _size(sample: Sample) -> tuple[int, int] | None:
    """Size of the image, from its header at most; None where that can't be read, which is said when it is decoded."""
    if sample.image_size is None and isinstance(sample.image, Path):
        try:
            return read_size(sample.image, sample.sample_id)
        except UserError:
            return None
    return sample.image_size


def boxes_of_mask(mask: np.ndarray) -> np.ndarray:
    """Return the box around each 8-connected region of a mask, largest region first.

    Parameters
    ----------
    mask : bool array (H, W)

    Returns
    -------
    float64 array (G, 4)
        Inclusive corners.

    Examples
    --------
    >>> boxes_of_mask(np.array([[1, 1, 0, 1], [0, 1, 0, 0]], bool))
    array([[0., 0., 1., 1.],
           [3., 0., 3., 0.]])
    """
    regions = sorted(regionprops(label(mask, connectivity=2)), key=lambda region: -region.area)
    boxes = [(x0, y0, x1 - 1, y1 - 1) for y0, x0, y1, x1 in (region.bbox for region in regions)]
    return np.array(boxes, np.float64).reshape(-1, 4)
