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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from PIL import Image
from pyarrow.dataset import field

from wsol.errors import UserError
from wsol.heatmaps.method import BASELINES
from wsol.localization import Protocol
from wsol.localization.boxes import to_inclusive
from wsol.report.run import Run
from wsol.report.style import KINDS, Style
from wsol.report.templating import as_json

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

Nested = dict[str, dict[str, dict[str, Any]]]  # by sample, method, protocol


def choose_samples(per_image: pd.DataFrame, sample_ids: Sequence[str], count: int) -> dict[str, int]:
    """Choose samples that a reader wants to see, each with its reason's index; in the run's order.

    A third is evenly spaced over the run; a third are those where the IoUs of two methods differ most (with one
    method: where its IoU is lowest); a third come from the error kinds of the first method in turn. `per_image` has
    the rows of one protocol.

    Examples
    --------
    >>> table = pd.DataFrame({"method": "cam", "sample_id": list("abcd"), "iou": [0.9, 0.1, 0.5, 0.4],
    ...                       "error_kind": ["right", "part", "right", "part"]})
    >>> choose_samples(table, list("abcd"), 3)
    {'a': 0, 'b': 1, 'd': 2}
    """
    ious = per_image.pivot(index="sample_id", columns="method", values="iou").reindex(list(sample_ids))
    spread = ious.max(axis=1) - ious.min(axis=1) if ious.shape[1] > 1 else -ious.iloc[:, 0]
    kinds = per_image[per_image["method"] == per_image["method"].iloc[0]].set_index("sample_id")["error_kind"]
    even = evenly_spaced(sample_ids, -(-count // 3))
    disagreeing = list(spread.sort_values(ascending=False, kind="stable").index[:count])
    candidates = even, disagreeing, _one_of_each_kind(kinds.reindex(list(sample_ids)), count)
    quotas = len(even), count // 3, count
    chosen: dict[str, int] = {}
    for reason, (names, quota) in enumerate(zip(candidates, quotas, strict=True)):
        fresh = [sample_id for sample_id in names if sample_id not in chosen]
        chosen |= dict.fromkeys(fresh[: min(quota, count - len(chosen))], reason)
    return {sample_id: chosen[sample_id] for sample_id in sample_ids if sample_id in chosen}


def evenly_spaced(names: Sequence[str], count: int) -> list[str]:
    """So many names, from the first to the last."""
    places = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[place] for place in np.unique(places)]


def _one_of_each_kind(kinds: pd.Series, count: int) -> list[str]:
    """One sample of each error kind, then another of each; each kind's from all over the run."""
    # Shuffled, because few of them are taken: else all would stand at the beginning.
    groups = [
        np.random.default_rng(0).permutation(np.array(evenly_spaced(list(part.index), count), object))
        for _, part in kinds.groupby(kinds, sort=True)
    ]
    return [group[turn] for turn in range(count) for group in groups if turn < len(group)]


def thumbnail(image: np.ndarray) -> str:
    """Picture of uint8 (H, W, 3) as the `data:` address of a small JPEG."""
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def coded_map(heatmap: np.ndarray, is_score_map: bool = False) -> dict[str, Any]:
    """Heatmap (h, w) as the page reads it: `halves`, half-precision values, or `bytes` from `low` to `high`, in base64.

    The store has half precision times a scale, which no normalization keeps; that of a score map, which is never
    normalized, counts. Large maps are reduced to 64 pixels and 256 levels.
    """
    scale = 1.0 if is_score_map else float(np.abs(heatmap).max()) or 1.0
    values = heatmap / scale
    if values.size <= SMALL_MAP:
        return {"shape": values.shape, "halves": _base64(values.astype("<f2"))}
    height, width = values.shape
    factor = min(1.0, REDUCED / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BOX), np.float64)
    low, high = float(small.min()), float(small.max())
    levels = np.rint((small - low) / ((high - low) or 1.0) * 255).astype(np.uint8)
    return {"shape": small.shape, "bytes": _base64(levels), "low": low, "high": high}


