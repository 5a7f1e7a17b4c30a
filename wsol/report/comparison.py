"""Runs side by side: for each pair of methods whether their difference is more than noise, on the same images."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.errors import UserError
from wsol.metrics.localization import METRICS, RIGHT_OR_WRONG, Outcomes, sample_outcomes
from wsol.metrics.statistics import RESAMPLES, holm, interval_table, mcnemar, percentile_interval, resample
from wsol.report.common_ground import Common, common_ground, find_runs
from wsol.report.names import method_name
from wsol.report.sentences import sentence
from wsol.tables import SUMMARY_COLUMNS

__all__ = ["ALPHA", "PAIR_COLUMNS", "Comparison", "Entry", "compare"]

ALPHA = 0.05
CLASSIFICATION = ("top1_cls", "top5_cls")
PAIR_COLUMNS = (
    "protocol", "metric", "first", "second", "first_run", "first_method", "second_run", "second_method", "n_images",
    "n_samples", "first_value", "second_value", "difference", "low", "high", "oracle", "first_only", "second_only",
    "disagree", "p", "p_holm", "more_than_noise", "sentence",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Entry:
    """One method of one run under one protocol.

    Parameters
    ----------
    run, method, protocol : str
        The run by its label.
    title : str
        How it is called among the others.
    row : Series
        The run's summary of it.
    outcomes : Outcomes
        On the common samples.
    first_column : int
        Where its metrics begin among the columns of the resampled means.
    """

    run: str
    method: str
    protocol: str
    title: str
    row: pd.Series
    outcomes: Outcomes
    first_column: int

    def column(self, metric: str) -> int:
        """Where a metric stands among the columns of the resampled means."""
        return self.first_column + list(self.outcomes.thresholds).index(metric)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What comparing runs gave.

    Parameters
    ----------
    common : Common
        The runs, and what they share.
    summary : DataFrame
        As a run's, on the common samples, with `run` and `title` in front.
    intervals : DataFrame
        As `wsol.metrics.statistics.intervals`, with titles for methods.
    curves : DataFrame
        GT-known localization over τ on the common samples, percent: `title`, `protocol`, `iou_threshold`,
        `threshold`, `gt_known_loc`.
    pairs : DataFrame
        A row per pair and metric, `PAIR_COLUMNS`: values, difference (first - second) and its 95 % interval in
        percent; samples on which only one is right, and on which they differ; p of McNemar's exact test, and corrected
        by Holm's method over all tests of the comparison; whether the difference is more than noise: by the corrected
        p, or, where there is no test, by the interval. Classification is compared between runs, without a protocol.
    tests : int
        How many tests the correction counts.
    notes : list of str
        What the reader must know.
    """

    common: Common
    summary: pd.DataFrame
    intervals: pd.DataFrame
    curves: pd.DataFrame
    pairs: pd.DataFrame
    tests: int
    notes: list[str]


