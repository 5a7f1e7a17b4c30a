"""Which τ a summary's numbers are taken at: fixed, the best on this split, or chosen by a run on another one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wsol.errors import UserError
from wsol.io import read_environment
from wsol.localization import Protocol
from wsol.metrics.scoring import ProtocolScores

__all__ = ["Given", "choose_threshold", "is_for_testing", "thresholds_of"]

logger = logging.getLogger("wsol")

Given = tuple[str, dict[tuple[str, str], float]]


def choose_threshold(method: str, part: ProtocolScores, given: Given | None = None) -> tuple[float, str]:
    """Choose τ for one method under one protocol.

    Parameters
    ----------
    method : str
    part : ProtocolScores
    given : (source, thresholds by method and protocol), optional
        From another run; it wins over the oracle, a protocol's fixed τ wins over it.

    Returns
    -------
    threshold : float
        The smallest τ that maximizes GT-known localization at IoU 0.5 on its source.
    source : str
        "fixed", "oracle", or the run it came from.

    """
    protocol = part.protocol
    if protocol.threshold is not None:
        return protocol.threshold, "fixed"
    if int(part.accuracy.count) == 0:  # masks only: no box is right at any threshold
        return float(protocol.grid()[0]), ""
    if given is None:
        return part.accuracy.best_threshold(0.5), "oracle"
    source, thresholds = given
    return thresholds[method, protocol.name], source


def is_for_testing(split: str, role: str) -> bool:
    """Whether settings chosen on this split have seen what they will be tested on.

    Examples
    --------
    >>> is_for_testing("val", "train-fullsup"), is_for_testing("val", "test"), is_for_testing("test", "")
    (False, True, True)
    """
    return role == "test" or (role == "" and split == "test")


def thresholds_of(
    run: Path | str,
    source: Mapping[str, Any],
    methods: Iterable[str],
    protocols: Mapping[str, Protocol],
    from_test: bool = False,
) -> Given:
    """Read the thresholds that another run chose.

    Parameters
    ----------
    run : path
        Its folder.
    source : mapping
        What is scored now: dataset, split, model.
    methods, protocols
        What is asked for; protocols with a fixed τ need none.
    from_test : bool
        Whether they may have been chosen on a split for testing, or on the one that is scored now; the tables then
        say so.

    Returns
    -------
    source : str
        For the tables: the run, and whether its thresholds were chosen on a test split, or on this one.
    thresholds : dict of (method, protocol) to float

    Raises
    ------
    UserError
        If there is no such run, its split is for testing or this one and that was not asked for, it lacks the threshold
        of a method under a protocol, or a threshold that it chose is not on the protocol's grid.
    """
    path = Path(run).expanduser() / "summary.csv"
    if not path.is_file():
        raise UserError(f"threshold_from={run}: no summary.csv there; pass the folder of a run")
    try:
        table = pd.read_csv(path, dtype={"split": str}).dropna(subset=["threshold"])
        thresholds = {
            (str(row["method"]), str(row["protocol"])): float(row["threshold"]) for _, row in table.iterrows()
        }
    except (KeyError, ValueError, AttributeError) as error:
        raise UserError(f"threshold_from={run}: {path} is no summary of a run: {error}") from error
    swept = [protocol for protocol in protocols.values() if protocol.threshold is None]
    for method, protocol in ((method, protocol) for method in methods for protocol in swept):
        if (method, protocol.name) not in thresholds:
            raise UserError(
                f"threshold_from={run}: that run has no threshold for method {method} under protocol {protocol.name}; "
                f"it has {', '.join(f'{m} under {p}' for m, p in thresholds) or 'none'}"
            )
        protocol.threshold_index(thresholds[method, protocol.name])
    if table.empty:
        return str(run), thresholds
    first = table[["dataset", "split", "model"]].iloc[0]
    dataset, split, model = ("" if pd.isna(value) else str(value) for value in first)
    on_test = is_for_testing(split, str(read_environment(Path(run).expanduser()).get("role") or ""))
    on_this = (dataset, split) == (source.get("dataset"), str(source.get("split")))
    if (on_test or on_this) and not from_test:
        why = "whose role is test" if on_test else "which is scored now"
        raise UserError(
            f"threshold_from={run}: its thresholds were chosen on {dataset} ({split}), {why}. Choose them on a split "
            f"with the role train-fullsup (a run on val, say); threshold_from_test=true takes them all the same, and "
            f"the tables then say so"
        )
    now = str(source.get("model") or "")
    if model != now:
        logger.warning("threshold_from=%s: its model is %s, not %s", run, model or "none", now or "none")
    chosen_on = "this very split" if on_this else "test" if on_test else ""
    return f"{run} (chosen on {chosen_on})" if chosen_on else str(run), thresholds
