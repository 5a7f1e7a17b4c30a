"""Whether two methods are right equally often: McNemar's exact test, and Holm's correction for many tests."""

from __future__ import annotations

import numpy as np
from scipy.special import bdtr

__all__ = ["holm", "mcnemar"]


def mcnemar(first_only: np.ndarray | int, second_only: np.ndarray | int) -> np.ndarray:
    """McNemar's exact test, two-sided: how likely two equally good methods are to disagree so unevenly.

    Samples on which both are right, or both wrong, say nothing; of the others either method should have half.

    Parameters
    ----------
    first_only, second_only : int or arrays of int
        Samples on which only the first, or only the second method is right.

    Returns
    -------
    float64 array
        p; 1 where they never disagree.

    References
    ----------
    McNemar, "Note on the sampling error of the difference between correlated proportions or percentages",
    Psychometrika 1947; exact form: the binomial distribution with 1/2.

    Examples
    --------
    >>> mcnemar([5, 0], [0, 0]).tolist()
    [0.0625, 1.0]
    """
    first, second = np.asarray(first_only, np.int64), np.asarray(second_only, np.int64)
    return np.minimum(1.0, 2 * bdtr(np.minimum(first, second).astype(np.float64), first + second, 0.5))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Correct p-values of a family of tests, so that a false alarm anywhere among them stays as rare as one alone.

    Parameters
    ----------
    p_values : array (K,)
        NaN: no test, and none that counts.

    Returns
    -------
    float64 array (K,)
        Not below the p-values given, in their order; at most 1.

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    Examples
    --------
    >>> holm(np.array([0.01, np.nan, 0.04, 0.03])).tolist()
    [0.03, nan, 0.06, 0.06]
    """
    p = np.asarray(p_values, np.float64)
    found = np.full(len(p), np.nan)
    order = np.argsort(p)[: int((~np.isnan(p)).sum())]  # NaN sorts last
    factors = np.arange(len(order), 0, -1)
    found[order] = np.minimum(1.0, np.maximum.accumulate(factors * p[order]))
    return found
