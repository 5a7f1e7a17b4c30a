"""Methods that weigh activations by the gradients of the class score.

A (B, K, h, w) are the layer's activations, G = ∂y_c / ∂A the gradients of the score of class c, k a channel and
(i, j) a place.
"""

from __future__ import annotations

import torch

from wsol.errors import UserError
from wsol.heatmaps.principal import first_component
from wsol.heatmaps.recording import Recording
from wsol.heatmaps.scores import logit

__all__ = [
    "eigengradcam", "finercam", "gradcam", "gradcamelementwise", "gradcampp", "hirescam", "layercam", "shapleycam",
    "xgradcam",
]  # fmt: skip


def gradcam(recording: Recording) -> torch.Tensor:
    """Grad-CAM: L = ReLU(Σ_k α_k A_k) with α_k the mean over space of G_k.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
    eq. 1 and 2.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("gradcam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["gradcam"] >= 0).all())
    True
    """
    return weighted(recording.gradients.mean((2, 3)), recording.activations)


def gradcampp(recording: Recording) -> torch.Tensor:
    """Grad-CAM++: L = ReLU(Σ_k w_k A_k) with w_k = Σ_ij α_kij ReLU(G_kij).

    α_kij = G²_kij / (2 G²_kij + S_k G³_kij), S_k the sum of A_k over space, and 0 where G is 0: the score is exp(y_c),
    whose derivatives are powers of G for a network with ReLUs; the factor exp(y_c) itself is left out, as it changes
    a map's scale only.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Chattopadhay, Sarkar, Howlader, Balasubramanian, "Grad-CAM++: Generalized Gradient-based Visual Explanations for
    Deep Convolutional Networks", WACV 2018, eq. 5, 19 and 20 as numbered in arXiv 1710.11063.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("gradcampp",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["gradcampp"].shape
    torch.Size([2, 12, 12])
    """
    activations, gradients = recording.activations, recording.gradients
    return weighted(plusplus_weights(activations, gradients), activations)


