"""Methods that weigh activations by the gradients of the class score.

Each takes a `Recording` with the target layer's activations A (B, K, h, w) and the gradients G = ∂y_c / ∂A of the
score of class c, k a channel and (i, j) a place, and returns maps (B, h, w), clipped at 0 where it says ReLU. With
`eigen` the sum over channels is their first principal component instead, which smooths (Gildenblat, "PyTorch library
for CAM methods", 2021).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field

from wsol.errors import UserError
from wsol.heatmaps.activation import first_component
from wsol.heatmaps.method import Count, method
from wsol.heatmaps.recording import Recording, logit


@method(needs="gradients")
def gradcam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """Grad-CAM: L = ReLU(Σ_k α_k A_k) with α_k the mean over space of G_k.

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based …", ICCV 2017, eq. 1 and 2.
    """
    return weighted(recording.gradients.mean((2, 3)), recording.activations, eigen)


@method(needs="gradients")
def gradcampp(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """Grad-CAM++: L = ReLU(Σ_k w_k A_k), w_k = Σ_ij α_kij ReLU(G_kij), α_kij = G²_kij / (2 G²_kij + S_k G³_kij).

    S_k is the sum of A_k over space; the score is exp(y_c), whose derivatives are powers of G for a network with ReLUs.
    Chattopadhay et al., "Grad-CAM++: Generalized …", WACV 2018, eq. 5, 19 and 20 as numbered in arXiv 1710.11063.
    """
    activations, gradients = recording.activations, recording.gradients
    return weighted(_plusplus_weights(activations, gradients), activations, eigen)


@method(needs="activations")
def smoothgradcampp(recording: Recording, samples: Count = 10, noise: float = 0.15) -> torch.Tensor:
    """Smooth Grad-CAM++: Grad-CAM++ with α = D₂ / (2 D₂ + S D₃), w_k = Σ_ij α_kij ReLU(D₁), D_p = (1/N) Σ_n G_n^p.

    G_n belongs to the image with noise whose σ is `noise` times its range; A and S to the image itself.
    Omeiza et al., "Smooth Grad-CAM++", arXiv 1908.01224, 2019, which prints D₁ where α has Grad-CAM++'s numerator D₂.
    """
    # Third powers of gradients of 1e-13 are 0 in float32.
    activations = recording.activations.double()
    first, second, third = (torch.zeros_like(activations) for _ in range(3))
    for image, version in recording.versions(samples):
        gradients = recording.rerecord(recording.noisy(image, version, noise), image).gradients.double()
        for power, mean in enumerate((first, second, third), 1):
            mean.index_add_(0, image, gradients**power / samples)
    return weighted(_plusplus_weights(activations, first, second, third), activations)


@method(needs="gradients")
def gradcamelementwise(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """Element-wise Grad-CAM: L = Σ_k ReLU(G_k ∘ A_k).

    Gildenblat, "PyTorch library for CAM methods", 2021; after Pillai and Pirsiavash, "Explainable Models …", AAAI 2021.
    """
    return combined((recording.gradients * recording.activations).relu(), eigen)


@method(needs="gradients")
def xgradcam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """XGrad-CAM: L = ReLU(Σ_k w_k A_k) with w_k = Σ_ij A_kij G_kij / Σ_ij A_kij; 0 where a channel sums to 0.

    Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation …", BMVC 2020, eq. 7 and 8.
    """
    activations = recording.activations
    total = activations.sum((2, 3))  # (B, K)
    weights = (activations * recording.gradients).sum((2, 3)) / torch.where(total == 0, 1, total)
    return weighted(weights, activations, eigen)


@method(needs="gradients")
def hirescam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """HiResCAM: L = ReLU(Σ_k G_k ∘ A_k): only places that raise the score are shown.

    Draelos and Carin, "Use HiResCAM instead of Grad-CAM …", arXiv 2011.08891, 2020; the ReLU as in Grad-CAM.
    """
    return combined(recording.gradients * recording.activations, eigen)


@method(needs="gradients")
def layercam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """LayerCAM: L = ReLU(Σ_k ReLU(G_k) ∘ A_k), good at earlier layers too; for several layers as one map, see `fuse`.

    Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP 2021, eq. 6 to 8.
    """
    return combined(recording.gradients.relu() * recording.activations, eigen)


@method(needs="gradients")
def eigengradcam(recording: Recording) -> torch.Tensor:
    """EigenGrad-CAM: G ∘ A projected on its first principal component; the sign goes with HiResCAM's Σ_k G_k ∘ A_k.

    Gildenblat, "PyTorch library for CAM methods", 2021; Eigen-CAM (Muhammad and Yeasin, IJCNN 2020) with gradients.
    """
    products = recording.gradients * recording.activations
    return first_component(products, products.sum(1))


@method(needs="gradients")
def segeigencam(recording: Recording) -> torch.Tensor:
    """Seg-Eigen-CAM: |G| ∘ A projected on its first principal component; what sticks out farthest is positive.

    Made for segmentation, whose score is a function of its own: `HeatmapExtractor(…, score=…)`.
    Chung and Ying, "Seg-Eigen-CAM: Eigen-Value-Based Visual Explanations …", Applied Sciences 2025, eq. 10 to 13.
    """
    parts = recording.gradients.abs() * recording.activations
    projected = first_component(parts, parts.sum(1))
    lowest, highest = (edge(projected, (1, 2), keepdim=True) for edge in (torch.amin, torch.amax))
    return torch.where(-lowest > highest, -projected, projected)


@method(needs="gradients", score=None)
def finercam(
    recording: Recording,
    gamma: float = 0.6,
    references: Annotated[int, Field(ge=0)] | tuple[Annotated[int, Field(ge=0)], ...] = 3,
    base: Literal["gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam"] = "gradcam",
) -> torch.Tensor:
    """Finer-CAM: the `base` method's map of y_c − γ · mean_d y_d over references d, other classes.

    They are those whose logits are nearest to y_c, so many of them, or the ones listed.
    Zhang et al., "Finer-CAM: Spotting the Difference Reveals Finer Details …", CVPR 2025, eq. 5 and 8.
    """
    classes = recording.logits.shape[1]
    if not isinstance(references, int) and max(references, default=0) >= classes:
        raise UserError(f"finercam: references={list(references)}: the classes are 0 … {classes - 1}")

    def difference(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        target = logit(logits, targets)
        if isinstance(references, int):
            distance = (logits - target[:, None]).detach().abs().scatter(1, targets[:, None], torch.inf)
            nearest = distance.topk(min(references, classes - 1), 1, largest=False).indices
            return target - gamma * logits.gather(1, nearest).mean(1) if nearest.shape[1] else target
        chosen = torch.zeros_like(logits, dtype=torch.bool)
        chosen[:, list(references)] = True
        chosen.scatter_(1, targets[:, None], False)
        return target - gamma * (logits * chosen).sum(1) / chosen.sum(1).clamp(min=1)

    return FINER_BASES[base](replace(recording, score=difference))  # type: ignore[arg-type]


@method(needs="curvature", score="rest")
def shapleycam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """ShapleyCAM: L = ReLU(Σ_k w_k A_k) with w_k the mean over space of (G − ½ H·A)_k, H the second derivatives.

    Of y_c + log p_c: where pooling and one linear layer follow, the logit's H is 0, and this would be Grad-CAM.
    Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025 (arXiv 2501.06261).
    """
    weights = recording.gradients - 0.5 * recording.curvature()
    return weighted(weights.mean((2, 3)), recording.activations, eigen)


def weighted(weights: torch.Tensor, activations: torch.Tensor, eigen: bool = False) -> torch.Tensor:
    """ReLU(Σ_k w_k A_k): weights (B, K), activations (B, K, h, w) → (B, h, w)."""
    if eigen:
        return combined(weights[:, :, None, None] * activations, eigen)
    return torch.einsum("bk,bkhw->bhw", weights, activations).relu()


def combined(parts: torch.Tensor, eigen: bool = False) -> torch.Tensor:
    """ReLU of what channels (B, K, h, w) add up to, or of their first principal component → (B, h, w)."""
    total = parts.sum(1)
    return (first_component(parts, total) if eigen else total).relu()


def _plusplus_weights(activations: torch.Tensor, first: torch.Tensor, *higher: torch.Tensor) -> torch.Tensor:
    """w_k = Σ_ij α_kij ReLU(D₁) (B, K), α = D₂ / (2 D₂ + S D₃), of derivatives (B, K, h, w); by default D_p = Gᵖ."""
    # α is a ratio of powers: cancelling G² first keeps gradients of 1e-20 from vanishing.
    total = activations.sum((2, 3), keepdim=True)  # (B, K, 1, 1)
    numerator, denominator = (first != 0).to(first.dtype), 2 + total * first
    if higher:
        numerator, denominator = higher[0], 2 * higher[0] + total * higher[1]
    alpha = numerator / torch.where(denominator == 0, 1, denominator)
    return (alpha * first.relu()).sum((2, 3))


FINER_BASES = {f.__name__: f for f in (gradcam, gradcampp, gradcamelementwise, xgradcam, hirescam, layercam)}
