"""Methods that need activations and the head's weights, but no gradients."""

from __future__ import annotations

import torch

from wsol.heatmaps.recording import Recording

__all__ = ["cam"]


def cam(recording: Recording) -> torch.Tensor:
    """Class activation map: M_c(x, y) = Σ_k w_ck A_k(x, y).

    Its mean over space plus the bias is the logit of class c.

    Parameters
    ----------
    recording : Recording
        Of a layer followed by global average pooling and one linear layer.

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
    eq. 2.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("cam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96), targets=torch.tensor([3, 7]))
    >>> found.maps["cam"].shape
    torch.Size([2, 12, 12])
    """
    weight = recording.head.weight[recording.targets].to(recording.activations.dtype)  # (B, K)
    return torch.einsum("bk,bkhw->bhw", weight, recording.activations)
