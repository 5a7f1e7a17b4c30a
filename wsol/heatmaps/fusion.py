"""Heatmaps of several layers put together into one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from wsol.errors import UserError

__all__ = ["FUSIONS", "fuse"]

FUSIONS = ("max", "mean")


def fuse(maps: Sequence[torch.Tensor], how: str = "max", gamma: float = 2.0) -> torch.Tensor:
    """Bring the maps of several layers to the largest of their sizes, tanh(γ M / max M), and combine them.

    Parameters
    ----------
    maps : sequence of tensor (B, h, w)
        Of several layers, in any order; values below 0 count as 0.
    how : "max" or "mean"
        Element by element.
    gamma : float
        How much the middle of the range is lifted.

    Returns
    -------
    tensor (B, h, w) of the largest size, values in [0, 1]

    Raises
    ------
    UserError
        If `how` is neither.

    References
    ----------
    Jiang, Zhang, Hou, Cheng, Wei, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP
    2021, eq. 9, and the paragraph on fusing by the element-wise maximum. Here every layer is scaled, the last one too,
    so that all are between 0 and 1.

    Examples
    --------
    >>> fuse([torch.ones(1, 2, 2), torch.zeros(1, 4, 4)]).shape
    torch.Size([1, 4, 4])
    """
    if how not in FUSIONS:
        raise UserError(f"fuse={how!r}: pass one of {', '.join(FUSIONS)}, or null to keep the layers apart")
    size = max((tuple(heatmap.shape[1:]) for heatmap in maps), key=lambda shape: shape[0] * shape[1])
    scaled = []
    for heatmap in maps:
        clipped = heatmap.relu()
        highest = clipped.amax((1, 2), keepdim=True)
        even = torch.tanh(gamma * clipped / torch.where(highest == 0, 1, highest))
        scaled.append(functional.interpolate(even[:, None], size, mode="bilinear")[:, 0])
    stacked = torch.stack(scaled)  # (L, B, h, w)
    return stacked.amax(0) if how == "max" else stacked.mean(0)
