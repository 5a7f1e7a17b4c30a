"""What is differentiated, or watched: scores of a class that follow from the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from wsol.errors import UserError

__all__ = ["SCORES", "check_score", "log_prob", "logit", "prob", "rest"]


def logit(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return y_c, before the softmax: what Grad-CAM and most others differentiate.

    Parameters
    ----------
    logits : tensor (B, C)
    targets : int64 tensor (B,)

    Returns
    -------
    tensor (B,)

    Examples
    --------
    >>> logit(torch.tensor([[1.0, 3.0]]), torch.tensor([1]))
    tensor([3.])
    """
    return logits.gather(1, targets[:, None])[:, 0]


def log_prob(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return log p_c = y_c − log Σ_j exp(y_j), after the softmax: it also falls when other classes rise.

    Parameters
    ----------
    logits : tensor (B, C)
    targets : int64 tensor (B,)

    Returns
    -------
    tensor (B,)

    Examples
    --------
    >>> log_prob(torch.zeros(1, 4), torch.tensor([1])).exp()
    tensor([0.2500])
    """
    return logit(logits.log_softmax(1), targets)


def prob(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """p_c, the softmax itself: what RISE and occlusion watch.

    Parameters
    ----------
    logits : tensor (B, C)
    targets : int64 tensor (B,)

    Returns
    -------
    tensor (B,), in [0, 1]

    Examples
    --------
    >>> prob(torch.zeros(1, 4), torch.tensor([1]))
    tensor([0.2500])
    """
    return log_prob(logits, targets).exp()


def rest(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return y_c + log p_c, the residual softmax target-class score of ShapleyCAM.

    Parameters
    ----------
    logits : tensor (B, C)
    targets : int64 tensor (B,)

    Returns
    -------
    tensor (B,)

    References
    ----------
    Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025, section on the ReST utility function.

    Examples
    --------
    >>> rest(torch.zeros(1, 1), torch.tensor([0]))
    tensor([0.])
    """
    return logit(logits, targets) + log_prob(logits, targets)


SCORES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "logit": logit,
    "log_prob": log_prob,
    "prob": prob,
    "rest": rest,
}


def check_score(score: str) -> str:
    """Hand a score's name back. Raises `UserError` if there is none of that name."""
    if score not in SCORES:
        raise UserError(f"score={score!r}: pass one of {', '.join(SCORES)}")
    return score
