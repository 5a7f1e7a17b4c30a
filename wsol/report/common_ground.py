"""What several runs have in common: which samples and protocols they can be compared on, and why not on others."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.errors import UserError
from wsol.localization import Protocol
from wsol.report.run import Run

__all__ = ["Common", "common_ground", "find_runs"]

logger = logging.getLogger("wsol")

NOT_THE_IMAGES = ("root", "class_map", "length", "_target_")  # keys of a dataset that don't change what a sample shows
NOT_THE_RULES = ("name", "threshold")  # a fixed τ is told by the summary's threshold_source


@dataclass(frozen=True, eq=False)
class Common:
    """Runs that can be compared.

    Parameters
    ----------
    runs : dict of label to Run
        The label tells a run from the others: its model, or its folder.
    sample_ids : list of str
        Samples that all runs have, in the order of the first.
    protocols : dict of str to Protocol
        Rules that all runs were scored by.
    notes : list of str
        What the reader must know: what was left out, and what isn't alike.
    """

    runs: dict[str, Run]
    sample_ids: list[str]
    protocols: dict[str, Protocol]
    notes: list[str]

    def samples(self, run: Run) -> pd.DataFrame:
        """Return a run's samples that all runs share, in the common order."""
        return run.samples.set_index("sample_id", drop=False).loc[self.sample_ids].reset_index(drop=True)


def find_runs(patterns: Sequence[str | Path]) -> list[Run]:
    """Open the runs that folders and patterns name.

    Parameters
    ----------
    patterns : sequence of folders, or patterns such as "results/runs/*"
        A pattern leaves out, with a warning, what is no whole run.

    Raises
    ------
    UserError
        If a folder isn't a whole run's or is named twice, or a pattern finds none.
    """
    found: dict[Path, Run] = {}
    named: set[Path] = set()
    for pattern in map(str, patterns):
        if not glob.has_magic(pattern) or Path(pattern).expanduser().is_dir():
            run = Run.open(pattern)
            place = run.folder.resolve()
            if place in named:
                raise UserError(f"runs: {pattern} is named twice; a run differs from itself in nothing")
            named.add(place)
            found.setdefault(place, run)
            continue
        matches = [Path(path) for path in sorted(glob.glob(str(Path(pattern).expanduser()))) if Path(path).is_dir()]
        runs = [run for run in map(_run_or_warning, matches) if run is not None]
        if not runs:
            raise UserError(f"runs: {pattern} finds no whole run ({len(matches)} folders match)")
        for run in runs:
            found.setdefault(run.folder.resolve(), run)
    if not found:
        raise UserError("runs: name at least one run's folder, as in 'runs=[results/runs/A,results/runs/B]'")
    return list(found.values())


def common_ground(runs: Sequence[Run], shared: bool = False) -> Common:
    """Find what runs can be compared on.

    Parameters
    ----------
    runs : sequence of Run
    shared : bool
        Where images or protocols differ: take what all runs share and say so, instead of refusing.

    Returns
    -------
    Common

    Raises
    ------
    UserError
        If images or protocols differ, naming how; with `shared` if nothing is left, or if what has the same name is
        not the same: a sample's class, size or true boxes.
    """
    labels = _labels(runs)
    first, problems, notes = runs[0], list[str](), list[str]()
    shown = dict(zip(labels, runs, strict=True))
    ids, protocols = pd.Index(first.samples["sample_id"]), dict(first.protocols)
    for label, run in list(shown.items())[1:]:
        own = pd.Index(run.samples["sample_id"])
        problems += _other_data(labels[0], first, label, run) + _other_samples(labels[0], ids, label, own)
        ids = ids[ids.isin(own)]
        if len(ids):
            _check_same_samples(labels[0], first, label, run, ids)
        protocols, told = _same_rules(labels[0], protocols, label, run.protocols)
        problems += told
        notes += _unlike(labels[0], first, label, run)
    nothing = f"nothing is left to compare: {'; '.join(problems)}"
    if not len(ids) or not protocols:
        raise UserError(nothing)
    if problems and not shared:
        raise UserError(f"{'; '.join(problems)}. Pass shared=true to compare what the runs share")
    if problems:
        notes = [f"{'; '.join(problems)}. Compared on {len(ids):,} samples under {', '.join(protocols)}.", *notes]
    return Common(shown, list(ids), protocols, notes)


