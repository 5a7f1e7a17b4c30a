"""Methods that weigh activations by the gradients of the class score."""

from __future__ import annotations

import torch

from wsol.heatmaps.recording import Recording

__all__ = ["gradcam"]


def gradcam(recording: Recording) -> torch.Tensor:
    """Grad-CAM: L = ReLU(Σ_k α_k A_k) with α_k the mean over space of G_k = ∂y_c / ∂A_k.

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
    alpha = recording.gradients.mean((2, 3))  # (B, K)
    return torch.einsum("bk,bkhw->bhw", alpha, recording.activations).relu()
