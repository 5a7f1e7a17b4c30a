"""Runs side by side: what they share, and whether two methods differ significantly, on the same images."""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from wsol.errors import UserError, first_names, quantity
from wsol.localization import Protocol
from wsol.metrics.faithfulness_presets import FAITHFULNESS_METRICS, Faithfulness
from wsol.metrics.localization import METRICS, RIGHT_OR_WRONG, Outcomes, is_oracle, sample_outcomes
from wsol.metrics.statistics import ALPHA, RESAMPLES, holm, interval_table, mcnemar, percentile_interval, resample
from wsol.report.charts import method_names
from wsol.report.compare_page import sentence
from wsol.report.faithfulness import Judged, columns_of, judge, measured_values, presets_of
from wsol.report.run import Run
from wsol.report.summary import protocol_labels
from wsol.tables import SUMMARY_COLUMNS

logger = logging.getLogger("wsol")

NOT_THE_IMAGES = {"root", "class_map", "length", "_target_"}  # keys of a dataset that don't change what a sample shows
ASKED = ("dataset", "model", "methods", "view", "flip", "score", "predict_over", "heatmaps", "threshold_from", "limit")
NOT_THE_RULES = {"name", "threshold"}  # a fixed τ is told by the summary's threshold_source
SAMPLE_COLUMNS = ["class", "width", "height", "true_boxes"]
THRESHOLD_SOURCES = {
    "oracle": "an oracle, which has an advantage", "fixed": "a fixed value", "boxes": "none", "masks": "none",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class AlignedRuns:
    """Runs that can be compared, by a label that tells each from the others: its model, or its folder."""

    runs: dict[str, Run]
    sample_ids: list[str]  # that all runs have, in the order of the first
    protocols: dict[str, Protocol]  # that all runs were scored under
    notes: list[str]  # what was left out, and what isn't alike

    def samples(self, run: Run) -> pd.DataFrame:
        """Return a run's samples that all runs share, in the common order."""
        return run.samples.set_index("sample_id", drop=False).loc[self.sample_ids].reset_index(drop=True)


def find_runs(patterns: Sequence[str | Path]) -> list[Run]:
    """Open the runs that folders and patterns name; a pattern leaves out, with a warning, what is no whole run."""
    runs: dict[Path, Run] = {}
    for pattern in (Path(pattern).expanduser() for pattern in patterns):
        is_pattern = glob.has_magic(str(pattern)) and not pattern.is_dir()
        folders = [Path(path) for path in sorted(glob.glob(f"{pattern}/"))] if is_pattern else [pattern]
        count = len(runs)
        for folder in folders:
            try:
                runs.setdefault(folder.resolve(), Run.open(folder))
            except UserError as error:
                if not is_pattern:
                    raise
                logger.warning("left out: %s", error)
        if len(runs) == count:
            raise UserError(f"runs: {pattern} finds no whole run that isn't named already")
    if not runs:
        raise UserError("runs: name at least one run's folder, as in 'runs=[results/runs/A,results/runs/B]'")
    return list(runs.values())


def align_runs(runs: Sequence[Run], shared: bool = False) -> AlignedRuns:
    """Find what runs can be compared on.

    Where images or protocols differ this is refused, or, with `shared`, what all runs share is taken and the rest
    told. Samples of one name that aren't the same (class, size, ground truth) are refused always.
    """
    labeled = dict(zip(_labels(runs), runs, strict=True))
    first, *others = labeled
    ids, protocols = pd.Index(runs[0].samples["sample_id"]), runs[0].protocols
    problems, caveats = list[str](), list[str]()
    for other in others:
        names, one, two = (first, other), labeled[first], labeled[other]
        other_ids = pd.Index(two.samples["sample_id"])
        data = ({key: run.source.get(key) for key in ("dataset", "split")} for run in (one, two))
        problems += _unlike(names, *data) or _unlike(names, _options(one), _options(two))
        problems += _only(first, ids, other, other_ids, "samples") + _only(other, other_ids, first, ids, "samples")
        problems += _only(first, protocols, other, two.protocols, "protocols")
        problems += _only(other, two.protocols, first, protocols, "protocols")
        ids = ids[ids.isin(other_ids)]
        _check_same_samples(names, _samples(one, ids), _samples(two, ids))
        common = {name: rules for name, rules in protocols.items() if name in two.protocols}
        unlike = {name: _unlike(names, _rules(rules), _rules(two.protocols[name])) for name, rules in common.items()}
        problems += [text for texts in unlike.values() for text in texts]
        protocols = {name: rules for name, rules in common.items() if not unlike[name]}
        caveats += [f"{text}." for text in _unlike(names, _circumstances(one, common), _circumstances(two, common))]
    if not len(ids) or not protocols:
        raise UserError(f"nothing is left to compare: {'; '.join(problems)}")
    if problems and not shared:
        raise UserError(f"{'; '.join(problems)}. Pass shared=true to compare what the runs share")
    if problems:
        basis = f"{quantity(len(ids), 'sample')} under {', '.join(protocols)}"
        caveats.insert(0, f"{'; '.join(problems)}. Compared on {basis}.")
    return AlignedRuns(labeled, list(ids), protocols, caveats)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by the first of these that tells all apart: model, folder, path."""
    ways = (
        [str(run.source.get("model") or "") for run in runs],
        [run.folder.resolve().name for run in runs],
        [str(run.folder.resolve()) for run in runs],
    )
    return next(labels for labels in ways if len(set(labels)) == len(runs) and all(labels))


def _unlike(names: tuple[str, str], first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say which facts of two runs differ, where both say something."""
    keys = [key for key in {**first, **other} if first and other and first.get(key) != other.get(key)]
    return [f"{key}: {first.get(key)} in {names[0]}, {other.get(key)} in {names[1]}" for key in keys]


def _only(has: str, names: Collection[str], lacks: str, others: Collection[str], what: str) -> list[str]:
    extra = [name for name in names if name not in others]
    return [f"{has} has {what} that {lacks} has not: {first_names(extra, 3)}"] if extra else []


def _options(run: Run) -> dict[str, Any]:
    """Those of the dataset, as far as the run wrote them down."""
    options = run.config.get("dataset") or {}
    return {f"dataset.{key}": value for key, value in options.items() if key not in NOT_THE_IMAGES}


def _rules(protocol: Protocol) -> dict[str, Any]:
    return {f"{protocol.name}.{key}": value for key, value in asdict(protocol).items() if key not in NOT_THE_RULES}


def _circumstances(run: Run, protocols: Collection[str]) -> dict[str, Any]:
    """What makes a comparison lame where it differs, though it can be made."""
    rows = run.summary[run.summary["protocol"].isin(list(protocols))]
    named = rows["threshold_source"].where(~rows["threshold_source"].map(is_oracle), "oracle")
    sources = [THRESHOLD_SOURCES.get(source, "another split") for source in named]
    facts = {"classes that compete for Top-1 and Top-5": run.source.get("competing"), "view": run.source.get("view")}
    return facts | dict(zip("τ of " + rows["protocol"], sources, strict=True))


def _samples(run: Run, ids: pd.Index) -> pd.DataFrame:
    """What makes a sample the same in two runs."""
    table = run.samples.set_index("sample_id").loc[ids].filter(SAMPLE_COLUMNS)
    return table.assign(true_boxes=table["true_boxes"].map(np.ndarray.tolist)) if "true_boxes" in table else table


def _check_same_samples(names: tuple[str, str], first: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse runs whose samples have the same names but aren't the same."""
    for column in first.columns.intersection(other.columns):
        differ = first[column] != other[column]
        if differ.any():
            at = differ.idxmax()
            values = f"{first.at[at, column]!s} in {names[0]}, {other.at[at, column]!s} in {names[1]}"
            raise UserError(
                f"{names[1]} is of other images than {names[0]}: {column} of sample {at} is {values} "
                f"({quantity(int(differ.sum()), 'such sample')})"
            )


CLASSIFICATION = ("top1_cls", "top5_cls")
NETWORK: dict[str, Any] = {"method": "", "protocol": ""}  # of what is compared in classification
PAIR_COLUMNS = (
    "protocol", "metric", "first", "second", "first_run", "first_method", "second_run", "second_method", "n_images",
    "n_samples", "first_value", "second_value", "difference", "low", "high", "oracle", "first_only", "second_only",
    "disagree", "p", "p_holm", "more_than_noise", "sentence",
)  # fmt: skip
WHOLE = dict.fromkeys(("first_only", "second_only", "disagree"), "Int64")  # missing where there is no McNemar's test


@dataclass(frozen=True, eq=False)
class Entry:
    """One method of one run under one protocol, on the common samples."""

    run: str  # its label
    method: str
    protocol: str
    title: str  # how it is called among the others
    members: tuple[tuple[str, str], ...]  # labels of the runs whose mean it is, and their methods
    row: pd.Series  # of the run's summary
    outcomes: Outcomes
    grid: np.ndarray  # (T,) τ of the outcomes' curves
    means: dict[str, np.ndarray] = field(default_factory=dict)  # (R,) of each metric, in each resample


Pair = tuple[Entry, Entry]
Hypothesis = tuple[Entry, Entry, str]  # and the metric


@dataclass(frozen=True, eq=False)
class Comparison:
    """What comparing runs gave; values are percent.

    `pairs` has a row per pair and metric (`PAIR_COLUMNS`): values, difference (first - second) and its 95 % interval;
    samples on which only one is right, and on which they differ; p of McNemar's exact test, and corrected by Holm's
    method over all tests of the comparison; whether the difference is significant: by the corrected p, or, where
    there is no test, by the interval. Classification is compared between runs, without a protocol. Where runs measured
    faithfulness as well, its pairs follow, a preset's name in place of a protocol's, see `Judged`.
    """

    aligned: AlignedRuns
    entries: list[Entry]
    summary: pd.DataFrame  # as a run's, on the common samples, with `run` and `title` in front
    intervals: pd.DataFrame  # as `Run.intervals`, with titles for methods
    pairs: pd.DataFrame
    tests: int  # how many the correction counts, but for those of faithfulness
    faithfulness: Judged | None  # where runs measured it on common samples by equal presets
    notes: list[str]  # what the reader must know


def compare(
    runs: Sequence[str | Path],
    *,
    against: str | None = None,
    shared: bool = False,
    metrics: Sequence[str] | None = None,
    most: int = 200,
    resamples: int = RESAMPLES,
    seed: int = 0,
    repeat: Sequence[str] = (),
) -> Comparison:
    """Compare every method of some runs with every other, under each protocol, on the same images.

    Differences are bootstrapped over images, paired: both methods see the same resamples. Where a sample's outcome is
    right or wrong, McNemar's exact test is made as well. `runs` are folders or patterns; one run will do. `against`
    compares with this only: a method ("gradcam"), a run's label, or a title ("Grad-CAM (resnet50)"). Where images or
    protocols differ, `shared` compares on what the runs share. `metrics` (columns of the summary, faithfulness's)
    compares these only; fewer tests are corrected less.
    With more pairs than `most`, each method is compared with the first one only. Runs that differ in seeds only, or in
    keys that `repeat` names, are pooled.
    """
    chosen_metrics = _check_metrics(metrics)
    aligned = align_runs(find_runs(runs), shared)
    entries, pooled = _pool(_entries(aligned, resamples if seed == 0 else None), aligned.runs, repeat)
    pairs, notes = _choose_pairs(entries, against, most)
    notes = [*pooled, *notes]
    samples = aligned.samples(next(iter(aligned.runs.values())))
    counts = {"n_images": samples["image_id"].nunique(), "n_samples": len(samples)}
    if counts["n_images"] < counts["n_samples"]:
        notes.append("Images have several samples: McNemar's test takes them for independent, the intervals don't.")
    if "pxap" in chosen_metrics:
        notes += _lacking_pxap(entries)
    outcomes = [(entry.title, entry.protocol, entry.outcomes) for entry in entries]
    means = resample(outcomes, samples, resamples, seed)
    columns = iter(means.T)
    for entry in entries:
        entry.means.update({metric: next(columns) for metric in entry.outcomes.thresholds})
    judged, more_notes = _faithfulness(aligned, pairs, chosen_metrics, resamples, seed)
    hypotheses, notes = list(_hypotheses(pairs, chosen_metrics)), [*notes, *more_notes]
    tested = judged is not None and len(judged.pairs) > 0
    if not hypotheses and not tested:
        raise UserError(" ".join([f"the runs share none of the metrics {', '.join(chosen_metrics)}.", *notes]))
    table, tests = _judge([counts | _row(*hypothesis) for hypothesis in hypotheses])
    if judged is not None and tested:
        table = _with_faithfulness(table, judged, entries)
    summary, intervals = _summary(entries, counts), interval_table(outcomes, means)
    return Comparison(aligned, entries, summary, intervals, table, tests, judged, [*aligned.notes, *notes])


def _check_metrics(metrics: Sequence[str] | None) -> list[str]:
    comparable = (*METRICS, *FAITHFULNESS_METRICS)
    unknown = [metric for metric in metrics or () if metric not in comparable]
    if unknown:
        raise UserError(f"metrics: {', '.join(unknown)} can't be compared; there are {', '.join(comparable)}")
    return [metric for metric in comparable if metrics is None or metric in metrics]


def _faithfulness(
    aligned: AlignedRuns, pairs: Sequence[Pair], metrics: Sequence[str], resamples: int, seed: int
) -> tuple[Judged | None, list[str]]:
    """Judge what runs measured beside localization, by presets that are equal in all, on the samples that all have."""
    runs = {label: run for label, run in aligned.runs.items() if len(run.faithfulness)}
    presets = {label: presets_of(run.config, run.faithfulness["preset"].unique()) for label, run in runs.items()}
    rules: dict[str, dict[Faithfulness, str]] = {}
    for label, by_name in presets.items():
        for name, fields in by_name.items():
            rules.setdefault(name, {}).setdefault(fields, label)
    notes = [f"{name} has other rules in {' and '.join(of.values())}: it is not compared."
             for name, of in rules.items() if len(of) > 1]  # fmt: skip
    tables = {label: measured_values(run.faithfulness, presets[label]) for label, run in runs.items()}
    entries = {entry.title: entry for pair in pairs for entry in pair}
    ids = pd.Index(aligned.sample_ids)
    for table in tables.values():
        ids = ids[ids.isin(table.index)]
    columns = {}
    for preset, metric in dict.fromkeys(column[:2] for table in tables.values() for column in columns_of(table)):
        for title, entry in entries.items():
            at = [(tables.get(label), (preset, metric, method)) for label, method in entry.members]
            parts = [table.loc[ids, column] for table, column in at if table is not None and column in table]
            if len(parts) == len(at) and metric in metrics and len(rules[preset]) == 1:
                columns[preset, metric, title] = sum(parts) / len(parts)
    if not columns or not len(ids):
        return None, notes
    if len(ids) < len(aligned.sample_ids):
        notes.append(f"Faithfulness was measured on {len(ids):,} of these samples.")
    values = pd.DataFrame(columns).rename_axis(columns=["preset", "metric", "method"])
    samples = aligned.samples(next(iter(runs.values()))).set_index("sample_id").loc[ids]
    names = dict.fromkeys((first.title, second.title) for first, second in pairs)
    return judge(values, pd.factorize(samples["image_id"])[0], names, resamples, seed), notes


def _with_faithfulness(table: pd.DataFrame, judged: Judged, entries: Sequence[Entry]) -> pd.DataFrame:
    """Put the pairs of faithfulness below those of localization, in the same columns."""
    by_title, pairs = {entry.title: entry for entry in entries}, judged.pairs
    for name in ("first", "second"):
        of = pairs[name].map(by_title)
        pairs = pairs.assign(**{f"{name}_run": [e.run for e in of], f"{name}_method": [e.method for e in of]})
    pairs = pairs.reindex(columns=list(PAIR_COLUMNS)).astype(WHOLE)
    pairs["sentence"] = [sentence(row, row["protocol"]) for _, row in pairs.iterrows()]
    return pd.concat([table, pairs.astype(table.dtypes)], ignore_index=True) if len(table) else pairs


def _entries(aligned: AlignedRuns, resamples: int | None) -> list[Entry]:
    """Rebuild the outcomes of every method of every run on the common samples, by protocol; equal ones are one.

    PxAP was resampled while the pixels were at hand: with all images of a run, in their order, and the usual seed.
    """
    whole = all(list(run.samples["sample_id"]) == aligned.sample_ids for run in aligned.runs.values())
    entries = []
    labels = protocol_labels(pd.concat([run.summary for run in aligned.runs.values()]), aligned.protocols)
    first_of_label = {labels[name]: name for name in reversed(list(aligned.protocols))}  # equal ones are one
    for name in (name for name in aligned.protocols if first_of_label[labels[name]] == name):
        for label, run in aligned.runs.items():
            samples, protocol, called = aligned.samples(run), run.protocols[name], method_names(run.methods)
            for _, row in run.summary[run.summary["protocol"] == name].iterrows():
                method = row["method"]
                sweep = run.sweep(method, name) if run.boxed else pd.DataFrame()
                pxap = run.drawn_pxap(method, name, resamples) if whole and resamples else None
                outcomes = sample_outcomes(row, sweep, samples, protocol, pxap, run.taus(method, name))
                title = called[method] + (f" ({label})" if len(aligned.runs) > 1 else "")
                if outcomes.thresholds:
                    members = ((label, method),)
                    entries.append(Entry(label, method, labels[name], title, members, row, outcomes, protocol.grid()))
    return entries


def _pool(entries: Sequence[Entry], runs: Mapping[str, Run], repeat: Sequence[str]) -> tuple[list[Entry], list[str]]:
    """Make one entry of those whose runs differ in seeds only: what became of a sample is its mean over them."""
    groups: dict[str, list[str]] = {}
    seeds = {label: _without_seeds(run, repeat) for label, run in runs.items()}
    for label, (settings, _) in seeds.items():
        groups.setdefault(settings or label, []).append(label)
    several = [labels for labels in groups.values() if len({seeds[label][1] for label in labels}) == len(labels) > 1]
    pooled, notes = list(entries), list[str]()
    for labels in several:
        model = str(runs[labels[0]].source.get("model") or labels[0])
        name = model if len({str(run.source.get("model")) for run in runs.values()}) == len(groups) else labels[0]
        parts: dict[tuple[str, str], list[Entry]] = {}
        for entry in (entry for entry in pooled if entry.run in labels):
            parts.setdefault((entry.method, entry.protocol), []).append(entry)
        made = [_mean_entry(part, name, len(groups) > 1) for part in parts.values() if len(part) == len(labels)]
        at = next(number for number, entry in enumerate(pooled) if entry.run in labels)
        pooled = [entry for entry in pooled if entry.run not in labels]
        pooled[at:at] = made
        notes.append(
            f"{name}: means over {len(labels)} seeds ({', '.join(labels)}), ± their standard deviation. Intervals are "
            f"over images alone, and there is no McNemar's test of means."
        )
    return pooled, notes


def _without_seeds(run: Run, repeat: Sequence[str]) -> tuple[str, str]:
    """What a run was asked for but for seeds, "" where it doesn't say; and the seeds."""
    config = {key: run.config[key] for key in ASKED if run.config.get(key)}
    if "dataset" not in config or not {"model", "heatmaps"} & set(config):
        return "", ""
    settings, seeds = OmegaConf.create(config), [str(run.config.get("seed"))]
    for key in ("model.seed", "dataset.seed", *repeat):
        seeds.append(str(OmegaConf.select(OmegaConf.create(run.config), key)))
        if OmegaConf.select(settings, key) is not None:
            OmegaConf.update(settings, key, None)
    return OmegaConf.to_yaml(settings, sort_keys=True), " ".join(seeds)


def _mean_entry(entries: Sequence[Entry], name: str, named: bool) -> Entry:
    """The mean of several seeds' entries, with the standard deviation of each metric in its row."""
    first, outcomes = entries[0], [entry.outcomes for entry in entries]
    metrics = [metric for metric in first.outcomes.thresholds if all(metric in other.thresholds for other in outcomes)]
    spread = {f"{metric}_std": 100 * np.std([o.mean(metric) for o in outcomes], ddof=1) for metric in metrics}
    draws = [other.pxap for other in outcomes if other.pxap is not None]
    mean = replace(
        first.outcomes,
        values={m: np.mean([other.values[m] for other in outcomes], axis=0) for m in metrics if m != "pxap"},
        thresholds={metric: float(np.mean([other.thresholds[metric] for other in outcomes])) for metric in metrics},
        oracle=frozenset().union(*(other.oracle for other in outcomes)),
        curves={at: np.mean([other.curves[at] for other in outcomes], axis=0) for at in first.outcomes.curves},
        pxap=(float(np.mean([at for at, _ in draws])), np.mean([d for _, d in draws], axis=0)) if draws else None,
    )
    title = first.title.removesuffix(f" ({first.run})") + (f" ({name})" if named else "")
    row = pd.concat([first.row, pd.Series(spread | {"n_seeds": len(entries)})])
    members = tuple(member for entry in entries for member in entry.members)
    return replace(first, run=name, title=title, members=members, row=row, outcomes=mean, means={})


def _choose_pairs(entries: Sequence[Entry], against: str | None, most: int) -> tuple[list[Pair], list[str]]:
    """Choose who is compared with whom, and say so where not everybody is with everybody."""
    pairs = [pair for pair in combinations(entries, 2) if pair[0].protocol == pair[1].protocol]
    if not pairs:
        raise UserError("nothing to compare: under no protocol are there two methods; name another run")
    if against is None and len(pairs) <= most:
        return pairs, []
    note = f"Compared with {against} only."
    if against is None:
        against = entries[0].title
        note = (
            f"All {len(pairs):,} pairs would be more than {most}: each is compared with {against} only. "
            f"Choose another with against=NAME, or allow more with most=NUMBER."
        )
    bases = [entry for entry in entries if against in (entry.title, entry.method, entry.run)]
    others = [entry for entry in entries if entry not in bases]
    pairs = [(other, base) for base in bases for other in others if other.protocol == base.protocol]
    if not pairs:
        names = dict.fromkeys(name for entry in entries for name in (entry.method, entry.run, entry.title))
        raise UserError(f"against={against}: nothing is called so, or everything; there are {', '.join(names)}")
    return pairs, [note]


def _hypotheses(pairs: Sequence[Pair], metrics: Sequence[str]) -> Iterator[Hypothesis]:
    """Give what is compared: classification once per pair of runs, all else for each pair of methods."""
    networks: dict[tuple[str, str], Pair] = {}
    for first, second in (pair for pair in pairs if pair[0].run != pair[1].run):
        titled = replace(first, title=first.run, **NETWORK), replace(second, title=second.run, **NETWORK)
        networks.setdefault((first.run, second.run), titled)
    for first, second in (*networks.values(), *pairs):
        for metric in (metric for metric in metrics if (metric in CLASSIFICATION) == (first.protocol == "")):
            if metric in first.outcomes.thresholds and metric in second.outcomes.thresholds:
                yield first, second, metric


def _lacking_pxap(entries: Sequence[Entry]) -> list[str]:
    """Say whose PxAP can't be compared."""
    lacking = [entry.title for entry in entries if pd.notna(entry.row["pxap"]) and entry.outcomes.pxap is None]
    reason = (
        f"PxAP can't be compared of {', '.join(dict.fromkeys(lacking))}: its resamples are drawn while a run is "
        f"scored, {RESAMPLES:,} of all its images in their order, with seed 0; score an older run again."
    )
    return [reason] if lacking else []


def _row(first: Entry, second: Entry, metric: str) -> dict[str, Any]:
    low, high = percentile_interval(first.means[metric] - second.means[metric])
    row: dict[str, Any] = {"protocol": first.protocol, "metric": metric}
    for name, entry in (("first", first), ("second", second)):
        row |= {name: entry.title, f"{name}_run": entry.run, f"{name}_method": entry.method}
        row[f"{name}_value"] = 100 * entry.outcomes.mean(metric)
    row |= {"difference": row["first_value"] - row["second_value"], "low": 100 * float(low), "high": 100 * float(high)}
    row["oracle"] = metric in first.outcomes.oracle | second.outcomes.oracle
    one, two = (entry.outcomes.values.get(metric, np.empty(0)) for entry in (first, second))
    binary = one.dtype == two.dtype == bool  # not so of means over seeds
    if metric in RIGHT_OR_WRONG and binary and first.outcomes.labels is None:  # McNemar's test knows no classes
        only = int((one & ~two).sum()), int((two & ~one).sum())
        row |= {"first_only": only[0], "second_only": only[1], "disagree": sum(only), "p": float(mcnemar(*only))}
    # What is the same by definition under two names is one test.
    both_oracle = metric in first.outcomes.oracle & second.outcomes.oracle
    again = metric == "max_box_acc" or (metric == "gt_known_loc" and both_oracle)
    row["test"] = row["protocol"], first.title, second.title, "max_box_acc_50" if again else metric
    return row


def _judge(rows: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, int]:
    """Correct the p-values for the number of tests, decide, and say it in words."""
    tests = {row["test"]: row["p"] for row in rows if "p" in row}
    corrected = dict(zip(tests, holm(np.array(list(tests.values()))), strict=True))
    table = pd.DataFrame(rows).reindex(columns=list(PAIR_COLUMNS))
    table["p_holm"] = [corrected.get(row["test"], np.nan) for row in rows]
    by_interval = (table["low"] > 0) | (table["high"] < 0)
    table["more_than_noise"] = (table["p_holm"] < ALPHA).where(table["p_holm"].notna(), by_interval).astype(bool)
    table = table.astype(WHOLE)
    table["sentence"] = [sentence(row) for _, row in table.iterrows()]
    return table, len(tests)


def _summary(entries: Sequence[Entry], counts: dict[str, Any]) -> pd.DataFrame:
    """Make the summaries side by side, on the common samples; PxAP only where these are all."""
    rows = []
    for entry in entries:
        row = {"run": entry.run, "title": entry.title, **entry.row, "protocol": entry.protocol}
        row |= {metric: 100 * entry.outcomes.mean(metric) for metric in entry.outcomes.thresholds}
        row["threshold"] = entry.outcomes.thresholds.get("gt_known_loc", row["threshold"])
        rows.append(row | (counts | {"pxap": np.nan} if counts["n_samples"] != row["n_samples"] else {}))
    spread = dict.fromkeys(name for row in rows for name in row if name.endswith("_std") or name == "n_seeds")
    return pd.DataFrame(rows, columns=["run", "title", *SUMMARY_COLUMNS, *spread])
