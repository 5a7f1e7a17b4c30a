"""The gallery's data: some samples with picture, raw heatmaps and the box at every threshold, for the page's slider.

The page makes score maps and masks from the raw heatmaps by the protocol's own rules, so a heatmap costs a few
hundred bytes; boxes and IoUs come run-length coded from the run's `sweeps.parquet`. A gallery is bounded in samples
and in bytes, however large the run is.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from wsol.heatmaps.store import HeatmapStore
from wsol.localization import Protocol
from wsol.localization.boxes import to_inclusive
from wsol.report.templating import as_json

__all__ = ["choose_samples", "coded_map", "coded_runs", "gallery_samples", "thumbnail"]

THUMBNAIL = 224  # longest side in pixels
SMALL_MAP = 1024  # values; larger heatmaps are reduced
REDUCED = 64  # their longest side then
REASONS = ("evenly spaced", "methods disagree", "of each error kind")


def choose_samples(per_image: pd.DataFrame, sample_ids: Sequence[str], count: int) -> dict[str, int]:
    """Choose samples that a reader wants to see.

    Parameters
    ----------
    per_image : DataFrame
        The rows of one protocol.
    sample_ids : sequence of str
        All of the run, in its order.
    count : int
        How many at most.

    Returns
    -------
    dict of sample id to index into `REASONS`
        A third evenly spaced over the run; a third where the IoUs of two methods differ most (with one method: where
        its IoU is lowest); a third from the error kinds of the first method in turn. In the run's order.

    Examples
    --------
    >>> table = pd.DataFrame({"method": "cam", "sample_id": list("abcd"), "iou": [0.9, 0.1, 0.5, 0.4],
    ...                       "error_kind": ["right", "part", "right", "part"]})
    >>> choose_samples(table, list("abcd"), 3)
    {'a': 0, 'b': 1, 'd': 2}
    """
    wide = per_image.pivot(index="sample_id", columns="method", values="iou").reindex(list(sample_ids))
    spread = wide.max(axis=1) - wide.min(axis=1) if wide.shape[1] > 1 else -wide.iloc[:, 0]
    kinds = per_image[per_image["method"] == per_image["method"].iloc[0]].set_index("sample_id")["error_kind"]
    even = np.unique(np.linspace(0, len(sample_ids) - 1, min(-(-count // 3), len(sample_ids))).round().astype(int))
    offers = (
        [sample_ids[index] for index in even],
        list(spread.sort_values(ascending=False, kind="stable").index[:count]),
        _in_turn(kinds.reindex(list(sample_ids)), count),
    )
    quotas = (len(even), count // 3, count)
    chosen: dict[str, int] = {}
    for reason, (offer, quota) in enumerate(zip(offers, quotas, strict=True)):
        fresh = [sample_id for sample_id in offer if sample_id not in chosen]
        for sample_id in fresh[: min(quota, count - len(chosen))]:
            chosen[sample_id] = reason
    return {sample_id: chosen[sample_id] for sample_id in sample_ids if sample_id in chosen}


def _in_turn(kinds: pd.Series, count: int) -> list[str]:
    """One sample of each error kind, then another of each; each kind's from all over the run."""
    groups = []
    for _, part in kinds.groupby(kinds, sort=True):
        picked = np.unique(np.linspace(0, len(part) - 1, min(count, len(part))).round().astype(int))
        # Shuffled, because few of them are taken: else all would stand at the beginning.
        groups.append([part.index[index] for index in np.random.default_rng(0).permutation(picked)])
    return [group[turn] for turn in range(count) for group in groups if turn < len(group)]


def thumbnail(image: np.ndarray) -> str:
    """Picture as the `data:` address of a small JPEG.

    Parameters
    ----------
    image : uint8 array (H, W, 3)
    """
    picture = Image.fromarray(image)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(written.getvalue()).decode()}"


def coded_map(heatmap: np.ndarray, is_score_map: bool = False) -> dict[str, Any]:
    """Heatmap as the page reads it.

    Parameters
    ----------
    heatmap : float64 array (h, w)
        From the store: half precision times a scale, which no normalization keeps.
    is_score_map : bool
        Whether it is never normalized, so that the scale counts.

    Returns
    -------
    dict
        shape; either `halves`, the half-precision values themselves, or, for a large map reduced to 64 pixels,
        `bytes` from 0 to 255 with the value `low` of the first and `high` of the last. Both in base64.
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


def coded_runs(
    thresholds: np.ndarray, boxes: np.ndarray, ious: np.ndarray, protocol: Protocol, grid: np.ndarray
) -> dict[str, list[int | float]]:
    """Box and IoU of one sample over τ, run-length coded.

    Parameters
    ----------
    thresholds : float64 array (R,)
        Where each run begins.
    boxes : array (R, 4)
        In score-map pixels and the protocol's convention.
    ious : float64 array (R,)
    protocol : Protocol
    grid : float64 array (T,)
        Its τ.

    Returns
    -------
    dict
        `first`: steps of the grid from one run's start to the next one's; `boxes`: left, top, right and bottom edge
        in score-map pixels for each run, -1 four times where there is no box; `iou`: in 1/10,000, rounded so that a
        comparison with an IoU threshold comes out as with the IoU itself.

    Examples
    --------
    >>> runs = coded_runs(np.array([0.0, 0.002]), np.array([[0, 0, 9, 9], [2, 2, 5, 5.0]]), np.array([0.25, 0.49999]),
    ...                   Protocol(box_convention="inclusive"), Protocol().grid())
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