def coded_sweep(
    thresholds: np.ndarray, boxes: np.ndarray, ious: np.ndarray, protocol: Protocol, grid: np.ndarray
) -> dict[str, list[int | float]]:
    """Box and IoU of one sample over τ, run-length coded: R runs with boxes (R, 4) in score-map pixels.

    `first` holds the steps of the grid from one run's start to the next one's; `boxes` the left, top, right and bottom
    edge for each run, -1 four times where there is no box; `iou` is in 1/10,000, rounded so that a comparison with an
    IoU threshold comes out as with the IoU itself.

    Examples
    --------
    >>> runs = coded_sweep(np.array([0.0, 0.002]), np.array([[0, 0, 9, 9], [2, 2, 5, 5.0]]), np.array([0.25, 0.49999]),
    ...                    Protocol(box_convention="inclusive"), Protocol().grid())
    >>> runs["first"], runs["boxes"], runs["iou"]
    ([0, 2], [0, 0, 10, 10, 2, 2, 6, 6], [2500, 4999])
    """
    first = np.searchsorted(grid, thresholds - 1e-9)
    nothing = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    edges = to_inclusive(np.where(nothing[:, None], 0.0, boxes), protocol.box_convention)
    edges[:, 2:] += 1
    edges[nothing] = -1
    strict = protocol.iou_comparison == ">"
    rounded = np.ceil(10_000 * ious - 1e-6) if strict else np.floor(10_000 * ious + 1e-6)
    whole = bool((edges == edges.astype(np.int64)).all())
    return {
        "first": np.diff(first, prepend=0).tolist(),
        "boxes": edges.astype(np.int64).reshape(-1).tolist() if whole else edges.round(2).reshape(-1).tolist(),
        "iou": rounded.astype(np.int64).tolist(),
    }


def gallery(
    run: Run, store: HeatmapStore | None, dataset: Dataset | None, styles: Mapping[str, Style]
) -> dict[str, Any]:
    """Collect what the page shows: `packed`, the data of `templates/gallery.js`, and what its notes say."""
    chosen = _chosen_samples(run)
    samples = _samples(run, chosen, store, dataset)
    kinds = [(kind.key, kind.label) for kind in KINDS]
    data = {
        "drawn": DRAWN,
        "methods": [method_data(name, styles) | _drawing(name, store) for name in run.methods],
        "protocol_names": list(run.protocols),
        "protocols": {
            name: {key: getattr(protocol, key) for key in DRAWING_FIELDS} for name, protocol in run.protocols.items()
        },
        "kinds": kinds,
        "colormaps": {name: _colors(name) for name in COLOR_MAPS},
        "samples": samples,
    }
    sizes = [protocol.size or sample["size"] for sample in samples for protocol in run.protocols.values()]
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


def method_data(name: str, styles: Mapping[str, Style]) -> dict[str, str]:
    """How the page's scripts call and draw a method."""
    return {"name": name, "color": styles[name].variable, "dash": styles[name].dash}


def _drawing(name: str, store: HeatmapStore | None) -> dict[str, Any]:
    """What the page must know to make a method's score maps."""
    function = "" if store is None else store.methods[name]["function"]
    score_map = store is not None and store.kind(name) == "scoremap"
    return {"function": function, "baseline": (function or name) in BASELINES, "score_map": score_map}


def _chosen_samples(run: Run) -> dict[str, int]:
    sample_ids = list(run.samples["sample_id"])
    if not run.boxed:
        return dict.fromkeys(evenly_spaced(sample_ids, MOST), 0)
    protocol, columns = next(iter(run.protocols)), ["sample_id", "iou", "error_kind"]
    rows = [run.per_image(method, protocol, columns).assign(method=method) for method in run.methods]
    return choose_samples(pd.concat(rows, ignore_index=True), sample_ids, MOST)


