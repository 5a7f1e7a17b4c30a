"""Methods that follow the gradient of the class score down to the pixels, in one pass.

∂y_c/∂X has a value for each pixel and color (B, 3, H, W); a pixel's value is the largest absolute one of its colors.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from wsol.heatmaps.gradient import gradcam
from wsol.heatmaps.recording import Recording
from wsol.heatmaps.relu_rules import relu_rule

__all__ = ["deconvnet", "guidedbackprop", "guidedgradcam", "saliency"]


def saliency(recording: Recording) -> torch.Tensor:
    """Gradient saliency: S = max over colors of |∂y_c/∂X|.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, H, W), at the size of the image, not negative

    References
    ----------
    Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps", ICLR Workshops 2014, section 3.1 and, for the derivative, eq. 4.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("saliency",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["saliency"].shape
    torch.Size([2, 96, 96])
    """
    return _to_pixels(recording).abs().amax(1)


def guidedbackprop(recording: Recording) -> torch.Tensor:
    """Guided backpropagation: saliency whose ReLUs hand back R = G · [G > 0] · [x > 0].

    Functional and in-place ReLUs and ReLU6 follow the rule too, other activations don't, see `relu_rules`.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, H, W), at the size of the image, not negative

    Raises
    ------
    UserError
        If the network runs no ReLU.

    References
    ----------
    Springenberg, Dosovitskiy, Brox, Riedmiller, "Striving for Simplicity: The All Convolutional Net", ICLR Workshops
    2015, the figure that defines how signals are handed back.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("guidedbackprop",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["guidedbackprop"].shape
    torch.Size([2, 96, 96])
    """
    with relu_rule(recording.model, guided=True):
        return _to_pixels(recording).abs().amax(1)


def deconvnet(recording: Recording) -> torch.Tensor:
    """Deconvnet: saliency whose ReLUs hand back R = G · [G > 0], whatever went in.

    Max-pooling hands back to where the maximum was, the paper's switches. ReLUs are caught as in guided
    backpropagation.

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, H, W), at the size of the image, not negative

    Raises
    ------
    UserError
        If the network runs no ReLU.

    References
    ----------
    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("deconvnet",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["deconvnet"].shape
    torch.Size([2, 96, 96])
    """
    with relu_rule(recording.model, guided=False):
        return _to_pixels(recording).abs().amax(1)


def guidedgradcam(recording: Recording) -> torch.Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM enlarged to the image (bilinear).

    Parameters
    ----------
    recording : Recording

    Returns
    -------
    tensor (B, H, W), at the size of the image, not negative

    Raises
    ------
    UserError
        If the network runs no ReLU.

    References
    ----------
    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017,
    Guided Grad-CAM.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("guidedgradcam",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["guidedgradcam"].shape
    torch.Size([2, 96, 96])
    """
    coarse = gradcam(recording)[:, None]  # (B, 1, h, w)
    return guidedbackprop(recording) * functional.interpolate(coarse, recording.images.shape[2:], mode="bilinear")[:, 0]


def _to_pixels(recording: Recording) -> torch.Tensor:
    """∂y_c/∂X (B, 3, H, W)."""
    images = recording.images
    return torch.cat([recording.input_gradients(images[image], image) for image, _ in recording.versions(1)])
