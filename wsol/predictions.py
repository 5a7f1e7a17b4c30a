"""Predictions of any classifier, read from a file: where each sample's true class stands among its guesses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.classes import rank_of_true, top_classes
from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.heatmaps.store import HeatmapStore
from wsol.io import read_environment
from wsol.prediction_table import read_table

__all__ = ["NAMINGS", "read_predictions", "samples_table"]

NAMINGS = ("id", "name", "position")
OF_A_RUN = {"image_id", "class", "rank", "top5", "top5_probability"}


def samples_table(dataset: Dataset, store: HeatmapStore) -> pd.DataFrame:
    """Make the table of a dataset's samples, with no prediction yet.

    Parameters
    ----------
    dataset : Dataset
    store : HeatmapStore
        Of these samples at least; it knows image sizes and what the heatmaps cover.

    Returns
    -------
    DataFrame
        As `samples.parquet` of a run; rank is -1.
    """
    labels, samples = dataset.labels, list(dataset)
    positions = {sample_id: index for index, sample_id in enumerate(store.sample_ids)}
    placed = store.placement[[positions[sample.sample_id] for sample in samples]]
    columns: dict[str, Any] = {
        "sample_id": [sample.sample_id for sample in samples],
        "image_id": [sample.image_id for sample in samples],
        "label": labels,
        "class": [dataset.classes[label] for label in labels],
        "rank": -1,
        "top5": [np.zeros(0, np.int32)] * len(samples),
        "top5_probability": [np.zeros(0, np.float32)] * len(samples),
        "width": placed[:, 0].astype(int),
        "height": placed[:, 1].astype(int),
    }
    return pd.DataFrame(columns | dict(zip(("x0", "y0", "x1", "y1"), placed[:, 2:].T, strict=True)))


def read_predictions(
    path: Path, dataset: Dataset, samples: pd.DataFrame, naming: str | None = None, on_error: str = "stop"
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Fill in the ranks of true classes from a file that some classifier's predictions were written to.

    Parameters
    ----------
    path : Path
        One of

        - a CSV or Parquet table with a column `sample_id` and columns `top1`, `top2`, … up to `top5` or more: classes,
          best first; other columns are not read;
        - the same with one column for each class of the dataset instead, holding its logit (or probability), and no
          other column;
        - an .npz file with `sample_id` (N,) and `top5` (N, k), best first, or with `logits` (N, C) and `classes` (C,),
          what the columns stand for (by default their positions);
        - `samples.parquet` of a run on the same samples.
    dataset : Dataset
    samples : DataFrame
        From `samples_table`.
    naming : "id", "name" or "position", optional
        What the file calls classes by: the dataset's `ids`, its `classes`, or their index counted from 0. By default
        ids; where those are numbers that differ from positions, it has to be said.
    on_error : "stop" or "skip"
        Whether a sample without a prediction raises, or is said and counts as wrong.

    Returns
    -------
    samples : DataFrame
        With rank (where the true class is not among the k that are listed: k), top5 (positions of classes, -1 for
        one that the dataset lacks) and, from logits, top5_probability.
    about : dict
        For the run's source: predictions, class_map, predict_over, competing (how many classes), and listed (how many
        are known per sample) where not all are.
    notes : list of str
        What counts as wrong for want of a prediction, or of the class that was predicted.

    Raises
    ------
    UserError
        If the file has another form, a class or value can't be understood, or a sample is missing or comes twice.
    """
    if naming is not None and naming not in NAMINGS:
        raise UserError(f"predictions_classes={naming}: pass {', '.join(NAMINGS)}")
    table = read_table(path)
    seen, notes = _seen(path, table, samples, on_error)
    table, own = table.set_index("sample_id").loc[samples["sample_id"][seen]], samples[seen]
    about: dict[str, Any] = {"predictions": str(path)}
    top = [column for column in table.columns if column.startswith("top") and column[3:].isdecimal()]
    if set(table.columns) >= OF_A_RUN:
        filled, more = _from_run(path, table, own, dataset)
    else:
        naming = naming or _safe_naming(path, dataset)
        known = {"id": dataset.ids, "name": dataset.classes}
        names = list(known.get(naming, map(str, range(len(dataset.classes)))))
        about |= {"class_map": naming, "predict_over": "all"}
        if top:
            filled, more, unknown = _from_list(path, table, own, top, (naming, names))
            notes += unknown
        else:
            filled, more = _from_logits(path, table, own, (naming, names)), {"competing": len(names)}
    return pd.concat([filled, samples[~seen]]).loc[samples.index], about | more, notes


def _seen(path: Path, table: pd.DataFrame, samples: pd.DataFrame, on_error: str) -> tuple[np.ndarray, list[str]]:
    """Which samples have a row: bool (N,); and a note of those that have none."""
    twice = table["sample_id"][table["sample_id"].duplicated()].unique()
    if len(twice):
        raise UserError(f"predictions={path}: {_some(twice)} come more than once; keep one row for each sample")
    seen = samples["sample_id"].isin(table["sample_id"]).to_numpy()
    if seen.all():
        return seen, []
    lost = samples["sample_id"][~seen]
    said = f"predictions={path}: no row for {_some(lost)} ({len(lost)} of {len(samples)} samples)"
    if not seen.any():
        raise UserError(f"{said}; its column sample_id holds {_some(table['sample_id'])}: use the dataset's sample ids")
    if on_error == "stop":
        raise UserError(f"{said}; add them, or pass on_error=skip, which counts them as wrong")
    return seen, [f"{said}; they count as wrong"]