def gallery_samples(
    chosen: Mapping[str, int],
    tables: Mapping[str, pd.DataFrame],
    protocols: Mapping[str, Protocol],
    store: HeatmapStore | None,
    read_image: Callable[[int, str], np.ndarray | None],
    budget: int,
) -> list[dict[str, Any]]:
    """Collect what the page needs of each chosen sample, until the budget is spent.

    Parameters
    ----------
    chosen : mapping of sample id to index into `REASONS`
    tables : mapping
        "samples" of the whole run; "per_image" and "sweeps" of at least the chosen samples.
    protocols : mapping of name to Protocol
    store : HeatmapStore, optional
        None where the run's heatmaps are gone: boxes only.
    read_image : function of a sample's place in the run and its id
        None where its picture can't be read.
    budget : int
        Bytes, compressed.

    Returns
    -------
    list of dict
        In the run's order; `templates/gallery.js` reads them. A budget that cuts it short leaves some of each reason.
    """
    samples = tables["samples"]
    numbers = {str(sample_id): number for number, sample_id in enumerate(samples["sample_id"])}
    runs = _all_runs(tables["sweeps"], protocols, set(chosen))
    kinds = _error_kinds(tables["per_image"], set(chosen))
    positions = {} if store is None else {name: index for index, name in enumerate(store.sample_ids)}
    found: list[dict[str, Any]] = []
    spent = 0
    for sample_id in sorted(chosen, key=lambda name: _turn(name, chosen)):
        number, position = numbers[sample_id], positions.get(sample_id)
        row, image = samples.iloc[number], read_image(number, sample_id)
        one: dict[str, Any] = {
            "id": sample_id,
            "number": number,
            "reason": chosen[sample_id],
            "class": str(row["class"]),
            "rank": int(row["rank"]),
            "size": _size(row, store, position),
            "truth": np.asarray(row["true_boxes"], np.float64).reshape(-1, 4).round(2) if "true_boxes" in row else [],
            "image": None if image is None else thumbnail(image),
            "runs": runs.get(sample_id, {}),
            "kinds": kinds.get(sample_id, {}),
            **_heatmaps(store, position),
        }
        spent += len(zlib.compress(as_json(one).encode(), 1)) * 4 // 3
        if spent > budget and found:
            break
        found.append(one)
    return sorted(found, key=lambda one: one["number"])


def _turn(sample_id: str, chosen: Mapping[str, int]) -> tuple[int, int]:
    """Where a sample stands among those of its reason, spread so that a cut leaves an even part of each."""
    same = [name for name, reason in chosen.items() if reason == chosen[sample_id]]
    place = same.index(sample_id)
    reversed_bits = int(f"{place:010b}"[::-1], 2)
    return reversed_bits, chosen[sample_id]


def _size(row: pd.Series, store: HeatmapStore | None, position: int | None) -> tuple[int, int]:
    """Width and height of the image: without predictions the store alone knows them."""
    if "width" in row:
        return int(row["width"]), int(row["height"])
    return (1, 1) if store is None or position is None else store.image_size(position)


def _heatmaps(store: HeatmapStore | None, position: int | None) -> dict[str, Any]:
    if store is None or position is None:
        return {"maps": {}, "rectangle": None}
    maps = {}
    for name in store.methods:
        heatmap = None if store.missing(name)[position] else store.heatmap(name, position)
        if heatmap is not None and heatmap.values is not None:
            maps[name] = coded_map(heatmap.values, heatmap.kind == "scoremap")
    return {"maps": maps, "rectangle": store.rectangle(position)}


def _all_runs(
    sweeps: pd.DataFrame, protocols: Mapping[str, Protocol], wanted: set[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Nested by sample, method, protocol."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    if sweeps.empty:
        return found
    part = sweeps[sweeps["sample_id"].isin(wanted)]
    grids = {name: protocol.grid() for name, protocol in protocols.items()}
    thresholds, ious = part["threshold"].to_numpy(), part["iou"].to_numpy()
    boxes = part[["x0", "y0", "x1", "y1"]].to_numpy(np.float64)
    groups: Mapping[Any, Any] = part.groupby(["sample_id", "method", "protocol"], sort=False, observed=True).indices
    for (sample_id, method, name), rows in groups.items():
        coded = coded_runs(thresholds[rows], boxes[rows], ious[rows], protocols[name], grids[name])
        found.setdefault(sample_id, {}).setdefault(method, {})[name] = coded
    return found


def _error_kinds(per_image: pd.DataFrame, wanted: set[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Nested by sample, method, protocol."""
    part = per_image[per_image["sample_id"].isin(wanted)]
    found: dict[str, dict[str, dict[str, str]]] = {}
    columns = ("sample_id", "method", "protocol", "error_kind")
    for sample_id, method, protocol, kind in zip(*(part[name] for name in columns), strict=True):
        found.setdefault(sample_id, {}).setdefault(method, {})[protocol] = kind
    return found


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode()
