"""Predictions of any classifier, read from a file: where each sample's true class stands among its guesses."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.classes import rank_of_true, top_classes
from wsol.datasets.sample import Dataset
from wsol.errors import UserError, first_names
from wsol.heatmaps.store import HeatmapStore, samples_table
from wsol.io import read_environment, reading

__all__ = ["NAMINGS", "read_predictions", "read_samples", "samples_table"]

logger = logging.getLogger("wsol")

NAMINGS = ("id", "name", "position")
RUN_COLUMNS = {"image_id", "class", "rank", "top5", "top5_probability"}
FORMATS = (
    "pass a .csv or .parquet table with a column sample_id and either top1, top2, … (best first) or one column of "
    "logits for each class, or an .npz with sample_id (N,) and either top5 (N, k) or logits (N, C) and classes (C,)"
)


def read_samples(dataset: Dataset, store: HeatmapStore, part: bool = False) -> pd.DataFrame:
    """Samples of a dataset with the predictions of the run that made the heatmaps; without a run there are none yet.

    `part` says that the dataset may be a part of what the run had; otherwise both must have the same samples, and in
    any case the same classes.
    """
    if store.folder is None:
        return samples_table(dataset, store)
    ids, stored = list(dataset.table["sample_id"]), set(store.sample_ids)
    extra = set() if part else stored - set(ids)
    for what, names in (("no heatmap for", set(ids) - stored), ("heatmaps of unknown samples:", extra)):
        if names:
            raise UserError(
                f"{store.folder}: {what} {first_names(sorted(names))} ({len(names)} of {len(ids)} samples); "
                f"is this the dataset, split and limit that the heatmaps were made on "
                f"({store.source.get('dataset')}, {store.source.get('split')})?"
            )
    path = store.folder.parent / "samples.parquet"
    if not path.is_file():
        logger.warning("no %s: without predictions the Top-k columns stay empty", path)
        return samples_table(dataset, store)
    with reading(path):
        samples = pd.read_parquet(path).set_index("sample_id").loc[ids].reset_index()
    classes = [dataset.classes[label] for label in dataset.labels]
    for sample_id, theirs, ours in zip(ids, samples["class"], classes, strict=True):
        if theirs != ours:
            raise UserError(
                f"{path}: sample {sample_id} is of class {theirs!r} there and {ours!r} in the dataset; "
                f"pass the same dataset.classes that the run had"
            )
    return samples.assign(label=dataset.labels)


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
    """
    if naming not in (None, *NAMINGS):
        raise UserError(f"predictions_classes={naming}: pass {', '.join(NAMINGS)}")
    table = _read_table(path)
    has_row, notes = _match_samples(path, table, samples, on_error)
    rows, predicted = table.set_index("sample_id").loc[samples["sample_id"][has_row]], samples[has_row]
    listed = sum(column.startswith("top") and column[3:].isdecimal() for column in rows.columns)
    if set(rows.columns) >= RUN_COLUMNS:
        columns, source = _from_run(path, rows, predicted, dataset)
    else:
        naming = naming or _safe_naming(path, dataset)
        positions = [str(position) for position in range(len(dataset.classes))]
        names = {"id": list(dataset.ids), "name": list(dataset.classes), "position": positions}[naming]
        source = {"class_map": naming, "predict_over": "all", "competing": len(names)}
        if listed:
            columns, unknown = _from_list(path, rows, predicted, listed, naming, names)
            source |= {"competing": len(names) + len(unknown), "listed": listed}
            lacking = f"{len(unknown)} classes that the dataset lacks ({first_names(unknown)})"
            notes += [f"predictions={path} names {lacking}: never right"] if unknown else []
        else:
            columns = _from_logits(path, rows, predicted, naming, names)
    filled = pd.concat([predicted.assign(**columns), samples[~has_row]]).loc[samples.index]
    return filled, {"predictions": str(path)} | source, notes


def _read_table(path: Path) -> pd.DataFrame:
    """Column sample_id, as text, and others, whose names are text; arrays are spread out to columns."""
    readers: dict[str, Callable[[Path], pd.DataFrame]]
    readers = {".csv": _read_csv, ".parquet": pd.read_parquet, ".npz": _read_npz}
    if not path.is_file():
        raise UserError(f"predictions={path}: no such file; {FORMATS}")
    if path.suffix.lower() not in readers:
        raise UserError(f"predictions={path}: a file of this kind is not read; {FORMATS}")
    try:
        table = readers[path.suffix.lower()](path)
    except Exception as error:  # of a damaged file readers make whatever it happens to be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"predictions={path} can't be read: {reason}; {FORMATS}") from error
    table.columns = [str(column) for column in table.columns]
    if "sample_id" not in table.columns:
        raise UserError(f"predictions={path} has no column sample_id but {first_names(table.columns)}; {FORMATS}")
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        raise UserError(f"predictions={path}: column {repeated[0]!r} comes more than once; keep one")
    return table.assign(sample_id=table["sample_id"].astype(str))