def plusplus_weights(
    activations: torch.Tensor,
    first: torch.Tensor,
    second: torch.Tensor | None = None,
    third: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return w_k = Σ_ij α_kij ReLU(G_kij) (B, K) of Grad-CAM++, α = D₂ / (2 D₂ + S D₃); by default D₂ = G², D₃ = G³.

    Equations 5 and 10 of the paper, 19 by default (numbered as in arXiv 1710.11063).
    """
    # α is a ratio of powers: cancelling G² first keeps gradients of 1e-20 from vanishing.
    total = activations.sum((2, 3), keepdim=True)  # (B, K, 1, 1)
    if second is None or third is None:
        numerator, denominator = (first != 0).to(first.dtype), 2 + total * first
    else:
        numerator, denominator = second, 2 * second + total * third
    alpha = numerator / torch.where(denominator == 0, 1, denominator)
    return (alpha * first.relu()).sum((2, 3))


def gradcamelementwise(recording: Recording) -> torch.Tensor:
    """Element-wise Grad-CAM: L = Σ_k ReLU(G_k ∘ A_k).

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Gildenblat, "PyTorch library for CAM methods", 2021, which names it; after Pillai and Pirsiavash, "Explainable
    Models with Consistent Interpretations", AAAI 2021, who leave the mean of the gradients out of Grad-CAM.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("gradcamelementwise",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["gradcamelementwise"] >= 0).all())
    True
    """
    return (recording.gradients * recording.activations).relu().sum(1)


def xgradcam(recording: Recording) -> torch.Tensor:
    """XGrad-CAM: L = ReLU(Σ_k w_k A_k) with w_k = Σ_ij A_kij G_kij / Σ_ij A_kij; 0 where a channel sums to 0.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Fu, Hu, Dong, Guo, Gao, Li, "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs", BMVC
    2020, eq. 7 and 8.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("gradcam", "xgradcam")) as extractor:
    ...     maps = extractor(torch.rand(2, 3, 96, 96)).maps
    >>> bool(torch.allclose(maps["gradcam"], maps["xgradcam"], atol=1e-6))
    True
    """
    activations = recording.activations
    total = activations.sum((2, 3))  # (B, K)
    weights = (activations * recording.gradients).sum((2, 3)) / torch.where(total == 0, 1, total)
    return weighted(weights, activations)


def hirescam(recording: Recording) -> torch.Tensor:
    """HiResCAM: L = ReLU(Σ_k G_k ∘ A_k): only places that raise the score are shown.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Draelos and Carin, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks",
    arXiv 2011.08891, 2020, the definition of HiResCAM; the ReLU as in Grad-CAM.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("hirescam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["hirescam"] >= 0).all())
    True
    """
    return _sum_of_products(recording.gradients, recording.activations).relu()


def layercam(recording: Recording) -> torch.Tensor:
    """LayerCAM: L = ReLU(Σ_k ReLU(G_k) ∘ A_k), good at earlier layers; for several layers fused, see `fuse`.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Jiang, Zhang, Hou, Cheng, Wei, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization", IEEE TIP
    2021, eq. 6 to 8.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("layercam",), layer="features.8") as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["layercam"] >= 0).all())
    True
    """
    return _sum_of_products(recording.gradients.relu(), recording.activations).relu()


def eigengradcam(recording: Recording) -> torch.Tensor:
    """EigenGrad-CAM: G ∘ A projected on its first principal component.

    The products, h·w rows and K columns, have their mean over space taken off. The sign is the one that goes with
    HiResCAM's Σ_k G_k ∘ A_k.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), of mean 0

    References
    ----------
    Gildenblat, "PyTorch library for CAM methods", 2021, which names it; Eigen-CAM (Muhammad and Yeasin, IJCNN 2020)
    with gradients.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("eigengradcam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["eigengradcam"].shape
    torch.Size([2, 12, 12])
    """
    products = recording.gradients * recording.activations
    return first_component(products, products.sum(1))


def finercam(recording: Recording, gamma: float = 0.6, references: int = 3) -> torch.Tensor:
    """Finer-CAM: Grad-CAM of y_c − γ · mean_d y_d over the classes d whose logits are nearest to y_c.

    Parameters
    ----------
    recording : Recording
    gamma : float
        Strength of the comparison; 0 gives Grad-CAM.
    references : int
        Number of classes to compare with; fewer where the network has fewer others; 0 gives Grad-CAM.

    Returns
    -------
    tensor (B, h, w), not negative

    Raises
    ------
    UserError
        If `references` is below 0.

    References
    ----------
    Zhang, Gu, Chowdhury, Mai, Carlyn, Berger-Wolf, Su, Chao, "Finer-CAM: Spotting the Difference Reveals Finer Details
    for Visual Explanation", CVPR 2025, eq. 5 and 8.

    Examples
    --------
    >>> from wsol import HeatmapExtractor, heatmaps
    >>> from wsol.models import gapnet
    >>> methods = {"finer": heatmaps.make_method("finercam", gamma=0.9)}
    >>> with HeatmapExtractor(gapnet(10), methods) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["finer"].shape
    torch.Size([2, 12, 12])
    """
    if references < 0:
        raise UserError(f"references={references}: pass how many classes to compare with, 0 or more")

    def difference(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        own = logit(logits, targets)
        away = (logits - own[:, None]).detach().abs().scatter(1, targets[:, None], torch.inf)
        nearest = away.topk(min(references, logits.shape[1] - 1), 1, largest=False).indices
        return own - gamma * logits.gather(1, nearest).mean(1) if nearest.shape[1] else own

    return weighted(recording.gradients_of(difference).mean((2, 3)), recording.activations)


def shapleycam(recording: Recording) -> torch.Tensor:
    """ShapleyCAM: L = ReLU(Σ_k w_k A_k) with w_k the mean over space of (G − ½ H·A)_k.

    H is the matrix of second derivatives of the score with respect to A: a second-order estimate of what each channel
    adds to the score. Its score is `rest`, y_c + log p_c, unless another is asked for; where pooling and one linear
    layer follow, H is 0 for the logit, and this is Grad-CAM.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, h, w), not negative

    References
    ----------
    Cai, "CAMs as Shapley Value-based Explainers", The Visual Computer 2025 (arXiv 2501.06261), the
    definition of ShapleyCAM.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("shapleycam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["shapleycam"] >= 0).all())
    True
    """
    weights = recording.gradients - 0.5 * recording.curvature()
    return weighted(weights.mean((2, 3)), recording.activations)


def weighted(weights: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    """ReLU(Σ_k w_k A_k): weights (B, K), activations (B, K, h, w) → (B, h, w)."""
    return torch.einsum("bk,bkhw->bhw", weights, activations).relu()


def _sum_of_products(weights: torch.Tensor, activations: torch.Tensor) -> torch.Tensor:
    """Σ_k w_k ∘ A_k: both (B, K, h, w) → (B, h, w)."""
    return (weights * activations).sum(1)