def _samples(
    run: Run, chosen: Mapping[str, int], store: HeatmapStore | None, dataset: Dataset | None
) -> list[dict[str, Any]]:
    """What the page needs of each chosen sample, in the run's order, until the budget is spent: then some are left out.

    Images are read by their place in the run, which is that in its dataset. Stored heatmaps are scored without images,
    so that one is missing is said once and not for each.
    """
    numbers = {sample_id: number for number, sample_id in enumerate(run.samples["sample_id"])}
    sweeps, kinds = _sweeps_and_kinds(run, chosen) if run.boxed else ({}, {})
    positions = {} if store is None else {name: index for index, name in enumerate(store.sample_ids)}
    samples: list[dict[str, Any]] = []
    spent, unreadable = 0, 0
    for sample_id in sorted(chosen, key=lambda name: _turn(name, chosen)):
        number, position = numbers[sample_id], positions.get(sample_id)
        row = run.samples.iloc[number]
        try:
            image = _read_image(dataset, number, sample_id)
        except UserError as error:
            image, unreadable = None, unreadable + 1
            if unreadable == 1:
                logger.warning("the gallery lacks images, the first one: %s", error)
        sample: dict[str, Any] = {
            "id": sample_id,
            "number": number,
            "reason": chosen[sample_id],
            "class": str(row["class"]),
            "rank": int(row["rank"]),
            "size": _size(row, store, position),
            "truth": np.asarray(row.get("true_boxes", ()), np.float64).reshape(-1, 4).round(2),
            "image": None if image is None else thumbnail(image),
            "runs": sweeps.get(sample_id, {}),
            "kinds": kinds.get(sample_id, {}),
            **_heatmaps(store, position),
        }
        spent += len(zlib.compress(as_json(sample).encode(), 1)) * 4 // 3
        if spent > BUDGET and samples:
            break
        samples.append(sample)
    return sorted(samples, key=lambda sample: sample["number"])


def _turn(sample_id: str, chosen: Mapping[str, int]) -> tuple[int, int]:
    """Where a sample stands among those of its reason, spread so that a cut leaves an even part of each."""
    same = [name for name, reason in chosen.items() if reason == chosen[sample_id]]
    reversed_bits = int(f"{same.index(sample_id):010b}"[::-1], 2)
    return reversed_bits, chosen[sample_id]


def _read_image(dataset: Dataset | None, number: int, sample_id: str) -> np.ndarray | None:
    sample = dataset[number] if dataset is not None and number < len(dataset) else None
    return sample.read_image() if sample is not None and sample.sample_id == sample_id else None


def _size(row: pd.Series, store: HeatmapStore | None, position: int | None) -> tuple[int, int]:
    """Width and height of the image: without predictions the store alone knows them."""
    if "width" in row:
        return int(row["width"]), int(row["height"])
    return (1, 1) if store is None or position is None else store.image_size(position)


def _heatmaps(store: HeatmapStore | None, position: int | None) -> dict[str, Any]:
    if store is None or position is None:
        return {"maps": {}, "rectangle": None}
    names = [name for name in store.methods if not store.missing(name)[position]]
    heatmaps = {name: store.heatmap(name, position) for name in names}
    maps = {
        name: coded_map(heatmap.values, heatmap.kind == "scoremap")
        for name, heatmap in heatmaps.items()
        if heatmap.values is not None
    }
    return {"maps": maps, "rectangle": store.rectangle(position)}


def _sweeps_and_kinds(run: Run, chosen: Mapping[str, int]) -> tuple[Nested, Nested]:
    sweeps, per_image = (
        run.rows(name, field("sample_id").isin(list(chosen))) for name in ("sweeps.parquet", "per_image.parquet")
    )
    grids = {name: protocol.grid() for name, protocol in run.protocols.items()}
    thresholds, ious, kinds = (
        column.to_numpy() for column in (sweeps["threshold"], sweeps["iou"], per_image["error_kind"])
    )
    boxes = sweeps[["x0", "y0", "x1", "y1"]].to_numpy(np.float64)

    def coded(protocol: str, rows: np.ndarray) -> dict[str, Any]:
        return coded_sweep(thresholds[rows], boxes[rows], ious[rows], run.protocols[protocol], grids[protocol])

    return _nested(sweeps, coded), _nested(per_image, lambda _, rows: kinds[rows[0]])


def _nested(table: pd.DataFrame, value: Callable[[str, np.ndarray], Any]) -> Nested:
    nested: Nested = {}
    keys = ["sample_id", "method", "protocol"]
    groups: Mapping[Any, Any] = table.groupby(keys, sort=False, observed=True).indices
    for (sample_id, method, protocol), rows in groups.items():
        nested.setdefault(sample_id, {}).setdefault(method, {})[protocol] = value(protocol, rows)
    return nested


def _colors(name: str) -> str:
    """256 colors of a color map, three bytes each, in base64."""
    colors = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    return _base64(np.rint(255 * colors).astype(np.uint8))


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
