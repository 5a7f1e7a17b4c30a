"""A run's page: one file with summary, charts, gallery, and what was run."""

from __future__ import annotations

import base64
import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import yaml
from pyarrow.dataset import field

from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.heatmaps.store import HeatmapStore
from wsol.io import write_text
from wsol.localization import Protocol
from wsol.metrics.statistics import intervals
from wsol.report.chart_data import KIND_NAMES, Charts, charts_of
from wsol.report.figures import draw_figures
from wsol.report.gallery import REASONS, choose_samples, gallery_samples
from wsol.report.names import METRIC_NAMES
from wsol.report.palette import BASELINES, KIND_COLORS, Style, series_styles
from wsol.report.pieces import read_rows
from wsol.report.published import matching
from wsol.report.run import Run
from wsol.report.summary_table import shown_summary
from wsol.report.templating import as_json, render

__all__ = ["write_report"]

logger = logging.getLogger("wsol")

GALLERY = 60  # samples at most
BUDGET = 5_000_000  # bytes of the gallery
DRAWN = 256  # pixels along a side of a score map in the gallery, at most
COLOR_MAPS = ("viridis", "inferno", "cividis", "gray", "jet")  # jet is no perceptual one; it is there by choice


def write_report(
    folder: Path | str, dataset: Dataset | None = None, store: HeatmapStore | None = None, why_no_images: str = ""
) -> Path:
    """Write `report.html` and `figures/` of a run that has ended.

    Parameters
    ----------
    folder : path
        The run's.
    dataset : Dataset, optional
        Where the gallery's pictures come from; None: it shows heatmaps and boxes alone.
    store : HeatmapStore, optional
        The heatmaps that were scored; by default those in the run's folder, if there are any.
    why_no_images : str
        Said in the gallery where there is no dataset.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    UserError
        If the folder is no run's, or the run was interrupted: what is missing.
    """
    run = Run.open(folder)
    if store is None and run.heatmaps is not None:
        store = HeatmapStore.open(run.heatmaps)
    functions = {} if store is None else {name: how["function"] for name, how in store.methods.items()}
    styles = series_styles(run.methods, functions)
    charts = {protocol: charts_of(run, protocol) for protocol in run.protocols}
    draw_figures(charts, styles, run.folder / "figures")
    gallery = _gallery(run, store, dataset, why_no_images, styles)
    path = run.folder / "report.html"
    write_text(path, render("report.html.j2", **_values(run, charts, styles, functions, gallery)))
    return path


def _values(
    run: Run,
    charts: Mapping[str, Charts],
    styles: Mapping[str, Style],
    functions: Mapping[str, str],
    gallery: Mapping[str, Any],
) -> dict[str, Any]:
    first = run.summary.iloc[0]
    count = f"{first['n_samples']:,} samples"
    if first["n_images"] != first["n_samples"]:
        count += f" of {first['n_images']:,} images"
    return {
        "title": f"{first['dataset']} ({first['split']}), {first['model']}",
        "lead": f"Localization from heatmaps: {count}, view {first['view']}.",
        "notes": [str(note) for note in run.environment.get("notes", [])],
        "count": f"{first['n_samples']:,}",
        "boxed": run.boxed,
        "has_sizes": any(chart.sizes is not None for chart in charts.values()),
        "has_classes": any(chart.classes for chart in charts.values()),
        "protocols": list(run.protocols),
        "table": shown_summary(run.summary, intervals(run), functions, matching(first["dataset"], first["model"])),
        "sensitivity": _sensitivity(run),
        "gallery": gallery,
        "data": {
            "protocols": list(run.protocols),
            "methods": [_method(name, styles[name]) for name in run.methods],
            "kinds": [
                {"name": shown, "color": KIND_COLORS[kind][0], "ink": KIND_COLORS[kind][1]}
                for kind, shown in KIND_NAMES.items()
            ],
            "class_metrics": METRIC_NAMES,
            "charts": {name: _chart(chart, run.protocols[name], first) for name, chart in charts.items()},
        },
        **_what_was_run(run),
    }


def _method(name: str, style: Style) -> dict[str, str]:
    return {"name": name, "color": style.variable, "dash": style.dash}


def _chart(chart: Charts, protocol: Protocol, first: pd.Series) -> dict[str, Any]:
    """Numbers of one protocol's charts; accuracies over τ as numbers of samples, which are exact and short."""
    count = int(first["n_samples"])
    sizes = chart.sizes
    return {
        "count": count,
        "grid": protocol.grid(),
        "thresholds": chart.thresholds,
        "curves": {
            f"{delta:g}": {name: np.rint(values / 100 * count).astype(int) for name, (_, values) in methods.items()}
            for delta, methods in chart.curves.items()
        },
        "shares": {name: values.round(2) for name, (_, values) in chart.shares.items()},
        "sizes": sizes and {"bins": sizes.bins, "counts": sizes.counts, "values": sizes.values},
        "errors": {name: [kinds.get(kind, 0.0) for kind in KIND_NAMES] for name, kinds in chart.errors.items()},
        "classes": {
            metric: {
                "names": [str(name) for name in table.index],
                "values": {str(method): table[method].to_numpy(np.float64).round(2) for method in table},
            }
            for metric, table in chart.classes.items()
        },
    }


def _sensitivity(run: Run) -> list[tuple[str, list[str], str]]:
    """Rows of method, GT-known localization under each protocol, and the difference between the extremes."""
    if len(run.protocols) < 2 or not run.boxed:
        return []
    rows = []
    for method in run.methods:
        values = [float(run.row(method, protocol)["gt_known_loc"]) for protocol in run.protocols]
        rows.append((method, [f"{value:.1f}" for value in values], f"{max(values) - min(values):.1f}"))
    return rows


