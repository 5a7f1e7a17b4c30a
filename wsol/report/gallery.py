"""The gallery's data: some samples with picture, raw heatmaps and the box at every threshold, for the page's slider.

The page makes score maps and masks from the raw heatmaps by the protocol's own rules, so a heatmap costs a few
hundred bytes; boxes and IoUs come run-length coded from the run's `sweeps.parquet`. A gallery is bounded in samples
and in bytes, however large the run is.
"""

from __future__ import annotations

import base64
import io
import logging
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, product
from typing import TYPE_CHECKING, Any, TypeVar

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from pyarrow.dataset import field

from wsol.heatmaps.method import BASELINES
from wsol.localization import Protocol
from wsol.localization.boxes import to_image, to_inclusive
from wsol.report.charts import KINDS, Style, method_names
from wsol.report.run import Run
from wsol.report.templating import as_json
from wsol.tables import BOX

if TYPE_CHECKING:
    from wsol.datasets import Dataset
    from wsol.heatmaps.store import HeatmapStore

logger = logging.getLogger("wsol")

MOST = 60  # samples
BUDGET = 5_000_000  # bytes, compressed
DRAWN = 256  # pixels along a side of a score map, at most
COLOR_MAPS = ("viridis", "inferno", "cividis", "gray", "jet")  # jet is no perceptual one; it is there by choice
DRAWING_FIELDS = (
    "component", "size", "interpolation", "normalization", "levels", "pixel_comparison", "iou_comparison",
)  # fmt: skip
THUMBNAIL = 224  # longest side in pixels
SMALL_MAP = 1024  # values; larger heatmaps are reduced
REDUCED = 64  # their longest side then
REASONS = ("evenly spaced", "methods disagree", "of each error kind")

Item = TypeVar("Item")
Nested = dict[str, dict[str, dict[str, Any]]]  # by sample, method, protocol


def gallery(
    run: Run, store: HeatmapStore | None, dataset: Dataset | None, styles: Mapping[str, Style]
) -> dict[str, Any]:
    """Collect what the page shows: `packed`, the data of `templates/gallery.js`, and what its notes say."""
    chosen = _chosen_samples(run)
    samples = _samples(run, chosen, store, dataset)
    kinds = [(kind.key, kind.label) for kind in KINDS]
    protocols = run.protocols.items()
    data = {
        "drawn": DRAWN,
        "methods": [_drawing(name, store) | method_data(name, styles) for name in run.methods],
        "protocol_names": list(run.protocols),
        "protocols": {
            name: {key: getattr(rules, key) for key in DRAWING_FIELDS} | {"size": drawn_size(rules)}
            for name, rules in protocols
        },
        "kinds": kinds,
        "colormaps": {name: _colors(name) for name in COLOR_MAPS},
        "samples": samples,
    }
    pairs = product(samples, run.protocols.values())
    sizes = [drawn_size(rules) or sample["size"] for sample, rules in pairs]
    return {
        "packed": base64.b64encode(zlib.compress(as_json(data).encode(), 9)).decode(),
        "colormaps": COLOR_MAPS,
        "kinds": kinds,
        "reasons": REASONS,
        "shown": len(samples),
        "chosen": len(chosen),
        "has_heatmaps": store is not None,
        "without_image": sum(sample["image"] is None for sample in samples),
        "reduced": any("bytes" in heatmap for sample in samples for heatmap in sample["maps"].values()),
        "drawn": DRAWN if max(map(max, sizes), default=0) > DRAWN else None,
    }


def _drawing(name: str, store: HeatmapStore | None) -> dict[str, Any]:
    """What the page must know to make a method's score maps."""
    has_heatmaps = store is not None and name in store.methods  # boxes that were given have no heatmaps
    function = store.methods[name]["function"] if store is not None and has_heatmaps else ""
    score_map = store is not None and has_heatmaps and store.kind(name) == "scoremap"
    return {"function": function, "baseline": (function or name) in BASELINES, "score_map": score_map}


