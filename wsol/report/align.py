"""What several runs share: on which samples and protocols they can be compared, and why not on others."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
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
SAMPLE_COLUMNS = {"class": "class", "width": "width", "height": "height", "true_boxes": "ground truth"}
CAVEATS = {"competing": "classes that compete for Top-1 and Top-5", "view": "view"}
THRESHOLD_SOURCES = {
    "": "nowhere",
    "oracle": "an oracle, which has an advantage",
    "fixed": "a fixed value",
}
Labeled = tuple[str, Run]
Facts = Mapping[str, Any]


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
    named: list[Path] = []
    for pattern in map(str, patterns):
        is_pattern = glob.has_magic(pattern) and not Path(pattern).expanduser().is_dir()
        for run in _matching_runs(pattern) if is_pattern else [Run.open(pattern)]:
            runs.setdefault(run.folder.resolve(), run)
        named += [] if is_pattern else [run.folder.resolve()]
    for place in named:
        if named.count(place) > 1:
            raise UserError(f"runs: {place} is named twice; a run differs from itself in nothing")
    if not runs:
        raise UserError("runs: name at least one run's folder, as in 'runs=[results/runs/A,results/runs/B]'")
    return list(runs.values())


def align_runs(runs: Sequence[Run], shared: bool = False) -> AlignedRuns:
    """Find what runs can be compared on.

    Where images or protocols differ this is refused, or, with `shared`, what all runs share is taken and the rest
    told. Samples of one name that aren't the same (class, size, ground truth) are refused always.
    """
    labeled = list(zip(_labels(runs), runs, strict=True))
    first, *others = labeled
    ids, protocols = pd.Index(first[1].samples["sample_id"]), first[1].protocols
    problems, caveats = list[str](), list[str]()
    for other in others:
        other_ids = pd.Index(other[1].samples["sample_id"])
        problems += _unlike(first, other, _dataset) or _unlike(first, other, _dataset_options)
        problems += _only(first[0], ids.difference(other_ids), other[0], "samples")
        problems += _only(other[0], other_ids.difference(ids), first[0], "samples")
        ids = ids[ids.isin(other_ids)]
        if len(ids):
            _check_same_samples(first, other, ids)
        common = [name for name in protocols if name in other[1].protocols]
        problems += _only(first[0], [name for name in protocols if name not in common], other[0], "protocols")
        problems += _only(other[0], [name for name in other[1].protocols if name not in common], first[0], "protocols")
        unlike = {name: _unlike(first, other, partial(_rules, name=name)) for name in common}
        problems += [text for texts in unlike.values() for text in texts]
        protocols = {name: protocols[name] for name in common if not unlike[name]}
        caveats += [f"{text}." for text in _unlike(first, other, partial(_circumstances, protocols=common))]
    if not len(ids) or not protocols:
        raise UserError(f"nothing is left to compare: {'; '.join(problems)}")
    if problems and not shared:
        raise UserError(f"{'; '.join(problems)}. Pass shared=true to compare what the runs share")
    if problems:
        caveats.insert(0, f"{'; '.join(problems)}. Compared on {len(ids):,} samples under {', '.join(protocols)}.")
    return AlignedRuns(dict(labeled), list(ids), protocols, caveats)


def _matching_runs(pattern: str) -> list[Run]:
    folders = [path for path in sorted(glob.glob(str(Path(pattern).expanduser()))) if Path(path).is_dir()]
    runs = []
    for folder in folders:
        try:
            runs.append(Run.open(folder))
        except UserError as error:
            logger.warning("left out: %s", error)
    if not runs:
        raise UserError(f"runs: {pattern} finds no whole run ({len(folders)} folders match)")
    return runs


def _labels(runs: Sequence[Run]) -> list[str]:
    """Name each run by the first of these that tells all apart: model, folder, path."""
    ways = (
        [str(run.source.get("model") or "") for run in runs],
        [run.folder.resolve().name for run in runs],
        [str(run.folder) for run in runs],
    )
    telling = (labels for labels in ways if len(set(labels)) == len(runs) and all(labels))
    return next(telling, [str(run.folder.resolve()) for run in runs])


def _unlike(first: Labeled, other: Labeled, facts_of: Callable[[Run], Facts]) -> list[str]:
    """Say which facts of two runs differ."""
    facts, other_facts = facts_of(first[1]), facts_of(other[1])
    return [
        f"{key}: {facts.get(key)} in {first[0]}, {other_facts.get(key)} in {other[0]}"
        for key in {**facts, **other_facts}
        if facts and other_facts and facts.get(key) != other_facts.get(key)
    ]


def _dataset(run: Run) -> Facts:
    return {key: run.source.get(key) for key in ("dataset", "split")}


def _dataset_options(run: Run) -> Facts:
    """As far as the run wrote them down."""
    dataset = run.config.get("dataset")
    options = dataset if isinstance(dataset, dict) else {}
    return {f"dataset.{key}": value for key, value in options.items() if key not in NOT_THE_IMAGES}


def _rules(run: Run, name: str) -> Facts:
    fields = asdict(run.protocols[name])
    return {f"{name}.{key}": value for key, value in fields.items() if key not in NOT_THE_RULES}


def _circumstances(run: Run, protocols: Sequence[str]) -> Facts:
    """What makes a comparison lame where it differs, though it can be made."""
    facts = {title: run.source.get(key) for key, title in CAVEATS.items()}
    for row in run.summary[run.summary["protocol"].isin(protocols)].itertuples():
        facts[f"τ of {row.protocol}"] = THRESHOLD_SOURCES.get(str(row.threshold_source), "another split")
    return facts


def _only(has: str, names: Collection[str], lacks: str, what: str) -> list[str]:
    return [f"{has} has {what} that {lacks} has not: {first_names(names, 3)}"] if len(names) else []


def _check_same_samples(first: Labeled, other: Labeled, ids: pd.Index) -> None:
    """Refuse runs whose samples have the same names but aren't the same."""
    before, after = (run.samples.set_index("sample_id").loc[ids] for run in (first[1], other[1]))
    for column in (name for name in SAMPLE_COLUMNS if name in before and name in after):
        if column == "true_boxes":
            same = np.array([np.array_equal(*pair) for pair in zip(before[column], after[column], strict=True)])
        else:
            same = (before[column] == after[column]).to_numpy(bool)
        if not same.all():
            at = int(np.argmin(same))
            raise UserError(
                f"{other[0]} is of other images than {first[0]}: {SAMPLE_COLUMNS[column]} of sample {ids[at]} is "
                f"{before[column].iloc[at]} in {first[0]}, {after[column].iloc[at]} in {other[0]} "
                f"({int((~same).sum()):,} samples differ)"
            )
