"""How sure a run's numbers are: bootstrap intervals of every metric, and what comparing runs is made of.

Images are drawn with replacement, with all samples of an image together, and τ is held where it is. Where τ was chosen
on the same images (an oracle) the interval is optimistic: it doesn't know that other images would have chosen another
τ, and the metric itself is biased upward. Choosing τ again in every resample adds that bias once more, so it isn't
done. `results/bootstrap_coverage.md` says how often 95 % intervals of either kind cover the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from wsol.report.bootstrap import (
    LEVEL,
    RESAMPLES,
    best_of_resamples,
    percentile_interval,
    resampled_means,
    resamples_of,
)
from wsol.report.outcomes import METRICS, RIGHT_OR_WRONG, Outcomes, sample_outcomes
from wsol.report.run import Run
from wsol.report.significance import holm, mcnemar

__all__ = [
    "INTERVAL_COLUMNS", "LEVEL", "METRICS", "RESAMPLES", "RIGHT_OR_WRONG", "Outcomes", "best_of_resamples", "draws_of",
    "holm", "image_numbers", "interval_table", "intervals", "mcnemar", "percentile_interval", "resample",
    "resampled_means", "resamples_of", "sample_outcomes", "with_intervals",
]  # fmt: skip

INTERVAL_COLUMNS = ("method", "protocol", "metric", "threshold", "value", "low", "high", "oracle")
Found = tuple[str, str, Outcomes]  # method, protocol
DIGITS = 9  # of percent in tables: the last bits of a sum depend on how many threads made it


def intervals(run: Run, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """Return the 95 % interval of every metric of a run's summary.

    Parameters
    ----------
    run : Run
        What its `metrics.csv` holds is taken from there; for an older run images are drawn now.
    resamples, seed : int
        Of the latter.

    Returns
    -------
    DataFrame
        `method`, `protocol`, `metric` (as the summary's columns), `threshold`, `value`, `low`, `high` in percent, and
        `oracle`: τ was chosen on the same images, so that the interval is optimistic.
    """
    known = run.metrics[(run.metrics["class"] == "") & run.metrics["low"].notna()]
    if known.empty:
        found = []
        for method, protocol in run.pairs():
            sweep, rules = run.sweep(method, protocol), run.protocols[protocol]
            drawn = run.drawn_pxap(method, protocol, resamples) if seed == 0 else None
            outcomes = sample_outcomes(run.row(method, protocol), sweep, run.samples, rules, drawn)
            if outcomes.thresholds:  # an older run with masks alone has nothing to draw
                found.append((method, protocol, outcomes))
        if not found:
            return pd.DataFrame(columns=list(INTERVAL_COLUMNS))
        return interval_table(found, resample(found, run.samples, resamples, seed))
    return _from_metrics(known, run.summary)


def resample(found: Sequence[Found], samples: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Draw images, once for all methods and protocols, so that their differences are paired.

    Parameters
    ----------
    found : sequence of (method, protocol, Outcomes)
    samples : DataFrame
        `image_id` of each sample, in the order of the outcomes.
    resamples, seed : int
        Those that PxAP was drawn with, where an outcome has it.

    Returns
    -------
    float64 array (resamples, K)
        Each metric in each resample, as fractions; the columns are those of `found`, one after the other.
    """
    values = [outcomes.matrix() for _, _, outcomes in found if outcomes.values]
    means = np.empty((resamples, 0))
    if values:
        means = resampled_means(np.concatenate(values, axis=1), image_numbers(samples), resamples, seed)
    columns, at = [], 0
    for _, _, outcomes in found:
        columns.append(means[:, at : at + len(outcomes.values)])
        at += len(outcomes.values)
        columns += [] if outcomes.pxap is None else [outcomes.pxap[1][:, None]]
    return np.concatenate(columns, axis=1)


def interval_table(found: Sequence[Found], means: np.ndarray) -> pd.DataFrame:
    """Return the 95 % interval of each metric.

    Parameters
    ----------
    found : sequence of (method, protocol, Outcomes)
    means : array (resamples, K)
        From `resample`.

    Returns
    -------
    DataFrame
        As `intervals`.
    """
    low, high = percentile_interval(means)
    rows = [
        (method, protocol, metric, threshold, outcomes.mean(metric), metric in outcomes.oracle)
        for method, protocol, outcomes in found
        for metric, threshold in outcomes.thresholds.items()
    ]
    table = pd.DataFrame(rows, columns=["method", "protocol", "metric", "threshold", "value", "oracle"])
    table["low"], table["high"] = low, high
    table[["value", "low", "high"]] = (100 * table[["value", "low", "high"]]).round(DIGITS)
    return table[list(INTERVAL_COLUMNS)]


def with_intervals(metrics: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Put intervals into the long table of a run: into the rows that are there, and as rows of their own.

    Parameters
    ----------
    metrics : DataFrame
        As `wsol.tables` describes it; MaxBoxAcc has a row per IoU threshold already.
    table : DataFrame
        From `interval_table`.
    """
    parts = table["metric"].str.extract(r"^(?P<metric>.*?)(?:_(?P<percent>\d\d))?$")
    rows = table.assign(metric=parts["metric"], iou_threshold=pd.to_numeric(parts["percent"]) / 100, **{"class": ""})
    boxes = rows["metric"] == "max_box_acc"  # at an IoU threshold, or once more without saying which
    own = rows.loc[~boxes, [name for name in metrics.columns if name in rows]]
    filled = metrics.copy()
    overall = (metrics["metric"] == "max_box_acc") & (metrics["class"] == "")
    keys = ["method", "protocol", "iou_threshold"]
    there = metrics.loc[overall, keys].merge(rows.loc[boxes, [*keys, "low", "high"]], on=keys, how="left")
    filled.loc[overall, ["low", "high"]] = there[["low", "high"]].to_numpy()
    return pd.concat([filled, own], ignore_index=True)


def draws_of(samples: pd.DataFrame, resamples: int = RESAMPLES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Draw a run's images as `resample` does, for what must be added up while images are scored.

    Parameters
    ----------
    samples : DataFrame
        `image_id` of each sample.
    resamples, seed : int

    Returns
    -------
    draws : uint8 array (resamples, I)
        How often each image is in each resample.
    image : int64 array (N,)
        Image of each sample.

    Examples
    --------
    >>> draws, image = draws_of(pd.DataFrame({"image_id": ["b", "a", "b"]}), resamples=4)
    >>> draws.shape, draws.sum(1).tolist(), image.tolist()
    ((4, 2), [2, 2, 2, 2], [0, 1, 0])
    """
    image = image_numbers(samples)
    parts = resamples_of(int(image.max()) + 1, resamples, seed)
    return np.concatenate([part.astype(np.uint8) for part in parts]), image


def image_numbers(samples: pd.DataFrame) -> np.ndarray:
    """Number the images of a run's samples: int64 (N,), 0 … I - 1 in the order in which they first come.

    Examples
    --------
    >>> image_numbers(pd.DataFrame({"image_id": ["b", "a", "b"]})).tolist()
    [0, 1, 0]
    """
    return pd.factorize(samples["image_id"])[0].astype(np.int64)


def _from_metrics(known: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Read intervals back from the long table's rows over all classes."""
    at_iou = known["iou_threshold"].notna()
    percent = (100 * known["iou_threshold"].fillna(0)).round().astype(int).astype(str)
    table = known.assign(metric=known["metric"].where(~at_iou, known["metric"] + "_" + percent))
    keys = ["method", "protocol"]
    largest = summary.loc[summary["max_box_acc"].notna(), keys]
    again = table[table["metric"] == "max_box_acc_50"].merge(largest).assign(metric="max_box_acc")
    table = pd.concat([table, again]).merge(summary[[*keys, "threshold_source"]], on=keys, how="left")
    at_summary = table["metric"].isin(["top1_loc", "top5_loc", "gt_known_loc", "mean_iou"])
    table["oracle"] = table["metric"].str.startswith("max_box_acc") | (
        at_summary & (table["threshold_source"] == "oracle")
    )
    return table[list(INTERVAL_COLUMNS)].reset_index(drop=True)
