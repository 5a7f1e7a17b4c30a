"""A run's page: one file whose parts register themselves: sentences and a table, charts, gallery, what was run."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import yaml

from wsol.heatmaps.method import BASELINES
from wsol.heatmaps.store import HeatmapStore
from wsol.io import write_text
from wsol.metrics.faithfulness_presets import LOW_IS_GOOD
from wsol.metrics.localization import ERROR_KINDS
from wsol.metrics.statistics import ALPHA, holm, mcnemar, rank_agreement
from wsol.report.charts import KINDS, METRIC_NAMES, Style, chart_data, format_number, method_names, series_styles
from wsol.report.compare_page import counted, findings, listed, summary_tables
from wsol.report.faithfulness import columns_of, html_faithfulness, judge_run, measured_by
from wsol.report.figures import Against, draw_faithfulness, draw_figures
from wsol.report.gallery import gallery, method_data
from wsol.report.run import Run
from wsol.report.summary import protocol_labels, published_beside, sensitivity_texts
from wsol.report.templating import SECTIONS, Section, fill, html_table, render, section

if TYPE_CHECKING:
    from wsol.datasets import Dataset

FACTS = ("device", "python", "platform")
# What decides nothing: however a run was made, its page has the same bytes.
FREE = ("workers", "progress", "resume", "overwrite", "mixed", "plan", "run_dir", "shard_size")
SOURCE_NAMES = {"competing": "competing classes", "class_map": "classes matched by", "predict_over": "predicted over"}


@dataclass(frozen=True, eq=False)
class Page:
    """A run, and what its page is made of; what sections get."""

    run: Run
    store: HeatmapStore | None
    dataset: Dataset | None
    why_no_images: str

    @cached_property
    def functions(self) -> dict[str, str]:
        """Which heatmap function each method stands for, where that is known."""
        return {} if self.store is None else {name: about["function"] for name, about in self.store.methods.items()}

    @cached_property
    def styles(self) -> dict[str, Style]:
        """How each method is drawn."""
        return series_styles(self.run.methods, self.functions)

    @cached_property
    def labels(self) -> dict[str, str]:
        """How each method is called."""
        return method_names(self.run.methods)

    @cached_property
    def protocols(self) -> dict[str, list[str]]:
        """Protocols whose rules make equal outcomes, by the first of them."""
        labels = protocol_labels(self.run.summary, self.run.protocols)
        return {names[0]: names for names in (label.split(", ") for label in dict.fromkeys(labels.values()))}

    @cached_property
    def charts(self) -> dict[str, Any]:
        """What the charts show, by protocol."""
        return {protocol: chart_data(self.run, protocol) for protocol in self.protocols}

    @property
    def has_thresholds(self) -> bool:
        """Whether a threshold has a say in any of its boxes: not so where all were given."""
        return len(self.run.methods_without_sweeps) < len(self.run.methods)

    def is_baseline(self, method: str) -> bool:
        """Whether a method never sees the network."""
        return self.functions.get(method, method) in BASELINES


def write_report(
    folder: Path | str, dataset: Dataset | None = None, store: HeatmapStore | None = None, why_no_images: str = ""
) -> Path:
    """Write `report.html` and `figures/` of a run that has ended; return the page.

    The gallery's pictures come from the dataset; without one it shows heatmaps and boxes alone, and says why. Heatmaps
    come from the store, by default that in the run's folder, if there is one.
    """
    run = Run.open(folder, whole=False)  # a run writes its page before it is whole
    if store is None and run.heatmaps is not None:
        store = HeatmapStore.open(run.heatmaps)
    page = Page(run, store, dataset, why_no_images)
    draw_figures(page.charts, page.styles, run.folder / "figures")
    made = {key: make(page) for key, (_, make) in sorted(SECTIONS.items(), key=lambda item: item[1][0])}
    sections = {key: part for key, part in made.items() if part is not None}
    first, subjects = run.summary.iloc[0], [page.labels[name] for name in run.methods if not page.is_baseline(name)]
    subject = f"{len(subjects)} methods" if len(subjects) > 5 else listed(subjects or list(page.labels.values()))
    of_network = f" of the network {first['model']}" if first["model"] else ""
    rules = "" if len(page.protocols) > 1 else f"rules of {listed(list(run.protocols))}"
    made_by = ", ".join(filter(None, (f"view {first['view']}" if first["view"] else "", rules)))
    text = render(
        "report.html.j2",
        title=f"{subject}{of_network} on {counted(first)} of the data set {first['dataset']} ({first['split']})",
        lead=f"Does the {'heatmap' if page.has_thresholds else 'box'} find the object?"
        + (f" {made_by[0].upper()}{made_by[1:]}." if made_by else ""),
        notes=run.environment.get("notes", []),
        sections=sections,
        protocols=page.protocols,
        data={
            "protocols": list(page.protocols),
            "methods": [method_data(name, page.styles) for name in run.methods],
            "kinds": [{"name": kind.label, "color": kind.color, "ink": kind.ink} for kind in KINDS],
            "class_metrics": METRIC_NAMES,
            "charts": page.charts,
        }
        | {key: part.data for key, part in sections.items() if part.data is not None},
    )
    path = run.folder / "report.html"
    write_text(path, text)
    return path


@section("summary", 10)
def _summary(page: Page) -> Section:
    run, rename = page.run, page.labels
    functions = {rename[name]: page.functions.get(name, name) for name in run.methods}
    rows = run.summary[run.summary["protocol"].isin(page.protocols)]
    tables = summary_tables(
        rows.assign(method=rows["method"].map(rename)),
        run.intervals.assign(method=run.intervals["method"].map(rename)),
        functions,
        *published_beside(run.summary),
    )
    for protocol, table in tables.items():
        table |= {"protocols": page.protocols[protocol]} | _findings(page, protocol)
    return Section("Summary", fill("summaries", tables))


def _findings(page: Page, protocol: str) -> dict[str, Any]:
    """Say what a protocol's table means, by tests of each pair of methods, and each with the best baseline."""
    rows = page.run.summary[page.run.summary["protocol"] == protocol].set_index("method")
    boxed = bool(rows["gt_known_loc"].notna().all())
    values = rows["gt_known_loc" if boxed else "pxap"].sort_values(ascending=False, kind="stable")
    baselines = [name for name in values.index if page.is_baseline(name)]
    names = [name for name in values.index if name not in baselines[1:]]
    p = _corrected(page, protocol, names) if boxed and len(baselines) < len(values) else {}
    by_label = {(page.labels[a], page.labels[b]): value for (a, b), value in p.items()}
    values, base = values[names].rename(page.labels), [page.labels[name] for name in baselines[:1]]
    sentences = findings(values, base, by_label, f"of {counted(rows.iloc[0])} at IoU 0.5" if boxed else "")
    return {"sentences": sentences, "tests": len(p) // 2, "level": ALPHA}


def _corrected(page: Page, protocol: str, methods: Sequence[str]) -> dict[tuple[str, str], float]:
    """Test each pair of methods on whether they localize equally often: corrected p, under both orders of names."""
    pairs = list(combinations(methods, 2))
    right = {name: page.run.per_image(name, protocol, ["gt_known_loc"])["gt_known_loc"] for name in methods}
    only = [((right[a] & ~right[b]).sum(), (right[b] & ~right[a]).sum()) for a, b in pairs]
    p = holm(mcnemar(*np.array(only).T)).tolist() if pairs else list[float]()
    return {names: value for pair, value in zip(pairs, p, strict=True) for names in (pair, pair[::-1])}


@section("accuracy", 20)
def _accuracy(page: Page) -> Section | None:
    if not page.run.boxed:
        return None
    title = f"Accuracy{' over the threshold' if page.has_thresholds else ''}"
    return Section(title, fill("accuracy", page.has_thresholds))


@section("errors", 30)
def _errors(page: Page) -> Section | None:
    if not page.run.boxed:
        return None
    # Without predictions no class is wrong, and what is right is the box alone.
    right_is = "Top-1 loc" if page.run.summary["top1_loc"].notna().any() else "GT-known"
    tables = {}
    for protocol, chart in page.charts.items():
        frame = pd.DataFrame(chart["costs"]).T
        frame = frame[[kind.label for kind in KINDS if kind.label in frame and frame[kind.label].any()]]
        right = [chart["errors"][name][0] for name in frame.index]
        frame.insert(0, right_is, right)
        frame.insert(0, "method", [page.labels[name] for name in frame.index])
        tables[protocol] = html_table(frame)
    return Section("What goes wrong", fill("errors", list(ERROR_KINDS.values()), tables, right_is, page.has_thresholds))


@section("sensitivity", 40)
def _sensitivity(page: Page) -> Section | None:
    rows = page.run.summary[page.run.summary["protocol"].isin(page.protocols)]
    texts = sensitivity_texts(rows) if page.run.boxed else None
    if texts is None:
        return None
    frame = texts.astype(float).reset_index()
    frame["method"] = frame["method"].map(page.labels)
    return Section("Protocol sensitivity", fill("sensitivity", html_table(frame)))


@section("classes", 50)
def _classes(page: Page) -> Section | None:
    return Section("Per class", fill("classes")) if any(chart["classes"] for chart in page.charts.values()) else None


@section("faithfulness", 60)
def _faithfulness(page: Page) -> Section | None:
    run = page.run
    if run.faithfulness.empty:
        return None
    values, image = measured_by(run)
    points = run.faithfulness[run.faithfulness["share"].notna()]
    means = points.groupby(["preset", "metric", "method", "share"], sort=False)["value"].mean().reset_index()
    curves: dict[str, dict[str, Any]] = {}
    for name, curve in means.groupby(["preset", "metric", "method"], sort=False):
        preset, metric, method = map(str, name)  # type: ignore[arg-type]
        curves.setdefault(f"{metric} ({preset})", {})[method] = curve["share"].to_numpy(), curve["value"].to_numpy()
    against = _against_localization(page, values, image) if run.boxed and len(run.methods) > 2 else []
    drawn = draw_faithfulness(curves, against, page.styles, run.folder / "figures")
    pictures = {path.stem: b64encode(path.read_bytes()).decode() for path in drawn if path.suffix == ".svg"}
    tables = html_faithfulness(judge_run(values, image), page.labels)
    return Section("Faithfulness", fill("faithfulness", tables, pictures))


def _against_localization(page: Page, values: pd.DataFrame, image: np.ndarray) -> list[Against]:
    """Put means of all methods beside their GT-known localization, with Spearman's correlation of the two orders."""
    run, protocol = page.run, next(iter(page.protocols))
    places, panels = pd.Index(run.samples["sample_id"]).get_indexer(values.index), list[Against]()
    located = [run.per_image(name, protocol, ["gt_known_loc"])["gt_known_loc"].iloc[places] for name in run.methods]
    right = 100 * np.stack(located, axis=1).astype(np.float64)
    for preset, metric in dict.fromkeys(column[:2] for column in columns_of(values)):
        table = values[[(preset, metric, method) for method in run.methods]].to_numpy()
        rho, low, high = rank_agreement(right, -table if metric in LOW_IS_GOOD else table, image)
        title = f"{METRIC_NAMES[metric]} ({preset})"
        if np.isfinite(rho):
            title += f"\nρ = {format_number(rho, 2)} ({format_number(low, 2)} to {format_number(high, 2)})"
        points = zip(right.mean(0), table.mean(0), strict=True)
        panels.append((title, dict(zip(run.methods, points, strict=True)), metric in LOW_IS_GOOD))
    return panels


@section("gallery", 80)
def _gallery(page: Page) -> Section:
    about = gallery(page.run, page.store, page.dataset, page.styles)
    return Section("Gallery", fill("gallery", about, page, len(page.run.samples)))


@section("run", 90)
def _run(page: Page) -> Section:
    run = page.run
    facts = {name: run.environment.get(name) for name in FACTS}
    facts |= {SOURCE_NAMES.get(name, name): value for name, value in run.source.items()}
    versions = run.environment.get("versions", {})
    facts |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    facts = {name: value for name, value in facts.items() if value is not None}
    asked = {key: value for key, value in run.config.items() if key not in FREE}
    command = re.sub(rf"\s('?)(?:{'|'.join(FREE)})=.*?\1(?=\s|$)", "", str(run.environment.get("command", "")))
    configuration = yaml.safe_dump(asked, sort_keys=False, allow_unicode=True)
    return Section("What was run", fill("run", command, facts, configuration))
