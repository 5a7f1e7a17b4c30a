"""A comparison for people: in sentences, as `compare.csv`, `compare.tex` for a paper, and `compare.html` to read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from wsol.errors import quantity
from wsol.heatmaps.method import BASELINES
from wsol.io import atomic_write, write_text
from wsol.metrics.faithfulness_presets import FAITHFULNESS_METRICS
from wsol.metrics.statistics import ALPHA
from wsol.report.charts import METRIC_NAMES, format_number, method_name, series_styles
from wsol.report.faithfulness import html_faithfulness, latex_faithfulness
from wsol.report.latex import TableOptions, latex_table, or_plain
from wsol.report.run import Run
from wsol.report.summary import html_summary, latex_summary, with_intervals
from wsol.report.templating import fill, render

if TYPE_CHECKING:
    from wsol.report.compare import Comparison

MOST_SENTENCES = 6  # before the others have to be unfolded
HEADINGS = {
    "first": "A", "second": "B", "first_value": "A (%)", "second_value": "B (%)", "difference": "A − B",
    "interval": "95 % interval",
}  # fmt: skip
Row = Mapping[str, Any] | pd.Series  # of a comparison's pairs


def write_comparison(
    comparison: Comparison, folder: Path, command: str = "", options: TableOptions | None = None
) -> None:
    """Write a comparison into a folder, each file whole or not at all; `command` is what was typed, to repeat it."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / "compare.csv") as path:
        comparison.pairs.to_csv(path, index=False, lineterminator="\n")
    write_text(folder / "compare.tex", or_plain(partial(_latex, comparison), options or TableOptions()))
    write_text(folder / "compare.html", _page(comparison, command))


def _page(comparison: Comparison, command: str) -> str:
    summary, judged = comparison.summary, comparison.faithfulness
    functions = dict(zip(summary["title"], summary["method"], strict=True))
    is_faithfulness = comparison.pairs["metric"].isin(FAITHFULNESS_METRICS)
    preset = np.where(is_faithfulness, " (" + comparison.pairs["protocol"] + ")", "")
    # Pairs of faithfulness are shown whatever the page's protocol is.
    pairs = comparison.pairs.assign(
        rules=comparison.pairs["protocol"].where(~is_faithfulness, ""),
        name=comparison.pairs["metric"].map(METRIC_NAMES) + preset,
        metric=comparison.pairs["metric"] + preset,
    )
    first, names = summary.iloc[0], dict(zip(pairs["metric"], pairs["name"], strict=True))
    by_protocol = headlines(comparison.pairs).groupby("protocol", sort=False)["sentence"]
    return render(
        "compare.html.j2",
        title=f"Comparison on {counted(first)} of {first['dataset']} ({first['split']})",
        protocols=list(dict.fromkeys(summary["protocol"])),
        notes=comparison.notes,
        tables=_tables(comparison, functions),
        findings=_findings(summary, pairs),
        sentences=[(protocol, list(sentences)) for protocol, sentences in by_protocol],
        most=MOST_SENTENCES,
        meaning=meaning(pairs, comparison.tests),
        faithfulness=None if judged is None else html_faithfulness(judged),
        metrics=names,
        chosen="gt_known_loc" if "gt_known_loc" in names else next(iter(names)),
        tested=bool(pairs["p_holm"].notna().any()),
        pairs=pairs.to_dict("records"),
        runs=[_run_facts(label, run) for label, run in comparison.aligned.runs.items()],
        command=command,
        data=_chart_data(comparison, functions),
        format_number=format_number,
        format_interval=format_interval,
        format_p=format_p,
    )


def _findings(summary: pd.DataFrame, pairs: pd.DataFrame) -> dict[str, list[str]]:
    """What the comparison means, by protocol, in a few sentences."""
    sentences, where = dict[str, list[str]](), f"of {counted(summary.iloc[0])} at IoU 0.5"
    for protocol, part in pairs[pairs["metric"] == "gt_known_loc"].groupby("protocol", sort=False):
        tests = part[["first", "second", "more_than_noise"]].to_numpy().tolist()
        p = {pair: 0.0 if differ else 1.0 for a, b, differ in tests for pair in ((a, b), (b, a))}
        rows = summary[summary["protocol"] == protocol].sort_values("gt_known_loc", ascending=False, kind="stable")
        baselines = list(rows["title"][rows["method"].isin(BASELINES)])
        sentences[str(protocol)] = findings(rows.set_index("title")["gt_known_loc"], baselines, p, where)
    return sentences


def _tables(comparison: Comparison, functions: Mapping[str, str]) -> Markup:
    """Lay out the summaries side by side, one below the other for each protocol."""
    summary = comparison.summary.assign(method=comparison.summary["title"])
    tables = summary_tables(summary, comparison.intervals, functions)
    return fill("summaries", {name: table | {"protocols": [name]} for name, table in tables.items()})