def _read_csv(path: Path) -> pd.DataFrame:
    """Read everything as text, so that an id such as 001 stays what it is."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", header=None)
    return rows.iloc[1:].set_axis(list(rows.iloc[0]), axis=1)  # pandas would rename columns that come twice


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in ("sample_id", "top5", "logits", "classes") if name in file}
    values = arrays["top5"] if "top5" in arrays else arrays["logits"]
    columns = [f"top{place + 1}" for place in range(values.shape[1])]
    if "top5" not in arrays:
        columns = arrays.get("classes", np.arange(values.shape[1])).tolist()
    return pd.DataFrame(values, pd.Index(arrays["sample_id"], name="sample_id"), columns).reset_index()


def _match_samples(
    path: Path, table: pd.DataFrame, samples: pd.DataFrame, on_error: str
) -> tuple[np.ndarray, list[str]]:
    """Which samples have a row: bool (N,); and a note of those that have none."""
    repeated = table["sample_id"][table["sample_id"].duplicated()].unique()
    if len(repeated):
        raise UserError(
            f"predictions={path}: {first_names(repeated)} come more than once; keep one row for each sample"
        )
    has_row = samples["sample_id"].isin(table["sample_id"]).to_numpy()
    if has_row.all():
        return has_row, []
    missing = samples["sample_id"][~has_row]
    message = f"predictions={path}: no row for {first_names(missing)} ({len(missing)} of {len(samples)} samples)"
    if not has_row.any():
        ids = first_names(table["sample_id"])
        raise UserError(f"{message}; its column sample_id holds {ids}: use the dataset's sample ids")
    if on_error == "stop":
        raise UserError(f"{message}; add them, or pass on_error=skip, which counts them as wrong")
    return has_row, [f"{message}; they count as wrong"]


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
    path: Path, rows: pd.DataFrame, samples: pd.DataFrame, dataset: Dataset
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take what a run wrote down; its top5 are places among its own classifier's logits."""
    other = np.flatnonzero(rows["class"].to_numpy() != samples["class"].to_numpy())
    if len(other):
        sample_id, theirs, ours = rows.index[other[0]], rows["class"].iloc[other[0]], samples["class"].iloc[other[0]]
        raise UserError(
            f"predictions={path}: sample {sample_id} is of class {theirs!r} there and {ours!r} in the dataset; "
            "pass predictions that were made on this dataset"
        )
    about = {"class_map": "a run's own", "predict_over": "as in that run", "competing": len(dataset.classes)}
    source = read_environment(path.parent).get("source", {})
    about |= {key: source[key] for key in about if key in source}
    return {column: rows[column].to_numpy() for column in ("rank", "top5", "top5_probability")}, about


def _from_list(
    path: Path, rows: pd.DataFrame, samples: pd.DataFrame, count: int, naming: str, names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Rank the true classes among the best few that are listed; and which of these the dataset lacks."""
    columns = [f"top{place + 1}" for place in range(count)]
    if not set(columns) <= set(rows.columns):
        top = [column for column in rows.columns if column.startswith("top")]
        raise UserError(f"predictions={path} has the columns {', '.join(top)}; name them {', '.join(columns)}")
    listed = rows[columns].map(_class_text).to_numpy(object)  # (N, k)
    for sample_id, classes in zip(rows.index, listed, strict=True):
        if len(set(classes)) < count or "" in classes:
            raise UserError(
                f"predictions={path}: sample {sample_id} has {', '.join(map(repr, classes))} as its best classes; "
                "list each once and leave none out"
            )
    positions = {name: position for position, name in enumerate(names)}
    unknown = list(dict.fromkeys(name for name in listed.flat if name not in positions))
    best = np.array([[positions.get(name, -1) for name in classes] for classes in listed], np.int32)  # (N, k)
    if unknown and (naming == "position" or not (best >= 0).any()):
        others = ", ".join(other for other in NAMINGS if other != naming)
        raise UserError(
            f"predictions={path}: {first_names(unknown)} are no {naming}s of the dataset's classes, which are "
            f"{first_names(names)}; if the file names classes in another way, say it: predictions_classes={others}"
        )
    hits = best == samples["label"].to_numpy()[:, None]  # (N, k)
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), count)
    return {"rank": ranks, "top5": [row[:5] for row in best]}, unknown


def _class_text(value: object) -> str:
    """Write a class as it is compared: what a table made floating is whole again, and nothing is empty."""
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _from_logits(
    path: Path, rows: pd.DataFrame, samples: pd.DataFrame, naming: str, names: list[str]
) -> dict[str, Any]:
    """Rank the true classes among the logits of all."""
    missing, surplus = set(names) - set(rows.columns), set(rows.columns) - set(names)
    if missing or surplus or len(rows.columns) != len(names):
        raise UserError(
            f"predictions={path}: its columns must be sample_id and the {len(names)} classes of the dataset by "
            f"{naming}; missing are {first_names(sorted(missing)) or 'none'}, surplus are "
            f"{first_names(sorted(surplus)) or 'none'}. What columns are named by is said with "
            f"predictions_classes={', '.join(NAMINGS)}; a classifier with other classes gives top1, top2, … instead"
        )
    logits = rows[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)  # (N, C)
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if len(bad):
        raise UserError(
            f"predictions={path}: logits that are NaN, infinite or no numbers for {first_names(rows.index[bad])} "
            f"({len(bad)} samples); fix them"
        )
    best, shares = top_classes(logits)
    ranks = rank_of_true(logits, samples["label"].to_numpy())
    return {"rank": ranks, "top5": list(best.astype(np.int32)), "top5_probability": list(shares.astype(np.float32))}
