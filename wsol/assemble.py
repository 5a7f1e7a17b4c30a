"""From stored heatmaps to tables: score every method under every protocol, choose thresholds, write it all down."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.heatmaps.store import HeatmapStore
from wsol.io import reading, write_json, write_yaml
from wsol.localization import Protocol
from wsol.metrics import OutcomeCounts
from wsol.metrics.localization import sample_outcomes
from wsol.metrics.outcomes import outcomes_at
from wsol.metrics.scoring import score_method
from wsol.metrics.statistics import draws_of, interval_table, resample, with_intervals
from wsol.predictions import samples_table
from wsol.report.page import write_report
from wsol.report.pictures import draw_pictures
from wsol.report.summary import write_summary
from wsol.tables import (
    METRIC_COLUMNS,
    SUMMARY_COLUMNS,
    Results,
    combine,
    curve_table,
    method_rows,
    metric_rows,
    per_image_table,
    summary_row,
    sweep_table,
    write_tables,
)
from wsol.thresholds import Given, choose_threshold

__all__ = ["assemble", "finish", "read_samples", "true_boxes"]

logger = logging.getLogger("wsol")


def assemble(
    dataset: Dataset,
    store: HeatmapStore,
    samples: pd.DataFrame,
    boxes: Sequence[np.ndarray] | None,
    protocols: Mapping[str, Protocol],
    given: Given | None,
    workers: int,
    progress: bool,
) -> Results:
    """Score every method of a store under every protocol.

    Parameters
    ----------
    dataset : Dataset
        The truth.
    store : HeatmapStore
    samples : DataFrame
        Predictions, in the order of the dataset.
    boxes : sequence of arrays (G, 4), optional
        From `true_boxes`.
    protocols : dict of str to Protocol
    given : optional
        Another run's thresholds, from `thresholds_of`.
    workers : int
        Threads.
    progress : bool

    Returns
    -------
    Results
        Its tables; `finish` adds the rest.

    Raises
    ------
    UserError
        If a box or mask doesn't fit its image, or another run lacks a threshold.
    """
    positions = {sample_id: index for index, sample_id in enumerate(store.sample_ids)}
    sizes = [store.image_size(positions[sample_id]) for sample_id in samples["sample_id"]]
    # Of several classes on one image none is "the" true one: without ranks there is no Top-k and no wrong class.
    ranks = np.full(len(samples), -1) if dataset.multilabel else samples["rank"].to_numpy()
    ranked = bool((ranks >= 0).any())
    top5 = int(store.source.get("competing", len(dataset.classes))) > 5 and int(store.source.get("listed", 5)) >= 5
    about = {key: store.source.get(key, "") for key in ("dataset", "split", "model", "view")}
    about |= {"n_images": samples["image_id"].nunique(), "n_samples": len(samples)}
    summary, metrics, per_image, curves, sweeps, resampled = [], [], [], [], [], []
    draws = draws_of(samples) if any(sample.mask is not None for sample in dataset) else None
    drawn_pxap: list[pd.DataFrame] = []
    for method, described in store.methods.items():
        scores = score_method(
            dataset, store, positions, method, protocols, ranks, draws=draws, threads=workers, show_progress=progress
        )
        if scores.empty:
            shown = ", ".join(scores.empty[:5])
            logger.warning("%s: %d heatmaps have equal values everywhere: %s", method, len(scores.empty), shown)
        lost = store.missing(method)[[positions[sample_id] for sample_id in samples["sample_id"]]]
        metrics += method_rows(scores, int(lost.sum()), dataset.classes)
        for part in scores.protocols.values():
            threshold, origin = choose_threshold(method, part, given)
            counts = OutcomeCounts(len(dataset.classes))
            outcomes = outcomes_at(part, threshold, boxes, sizes, ranks)
            counts.update(
                samples["label"].to_numpy(),
                ranks,
                *(outcomes[name].to_numpy() for name in ("gt_known_loc", "right", "iou", "error_kind")),
            )
            if boxes is not None:
                per_image.append(
                    per_image_table(samples, outcomes, method, part.protocol.name, threshold, ranked, top5)
                )
                curves.append(curve_table(method, part, ranked, top5))
                sweeps.append(sweep_table(method, part, list(samples["sample_id"])))
            row = about | {"method": method, "layer": described["layer"]}
            summary.append(summary_row(row, part, counts, threshold, origin, ranked, top5))
            sweep = sweeps[-1] if sweeps else pd.DataFrame()
            rebuilt = sample_outcomes(summary[-1], sweep, samples, part.protocol, part.drawn_pxap)
            if part.drawn_pxap is not None:
                columns = {"method": method, "protocol": part.protocol.name, "pxap": part.drawn_pxap}
                drawn_pxap.append(pd.DataFrame(columns))
            if rebuilt.thresholds:
                resampled.append((method, part.protocol.name, rebuilt))
            metrics += metric_rows(method, part, counts, threshold, dataset.classes, ranked, top5, dataset.multilabel)
    texts = ("dataset", "split", "model", "method", "layer", "view", "protocol", "threshold_source", "metric", "class")
    table = combine(metrics, METRIC_COLUMNS, texts)
    if resampled:
        table = with_intervals(table, interval_table(resampled, resample(resampled, samples)))
    return Results(
        summary=combine(summary, SUMMARY_COLUMNS, texts),
        metrics=table,
        per_image=_joined(per_image),
        curves=_joined(curves),
        sweeps=_joined(sweeps),
        samples=samples if boxes is None else _with_boxes(samples, boxes),
        resamples=_joined(drawn_pxap),
    )


def read_samples(dataset: Dataset, store: HeatmapStore, part: bool = False) -> pd.DataFrame:
    """Read the predictions of the run that made some heatmaps, and make sure that these are of this dataset.

    Parameters
    ----------
    dataset : Dataset
    store : HeatmapStore
        A run's own, or another; without a run's `samples.parquet` there are no predictions and Top-k stays empty.
    part : bool
        Whether the dataset may be a part of what the run had.

    Raises
    ------
    UserError
        If samples are missing or extra, by name, or were of other classes.
    """
    folder = store.folder
    if folder is None:
        return samples_table(dataset, store)
    ids = [sample.sample_id for sample in dataset]
    known, wanted = set(store.sample_ids), set(ids)
    extra = set() if part else known - wanted
    for what, names in (("no heatmap for", wanted - known), ("heatmaps of unknown samples:", extra)):
        if names:
            raise UserError(
                f"{folder}: {what} {', '.join(sorted(names)[:5])} ({len(names)} of {len(ids)} samples); "
                f"is this the dataset, split and limit that the heatmaps were made on "
                f"({store.source.get('dataset')}, {store.source.get('split')})?"
            )
    path = folder.parent / "samples.parquet"
    if not path.is_file():
        logger.warning("no %s: without predictions the Top-k columns stay empty", path)
        return samples_table(dataset, store)
    with reading(path):
        samples = pd.read_parquet(path).set_index("sample_id").loc[ids].reset_index()
    own = [dataset.classes[label] for label in dataset.labels]
    for sample_id, theirs, ours in zip(ids, samples["class"], own, strict=True):
        if theirs != ours:
            raise UserError(
                f"{path}: sample {sample_id} is of class {theirs!r} there and {ours!r} in the dataset; "
                f"pass the same dataset.classes that the run had"
            )
    return samples.assign(label=dataset.labels)


def finish(
    results: Results,
    dataset: Dataset,
    store: HeatmapStore,
    pictures: int,
    report: bool,
    folder: Path | None,
    environment: Mapping[str, Any],
    config: Mapping[str, Any] | None,
) -> Results:
    """Add what was run, and write everything into the run's folder, if there is one."""
    results.environment, results.config, results.run_dir = dict(environment), dict(config or {}), folder
    if folder is not None:
        write_tables(results, folder)
        write_summary(results.summary, folder)
        write_yaml(folder / "config.yaml", results.config)
        write_json(folder / "environment.json", results.environment)
        if pictures and len(results.per_image):
            draw_pictures(results, dataset, store, pictures, folder / "figures")
        if report:
            write_report(folder, dataset, store)
    return results


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _with_boxes(samples: pd.DataFrame, boxes: Sequence[np.ndarray]) -> pd.DataFrame:
    """Add the true boxes, one after the other: reports need them, and not the dataset then."""
    return samples.assign(true_boxes=pd.Series([one.reshape(-1) for one in boxes], samples.index))


def true_boxes(dataset: Dataset) -> list[np.ndarray] | None:
    """Return the true boxes (G, 4) of every sample; None where the dataset has masks only.

    Raises
    ------
    UserError
        If it has neither, or not for all samples: nothing can be localized on it.
    """
    boxes, masks = [], False
    for sample in dataset:
        masks = masks or sample.mask is not None
        if sample.boxes is not None and len(sample.boxes) == 0:
            raise UserError(f"sample {sample.sample_id} has no box: leave it out, or mend the annotation")
        if sample.boxes is not None:
            boxes.append(sample.boxes)
        elif boxes:
            raise UserError(f"sample {sample.sample_id} has no boxes, but others have: annotate all or none")
    if not boxes and not masks:
        raise UserError(
            f"dataset {dataset.name} ({dataset.split}) has neither boxes nor masks, so nothing can be localized on it; "
            f"it can be trained on"
        )
    if boxes and len(boxes) != len(dataset):
        raise UserError(f"only {len(boxes)} of {len(dataset)} samples have boxes: annotate all or none")
    return boxes or None
