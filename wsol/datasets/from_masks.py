"""True boxes for data that was annotated with masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from skimage.measure import label, regionprops

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError

__all__ = ["BoxesFromMasks", "boxes_of_mask"]


class BoxesFromMasks(Dataset):
    """A dataset whose boxes are those around each connected region of the masks.

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
        return replace(sample, boxes=boxes_of_mask(mask))

    @property
    def labels(self) -> np.ndarray:
        """Label of every sample, int64 (N,)."""
        return self._dataset.labels


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