def _safe_naming(path: Path, dataset: Dataset) -> str:
    """Take ids, unless they could be mistaken for positions."""
    for position, name in enumerate(dataset.ids):
        if name.isdecimal() and int(name) != position:
            raise UserError(
                f"predictions={path}: the ids of {dataset.name}'s classes are numbers that differ from positions (id "
                f"{name} stands at {position}), so say which the file has: predictions_classes=id, name or position"
            )
    return "id"


def _from_run(
    path: Path, table: pd.DataFrame, samples: pd.DataFrame, dataset: Dataset
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Take what a run wrote down; its top5 are places among its own classifier's logits."""
    for sample_id, theirs, ours in zip(samples["sample_id"], table["class"], samples["class"], strict=True):
        if theirs != ours:
            raise UserError(
                f"predictions={path}: sample {sample_id} is of class {theirs!r} there and {ours!r} in the dataset; "
                f"pass predictions that were made on this dataset"
            )
    about = {"class_map": "a run's own", "predict_over": "as in that run", "competing": len(dataset.classes)}
    source = read_environment(path.parent).get("source", {})
    about |= {key: source[key] for key in about if key in source}
    columns = ["rank", "top5", "top5_probability"]
    return samples.assign(**{column: table[column].to_numpy() for column in columns}), about


def _from_list(
    path: Path, table: pd.DataFrame, samples: pd.DataFrame, top: Sequence[str], classes: tuple[str, list[str]]
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Rank the true classes among the best few that are listed."""
    wanted = [f"top{place}" for place in range(1, 1 + len(top))]
    if sorted(top) != sorted(wanted):
        raise UserError(f"predictions={path} has the columns {', '.join(top)}; name them {', '.join(wanted)}")
    (naming, names), listed = classes, table[wanted].map(_text).to_numpy(object)  # (N, k)
    for sample_id, row in zip(table.index, listed, strict=True):
        if len(set(row)) < len(row) or "" in row:
            raise UserError(
                f"predictions={path}: sample {sample_id} has {', '.join(map(repr, row))} as its best classes; list "
                f"each once and leave none out"
            )
    positions = {name: position for position, name in enumerate(names)}
    unknown = list(dict.fromkeys(name for name in listed.flat if name not in positions))
    found = np.array([[positions.get(name, -1) for name in row] for row in listed], np.int32)
    if unknown and (naming == "position" or not (found >= 0).any()):
        others = ", ".join(other for other in NAMINGS if other != naming)
        raise UserError(
            f"predictions={path}: {_some(unknown)} are no {naming}s of the dataset's classes, which are "
            f"{_some(names)}; if the file names classes in another way, say it: predictions_classes={others}"
        )
    hits = found == samples["label"].to_numpy()[:, None]  # (N, k)
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), len(top))
    filled = samples.assign(rank=ranks, top5=[row[:5] for row in found])
    said = f"predictions={path} names {len(unknown)} classes that the dataset lacks ({_some(unknown)}): never right"
    return filled, {"competing": len(names) + len(unknown), "listed": len(top)}, [said] if unknown else []


def _from_logits(
    path: Path, table: pd.DataFrame, samples: pd.DataFrame, classes: tuple[str, list[str]]
) -> pd.DataFrame:
    """Rank the true classes among the logits of all."""
    (naming, names), columns = classes, set(table.columns)
    lost, odd = [name for name in names if name not in columns], sorted(columns - set(names))
    if lost or odd or len(columns) != len(names):
        there = f"no column for {_some(lost)}" if lost else f"columns that are no {naming} of a class: {_some(odd)}"
        raise UserError(
            f"predictions={path}: {there} (of {len(names)} classes, by {naming}). A table of logits has sample_id and "
            f"one column for each class of the dataset; what its columns are named by is said with "
            f"predictions_classes={', '.join(NAMINGS)}; a classifier with other classes gives top1, top2, … instead"
        )
    values = table[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)  # (N, C)
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise UserError(
            f"predictions={path}: logits that are NaN, infinite or no numbers for {_some(table.index[bad])} "
            f"({len(bad)} samples); mend them"
        )
    best, shares = top_classes(values)
    return samples.assign(
        rank=rank_of_true(values, samples["label"].to_numpy()),
        top5=list(best.astype(np.int32)),
        top5_probability=list(shares.astype(np.float32)),
    )


def _text(value: object) -> str:
    """Write a class as it is compared: what a table made floating is whole again, and nothing is empty."""
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _some(names: Any) -> str:
    """The first few of some names."""
    return ", ".join(map(str, list(names)[:5])) + (", …" if len(names) > 5 else "")
