"""A run's page: one file with summary, charts, gallery, and what was run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from wsol.heatmaps.store import HeatmapStore
from wsol.io import write_text
from wsol.metrics.localization import ERROR_KINDS
from wsol.report.charts import KINDS, METRIC_NAMES, chart_data, series_styles
from wsol.report.figures import draw_figures
from wsol.report.gallery import gallery, method_data
from wsol.report.run import Run
from wsol.report.summary import html_summary, merge_equal, published_beside, sensitivity_texts
from wsol.report.templating import render

if TYPE_CHECKING:
    from wsol.datasets import Dataset

FACTS = ("started", "seconds", "device", "threads", "python", "platform")
SOURCE_NAMES = {"competing": "competing classes", "class_map": "classes matched by", "predict_over": "predicted over"}


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
    functions = {} if store is None else {name: method["function"] for name, method in store.methods.items()}
    styles = series_styles(run.methods, functions)
    charts = {protocol: chart_data(run, protocol) for protocol in run.protocols}
    draw_figures(charts, styles, run.folder / "figures")
    first, protocols = run.summary.iloc[0], list(run.protocols)
    sensitivity = sensitivity_texts(merge_equal(run.summary, run.protocols)) if run.boxed else None
    page = render(
        "report.html.j2",
        first=first.to_dict(),
        boxed=run.boxed,
        protocols=protocols,
        table=html_summary(run.summary, run.intervals, functions, *published_beside(run.summary)),
        sensitivity=None if sensitivity is None else sensitivity.to_dict("split"),
        gallery=gallery(run, store, dataset, styles),
        why_no_images=why_no_images,
        kinds=list(ERROR_KINDS.values()),
        has_classes=any(chart["classes"] for chart in charts.values()),
        environment=run.environment,
        facts=_facts(run),
        configuration=yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        data={
            "protocols": protocols,
            "methods": [method_data(name, styles) for name in run.methods],
            "kinds": [{"name": kind.label, "color": kind.color, "ink": kind.ink} for kind in KINDS],
            "class_metrics": METRIC_NAMES,
            "charts": charts,
        },
    )
    path = run.folder / "report.html"
    write_text(path, page)
    return path


def _facts(run: Run) -> dict[str, Any]:
    """What was run, and with what, as far as it is known."""
    facts = {name: run.environment.get(name) for name in FACTS}
    facts |= {SOURCE_NAMES.get(name, name): value for name, value in run.source.items()}
    versions = run.environment.get("versions", {})
    facts |= {"versions": ", ".join(f"{name} {version}" for name, version in versions.items())}
    return {name: value for name, value in facts.items() if value is not None} | {"folder": run.folder.resolve()}
