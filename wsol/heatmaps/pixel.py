"""Methods that follow the gradient of the class score down to the pixels: ∂y_c/∂X, X (B, 3, H, W) the image.

Each takes a `Recording` and returns maps (B, H, W) at the size of the image; a pixel's value is the largest absolute
one of its colors, or the sum where contributions add up to the score.
"""

from __future__ import annotations

from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from wsol.heatmaps.gradient import gradcam
from wsol.heatmaps.method import method
from wsol.heatmaps.recording import Recording, gradients_at
from wsol.heatmaps.relu_rules import relu_rule

__all__ = [
    "deconvnet", "full_gradients", "fullgrad", "guidedbackprop", "guidedgradcam", "integratedgradients", "saliency",
    "smoothgrad",
]  # fmt: skip

Count = Annotated[int, Field(ge=1)]
_BIASED = (nn.modules.conv._ConvNd, nn.modules.batchnorm._BatchNorm, nn.Linear)


@method(needs="images")
def saliency(recording: Recording) -> torch.Tensor:
    """Gradient saliency: S = max over colors of |∂y_c/∂X|.

    Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification Models and
    Saliency Maps", ICLR Workshops 2014, section 3.1.
    """
    images = recording.images
    gradients = [recording.input_gradients(images[image], image) for image, _ in recording.versions(1)]
    return torch.cat(gradients).abs().amax(1)


@method(needs="images")
def guidedbackprop(recording: Recording) -> torch.Tensor:
    """Guided backpropagation: saliency whose ReLUs hand back R = G · [G > 0] · [x > 0], see `relu_rules`.

    Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR Workshops 2015, figure 1.
    """
    with relu_rule(recording.model, guided=True):
        return saliency(recording)


@method(needs="images")
def deconvnet(recording: Recording) -> torch.Tensor:
    """Deconvnet: saliency whose ReLUs hand back R = G · [G > 0], whatever went in, see `relu_rules`.

    Max-pooling hands back to where the maximum was, the paper's switches.
    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1.
    """
    with relu_rule(recording.model, guided=False):
        return saliency(recording)


@method(needs="gradients")
def guidedgradcam(recording: Recording) -> torch.Tensor:
    """Guided Grad-CAM: guided backpropagation times Grad-CAM enlarged to the image (bilinear).

    Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", ICCV 2017.
    """
    coarse = gradcam(recording)[:, None]  # (B, 1, h, w)
    return guidedbackprop(recording) * functional.interpolate(coarse, recording.images.shape[2:], mode="bilinear")[:, 0]


@method(needs="images")
def smoothgrad(recording: Recording, samples: Count = 50, noise: float = 0.15) -> torch.Tensor:
    """SmoothGrad: S = max over colors of |(1/N) Σ_n ∂y_c/∂X (X + η_n)|, η_n ~ N(0, σ²), σ = `noise` times X's range.

    Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, 2017, which finds noise of 10 to
    20 % and 50 samples enough.
    """
    total = torch.zeros_like(recording.images, dtype=recording.dtype)
    for image, version in recording.versions(samples):
        total.index_add_(0, image, recording.input_gradients(recording.noisy(image, version, noise), image))
    return total.abs().amax(1) / samples


@method(needs="images")
def integratedgradients(
    recording: Recording, steps: Count = 50, baseline: float = 0.0, absolute: bool = False
) -> torch.Tensor:
    """Integrated gradients: the sum over colors of (X − X') ∘ ∫₀¹ ∂y_c/∂X (X' + t (X − X')) dt, at midpoints of t.

    X' is `baseline` everywhere, as the network sees it: 0 is the mean color, not black. All pixels together make up
    y_c(X) − y_c(X'). With `absolute`, what speaks against the class counts as much as what speaks for it.
    Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.
    """
    difference = recording.images - baseline
    total = torch.zeros_like(difference, dtype=recording.dtype)
    for image, version in recording.versions(steps):
        t = ((version + 0.5) / steps).to(difference)[:, None, None, None]
        total.index_add_(0, image, recording.input_gradients(baseline + t * difference[image], image))
    contributions = (difference * total).sum(1) / steps
    return contributions.abs() if absolute else contributions


@method(needs="images")
def fullgrad(recording: Recording, jointly: bool = False) -> torch.Tensor:
    """FullGrad: S = Σ ψ(X ∘ ∂y_c/∂X) + Σ_l Σ_k ψ(b_k ∘ ∂y_c/∂b_k), sums over colors, and over layers and channels.

    ψ takes absolute values, brings each channel to [0, 1] by its own minimum and maximum (or those of its layer,
    `jointly`) and enlarges it to the image (bilinear). Biases of linear layers have no place and are left out.
    Srinivas and Fleuret, "Full-Gradient Representation for Neural Network Visualization", NeurIPS 2019.
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
    """Take the score of images (N,) apart: X ∘ ∂y_c/∂X (N, 3, H, W), then b ∘ ∂y_c/∂b (N, K, h, w) of each bias.

    What a linear layer contributes has no place, also where it works on every place (ConvNeXt): it comes as (N, M). All
    values together are the logit, for convolutions, linear layers, batch normalizations, pooling and ReLUs.
    """
    biases: list[torch.Tensor] = []
    outputs: list[torch.Tensor] = []
    placeless: list[bool] = [False]  # the image's part comes first

    def keep(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
        bias = _bias(module)
        if bias is None or not output.requires_grad:
            return output
        placeless.append(isinstance(module, nn.Linear))
        biases.append(bias if placeless[-1] else bias.reshape(-1, *[1] * (output.ndim - 2)))
        outputs.append(output)
        return output.clone()  # an in-place ReLU behind it must not reach the output that is differentiated

    hooks = [module.register_forward_hook(keep) for module in recording.model.modules() if isinstance(module, _BIASED)]
    try:
        pixels = recording.images[image].requires_grad_()
        scores = recording.scores_of(recording.run(pixels.clone(), graph=True), image)
    finally:
        for hook in hooks:
            hook.remove()
    gradients = gradients_at(scores, pixels, *outputs)
    factors = [pixels.detach(), *biases]
    parts = [factor.to(recording.dtype) * gradient for factor, gradient in zip(factors, gradients, strict=True)]
    return [part.flatten(1) if flat else part for part, flat in zip(parts, placeless, strict=True)]


def _bias(module: Any) -> torch.Tensor | None:
    """What a layer adds to what is linear in its input, (K,); None: nothing. Of a batch normalization β − μ γ / σ."""
    bias: torch.Tensor | None = module.bias
    normalizes = isinstance(module, nn.modules.batchnorm._BatchNorm)
    if not normalizes or module.running_mean is None:
        return bias
    scale = (module.running_var + module.eps).rsqrt() * (1 if module.weight is None else module.weight)
    return -module.running_mean * scale + (0 if bias is None else bias)
