"""Gradients averaged over changed copies of the image: with noise on it, or on the way to it from a plain one."""

from __future__ import annotations

import torch

from wsol.heatmaps.gradient import plusplus_weights, weighted
from wsol.heatmaps.recording import Recording

__all__ = ["integratedgradients", "smoothgrad", "smoothgradcampp"]


def smoothgrad(recording: Recording, samples: int = 50, noise: float = 0.15) -> torch.Tensor:
    """SmoothGrad: S = max over colors of |(1/N) Σ_n ∂y_c/∂X (X + η_n)|, η_n ~ N(0, σ²).

    Parameters
    ----------
    recording : Recording
    samples : int
        N; each costs a forward and a backward pass. All images get the same draws.
    noise : float
        σ as a fraction of the range of the image's own values, max X − min X.

    Returns
    -------
    tensor (B, H, W), at the size of the image, not negative

    Raises
    ------
    UserError
        If `samples` is below 1.

    References
    ----------
    Smilkov, Thorat, Kim, Viégas, Wattenberg, "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, 2017,
    which finds noise of 10 to 20 % and 50 samples enough.

    Examples
    --------
    >>> from wsol import HeatmapExtractor, heatmaps
    >>> from wsol.models import gapnet
    >>> methods = {"smoothgrad": heatmaps.make_method("smoothgrad", samples=3)}
    >>> with HeatmapExtractor(gapnet(10), methods) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["smoothgrad"].shape
    torch.Size([2, 96, 96])
    """
    total = torch.zeros_like(recording.images, dtype=recording.dtype)
    for image, version in recording.versions(samples):
        total.index_add_(0, image, recording.input_gradients(_noisy(recording, image, version, noise), image))
    return total.abs().amax(1) / samples


def integratedgradients(
    recording: Recording, steps: int = 50, baseline: float = 0.0, absolute: bool = False
) -> torch.Tensor:
    """Integrated gradients: the sum over colors of (X − X') ∘ ∫₀¹ ∂y_c/∂X (X' + t (X − X')) dt.

    The integral is taken at midpoints t = (i + ½)/N, which come closer than the right ends of the paper's sum. All
    pixels together make up y_c(X) − y_c(X').

    Parameters
    ----------
    recording : Recording
    steps : int
        N; each costs a forward and a backward pass.
    baseline : float
        X', as the network sees it: 0 is the mean color of the training data once images are normalized, not black.
    absolute : bool
        Take the size of each pixel's sum: what speaks against the class then counts as much as what speaks for it.

    Returns
    -------
    tensor (B, H, W), at the size of the image

    Raises
    ------
    UserError
        If `steps` is below 1.

    References
    ----------
    Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017, the definition of integrated
    gradients and its approximation by a sum.

    Examples
    --------
    >>> from wsol import HeatmapExtractor, heatmaps
    >>> from wsol.models import gapnet
    >>> methods = {"ig": heatmaps.make_method("integratedgradients", steps=8)}
    >>> with HeatmapExtractor(gapnet(10), methods) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["ig"].shape
    torch.Size([2, 96, 96])
    """
    way = recording.images - baseline
    total = torch.zeros_like(way, dtype=recording.dtype)
    for image, version in recording.versions(steps):
        t = ((version + 0.5) / steps).to(way)[:, None, None, None]
        total.index_add_(0, image, recording.input_gradients(baseline + t * way[image], image))
    found = (way * total).sum(1) / steps
    return found.abs() if absolute else found


def smoothgradcampp(recording: Recording, samples: int = 10, noise: float = 0.15) -> torch.Tensor:
    """Smooth Grad-CAM++: Grad-CAM++ whose derivatives are means over noisy copies of the image.

    L = ReLU(Σ_k w_k A_k), w_k = Σ_ij α_kij ReLU(D₁), α = D₂ / (2 D₂ + S D₃) with D_p = (1/N) Σ_n G_n^p, the powers
    that the derivatives of exp(y_c) are, and A and its sums S those of the image itself. The paper prints D₁ in the
    numerator of α, where Grad-CAM++, which it smooths, has D₂.

    Parameters
    ----------
    recording : Recording
    samples : int
        N; each costs a forward and a backward pass. All images get the same draws.
    noise : float
        Standard deviation as a fraction of the range of the image's own values, max X − min X; with 0 this is
        Grad-CAM++.

    Returns
    -------
    tensor (B, h, w), not negative

    Raises
    ------
    UserError
        If `samples` is below 1.

    References
    ----------
    Omeiza, Speakman, Cintas, Weldemariam, "Smooth Grad-CAM++: An Enhanced Inference Level Visualization Technique for
    Deep Convolutional Neural Network Models", arXiv 1908.01224, 2019, the definition of its weights.

    Examples
    --------
    >>> from wsol import HeatmapExtractor, heatmaps
    >>> from wsol.models import gapnet
    >>> methods = {"smooth": heatmaps.make_method("smoothgradcampp", samples=3)}
    >>> with HeatmapExtractor(gapnet(10), methods) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["smooth"].shape
    torch.Size([2, 12, 12])
    """
    # Third powers of gradients of 1e-13 are 0 in float32.
    activations = recording.activations.double()
    first, second, third = (torch.zeros_like(activations) for _ in range(3))
    for image, version in recording.versions(samples):
        gradients = recording.again(_noisy(recording, image, version, noise), image).gradients.double()
        for power, mean in enumerate((first, second, third), 1):
            mean.index_add_(0, image, gradients**power / samples)
    return weighted(plusplus_weights(activations, first, second, third), activations)


def _noisy(recording: Recording, image: torch.Tensor, version: torch.Tensor, noise: float) -> torch.Tensor:
    """Versions (N, 3, H, W) of images with noise of a fraction of their range."""
    clean = recording.images[image]
    spread = clean.amax((1, 2, 3), keepdim=True) - clean.amin((1, 2, 3), keepdim=True)
    return clean + noise * spread * recording.noise(version, tuple(clean.shape[1:]))
