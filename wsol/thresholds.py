"""Which τ a summary's numbers are taken at: fixed, the best on this split, or chosen by a run on another one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from wsol.environment import read_environment
from wsol.errors import UserError
from wsol.localization import Protocol
from wsol.metrics.scoring import ProtocolScores

__all__ = ["Given", "choose_threshold", "thresholds_of"]

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
        Whether they may have been chosen on a split whose role is "test"; the tables then say so.

    Returns
    -------
    source : str
        For the tables: the run, and whether its thresholds were chosen on a test split.
    thresholds : dict of (method, protocol) to float

    Raises
    ------
    UserError
        If there is no such run, its split is for testing and that was not asked for, it lacks the threshold of a
        method under a protocol, or a threshold that it chose is not on the protocol's grid.
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
    first = table.iloc[0]
    on_test = read_environment(Path(run).expanduser()).get("role") == "test"
    if on_test and not from_test:
        raise UserError(
            f"threshold_from={run}: its thresholds were chosen on {first['dataset']} ({first['split']}), whose role is "
            f"test. Choose them on a split with the role train-fullsup (a run on val, say); threshold_from_test=true "
            f"takes them all the same, and the tables then say so"
        )
    if first["split"] == str(source.get("split")) and first["dataset"] == source.get("dataset"):
        logger.warning(
            "threshold_from=%s: its thresholds were chosen on the same split (%s) that is scored now",
            run,
            first["split"],
        )
    if first["model"] != source.get("model"):
        logger.warning("threshold_from=%s: its model is %s, not %s", run, first["model"], source.get("model"))
    return f"{run} (chosen on test)" if on_test else str(run), thresholds
