"""PxAP of images drawn with replacement: pixel counts add up while they are scored, so that none need be kept."""

from __future__ import annotations

import numpy as np

__all__ = ["DrawnPixels", "average_precision"]


class DrawnPixels:
    """Histograms of all pixels of each resample.

    Parameters
    ----------
    draws : uint8 array (R, I)
        How often each of I images is in each of R resamples.
    image : int array (N,)
        Image of each sample.
    bins : int
        Of the histograms.

    Examples
    --------
    >>> drawn = DrawnPixels(np.array([[2, 0], [1, 1]], np.uint8), np.array([0, 1]), bins=3)
    >>> object_, background = np.array([[0, 1, 0], [1, 0, 0]]), np.array([[1, 0, 0], [0, 1, 0]])
    >>> drawn.update([0, 1], object_, background)
    >>> drawn.pxap().tolist()
    [1.0, 0.5]
    """

    def __init__(self, draws: np.ndarray, image: np.ndarray, bins: int) -> None:
        self.draws, self.image = draws, image
        self.of_object, self.of_background = np.zeros((len(draws), bins)), np.zeros((len(draws), bins))

    def update(self, samples: list[int], of_object: np.ndarray, of_background: np.ndarray) -> None:
        """Add histograms (n, bins) of samples, which are numbered as in `image`."""
        # Counts of pixels are whole numbers far below 2^53: these sums are exact, in whatever order.
        counts = self.draws[:, self.image[samples]].astype(np.float64)  # (R, n)
        self.of_object += counts @ of_object
        self.of_background += counts @ of_background

    def pxap(self) -> np.ndarray:
        """Return PxAP of each resample: a fraction, float64 (R,); NaN where no pixel of an object was drawn."""
        return average_precision(self.of_object, self.of_background)


def average_precision(of_object: np.ndarray, of_background: np.ndarray) -> np.ndarray:
    """Average precision from histograms of scores, the darkest bin first.

    Parameters
    ----------
    of_object, of_background : arrays (…, bins)
        The last bin is empty: it lies above all scores.

    Returns
    -------
    float64 array (…); NaN without a pixel of an object

    References
    ----------
    Choe et al., "Evaluating Weakly Supervised Object Localization Methods Right", CVPR 2020, the definition of PxAP.

    Examples
    --------
    >>> average_precision(np.array([1, 1, 0]), np.array([1, 0, 0])).round(3).tolist()
    0.833
    """
    # Pixels above each edge, from the brightest bin down.
    hits = of_object[..., ::-1].cumsum(-1).astype(np.float64)
    found = hits + of_background[..., ::-1].cumsum(-1)
    every = hits[..., -1:]
    with np.errstate(invalid="ignore"):
        precision, recall = hits / np.maximum(found, 1), hits / every
    steps = precision[..., 1:] * np.diff(recall, axis=-1)
    return np.where(every[..., 0] > 0, np.where(found[..., 1:] != 0, steps, 0).sum(-1), np.nan)
