"""A comparison in plain words: which of two is better and by how much, or that they can't be told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from wsol.report.names import METRIC_NAMES

__all__ = ["counted", "headlines", "meaning", "number", "sentence", "shown_interval", "shown_p"]


def sentence(row: Mapping[str, Any] | pd.Series) -> str:
    """Say what a row of a comparison's table means.

    Parameters
    ----------
    row : mapping
        `metric`, `first`, `second` (names), `difference`, `low`, `high` (points, first - second), `p_holm` and
        `disagree` (NaN where the metric isn't right or wrong), `more_than_noise`, `n_images`, `n_samples`.

    Examples
    --------
    >>> row = {"metric": "gt_known_loc", "first": "Grad-CAM", "second": "LayerCAM", "difference": -2.1, "low": -3.4,
    ...        "high": -0.8, "p_holm": 0.002, "disagree": 310, "more_than_noise": True, "n_images": 5794,
    ...        "n_samples": 5794}
    >>> sentence(row)
    'LayerCAM localizes 2.1 points more than Grad-CAM, 95 % interval 0.8 to 3.4, p = 0.002, 5,794 images (310 differ).'
    >>> sentence(row | {"difference": 0.0, "low": -0.5, "high": 0.5, "p_holm": 1.0, "more_than_noise": False})
    'Grad-CAM and LayerCAM localize equally often, 95 % interval −0.5 to 0.5, p = 1, 5,794 images (310 differ).'
    """
    better, worse, low, high = row["first"], row["second"], row["low"], row["high"]
    if row["difference"] < 0:
        better, worse, low, high = worse, better, -high, -low
    points = abs(row["difference"])
    digits = 2 if 0.005 <= points < 0.05 or (row["more_than_noise"] and low < 0.05) else 1
    disagree, facts = row["disagree"], [f"95 % interval {number(low, digits)} to {number(high, digits)}"]
    if pd.notna(row["p_holm"]):
        facts.append(shown_p(row["p_holm"]))
    facts.append(counted(row) + ("" if pd.isna(disagree) else f" ({int(disagree):,} differ)"))
    name, facts_said = METRIC_NAMES[row["metric"]], ", ".join(facts)
    if pd.notna(disagree) and disagree == 0:
        text = f"{better} and {worse} have the same outcome in {name} on each of {counted(row)}."
    elif points < 0.005:
        same = "localize equally often" if row["metric"] == "gt_known_loc" else f"are equal in {name}"
        text = f"{better} and {worse} {same}, {facts_said}."
    elif row["more_than_noise"]:
        text = f"{_gap(better, worse, row['metric'], _points(points, digits))}, {facts_said}."
    else:
        noise = "not more than noise" if low <= 0 <= high else "not more than noise among so many tests"
        text = f"{_gap(better, worse, row['metric'], _points(points, digits))}, which is {noise}: {facts_said}."
    return text[0].upper() + text[1:] if text.startswith("the ") else text


def counted(row: Mapping[str, Any] | pd.Series) -> str:
    """Say how many images there were, and samples where these are not the same.

    Examples
    --------
    >>> counted({"n_images": 5794, "n_samples": 5794}), counted({"n_images": 1, "n_samples": 2})
    ('5,794 images', '2 samples of 1 image')
    """
    images, samples = int(row["n_images"]), int(row["n_samples"])
    text = f"{images:,} image{'' if images == 1 else 's'}"
    return text if images == samples else f"{samples:,} samples of {text}"


def number(value: float, digits: int = 1) -> str:
    """Write points with a real minus sign, and none before zero.

    Examples
    --------
    >>> number(-2.06), number(-0.04)
    ('−2.1', '0.0')
    """
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def shown_interval(row: Mapping[str, Any] | pd.Series) -> str:
    """Write an interval of a difference; one that is optimistic has a star.

    Examples
    --------
    >>> shown_interval({"low": -0.52, "high": 1.04, "oracle": True})
    '−0.5 to 1.0*'
    """
    return f"{number(row['low'])} to {number(row['high'])}{'*' if row['oracle'] else ''}"


def shown_p(p: float, name: bool = True) -> str:
    """Write a p-value with as many digits as matter.

    Examples
    --------
    >>> [shown_p(p) for p in (1e-9, 0.00213, 0.0312, 0.314, 1.0)]
    ['p < 0.001', 'p = 0.002', 'p = 0.031', 'p = 0.31', 'p = 1']
    >>> shown_p(1e-9, name=False), shown_p(0.5, name=False)
    ('< 0.001', '0.5')
    """
    if p < 0.001:
        return "p < 0.001" if name else "< 0.001"
    text = f"{p:.3f}" if p < 0.1 else f"{float(f'{p:.2f}'):g}"
    return f"p = {text}" if name else text


def headlines(pairs: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows that a reader wants first: Top-1 classification and GT-known localization.

    Parameters
    ----------
    pairs : DataFrame
        Of a comparison; where it is without GT-known localization, all of its rows are taken.
    """
    known = pairs["metric"] == "gt_known_loc"
    return pairs[known | (pairs["metric"] == "top1_cls")] if known.any() else pairs


def meaning(pairs: pd.DataFrame, tests: int, alpha: float) -> list[str]:
    """Say what the intervals, p-values and verdicts of a comparison mean, as far as it has them.

    Parameters
    ----------
    pairs : DataFrame
    tests : int
        For how many the p-values are corrected.
    alpha : float
        Below this a difference is more than noise.
    """
    notes = ["Intervals: 95 %, of the difference, by a bootstrap over images in which both see the same resamples."]
    if tests:
        notes.append(
            f"p: McNemar's exact test, corrected by Holm's method for all {tests:,} tests of this comparison; below "
            f"{alpha:g} a difference is more than noise. What is not right or wrong (mean IoU, MaxBoxAccV2, PxAP) is "
            f"not tested: there the interval decides, uncorrected."
        )
    if pairs["oracle"].any():
        notes.append(
            "*: τ is an oracle, the best on these very images, as it always is in MaxBoxAcc. It is held in all "
            "resamples, so the interval is optimistic: it covers the truth less often than in 95 of 100 cases."
        )
    return notes


def _gap(better: str, worse: str, metric: str, points: str) -> str:
    if metric == "gt_known_loc":
        return f"{better} localizes {points} more than {worse}"
    return f"{better} has {points} more {METRIC_NAMES[metric]} than {worse}"


def _points(points: float, digits: int) -> str:
    text = f"{points:.{digits}f}"
    return f"{text} point" if text == "1.0" else f"{text} points"
