"""A run read again from its folder: its tables when they are asked for, its protocols, what it was made with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as arrow

from wsol.errors import UserError
from wsol.io import check_declared, data_file, read_json, read_yaml, reading
from wsol.localization import Protocol, load_protocol
from wsol.localization.protocol import protocol_names
from wsol.metrics.localization import AT_THE_SUMMARYS_THRESHOLD, METRICS, READY, is_oracle
from wsol.shards import check_run
from wsol.tables import METRIC_COLUMNS, SUMMARY_COLUMNS, TEXTS, expand_sweeps

# In the order in which a run writes them: what an interrupted one lacks is the end of this list.
FILES = (
    "per_image.parquet", "curves.parquet", "sweeps.parquet", "samples.parquet", "metrics.csv", "summary.csv",
    "config.yaml", "environment.json",
)  # fmt: skip
COUNTS = ("n_images", "n_samples")
REPEATED = ("sample_id", "method", "protocol", "rules", "class", "error_kind")  # texts that become categoricals
BATCH = 1 << 17  # rows read at a time
MOST_SAMPLES = 5_000_000
LARGEST_SWEEPS = 1 << 42  # bytes, unpacked, of what is read a row group at a time
MOST_VALUES = 1 << 28  # in a column that is read whole; rows of sweeps are read by method and protocol
RANGES = dict.fromkeys(METRICS, (0.0, 100.0)) | {
    # IoUs that a protocol doesn't clamp may be below 0.
    "mean_iou": (-1e9, 100), "low": (-1e9, 100), "high": (-1e9, 100), "value": (-1e9, 1e12), "iou": (-1e9, 1e9),
    "threshold": (0, 1), "iou_threshold": (0, 1), "rank": (-1, 1e9),
    "label": (0, 1e9), "width": (0, 1e9), "height": (0, 1e9), "n_images": (1, MOST_SAMPLES),
    "n_samples": (1, MOST_SAMPLES),
}  # fmt: skip
NEVER_MISSING = {"sample_id", "image_id", "label", "rank", "width", "height", "iou", "threshold", "iou_threshold"}


@dataclass(frozen=True, eq=False)
class Run:
    """One evaluation, as its folder keeps it; open it with `Run.open`."""

    folder: Path

    @classmethod
    def open(cls, folder: Path | str, whole: bool = True) -> Run:
        """Open a run's folder; nothing but names is read until it is asked for. `whole`: refuse an unfinished one."""
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; pass the folder of a run")
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise UserError(
                f"{path}: {', '.join(missing)} missing: it is not the folder of a run (a sweep has runs in numbered "
                f"folders), or its run was interrupted or is still going on: `wsol resume=true run_dir={path}` goes on "
                f"with it; from whole heatmaps, `wsol score heatmaps={path / 'heatmaps'} dataset=…` makes the tables"
            )
        if whole:
            check_run(path)
        return cls(path)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per method and protocol, percent."""
        return self._read("summary.csv", partial(_read_csv, columns=SUMMARY_COLUMNS, key=["method", "protocol"]))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Everything else, long; `class` is "" in the rows over all classes."""
        return self._read("metrics.csv", partial(_read_csv, columns=METRIC_COLUMNS))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample: image, label, rank of the true class, image size, ground-truth boxes."""
        table, count = self._read("samples.parquet", _read_parquet), self.summary["n_samples"].iloc[0]
        if len(table) != count or table["sample_id"].duplicated().any():
            raise UserError(f"{self.folder}/samples.parquet: wanted {count} samples, each once, as summary.csv says")
        return table

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Accuracies over τ, percent; no rows where the dataset has masks only."""
        return self._read("curves.parquet", _read_parquet)

    @cached_property
    def faithfulness(self) -> pd.DataFrame:
        """One row per sample, method, preset and metric, and points of curves; no rows where it was not measured."""
        path = self.folder / "faithfulness.parquet"
        return self._read(path.name, _read_parquet) if path.is_file() else pd.DataFrame()

    @cached_property
    def config(self) -> dict[str, Any]:
        """What was asked for: plain values, of which nothing is ever resolved, imported or called."""
        return read_yaml(self.folder / "config.yaml")

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, times; `source` says what the heatmaps were made from."""
        path = self.folder / "environment.json"
        content = read_json(path)
        for name, kind in (("source", dict), ("versions", dict), ("notes", list)):
            if not isinstance(content.get(name, kind()), kind):
                raise UserError(f"{path}: {name} is {content[name]!r}; wanted a {kind.__name__}")
        return content

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
        with reading(self.folder / "config.yaml"):
            recorded = dict(self.config.get("protocols") or {}).items()
            protocols = [Protocol.from_mapping({"name": name, **(fields or {})}) for name, fields in recorded]
        by_name = {protocol.name: protocol for protocol in protocols}
        names = list(dict.fromkeys(self.summary["protocol"]))
        if unknown := [name for name in names if name not in by_name and name not in protocol_names()]:
            raise UserError(
                f"{self.folder}/config.yaml says nothing of protocol {unknown[0]!r}, which summary.csv names"
            )
        rules = {name: by_name.get(name) or load_protocol(name) for name in names}
        dataset = str(self.summary["dataset"].iloc[0])
        return {name: protocol.for_dataset(dataset).for_many_maps() for name, protocol in rules.items()}

    @property
    def boxed(self) -> bool:
        """Whether the dataset has boxes, so that there are sweeps, curves and outcomes per image."""
        return bool(self.summary["gt_known_loc"].notna().any())

    @property
    def heatmaps(self) -> Path | None:
        """Folder of the heatmaps, if they were kept."""
        folder = self.folder / "heatmaps"
        return folder if folder.is_dir() and not folder.is_symlink() else None

    @property
    def intervals(self) -> pd.DataFrame:
        """The 95 % interval of each metric of the summary: `method`, `protocol`, `metric`, `low`, `high`, `oracle`."""
        table = named_intervals(self.metrics)
        table = table.merge(self.summary[["method", "protocol", "threshold_source"]], on=["method", "protocol"])
        metric = table["metric"]
        chosen_here = metric.isin(AT_THE_SUMMARYS_THRESHOLD) & table["threshold_source"].map(is_oracle)
        shared = [name for name, rules in self.protocols.items() if rules.v2_threshold == "shared"]
        chosen_by_itself = ~table["threshold_source"].isin(READY) & ~table["protocol"].isin(shared)
        best = metric.str.startswith("max_box_acc") & (chosen_by_itself | table["threshold_source"].map(is_oracle))
        return table.assign(oracle=chosen_here | best)

    @property
    def methods_without_sweeps(self) -> list[str]:
        """Methods whose boxes or masks were given, so that they have no sweeps."""
        return list(self.summary["method"][self.summary["threshold_source"].isin(READY)].unique())

    def rows_without_sweeps(self, only: arrow.Expression, columns: list[str]) -> pd.DataFrame:
        """Read these columns of `per_image` of such methods, as far as an expression lets them through."""
        if not self.methods_without_sweeps:
            return pd.DataFrame(columns=columns)
        return self.rows("per_image.parquet", only & arrow.field("method").isin(self.methods_without_sweeps), columns)

    def taus(self, method: str, protocol: str) -> dict[str, float]:
        """τ of those metrics of the summary that are at one."""
        rows = self.metrics[(self.metrics["method"] == method) & (self.metrics["protocol"] == protocol)]
        rows = rows[(rows["class"] == "") & rows["metric"].isin(AT_THE_SUMMARYS_THRESHOLD)].dropna(subset=["threshold"])
        return dict(zip(rows["metric"], rows["threshold"], strict=True))

    def sweep(self, method: str, protocol: str) -> pd.DataFrame:
        """Read `sample_id`, `threshold` and `iou` of one method's run-length coded sweeps under one protocol.

        A row holds from `threshold` to the next row of its sample; each sample's rows stand together. Boxes that
        were given have one row each, whose threshold is NaN.
        """
        if method in self.methods_without_sweeps:
            return self.per_image(method, protocol, ["sample_id", "iou"]).assign(threshold=np.nan)
        table = self.sweeps(arrow.field("method") == method, {protocol: self.protocols[protocol]})
        table = table[["sample_id", "threshold", "iou"]].astype({"sample_id": "category"})
        begins = table["sample_id"].cat.codes.diff().ne(0)
        first, rises = table["threshold"] - self.protocols[protocol].grid()[0], table["threshold"].diff() > 0
        rows = self.metrics[(self.metrics["metric"] == "missing_heatmaps") & (self.metrics["method"] == method)]
        count = len(self.samples) - int(rows["value"].sum())
        if not rises.where(~begins, first.abs() < 1e-9).all() or {begins.sum(), table["sample_id"].nunique()} != {
            count
        }:
            where = f"{self.folder}/sweeps.parquet, {method} under {protocol}"
            raise UserError(f"{where}: wanted {count} samples, the thresholds of each together and rising")
        return table

    def sweeps(self, only: arrow.Expression, protocols: Mapping[str, Protocol]) -> pd.DataFrame:
        """Read those rows of sweeps under these protocols as `Results.sweeps` has them, from any format."""
        if not (self.folder / "rules.json").is_file():  # format 1 has them by protocol, with IoUs
            return self.rows("sweeps.parquet", only & arrow.field("protocol").isin([*protocols]))
        rules = self._read("rules.json", read_json)
        if not set(protocols) <= set(rules):
            raise UserError(f"{self.folder / 'rules.json'}: wanted the rules of {', '.join(protocols)}")
        rows = self.rows("sweeps.parquet", only & arrow.field("rules").isin([rules[name] for name in protocols]))
        return expand_sweeps(rows, protocols, rules, self.samples)

    def per_image(self, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        """Read what became of each sample at the summary's threshold; boxes in original pixels, inclusive."""
        table = self._rows_of("per_image.parquet", method, protocol, columns)
        if len(table) != len(self.samples):
            where = f"{self.folder}/per_image.parquet, {method} under {protocol}"
            raise UserError(f"{where}: {len(table)} rows for {len(self.samples)} samples")
        return table

    def drawn_pxap(self, method: str, protocol: str, resamples: int) -> np.ndarray | None:
        """PxAP in the first resamples of the images, fractions (resamples,); None without masks or so many of them."""
        if not (self.folder / "resamples.parquet").is_file():
            return None
        drawn = self._rows_of("resamples.parquet", method, protocol, ["pxap"])["pxap"].to_numpy()
        return drawn[:resamples] if len(drawn) >= resamples else None

    def rows(self, name: str, only: arrow.Expression, columns: list[str] | None = None) -> pd.DataFrame:
        """Read the rows of a table that an expression lets through, piece by piece.

        50,000 images have 40 million rows of sweeps, and whole columns are gigabytes.
        """
        path = self.folder / name
        with reading(path):
            check_declared(path, MOST_SAMPLES * 1000, LARGEST_SWEEPS)
            names = columns or arrow.dataset(path).schema.names
            # Not those that are only filtered by: as plain texts they let the scanner skip what can't match.
            repeated = [column for column in names if column in REPEATED]
            # Reading ahead, as is usual, holds more of the file than the answer needs.
            options = arrow.ParquetFragmentScanOptions(pre_buffer=False)
            layout = arrow.ParquetFileFormat(dictionary_columns=repeated, default_fragment_scan_options=options)
            ahead = {"batch_size": BATCH, "batch_readahead": 1, "fragment_readahead": 1}
            table = arrow.dataset(path, format=layout).scanner(names, filter=only, **ahead).to_table()
            return _check_values(table.to_pandas(), NEVER_MISSING)

    def _rows_of(self, name: str, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        return self.rows(name, (arrow.field("method") == method) & (arrow.field("protocol") == protocol), columns)

    def _read(self, name: str, reader: Callable[[Path], Any]) -> Any:
        with reading(self.folder / name):
            return reader(self.folder / name)


def named_intervals(metrics: pd.DataFrame) -> pd.DataFrame:
    """Rows of `metrics` that have an interval, each metric called as its column of the summary is."""
    rows = metrics[(metrics["class"] == "") & metrics["low"].notna()]
    percent = (100 * rows["iou_threshold"].fillna(0)).round().astype(int).astype(str)
    return rows.assign(metric=rows["metric"].where(rows["iou_threshold"].isna(), rows["metric"] + "_" + percent))


def _read_csv(path: Path, columns: Sequence[str], key: Sequence[str] = ()) -> pd.DataFrame:
    """Read these columns; an empty text is no missing value, nor is a class called "NA"."""
    types = dict.fromkeys(TEXTS, object) | dict.fromkeys(COUNTS, np.int64)
    # Not every pandas reads numbers to the last bit; Python does.
    numbers = {name: lambda text: float(text or "nan") for name in columns if name not in types}
    data_file(path, MOST_VALUES)
    table = pd.read_csv(path, usecols=list(columns), dtype=types, converters=numbers, keep_default_na=False)
    if key and (table.empty or table.duplicated(list(key)).any()):
        raise ValueError(f"wanted a row for each {' and '.join(key)}, and one only")
    return _check_values(table)


def _read_parquet(path: Path) -> pd.DataFrame:
    check_declared(path, MOST_VALUES)
    return _check_values(pd.read_parquet(path), NEVER_MISSING)


def _check_values(table: pd.DataFrame, never_missing: Collection[str] = ()) -> pd.DataFrame:
    """Refuse values that no run writes, naming column and row; missing ones where none may be."""
    for name in table.columns.intersection([*RANGES, *never_missing]):
        low, high = RANGES.get(name, (0, 0))
        numbers = pd.to_numeric(table[name]) if name in RANGES else table[name]
        wrong = numbers.isna() if name in never_missing else np.zeros(len(table), bool)
        if name in RANGES:
            wrong |= ~(numbers.isna() | numbers.between(low - 1e-9, high + 1e-9))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{name} is {table[name].iloc[row]} in row {row + 1}")
    return table
