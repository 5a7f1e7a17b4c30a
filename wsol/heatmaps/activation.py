"""Methods of the activations alone: CAM, which needs the head's weights too, and those that ask for no class.

Each takes a `Recording` with the target layer's activations A (B, K, h, w), k a channel, and returns maps (B, h, w).
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from wsol.heatmaps.method import method
from wsol.heatmaps.recording import Recording


@method(needs="activations", score=None)
def cam(recording: Recording) -> torch.Tensor:
    """Class activation map: M_c(x, y) = Σ_k w_ck A_k(x, y), not clipped at 0; its mean plus the bias is the logit.

    Where a ReLU stands before the pooling, M_c plus the bias is the class's own channel before that ReLU. A network
    with a class map of its own (ACoL, SPG) gives that.
    Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016, eq. 1 and 2.
    """
    if class_map := recording.class_maps.get(recording.layer):
        return class_map(recording.layout.as_map(recording.output), recording.targets)
    weight = recording.head.of_class(recording.targets)  # (B, K)
    return torch.einsum("bk,bkhw->bhw", weight, recording.activations)


@method(needs="activations", score=None)
def eigencam(recording: Recording, center: bool = False) -> torch.Tensor:
    """Eigen-CAM: L = A v₁, A = U Σ Vᵀ as h·w rows of K channels; `center` takes each channel's mean off first.

    The sign of v₁ is arbitrary; it goes with the mean over channels of A, see `first_component`.
    Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020, eq. 2 and 3.
    """
    return first_component(recording.activations, recording.activations.mean(1), center)


@method(needs="activations", score=None)
def kpcacam(
    recording: Recording,
    kernel: Literal["sigmoid", "rbf", "linear"] = "sigmoid",
    gamma: Annotated[float, Field(gt=0)] | None = None,
) -> torch.Tensor:
    """KPCA-CAM: L = √λ₁ u₁ of the centered matrix that compares places by tanh(γ x·y + 1), exp(−γ |x − y|²) or x·y.

    x and y are rows of the h·w × K matrix of activations, their mean taken off; γ is 1 / K by default.
    Karmani et al., "KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA", MMSP 2024.
    """
    activations = recording.activations
    rows = activations.flatten(2).transpose(1, 2).double()  # (B, h*w, K)
    rows = rows - rows.mean(1, keepdim=True)
    gamma = 1 / rows.shape[2] if gamma is None else gamma
    matrix = rows @ rows.transpose(1, 2)  # (B, h*w, h*w)
    if kernel == "sigmoid":
        matrix = torch.tanh(gamma * matrix + 1)
    elif kernel == "rbf":
        squares = matrix.diagonal(dim1=1, dim2=2)
        matrix = torch.exp(-gamma * (squares[:, :, None] + squares[:, None] - 2 * matrix))
    matrix = matrix - matrix.mean(1, keepdim=True)
    matrix = matrix - matrix.mean(2, keepdim=True)
    return _signed(_largest(matrix), activations.mean(1), rows).to(activations.dtype)


@method(needs="activations", score=None)
def fem(recording: Recording, sigmas: float = 2.0) -> torch.Tensor:
    """Feature explanation method: L = Σ_k μ_k [A_k > μ_k + s σ_k], μ_k and σ_k of channel k over space.

    Fuad et al., "Features Understanding in 3D CNNs for Actions Recognition in Video", IPTA 2020.
    """
    activations = recording.activations
    mean = activations.mean((2, 3), keepdim=True)  # (B, K, 1, 1)
    rare = activations > mean + sigmas * activations.std((2, 3), correction=0, keepdim=True)
    return (mean * rare).sum(1)


def first_component(maps: torch.Tensor, like: torch.Tensor, center: bool = True) -> torch.Tensor:
    """Project maps (B, K, h, w) on the first right singular vector of their h·w × K matrix, in float64 → (B, h, w).

    The sign is the one that goes with `like` (B, h, w): the sum of the products of both is not negative.
    """
    rows = maps.flatten(2).transpose(1, 2).double()  # (B, h*w, K)
    if center:
        rows = rows - rows.mean(1, keepdim=True)
    if rows.shape[1] <= rows.shape[2]:  # of the two Gram matrices the smaller
        projected = _largest(rows @ rows.transpose(1, 2))
    else:
        _, vectors = torch.linalg.eigh(rows.transpose(1, 2) @ rows)
        projected = (rows @ vectors[:, :, -1:])[:, :, 0]
    return _signed(projected, like, rows).to(maps.dtype)


def _largest(matrix: torch.Tensor) -> torch.Tensor:
    """√λ₁ u₁ of symmetric matrices (B, N, N) → (B, N)."""
    values, vectors = torch.linalg.eigh(matrix)  # ascending
    return vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()


def _signed(projected: torch.Tensor, like: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Turn the arbitrary sign of each row (B, h*w) so that it goes with `like` (B, h, w); rows: (B, h*w, K)."""
    agreement = (projected * like.flatten(1).double()).sum(1, keepdim=True)
    # Layer-normalized tokens have a mean of 0 over channels: what sticks out farther is positive, rounding chooses not.
    nothing = agreement.abs() <= 1e-7 * projected.norm(dim=1, keepdim=True) * rows.flatten(1).norm(dim=1, keepdim=True)
    agreement = torch.where(nothing, (projected**3).sum(1, keepdim=True), agreement)
    return torch.where(agreement < 0, -projected, projected).reshape(like.shape)