def _what_was_run(run: Run) -> dict[str, Any]:
    about = run.environment
    facts = {"started": about.get("started"), "seconds": about.get("seconds"), "device": about.get("device")}
    facts |= {"threads": about.get("threads"), "python": about.get("python"), "platform": about.get("platform")}
    names = {"competing": "competing classes", "class_map": "classes matched by", "predict_over": "predicted over"}
    facts |= {names.get(key, key): value for key, value in run.source.items()}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    facts["folder"] = run.folder.resolve()
    return {
        "command": str(about.get("command", "")),
        "facts": [(name, str(value)) for name, value in facts.items() if value is not None],
        "configuration": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
    }


def _gallery(
    run: Run, store: HeatmapStore | None, dataset: Dataset | None, why_no_images: str, styles: Mapping[str, Style]
) -> dict[str, Any]:
    chosen, tables = _chosen_tables(run)
    samples = gallery_samples(chosen, tables, run.protocols, store, _image_reader(dataset), BUDGET)
    notes = [_how_chosen(len(samples), len(chosen), len(run.samples))]
    if store is None:
        notes.append("The run's heatmaps are gone: pictures and boxes are shown without them.")
    lacking = sum(sample["image"] is None for sample in samples)
    if lacking:
        why = why_no_images or f"{lacking} of these images can't be read"
        notes.append(f"Heatmaps and boxes stand on gray where there is no image: {why}.")
    if any("bytes" in one for sample in samples for one in sample["maps"].values()):
        notes.append("Large heatmaps were reduced to 64 pixels: their masks are close, the boxes are the run's own.")
    if any(side > DRAWN for sample in samples for side in _map_sides(sample["size"], run.protocols.values())):
        notes.append(f"Score maps of more than {DRAWN} pixels a side are drawn at {DRAWN}.")
    if run.boxed:
        notes.append("Error kinds are those at the summary's τ; they stay when the slider moves.")
    data = {
        "drawn": DRAWN,
        "methods": [_method(name, styles[name]) | _kind(name, store) for name in run.methods],
        "protocol_names": list(run.protocols),
        "protocols": {name: _rules(protocol) for name, protocol in run.protocols.items()},
        "kinds": list(KIND_NAMES.items()),
        "colormaps": {name: _colors(name) for name in COLOR_MAPS},
        "samples": samples,
    }
    packed = base64.b64encode(zlib.compress(as_json(data).encode(), 9)).decode()
    return {"notes": notes, "packed": packed, "colormaps": COLOR_MAPS, "kinds": data["kinds"], "reasons": REASONS}


def _map_sides(image_size: Sequence[int], protocols: Iterable[Protocol]) -> list[int]:
    """Sides of one image's score maps, under all protocols."""
    return [side for protocol in protocols for side in protocol.size or image_size]


def _kind(name: str, store: HeatmapStore | None) -> dict[str, Any]:
    """What the page must know to make a method's score maps."""
    if store is None:
        return {"function": "", "baseline": name in BASELINES, "score_map": False}
    function = store.methods[name]["function"]
    return {"function": function, "baseline": function in BASELINES, "score_map": store.kind(name) == "scoremap"}


def _chosen_tables(run: Run) -> tuple[dict[str, int], dict[str, pd.DataFrame]]:
    """Samples for the gallery, and the rows of the run's tables that are about them."""
    ids = list(run.samples["sample_id"])
    if not run.boxed:
        even = np.unique(np.linspace(0, len(ids) - 1, min(GALLERY, len(ids))).round().astype(int))
        empty = pd.DataFrame(columns=["method", "protocol", "sample_id", "error_kind"])
        return {ids[index]: 0 for index in even}, {"samples": run.samples, "per_image": empty, "sweeps": empty}
    protocol, columns = next(iter(run.protocols)), ["sample_id", "iou", "error_kind"]
    rows = [run.per_image(method, protocol, columns).assign(method=method) for method in run.methods]
    chosen = choose_samples(pd.concat(rows, ignore_index=True), ids, GALLERY)
    only = field("sample_id").isin(list(chosen))
    parts = {name: read_rows(run.folder / f"{name}.parquet", only) for name in ("per_image", "sweeps")}
    return chosen, {"samples": run.samples, **parts}


def _image_reader(dataset: Dataset | None) -> Callable[[int, str], np.ndarray | None]:
    """Read images by their place in the run, which is that in its dataset; None where it isn't the same sample.

    Ready heatmaps are scored without images, so that one is missing is said once and not for each.
    """
    missed: list[str] = []

    def read(number: int, sample_id: str) -> np.ndarray | None:
        if dataset is None or number >= len(dataset):
            return None
        try:
            sample = dataset[number]
            return sample.read_image() if sample.sample_id == sample_id else None
        except UserError as error:
            if not missed:
                logger.warning("the gallery lacks images, the first one: %s", error)
            missed.append(sample_id)
            return None

    return read


def _how_chosen(shown: int, chosen: int, count: int) -> str:
    text = f"{shown:,} of {count:,} samples"
    if shown < count:
        text += ": some evenly spaced, some where the methods disagree most, some of each kind of error"
    if shown < chosen:
        text += f" ({chosen - shown} more would have made the page too large)"
    return f"{text}. White: true boxes; orange: the box at τ. The accuracies beside the slider are over all samples."


def _rules(protocol: Protocol) -> dict[str, Any]:
    names = ("component", "size", "interpolation", "normalization", "levels", "pixel_comparison", "iou_comparison")
    return {name: getattr(protocol, name) for name in names}


def _colors(name: str) -> str:
    colors = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return base64.b64encode(np.rint(255 * colors).astype(np.uint8).tobytes()).decode()