def _run_or_warning(folder: Path) -> Run | None:
    try:
        return Run.open(folder)
    except UserError as error:
        logger.warning("left out: %s", error)
        return None


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by the first of these that tells all apart: model, folder, path."""
    ways: tuple[Callable[[Run], str], ...] = (
        lambda run: str(run.source.get("model", "")),
        lambda run: run.name,
        lambda run: str(run.folder),
    )
    for way in ways:
        labels = [way(run) for run in runs]
        if len(set(labels)) == len(runs) and all(labels):
            return labels
    return [str(run.folder.resolve()) for run in runs]


def _other_data(name: str, first: Run, label: str, run: Run) -> list[str]:
    """Say where the datasets differ, as far as the runs wrote it down."""
    found = [
        f"{key}: {first.source.get(key)} in {name}, {run.source.get(key)} in {label}"
        for key in ("dataset", "split")
        if first.source.get(key) != run.source.get(key)
    ]
    ours, theirs = first.config.get("dataset"), run.config.get("dataset")
    if not found and isinstance(ours, dict) and isinstance(theirs, dict):
        keys = [key for key in {**ours, **theirs} if key not in NOT_THE_IMAGES and ours.get(key) != theirs.get(key)]
        found += [f"dataset.{key}: {ours.get(key)} in {name}, {theirs.get(key)} in {label}" for key in keys]
    return found


def _other_samples(name: str, ids: pd.Index, label: str, own: pd.Index) -> list[str]:
    found = []
    for has, lacks, more in ((name, label, ids.difference(own)), (label, name, own.difference(ids))):
        if len(more):
            examples = ", ".join(map(str, more[:3])) + (", …" if len(more) > 3 else "")
            found.append(f"{has} has {len(more):,} samples that {lacks} has not ({examples})")
    return found


def _check_same_samples(name: str, first: Run, label: str, run: Run, ids: pd.Index) -> None:
    """Refuse runs whose samples have the same names but aren't the same."""
    ours, theirs = (table.samples.set_index("sample_id").loc[ids] for table in (first, run))
    for what, column in (("class", "class"), ("width", "width"), ("height", "height"), ("true boxes", "true_boxes")):
        if column not in ours or column not in theirs:
            continue
        same = _equal(ours[column], theirs[column])
        if not same.all():
            at = int(np.argmin(same))
            raise UserError(
                f"{label} is of other images than {name}: {what} of sample {ids[at]} is {ours[column].iloc[at]} in "
                f"{name}, {theirs[column].iloc[at]} in {label} ({int((~same).sum()):,} samples differ)"
            )


def _equal(ours: pd.Series, theirs: pd.Series) -> np.ndarray:
    if ours.name == "true_boxes":
        return np.array([np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)])
    return (ours == theirs).to_numpy(bool)


def _same_rules(
    name: str, ours: dict[str, Protocol], label: str, theirs: dict[str, Protocol]
) -> tuple[dict[str, Protocol], list[str]]:
    """Protocols that both have, by name and rules, and what is said about the others."""
    told, same = [], {}
    for has, lacks, more in ((name, label, set(ours) - set(theirs)), (label, name, set(theirs) - set(ours))):
        if more:
            told.append(f"{has} was scored under {', '.join(sorted(more))}, {lacks} was not")
    for protocol in (known for known in ours if known in theirs):
        differing = [_rule(field.name, ours[protocol], theirs[protocol]) for field in fields(Protocol)]
        differing = [text for text in differing if text]
        if differing:
            told.append(f"{protocol} is not the same in {name} and {label}: {', '.join(differing)}")
        else:
            same[protocol] = ours[protocol]
    return same, told


def _rule(field: str, ours: Protocol, theirs: Protocol) -> str:
    first, second = getattr(ours, field), getattr(theirs, field)
    return "" if field in NOT_THE_RULES or first == second else f"{field} {first} and {second}"


def _unlike(name: str, first: Run, label: str, run: Run) -> list[str]:
    """Warn of what makes a comparison lame, though it can be made."""
    notes = []
    for key, text in (("competing", "classes compete for Top-1 and Top-5"), ("view", "is the view")):
        ours, theirs = first.source.get(key), run.source.get(key)
        if ours != theirs:
            notes.append(f"{ours} {text} in {name}, {theirs} in {label}.")
    ours_at, theirs_at = _sources(first), _sources(run)
    for protocol in sorted(set(ours_at) & set(theirs_at)):
        if ours_at[protocol] != theirs_at[protocol]:
            notes.append(
                f"{protocol}: τ comes from {ours_at[protocol]} in {name}, from {theirs_at[protocol]} in {label}; an "
                f"oracle has an advantage over any other."
            )
    return notes


def _sources(run: Run) -> dict[Any, str]:
    """Where τ comes from, by protocol: "oracle", "a fixed value" or "another split"."""
    known = {"oracle": "an oracle", "fixed": "a fixed value"}
    table = run.summary[run.summary["threshold_source"] != ""].groupby("protocol")["threshold_source"].first()
    return {protocol: known.get(source, "another split") for protocol, source in table.items()}
