"""The pandas tables, their columns and units, and how they are written; percent begins here.

Texts stand in CSV files as they are: a spreadsheet runs a cell that begins with = + - or @, so open those of strangers
as text.

summary      one row per method and protocol, percent; empty where a column does not apply
metrics      long: method, protocol, metric, iou_threshold, threshold, class, value, low, high; accuracies and
             shares in percent (`mean_iou`, `peak_mask_iou`, `energy_in_box` and error_* too), `empty_heatmaps` and
             `missing_heatmaps` as numbers of samples; `gt_known_loc_size_4_9` of samples whose largest box takes 4 to
             9 % of the image, `gt_known_loc_instances_2` of those with two boxes; `wsol.metrics` says what each
             measures. low and high: 95 % bootstrap interval over images of what the summary holds; τ is held, so where
             it was chosen on these images (an oracle) the interval is optimistic
per_image    one row per sample, method and protocol at the summary's threshold; boxes in original pixels, inclusive;
             `iou` a fraction, `rank` of the true class (0 is the best), `error_kind` as in `wsol.metrics.ERROR_KINDS`
curves       accuracies in percent over τ, per IoU threshold
sweeps       box and IoU over τ, run-length coded: a row holds from `threshold` to the next row of its sample; boxes
             in score-map pixels and the protocol's convention. In `sweeps.parquet` protocols with equal box rules share
             theirs: `method, rules, sample_id, threshold, x0, y0, x1, y1`, inclusive corners in whole score-map pixels,
             -1 without a box, and the score map's `width, height`; `rules.json` says each protocol's rules; the IoU
             follows from the boxes in `samples`
samples      sample id, label, rank of the true class (0 is the best, -1 without a prediction), five best logits with
             probabilities, image size, the view's rectangle, ground-truth boxes (x0 y0 x1 y1, one after the other)
sensitivity  GT-known localization in percent: a row per method, a column per protocol
faithfulness one row per sample, method, preset and metric (fractions, or logits where a preset says so), and the points
             of its curves, with the share of pixels hidden; only where it was asked for
resamples    PxAP, a fraction, of images drawn again, as often as intervals are drawn; only where there are masks
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from wsol.errors import UserError, first_names, quantity
from wsol.io import atomic_write, data_file, read_environment, read_json, read_yaml, reading, write_json
from wsol.localization import Protocol
from wsol.localization.boxes import to_image
from wsol.localization.kernels.components import unpack
from wsol.localization.sweep import PackedSweeps, Truths
from wsol.metrics.localization import (
    AT_THE_SUMMARYS_THRESHOLD,
    ERROR_KINDS,
    METRICS,
    OUTCOMES,
    SAME_THRESHOLD,
    Sweeps,
    Threshold,
    compare,
    error_kind,
    in_top,
    mean_by_class,
    outcomes_of,
    strata,
)
from wsol.metrics.scoring import MethodScores, box_rules
from wsol.metrics.statistics import interval_table, resample

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.heatmaps.store import HeatmapStore

logger = logging.getLogger("wsol")

SUMMARY_COLUMNS = (
    "dataset", "split", "model", "method", "layer", "view", "protocol", "n_images", "n_samples", "threshold",
    "threshold_source", *METRICS,
)  # fmt: skip
METRIC_COLUMNS = ("method", "protocol", "metric", "iou_threshold", "threshold", "class", "value", "low", "high")
BOX = ("x0", "y0", "x1", "y1")
NO_BOX = np.array([0.0, 0.0, -1.0, -1.0])
TEXTS = ("dataset", "split", "model", "method", "layer", "view", "protocol", "threshold_source", "metric", "class")
ROWS = 65_536  # samples in a row group of a large table
TEXT, FLOAT = pa.string(), pa.float64()
SCHEMAS = {
    "per_image": pa.schema({
        "method": TEXT, "protocol": TEXT, "threshold": FLOAT, "sample_id": TEXT, "label": pa.int64(), "class": TEXT,
        "rank": pa.int64(), **dict.fromkeys((*BOX, "iou"), FLOAT), **dict.fromkeys(OUTCOMES, pa.bool_()),
        "error_kind": TEXT,
    }),
    "curves": pa.schema({
        "method": TEXT, "protocol": TEXT, "iou_threshold": FLOAT, "threshold": FLOAT, "gt_known_loc": FLOAT,
        "top1_loc": FLOAT, "top5_loc": FLOAT, "mean_iou": FLOAT,
    }),
    "sweeps": pa.schema({
        "method": TEXT, "rules": TEXT, "sample_id": TEXT, "threshold": FLOAT,
        **dict.fromkeys((*BOX, "width", "height"), pa.int16()),
    }),
}  # fmt: skip
SHOWN = {
    "method": "method", "protocol": "protocol", "threshold": "τ", "top1_cls": "Top-1 cls", "top1_loc": "Top-1 loc",
    "top5_loc": "Top-5 loc", "gt_known_loc": "GT-known", "max_box_acc_30": "MBA 30", "max_box_acc_50": "MBA 50",
    "max_box_acc_70": "MBA 70", "max_box_acc_v2": "MBA V2", "pxap": "PxAP",
}  # fmt: skip


@dataclass(eq=False)
class Results:
    """The tables of one run; the module's text says their columns and units.

    `.per_image`, `.curves` and `.sweeps` are read from the run's folder whenever they are asked for; of a run without
    a folder they are in memory, some kilobytes per sample, method and protocol.

    Parameters
    ----------
    summary, metrics, samples : DataFrame
    resamples, faithfulness : DataFrame
        No rows where there are no masks; where it was not asked for.
    environment, config : dict
        Versions, device, times, and what the reader must know of the run; and what was asked for.
    run_dir : Path, optional
        Where the tables lie.
    protocols : dict of str to Protocol
    tables : dict of str to pyarrow.Table
        What a run without a folder keeps.
    heatmaps : HeatmapStore, optional
        Those of a run without a folder, or that were scored from elsewhere.
    """

    summary: pd.DataFrame
    metrics: pd.DataFrame
    samples: pd.DataFrame
    resamples: pd.DataFrame = field(default_factory=pd.DataFrame)
    faithfulness: pd.DataFrame = field(default_factory=pd.DataFrame)
    environment: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    run_dir: Path | None = None
    protocols: dict[str, Protocol] = field(default_factory=dict)
    tables: dict[str, pa.Table] = field(default_factory=dict)
    heatmaps: HeatmapStore | None = None

    @property
    def per_image(self) -> pd.DataFrame:
        """What became of each sample."""
        return self._table("per_image")

    @property
    def curves(self) -> pd.DataFrame:
        """Accuracies over τ."""
        return self._table("curves")

    @property
    def sweeps(self) -> pd.DataFrame:
        """Box and IoU over τ, for each method and protocol."""
        return expand_sweeps(self._table("sweeps"), self.protocols, box_rules(self.protocols), self.samples)

    def of_samples(self, sample_ids: Sequence[str], protocol: str) -> pd.DataFrame:
        """Those rows of `per_image`, without reading all of them."""
        return self._table("per_image", [("sample_id", "in", list(sample_ids)), ("protocol", "==", protocol)])

    def _table(self, name: str, only: list[Any] | None = None) -> pd.DataFrame:
        if name in self.tables:
            table = self.tables[name]
            return (table if only is None else table.filter(pq.filters_to_expression(only))).to_pandas()
        path = None if self.run_dir is None else self.run_dir / f"{name}.parquet"
        return pd.DataFrame() if path is None or not path.is_file() else pd.read_parquet(path, filters=only)

    def __repr__(self) -> str:
        """What was measured on what, and the summary's main columns: a screen at most."""
        from wsol.report.summary import display_summary, summary_for_people

        texts, _ = display_summary(summary_for_people(self))
        first, where = self.summary.iloc[0], "in memory" if self.run_dir is None else self.run_dir
        count = quantity(first["n_samples"], "sample")
        title = f"Results of {first['dataset']} ({first['split']}, {count}), {where}; percent"
        return f"{title}\n{texts.to_string(index=False, max_rows=20, line_width=120)}"

    def _repr_html_(self) -> str:
        """The summary, for notebooks: the best of each protocol in bold."""
        from wsol.report.summary import display_summary, summary_for_people

        texts, best = display_summary(summary_for_people(self))
        style = (
            texts.style.format(escape="html")
            .hide(axis="index")
            .relabel_index([SHOWN[str(name)] for name in texts], axis=1)
        )
        return style.apply(lambda _: np.where(best, "font-weight: bold", ""), axis=None).to_html()

    def plot(self, protocol: str | None = None, axes: Any = None, iou: float = 0.5) -> Any:
        """Draw GT-known localization over τ, a line per method, with a dot at the summary's τ.

        Parameters
        ----------
        protocol : str, optional
            By default the first.
        axes : matplotlib Axes, optional
            Where to draw; by default in a figure of its own.
        iou : float
            IoU threshold, one of the protocol's.

        Returns
        -------
        Axes
            A `UserError` says which protocols and IoU thresholds there are.
        """
        from wsol.report.figures import plot_curves

        return plot_curves(self, protocol, axes, iou)

    def plot_examples(
        self,
        dataset: Dataset,
        sample_ids: Sequence[str] | None = None,
        methods: Sequence[str] | None = None,
        protocol: str | None = None,
        axes: Any = None,
    ) -> np.ndarray:
        """Draw examples with heatmaps and boxes: a row per image, a column per method.

        Parameters
        ----------
        dataset : Dataset
            The run's, which has the images.
        sample_ids, methods : sequence of str, optional
            By default four, evenly spaced; and all. An image that can't be read is left out, with a warning.
        protocol : str, optional
            Whose boxes at the summary's τ are drawn; by default the first.
        axes : array of matplotlib Axes, optional
            Where to draw, one for each image and, behind it, each method; by default in a figure of its own.

        Returns
        -------
        array of Axes (R, C)
            `axes[0, 0].figure.savefig("examples.pdf")` keeps it. A `UserError` says what the run doesn't have.
        """
        from matplotlib import pyplot  # with it a notebook shows the figure

        from wsol.heatmaps.store import HeatmapStore
        from wsol.report.pictures import plot_examples

        folder, store = self.run_dir and self.run_dir / "heatmaps", self.heatmaps
        store = HeatmapStore.open(folder) if store is None and folder and folder.is_dir() else store
        return plot_examples(self, dataset, store, sample_ids, methods, protocol, axes, pyplot.figure)

    def to_latex(self, **options: Any) -> str:
        r"""Make the summary a table for a paper, as `summary.tex` has it.

        Parameters
        ----------
        **options
            `columns`, `rows`, `names`, `interval`, `published`, see `wsol.report.latex.TableOptions`.

        Examples
        --------
        >>> import wsol
        >>> results = wsol.score(wsol.datasets.Shapes(length=8), methods=["center", "full"], progress=False)
        >>> r"\toprule" in results.to_latex(columns=["gt_known_loc"], names={"full": "whole image"}, interval=True)
        True
        """
        from wsol.report.latex import TableOptions
        from wsol.report.summary import latex_summary, summary_for_people

        return latex_summary(summary_for_people(self), TableOptions(**options))

    @property
    def sensitivity(self) -> pd.DataFrame:
        """How one method's GT-known localization moves from protocol to protocol: percent."""
        table = self.summary.pivot_table("gt_known_loc", "method", "protocol", sort=False)
        return table.reset_index().rename_axis(columns=None)


