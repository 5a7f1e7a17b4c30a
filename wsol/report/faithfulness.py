"""Faithfulness for people: means with intervals, paired tests, and one table for every writer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from wsol.console import print_line, print_table
from wsol.errors import quantity
from wsol.io import reading, write_text
from wsol.metrics.faithfulness_presets import FAITHFULNESS_METRICS, LOW_IS_GOOD, Faithfulness, load_faithfulness
from wsol.metrics.statistics import (
    ALPHA,
    RESAMPLES,
    holm,
    mcnemar,
    percentile_interval,
    resampled_means,
    signed_rank,
)
from wsol.report.charts import METRIC_NAMES, format_number, method_name
from wsol.report.latex import TableOptions, latex_table
from wsol.report.templating import fill

if TYPE_CHECKING:
    from wsol.report.run import Run
    from wsol.tables import Results

NO_DIFFERENCE = 3  # decimals: what is less is rounding of the network, on which no test may build
PRESETS_NOTE = (
    "Pixels are taken away in the order of the heatmap, and the network is asked again: by presets, as papers and "
    "libraries have them. Percent; what a preset counts in logits as it is."
)


@dataclass(frozen=True, eq=False)
class Judged:
    """What methods were measured at, on the same samples, and which differences are significant.

    `means` has `preset, metric, method, value, low, high, best, differs`: the last says that a method is significantly
    worse than the best. `pairs` has columns of `wsol.report.compare.PAIR_COLUMNS`.
    """

    means: pd.DataFrame
    pairs: pd.DataFrame

    @property
    def presets(self) -> Iterator[tuple[str, pd.DataFrame]]:
        """The means of each preset."""
        return ((str(name), part) for name, part in self.means.groupby("preset", sort=False))


def presets_of(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Faithfulness]:
    """Presets of these names as a run recorded them; a run that didn't has the released ones."""
    with reading(Path("config.yaml")):
        presets = dict(config.get("faithfulness") or {}).items()
        recorded = [Faithfulness(**{"name": name, **fields}) for name, fields in presets]
    by_name = {preset.name: preset for preset in recorded}
    return {name: by_name.get(name) or load_faithfulness(name) for name in names}


def measured_values(rows: pd.DataFrame, presets: Mapping[str, Faithfulness]) -> pd.DataFrame:
    """Bring `faithfulness.parquet` to percent, or logits: a row per sample, columns of preset, metric and method."""
    keys = ["preset", "metric", "method"]
    rows = rows[rows["share"].isna()]
    values = rows.set_index(["sample_id", *keys])["value"].unstack(keys, sort=False)
    order = product(presets, FAITHFULNESS_METRICS, rows["method"].unique())
    values = values[[column for column in order if column in values.columns]]
    logits = [presets[preset].score == "logit" and metric != "increase" for preset, metric, _ in columns_of(values)]
    return values * np.where(logits, 1.0, 100.0)