def summary_tables(
    summary: pd.DataFrame, intervals: pd.DataFrame, functions: Mapping[str, str], *published: Any
) -> dict[str, dict[str, Any]]:
    """Lay out a summary for the macro `summaries`: a table for each protocol, with a row per method."""
    tables = {}
    for protocol, rows in summary.groupby("protocol", sort=False):
        table = html_summary(rows, intervals[intervals["protocol"] == protocol], functions, *published)
        columns = [column for column in table["columns"] if column[0] != "protocol"]
        tables[str(protocol)] = table | {"columns": columns, "sentences": (), "tests": 0}
    return tables


def findings(
    values: pd.Series, baselines: Collection[str], p: Mapping[tuple[str, str], float], located: str
) -> list[str]:
    """Say which method is the best, what it beats, and what it can't be told apart from, in sentences.

    `values` are percent by title, the highest first; `p` are corrected, of pairs in both orders. `located` says of what
    GT-known localization is; "": the values are PxAP.
    """
    names, base = [name for name in values.index if name not in baselines], next(iter(baselines), None)
    if not names or values.isna().all():
        return []
    (best, *others), called = names, {name: with_article(name) for name in values.index}
    text = (
        f"{called[best]} {f'localizes {values[best]:.1f} % {located}' if located else f'has {values[best]:.1f} % PxAP'}"
    )
    if base is not None:
        more = values[best] - values[base]
        text += f", {abs(more):.1f} points {'more' if more >= 0 else 'less'} than {called[base]}"
        text += " (not significant)" if p.get((best, base), 0) >= ALPHA else ""
    same = [called[name] for name in others if p.get((best, name), 0) >= ALPHA]
    less = [name for name in others if p.get((best, name), 1) < ALPHA]
    weak = [called[name] for name in others if base is not None and p.get((name, base), 0) >= ALPHA]
    sentences = [f"{text}."] + ([f"{listed([called[best], *same])} cannot be told apart."] if same else [])
    if less:
        gaps = list(dict.fromkeys(f"{values[best] - values[name]:.1f}" for name in (less[0], less[-1])))
        beaten = listed([called[name] for name in less])
        sentences.append(f"{beaten} localize{'s' * (len(less) == 1)} less, by {' to '.join(gaps)} points.")
    sentences += [f"Not significantly more than {called[base]}: {listed(weak)}."] if weak else []
    return [capitalized(sentence) for sentence in sentences]


def listed(names: Sequence[str]) -> str:
    """Join names as in a sentence: "a, b and c"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def sentence(row: Row, preset: str = "") -> str:
    """Say what a row of a comparison's pairs means: "LayerCAM localizes 75.2 % of …, 2.1 points more than CAM …".

    `preset` is that of a metric of faithfulness, which may be percent or logits.
    """
    better, worse, low, high = with_article(row["first"]), with_article(row["second"]), row["low"], row["high"]
    if row["difference"] < 0:
        better, worse, low, high = worse, better, -high, -low
    name = METRIC_NAMES[row["metric"]] + (f" ({preset})" if preset else "")
    tested, points, percent = pd.notna(row["disagree"]), abs(row["difference"]), "" if preset else " %"
    value, images = max(row["first_value"], row["second_value"]), counted(row)
    digits = 2 if 0.005 <= points < 0.05 or (row["more_than_noise"] and low < 0.05) else 1
    gap = f"{points:.{digits}f}"
    gap += "" if preset else " point" if gap == "1.0" else " points"
    evidence = f"95 % interval {format_number(low, digits)} to {format_number(high, digits)}"
    if pd.notna(row["p_holm"]):
        p = format_p(row["p_holm"])
        evidence += f", p {p}" if p.startswith("<") else f", p = {p}"
    evidence += f"; {int(row['disagree']):,} differ" if tested else ""
    located = f"localizes {value:.1f} % of {images} at IoU 0.5"
    share = located if row["metric"] == "gt_known_loc" else f"has {value:.1f}{percent} {name} on {images}"
    if tested and row["disagree"] == 0:
        text = f"{better} and {worse} have the same outcome in {name} on each of {images}."
    elif points < 0.005:
        text = f"{better} and {worse} are equal in {name}: {value:.1f}{percent} on {images} ({evidence})."
    elif row["more_than_noise"]:
        text = f"{better} {share}, {gap} more than {worse} (significant: {evidence})."
    else:
        many = "" if low <= 0 <= high else " among so many tests"
        text = f"{better} {share}, {gap} more than {worse}: they cannot be told apart{many} ({evidence})."
    return capitalized(text)


def with_article(title: str) -> str:
    """Name a method within a sentence: "the center baseline"."""
    return f"the {title}" if title.partition(" (")[0].endswith(" baseline") else title


def capitalized(text: str) -> str:
    """Begin a sentence; methods' own names stay as they are."""
    return text[0].upper() + text[1:] if text.startswith("the ") else text


