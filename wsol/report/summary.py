"""One summary for every writer (terminal, Markdown, LaTeX, page), with published numbers; a sweep's best settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from wsol.console import are_numbers, print_line, print_table
from wsol.errors import quantity
from wsol.heatmaps.method import BASELINES
from wsol.io import published_file, write_text
from wsol.metrics.localization import READY, is_oracle
from wsol.metrics.statistics import RESAMPLES
from wsol.report.charts import METRIC_NAMES, method_name, method_names
from wsol.report.latex import HEADINGS, NUMBERS, TableOptions, number_texts, or_plain, paper_table
from wsol.report.run import named_intervals
from wsol.tables import SHOWN, is_for_testing

if TYPE_CHECKING:
    from pathlib import Path

    from wsol.localization import Protocol
    from wsol.report.run import Run
    from wsol.tables import Results


TEXTS = ("method", "protocol")
TOOLTIPS = METRIC_NAMES | {
    "method": "heatmap method, and the layer that it was taken from",
    "protocol": "rules of scoring",
    "threshold": "threshold, relative to the score map's maximum",
}
THRESHOLD_NOTES = {"oracle": "oracle*", "fixed": "fixed", "boxes": "", "masks": "", "": ""}


def protocol_labels(summary: pd.DataFrame, protocols: Mapping[str, Protocol]) -> dict[str, str]:
    """Label of every protocol: "a, b" where the rules of both make equal outcomes, whatever the heatmaps are.

    A τ from another run is a rule as well. Results decide nothing.
    """
    groups: dict[Any, list[str]] = {}
    for name in dict.fromkeys(summary["protocol"]):
        rows = summary[summary["protocol"] == name]
        taus = rows["threshold"].where(~rows["threshold_source"].map(is_oracle), -1.0)
        key = (protocols[name].outcome_rules(), *rows["threshold_source"], *taus) if name in protocols else name
        groups.setdefault(key, []).append(name)
    return {name: ", ".join(names) for names in groups.values() for name in names}


def merge_equal(summary: pd.DataFrame, protocols: Mapping[str, Protocol]) -> pd.DataFrame:
    """Make one row of those whose protocols make equal outcomes."""
    labels = protocol_labels(summary, protocols)
    return summary.assign(protocol=summary["protocol"].map(labels)).drop_duplicates(["method", "protocol"])


def titles(summary: pd.DataFrame) -> list[str]:
    """What each row's method is called: in a comparison with its run, and once only."""
    return list(summary["title"] if "title" in summary else summary["method"].map(method_names(summary["method"])))