def columns_of(values: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Preset, metric and method of each column."""
    return list(map(tuple, values.columns.to_frame().to_numpy().tolist()))


def judge(
    values: pd.DataFrame, image: np.ndarray, pairs: Collection[tuple[str, str]], resamples: int = RESAMPLES,
    seed: int = 0,
) -> Judged:  # fmt: skip
    """Bootstrap the means of `measured_values`, and test each pair of methods under each preset and metric.

    Images (N,) are drawn with all their samples, the same for all columns. Tests are Wilcoxon's, over images, McNemar's
    where an image has one sample that is right or wrong, corrected by Holm's method for all of them. A difference is
    significant where the interval of the mean says so as well: Wilcoxon's test is of the median.
    """
    drawn = resampled_means(values.to_numpy(), image, resamples, seed)
    at = {column: number for number, column in enumerate(columns_of(values))}
    low, high = percentile_interval(drawn)
    means = values.columns.to_frame(index=False).assign(value=values.mean().to_numpy(), low=low, high=high)
    rows, counts = list[dict[str, Any]](), {"n_images": int(image.max()) + 1, "n_samples": len(values)}
    for preset, metric in dict.fromkeys(column[:2] for column in columns_of(values)):
        for first, second in pairs:
            column, other = at.get((preset, metric, first)), at.get((preset, metric, second))
            if column is None or other is None:
                continue
            one, two = values.iloc[:, column].to_numpy(), values.iloc[:, other].to_numpy()
            ends = percentile_interval(drawn[:, column] - drawn[:, other]).tolist()
            about = {"protocol": preset, "metric": metric, "first": first, "second": second, "oracle": False}
            about |= {"first_value": one.mean(), "second_value": two.mean(), "difference": one.mean() - two.mean()}
            rows.append(counts | about | {"low": ends[0], "high": ends[1]} | _test(one, two, image, metric))
    table = pd.DataFrame(rows)
    if rows:
        table["p_holm"] = holm(table["p"].to_numpy())
        table["more_than_noise"] = (table["p_holm"] < ALPHA) & ((table["low"] > 0) | (table["high"] < 0))
    return Judged(_marked(means, table), table)


def _test(one: np.ndarray, two: np.ndarray, image: np.ndarray, metric: str) -> dict[str, Any]:
    """Test whether what two methods gave for the same samples differs."""
    counts = np.bincount(image)
    if metric == "increase" and counts.max() == 1 and np.isin((one, two), (0, 100)).all():
        first_only, second_only = int((one > two).sum()), int((two > one).sum())
        only = {"first_only": first_only, "second_only": second_only, "disagree": first_only + second_only}
        return only | {"p": float(mcnemar(first_only, second_only))}
    return {"p": signed_rank((np.bincount(image, one - two) / counts).round(NO_DIFFERENCE))}


def _marked(means: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Add which means are the best of their column, as they look with one decimal, and which significantly worse."""
    goodness = np.where(means["metric"].isin(LOW_IS_GOOD), -1, 1) * means["value"]
    column = [means["preset"], means["metric"]]
    looks = goodness.round(1).groupby(column)
    best = looks.transform("max").eq(goodness.round(1)) & looks.transform("nunique").gt(1)
    first = means["method"].to_numpy()[goodness.groupby(column).transform("idxmax").to_numpy()]
    significant = pairs[pairs["more_than_noise"]] if len(pairs) else pairs
    unlike = {(row.protocol, row.metric, frozenset((row.first, row.second))) for row in significant.itertuples()}
    keys = zip(means["preset"], means["metric"], map(frozenset, zip(means["method"], first, strict=True)), strict=True)
    return means.assign(best=best, differs=[key in unlike for key in keys])


def measured_by(run: Results | Run) -> tuple[pd.DataFrame, np.ndarray]:
    """What a run measured, and which image each sample is of."""
    values = measured_values(run.faithfulness, presets_of(run.config, run.faithfulness["preset"].unique()))
    return values, pd.factorize(run.samples.set_index("sample_id")["image_id"].loc[values.index])[0]


def judge_run(values: pd.DataFrame, image: np.ndarray) -> Judged:
    """Judge each pair of a run's methods."""
    return judge(values, image, list(combinations(dict.fromkeys(values.columns.get_level_values("method")), 2)))


def tests_note(judged: Judged) -> str:
    """Say what the daggers of a table mean, as far as there may be some."""
    if judged.pairs.empty:
        return "In brackets: 95 % interval over images."
    return (
        f"In brackets: 95 % interval over images. †: significantly worse than the best of its column. Tested pair by "
        f"pair on the same images: Wilcoxon's signed-rank test, McNemar's for increase, corrected by Holm's method for "
        f"{quantity(len(judged.pairs), 'test')}, level {ALPHA:g}; the mean difference's interval must exclude 0, too."
    )


def heading(metric: str) -> str:
    """Name a metric, and say which way is good."""
    return f"{METRIC_NAMES[metric]} {'↓' if metric in LOW_IS_GOOD else '↑'}"


def _texts(means: pd.DataFrame, interval: bool = True) -> pd.DataFrame:
    """Lay out means: a row per method, and preset where there are several; texts, and "" where nothing was measured."""
    texts = means["value"].map(format_number) + means["differs"].map({True: "†", False: ""})
    if interval:
        texts += " [" + means["low"].map(format_number) + ", " + means["high"].map(format_number) + "]"
    table = means.assign(text=texts).set_index(["preset", "method", "metric"])["text"].unstack("metric", sort=False)
    return table[list(dict.fromkeys(means["metric"]))].fillna("")


def print_faithfulness(judged: Judged, called: Callable[[str], str] = str) -> None:
    """Print a table for each preset, the best of each column in bold; `called` says how a method is."""
    for preset, part in judged.presets:
        table = _texts(part).droplevel("preset").rename_axis(columns=None)
        best = {(row.method, row.metric) for row in part[part["best"]].itertuples()}
        bold = {(at, str(name)) for at, method in enumerate(table.index) for name in table if (method, name) in best}
        headings = {str(name): heading(str(name)) for name in table}
        table = table.rename(index=called).reset_index()
        print_table(table, f"Faithfulness, {preset}", headings=headings, keys=("method",), bold=bold)
    print_line(tests_note(judged))


def html_faithfulness(judged: Judged, labels: Mapping[str, str] | None = None) -> Markup:
    """Lay out a table for each preset; `labels` says how methods are called."""
    tables = {}
    for preset, part in judged.presets:
        metrics = [(name, heading(name)) for name in dict.fromkeys(part["metric"])]
        rows = {(labels or {}).get(str(method), str(method)): of.set_index("metric").to_dict("index")
                for method, of in part.groupby("method", sort=False)}  # fmt: skip
        tables[preset] = metrics, rows
    return fill("faithfulness_tables", tables, format_number, PRESETS_NOTE, tests_note(judged))


def latex_faithfulness(judged: Judged, options: TableOptions) -> str:
    """Make a table for a paper: a row per preset and method."""
    table = _texts(judged.means, options.interval not in (False, "none"))
    best = judged.means.set_index(["preset", "method", "metric"])["best"].unstack("metric", sort=False)
    bold = np.where(best[table.columns].fillna(False).to_numpy(bool), "textbf:--rwrap;", "")
    called = {str(key): str(name) for key, name in options.names.items()}
    rows = table.index.to_frame(index=False)
    rows["preset"] = [called.get(name, name) for name in rows["preset"]]
    rows["method"] = [called.get(name, method_name(name)) for name in rows["method"]]
    headings = {str(name): called.get(str(name), heading(str(name))) for name in table}
    marks = np.hstack([np.full(rows.shape, ""), bold])
    texts = pd.concat([rows, table.reset_index(drop=True)], axis=1)
    return latex_table(texts, marks, headings=headings, note=f"{PRESETS_NOTE} {tests_note(judged)}")


def write_faithfulness(run: Results | Run, folder: Path, options: TableOptions) -> None:
    """Write `faithfulness.tex` of a run in which it was measured."""
    if len(run.faithfulness):
        write_text(folder / "faithfulness.tex", latex_faithfulness(judge_run(*measured_by(run)), options))
