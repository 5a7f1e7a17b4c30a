"""Anybody's predictions, read from a file or a run: where the true class stands among the guesses for each sample."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets.classes import rank_of_true, top_classes
from wsol.datasets.sample import Dataset
from wsol.errors import UserError, composed_otherwise, first_names, quantity
from wsol.heatmaps.store import HeatmapStore, samples_table
from wsol.io import check_declared, read_environment, reading

logger = logging.getLogger("wsol")

LARGEST = 1 << 32  # bytes that a file of predictions unpacks to
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
        samples = pd.read_parquet(check_declared(path)).set_index("sample_id").loc[ids].reset_index()
    _require_same_classes(path, ids, samples["class"], [dataset.classes[label] for label in dataset.labels])
    return samples.assign(label=dataset.labels)


def _require_same_classes(path: Path, ids: Iterable[str], theirs: Iterable[str], ours: Iterable[str]) -> None:
    for sample_id, their, our in zip(ids, theirs, ours, strict=True):
        if their != our:
            raise UserError(
                f"sample {sample_id} is of class {their!r} in {path} and {our!r} in the dataset: "
                "pass the same dataset.classes that the run had"
            )


def read_predictions(
    path: Path, dataset: Dataset, samples: pd.DataFrame, naming: str | None = None, on_error: str = "stop"
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    """Fill in the ranks of true classes from a file that some classifier's predictions were written to.

    The file is one of

    - a CSV or Parquet table with a column `sample_id` and columns `top1`, `top2`, … up to `top5` or more: classes, best
      first; other columns are not read;
    - the same with one column for each class of the dataset instead, holding its logit (or probability), and no other;
    - an .npz file with `sample_id` (N,) and `top5` (N, k), best first, or with `logits` (N, C) and `classes` (C,), what
      the columns stand for (by default their positions);
    - `samples.parquet` of a run on the same samples.

    It calls classes by the dataset's ids, its names or their position from 0: `naming` "id", "name" or "position". By
    default ids; where those are numbers that differ from positions, it has to be said. With on_error="skip" a sample
    without a prediction is said and counts as wrong.

    Returns the samples with rank (k where the true class is not among the k that are listed), top5 (positions of
    classes, -1 for one that the dataset lacks) and, from logits, top5_probability; what the run's source says of it;
    and notes of what counts as wrong for want of a prediction, or of the class that was predicted.
    """
    if naming not in (None, *NAMINGS):
        raise UserError(f"predictions_classes={naming}: pass {', '.join(NAMINGS)}")
    try:
        return _fill(path, dataset, samples, naming, on_error)
    except UserError as error:
        raise UserError(f"predictions={path}: {error}") from error


def _fill(
    path: Path, dataset: Dataset, samples: pd.DataFrame, naming: str | None, on_error: str
) -> tuple[pd.DataFrame, dict[str, Any], list[str]]:
    table = _read_table(path)
    has_row, notes = _match_samples(path, table.index, samples, on_error)
    rows, predicted = table.loc[samples["sample_id"][has_row]], samples[has_row]
    if set(rows.columns) >= RUN_COLUMNS:
        columns, source = _from_run(path, rows, predicted, dataset)
    else:
        naming = naming or safe_naming(dataset)
        names = class_names(dataset, naming)
        source = {"class_map": naming, "predict_over": "all", "competing": len(names)}
        best = rows.filter(regex=r"^top\d+$")
        if best.shape[1]:
            columns, unknown = _from_list(best, predicted, naming, names)
            source |= {"competing": len(names) + len(unknown), "listed": best.shape[1]}
            lacking = f"{quantity(len(unknown), 'class')} that the dataset lacks ({first_names(unknown)})"
            notes += [f"predictions={path} names {lacking}: never right"] if unknown else []
        else:
            columns = _from_logits(rows, predicted, naming, names)
    filled = pd.concat([predicted.assign(**columns), samples[~has_row]]).loc[samples.index]
    return filled, {"predictions": str(path)} | source, notes


def _read_table(path: Path) -> pd.DataFrame:
    """What a file says of each sample id; ids and names of columns are text, arrays are spread out to columns."""
    readers: dict[str, Callable[[Path], pd.DataFrame]]
    readers = {".csv": _read_csv, ".parquet": _read_parquet, ".npz": _read_npz}
    try:
        table = readers[path.suffix.lower()](path).rename(columns=str).astype({"sample_id": str})
        return table.set_index("sample_id")
    except Exception as error:  # of a damaged file readers make whatever it happens to be
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"can't be read: {reason}; {FORMATS}") from error


def _read_csv(path: Path) -> pd.DataFrame:
    """Read everything as text, so that an id such as 001 stays what it is."""
    table = pd.read_csv(path, header=None, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    columns = table.iloc[0]
    if columns.duplicated().any():
        raise ValueError(f"column {columns[columns.duplicated()].iloc[0]!r} comes twice")
    return table[1:].set_axis(columns, axis=1).reset_index(drop=True)


def _read_parquet(path: Path) -> pd.DataFrame:
    return pd.read_parquet(check_declared(path))


def _read_npz(path: Path) -> pd.DataFrame:
    with np.load(path, allow_pickle=False) as file:
        if (size := sum(member.file_size for member in file.zip.infolist())) > LARGEST:
            raise ValueError(f"it declares to unpack to {size:,} bytes, more than {LARGEST:,}")
        arrays = {name: file[name] for name in ("sample_id", "top5", "logits", "classes") if name in file}
    values = arrays["top5"] if "top5" in arrays else arrays["logits"]
    columns = [f"top{place + 1}" for place in range(values.shape[1])]
    if "top5" not in arrays:
        columns = arrays.get("classes", np.arange(values.shape[1])).tolist()
    return pd.DataFrame(values, pd.Index(arrays["sample_id"], name="sample_id"), columns).reset_index()


def _match_samples(path: Path, ids: pd.Index, samples: pd.DataFrame, on_error: str) -> tuple[np.ndarray, list[str]]:
    """Which samples have a row: bool (N,); and a note of those that have none."""
    if ids.has_duplicates:
        raise UserError(f"{first_names(ids[ids.duplicated()])} come more than once; keep one row for each sample")
    has_row = samples["sample_id"].isin(ids).to_numpy()
    missing = samples["sample_id"][~has_row]
    message = f"no row for {first_names(missing)} ({len(missing)} of {len(samples)} samples)"
    if len(missing) and (on_error == "stop" or not has_row.any()):
        raise UserError(
            f"{message}; its column sample_id holds {first_names(ids)}: add rows by the dataset's sample ids, or pass "
            f"on_error=skip, which counts some that are missing as wrong{composed_otherwise(missing.iloc[0], ids)}"
        )
    return has_row, [f"predictions={path}: {message}; they count as wrong"] if len(missing) else []


def safe_naming(dataset: Dataset) -> str:
    """Take ids, unless they could be mistaken for positions."""
    for position, name in enumerate(dataset.ids):
        if name.isdecimal() and int(name) != position:
            raise UserError(
                f"the ids of {dataset.name}'s classes are numbers that differ from positions (id {name} stands at "
                f"{position}), so say which the file has: predictions_classes=id, name or position"
            )
    return "id"


def class_names(dataset: Dataset, naming: str) -> list[str]:
    """What a file calls each class."""
    positions = [str(position) for position in range(len(dataset.classes))]
    return {"id": list(dataset.ids), "name": list(dataset.classes), "position": positions}[naming]


def _from_run(
    path: Path, rows: pd.DataFrame, samples: pd.DataFrame, dataset: Dataset
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take what a run wrote down; its top5 are places among its own classifier's logits."""
    _require_same_classes(path, rows.index, rows["class"], samples["class"])
    about = {"class_map": "a run's own", "predict_over": "as in that run", "competing": len(dataset.classes)}
    source = read_environment(path.parent).get("source", {})
    about |= {key: source[key] for key in about if key in source}
    return {column: rows[column].to_numpy() for column in ("rank", "top5", "top5_probability")}, about


