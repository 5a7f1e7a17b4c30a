"""FullGrad: the score taken apart, without a rest, into what the image and what each layer's bias contribute."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from wsol.heatmaps.recording import Recording
from wsol.heatmaps.scores import down_to_pixels
from wsol.models.layers import refuse_scripts

__all__ = ["full_gradients", "fullgrad"]


def fullgrad(recording: Recording, jointly: bool = False) -> torch.Tensor:
    """FullGrad: S = Σ ψ(X ∘ ∂y_c/∂X) + Σ_l Σ_k ψ(b_k ∘ ∂y_c/∂b_k), sums over colors, and over layers and channels.

    ψ takes absolute values, brings each channel to [0, 1] by its own minimum and maximum and enlarges it to the image
    (bilinear). Biases of linear layers have no place and are left out.

    Parameters
    ----------
    recording : Recording
    jointly : bool
        Bring the channels of a layer to [0, 1] together, so that strong channels stay stronger than weak ones.

    Returns
    -------
    tensor (B, H, W), at the size of the image, not negative

    References
    ----------
    Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019, the definition
    of FullGrad saliency for convolutional networks.

    Examples
    --------
    >>> from wsol import HeatmapExtractor
    >>> from wsol.models import gapnet
    >>> with HeatmapExtractor(gapnet(10), methods=("fullgrad",)) as extractor:
    ...     found = extractor(torch.rand(2, 3, 96, 96))
    >>> found.maps["fullgrad"].shape
    torch.Size([2, 96, 96])
    """
    size, over = recording.images.shape[2:], (1, 2, 3) if jointly else (2, 3)
    total = torch.zeros_like(recording.images[:, 0], dtype=recording.dtype)
    for image, _ in recording.versions(1):
        for part in full_gradients(recording, image):
            if part.ndim == 4:
                low, high = part.abs().amin(over, keepdim=True), part.abs().amax(over, keepdim=True)
                even = (part.abs() - low) / torch.where(high > low, high - low, 1)
                # Enlarging is linear: the channels are summed before, not after.
                total[image] += functional.interpolate(even.sum(1, keepdim=True), size, mode="bilinear")[:, 0]
    return total


def full_gradients(recording: Recording, image: torch.Tensor) -> list[torch.Tensor]:
    """Take the score apart: X ∘ ∂y_c/∂X (N, 3, H, W), then b ∘ ∂y_c/∂b (N, K, h, w) of each bias.

    What a linear layer contributes has no place, also where it works on every place (ConvNeXt): it comes as (N, M).
    A batch normalization counts with what it adds in evaluation, b = β − μ γ / σ. For a network of convolutions,
    linear layers, batch normalizations, pooling and ReLUs, all values together are the logit, to the last digit.

    Parameters
    ----------
    recording : Recording
    image : int64 tensor (N,)
        Which of its images.

    Raises
    ------
    UserError
        If the network has scripted parts, or the logits have no gradient with respect to the pixels.

    Examples
    --------
    >>> from wsol.heatmaps.recording import record
    >>> from wsol.models import gapnet
    >>> from wsol.models.frozen import frozen
    >>> model, images = gapnet(10).double(), torch.rand(1, 3, 32, 32).double()
    >>> with frozen(model):
    ...     recording = record(model, [], images, None).recording("", 0)
    ...     parts = full_gradients(recording, torch.tensor([0]))
    >>> float((sum(part.sum() for part in parts) - recording.logits.max()).abs().round(decimals=9))
    0.0
    """
    refuse_scripts(recording.model, "its biases can't be seen")
    kept: list[tuple[torch.Tensor, torch.Tensor]] = []  # bias, output
    linear: list[bool] = [False]  # the image's part comes first

    def keep(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        bias = _bias(module)
        if bias is None or not output.requires_grad:
            return output
        linear.append(isinstance(module, nn.Linear))
        kept.append((bias if linear[-1] else bias.reshape(-1, *[1] * (output.ndim - 2)), output))
        return output.clone()  # an in-place ReLU behind it must not reach the output that is differentiated

    hooks = [module.register_forward_hook(keep) for module in recording.model.modules() if isinstance(module, _BIASED)]
    try:
        shown = recording.images[image].requires_grad_()
        scores = recording.scores_of(recording.run(shown.clone(), graph=True), image)
    finally:
        for hook in hooks:
            hook.remove()
    factors, places = zip((shown.detach(), shown), *kept, strict=True)
    gradients = down_to_pixels(scores, *places)
    parts = [factor.to(recording.dtype) * gradient for factor, gradient in zip(factors, gradients, strict=True)]
    return [part.flatten(1) if placeless else part for part, placeless in zip(parts, linear, strict=True)]


_BIASED = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Linear)


def _bias(module: Any) -> torch.Tensor | None:
    """What a layer adds to what is linear in its input, (K,); None: nothing."""
    bias: torch.Tensor | None = module.bias
    normalizes = isinstance(module, nn.modules.batchnorm._BatchNorm)
    if not normalizes or module.running_mean is None:
        return bias
    scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
    return -module.running_mean * scale + (0 if bias is None else bias)
