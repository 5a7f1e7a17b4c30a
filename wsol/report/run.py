"""A run read again from its folder: its tables when they are asked for, its protocols, what it was made with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as arrow
import yaml

from wsol.errors import UserError
from wsol.io import reading
from wsol.localization import Protocol, load_protocol
from wsol.metrics.localization import AT_THE_SUMMARYS_THRESHOLD, sample_outcomes
from wsol.metrics.statistics import INTERVAL_COLUMNS, RESAMPLES, interval_table, resample
from wsol.tables import METRIC_COLUMNS, SUMMARY_COLUMNS, TEXTS

# In the order in which a run writes them: what an interrupted one lacks is the end of this list.
FILES = (
    "per_image.parquet", "curves.parquet", "sweeps.parquet", "samples.parquet", "metrics.csv", "summary.csv",
    "config.yaml", "environment.json",
)  # fmt: skip
COUNTS = ("n_images", "n_samples")
REPEATED = ("sample_id", "method", "protocol", "class", "error_kind")  # texts that become categoricals
BATCH = 1 << 17  # rows read at a time


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluation, as its folder keeps it; open it with `Run.open`."""

    folder: Path

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Open a run's folder; nothing but names is read until it is asked for.

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
            raise UserError(f"{path}: {_why_not_a_run(path, missing)}")
        return cls(path)

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
        table = self._parquet("samples.parquet")
        return table if "image_id" in table else table.assign(image_id=table["sample_id"])

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Accuracies over τ, percent; no rows where the dataset has masks only."""
        return self._parquet("curves.parquet")

    @cached_property
    def config(self) -> dict[str, Any]:
        """What was asked for."""
        return self._text("config.yaml", yaml.safe_load)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, times; `source` says what the heatmaps were made from."""
        return self._text("environment.json", json.loads)

    @property
    def source(self) -> dict[str, Any]:
        """Dataset, split, model, weights, view, class map, competing classes."""
        return dict(self.environment.get("source", {}))

    @property
    def methods(self) -> list[str]:
        """In the order of the tables."""
        return list(dict.fromkeys(self.summary["method"]))

    @cached_property
    def protocols(self) -> dict[str, Protocol]:
        """Protocols by name, in the order of the tables, each with a grid that all maps share."""
        recorded = self.config.get("protocols") or {}
        protocols = [Protocol.from_mapping({"name": name, **(fields or {})}) for name, fields in recorded.items()]
        by_name = {protocol.name: protocol for protocol in protocols}
        names = dict.fromkeys(self.summary["protocol"])
        return {name: (by_name.get(name) or load_protocol(name)).for_many_maps() for name in names}

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
        """Return the summary's row of a method under a protocol."""
        return self.summary[(self.summary["method"] == method) & (self.summary["protocol"] == protocol)].iloc[0]

    def sweep(self, method: str, protocol: str) -> pd.DataFrame:
        """Read `sample_id`, `threshold` and `iou` of one method's run-length coded sweeps under one protocol.

        A row holds from `threshold` to the next row of its sample; each sample's rows stand together.
        """
        return self._rows_of("sweeps.parquet", method, protocol, ["sample_id", "threshold", "iou"])

    def per_image(self, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        """Read what became of each sample at the summary's threshold; boxes in original pixels, inclusive."""
        return self._rows_of("per_image.parquet", method, protocol, columns)

    def rows(self, name: str, only: arrow.Expression, columns: list[str] | None = None) -> pd.DataFrame:
        """Read the rows of a table that an expression lets through, piece by piece.

        50,000 images have 40 million rows of sweeps, and whole columns are gigabytes.
        """
        path = self.folder / name
        with reading(path):
            names = columns or arrow.dataset(path).schema.names
            # Not those that are only filtered by: as plain texts they let the scanner skip what can't match.
            repeated = [column for column in names if column in REPEATED]
            # Reading ahead, as is usual, holds more of the file than the answer needs.
            options = arrow.ParquetFragmentScanOptions(pre_buffer=False)
            layout = arrow.ParquetFileFormat(dictionary_columns=repeated, default_fragment_scan_options=options)
            ahead = {"batch_size": BATCH, "batch_readahead": 1, "fragment_readahead": 1}
            return arrow.dataset(path, format=layout).scanner(names, filter=only, **ahead).to_table().to_pandas()

    def drawn_pxap(self, method: str, protocol: str, resamples: int) -> np.ndarray | None:
        """PxAP in the first resamples of the images, fractions (resamples,); None without masks or so many of them."""
        if self._resamples.empty:
            return None
        of_both = (self._resamples["method"] == method) & (self._resamples["protocol"] == protocol)
        drawn = self._resamples["pxap"][of_both].to_numpy()
        return drawn[:resamples] if len(drawn) >= resamples else None

    @cached_property
    def _resamples(self) -> pd.DataFrame:
        name = "resamples.parquet"
        return self._parquet(name) if (self.folder / name).is_file() else pd.DataFrame()

    def _rows_of(self, name: str, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        if not self.boxed:  # there was nothing to write
            return pd.DataFrame(columns=columns)
        return self.rows(name, (arrow.field("method") == method) & (arrow.field("protocol") == protocol), columns)

    def _text(self, name: str, parse: Callable[[str], Any]) -> dict[str, Any]:
        path = self.folder / name
        with reading(path):
            return dict(parse(path.read_text(encoding="utf-8")) or {})

    def _parquet(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        with reading(path):
            return pd.read_parquet(path)

    def _csv(self, name: str, columns: Sequence[str]) -> pd.DataFrame:
        path = self.folder / name
        with reading(path):
            # As text first: an empty one is no missing value, nor is a class called "NA".
            table = pd.read_csv(path, dtype=object, keep_default_na=False)
            for column in (name for name in columns if name not in TEXTS):
                # Not every pandas reads numbers to the last bit; Python does.
                table[column] = [float(text) if text else np.nan for text in table[column]]
            return table.astype({name: np.int64 for name in COUNTS if name in columns})


def _why_not_a_run(folder: Path, missing: Sequence[str]) -> str:
    """Say what a folder without all of a run's files seems to be, and what to do."""
    if (folder / "sweep.csv").is_file() or (folder / "0" / "job.json").is_file():
        return f"this is a sweep; its jobs are runs: '{folder}/0', or all of them, '{folder}/*'"
    if (folder / "history.csv").is_file() or (folder / "resume.pt").is_file():
        return "this is a training run; pass the run of an evaluation"
    begun = (folder / "heatmaps").is_dir() or any(folder.glob(".heatmaps.*.tmp"))
    if len(missing) == len(FILES) and not begun:
        return "this is not the folder of a run: it has no summary.csv, and none of a run's other tables"
    advice, heatmaps = "run it again", folder / "heatmaps"
    if (heatmaps / "heatmaps.json").is_file():
        advice = f"its heatmaps are whole: `wsol score heatmaps={heatmaps} dataset=…`"
    return f"the run was interrupted, or is still going on: {', '.join(missing)} missing; {advice}"


def intervals(run: Run, resamples: int = RESAMPLES, seed: int = 0) -> pd.DataFrame:
    """The 95 % interval of every metric of a run's summary: from its `metrics.csv`, or drawn now for an older run."""
    overall = run.metrics[(run.metrics["class"] == "") & run.metrics["low"].notna()]
    if len(overall):
        return _from_metrics(overall, run.summary)
    entries = []
    for method, protocol in run.pairs():
        drawn = run.drawn_pxap(method, protocol, resamples) if seed == 0 else None
        row, sweep = run.row(method, protocol), run.sweep(method, protocol)
        outcomes = sample_outcomes(row, sweep, run.samples, run.protocols[protocol], drawn)
        if outcomes.thresholds:  # an older run with masks alone has nothing to draw
            entries.append((method, protocol, outcomes))
    if not entries:
        return pd.DataFrame(columns=list(INTERVAL_COLUMNS))
    return interval_table(entries, resample(entries, run.samples, resamples, seed))


def _from_metrics(overall: pd.DataFrame, summary: pd.DataFrame) -> pd.DataFrame:
    """Read intervals back from the long table's rows over all classes."""
    at_iou = overall["iou_threshold"].notna()
    percent = (100 * overall["iou_threshold"].fillna(0)).round().astype(int).astype(str)
    table = overall.assign(metric=overall["metric"].where(~at_iou, overall["metric"] + "_" + percent))
    keys = ["method", "protocol"]
    largest = summary.loc[summary["max_box_acc"].notna(), keys]
    again = table[table["metric"] == "max_box_acc_50"].merge(largest).assign(metric="max_box_acc")
    table = pd.concat([table, again]).merge(summary[[*keys, "threshold_source"]], on=keys, how="left")
    at_summary = table["metric"].isin(AT_THE_SUMMARYS_THRESHOLD)
    table["oracle"] = table["metric"].str.startswith("max_box_acc") | (
        at_summary & (table["threshold_source"] == "oracle")
    )
    return table[list(INTERVAL_COLUMNS)].reset_index(drop=True)
