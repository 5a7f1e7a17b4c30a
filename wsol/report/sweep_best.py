"""What was best in a sweep, and on which split that was found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from wsol.tables import is_for_testing

__all__ = ["MEASURES", "best_settings", "chosen_on", "groups_of", "measure_of"]

# What settings are judged by, in this order: column, its name, and what brings it to percent.
MEASURES: dict[str, tuple[str, float]] = {
    "max_box_acc_v2": ("MaxBoxAccV2", 1),
    "max_box_acc": ("MaxBoxAcc", 1),
    "gt_known_loc": ("GT-known localization", 1),
    "pxap": ("PxAP", 1),
    "val_top1": ("validation accuracy", 100),
}
GROUP = ("dataset", "split", "protocol")
COLUMNS = ("dataset", "split", "role", "protocol", "method", "settings", "measure", "value", "job")


def groups_of(frame: pd.DataFrame) -> list[pd.DataFrame]:
    """Cut a sweep's table into parts within which values can be compared: same dataset, split and protocol.

    Jobs that failed are left out.

    Examples
    --------
    >>> frame = pd.DataFrame({"job": ["0", "1"], "split": ["val", "test"], "pxap": ["50", "60"], "error": ["", ""]})
    >>> [len(part) for part in groups_of(frame)]
    [1, 1]
    """
    went_well = frame[frame["error"] == ""]
    keys = [key for key in GROUP if key in frame]
    if not keys:
        return [went_well] if len(went_well) else []
    return [part for _, part in went_well.groupby(keys, sort=False)]


def measure_of(part: pd.DataFrame) -> str | None:
    """Name the column that a part's settings are judged by: the first of `MEASURES` that all rows have.

    Examples
    --------
    >>> measure_of(pd.DataFrame({"max_box_acc": ["", "70"], "gt_known_loc": ["71", "70"]}))
    'gt_known_loc'
    """
    return next((name for name in MEASURES if name in part and len(part) and (part[name] != "").all()), None)


def best_settings(frame: pd.DataFrame, overrides: Sequence[str], roles: Mapping[str, str]) -> pd.DataFrame:
    """Find the best settings for every method, dataset, split and protocol.

    Parameters
    ----------
    frame : DataFrame of str
        A sweep's table, as `sweep.csv` has it.
    overrides : sequence of columns
        Those of its columns that say what a job was asked for.
    roles : mapping of job to str
        What the job's split is for, where the dataset says so.

    Returns
    -------
    DataFrame
        `dataset, split, role, protocol, method, settings, measure, value, job`: the value in percent; `settings` says
        what differs between jobs, as far as it makes a difference; of equally good ones the first.

    Examples
    --------
    >>> frame = pd.DataFrame({"job": ["0", "1"], "x": ["1", "2"], "gt_known_loc": ["70", "75"], "error": ["", ""]})
    >>> best_settings(frame, ["x"], {})[["settings", "value"]].values.tolist()
    [['x=2', 75.0]]
    """
    rows: list[dict[str, Any]] = []
    for part in groups_of(frame):
        measure = measure_of(part)
        if measure is None:
            continue
        differ = [name for name in overrides if part[name].nunique() > 1]
        methods = [own for _, own in part.groupby("method", sort=False)] if "method" in part else [part]
        for own in methods:
            values = own[measure].astype(float) * MEASURES[measure][1]
            first = own.iloc[int(values.to_numpy().argmax())]
            matter = [name for name in differ if not _makes_no_difference(name, differ, own, values, first)]
            about = {key: first.get(key, "") for key in (*GROUP, "method", "job")}
            about |= {"role": roles.get(first["job"], ""), "measure": measure, "value": float(values.max())}
            about["settings"] = ", ".join(f"{name}={first[name]}" for name in matter) or "all alike"
            rows.append(about)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _makes_no_difference(
    name: str, differ: Sequence[str], own: pd.DataFrame, values: pd.Series, best: pd.Series
) -> bool:
    """Whether the best job would be as good with every other value of this one override."""
    others = [other for other in differ if other != name]
    beside = (own[others] == best[others]).all(axis=1)
    return bool(own.loc[beside, name].nunique() > 1 and values[beside].nunique() == 1)


def chosen_on(best: pd.DataFrame) -> list[str]:
    """Say on which split settings were chosen, and what that is worth: a sentence or two for each split.

    Parameters
    ----------
    best : DataFrame
        From `best_settings`.

    Examples
    --------
    >>> best = pd.DataFrame({"dataset": ["cub"], "split": ["val"], "role": ["train-fullsup"], "settings": ["x=2"]})
    >>> chosen_on(best)
    ['Chosen on cub (val, role train-fullsup): now run them once on the test split.']
    """
    sentences = []
    for dataset, split, role in best[["dataset", "split", "role"]].drop_duplicates().values.tolist():
        if not dataset:
            sentences.append("Chosen on the validation split of the training.")
            continue
        where = f"{dataset} ({', '.join(filter(None, (split, role and f'role {role}')))})"
        if is_for_testing(split, role):
            sentences.append(
                f"Chosen on {where}, the test split itself: an oracle, not a result. Choose settings on a split that "
                "is not for testing, and run the best once on this one."
            )
        else:
            sentences.append(f"Chosen on {where}: now run them once on the test split.")
    return sentences
