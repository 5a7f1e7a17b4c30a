"""Methods that need activations and the head's weights, but no gradients."""

from __future__ import annotations

import torch

from wsol.heatmaps.principal import first_component, first_kernel_component
from wsol.heatmaps.recording import Recording

__all__ = ["cam", "eigencam", "fem", "kpcacam"]


def cam(recording: Recording) -> torch.Tensor:
    """Class activation map: M_c(x, y) = Σ_k w_ck A_k(x, y).

    Its mean over space plus the bias is the logit of class c. Where a ReLU stands before the pooling (SqueezeNet,
    Network in Network), M_c plus the bias is the class's own channel before that ReLU.

    Parameters
    ----------
    recording : Recording
        Of a layer followed by global average pooling and one linear layer, with a layer normalization in between
        where need be (ConvNeXt), or by a 1 × 1 convolution, ReLU and global average pooling.

    Returns
    -------
    tensor (B, h, w), not clipped at 0

    Raises
    ------
    UserError
        If the network has no such head.

    References
    ----------
    Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative Localization", CVPR 2016,
    equations 1 and 2.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("cam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96), targets=torch.tensor([3, 7]))
    >>> found.maps["cam"].shape
    torch.Size([2, 12, 12])
    """
    weight = recording.head.of_class(recording.targets)  # (B, K)
    return torch.einsum("bk,bkhw->bhw", weight, recording.activations)


def eigencam(recording: Recording, center: bool = False) -> torch.Tensor:
    """Eigen-CAM: the activations projected on their first singular direction, L = A v₁, whatever the class.

    A is taken as a matrix of h·w rows and K columns, A = U Σ Vᵀ. The sign of v₁ is arbitrary; here Σ L · (mean over
    channels of A) is not negative, or Σ L³ where that is 0 (layer-normalized tokens).

    Parameters
    ----------
    recording : Recording
    center : bool
        Take the mean over space off every channel first, which makes v₁ the first principal component.

    Returns
    -------
    tensor (B, h, w)

    References
    ----------
    Muhammad and Yeasin, "Eigen-CAM: Class Activation Map using Principal Components", IJCNN 2020, eq. 2 and 3.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("eigencam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["eigencam"].mean((1, 2)) >= 0).all())
    True
    """
    activations = recording.activations
    return first_component(activations, activations.mean(1), center)


def kpcacam(recording: Recording, kernel: str = "sigmoid", gamma: float | None = None) -> torch.Tensor:
    """KPCA-CAM: Eigen-CAM with a kernel, L = √λ₁ u₁ of the centered kernel matrix between places.

    The rows of the h·w × K matrix of activations, their mean taken off, are compared by tanh(γ x·y + 1) ("sigmoid"),
    exp(−γ |x − y|²) ("rbf") or x·y ("linear"). The sign is chosen as for Eigen-CAM.

    Parameters
    ----------
    recording : Recording
    kernel : "sigmoid", "rbf" or "linear"
    gamma : float, optional
        Above 0; by default 1 / K.

    Returns
    -------
    tensor (B, h, w), of mean 0

    Raises
    ------
    UserError
        If the kernel is unknown, or gamma is not above 0.

    References
    ----------
    Karmani et al., "KPCA-CAM: Visual Explainability of Deep Computer Vision Models using Kernel PCA", MMSP 2024,
    the definition of KPCA-CAM.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("kpcacam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool(found.maps["kpcacam"].mean((1, 2)).abs().max() < 1e-5)
    True
    """
    activations = recording.activations
    return first_kernel_component(activations, activations.mean(1), kernel, gamma)


def fem(recording: Recording, sigmas: float = 2.0) -> torch.Tensor:
    """Feature explanation method: L = Σ_k μ_k [A_k > μ_k + s σ_k], whatever the class.

    μ_k and σ_k are the mean and the standard deviation of channel k over space.

    Parameters
    ----------
    recording : Recording
    sigmas : float
        s: how far above its mean an activation is rare.

    Returns
    -------
    tensor (B, h, w)

    References
    ----------
    Fuad, Martin, Giot, Bourqui, Benois-Pineau, Zemmari, "Features Understanding in 3D CNNs for Actions Recognition in
    Video", IPTA 2020, the definition of FEM.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("fem",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> bool((found.maps["fem"] >= 0).all())
    True
    """
    activations = recording.activations
    mean = activations.mean((2, 3), keepdim=True)  # (B, K, 1, 1)
    rare = activations > mean + sigmas * activations.std((2, 3), correction=0, keepdim=True)
    return (mean * rare).sum(1)
