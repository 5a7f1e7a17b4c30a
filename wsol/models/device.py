"""Which device a run uses."""

from __future__ import annotations

import torch

from wsol.errors import UserError

__all__ = ["choose_device"]


def choose_device(name: str = "auto") -> torch.device:
    """Turn "auto", "cpu", "cuda", "cuda:1", "mps" into a device; auto takes a GPU where there is one.

    Raises
    ------
    UserError
        If the name is unknown or the device isn't there.

    Examples
    --------
    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"device={name} can't be used: {error}; pass device=cpu or device=auto") from error
    return device
