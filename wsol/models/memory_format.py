"""Channels-last memory, for networks that run in it."""

from __future__ import annotations

import torch
from torch import nn

from wsol.models.frozen import frozen

__all__ = ["prefer_channels_last", "wants_own_memory"]


def wants_own_memory(error: RuntimeError) -> bool:
    """Tell whether a network failed because its maps lay in channels-last memory: `x.view(len(x), -1)` can't read it.

    Examples
    --------
    >>> maps = torch.rand(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    >>> try:
    ...     maps.view(2, -1)
    ... except RuntimeError as error:
    ...     wants_own_memory(error)
    True
    """
    return "view size is not compatible" in str(error)


def prefer_channels_last(model: nn.Module, size: tuple[int, int], device: torch.device) -> None:
    """Bring a network into channels-last memory, which convolutions like best, and back if it doesn't run there.

    Parameters
    ----------
    model : nn.Module
    size : (height, width)
        Of its images in pixels.
    device : torch.device
        Where it is.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    >>> prefer_channels_last(model, (8, 8), torch.device("cpu"))
    >>> model[0].weight.is_contiguous(memory_format=torch.channels_last)
    True
    """
    model.to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    try:
        with frozen(model), torch.no_grad():
            model(images)
    except RuntimeError as error:  # any other one comes again, where there is more to say about it
        if wants_own_memory(error):
            model.to(memory_format=torch.contiguous_format)
