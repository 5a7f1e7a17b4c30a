"""How sure a run's numbers are: bootstrap intervals of every metric; and whether two methods differ significantly.

Images are drawn with replacement, with all samples of an image together, and τ is held where it is. Where τ was chosen
on the same images (an oracle) the interval is optimistic: it doesn't know that other images would have chosen another
τ, and the metric itself is biased upward. Choosing τ again in every resample adds that bias once more, so it isn't
done. `results/bootstrap_coverage.md` says how often 95 % intervals of either kind cover the true value.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from wsol.metrics.localization import Outcomes

INTERVAL_COLUMNS = ("method", "protocol", "metric", "threshold", "value", "low", "high", "oracle")
RESAMPLES = 2000
TAIL = (1 - 0.95) / 2  # on either side of an interval
ALPHA = 0.05  # of the corrected p: below it a difference is significant
DIGITS = 9  # of percent in tables: the last bits of a sum depend on how many threads made it
CHUNK = 1 << 20  # images drawn at a time: some 30 MB
Entry = tuple[str, str, Outcomes]  # method, protocol, and what became of each sample


def resamples_of(images: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[np.ndarray]:
    """Draw images with replacement again and again: how often each is in each of the next resamples, float64 (R, I).

    The indices are `rng.integers(0, images, (resamples, images))`, in chunks, so that any other bootstrap that is
    given the same generator sees the same resamples.
    """
    random = np.random.default_rng(seed)
    rows = max(1, CHUNK // images)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn = random.integers(0, images, (count, images))
        drawn += np.arange(count)[:, None] * images
        yield np.bincount(drawn.ravel(), minlength=count * images).reshape(count, images).astype(np.float64)


def resampled_means(
    values: np.ndarray, image: np.ndarray | None = None, resamples: int = RESAMPLES, seed: int = 0,
    labels: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Means of values (N, K) over the samples of each resample: float64 (R, K) (Efron and Tibshirani 1993, chapter 13).

    All columns are resampled together, so that their differences are paired. `image` (N,) is the image of each sample,
    0 … I - 1, by default one of its own: samples of one image are drawn together. With labels (N,) the means are those
    over the classes that were drawn, of each class's mean.
    """
    if labels is not None:
        return _resampled_class_means(np.asarray(values, np.float64), image, resamples, seed, labels)
    sums, sizes = np.asarray(values, np.float64), np.ones(len(values))
    if image is not None and not np.array_equal(image, np.arange(len(sums))):
        sizes = np.bincount(image).astype(np.float64)
        sums = np.stack([np.bincount(image, column) for column in sums.T], axis=1)  # (I, K)
    drawn = resamples_of(len(sizes), resamples, seed)
    return np.concatenate([counts @ sums / (counts @ sizes)[:, None] for counts in drawn])


def _resampled_class_means(
    values: np.ndarray, image: np.ndarray | None, resamples: int, seed: int, labels: np.ndarray
) -> np.ndarray:
    order = np.argsort(labels, kind="stable")
    starts, values = np.flatnonzero(np.diff(labels[order], prepend=-1)), values[order]
    image = order if image is None else image[order]
    means = []
    for counts in resamples_of(int(image.max()) + 1, resamples, seed):
        drawn = counts[:, image]  # (R, N)
        sizes = np.add.reduceat(drawn, starts, axis=1)  # (R, C)
        with np.errstate(invalid="ignore"):
            of_classes = [np.add.reduceat(drawn * column, starts, axis=1) / sizes for column in values.T]
        means.append(np.nanmean(of_classes, axis=2).T)
    return np.concatenate(means)


def percentile_interval(estimates: np.ndarray) -> np.ndarray:
    """Ends (2, …) of the middle 95 % of estimates (R, …); NaN where a resample has none doesn't count."""
    return np.nanquantile(estimates, [TAIL, 1 - TAIL], axis=0)


