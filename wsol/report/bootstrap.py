"""The bootstrap over images: what a metric might have been had other images been drawn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from wsol.errors import UserError

__all__ = ["LEVEL", "RESAMPLES", "best_of_resamples", "percentile_interval", "resampled_means", "resamples_of"]

RESAMPLES = 2000
LEVEL = 0.95
CHUNK = 1 << 20  # images drawn at a time: some 30 MB


def resamples_of(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw images with replacement, again and again.

    The indices are `rng.integers(0, images, (resamples, images))`, in chunks, so that any other bootstrap that is
    given the same generator sees the same resamples.

    Parameters
    ----------
    images : int
        How many there are, and how many each resample draws.
    resamples : int
    seed : int

    Yields
    ------
    float64 array (R, images)
        How often each image is in each of the next R resamples.

    Raises
    ------
    UserError
        If there is no image, or nothing is to be drawn.

    Examples
    --------
    >>> (counts,) = resamples_of(3, resamples=2, seed=0)
    >>> counts.tolist(), np.random.default_rng(0).integers(0, 3, (2, 3)).tolist()
    ([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], [[2, 1, 1], [0, 0, 0]])
    """
    if images < 1 or resamples < 1:
        raise UserError(f"{resamples} resamples of {images} images: there must be at least one of each")
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = random.integers(0, images, (count, images))
        drawn += np.arange(count)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def resampled_means(
    values: np.ndarray, image: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> np.ndarray:
    """Means over the samples of each resample.

    Parameters
    ----------
    values : array (N, K)
        What became of each sample: K outcomes. All of them are resampled together, so that differences of columns
        are paired.
    image : int array (N,), optional
        Image of each sample, 0 … I - 1; by default every sample is an image. Samples of one image are drawn together.
    resamples, seed : int

    Returns
    -------
    float64 array (resamples, K)

    References
    ----------
    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 13.

    Examples
    --------
    >>> means = resampled_means(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]), resamples=1000)
    >>> means[:, 0].tolist() == [1.0] * 1000, bool(abs(means[:, 1].mean() - 0.5) < 0.05)
    (True, True)
    """
    sums, sizes = np.asarray(values, np.float64), np.ones(len(values))
    if image is not None and not np.array_equal(image, np.arange(len(sums))):
        sizes = np.bincount(image).astype(np.float64)
        sums = np.stack([np.bincount(image, column) for column in sums.T], axis=1)  # (I, K)
    drawn = resamples_of(len(sizes), resamples, seed)
    return np.concatenate([counts @ sums / (counts @ sizes)[:, None] for counts in drawn])


def best_of_resamples(right: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Choose τ again in every resample: the highest of its means over T thresholds.

    The report holds τ fixed instead, because an interval made in this way is worse: a maximum is biased upward, and
    choosing again adds that bias once more (see `scripts/bootstrap_coverage.py`).

    Parameters
    ----------
    right : array (N, T)
        Whether each image is right at each threshold.
    resamples, seed : int

    Returns
    -------
    float64 array (resamples,)
    """
    sums = np.asarray(right, np.float64)
    drawn = resamples_of(len(sums), resamples, seed)
    return np.concatenate([(counts @ sums).max(axis=1) / len(sums) for counts in drawn])


def percentile_interval(estimates: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Return the middle part of the resampled estimates.

    Parameters
    ----------
    estimates : array (resamples, …)
        NaN where a resample has none: PxAP, of images without an object.
    level : float
        In (0, 1); 0.95 leaves 2.5 % on either side.

    Returns
    -------
    low, high : arrays (…)

    Examples
    --------
    >>> low, high = percentile_interval(np.arange(101.0))
    >>> round(float(low), 9), round(float(high), 9)
    (2.5, 97.5)
    """
    tail = (1 - level) / 2
    low, high = np.nanquantile(estimates, [tail, 1 - tail], axis=0)
    return low, high