def method_data(name: str, styles: Mapping[str, Style]) -> dict[str, str]:
    """How the page's scripts call and draw a method."""
    label, style = method_names(styles)[name], styles[name]
    return {"name": name, "label": label, "color": style.variable, "dash": style.dash}


def _chosen_samples(run: Run) -> dict[str, int]:
    sample_ids = list(run.samples["sample_id"])
    if not run.boxed:
        return dict.fromkeys(evenly_spaced(sample_ids, MOST), 0)
    protocol, columns = next(iter(run.protocols)), ["sample_id", "iou", "error_kind"]
    rows = [run.per_image(method, protocol, columns).assign(method=method) for method in run.methods]
    return choose_samples(pd.concat(rows, ignore_index=True), sample_ids, MOST)


def choose_samples(per_image: pd.DataFrame, sample_ids: Sequence[str], count: int) -> dict[str, int]:
    """Choose samples that a reader wants to see, each with its reason's index in `REASONS`; in the run's order.

    A third is evenly spaced over the run; a third are those where the IoUs of two methods differ most (with one
    method: where its IoU is lowest); a third come from the error kinds of the first method in turn. `per_image` has
    the rows of one protocol.
    """
    ious = per_image.pivot(index="sample_id", columns="method", values="iou").reindex(list(sample_ids))
    spread = ious.max(axis=1) - ious.min(axis=1) if ious.shape[1] > 1 else -ious.iloc[:, 0]
    kinds = per_image[per_image["method"] == per_image["method"].iloc[0]].set_index("sample_id")["error_kind"]
    candidates = (
        evenly_spaced(sample_ids, -(-count // 3)),
        list(spread.sort_values(ascending=False, kind="stable").index),
        _one_of_each_kind(kinds.reindex(list(sample_ids)), count),
    )
    chosen: dict[str, int] = {}
    for reason, (names, quota) in enumerate(zip(candidates, (count, count // 3, count), strict=True)):
        fresh = [sample_id for sample_id in names if sample_id not in chosen]
        chosen |= dict.fromkeys(fresh[: min(quota, count - len(chosen))], reason)
    return {sample_id: chosen[sample_id] for sample_id in sample_ids if sample_id in chosen}


def evenly_spaced(items: Sequence[Item], count: int) -> list[Item]:
    """So many of them, from the first to the last."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in np.unique(places)]


def _one_of_each_kind(kinds: pd.Series, count: int) -> list[str]:
    """One sample of each error kind, then another of each; each kind's from all over the run."""
    # Shuffled, because few of them are taken: else all would stand at the beginning.
    groups = [
        np.random.default_rng(0).permutation(np.array(evenly_spaced(list(part.index), count), object))
        for _, part in kinds.groupby(kinds, sort=True)
    ]
    return [group[turn] for turn in range(count) for group in groups if turn < len(group)]


def _samples(
    run: Run, chosen: Mapping[str, int], store: HeatmapStore | None, dataset: Dataset | None
) -> list[dict[str, Any]]:
    """What the page needs of each chosen sample, in the run's order, until the budget is spent: then some are left out.

    Images are read by their place in the run, which is that in its dataset. Stored heatmaps are scored without images,
    so that one is missing is said once and not for each.
    """
    names = logit_names(run.samples)
    numbers = {sample_id: number for number, sample_id in enumerate(run.samples["sample_id"])}
    positions = {} if store is None else {name: index for index, name in enumerate(store.sample_ids)}
    sweeps, kinds = _sweeps_and_kinds(run, chosen, store, positions) if run.boxed else ({}, {})
    samples: list[dict[str, Any]] = []
    unreadable: list[Exception] = []
    spent = 0
    for sample_id in sorted(chosen, key=lambda name: _turn(name, chosen)):
        number = numbers[sample_id]
        row: Any = run.samples.iloc[number]
        sample: dict[str, Any] = {
            "id": sample_id,
            "number": number,
            "reason": chosen[sample_id],
            "class": str(row["class"]),
            "rank": int(row["rank"]),
            "predicted": _predicted(row, names),
            "size": (int(row["width"]), int(row["height"])),
            "truth": np.asarray(row.get("true_boxes", ()), np.float64).reshape(-1, 4).round(2),
            "image": None,
            "runs": sweeps.get(sample_id, {}),
            "kinds": kinds.get(sample_id, {}),
            **_heatmaps(store, positions.get(sample_id)),
        }
        try:
            source = dataset[number] if dataset is not None and number < len(dataset) else None
            if source is not None and source.sample_id == sample_id:
                sample["image"] = thumbnail(source.read_image())
        except Exception as error:  # of somebody's own dataset whatever may be
            unreadable.append(error)
        spent += len(zlib.compress(as_json(sample).encode(), 1)) * 4 // 3
        if spent > BUDGET and samples:
            break
        samples.append(sample)
    if unreadable:
        logger.warning("the gallery lacks images, the first one: %s", unreadable[0])
    return sorted(samples, key=lambda sample: sample["number"])


def logit_names(samples: pd.DataFrame) -> dict[int, str]:
    """Names of the classifier's classes, as far as they are some sample's, by the place of its logit."""
    best = zip(samples.get("top5", ()), samples["rank"], samples["class"], strict=False)
    return {int(top5[rank]): str(name) for top5, rank, name in best if top5 is not None and 0 <= rank < len(top5)}


def _predicted(row: Mapping[str, Any], names: Mapping[int, str]) -> dict[str, Any] | None:
    """The class that the classifier takes the image for, and how sure it is."""
    logits, shares = row.get("top5"), row.get("top5_probability")
    if logits is None or not len(logits):
        return None
    share = None if shares is None or not len(shares) else float(shares[0])
    return {"name": names.get(int(logits[0]), f"class {logits[0]}"), "share": share}


def _turn(sample_id: str, chosen: Mapping[str, int]) -> tuple[int, int]:
    """Where a sample stands among those of its reason, spread so that a cut leaves an even part of each."""
    same = [name for name, reason in chosen.items() if reason == chosen[sample_id]]
    reversed_bits = int(f"{same.index(sample_id):010b}"[::-1], 2)
    return reversed_bits, chosen[sample_id]


def thumbnail(image: np.ndarray) -> str:
    """Picture of uint8 (H, W, 3) as the `data:` address of a small JPEG."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def _heatmaps(store: HeatmapStore | None, position: int | None) -> dict[str, Any]:
    if store is None or position is None:
        return {"maps": {}, "rectangle": None}
    maps = {}
    for name in store.methods:
        heatmap = store.heatmap(name, position)
        if heatmap.values is not None and not store.missing(name)[position]:
            maps[name] = coded_map(heatmap.values, heatmap.kind == "scoremap")
    return {"maps": maps, "rectangle": store.rectangle(position)}


def coded_map(heatmap: np.ndarray, is_score_map: bool = False) -> dict[str, Any]:
    """Heatmap (h, w) as the page reads it: `halves`, half-precision values, or `bytes` from `low` to `high`, in base64.

    The store has half precision times a scale, which no normalization keeps; that of a score map, which is never
    normalized, counts. Large maps are reduced to 64 pixels and 256 levels.
    """
    scale = 1.0 if is_score_map else float(np.abs(heatmap).max()) or 1.0
    values = heatmap / scale
    if values.size <= SMALL_MAP:
        return {"shape": values.shape, "halves": _base64(values.astype("<f2"))}
    small = Image.fromarray(values.astype(np.float32))
    factor = min(1.0, REDUCED / max(small.size))
    width, height = (max(1, round(side * factor)) for side in small.size)
    values = np.asarray(small.resize((width, height), Image.Resampling.BOX), np.float64)
    low, high = float(values.min()), float(values.max())
    levels = np.rint((values - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return {"shape": values.shape, "bytes": _base64(levels), "low": low, "high": high}


def drawn_size(rules: Protocol) -> tuple[int, int] | None:
    """Size at which the page draws the whole image; None: its own, also where a protocol sees another part or grid."""
    return rules.size if rules.view == "squash" and rules.size != "heatmap" else None


def _sweeps_and_kinds(
    run: Run, chosen: Mapping[str, int], store: HeatmapStore | None, positions: Mapping[str, int]
) -> tuple[Nested, Nested]:
    keys, only = ["sample_id", "method", "protocol"], field("sample_id").isin(list(chosen))
    sweeps: Any = run.sweeps(only, run.protocols).groupby(keys, sort=False, observed=True)
    kinds: Any = run.rows("per_image.parquet", only, [*keys, "error_kind"])
    sizes: Any = run.samples.set_index("sample_id")[["width", "height"]]

    def code(names: tuple[str, str, str], rows: pd.DataFrame) -> dict[str, np.ndarray]:
        (sample_id, method, protocol) = names
        rules = run.protocols[protocol]
        width, height = sizes.loc[sample_id].tolist()
        if rules.size is None or drawn_size(rules):
            return coded_sweep(rows, rules)
        heatmap = None if store is None else store.heatmap(method, positions[sample_id]).values
        size = rules.evaluation_size((width, height), None if heatmap is None else heatmap.shape[::-1])
        return coded_sweep(rows, rules, size, (width, height))

    coded = ((*names, code(names, rows)) for names, rows in sweeps)
    boxes = run.rows_without_sweeps(only, [*keys, *BOX, "iou"]).merge(run.samples[["sample_id", "width", "height"]])
    rows_of_boxes: Any = boxes.itertuples(index=False)
    coded_boxes = ((*row[:3], _coded_box(row, run.protocols[row.protocol])) for row in rows_of_boxes)
    return _nested(chain(coded, coded_boxes)), _nested(kinds.itertuples(index=False))


def _coded_box(row: Any, protocol: Protocol) -> dict[str, np.ndarray]:
    """The same of a box that was given, which stays at every τ."""
    scale = np.divide(drawn_size(protocol) or (row.width, row.height), (row.width, row.height))
    edges = np.array([row.x0, row.y0, row.x1 + 1, row.y1 + 1]) * np.tile(scale, 2)
    iou = np.array([int(10_000 * row.iou)])
    return {"first": np.zeros(1, int), "boxes": np.nan_to_num(edges, nan=-1).round(2), "iou": iou}


def _nested(items: Iterable[tuple[str, str, str, Any]]) -> Nested:
    nested: Nested = {}
    for sample_id, method, protocol, value in items:
        nested.setdefault(sample_id, {}).setdefault(method, {})[protocol] = value
    return nested


def coded_sweep(
    rows: pd.DataFrame,
    protocol: Protocol,
    size: tuple[int, int] | None = None,
    image_size: tuple[int, int] | None = None,
) -> dict[str, np.ndarray]:
    """Box and IoU of one sample over τ, run-length coded, from its R rows of `sweeps`.

    `first` holds the steps of the grid from one run's start to the next one's; `boxes` the left, top, right and bottom
    edge for each run, -1 four times where there is no box; `iou` is in 1/10,000, rounded so that a comparison with an
    IoU threshold comes out as with the IoU itself. Boxes stay in score-map pixels unless that map's size and the
    image's are passed: then they are where they lie in the image.
    """
    boxes = rows.loc[:, "x0":"y1"].to_numpy(np.float64)
    nothing = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    edges = to_inclusive(np.where(nothing[:, None], 0.0, boxes), protocol.box_convention)
    if size is not None and image_size is not None:
        edges = to_image(edges, size, image_size, protocol)
    edges[:, 2:] += 1
    edges[nothing] = -1
    whole = edges.astype(np.int64)
    ious = 10_000 * rows["iou"].to_numpy()
    rounded = np.ceil(ious - 1e-6) if protocol.iou_comparison == ">" else np.floor(ious + 1e-6)
    return {
        "first": np.diff(np.searchsorted(protocol.grid(), rows["threshold"].to_numpy() - 1e-9), prepend=0),
        "boxes": (whole if (edges == whole).all() else edges.round(2)).reshape(-1),
        "iou": rounded.astype(np.int64),
    }


def _colors(name: str) -> str:
    """256 colors of a color map, three bytes each, in base64."""
    colors = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return _base64(np.rint(255 * colors).astype(np.uint8))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
