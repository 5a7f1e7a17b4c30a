"""What was best in a sweep, and on which split that was found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from wsol.tables import is_for_testing

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
    """Cut a sweep's table into parts within which values can be compared; jobs that failed are left out."""
    complete = frame[frame["error"] == ""]
    keys = [key for key in GROUP if key in frame]
    if not keys:
        return [complete] if len(complete) else []
    return [part for _, part in complete.groupby(keys, sort=False)]


def measure_of(part: pd.DataFrame) -> str | None:
    """Name the column that a part's settings are judged by: the first of `MEASURES` that all rows have."""
    return next((name for name in MEASURES if name in part and len(part) and (part[name] != "").all()), None)


def swept_numbers(frame: pd.DataFrame, overrides: Sequence[str]) -> list[str]:
    """Name the overrides that differ between jobs and are numbers in all of them."""
    differ = [name for name in overrides if frame[name].nunique() > 1]
    return [name for name in differ if pd.to_numeric(frame[name], errors="coerce").notna().all()]


def best_settings(frame: pd.DataFrame, overrides: Sequence[str], roles: Mapping[str, str]) -> pd.DataFrame:
    """Find the best settings for every method, dataset, split and protocol; of equally good ones the first.

    `frame` is a sweep's table as `sweep.csv` has it, `overrides` those of its columns that say what a job was asked
    for, `roles` what each job's split is for. `settings` names what differs between jobs, as far as it matters.

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
        methods = [group for _, group in part.groupby("method", sort=False)] if "method" in part else [part]
        for group in methods:
            values = group[measure].astype(float) * MEASURES[measure][1]
            best = group.iloc[int(values.to_numpy().argmax())]
            settings = [f"{name}={best[name]}" for name in differ if _matters(name, differ, group, values, best)]
            row = {key: best.get(key, "") for key in (*GROUP, "method", "job")}
            row |= {"role": roles.get(best["job"], ""), "measure": measure, "value": float(values.max())}
            rows.append(row | {"settings": ", ".join(settings) or "all alike"})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _matters(name: str, differ: Sequence[str], group: pd.DataFrame, values: pd.Series, best: pd.Series) -> bool:
    """Whether the best job would be another with some other value of this one override."""
    others = [other for other in differ if other != name]
    beside = (group[others] == best[others]).all(axis=1)
    return not (group.loc[beside, name].nunique() > 1 and values[beside].nunique() == 1)


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
