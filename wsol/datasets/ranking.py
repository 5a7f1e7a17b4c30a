"""Where the true class stands among the logits: ranks and the best few, over all logits or those present."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from wsol.datasets.class_map import ClassMap
from wsol.errors import UserError

__all__ = ["allowed_logits", "rank_of_true", "top_classes"]


def allowed_logits(class_map: ClassMap, predict_over: str = "all") -> np.ndarray | None:
    """Logits that a prediction may choose from: None for all, or the indices of those present in the dataset.

    Raises
    ------
    UserError
        If `predict_over` is neither "all" nor "present".

    Examples
    --------
    >>> allowed_logits(ClassMap(np.array([7, 2]), "name"), "present")
    array([2, 7])
    """
    if predict_over == "all":
        return None
    if predict_over == "present":
        return class_map.present
    raise UserError(f"predict_over={predict_over!r}: pass all or present")


def rank_of_true(logits: ArrayLike, targets: ArrayLike, allowed: ArrayLike | None = None) -> np.ndarray:
    """Rank of each true class among the logits, 0 for the best.

    Equal logits stand in the order of their index, as a stable sort leaves them: a true class that ties with
    one of a lower index comes behind it.

    Parameters
    ----------
    logits : array of float (N, C)
    targets : array of int (N,)
        Index of each true class's logit.
    allowed : array of int, optional
        Logits that compete; the others are passed over. Every target must be among them.

    Returns
    -------
    array of int64 (N,)

    Raises
    ------
    UserError
        If logits are NaN, shapes differ, or a target is outside the classes or not allowed.

    Examples
    --------
    >>> rank_of_true([[0.1, 0.9, 0.5], [1.0, 1.0, 1.0]], [2, 2])
    array([1, 2])
    >>> rank_of_true([[0.1, 0.9, 0.5]], [2], allowed=[0, 2])
    array([0])
    """
    values, wanted = _checked(logits), np.asarray(targets)
    rows, classes = values.shape
    if wanted.shape != (rows,) or not np.issubdtype(wanted.dtype, np.integer):
        raise UserError(f"targets of shape {wanted.shape} and type {wanted.dtype}: pass ({rows},) integers")
    competes = np.zeros(classes, bool)
    competes[_indices(allowed, classes)] = True
    outside = np.flatnonzero((wanted < 0) | (wanted >= classes))
    if outside.size:
        raise UserError(f"target {wanted[outside[0]]} of row {outside[0]} is outside the {classes} classes")
    barred = np.flatnonzero(~competes[wanted])
    if barred.size:
        raise UserError(f"target {wanted[barred[0]]} of row {barred[0]} is not among the allowed classes")
    own = np.take_along_axis(values, wanted[:, None], axis=1)  # (N, 1)
    earlier = np.arange(classes)[None, :] < wanted[:, None]  # (N, C)
    ahead = ((values > own) | ((values == own) & earlier)) & competes  # (N, C)
    return ahead.sum(axis=1, dtype=np.int64)


def top_classes(logits: ArrayLike, k: int = 5, allowed: ArrayLike | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Find the k best classes of each row, best first, and their probabilities among the allowed classes.

    Equal logits stand in the order of their index, as in `rank_of_true`.

    Parameters
    ----------
    logits : array of float (N, C)
    k : int
        At most; fewer come where fewer are allowed.
    allowed : array of int, optional
        Logits that compete; the softmax runs over these alone.

    Returns
    -------
    indices : array of int64 (N, k)
        Indices of logits.
    probabilities : array of float64 (N, k)
        In [0, 1].

    Examples
    --------
    >>> indices, probabilities = top_classes([[0.0, 2.0, 2.0, 5.0]], k=3)
    >>> indices
    array([[3, 1, 2]])
    """
    values = _checked(logits)
    competing = np.sort(_indices(allowed, values.shape[1]))
    values = values[:, competing]  # (N, allowed)
    weights = np.exp(values - values.max(axis=1, keepdims=True))  # (N, allowed)
    order = np.argsort(-values, axis=1, kind="stable")[:, :k]  # (N, k)
    probabilities = np.take_along_axis(weights / weights.sum(axis=1, keepdims=True), order, axis=1)  # (N, k)
    return competing[order], probabilities


def _checked(logits: ArrayLike) -> np.ndarray:
    values = np.asarray(logits, np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise UserError(f"logits of shape {values.shape}: pass (images, classes)")
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise UserError(f"the logits of row {bad[0]} are not finite: check the weights and the image's normalization")
    return values


def _indices(allowed: ArrayLike | None, classes: int) -> np.ndarray:
    if allowed is None:
        return np.arange(classes, dtype=np.int64)
    indices = np.unique(np.asarray(allowed)).astype(np.int64)
    if indices.size == 0 or indices[0] < 0 or indices[-1] >= classes:
        raise UserError(f"allowed classes {indices.tolist()[:5]} are not among the {classes} logits")
    return indices