@dataclass(frozen=True, eq=False)
class SampleTable:
    """The first table, and what the others need to know of its samples."""

    table: pd.DataFrame  # `samples`, without ground-truth boxes
    gt_boxes: list[np.ndarray] | None  # (N,) of (G, 4); None where the dataset has masks only
    classes: Sequence[str]
    multilabel: bool  # of several classes on one image none is "the" true one: there is no Top-k and no wrong class
    top5: bool  # whether Top-5 says anything: more than five classes compete, and five of each prediction are known
    _truths: dict[str, Truths] = field(default_factory=dict)  # by box rules

    @cached_property
    def ranks(self) -> np.ndarray:
        """Rank of the true class: int (N,); -1 where there is no prediction, or no one true class."""
        return np.full(len(self.table), -1) if self.multilabel else self.table["rank"].to_numpy()

    def applicable(self, metrics: Iterable[str]) -> list[str]:
        """Leave out what says nothing: Top-k and wrong class without predictions, Top-5 where it says nothing."""
        ranked = bool((self.ranks >= 0).any())
        kept = [metric for metric in metrics if ranked or not metric.startswith(("top", "wrong_class"))]
        return [metric for metric in kept if self.top5 or not metric.startswith("top5")]

    @cached_property
    def image_sizes(self) -> np.ndarray:
        """Width and height of each sample's image: int64 (N, 2)."""
        return self.table[["width", "height"]].to_numpy(np.int64)

    def sweeps(self, packed: PackedSweeps, protocol: Protocol, rules: str) -> Sweeps:
        """IoUs of packed sweeps with the ground truth, under box rules of that name, which the protocol has."""
        assert self.gt_boxes is not None
        ious = packed.ious(self.gt_boxes, self.image_sizes, protocol, self._truths.setdefault(rules, {}))
        return Sweeps(packed.sample, packed.first, ious, len(self.table), protocol.grid())

    @cached_property
    def strata(self) -> dict[str, np.ndarray]:
        """Samples (N,) of each stratum."""
        return {} if self.gt_boxes is None else strata(self.gt_boxes, self.image_sizes)

    def means(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean over all samples, and over those of each class (C,): fractions, NaN without any."""
        return mean_by_class(values, self.table["label"].to_numpy(), len(self.classes))

    def rows(self, overall: float | None, by_class: np.ndarray, **columns: Any) -> list[dict[str, Any]]:
        """Rows of `metrics`, percent, from fractions: over all samples, if wanted, and for each class that has some."""
        rows = [] if overall is None else [columns | {"value": 100 * overall}]
        pairs = zip(self.classes, by_class.tolist(), strict=True)
        return rows + [columns | {"class": name, "value": 100 * value} for name, value in pairs if not np.isnan(value)]


class Entry:
    """One method under one protocol, with what became of each sample: a row of the summary and some of each table."""

    def __init__(
        self,
        scores: MethodScores,
        protocol: Protocol,
        rules: str,
        samples: SampleTable,
        threshold: Threshold,
        source: str,
    ) -> None:
        self.protocol, self.samples, self.source = protocol, samples, source
        self.names: dict[str, Any] = {"method": scores.method, "protocol": protocol.name}
        self.ready_boxes = scores.ready_boxes.get(protocol.name)  # boxes that were given have nothing over τ
        self.sweeps: Sweeps | None = None  # None where the dataset has masks only
        if self.ready_boxes is not None:
            self.sweeps = self.ready_boxes.sweeps()
        elif samples.gt_boxes is not None and rules in scores.sweeps:
            self.packed = scores.sweeps[rules]
            self.sweeps = samples.sweeps(scores.sweeps[rules], protocol, rules)
        labels = samples.table["label"].to_numpy()
        self.outcomes = outcomes_of(self.sweeps, samples.ranks, protocol, threshold, labels)
        self.threshold = self.outcomes.thresholds.get("gt_known_loc", np.nan)
        counts = scores.pixels.get(protocol.name)
        self.drawn_pxap = None if counts is None else counts.resamples()  # (R,), fractions
        self.pixels = None if counts is None or counts.empty else counts.compute()
        # An accuracy at its best τ says nothing of a protocol whose τ is fixed; and each kind of box has a name for it.
        other = {"max_box_acc" if protocol.component == "any" else "max_box_acc_v2"}
        other |= {"max_box_acc", "max_box_acc_v2"} if source == "fixed" else set()
        metrics = [metric for metric in samples.applicable(self.outcomes.values) if metric not in other]
        pxap = None if self.pixels is None or self.drawn_pxap is None else (self.pixels["pxap"], self.drawn_pxap)
        self.applicable = self.outcomes.only(metrics, pxap)

    def summary_row(self) -> dict[str, Any]:
        """Its row of `summary`, percent; what does not apply is not in it."""
        row = self.names | {metric: 100 * self.applicable.mean(metric) for metric in self.applicable.thresholds}
        if self.sweeps is None:
            return row
        row |= {"threshold": self.threshold, "threshold_source": self.source}
        if self.outcomes.labels is None:
            row["mean_iou"] = 100 * self.samples.means(self.outcomes.values["mean_iou"])[0]
        if "max_box_acc_v2" in row:
            names = [f"max_box_acc_{round(100 * delta)}" for delta in self.protocol.iou_thresholds]
            row["max_box_acc_v2"] = 100 * float(np.mean([self.outcomes.mean(name) for name in names]))
        return row

    def metric_rows(self) -> list[dict[str, Any]]:
        """Its rows of `metrics`; `_add_intervals` adds what the summary holds too."""
        rows, samples, values = [], self.samples, self.outcomes.values
        for name in samples.applicable(("top1_cls", "top5_cls")):
            rows += samples.rows(None, samples.means(values[name])[1], **self.names, metric=name)
        if self.sweeps is not None:
            rows += self._best_box_rows(self.sweeps) + self._threshold_rows()
        if self.pixels is not None:
            peak = {"metric": "peak_mask_iou", "threshold": self.pixels["peak_threshold"]}
            rows.append(self.names | peak | {"value": 100 * self.pixels["peak_mask_iou"]})
            for name in ("peak_mask_iou", "pxap"):
                rows += samples.rows(None, self.pixels[f"class_{name}"], **self.names, metric=name)
        return rows

    def _best_box_rows(self, sweeps: Sweeps) -> list[dict[str, Any]]:
        """MaxBoxAcc at each IoU threshold, at its best τ; that of each class at its own, unless all share one."""
        rows, labels = [], self.samples.table["label"].to_numpy()
        counts = np.bincount(labels, minlength=len(self.samples.classes))
        for delta in self.protocol.iou_thresholds:
            columns = self.names | {"metric": "max_box_acc", "iou_threshold": delta}
            name = f"max_box_acc_{round(100 * delta)}"
            best = {"threshold": self.outcomes.thresholds[name], "value": 100 * self.outcomes.mean(name)}
            right = sweeps.right_by_class(delta, self.protocol.iou_comparison, labels, len(counts)).max(axis=1)
            with np.errstate(invalid="ignore"):
                by_class = right / counts
            if self.protocol.v2_threshold == "shared":
                by_class, columns = self.samples.means(self.outcomes.values[name])[1], columns | best
            rows += [columns | best, *self.samples.rows(None, by_class, **columns)]
        return rows

    def _threshold_rows(self) -> list[dict[str, Any]]:
        """Accuracies per class and error kinds at the summary's τ.

        Where images show several classes, GT-known localization of a class is its CorLoc, and `corloc` the mean over
        classes, as the literature gives it.
        """
        rows, columns, samples = [], self.names | {"threshold": self.threshold}, self.samples
        values = {name: self.outcomes.values[name] for name in samples.applicable(OUTCOMES)}
        for kind in samples.applicable(ERROR_KINDS):
            values[f"error_{kind}"] = (self.per_image["error_kind"] == kind).to_numpy()
        for name, of_samples in (values | {"mean_iou": self.outcomes.values["mean_iou"]}).items():
            overall, by_class = samples.means(of_samples)
            tau = {"metric": name, "threshold": self.outcomes.thresholds.get(name, self.threshold)}
            rows += samples.rows(overall if name.startswith("error_") else None, by_class, **columns | tau)
        located, labels = self.outcomes.values["gt_known_loc"], samples.table["label"].to_numpy()
        for name, members in samples.strata.items():
            overall, by_class = mean_by_class(located[members], labels[members], len(samples.classes))
            value = 100 * (overall if self.outcomes.labels is None else float(np.nanmean(by_class)))
            rows.append(columns | {"metric": f"gt_known_loc_{name}", "value": value})
        if samples.multilabel:
            corloc = float(np.nanmean(samples.means(self.outcomes.values["gt_known_loc"])[1]))
            rows.append(columns | {"metric": "corloc", "iou_threshold": 0.5, "value": 100 * corloc})
        return rows

    @cached_property
    def per_image(self) -> pd.DataFrame:
        """What became of each sample at the summary's τ."""
        protocol, samples, values = self.protocol, self.samples, self.outcomes.values
        table = samples.table
        boxes = self._boxes_at() if self.ready_boxes is None else self.ready_boxes.boxes.copy()  # (N, 4)
        topk_right = compare(values["mean_iou"], 0.5, protocol.topk_iou_comparison)
        judged = zip(samples.ranks.tolist(), topk_right, boxes, samples.gt_boxes or (), strict=True)
        kinds = [error_kind(*sample) for sample in judged]
        boxes[boxes[:, 2] < boxes[:, 0]] = np.nan
        applicable = samples.applicable(OUTCOMES)
        columns = self.names | {"threshold": self.threshold}
        columns |= {name: table[name] for name in ("sample_id", "label", "class", "rank")}
        columns |= dict(zip(BOX, boxes.T, strict=True)) | {"iou": values["mean_iou"]}
        columns |= {name: values[name] if name in applicable else pd.NA for name in OUTCOMES}
        return pd.DataFrame(columns | {"error_kind": kinds})

    def curves(self, sweeps: Sweeps) -> pd.DataFrame:
        """Accuracies over τ."""
        ranked = {f"{top}_loc": among for top, among in in_top(self.samples.ranks).items()}
        applicable, tables = self.samples.applicable(ranked), []
        for delta in self.protocol.iou_thresholds:
            right: dict[str, Any] = {"gt_known_loc": self.outcomes.curves[delta]} | dict.fromkeys(ranked, np.nan)
            for name in applicable:
                comparison, labels = self.protocol.topk_iou_comparison, self.outcomes.labels
                right[name] = sweeps.accuracy(delta, comparison, ranked[name], labels)
            columns = self.names | {"iou_threshold": delta, "threshold": sweeps.grid}
            columns |= {name: 100 * share for name, share in right.items()}
            tables.append(pd.DataFrame(columns | {"mean_iou": 100 * sweeps.mean_iou()}))
        return pd.concat(tables, ignore_index=True)

    def _boxes_at(self) -> np.ndarray:
        """Box (N, 4) at the summary's threshold, inclusive, in original pixels; x1 < x0 where there is none."""
        assert self.sweeps is not None
        samples, runs = self.sweeps.at(self.protocol.threshold_index(self.threshold))
        at, placed = self.packed.take(runs), np.tile(NO_BOX, (len(self.samples.table), 1))
        boxes = at.corners(self.protocol, "inclusive")
        there = (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
        sizes = np.hstack([at.sizes, self.samples.image_sizes[samples]])[there]  # (n, 4)
        alike, which = np.unique(sizes, axis=0, return_inverse=True)
        for number, (width, height, *image_size) in enumerate(alike.tolist()):
            rows = np.flatnonzero(there)[which == number]
            placed[samples[rows]] = to_image(boxes[rows], (width, height), tuple(image_size), self.protocol)
        return placed


def sweep_tables(
    method: str, rules: str, sweeps: PackedSweeps, sample_ids: np.ndarray, grid: np.ndarray
) -> Iterator[pa.Table]:
    """Rows of `sweeps.parquet` of one method under one set of box rules, so many samples (N,) at a time."""
    for start in range(0, len(sample_ids), ROWS):
        begin, end = np.searchsorted(sweeps.sample, (start, start + ROWS))
        packed, names = sweeps.boxes[begin:end], pa.array(sample_ids[start : start + ROWS], pa.string())
        boxes = np.where(packed[:, None] < 0, -1, unpack(packed)).astype(np.int16)  # (R, 4)
        codes = np.zeros(len(packed), np.int32), np.zeros(len(packed), np.int32), sweeps.sample[begin:end] - start
        coded = map(pa.DictionaryArray.from_arrays, codes, ([method], [rules], names))
        columns = [*(texts.cast(TEXT) for texts in coded), grid[sweeps.first[begin:end]], *boxes.T]
        columns += [*sweeps.sizes[begin:end].T]
        yield pa.Table.from_arrays([*map(pa.array, columns)], schema=SCHEMAS["sweeps"])


@contextmanager
def table_writer(folder: Path | None, tables: dict[str, pa.Table]) -> Iterator[Callable[..., None]]:
    """Yield `add(name, rows)` for the large tables: to files of a folder, each whole or not at all, else to memory.

    A call makes a row group. Corners are split into their low and high bytes: the high ones hardly change.
    """
    parts: dict[str, list[pa.Table]] = {name: [] for name in SCHEMAS}
    texts = ["method", "rules", "protocol", "sample_id", "threshold", "class", "error_kind"]
    packing = {"compression": "zstd", "compression_level": 15, "use_dictionary": texts,
               "column_encoding": dict.fromkeys(BOX, "BYTE_STREAM_SPLIT")}  # fmt: skip
    with ExitStack() as files:

        def create(name: str) -> pq.ParquetWriter:
            assert folder is not None
            path = files.enter_context(atomic_write(folder / f"{name}.parquet"))
            options: dict[str, Any] = packing if name == "sweeps" else {}
            return files.enter_context(pq.ParquetWriter(path, SCHEMAS[name], **options))

        writers = {} if folder is None else {name: create(name) for name in SCHEMAS}

        def add(name: str, rows: pd.DataFrame | pa.Table) -> None:
            if isinstance(rows, pd.DataFrame):
                rows = pa.Table.from_pandas(rows, SCHEMAS[name], preserve_index=False)
            if folder is None:
                parts[name].append(rows)
            elif len(rows):
                writers[name].write_table(rows, row_group_size=len(rows) if name == "sweeps" else ROWS)

        yield add
    if folder is None:
        tables |= {name: pa.concat_tables(rows or [SCHEMAS[name].empty_table()]) for name, rows in parts.items()}


def expand_sweeps(
    table: pd.DataFrame, protocols: Mapping[str, Protocol], rules: Mapping[str, str], samples: pd.DataFrame
) -> pd.DataFrame:
    """Rows of `sweeps.parquet` as `Results.sweeps` has them: for each method and protocol, boxes and IoUs as it counts.

    `rules` name the box rules of each protocol; `samples`, which has `true_boxes`, may be some of the table's: others'
    rows are left out.
    """
    parts, positions, image_sizes = [], pd.Index(samples["sample_id"]), samples[["width", "height"]].to_numpy(np.int64)
    gt_boxes = [np.reshape(boxes, (-1, 4)) for boxes in samples.get("true_boxes", ())]
    for method, protocol in product(dict.fromkeys(table.get("method", ())), protocols.values()):
        rows = table[(table["method"] == method) & (table["rules"] == rules[protocol.name])]
        sample = positions.get_indexer(pd.Index(rows["sample_id"]))
        rows, sample = rows[sample >= 0], sample[sample >= 0]
        corners = rows[list(BOX)].to_numpy(np.int64)  # (R, 4)
        boxes = np.where(corners[:, 0] < 0, -1, (corners << np.array([48, 32, 16, 0])).sum(axis=1))
        first = np.searchsorted(protocol.grid(), rows["threshold"].to_numpy() - SAME_THRESHOLD)
        packed = PackedSweeps(sample, first, boxes, rows[["width", "height"]].to_numpy(np.int16))
        corners = packed.corners(protocol, protocol.box_convention)
        columns = {"method": method, "protocol": protocol.name, "sample_id": rows["sample_id"].to_numpy()}
        columns |= {"threshold": rows["threshold"].to_numpy()} | dict(
            zip(BOX, corners.astype(np.float32).T, strict=True)
        )
        parts.append(pd.DataFrame(columns | {"iou": packed.ious(gt_boxes, image_sizes, protocol)}))
    none = pd.DataFrame(columns=["method", "protocol", "sample_id", "threshold", *BOX, "iou"])
    return pd.concat(parts, ignore_index=True) if parts else none


def make_tables(
    scored: Iterable[MethodScores],
    samples: SampleTable,
    protocols: Mapping[str, Protocol],
    thresholds: Mapping[tuple[str, str], tuple[Threshold, str]],
    source: Mapping[str, Any],
    folder: Path | None = None,
) -> Results:
    """Make all tables, with an interval for every number of the summary.

    `scored` are of the samples of the table, in its order; `thresholds` are from `choose_thresholds`; `source` says
    dataset, split, model and view. Large tables are written to the folder, if there is one, as they are made.
    """
    summary: list[dict[str, Any]] = []
    metrics, outcomes, drawn, tables, rules = [], [], [], dict[str, pa.Table](), box_rules(protocols)
    sample_ids = samples.table["sample_id"].to_numpy(object)
    columns = {name: source.get(name) for name in ("dataset", "split", "model", "view")}
    columns |= {"n_images": samples.table["image_id"].nunique(), "n_samples": len(samples.table)}
    with table_writer(folder, tables) as add:
        for scores in scored:
            metrics += _method_rows(scores, samples)
            for name, sweeps in scores.sweeps.items():
                for rows in sweep_tables(scores.method, name, sweeps, sample_ids, protocols[name].grid()):
                    add("sweeps", rows)
            for name, protocol in protocols.items():
                entry = Entry(scores, protocol, rules[name], samples, *thresholds[scores.method, name])
                summary.append(columns | {"layer": scores.layer} | entry.summary_row())
                metrics += entry.metric_rows()
                if entry.sweeps is not None:
                    add("per_image", entry.per_image)
                    if entry.ready_boxes is None:
                        add("curves", entry.curves(entry.sweeps))
                if entry.drawn_pxap is not None:
                    drawn.append(pd.DataFrame(entry.names | {"pxap": entry.drawn_pxap}))
                if entry.applicable.thresholds:
                    outcomes.append((scores.method, name, entry.applicable))
                del entry
            del scores  # gigabytes: before the next method's are read
    if outcomes:
        _add_intervals(metrics, interval_table(outcomes, resample(outcomes, samples.table)))
    table = samples.table
    if samples.gt_boxes is not None:  # reports need them, and not the dataset then
        table = table.assign(true_boxes=pd.Series([boxes.reshape(-1) for boxes in samples.gt_boxes], table.index))
    return Results(
        summary=_combine(summary, SUMMARY_COLUMNS),
        metrics=_combine(metrics, METRIC_COLUMNS),
        samples=table,
        resamples=pd.concat(drawn, ignore_index=True) if drawn else pd.DataFrame(),
        run_dir=folder,
        protocols=dict(protocols),
        tables=tables,
    )


def _method_rows(scores: MethodScores, samples: SampleTable) -> list[dict[str, Any]]:
    """Rows of `metrics` that no protocol changes: pointing, energy, empty and missing heatmaps or boxes."""
    rows: list[dict[str, Any]] = []
    for metric, values in scores.numbers.items():
        if metric not in ("pointing_game", "energy_in_box"):
            rows.append({"method": scores.method, "metric": metric, "value": float(values.sum())})
        elif samples.gt_boxes is not None:
            rows += samples.rows(*samples.means(values.to_numpy()), method=scores.method, metric=metric)
    return rows


def _add_intervals(metrics: list[dict[str, Any]], intervals: pd.DataFrame) -> None:
    """Put intervals into the rows of MaxBoxAcc, which are there, and those of other metrics in rows of their own."""
    rows: list[dict[str, Any]] = intervals.to_dict("records")  # type: ignore[assignment]
    by_name = {(row["method"], row["protocol"], row["metric"]): row for row in rows}
    for row in metrics:
        if row["metric"] == "max_box_acc" and "class" not in row:
            name = f"max_box_acc_{round(100 * row['iou_threshold'])}"
            interval = by_name.get((row["method"], row["protocol"], name), {})
            row |= {end: interval[end] for end in ("low", "high") if end in interval}
    best_box = [f"max_box_acc{ending}" for ending in ("", "_30", "_50", "_70")]  # at its own τ, and once more
    metrics += [row for row in rows if row["metric"] not in best_box]


def _combine(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Make a table of rows: text columns hold text, all others numbers, NaN where a row says nothing."""
    table = pd.DataFrame(list(rows), columns=list(columns))
    for column in columns:
        text = table[column].astype(object).where(table[column].notna(), "").astype(str)
        table[column] = text if column in TEXTS else pd.to_numeric(table[column])
    return table


def write_tables(results: Results, folder: Path) -> None:
    """Write the small tables as CSV or Parquet into a run's folder, each whole or not at all."""
    write_json(folder / "rules.json", box_rules(results.protocols))
    optional = [name for name in ("resamples", "faithfulness") if len(getattr(results, name))]
    for name in ("samples", *optional):
        with atomic_write(folder / f"{name}.parquet") as path:
            getattr(results, name).to_parquet(path, index=False)
    for name in ("metrics", "sensitivity", "summary"):
        with atomic_write(folder / f"{name}.csv") as path:
            getattr(results, name).to_csv(path, index=False)


def read_results(folder: Path) -> Results:
    """Read a run that is whole."""
    tables: dict[str, Any] = {
        name: pd.read_csv(
            folder / f"{name}.csv",
            dtype=dict.fromkeys(TEXTS, str),
            keep_default_na=False,
            na_values=dict.fromkeys({*SUMMARY_COLUMNS, *METRIC_COLUMNS}.difference(TEXTS), ""),
        )
        for name in ("summary", "metrics")
    }
    optional = [name for name in ("resamples", "faithfulness") if (folder / f"{name}.parquet").is_file()]
    tables |= {name: pd.read_parquet(folder / f"{name}.parquet") for name in ("samples", *optional)}
    config = read_yaml(folder / "config.yaml")
    protocols = {name: Protocol.from_mapping({"name": name} | dict(of)) for name, of in config["protocols"].items()}
    return Results(
        **tables,
        environment=read_json(folder / "environment.json"),
        config=config,
        run_dir=folder,
        protocols={name: protocol.for_many_maps() for name, protocol in protocols.items()},
    )


def is_for_testing(split: str, role: str) -> bool:
    """Whether settings chosen on a split have seen what they will be tested on; where it has no role, by its name."""
    return role == "test" or (role == "" and split == "test")


def choose_thresholds(
    methods: Iterable[str],
    protocols: Mapping[str, Protocol],
    source: Mapping[str, Any],
    run: Path | str | None = None,
    from_test: bool = False,
) -> dict[tuple[str, str], tuple[Threshold, str]]:
    """τ by method and protocol, and where it comes from; None: the oracle finds the best on the samples themselves.

    `protocols` may say different τ by dataset. A protocol's own is "fixed" and wins; else those of another `run` are
    taken. Those that it chose on a split for testing, or on the one that is scored now (`source`: dataset, split,
    model), are refused unless `from_test` says that they are wanted; the tables then say so.
    """
    chosen, origin = (None, "oracle") if run is None else _read_thresholds(run, source, from_test)
    thresholds: dict[tuple[str, str], tuple[Threshold, str]] = {}
    dataset = str(source.get("dataset", ""))
    for method, protocol in product(methods, protocols.values()):
        key, rules = (method, protocol.name), protocol.for_dataset(dataset)
        if rules.threshold is not None:
            thresholds[key] = float(rules.threshold), "fixed"  # type: ignore[arg-type]
        elif chosen is None:
            unpublished = f"oracle (no τ published for {dataset})"
            thresholds[key] = None, unpublished if "threshold" in protocol.by_dataset else origin
        elif key in chosen:
            for tau in (taus := chosen[key]).values():
                rules.threshold_index(tau)
            thresholds[key] = taus if rules.threshold_of == "each" else taus["gt_known_loc"], origin
        else:
            raise UserError(
                f"threshold_from={run}: that run has no threshold for method {method} under protocol {protocol.name}; "
                f"it has {first_names(f'{m} under {p}' for m, p in chosen) or 'none'}"
            )
    return thresholds


def _read_thresholds(
    run: Path | str, source: Mapping[str, Any], from_test: bool
) -> tuple[dict[tuple[str, str], dict[str, float]], str]:
    """τ by method, protocol and metric of another run; and how tables name that run, and a split it shouldn't be of."""
    from wsol.shards import check_run  # which knows these tables

    path = Path(run).expanduser() / "summary.csv"
    if not path.is_file():
        raise UserError(f"threshold_from={run}: no summary.csv there; pass the folder of a run")
    check_run(path.parent)
    with reading(path):
        summary = pd.read_csv(data_file(path, 1 << 28), dtype=dict.fromkeys(TEXTS, str))
        named = summary.dropna(subset=["threshold"]).set_index(["method", "protocol"])
        chosen: Any = {key: dict.fromkeys(AT_THE_SUMMARYS_THRESHOLD, tau) for key, tau in named["threshold"].items()}
        metrics = pd.DataFrame(columns=list(METRIC_COLUMNS))
        if (path.parent / "metrics.csv").is_file():
            metrics = pd.read_csv(path.parent / "metrics.csv", dtype=dict.fromkeys(TEXTS, str))
        overall = metrics[metrics["class"].isna() & metrics["metric"].isin(AT_THE_SUMMARYS_THRESHOLD)]
        for row in overall.dropna(subset=["threshold"]).itertuples():  # of metrics that have each their own
            chosen.get((row.method, row.protocol), {})[str(row.metric)] = row.threshold
        dataset, split, model = summary[["dataset", "split", "model"]].fillna("").iloc[0]
    on_test = is_for_testing(split, str(read_environment(path.parent).get("role") or ""))
    on_this = (dataset, split) == (source.get("dataset"), source.get("split"))
    if (on_test or on_this) and not from_test:
        why = "whose role is test" if on_test else "which is scored now"
        raise UserError(
            f"threshold_from={run}: its thresholds were chosen on {dataset} ({split}), {why}. Choose them on a split "
            f"with the role train-fullsup; threshold_from_test=true takes them all the same, and the tables say so"
        )
    if model != source.get("model", ""):
        logger.warning("threshold_from=%s: its model is %s, not %s", run, model or "none", source.get("model", "none"))
    origin = " (chosen on this very split)" if on_this else " (chosen on test)" if on_test else ""
    return chosen, f"{run}{origin}"
