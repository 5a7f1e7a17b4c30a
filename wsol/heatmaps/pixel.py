"""Methods that follow the gradient of the class score down to the pixels: ∂y_c/∂X, X (B, 3, H, W) the image.

Each takes a `Recording` and returns maps (B, H, W) at the size of the image; a pixel's value is the largest absolute
one of its colors, or the sum where contributions add up to the score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wsol.errors import UserError
from wsol.heatmaps.gradient import gradcam
from wsol.heatmaps.method import Count, method
from wsol.heatmaps.recording import Recording
from wsol.heatmaps.replay import tolerances


@method(needs="images")
def saliency(recording: Recording) -> torch.Tensor:
    """Gradient saliency: S = max over colors of |∂y_c/∂X|.

    Simonyan et al., "Deep Inside Convolutional Networks: Visualising …", ICLR Workshops 2014, section 3.1.
    """
    images = recording.images
    gradients = [recording.input_gradients(images[image], image) for image, _ in recording.versions(1)]
    return torch.cat(gradients).abs().amax(1)


@method(needs="images")
def guidedbackprop(recording: Recording) -> torch.Tensor:
    """Guided backpropagation: saliency whose ReLUs hand back R = G · [G > 0] · [x > 0].

    Springenberg et al., "Striving for Simplicity: The All Convolutional Net", ICLR Workshops 2015.
    """
    with _relu_rule(recording.model, guided=True):
        return saliency(recording)


@method(needs="images")
def deconvnet(recording: Recording) -> torch.Tensor:
    """Deconvnet: saliency whose ReLUs hand back R = G · [G > 0], whatever went in.

    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 2.1.
    """
    with _relu_rule(recording.model, guided=False):
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

    Smilkov et al., "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, 2017.
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

    X' is `baseline` everywhere, as the network sees it: 0 is the mean color, not black. `absolute`: |…| of the sum.
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

    ψ takes absolute values, brings each channel to [0, 1] by its own minimum and maximum (`jointly`: its layer's) and
    enlarges it to the image (bilinear). Biases of linear layers have no place and are left out.
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

    What a linear layer adds has no place, also where it works on every place (ConvNeXt): (N, M). All values together
    are the logit, for convolutions, linear layers, batch normalizations, pooling and ReLUs.
    """
    with _Biases() as recorded_biases:
        pixels = recording.images[image].requires_grad_()
        logits = recording.run(pixels.clone(), graph=True)
    scores = recording.scores_of(logits, image)
    factors = [(pixels.detach(), True), *recorded_biases.biases]
    answer = logits.detach().requires_grad_()
    (weights,) = torch.autograd.grad(recording.scores_of(answer, image).sum(), answer)  # 1 and 0 if it is the logit
    places = [pixels, *recorded_biases.outputs]
    pairs = zip(factors, torch.autograd.grad(scores.sum(), places, materialize_grads=True), strict=True)
    placed_parts = [(factor.to(recording.dtype) * gradient, placed) for (factor, placed), gradient in pairs]
    parts = [part if placed else part.flatten(1) for part, placed in placed_parts]
    whole = torch.stack([part.flatten(1).sum(1) for part in parts]).sum(0)  # (N,)
    sizes = torch.stack([part.abs().flatten(1).sum(1) for part in parts]).sum(0)
    expected = (weights * answer).sum(1).detach()
    share, floor = tolerances(expected, recording.images)
    if bool(((whole - expected).abs() > share * expected.abs() + floor * sizes).any()):
        raise UserError(
            f"fullgrad takes the score apart, and the parts of this {type(recording.model).__name__} add up to "
            f"{float(whole[0]):.4g}, not {float(expected[0]):.4g}: it has layers that are not linear between ReLUs, "
            f"such as layer normalization, GELU or attention; use integratedgradients"
        )
    return parts


class _Biases(TorchFunctionMode):
    """Keeps what every linear layer, convolution and batch normalization yields, and what it adds to a linear map."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: list[torch.Tensor] = []
        self.biases: list[tuple[torch.Tensor, bool]] = []  # of each output, and whether it has a place

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        bias = _ADDED[func](*args, **(kwargs or {})) if func in _ADDED else None
        if bias is None or not output.requires_grad:
            return output
        placed = func is not functional.linear
        self.biases.append((bias.reshape(-1, *[1] * (output.ndim - 2)) if placed else bias, placed))
        self.outputs.append(output)
        return output.clone()  # an in-place ReLU behind it must not reach the output that is differentiated


_CONVOLUTIONS = [getattr(functional, f"conv{kind}") for kind in ("1d", "2d", "3d")]
_CONVOLUTIONS += [getattr(functional, f"conv_transpose{kind}") for kind in ("1d", "2d", "3d")]
# Each call's bias, of what it is given; a normalization's is what it makes of 0: β − μ γ / σ.
_ADDED: dict[Callable[..., Any], Callable[..., torch.Tensor | None]] = {
    **dict.fromkeys([*_CONVOLUTIONS, functional.linear], lambda input, weight, bias=None, *rest, **more: bias),
    functional.batch_norm: lambda input, *rest, **more: functional.batch_norm(
        input.new_zeros(1, input.shape[1]), *rest, **more
    ),
}


@contextmanager
def _relu_rule(model: nn.Module, guided: bool) -> Iterator[None]:
    """Let every ReLU that runs in this block hand back R = G · [G > 0] · [x > 0] (guided) or R = G · [G > 0]."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"layer {name} is a torch.jit script or trace, whose ReLUs run unseen: use saliency")
    with _Rule(guided) as rule:
        yield
    if not rule.count:
        raise UserError(
            f"guided backpropagation and deconvnet change what ReLUs hand back, and {type(model).__name__} runs none "
            f"between the pixels and the logits; use saliency, smoothgrad or integratedgradients"
        )


class _Rule(TorchFunctionMode):
    """Changes what each ReLU that is called hands back, functional and in-place ones too, and counts them."""

    def __init__(self, guided: bool) -> None:
        super().__init__()
        self.guided, self.count = guided, 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if getattr(func, "__name__", "").strip("_") not in _SPELLINGS:
            return func(*args, **kwargs)
        x, *limits = args or (kwargs.pop("input"),)
        by_tensors = any(isinstance(limit, torch.Tensor) for limit in (*limits, *kwargs.values()))
        if by_tensors or not (x.requires_grad and torch.is_grad_enabled()):
            return func(x, *limits, **kwargs)
        below = torch.tensor(-1.0)
        rectified = func(below, *limits, **kwargs)  # 0 of a ReLU, and -1 itself if it works in place
        if rectified != 0:
            return func(x, *limits, **kwargs)
        self.count += 1
        if self.guided:  # [x > 0] is what a ReLU multiplies with itself
            output = func(x, *limits, **kwargs)
            output.register_hook(_positive)
            return output
        in_place = rectified is below
        output = _Deconvolved.apply(x, func(x.detach().clone() if in_place else x.detach(), *limits, **kwargs))
        return x.copy_(output) if in_place else output


# Also of functions that are ReLUs with some limits only, such as clamp(min=0) and what nn.ReLU6 calls.
_SPELLINGS = ("relu", "relu6", "threshold", "hardtanh", "clamp", "clip", "clamp_min")


class _Deconvolved(torch.autograd.Function):
    """A ReLU's output, with a backward pass that doesn't look at what went in."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, rectified: torch.Tensor) -> torch.Tensor:
        return rectified

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _positive(gradients[0]), None


def _positive(gradient: torch.Tensor) -> torch.Tensor:
    return gradient.clamp(min=0)