def counted(row: Row) -> str:
    """Say how many images there were, and samples where these are not the same."""
    images, samples = int(row["n_images"]), int(row["n_samples"])
    text = quantity(images, "image")
    return text if images == samples else f"{quantity(samples, 'sample')} of {text}"


def format_interval(row: Row) -> str:
    """Write an interval of a difference; one that is optimistic has a star."""
    return f"{format_number(row['low'])} to {format_number(row['high'])}{'*' if row['oracle'] else ''}"


def format_p(p: float) -> str:
    """Write a p-value with as many digits as matter."""
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{float(f'{p:.2f}'):g}"


def headlines(pairs: pd.DataFrame) -> pd.DataFrame:
    """Choose the rows that a reader wants first: Top-1 classification and GT-known localization, if it is there."""
    if (pairs["metric"] == "gt_known_loc").any():
        return pairs[pairs["metric"].isin(("gt_known_loc", "top1_cls"))]
    localization = ~pairs["metric"].isin(FAITHFULNESS_METRICS)
    return pairs[localization] if localization.any() else pairs


def meaning(pairs: pd.DataFrame, tests: int) -> list[str]:
    """Say what the intervals, p-values and verdicts of a comparison mean, as far as it has them."""
    notes = ["Intervals: 95 %, of the difference, by a bootstrap over images in which both see the same resamples."]
    if tests:
        notes.append(
            f"p: McNemar's exact test, corrected by Holm's method for {quantity(tests, 'test')}; below "
            f"{ALPHA:g} a difference is significant. What is not right or wrong (mean IoU, MaxBoxAccV2, PxAP) is "
            f"not tested: there the interval decides, uncorrected."
        )
    if pairs["oracle"].any():
        notes.append(
            "*: τ is an oracle threshold, the best on these very images, as it always is in MaxBoxAcc. It is held in "
            "all resamples, so the interval is optimistic: it covers the true value less often than in 95 of 100 cases."
        )
    return notes


def _latex(comparison: Comparison, options: TableOptions) -> str:
    """Make a table of the summaries, and one of the pairs in the chosen metrics; all others are in `compare.csv`."""
    summary, pairs, called = comparison.summary, comparison.pairs, dict(options.names)
    for title, method in zip(summary["title"], summary["method"], strict=True):
        name = method if title.startswith(method) else method_name(method)  # its own, where another is called alike
        called.setdefault(title, title.replace(name, called.get(method, name), 1))
    summary = with_intervals(summary, comparison.intervals.rename(columns={"method": "title"}))
    chosen = pairs["metric"].isin(options.columns or ())
    rows = pairs[chosen] if chosen.any() else headlines(pairs)
    table = rows[["protocol", "metric", "first", "second"]].replace(called).replace(METRIC_NAMES)
    for name in ("first_value", "second_value", "difference"):
        table[name] = rows[name].map(format_number)
    if options.interval != "none":
        table["interval"] = [format_interval(row) for _, row in rows.iterrows()]
    table["p"] = ["" if pd.isna(p) else format_p(p) for p in rows["p_holm"]]
    note = f"{counted(rows.iloc[0])}. {' '.join(meaning(comparison.pairs, comparison.tests))}"
    of_pairs = latex_table(table.reset_index(drop=True), headings=HEADINGS, note=note)
    options = replace(options, names=called)
    tables = [latex_summary(summary, options), of_pairs]
    if comparison.faithfulness is not None:
        tables.append(latex_faithfulness(comparison.faithfulness, options))
    return "\\par\\medskip\n".join(tables)


def _chart_data(comparison: Comparison, functions: Mapping[str, str]) -> dict[str, Any]:
    """Accuracy over τ on the common samples, as numbers of samples, which are exact and short."""
    styles = series_styles(list(functions), functions)
    charts: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for entry, tau in zip(comparison.entries, comparison.summary["threshold"], strict=True):
        for delta, right in entry.outcomes.curves.items() if pd.notna(tau) else ():  # not of boxes that were given
            counts = np.rint(right * len(comparison.aligned.sample_ids)).astype(int)
            series = {"name": entry.title, "x": entry.grid.round(6), "tau": tau, "right": counts}
            charts.setdefault((entry.protocol, delta), []).append(series)
    return {
        "count": len(comparison.aligned.sample_ids),
        "methods": {name: {"color": style.variable, "dash": style.dash} for name, style in styles.items()},
        "charts": [{"protocol": key[0], "delta": key[1], "series": series} for key, series in charts.items()],
    }


def _run_facts(label: str, run: Run) -> dict[str, Any]:
    facts = {name: run.source.get(name) or "" for name in ("model", "weights", "view")}
    return {"run": label, "folder": run.folder.resolve(), **facts, "started": run.environment.get("started", "")}