def display_summary(summary: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Texts of the columns that say something, and which of them are the best of their protocol (bool)."""
    names = [name for name in SHOWN if name in TEXTS or summary[name].notna().any()]
    table = summary[names].reset_index(drop=True)
    texts = table.assign(method=titles(summary)).astype(object)
    for name in (name for name in names if name not in TEXTS):
        texts[name] = number_texts(summary, name)
    if "threshold" in names:
        oracle = summary["threshold_source"].map(is_oracle).to_numpy()
        texts["threshold"] += np.where(oracle & (texts["threshold"] != ""), "*", "")
    return texts, best_cells(table, [name for name in names if name not in (*TEXTS, "threshold")], "protocol")


def best_cells(table: pd.DataFrame, columns: Sequence[str], within: str | None = None) -> pd.DataFrame:
    """Which numbers are the highest of their column among rows of equal `within`: bool, of the table's shape.

    What looks equal with one decimal is equally good, and where all look equal nothing is the best.
    """
    rounded = table[list(columns)].apply(pd.to_numeric).astype(float).round(1)
    groups = rounded.groupby(np.zeros(len(table)) if within is None else table[within].to_numpy(), dropna=False)
    best = (rounded == groups.transform("max")) & (rounded != groups.transform("min"))
    return best.reindex(columns=table.columns, fill_value=False)


def print_summary(results: Results) -> None:
    """Print the summary, best in bold, and the protocol sensitivity where there are several protocols."""
    summary, environment = merge_equal(results.summary, results.protocols), results.environment
    first, role = summary.iloc[0], environment.get("role", "")
    count = quantity(first["n_samples"], "sample")
    if first["n_images"] != first["n_samples"]:
        count += f" (classes on {quantity(first['n_images'], 'image')})"
    split = first["split"] if role in ("", first["split"]) else f"{first['split']}, role {role}"
    view = f"view {first['view']}" if first["view"] else ""
    title = ", ".join(filter(None, (f"{first['dataset']} ({split}, {count})", first["model"], view)))
    print_display(summary, f"{title}; percent")
    for line in filter(None, (_provenance(summary, environment.get("source", {})), _note(summary))):
        print_line(line)
    texts = sensitivity_texts(summary)
    if texts is not None:
        texts = texts.rename(method_names(texts.index)).reset_index()
        print_table(texts, "Protocol sensitivity: GT-known localization", keys=("method",))


def print_display(summary: pd.DataFrame, title: str) -> None:
    """Print the columns of a summary that say something, the best of each protocol in bold."""
    texts, best = display_summary(summary)
    print_table(texts, title, headings=SHOWN, keys=TEXTS, bold=marked(best))


def marked(cells: pd.DataFrame) -> set[tuple[int, str]]:
    """Row and column of the cells that are true."""
    return {(int(row), str(cells.columns[column])) for row, column in np.argwhere(cells.to_numpy())}


def sensitivity_texts(summary: pd.DataFrame) -> pd.DataFrame | None:
    """GT-known localization of each method under each protocol, and by how much these differ; None: nowhere."""
    table = summary.pivot_table("gt_known_loc", "method", "protocol", sort=False)
    table["spread"] = table.max(axis=1) - table.min(axis=1)
    return table.map("{:.1f}".format) if (table["spread"] >= 0.05).any() else None


def write_summary(
    summary: pd.DataFrame, folder: Path, cite: Mapping[str, str] | None = None, options: TableOptions | None = None
) -> None:
    """Write `summary.md`, the columns that say something, rounded, the best of each in bold; and `summary.tex`.

    `cite` says how rows of a protocol are cited: its rules' fingerprint and the version.
    """
    texts, best = display_summary(summary)
    note = _note(summary)
    markdown = markdown_table(texts, best)
    below = f"\n{note.replace('*', chr(92) + '*')}\n" if note else ""
    below += f"\nRules: {'; '.join(cite.values())}.\n" if cite else ""
    below += _published_markdown(summary)
    write_text(folder / "summary.md", markdown + below)
    write_text(folder / "summary.tex", or_plain(partial(latex_summary, summary), options or TableOptions()))


def markdown_table(texts: pd.DataFrame, best: pd.DataFrame | None = None) -> str:
    """Write texts as a table in Markdown, the best in bold."""
    numbers = [are_numbers(column) for _, column in texts.items()]
    marked_texts = texts if best is None else texts.where(~best, "**" + texts + "**")
    heads = [HEADINGS.get(str(name), str(name)) for name in texts]
    rows = [heads, ["---:" if number else "---" for number in numbers], *marked_texts.to_numpy().tolist()]
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def latex_summary(summary: pd.DataFrame, options: TableOptions) -> str:
    """Make the summary a table for a paper."""
    if "title" in summary and set(options.columns or ()) <= set(NUMBERS):  # it says the model, which may be pivoted
        keys = ["title", "protocol"]
    else:
        keys = [*(["model"] if summary["model"].nunique() > 1 else []), "method", "protocol"]
    published = published_beside(summary)[0] if options.published else None
    return paper_table(summary, keys, options, _note(summary), published)


def summary_for_people(results: Results | Run) -> pd.DataFrame:
    """The summary, protocols of equal outcomes as one row, with the 95 % interval of each number: `…_low`, `…_high`."""
    return merge_equal(with_intervals(results.summary, named_intervals(results.metrics)), results.protocols)


def with_intervals(summary: pd.DataFrame, intervals: pd.DataFrame) -> pd.DataFrame:
    """Put the ends of intervals beside the numbers, as `…_low` and `…_high`, by what both have of title and method."""
    by = ["title" if "title" in intervals else "method", "protocol"]
    ends = intervals.pivot_table(["low", "high"], by, "metric")
    ends.columns = [f"{pair[1]}_{pair[0]}" for pair in ends.columns]
    return summary.merge(ends.reset_index(), "left", by)


def html_summary(
    summary: pd.DataFrame, intervals: pd.DataFrame, functions: Mapping[str, str], published: pd.DataFrame | None = None,
    published_note: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Lay out a summary for the macro `summaries`: intervals below the numbers, published numbers beside them.

    `functions` says which heatmap function a method stands for, where its name doesn't.
    """
    others = [] if published is None else _published_rows(published)
    texts, best = display_summary(summary)
    texts = texts.replace({"threshold": r"\*$"}, "", regex=True)  # the note below it says so
    keys = [key for key in SHOWN if key in texts or any(key in row["texts"] for row in others)]
    ranges: dict[Any, str] = {
        (row.method, row.protocol, row.metric): f"{row.low:.1f}–{row.high:.1f}" + ("*" if row.oracle else "")
        for row in intervals.itertuples()
    }
    rows = []
    for number, row in enumerate(summary.to_dict("records")):
        notes = {key: ranges.get((row["method"], row["protocol"], key), "") for key in texts}
        notes["method"] = f"at {row['layer']}" if row["layer"] else ""
        source = row["threshold_source"]
        notes["threshold"] = THRESHOLD_NOTES.get(source, source if is_oracle(source) else "from another run")
        kind = "baseline" if functions.get(row["method"], row["method"]) in BASELINES else ""
        bold = [key for key in texts if best.at[number, key]]
        rows.append({"kind": kind, "texts": dict(texts.iloc[number]), "values": row, "notes": notes, "best": bold})
    return {
        "columns": [(key, SHOWN[key], TOOLTIPS[key], "name" if key in TEXTS else "number") for key in keys],
        "rows": [*rows, *others],
        "resamples": RESAMPLES if len(intervals) else None,
        "oracle": bool(summary["threshold_source"].map(is_oracle).any() or intervals["oracle"].any()),
        "threshold_runs": _threshold_runs(summary),
        "has_published": bool(others),
        "published_note": published_note,
    }


def published_numbers(dataset: str, model: str) -> pd.DataFrame:
    """Numbers that papers give for a dataset and an architecture, as `results/published.csv` has them.

    Case and signs don't matter, other usual names are known; numbers of no particular network match every model.
    """

    def plain(name: str) -> str:
        return re.sub(r"[^a-z0-9]", "", name.lower())

    table = pd.read_csv(published_file(), dtype=str, keep_default_na=False)
    matches = np.ones(len(table), bool)
    for column, name in (("dataset", dataset), ("model", model)):
        names = (table[column] + " " + table[f"{column}_aliases"]).str.split()
        is_named = np.array([plain(name) in map(plain, words) for words in names])
        matches &= is_named | ((table[column] == "") & (column == "model")).to_numpy()
    return table[matches].astype({"value": float}).reset_index(drop=True)


def _note(summary: pd.DataFrame) -> str:
    """Say where thresholds come from, and which numbers are oracles wherever they come from."""
    oracle = summary["threshold_source"].map(is_oracle).any()
    notes = ["τ*: the best on this very split (oracle)"] if oracle else []
    notes += [f"τ from {run}" for run in _threshold_runs(summary)]
    if summary[~summary["threshold_source"].isin(READY)].filter(like="max_box_acc").notna().any(axis=None):
        notes.append("MBA (MaxBoxAcc) is an oracle by definition")
    return "; ".join(notes) + "." if notes else ""


def _threshold_runs(summary: pd.DataFrame) -> list[str]:
    return sorted(source for source in {*summary["threshold_source"]} - {*THRESHOLD_NOTES} if not is_oracle(source))


def _provenance(summary: pd.DataFrame, source: Mapping[str, Any]) -> str:
    """Say what was loaded, where heatmaps were taken, and how classes met logits."""
    if "weights" not in source:
        predictions = "none, so no Top-k"
        if "predictions" in source:
            predictions = f"{source['predictions']} ({source['class_map']})"
        return f"Heatmaps: {source.get('heatmaps')}; predictions: {predictions}."
    layers = summary[summary["layer"] != ""].groupby("layer", sort=False)["method"].unique()
    by_layer = "; ".join(f"{', '.join(map(method_name, methods))} at {layer}" for layer, methods in layers.items())
    classes = f"classes matched by {source.get('class_map')}, predicted over {source.get('predict_over')}"
    return (
        f"Weights: {source.get('weights')}; layers: {by_layer or 'none'}; {classes} ({source.get('competing')} logits)."
    )


def _published_rows(published: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per method, normalization, protocol, split and source."""
    rows, keys = [], ["method", "split", "source", "normalization", "protocol"]
    with_keys = published.reindex(columns=published.columns.union(keys), fill_value="")
    for (method, split, source, normalization, protocol), group in with_keys.groupby(keys, sort=False):
        values = {"method": method, "protocol": protocol} | dict(zip(group["metric"], group["value"], strict=True))
        remarks = [f"normalization {normalization}"] if normalization else []
        remarks += dict.fromkeys(filter(None, group["note"]))
        note = f"published, {split}: {source}" + (f" ({'; '.join(remarks)})" if remarks else "")
        texts = {key: values[key] for key in TEXTS if values[key]}
        numbers = {key: f"{values[key]:.1f}" for key in SHOWN if key in values and key not in TEXTS}
        if numbers:
            row = {"kind": "published", "texts": texts | numbers, "values": values, "notes": {"method": note}}
            rows.append(row | {"best": ()})
    return rows


def published_beside(summary: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Published numbers of the very images that a summary is of; else what they are of, if there are some.

    ILSVRC's 50,000 validation images are the split "val" of most papers and "test" of Choe et al.
    """
    first = summary.iloc[0]
    table, split, count = published_numbers(first["dataset"], first["model"]), first["split"], int(first["n_images"])
    alike = table["split"] == split
    alike |= (table["dataset"] == "ILSVRC") & table["split"].isin(["val", "test"]) & (split in ("val", "test"))
    same = table[alike & (table["n_images"].astype(int) == count)]
    if len(same) or table.empty:
        return same.reset_index(drop=True), ""
    other = table[alike] if alike.any() else table
    splits = "" if alike.any() else f" ({split}, not {' or '.join(other['split'].unique())})"
    return same, f"another set of images: {count:,} of {int(other['n_images'].iloc[0]):,}{splits}"


def _published_markdown(summary: pd.DataFrame) -> str:
    """Published numbers for `summary.md`: a table, or why there is none; "" where nothing is."""
    table, note = published_beside(summary)
    if note:
        return f"\nPublished numbers are of {note}.\n"
    columns = ["method", "model", "metric", "value", "normalization", "protocol", "source"]
    return f"\nPublished:\n\n{markdown_table(table[columns].map(str))}" if len(table) else ""


# What settings are judged by, in this order: column, its name, and what brings it to percent.
MEASURES: dict[str, tuple[str, float]] = {
    "max_box_acc_v2": ("MaxBoxAccV2", 1),
    "max_box_acc": ("MaxBoxAcc", 1),
    "gt_known_loc": ("GT-known localization", 1),
    "pxap": ("PxAP", 1),
    "val_top1": ("validation accuracy", 100),
}
GROUP = ("dataset", "split", "protocol")
OVERRIDE = " (override)"  # ends the name of an override that is called as another column
COLUMNS = ("dataset", "split", "role", "protocol", "method", "settings", "measure", "value", "job")


def judged_parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cut a sweep's table into parts within which values can be compared; jobs that failed are left out.

    Each comes with its measure, the first of `MEASURES` that all its rows have, which is `percent` in the part.
    """
    complete = frame[frame["error"] == ""]
    keys = [key for key in GROUP if key in frame]
    for part in [part for _, part in complete.groupby(keys, sort=False)] if keys else [complete]:
        measure = next((name for name in MEASURES if name in part and len(part) and (part[name] != "").all()), None)
        if measure is not None:
            yield measure, part.assign(percent=part[measure].astype(float) * MEASURES[measure][1])


def best_settings(frame: pd.DataFrame, overrides: Sequence[str], roles: Mapping[str, str]) -> pd.DataFrame:
    """Find the best settings for every method, dataset, split and protocol; of equally good ones the first.

    `frame` is a sweep's table as `sweep.csv` has it, `overrides` those of its columns that say what a job was asked
    for, `roles` what each job's split is for. `settings` names what differs between jobs, as far as it matters.
    """
    rows: list[dict[str, Any]] = []
    for measure, part in judged_parts(frame):
        differ = [name for name in overrides if part[name].nunique() > 1]
        for _, group in part.groupby("method", sort=False) if "method" in part else [("", part)]:
            best = group.iloc[int(group["percent"].to_numpy().argmax())]
            settings = [
                f"{name.removesuffix(OVERRIDE)}={best[name]}" for name in differ if _matters(name, differ, group, best)
            ]
            row = {key: best.get(key, "") for key in (*GROUP, "method", "job")}
            row |= {"role": roles.get(best["job"], ""), "measure": measure, "value": best["percent"]}
            rows.append(row | {"settings": ", ".join(settings) or "all alike"})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _matters(name: str, differ: Sequence[str], group: pd.DataFrame, best: pd.Series) -> bool:
    """Whether the best job would be another with some other value of this one override."""
    others = [other for other in differ if other != name]
    beside = group[(group[others] == best[others]).all(axis=1)]
    return not (beside[name].nunique() > 1 and beside["percent"].nunique() == 1)


def chosen_on(best: pd.DataFrame) -> list[str]:
    """Say on which split settings were chosen, and what that is worth: a sentence or two for each split."""
    sentences = []
    for dataset, split, role in best[["dataset", "split", "role"]].drop_duplicates().values.tolist():
        where = f"{dataset} ({', '.join(filter(None, (split, role and f'role {role}')))})"
        if not dataset:
            sentences.append("Chosen on the validation split of the training.")
        elif is_for_testing(split, role):
            sentences.append(
                f"Chosen on {where}, the test split itself: an oracle, not a result. Choose settings on a split that "
                "is not for testing, and run the best once on this one."
            )
        else:
            sentences.append(f"Chosen on {where}: now run them once on the test split.")
    return sentences