def draws_of(samples: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """How often each image is in each resample: uint8 (R, I), the draws of `resample`; and each sample's image (N,)."""
    image, names = pd.factorize(samples["image_id"])
    return np.concatenate([part.astype(np.uint8) for part in resamples_of(len(names), resamples, seed)]), image


def resample(entries: Sequence[Entry], samples: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Each metric of each entry in each resample, fractions: float64 (R, K), the entries' metrics side by side.

    Images are drawn once for all methods and protocols, so that their differences are paired. Where an entry has PxAP,
    which was drawn while pixels were at hand, the number of resamples and the seed must be the same.
    """
    image = pd.factorize(samples["image_id"])[0]  # in the order in which images first come
    means = {}
    for by_class in {outcomes.labels is not None for _, _, outcomes in entries}:
        alike = [outcomes for _, _, outcomes in entries if (outcomes.labels is not None) == by_class]
        values = [column for outcomes in alike for column in outcomes.values.values()]
        labels = alike[0].labels
        drawn = resampled_means(np.stack(values, axis=1), image, resamples, seed, labels).T if values else ()
        means[by_class] = iter(drawn)
    columns: list[np.ndarray] = []
    for _, _, outcomes in entries:
        columns += [next(means[outcomes.labels is not None]) for _ in outcomes.values]
        columns += [] if outcomes.pxap is None else [outcomes.pxap[1]]
    return np.stack(columns, axis=1)


def interval_table(entries: Sequence[Entry], means: np.ndarray) -> pd.DataFrame:
    """The 95 % interval of each metric of each entry, from what `resample` made of them: `INTERVAL_COLUMNS`, percent.

    `oracle` says that τ was chosen on the same images, so that the interval is optimistic.
    """
    low, high = percentile_interval(means)
    rows = [
        (method, protocol, metric, threshold, outcomes.mean(metric), metric in outcomes.oracle)
        for method, protocol, outcomes in entries
        for metric, threshold in outcomes.thresholds.items()
    ]
    table = pd.DataFrame(rows, columns=["method", "protocol", "metric", "threshold", "value", "oracle"])
    table["low"], table["high"] = low, high
    table[["value", "low", "high"]] = (100 * table[["value", "low", "high"]]).round(DIGITS)
    return table[list(INTERVAL_COLUMNS)]


def rank_agreement(
    first: np.ndarray, second: np.ndarray, image: np.ndarray | None = None
) -> tuple[float, float, float]:
    """Spearman's correlation of two orders of M methods, by their means over N samples (N, M), and its 95 % interval.

    `image` as for `resampled_means`. NaN where all methods are equal by one of the two.

    >>> rank_agreement(np.array([[1.0, 2, 3]] * 4), np.array([[10.0, 20, 30]] * 4))
    (1.0, 1.0, 1.0)
    """
    from scipy.stats import rankdata  # as below

    count, both = first.shape[1], np.hstack([first, second])
    means = np.vstack([both.mean(0), resampled_means(both, image)])  # (1 + R, 2 M)
    ranks = rankdata(means.reshape(len(means), 2, count), axis=2)
    ranks -= ranks.mean(2, keepdims=True)
    with np.errstate(invalid="ignore"):
        rho = ranks.prod(1).sum(1) / np.sqrt((ranks**2).sum(2).prod(1))
    if np.isnan(rho[0]):
        return np.nan, np.nan, np.nan
    low, high = percentile_interval(rho[1:])
    return float(rho[0]), float(low), float(high)


def mcnemar(first_only: np.ndarray | int, second_only: np.ndarray | int) -> np.ndarray:
    """McNemar's exact test, two-sided: how likely two equally good methods are to disagree so unevenly.

    Samples on which both are right, or both wrong, say nothing; of the others either method should have half: the
    binomial distribution with 1/2 (McNemar, Psychometrika 1947). 1 where the methods never disagree.

    >>> mcnemar([5, 0], [0, 0]).tolist()
    [0.0625, 1.0]
    """
    from scipy.special import bdtr  # a run that compares nothing starts without SciPy

    first, second = np.asarray(first_only, np.int64), np.asarray(second_only, np.int64)
    return np.minimum(1.0, 2 * bdtr(np.minimum(first, second).astype(np.float64), first + second, 0.5))


def signed_rank(differences: np.ndarray) -> float:
    """Wilcoxon's signed-rank test, two-sided: how likely differences without a direction rank so unevenly.

    Those that are 0 say nothing; 1 where all are (Wilcoxon, Biometrics Bulletin 1945).

    >>> signed_rank(np.array([1.0, 2, 3, 4, 5, 0]))
    0.0625
    """
    from scipy.stats import wilcoxon

    differences = differences[differences != 0]
    return float(wilcoxon(differences).pvalue) if len(differences) else 1.0


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values (K,) of a family of tests, NaN for none: a false alarm anywhere stays as rare as one alone.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return corrected
