"""What the libraries do otherwise than we, as functions of our recording: the proof that nothing else differs."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional

from scripts.peers.maps import SEED
from wsol.heatmaps import Recording
from wsol.heatmaps.gradient import weighted
from wsol.heatmaps.recording import logit


def plusplus_with_epsilon(recording: Recording) -> torch.Tensor:
    A, G = recording.activations, recording.gradients
    alpha = G**2 / (2 * G**2 + A.sum((2, 3), keepdim=True) * G**3 + 1e-6)
    return weighted((alpha * G.relu()).sum((2, 3)), A)


def plusplus_without_ratio(recording: Recording) -> torch.Tensor:
    A, G = recording.activations, recording.gradients
    return weighted((G**2 * G.relu()).sum((2, 3)), A)


def fem_by_share(recording: Recording) -> torch.Tensor:
    A = recording.activations
    threshold = A.mean((2, 3), keepdim=True) + 2 * A.std((2, 3), correction=0, keepdim=True)
    return ((threshold < A).to(A.dtype).mean((2, 3), keepdim=True) * A).sum(1).relu()


def finer_by_probability(recording: Recording) -> torch.Tensor:
    def difference(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        own = logit(logits, targets)[:, None]
        nearest = (logits - own).detach().abs().argsort(1)[:, 1:4]
        weights = logits.softmax(1).gather(1, nearest)
        return (weights * (own - logits.gather(1, nearest))).sum(1) / weights.sum(1)

    return weighted(recording.gradients_of(difference).mean((2, 3)), recording.activations)


def ablation_far_below(recording: Recording) -> torch.Tensor:
    """Channels set to 1e7 below the lowest activation, the n-th of a batch of 32 to n times that."""
    A, behind = recording.activations, recording.replay()
    raw, layout = recording.output, recording.layout
    channel_axis = -1 if layout.channels_last or layout.grid else 1
    full, without = recording.scores_of(recording.logits), A.new_empty(A.shape[:2])
    for image in range(len(A)):
        for channels in torch.arange(A.shape[1]).split(32):
            changed = raw[image].expand(len(channels), *raw.shape[1:]).clone()
            for n, channel in enumerate(channels.tolist()):
                changed.movedim(channel_axis, 1)[n, channel] = raw[image].min() - 1e7 * (n + 1)
            without[image, channels] = recording.scores_of(behind(changed, image), image)
    return weighted((full[:, None] - without) / full[:, None], A)


def bright(maps: torch.Tensor) -> torch.Tensor:
    """Bring channels (B, K, h, w) to [0, 1], each by its own minimum and maximum."""
    maps = maps - maps.amin((2, 3), keepdim=True)
    return maps / (maps.amax((2, 3), keepdim=True) + 1e-8)


def enlarged(recording: Recording, maps: torch.Tensor, corners: bool = False) -> torch.Tensor:
    """Enlarge channels (B, K, h, w) to the images' size."""
    return functional.interpolate(maps, recording.images.shape[2:], mode="bilinear", align_corners=corners)


def by_score(recording: Recording, *versions: torch.Tensor) -> torch.Tensor:
    """Score-CAM with these masks (B, K, H, W), the mean over versions of them."""
    images, scores = recording.images, torch.zeros_like(recording.activations[:, :, 0, 0])
    for masks in versions:
        for i in range(len(images)):
            parts = [recording.run(images[i] * part) for part in masks[i][:, None].split(32)]
            scores[i] += recording.scores_of(torch.cat(parts), i) / len(versions)
    return weighted(scores.softmax(1), recording.activations)


def score_corner_to_corner(recording: Recording) -> torch.Tensor:
    return by_score(recording, bright(enlarged(recording, recording.activations, corners=True)))


def score_bright_first(recording: Recording) -> torch.Tensor:
    return by_score(recording, enlarged(recording, bright(recording.activations)))


def integrated_bright_first(recording: Recording, steps: int) -> torch.Tensor:
    masks = enlarged(recording, bright(recording.activations))
    return by_score(recording, *(t * masks for t in np.cumsum(np.arange(1, steps + 1) / steps).tolist()))


def noisy_bright_first(recording: Recording, samples: int, std: float) -> torch.Tensor:
    """Noise of its own for each channel, drawn as torchcam draws it."""
    torch.manual_seed(SEED)
    masks = enlarged(recording, bright(recording.activations))
    return by_score(recording, *(masks + std * torch.randn(masks.shape) for _ in range(samples)))


def smooth_last_sample(recording: Recording, samples: int, std: float) -> torch.Tensor:
    """A and ReLU(G) of the last noisy image alone, ε of 1e-8, and Σ A G³ in the place of S Σ G³."""
    torch.manual_seed(SEED)
    numbers = torch.arange(len(recording.images))
    second = third = torch.zeros(())
    for _ in range(samples):
        last = recording.rerecord(recording.images + std * torch.randn(recording.images.shape), numbers)
        second, third = second + last.gradients**2 / samples, third + last.gradients**3 / samples
    below = 2 * second + (third * recording.activations).sum((2, 3), keepdim=True) + 1e-8
    return weighted((second / below * last.gradients.relu()).sum((2, 3)), last.activations)