def compare(
    runs: Sequence[str | Path],
    *,
    against: str | None = None,
    shared: bool = False,
    metrics: Sequence[str] | None = None,
    most: int = 200,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare every method of some runs with every other, under each protocol, on the same images.

    Differences are bootstrapped over images, paired: both methods see the same resamples. Where the outcome of a
    sample is right or wrong, McNemar's exact test is made as well.

    Parameters
    ----------
    runs : sequence of folders or patterns
        One will do: its methods are compared with each other.
    against : str, optional
        Compare with this only: a method ("gradcam"), a run's label, or a title ("Grad-CAM (resnet50)").
    shared : bool
        Where images or protocols differ: compare on what the runs share.
    metrics : sequence of str, optional
        Compare these only (columns of the summary); fewer tests are corrected less.
    most : int
        Where there are more pairs than this, each method is compared with the first one only.
    resamples, seed : int

    Returns
    -------
    Comparison

    Raises
    ------
    UserError
        If runs can't be compared, or there is nothing to compare.
    """
    wanted = _checked_metrics(metrics)
    common = common_ground(find_runs(runs), shared)
    entries = _entries(common, resamples if seed == 0 else None)
    pairs, notes = _pairs(entries, against, most)
    found = [(entry.title, entry.protocol, entry.outcomes) for entry in entries]
    samples = common.samples(next(iter(common.runs.values())))
    means = resample(found, samples, resamples, seed)
    if samples["image_id"].nunique() < len(samples):
        notes.append("Images have several samples: McNemar's test takes them for independent, the intervals don't.")
    about = {"n_images": samples["image_id"].nunique(), "n_samples": len(samples)}
    hypotheses = list(_hypotheses(pairs, wanted))
    lacking = [entry.title for entry in entries if pd.notna(entry.row["pxap"]) and entry.outcomes.pxap is None]
    reason = (
        f"PxAP can't be compared of {', '.join(dict.fromkeys(lacking))}: its resamples are drawn while a run is "
        f"scored, {RESAMPLES:,} of all its images in their order, with seed 0; score an older run again"
    )
    if not hypotheses:
        why = reason if lacking and wanted == ["pxap"] else f"the runs share none of the metrics {', '.join(wanted)}"
        raise UserError(f"{why}, so nothing can be compared")
    if lacking and "pxap" in wanted:
        notes.append(f"{reason}.")
    rows = [about | _row(first, second, metric, means) for first, second, metric in hypotheses]
    table, tests = _judged(pd.DataFrame(rows), [_test(*hypothesis) for hypothesis in hypotheses])
    return Comparison(
        common=common,
        summary=_summary(entries, samples),
        intervals=interval_table(found, means),
        curves=_curves(entries, common),
        pairs=table,
        tests=tests,
        notes=[*common.notes, *notes],
    )


def _checked_metrics(metrics: Sequence[str] | None) -> list[str]:
    unknown = [metric for metric in metrics or () if metric not in METRICS]
    if unknown:
        raise UserError(f"metrics: {', '.join(unknown)} can't be compared; there are {', '.join(METRICS)}")
    return [metric for metric in METRICS if metrics is None or metric in metrics]


def _entries(common: Common, drawn: int | None) -> list[Entry]:
    """Rebuild the outcomes of every method of every run on the common samples, by protocol.

    PxAP was drawn while the pixels were at hand: with all images of a run, in their order, and the usual seed.
    """
    whole = all(list(run.samples["sample_id"]) == common.sample_ids for run in common.runs.values())
    entries: list[Entry] = []
    columns = 0
    for protocol in common.protocols:
        for label, run in common.runs.items():
            samples = common.samples(run)
            for method in (name for name, rules in run.pairs() if rules == protocol):
                row = run.row(method, protocol)
                pxap = run.drawn_pxap(method, protocol, drawn) if whole and drawn else None
                outcomes = sample_outcomes(row, run.sweep(method, protocol), samples, run.protocols[protocol], pxap)
                title = method_name(method) + (f" ({label})" if len(common.runs) > 1 else "")
                if outcomes.thresholds:
                    entries.append(Entry(label, method, protocol, title, row, outcomes, columns))
                    columns += len(outcomes.thresholds)
    return entries


def _pairs(entries: Sequence[Entry], against: str | None, most: int) -> tuple[list[tuple[Entry, Entry]], list[str]]:
    """Choose who is compared with whom, and say so where not everybody is with everybody."""
    chosen = [pair for pair in combinations(entries, 2) if pair[0].protocol == pair[1].protocol]
    if not chosen:
        raise UserError("nothing to compare: under no protocol are there two methods; name another run")
    if against is not None:
        base = [entry for entry in entries if against in (entry.title, entry.method, entry.run)]
        others = [entry for entry in entries if entry not in base]
        chosen = [(other, one) for one in base for other in others if other.protocol == one.protocol]
        if not chosen:
            there = dict.fromkeys(name for entry in entries for name in (entry.method, entry.run, entry.title))
            raise UserError(f"against={against}: nothing is called so, or everything; there are {', '.join(there)}")
        return chosen, [f"Compared with {against} only."]
    if len(chosen) <= most:
        return chosen, []
    first = {protocol: next(e for e in entries if e.protocol == protocol) for protocol in _protocols(entries)}
    few = [(entry, first[entry.protocol]) for entry in entries if entry is not first[entry.protocol]]
    return few, [
        f"All {len(chosen):,} pairs would be more than {most}: each is compared with {entries[0].title} only. "
        f"Choose another with against=NAME, or allow more with most=NUMBER."
    ]


def _protocols(entries: Sequence[Entry]) -> list[str]:
    return list(dict.fromkeys(entry.protocol for entry in entries))


def _hypotheses(pairs: Sequence[tuple[Entry, Entry]], wanted: Sequence[str]) -> Iterator[tuple[Entry, Entry, str]]:
    """Give what is compared: classification once per pair of runs, all else for each pair of methods."""
    seen: set[tuple[str, str, str]] = set()
    for first, second in pairs:
        for metric in (name for name in CLASSIFICATION if name in wanted and first.run != second.run):
            key = (first.run, second.run, metric)
            if key not in seen and metric in first.outcomes.thresholds and metric in second.outcomes.thresholds:
                seen.add(key)
                yield replace(first, title=first.run), replace(second, title=second.run), metric
    for first, second in pairs:
        for metric in (name for name in wanted if name not in CLASSIFICATION):
            if metric in first.outcomes.thresholds and metric in second.outcomes.thresholds:
                yield first, second, metric


def _row(first: Entry, second: Entry, metric: str, means: np.ndarray) -> dict[str, Any]:
    by_method = metric not in CLASSIFICATION
    low, high = percentile_interval(means[:, first.column(metric)] - means[:, second.column(metric)])
    row: dict[str, Any] = {"protocol": first.protocol if by_method else "", "metric": metric}
    for name, entry in (("first", first), ("second", second)):
        row |= {name: entry.title, f"{name}_run": entry.run, f"{name}_method": entry.method if by_method else ""}
        row[f"{name}_value"] = 100 * entry.outcomes.mean(metric)
    row |= {"difference": row["first_value"] - row["second_value"], "low": 100 * float(low), "high": 100 * float(high)}
    row["oracle"] = metric in first.outcomes.oracle | second.outcomes.oracle
    if metric in RIGHT_OR_WRONG:
        ours, theirs = first.outcomes.values[metric], second.outcomes.values[metric]
        only = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        row |= {"first_only": only[0], "second_only": only[1], "disagree": sum(only), "p": float(mcnemar(*only))}
    return row


def _test(first: Entry, second: Entry, metric: str) -> Hashable:
    """Name a test; what is the same by definition under two names counts once."""
    same = metric == "max_box_acc" or (
        metric == "gt_known_loc" and all("gt_known_loc" in entry.outcomes.oracle for entry in (first, second))
    )
    protocol = "" if metric in CLASSIFICATION else first.protocol
    return protocol, first.title, second.title, "max_box_acc_50" if same else metric


def _judged(table: pd.DataFrame, keys: Sequence[Hashable]) -> tuple[pd.DataFrame, int]:
    """Correct the p-values for their number, decide, and say it in words."""
    table = table.reindex(columns=list(PAIR_COLUMNS))
    family = {key: p for key, p in zip(keys, table["p"], strict=True) if not np.isnan(p)}
    corrected: Mapping[Hashable, float] = dict(zip(family, holm(np.array(list(family.values()))), strict=True))
    table["p_holm"] = [corrected.get(key, np.nan) for key in keys]
    apart = (table["low"] > 0) | (table["high"] < 0)
    table["more_than_noise"] = (table["p_holm"] < ALPHA).where(table["p_holm"].notna(), apart).astype(bool)
    for name in ("first_only", "second_only", "disagree"):
        table[name] = table[name].astype("Int64")
    table["sentence"] = [sentence(row) for _, row in table.iterrows()]
    return table, len(family)


def _summary(entries: Sequence[Entry], samples: pd.DataFrame) -> pd.DataFrame:
    """Make the summaries side by side, on the common samples; PxAP only where these are all."""
    rows = []
    for entry in entries:
        row = {"run": entry.run, "title": entry.title, **entry.row}
        row |= {metric: 100 * entry.outcomes.mean(metric) for metric in entry.outcomes.thresholds}
        row["threshold"] = entry.outcomes.thresholds.get("gt_known_loc", row["threshold"])
        if len(samples) != row["n_samples"]:
            row |= {"pxap": np.nan, "n_samples": len(samples), "n_images": samples["image_id"].nunique()}
        rows.append(row)
    return pd.DataFrame(rows, columns=["run", "title", *SUMMARY_COLUMNS])


def _curves(entries: Sequence[Entry], common: Common) -> pd.DataFrame:
    columns = ["title", "protocol", "iou_threshold", "threshold", "gt_known_loc"]
    tables = [pd.DataFrame(columns=columns)]
    for entry in entries:
        grid = common.runs[entry.run].protocols[entry.protocol].grid()
        for delta, counts in entry.outcomes.curves.items():
            shares = 100 * counts / len(common.sample_ids)
            values = (entry.title, entry.protocol, delta, grid, shares)
            tables.append(pd.DataFrame(dict(zip(columns, values, strict=True))))
    return pd.concat(tables[1:] or tables, ignore_index=True)
