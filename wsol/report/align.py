"""What several runs share: on which samples and protocols they can be compared, and why not on others."""

from __future__ import annotations

import glob
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.errors import UserError, first_names
from wsol.localization import Protocol
from wsol.report.run import Run

logger = logging.getLogger("wsol")

NOT_THE_IMAGES = {"root", "class_map", "length", "_target_"}  # keys of a dataset that don't change what a sample shows
NOT_THE_RULES = {"name", "threshold"}  # a fixed τ is told by the summary's threshold_source
SAMPLE_COLUMNS = ["class", "width", "height", "true_boxes"]
THRESHOLD_SOURCES = {"oracle": "an oracle, which has an advantage", "fixed": "a fixed value"}


@dataclass(frozen=True, eq=False)
class AlignedRuns:
    """Runs that can be compared, by a label that tells each from the others: its model, or its folder."""

    runs: dict[str, Run]
    sample_ids: list[str]  # that all runs have, in the order of the first
    protocols: dict[str, Protocol]  # that all runs were scored under
    notes: list[str]  # what was left out, and what isn't alike

    def samples(self, run: Run) -> pd.DataFrame:
        """Return a run's samples that all runs share, in the common order."""
        return run.samples.set_index("sample_id", drop=False).loc[self.sample_ids].reset_index(drop=True)


def find_runs(patterns: Sequence[str | Path]) -> list[Run]:
    """Open the runs that folders and patterns name; a pattern leaves out, with a warning, what is no whole run."""
    runs: dict[Path, Run] = {}
    for pattern in (Path(pattern).expanduser() for pattern in patterns):
        is_pattern = glob.has_magic(str(pattern)) and not pattern.is_dir()
        folders = [Path(path) for path in sorted(glob.glob(f"{pattern}/"))] if is_pattern else [pattern]
        count = len(runs)
        for folder in folders:
            try:
                runs.setdefault(folder.resolve(), Run.open(folder))
            except UserError as error:
                if not is_pattern:
                    raise
                logger.warning("left out: %s", error)
        if len(runs) == count:
            raise UserError(f"runs: {pattern} finds no whole run that isn't named already")
    if not runs:
        raise UserError("runs: name at least one run's folder, as in 'runs=[results/runs/A,results/runs/B]'")
    return list(runs.values())


def align_runs(runs: Sequence[Run], shared: bool = False) -> AlignedRuns:
    """Find what runs can be compared on.

    Where images or protocols differ this is refused, or, with `shared`, what all runs share is taken and the rest
    told. Samples of one name that aren't the same (class, size, ground truth) are refused always.
    """
    labeled = dict(zip(_labels(runs), runs, strict=True))
    first, *others = labeled
    ids, protocols = pd.Index(runs[0].samples["sample_id"]), runs[0].protocols
    problems, caveats = list[str](), list[str]()
    for other in others:
        names, one, two = (first, other), labeled[first], labeled[other]
        other_ids = pd.Index(two.samples["sample_id"])
        data = ({key: run.source.get(key) for key in ("dataset", "split")} for run in (one, two))
        problems += _unlike(names, *data) or _unlike(names, _options(one), _options(two))
        problems += _only(first, ids, other, other_ids, "samples") + _only(other, other_ids, first, ids, "samples")
        problems += _only(first, protocols, other, two.protocols, "protocols")
        problems += _only(other, two.protocols, first, protocols, "protocols")
        ids = ids[ids.isin(other_ids)]
        _check_same_samples(names, _samples(one, ids), _samples(two, ids))
        common = {name: rules for name, rules in protocols.items() if name in two.protocols}
        unlike = {name: _unlike(names, _rules(rules), _rules(two.protocols[name])) for name, rules in common.items()}
        problems += [text for texts in unlike.values() for text in texts]
        protocols = {name: rules for name, rules in common.items() if not unlike[name]}
        caveats += [f"{text}." for text in _unlike(names, _circumstances(one, common), _circumstances(two, common))]
    if not len(ids) or not protocols:
        raise UserError(f"nothing is left to compare: {'; '.join(problems)}")
    if problems and not shared:
        raise UserError(f"{'; '.join(problems)}. Pass shared=true to compare what the runs share")
    if problems:
        caveats.insert(0, f"{'; '.join(problems)}. Compared on {len(ids):,} samples under {', '.join(protocols)}.")
    return AlignedRuns(labeled, list(ids), protocols, caveats)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by the first of these that tells all apart: model, folder, path."""
    ways = (
        [str(run.source.get("model") or "") for run in runs],
        [run.folder.resolve().name for run in runs],
        [str(run.folder.resolve()) for run in runs],
    )
    return next(labels for labels in ways if len(set(labels)) == len(runs) and all(labels))


def _unlike(names: tuple[str, str], first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Say which facts of two runs differ, where both say something."""
    keys = [key for key in {**first, **other} if first and other and first.get(key) != other.get(key)]
    return [f"{key}: {first.get(key)} in {names[0]}, {other.get(key)} in {names[1]}" for key in keys]


def _only(has: str, names: Collection[str], lacks: str, others: Collection[str], what: str) -> list[str]:
    extra = [name for name in names if name not in others]
    return [f"{has} has {what} that {lacks} has not: {first_names(extra, 3)}"] if extra else []


def _options(run: Run) -> dict[str, Any]:
    """Those of the dataset, as far as the run wrote them down."""
    options = run.config.get("dataset") or {}
    return {f"dataset.{key}": value for key, value in options.items() if key not in NOT_THE_IMAGES}


def _rules(protocol: Protocol) -> dict[str, Any]:
    return {f"{protocol.name}.{key}": value for key, value in asdict(protocol).items() if key not in NOT_THE_RULES}


def _circumstances(run: Run, protocols: Collection[str]) -> dict[str, Any]:
    """What makes a comparison lame where it differs, though it can be made."""
    rows = run.summary[run.summary["protocol"].isin(list(protocols))]
    sources = [THRESHOLD_SOURCES.get(source, "another split") for source in rows["threshold_source"]]
    facts = {"classes that compete for Top-1 and Top-5": run.source.get("competing"), "view": run.source.get("view")}
    return facts | dict(zip("τ of " + rows["protocol"], sources, strict=True))


def _samples(run: Run, ids: pd.Index) -> pd.DataFrame:
    """What makes a sample the same in two runs."""
    table = run.samples.set_index("sample_id").loc[ids].filter(SAMPLE_COLUMNS)
    return table.assign(true_boxes=table["true_boxes"].map(np.ndarray.tolist)) if "true_boxes" in table else table


def _check_same_samples(names: tuple[str, str], first: pd.DataFrame, other: pd.DataFrame) -> None:
    """Refuse runs whose samples have the same names but aren't the same."""
    for column in first.columns.intersection(other.columns):
        differ = first[column] != other[column]
        if differ.any():
            at = differ.idxmax()
            values = f"{first.at[at, column]!s} in {names[0]}, {other.at[at, column]!s} in {names[1]}"
            raise UserError(
                f"{names[1]} is of other images than {names[0]}: {column} of sample {at} is {values} "
                f"({int(differ.sum()):,} samples differ)"
            )
