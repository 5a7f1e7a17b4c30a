"""Methods that change the image or the activations and watch the class score: they need no gradients.

X is the image as the network sees it, f its class score. Those that weigh channels watch the logit and return maps
(B, h, w), not negative; RISE and occlusion the probability, and maps (B, H, W) at the size of the image. What is
hidden becomes 0, the mean color of the training data once images are normalized. `eigen` is as in `gradient.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional

from wsol.errors import UserError
from wsol.heatmaps.gradient import weighted
from wsol.heatmaps.method import Count, method
from wsol.heatmaps.recording import Recording

Share = Annotated[float, Field(gt=0, le=1)]


@method(needs="activations")
def scorecam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """Score-CAM: L = ReLU(Σ_k α_k A_k), α the softmax over k of f(X ∘ H_k), H_k = A_k enlarged and brought to [0, 1].

    Wang et al., "Score-CAM: Score-Weighted Visual Explanations for CNNs", CVPR Workshops 2020, eq. 6 to 9, algorithm 1.
    """
    return _weighted_by_scores(recording, 1, lambda images, masks, _: images * masks, eigen)


@method(needs="activations")
def sscam(
    recording: Recording, samples: Count = 35, std: float = 2.0, smooth: Literal["mask", "image"] = "mask"
) -> torch.Tensor:
    """SS-CAM: Score-CAM with α the softmax over k of (1/N) Σ_n f(M_kn), M_kn = X ∘ (H_k + η_n), η_n ~ N(0, σ²).

    With smooth="image", SS-CAM(2) of the paper: M_kn = X ∘ H_k + η_n. All channels have the same draws.
    Wang et al., "SS-CAM: Smoothed Score-CAM for Sharper Visual Feature Localization", arXiv 2006.14255, 2020.
    """
    colors, *size = recording.images.shape[1:]

    def masked(images: torch.Tensor, masks: torch.Tensor, version: torch.Tensor) -> torch.Tensor:
        noise = std * recording.noise(version, (1 if smooth == "mask" else colors, *size))
        return images * (masks + noise) if smooth == "mask" else images * masks + noise

    return _weighted_by_scores(recording, samples, masked)


@method(needs="activations")
def iscam(recording: Recording, steps: Count = 10, cumulative: bool = False) -> torch.Tensor:
    """IS-CAM: Score-CAM with α the softmax over k of (1/N) Σ_i f(t_i H_k ∘ X), t_i = i/N, or Σ_{j≤i} j/N `cumulative`.

    Naidu et al., "IS-CAM: Integrated Score-CAM for axiomatic-based explanations", arXiv 2010.03023, 2020.
    """
    factors = torch.arange(1, steps + 1, device=recording.images.device, dtype=recording.dtype) / steps
    factors = factors.cumsum(0) if cumulative else factors

    def masked(images: torch.Tensor, masks: torch.Tensor, version: torch.Tensor) -> torch.Tensor:
        return images * (factors[version, None, None, None].to(masks) * masks)

    return _weighted_by_scores(recording, steps, masked)


@method(needs="activations")
def ablationcam(recording: Recording, eigen: bool = False) -> torch.Tensor:
    """Ablation-CAM: L = ReLU(Σ_k w_k A_k) with w_k = (f − f_k) / |f|, f_k the score when A_k is 0 everywhere.

    Only what stands behind the layer runs again. The paper divides by f; its size keeps the sign of what is added.
    Desai and Ramaswamy, "Ablation-CAM: Visual Explanations …", WACV 2020, eq. 3 and 4.
    """
    behind, activations, output = recording.replay(), recording.activations, recording.output
    full = recording.scores_of(recording.logits)  # (B,)
    without = full.new_empty(activations.shape[:2])  # (B, K)
    for image in range(len(output)):  # outermost: the replay keeps what one image needs
        for part in recording.chunks(activations.shape[1]):
            channel = torch.arange(part.start, part.stop, device=output.device)
            changed = output[image].expand(len(channel), *output.shape[1:]).clone()
            recording.layout.clear(changed, channel)
            without[image, part] = recording.scores_of(behind(changed, image), image)
    size = torch.where(full == 0, 1, full.abs())
    return weighted((full[:, None] - without) / size[:, None], activations, eigen)


@method(needs="images", score="prob")
def rise(recording: Recording, masks: Count = 4000, cells: Count = 7, keep: Share = 0.5) -> torch.Tensor:
    """RISE: S = 1 / (p N) Σ_n f(X ∘ M_n) M_n, M_n a grid of `cells` a side, each 1 with probability p = `keep`.

    It is enlarged (bilinear) by one cell more than the image has and cropped at random; all images share the masks.
    Petsiuk, Das, Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC 2018.
    """
    images = recording.images
    height, width = images.shape[2:]
    down, right = -(-height // cells), -(-width // cells)  # pixels a cell

    def mask(random: np.random.Generator) -> torch.Tensor:
        grid = torch.from_numpy(random.random((1, 1, cells, cells)) < keep).to(images.device, torch.float32)
        large = functional.interpolate(grid, ((cells + 1) * down, (cells + 1) * right), mode="bilinear")
        top, left = random.integers(0, (down, right))
        return large[0, :, top : top + height, left : left + width]

    scores = _scores(recording, masks, lambda image, version: images[image] * recording.drawn(version, mask))
    total = _covered(recording, scores, lambda version: recording.drawn(version, mask)[:, 0].to(scores))
    return total / (keep * masks)


@method(needs="images", score="prob")
def occlusion(recording: Recording, size: Share = 0.2, stride: Share = 0.1, value: float = 0.0) -> torch.Tensor:
    """Occlusion: the mean over the patches that cover a pixel of f(X) − f(X with the patch hidden by `value`).

    Patches have sides of `size`, `stride` apart, as fractions of the image's sides; the last one ends at the border.
    Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, section 4.2.
    """
    if stride > size:
        raise UserError(f"occlusion: stride={stride} leaves pixels between patches of size={size}: pass size or less")
    images = recording.images
    rows, columns = (_windows(length, size, stride).to(images.device) for length in images.shape[2:])

    def inside(version: torch.Tensor) -> torch.Tensor:
        down, right = rows[version // len(columns)], columns[version % len(columns)]
        return down[:, :, None] & right[:, None, :]  # (N, H, W)

    def hidden(image: torch.Tensor, version: torch.Tensor) -> torch.Tensor:
        return images[image].masked_fill(inside(version)[:, None], value)

    drop = recording.scores_of(recording.logits)[:, None] - _scores(recording, len(rows) * len(columns), hidden)
    total = _covered(recording, drop, lambda version: inside(version).to(drop))
    return total / (rows.sum(0)[:, None] * columns.sum(0))


def _weighted_by_scores(
    recording: Recording, count: int, mask: Callable[..., torch.Tensor], eigen: bool = False
) -> torch.Tensor:
    """ReLU(Σ_k α_k A_k), α the softmax over channels of the mean score of `count` versions of mask(X, H_k, version)."""
    images, activations = recording.images, recording.activations
    channels = activations.shape[1]

    def change(image: torch.Tensor, version: torch.Tensor) -> torch.Tensor:
        masks = _masks(activations[image, version % channels], images)
        return mask(images[image], masks, version // channels)

    scores = _scores(recording, count * channels, change).unflatten(1, (count, channels))
    return weighted(scores.mean(1).softmax(1), activations, eigen)


def _scores(recording: Recording, count: int, change: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Score `count` versions of every image, (B, count): change(image (N,), version (N,)) → (N, 3, H, W) makes them."""
    passes = ((image, recording.run(change(image, version))) for image, version in recording.versions(count))
    return torch.cat([recording.scores_of(logits, image) for image, logits in passes]).view(count, -1).T


def _covered(recording: Recording, values: torch.Tensor, cover: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Σ_n v_n M_n of values (B, N) and of covers M (N, H, W), made chunk by chunk → (B, H, W)."""
    height, width = recording.images.shape[2:]
    total = values.new_zeros(len(values), height, width)
    for version in torch.arange(values.shape[1], device=values.device).split(recording.chunk):
        total += torch.einsum("bn,nhw->bhw", values[:, version], cover(version))
    return total


def _masks(channels: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Enlarge channels (N, h, w) to the images' size and bring each to [0, 1], 0 where constant: (N, 1, H, W)."""
    masks = functional.interpolate(channels[:, None], images.shape[2:], mode="bilinear")
    low, high = masks.amin((2, 3), keepdim=True), masks.amax((2, 3), keepdim=True)
    return ((masks - low) / torch.where(high > low, high - low, 1)).to(images.dtype)


def _windows(length: int, size: float, stride: float) -> torch.Tensor:
    """Which places each window along one side covers: bool (windows, length)."""
    side, step = max(1, round(size * length)), max(1, round(stride * length))
    starts = torch.tensor([*range(0, length - side, step), length - side])
    place = torch.arange(length)
    return (place >= starts[:, None]) & (place < starts[:, None] + side)
