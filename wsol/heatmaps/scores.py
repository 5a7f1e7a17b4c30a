"""What is differentiated, or watched: scores of a class that follow from the logits."""

from __future__ import annotations

from collections.abc import Callable

import torch

from wsol.errors import UserError

__all__ = ["SCORES", "down_to_pixels", "log_prob", "logit", "prob", "rest"]


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


def down_to_pixels(scores: torch.Tensor, pixels: torch.Tensor, *places: torch.Tensor) -> list[torch.Tensor]:
    """Differentiate scores (B,) with respect to the pixels, and to other places: 0 where these have no influence.

    Raises
    ------
    UserError
        If nothing leads from the scores to the pixels.

    Examples
    --------
    >>> pixels = torch.ones(1, 3, requires_grad=True)
    >>> down_to_pixels((pixels**2).sum(1), pixels)
    [tensor([[2., 2., 2.]])]
    """
    found = torch.autograd.grad(scores.sum(), (pixels, *places), allow_unused=True) if scores.requires_grad else (None,)
    if found[0] is None:
        raise UserError(
            "the logits have no gradient with respect to the pixels: does the network run, or begin, under "
            "torch.no_grad(), or detach what a layer hands on? Choose a method that looks at a layer behind that, "
            "such as gradcam"
        )
    zipped = zip((pixels, *places), found, strict=True)
    return [torch.zeros_like(place) if gradient is None else gradient for place, gradient in zipped]
