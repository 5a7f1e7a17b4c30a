"""Score maps that somebody made: brought to evaluation size where they have another, and never normalized."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from wsol.datasets.sample import Dataset
from wsol.heatmaps.store import HeatmapStore
from wsol.localization import Protocol
from wsol.localization.resize import resize

__all__ = ["ready_score_map", "resizing_notes"]


def ready_score_map(values: np.ndarray, rules: Protocol, image_size: tuple[int, int]) -> np.ndarray:
    """Bring a score map to the size at which a protocol evaluates.

    Parameters
    ----------
    values : float64 array (h, w)
        In [0, 1].
    rules : Protocol
        Its `size` and `interpolation` are used.
    image_size : (width, height)

    Returns
    -------
    float64 array (H, W)
        The same array where it has that size. What bicubic interpolation pushes out of [0, 1] is clipped.

    Examples
    --------
    >>> ready_score_map(np.array([[0.25, 0.5]]), Protocol(size=(4, 1), interpolation="nearest"), (8, 2))
    array([[0.25, 0.25, 0.5 , 0.5 ]])
    """
    size = rules.size or image_size
    if values.shape == size[::-1]:
        return values
    return np.clip(resize(values[None], size, rules.interpolation)[0], 0, 1)


def resizing_notes(dataset: Dataset, store: HeatmapStore, protocols: Mapping[str, Protocol]) -> list[str]:
    """Say which protocols resize score maps, from which sizes to which.

    Parameters
    ----------
    dataset : Dataset
        Where it has masks, PxAP is counted too, at a size of its own.
    store : HeatmapStore
    protocols : dict of str to Protocol

    Returns
    -------
    list of str
        One text, or none where every map has the size wanted, or is no score map.
    """
    shapes = store.score_map_shapes()
    if not shapes:
        return []
    masks = any(sample.mask is not None for sample in dataset)
    wanted: dict[tuple[tuple[int, int] | None, str], list[str]] = {}
    for name, rules in protocols.items():
        wanted.setdefault((rules.size, rules.interpolation), []).append(name)
        if masks:
            wanted.setdefault((rules.mask_size, rules.interpolation), []).append(f"{name}'s PxAP")
    changes = []
    for (size, interpolation), names in wanted.items():
        sizes = [store.image_size(index) if size is None else size for index in range(len(shapes))]
        pairs = zip(shapes, sizes, strict=True)
        other = [shape[::-1] for shape, goal in pairs if shape is not None and shape != goal[::-1]]
        if other:
            goal = "their image's size" if size is None else f"{size[0]} x {size[1]}"
            changes.append(f"{_sizes(other)} to {goal} ({interpolation}) for {', '.join(dict.fromkeys(names))}")
    return [f"score maps are resized, not normalized: {'; '.join(changes)}"] if changes else []


def _sizes(sizes: Iterable[tuple[int, int]]) -> str:
    distinct = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    first, last = (f"{width} x {height}" for width, height in (distinct[0], distinct[-1]))
    return first if len(distinct) == 1 else f"{len(distinct)} sizes from {first} to {last}"
