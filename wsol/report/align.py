"""What several runs share: on which samples and protocols they can be compared, and why not on others."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterable, Mapping, Sequence
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
SAMPLE_COLUMNS = {"class": "class", "width": "width", "height": "height", "true_boxes": "ground truth"}
CAVEATS = {"competing": "classes compete for Top-1 and Top-5", "view": "is the view"}
THRESHOLD_SOURCES = {"oracle": "an oracle", "fixed": "a fixed value"}
Labeled = tuple[str, Run]


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
    labeled = dict(zip(_labels(runs), runs, strict=True))
    first, *others = labeled.items()
    ids, protocols = pd.Index(first[1].samples["sample_id"]), first[1].protocols
    problems, caveats = list[str](), list[str]()
    for other in others:
        other_ids = pd.Index(other[1].samples["sample_id"])
        problems += _other_data(first, other)
        problems += _other_samples(first[0], ids, other[0], other_ids)
        ids = ids[ids.isin(other_ids)]
        if len(ids):
            _check_same_samples(first, other, ids)
        protocols, differences = _same_protocols(first[0], protocols, *other)
        problems += differences
        caveats += _caveats(first, other)
    if not len(ids) or not protocols:
        raise UserError(f"nothing is left to compare: {'; '.join(problems)}")
    if problems and not shared:
        raise UserError(f"{'; '.join(problems)}. Pass shared=true to compare what the runs share")
    if problems:
        caveats.insert(0, f"{'; '.join(problems)}. Compared on {len(ids):,} samples under {', '.join(protocols)}.")
    return AlignedRuns(labeled, list(ids), protocols, caveats)


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


def _differences(first: Mapping[str, Any], other: Mapping[str, Any], keys: Iterable[str]) -> list[tuple[str, Any, Any]]:
    """Keys with different values, and these."""
    return [(key, first.get(key), other.get(key)) for key in keys if first.get(key) != other.get(key)]


def _other_data(first: Labeled, other: Labeled) -> list[str]:
    """Say where the datasets differ, as far as the runs wrote it down."""
    differences = _differences(first[1].source, other[1].source, ("dataset", "split"))
    before, after = first[1].config.get("dataset"), other[1].config.get("dataset")
    if not differences and isinstance(before, dict) and isinstance(after, dict):
        keys = [key for key in {**before, **after} if key not in NOT_THE_IMAGES]
        differences = [(f"dataset.{key}", *values) for key, *values in _differences(before, after, keys)]
    return [f"{key}: {one} in {first[0]}, {two} in {other[0]}" for key, one, two in differences]


def _other_samples(name: str, ids: pd.Index, other_name: str, other_ids: pd.Index) -> list[str]:
    pairs = (name, other_name, ids.difference(other_ids)), (other_name, name, other_ids.difference(ids))
    return [
        f"{has} has {len(more):,} samples that {lacks} has not ({first_names(more, 3)})"
        for has, lacks, more in pairs
        if len(more)
    ]


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


def _same_protocols(
    name: str, protocols: Mapping[str, Protocol], other_name: str, other: Run
) -> tuple[dict[str, Protocol], list[str]]:
    """Protocols that both have, by name and fields, and what is said about the others."""
    pairs = (name, protocols, other_name, other.protocols), (other_name, other.protocols, name, protocols)
    differences = [
        f"{has} was scored under {', '.join(sorted(set(these) - set(those)))}, {lacks} was not"
        for has, these, lacks, those in pairs
        if set(these) - set(those)
    ]
    same = {}
    for key in (key for key in protocols if key in other.protocols):
        fields, other_fields = asdict(protocols[key]), asdict(other.protocols[key])
        unlike = _differences(fields, other_fields, [field for field in fields if field not in NOT_THE_RULES])
        if unlike:
            text = ", ".join(f"{field} {one} and {two}" for field, one, two in unlike)
            differences.append(f"{key} is not the same in {name} and {other_name}: {text}")
        else:
            same[key] = protocols[key]
    return same, differences


def _caveats(first: Labeled, other: Labeled) -> list[str]:
    """Warn of what makes a comparison lame, though it can be made."""
    unlike = _differences(first[1].source, other[1].source, CAVEATS)
    notes = [f"{one} {CAVEATS[key]} in {first[0]}, {two} in {other[0]}." for key, one, two in unlike]
    sources, other_sources = _threshold_sources(first[1]), _threshold_sources(other[1])
    unlike = _differences(sources, other_sources, sorted(set(sources) & set(other_sources)))
    return notes + [
        f"{protocol}: τ comes from {one} in {first[0]}, from {two} in {other[0]}; an oracle has an advantage over any "
        f"other."
        for protocol, one, two in unlike
    ]


def _threshold_sources(run: Run) -> dict[str, str]:
    """Where τ comes from, by protocol."""
    rows = run.summary[run.summary["threshold_source"] != ""].groupby("protocol")["threshold_source"].first()
    return {str(protocol): THRESHOLD_SOURCES.get(source, "another split") for protocol, source in rows.items()}
