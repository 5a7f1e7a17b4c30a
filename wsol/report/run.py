"""A run read again from its folder: its tables when they are asked for, its rules, what it was made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import yaml
from pyarrow.dataset import field

from wsol.errors import UserError
from wsol.io import reading
from wsol.localization import Protocol, load_protocol
from wsol.report.pieces import read_rows
from wsol.tables import METRIC_COLUMNS, SUMMARY_COLUMNS

__all__ = ["FILES", "Run"]

# In the order in which a run writes them: what an interrupted one lacks is the end of this list.
FILES = (
    "per_image.parquet", "curves.parquet", "sweeps.parquet", "samples.parquet", "metrics.csv", "summary.csv",
    "config.yaml", "environment.json",
)  # fmt: skip
TEXTS = (
    "dataset", "split", "model", "method", "layer", "view", "protocol", "threshold_source", "metric", "class",
)  # fmt: skip
COUNTS = ("n_images", "n_samples")


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluation, as its folder keeps it; open it with `Run.open`.

    Parameters
    ----------
    folder : Path
        With the files that `wsol.tables` describes.
    """

    folder: Path

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open a run's folder; nothing but names is read until it is asked for.

        Parameters
        ----------
        folder : path

        Raises
        ------
        UserError
            If there is no such folder, or it isn't a whole run's: what is missing, and what the folder seems to be.

        Examples
        --------
        >>> Run.open("/nowhere")
        Traceback (most recent call last):
        ...
        wsol.errors.UserError: /nowhere: no such folder; pass the folder of a run
        """
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; pass the folder of a run")
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise UserError(f"{path}: {_what_it_is(path, missing)}")
        return cls(path)

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.folder.resolve().name

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per method and protocol, percent."""
        return self._csv("summary.csv", SUMMARY_COLUMNS)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Everything else, long; `class` is "" in the rows over all classes."""
        return self._csv("metrics.csv", METRIC_COLUMNS)

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample: label, rank of the true class, image size; `image_id` is `sample_id` if there is none."""
        path = self.folder / "samples.parquet"
        with reading(path):
            table = pd.read_parquet(path)
        return table if "image_id" in table else table.assign(image_id=table["sample_id"])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Accuracies over τ, percent; no rows where the dataset has masks only."""
        path = self.folder / "curves.parquet"
        with reading(path):
            return pd.read_parquet(path)

    @property
    def config(self) -> dict[str, Any]:
        """What was asked for."""
        path = self.folder / "config.yaml"
        with reading(path):
            return dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {})

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, times; `source` says what the heatmaps were made from."""
        path = self.folder / "environment.json"
        with reading(path):
            return dict(json.loads(path.read_text(encoding="utf-8")))

    @property
    def source(self) -> Mapping[str, Any]:
        """Dataset, split, model, weights, view, class map, competing classes."""
        return dict(self.environment.get("source", {}))

    @property
    def methods(self) -> list[str]:
        """In the order of the tables."""
        return list(dict.fromkeys(self.summary["method"]))

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """Rules by name, in the order of the tables, with a grid that all maps share.

        Raises
        ------
        UserError
            If neither the run's configuration nor the presets know a protocol of the summary.
        """
        asked = self.config.get("protocols") or {}
        known = [Protocol.from_mapping({"name": name, **(rules or {})}) for name, rules in asked.items()]
        by_name = {rules.name: rules for rules in known}
        names = dict.fromkeys(self.summary["protocol"])
        return {name: (by_name.get(name) or self._preset(name)).for_many_maps() for name in names}

    @property
    def boxed(self) -> bool:
        """Whether the dataset has boxes, so that there are sweeps, curves and outcomes per image."""
        return bool(self.summary["gt_known_loc"].notna().any())

    @property
    def heatmaps(self) -> Path | None:
        """Folder of the heatmaps, if they were kept."""
        folder = self.folder / "heatmaps"
        return folder if folder.is_dir() else None

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Give the summary's (method, protocol), in its order."""
        yield from zip(self.summary["method"], self.summary["protocol"], strict=True)

    def row(self, method: str, protocol: str) -> pd.Series:
        """Return the summary's row of a method under a protocol.

        Raises
        ------
        UserError
            If the run has no such row.
        """
        found = self.summary[(self.summary["method"] == method) & (self.summary["protocol"] == protocol)]
        if found.empty:
            there = ", ".join(f"{m} under {p}" for m, p in self.pairs())
            raise UserError(f"{self.folder}: no row for {method} under {protocol}; there are {there}")
        return found.iloc[0]

    def sweep(self, method: str, protocol: str, columns: Sequence[str] = ("threshold", "iou")) -> pd.DataFrame:
        """Read the run-length coded sweeps of one method under one protocol.

        Only these rows are read, so many methods on 50,000 images never are in memory together.

        Parameters
        ----------
        method, protocol : str
        columns : sequence of str
            Of `threshold`, `x0`, `y0`, `x1`, `y1`, `iou`; `sample_id` comes along as a categorical.

        Returns
        -------
        DataFrame
            One row from `threshold` to the next row of its sample; each sample's rows stand together.
        """
        return self._part("sweeps.parquet", method, protocol, ["sample_id", *columns])

    @cached_property
    def _resamples(self) -> pd.DataFrame | None:
        path = self.folder / "resamples.parquet"
        if not path.is_file():
            return None
        with reading(path):
            return pd.read_parquet(path)

    def drawn_pxap(self, method: str, protocol: str, resamples: int) -> np.ndarray | None:
        """PxAP in the first resamples of the images, fractions (resamples,); None without masks or so many of them."""
        table = self._resamples
        if table is None:
            return None
        rows = table[(table["method"] == method) & (table["protocol"] == protocol)]
        return rows["pxap"].to_numpy()[:resamples] if len(rows) >= resamples else None

    def per_image(self, method: str, protocol: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Read what became of each sample at the summary's threshold; boxes in original pixels, inclusive.

        Parameters
        ----------
        method, protocol : str
        columns : sequence of str, optional
            By default all but the two names.
        """
        path = self.folder / "per_image.parquet"
        with reading(path):
            known = [name for name in pq.read_schema(path).names if name not in ("method", "protocol")]
        return self._part("per_image.parquet", method, protocol, known if columns is None else list(columns))

    def _part(self, name: str, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        path = self.folder / name
        with reading(path):
            if not len(pq.read_schema(path)):  # masks only: there was nothing to write
                return pd.DataFrame(columns=columns)
        return read_rows(path, (field("method") == method) & (field("protocol") == protocol), columns)

    def _csv(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        path = self.folder / name
        with reading(path):
            # As text first: an empty one is no missing value, nor is a class called "NA".
            table = pd.read_csv(path, dtype=object, keep_default_na=False)
            lacking = [column for column in columns if column not in table]
            if lacking:
                raise UserError(f"{path}: no column {', '.join(lacking)}; was it written by this program?")
            for column in (name for name in columns if name not in TEXTS):
                # Not every pandas reads numbers to the last bit; Python does.
                table[column] = [float(text) if text else np.nan for text in table[column]]
            return table.astype({name: np.int64 for name in COUNTS if name in columns})

    def _preset(self, name: str) -> Protocol:
        try:
            return load_protocol(name)
        except UserError as error:
            raise UserError(
                f"{self.folder}/config.yaml does not hold the rules of protocol {name}, and there is no such preset: "
                f"score its heatmaps again with `wsol score heatmaps={self.folder}/heatmaps`"
            ) from error


def _what_it_is(folder: Path, missing: Sequence[str]) -> str:
    """Say what a folder without all of a run's files seems to be, and what to do."""
    if (folder / "sweep.csv").is_file() or (folder / "0" / "job.json").is_file():
        return f"this is a sweep; its jobs are runs: '{folder}/0', or all of them, '{folder}/*'"
    if (folder / "history.csv").is_file() or (folder / "resume.pt").is_file():
        return "this is a training run; pass the run of an evaluation"
    begun = (folder / "heatmaps").is_dir() or any(folder.glob(".heatmaps.*.tmp"))
    if len(missing) == len(FILES) and not begun:
        return "this is not the folder of a run: it has no summary.csv, and none of a run's other tables"
    kept = (folder / "heatmaps" / "heatmaps.json").is_file()
    again = f"its heatmaps are whole: `wsol score heatmaps={folder / 'heatmaps'} dataset=…`" if kept else "run it again"
    return f"the run was interrupted, or is still going on: {', '.join(missing)} missing; {again}"