def _from_list(
    rows: pd.DataFrame, samples: pd.DataFrame, naming: str, names: list[str]
) -> tuple[dict[str, Any], list[str]]:
    """Rank the true classes among the best few that are listed; and which of these the dataset lacks."""
    count = rows.shape[1]
    columns = [f"top{place + 1}" for place in range(count)]
    if not set(columns) <= set(rows.columns):
        raise UserError(f"its columns are {', '.join(rows.columns)}; name them {', '.join(columns)}")
    listed = rows[columns].map(class_text).to_numpy(object)  # (N, k)
    positions = {name: position for position, name in enumerate(names)}
    unknown = list(dict.fromkeys(name for name in listed.flat if name not in positions))
    best = np.array([[positions.get(name, -1) for name in classes] for classes in listed], np.int32)  # (N, k)
    if unknown and (naming == "position" or not (best >= 0).any()):
        others = ", ".join(other for other in NAMINGS if other != naming)
        raise UserError(
            f"{first_names(unknown)} are no {naming}s of the dataset's classes, which are {first_names(names)}; if "
            f"the file names classes in another way, say it: predictions_classes={others}"
        )
    hits = best == samples["label"].to_numpy()[:, None]  # (N, k)
    ranks = np.where(hits.any(axis=1), hits.argmax(axis=1), count)
    return {"rank": ranks, "top5": [row[:5] for row in best]}, unknown


def class_text(value: object) -> str:
    """Write a class as it is compared: what a table made floating is whole again, and nothing is empty."""
    if pd.isna(value):  # type: ignore[call-overload]
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _from_logits(rows: pd.DataFrame, samples: pd.DataFrame, naming: str, names: list[str]) -> dict[str, Any]:
    """Rank the true classes among the logits of all."""
    twice = pd.Index(names)[pd.Index(names).duplicated()]
    if len(twice):
        raise UserError(f"two classes of the dataset are called {twice[0]!r}: use predictions_classes=id or position")
    if sorted(rows.columns) != sorted(names):
        differ = first_names(sorted(set(names) ^ set(rows.columns)))
        raise UserError(
            f"its columns must be sample_id and the {len(names)} classes of the dataset by {naming}, nothing else; "
            f"missing or surplus are {differ}. Other names are said with predictions_classes={', '.join(NAMINGS)}; a "
            f"classifier with other classes gives top1, top2, …"
        )
    logits = rows[names].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)  # (N, C)
    bad = rows.index[~np.isfinite(logits).all(axis=1)]
    if len(bad):
        raise UserError(f"logits are NaN, infinite or no numbers for {first_names(bad)} ({len(bad)} samples)")
    best, shares = top_classes(logits)
    ranks = rank_of_true(logits, samples["label"].to_numpy())
    return {"rank": ranks, "top5": list(best.astype(np.int32)), "top5_probability": list(shares.astype(np.float32))}
