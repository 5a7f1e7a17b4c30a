"""The page of a comparison: summaries side by side, every pair in words and numbers, curves, and what was compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pandas as pd

from wsol.report.comparison import ALPHA, Comparison
from wsol.report.names import METRIC_NAMES
from wsol.report.palette import BASELINES, series_styles
from wsol.report.run import Run
from wsol.report.sentences import counted, headlines, meaning, number, shown_interval, shown_p
from wsol.report.summary_table import shown_summary
from wsol.report.templating import render

__all__ = ["comparison_page"]


def comparison_page(comparison: Comparison, command: str = "") -> str:
    """Make the page: one file that needs nothing else.

    Parameters
    ----------
    comparison : Comparison
    command : str
        What was typed, to repeat it.

    Returns
    -------
    str
        HTML.
    """
    summary, pairs = comparison.summary, comparison.pairs
    baselines = {
        title: method for title, method in zip(summary["title"], summary["method"], strict=True) if method in BASELINES
    }
    first, chosen = summary.iloc[0], headlines(pairs)
    metrics = list(dict.fromkeys(pairs["metric"]))
    return render(
        "compare.html.j2",
        title=f"Comparison on {first['dataset']} ({first['split']})",
        lead=f"{', '.join(comparison.common.runs)}: {counted(first)}.",
        notes=comparison.notes,
        table=shown_summary(summary.assign(method=summary["title"]), comparison.intervals, baselines),
        sentences=[(protocol, list(rows["sentence"])) for protocol, rows in chosen.groupby("protocol", sort=False)],
        meaning=meaning(pairs, comparison.tests, ALPHA),
        metrics=[(metric, METRIC_NAMES[metric]) for metric in metrics],
        chosen="gt_known_loc" if "gt_known_loc" in metrics else metrics[0],
        tested=comparison.tests > 0,
        pairs=[_pair(row) for _, row in pairs.iterrows()],
        runs=[_about(label, run) for label, run in comparison.common.runs.items()],
        command=command,
        data=_charts(comparison, baselines),
    )


def _pair(row: pd.Series) -> dict[str, Any]:
    tested = pd.notna(row["p_holm"])
    return {
        **{name: str(row[name]) for name in ("metric", "protocol", "first", "second")},
        "difference": number(row["difference"]),
        "exactly": f"{row['difference']:.9f}",
        "interval": shown_interval(row),
        "first_only": f"{row['first_only']:,}" if tested else "",
        "second_only": f"{row['second_only']:,}" if tested else "",
        "p": shown_p(row["p_holm"], name=False) if tested else "",
        "p_exactly": f"{row['p_holm']:.6g}" if tested else "",
        "more_than_noise": bool(row["more_than_noise"]),
    }


def _charts(comparison: Comparison, baselines: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy over τ on the common samples, as numbers of samples, which are exact and short."""
    titles = list(dict.fromkeys(comparison.summary["title"]))
    styles, count = series_styles(titles, baselines), len(comparison.common.sample_ids)
    summary = comparison.summary
    pairs = zip(summary["title"], summary["protocol"], strict=True)
    thresholds = dict(zip(pairs, summary["threshold"], strict=True))
    charts: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for keys, rows in comparison.curves.groupby(["protocol", "iou_threshold", "title"], sort=False):
        protocol, delta, title = cast(tuple[str, float, str], keys)
        series = {"name": title, "x": rows["threshold"].to_numpy().round(6), "tau": thresholds[title, protocol]}
        series["right"] = (rows["gt_known_loc"].to_numpy(float) / 100 * count).round().astype(int)
        charts.setdefault((protocol, delta), []).append(series)
    return {
        "count": count,
        "methods": {name: {"color": style.variable, "dash": style.dash} for name, style in styles.items()},
        "charts": [{"protocol": key[0], "delta": key[1], "series": series} for key, series in charts.items()],
    }


def _about(label: str, run: Run) -> list[tuple[str, str]]:
    source, about = run.source, run.environment
    facts = {"run": label, "folder": run.folder.resolve(), "model": source.get("model")}
    facts |= {"weights": source.get("weights"), "view": source.get("view"), "started": about.get("started")}
    return [(name, "" if value is None else str(value)) for name, value in facts.items()]
