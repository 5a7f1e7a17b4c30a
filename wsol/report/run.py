"""A run read again from its folder: its tables when they are asked for, its protocols, what it was made with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.dataset as arrow
import yaml

from wsol.errors import UserError
from wsol.io import reading
from wsol.localization import Protocol, load_protocol
from wsol.metrics.localization import AT_THE_SUMMARYS_THRESHOLD
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
        """Open a run's folder; nothing but names is read until it is asked for."""
        path = Path(folder).expanduser()
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; pass the folder of a run")
        missing = [name for name in FILES if not (path / name).is_file()]
        if missing:
            raise UserError(
                f"{path}: {', '.join(missing)} missing: it is not the folder of a run (a sweep has runs in numbered "
                f"folders), or its run was interrupted or is still going on; from whole heatmaps, `wsol score "
                f"heatmaps={path / 'heatmaps'} dataset=…` makes the tables"
            )
        return cls(path)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """One row per method and protocol, percent."""
        return self._read("summary.csv", partial(_read_csv, columns=SUMMARY_COLUMNS))

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Everything else, long; `class` is "" in the rows over all classes."""
        return self._read("metrics.csv", partial(_read_csv, columns=METRIC_COLUMNS))

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row per sample: image, label, rank of the true class, image size, ground-truth boxes."""
        return self._read("samples.parquet", pd.read_parquet)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Accuracies over τ, percent; no rows where the dataset has masks only."""
        return self._read("curves.parquet", pd.read_parquet)

    @cached_property
    def config(self) -> dict[str, Any]:
        """What was asked for."""
        return self._read("config.yaml", lambda path: dict(yaml.safe_load(path.read_text(encoding="utf-8")) or {}))

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Versions, device, times; `source` says what the heatmaps were made from."""
        return self._read("environment.json", lambda path: dict(json.loads(path.read_text(encoding="utf-8"))))

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
        recorded = (self.config.get("protocols") or {}).items()
        protocols = [Protocol.from_mapping({"name": name, **(fields or {})}) for name, fields in recorded]
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

    @property
    def intervals(self) -> pd.DataFrame:
        """The 95 % interval of each metric of the summary: `method`, `protocol`, `metric`, `low`, `high`, `oracle`."""
        table = self.metrics[(self.metrics["class"] == "") & self.metrics["low"].notna()]
        table = table.merge(self.summary[["method", "protocol", "threshold_source"]], on=["method", "protocol"])
        percent = (100 * table["iou_threshold"].fillna(0)).round().astype(int).astype(str)
        metric = table["metric"].where(table["iou_threshold"].isna(), table["metric"] + "_" + percent)
        chosen_here = metric.isin(AT_THE_SUMMARYS_THRESHOLD) & (table["threshold_source"] == "oracle")
        return table.assign(metric=metric, oracle=chosen_here | metric.str.startswith("max_box_acc"))

    def sweep(self, method: str, protocol: str) -> pd.DataFrame:
        """Read `sample_id`, `threshold` and `iou` of one method's run-length coded sweeps under one protocol.

        A row holds from `threshold` to the next row of its sample; each sample's rows stand together.
        """
        return self._rows_of("sweeps.parquet", method, protocol, ["sample_id", "threshold", "iou"])

    def per_image(self, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        """Read what became of each sample at the summary's threshold; boxes in original pixels, inclusive."""
        return self._rows_of("per_image.parquet", method, protocol, columns)

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
            names = columns or arrow.dataset(path).schema.names
            # Not those that are only filtered by: as plain texts they let the scanner skip what can't match.
            repeated = [column for column in names if column in REPEATED]
            # Reading ahead, as is usual, holds more of the file than the answer needs.
            options = arrow.ParquetFragmentScanOptions(pre_buffer=False)
            layout = arrow.ParquetFileFormat(dictionary_columns=repeated, default_fragment_scan_options=options)
            ahead = {"batch_size": BATCH, "batch_readahead": 1, "fragment_readahead": 1}
            return arrow.dataset(path, format=layout).scanner(names, filter=only, **ahead).to_table().to_pandas()

    def _rows_of(self, name: str, method: str, protocol: str, columns: list[str]) -> pd.DataFrame:
        return self.rows(name, (arrow.field("method") == method) & (arrow.field("protocol") == protocol), columns)

    def _read(self, name: str, reader: Callable[[Path], Any]) -> Any:
        with reading(self.folder / name):
            return reader(self.folder / name)


def _read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read these columns; an empty text is no missing value, nor is a class called "NA"."""
    types = dict.fromkeys(TEXTS, object) | dict.fromkeys(COUNTS, np.int64)
    # Not every pandas reads numbers to the last bit; Python does.
    numbers = {name: lambda text: float(text or "nan") for name in columns if name not in types}
    return pd.read_csv(path, usecols=list(columns), dtype=types, converters=numbers, keep_default_na=False)
