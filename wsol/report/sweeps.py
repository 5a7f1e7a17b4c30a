"""What was best in a sweep, and on which split that was found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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


def judged_parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cut a sweep's table into parts within which values can be compared; jobs that failed are left out.

    Each comes with its measure, the first of `MEASURES` that all its rows have, which is `percent` in the part.
    """
    complete = frame[frame["error"] == ""]
    keys = [key for key in GROUP if key in frame]
    for part in [part for _, part in complete.groupby(keys, sort=False)] if keys else [complete]:
        measure = next((name for name in MEASURES if name in part and len(part) and (part[name] != "").all()), None)
        if measure is not None:
            yield measure, part.assign(percent=part[measure].astype(float) * MEASURES[measure][1])


def best_settings(frame: pd.DataFrame, overrides: Sequence[str], roles: Mapping[str, str]) -> pd.DataFrame:
    """Find the best settings for every method, dataset, split and protocol; of equally good ones the first.

    `frame` is a sweep's table as `sweep.csv` has it, `overrides` those of its columns that say what a job was asked
    for, `roles` what each job's split is for. `settings` names what differs between jobs, as far as it matters.
    """
    rows: list[dict[str, Any]] = []
    for measure, part in judged_parts(frame):
        differ = [name for name in overrides if part[name].nunique() > 1]
        for _, group in part.groupby("method", sort=False) if "method" in part else [("", part)]:
            best = group.iloc[int(group["percent"].to_numpy().argmax())]
            settings = [f"{name}={best[name]}" for name in differ if _matters(name, differ, group, best)]
            row = {key: best.get(key, "") for key in (*GROUP, "method", "job")}
            row |= {"role": roles.get(best["job"], ""), "measure": measure, "value": best["percent"]}
            rows.append(row | {"settings": ", ".join(settings) or "all alike"})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _matters(name: str, differ: Sequence[str], group: pd.DataFrame, best: pd.Series) -> bool:
    """Whether the best job would be another with some other value of this one override."""
    others = [other for other in differ if other != name]
    beside = group[(group[others] == best[others]).all(axis=1)]
    return not (beside[name].nunique() > 1 and beside["percent"].nunique() == 1)


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
