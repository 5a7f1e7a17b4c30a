"""The first principal component of a map's channels, plain and with a kernel."""

from __future__ import annotations

import torch

from wsol.errors import UserError

__all__ = ["first_component", "first_kernel_component"]


def first_component(maps: torch.Tensor, like: torch.Tensor, center: bool = True) -> torch.Tensor:
    """Project maps on the first right singular vector of their h·w × K matrix.

    Of the two Gram matrices the smaller is decomposed, in float64.

    Parameters
    ----------
    maps : tensor (B, K, h, w)
    like : tensor (B, h, w)
        What the sign is chosen by: the sum of its products with the result is not negative. Where that sum is 0 but for
        rounding, what sticks out farther is positive: the sum of third powers is not negative.
    center : bool
        Take the mean over space off every channel first.

    Returns
    -------
    tensor (B, h, w)

    Examples
    --------
    >>> maps = torch.stack([torch.eye(2), torch.zeros(2, 2)])[None]
    >>> first_component(maps, maps.mean(1), center=False)
    tensor([[[1., 0.],
             [0., 1.]]])
    """
    rows = maps.flatten(2).transpose(1, 2).double()  # (B, h*w, K)
    if center:
        rows = rows - rows.mean(1, keepdim=True)
    if rows.shape[1] <= rows.shape[2]:
        values, vectors = torch.linalg.eigh(rows @ rows.transpose(1, 2))  # ascending
        projected = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        _, vectors = torch.linalg.eigh(rows.transpose(1, 2) @ rows)
        projected = (rows @ vectors[:, :, -1:])[:, :, 0]
    return _signed(projected, like, rows).to(maps.dtype)


def first_kernel_component(
    maps: torch.Tensor, like: torch.Tensor, kernel: str = "sigmoid", gamma: float | None = None
) -> torch.Tensor:
    """Project maps on the first principal component in a kernel's feature space.

    Parameters
    ----------
    maps : tensor (B, K, h, w)
    like : tensor (B, h, w)
        What the sign is chosen by, as in `first_component`.
    kernel : "sigmoid", "rbf" or "linear"
    gamma : float, optional
        Above 0; by default 1 / K.

    Returns
    -------
    tensor (B, h, w)

    Raises
    ------
    UserError
        If the kernel is unknown, or gamma is not above 0.

    References
    ----------
    Schölkopf, Smola, Müller, "Nonlinear Component Analysis as a Kernel Eigenvalue Problem", Neural Computation 1998.

    Examples
    --------
    >>> maps = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    >>> plain = first_component(maps, maps.mean(1))
    >>> bool(torch.allclose(first_kernel_component(maps, maps.mean(1), "linear"), plain, atol=1e-6))
    True
    """
    if gamma is not None and not gamma > 0:
        raise UserError(f"gamma={gamma}: pass a number above 0; null: 1 / channels")
    rows = maps.flatten(2).transpose(1, 2).double()  # (B, h*w, K)
    rows = rows - rows.mean(1, keepdim=True)
    gamma = 1 / rows.shape[2] if gamma is None else gamma
    products = rows @ rows.transpose(1, 2)  # (B, h*w, h*w)
    if kernel == "sigmoid":
        matrix = torch.tanh(gamma * products + 1)
    elif kernel == "rbf":
        squares = products.diagonal(dim1=1, dim2=2)
        matrix = torch.exp(-gamma * (squares[:, :, None] + squares[:, None] - 2 * products))
    elif kernel == "linear":
        matrix = products
    else:
        raise UserError(f"kernel={kernel!r}: pass sigmoid, rbf or linear")
    matrix = matrix - matrix.mean(1, keepdim=True)
    matrix = matrix - matrix.mean(2, keepdim=True)
    values, vectors = torch.linalg.eigh(matrix)  # ascending
    projected = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    return _signed(projected, like, rows).to(maps.dtype)


def _signed(projected: torch.Tensor, like: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Turn the arbitrary sign of each row (B, h*w) so that it goes with `like` (B, h, w); rows: (B, h*w, K)."""
    agreement = (projected * like.flatten(1).double()).sum(1, keepdim=True)
    # The channels of layer-normalized tokens have a mean of 0: rounding must not choose the sign.
    nothing = agreement.abs() <= 1e-7 * projected.norm(dim=1, keepdim=True) * rows.flatten(1).norm(dim=1, keepdim=True)
    agreement = torch.where(nothing, (projected**3).sum(1, keepdim=True), agreement)
    return torch.where(agreement < 0, -projected, projected).reshape(like.shape)
