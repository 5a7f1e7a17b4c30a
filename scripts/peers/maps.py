"""Raw heatmaps of a network: ours, grad-cam's and torchcam's, at the layer's resolution and not normalized."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torchvision import models

from scripts.peers.networks import Case
from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.heatmaps.transformer import attention_blocks

SEED = 7  # of torchcam's noise

Maps = Callable[[Case], torch.Tensor]  # (B, h, w)


def ours(name: str | Callable[..., torch.Tensor], **options: Any) -> Maps:
    """Maps of one of our methods, or of a function of our recording."""
    method = make_method(name, **options)

    def run(case: Case) -> torch.Tensor:
        with HeatmapExtractor(case.model, {"it": method}, case.layer) as extractor:
            return extractor(case.images, case.targets).maps["it"]

    return run


def token_grid(case: Case) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What both libraries call a reshape transform: tokens (B, 1 + h*w, K) → (B, K, h, w)."""
    if not isinstance(case.model, models.VisionTransformer):
        return None
    rows = case.images.shape[2] // case.model.patch_size
    return lambda tokens: tokens[:, 1:].unflatten(1, (rows, -1)).permute(0, 3, 1, 2)


def of_grad_cam(name: str, score: Callable[[int], Callable[[torch.Tensor], torch.Tensor]] | None = None) -> Maps:
    """Maps of grad-cam, caught before they are clipped at 0, enlarged and normalized."""

    def run(case: Case) -> torch.Tensor:
        import pytorch_grad_cam
        from pytorch_grad_cam.ablation_layer import AblationLayerVit
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        caught: list[np.ndarray] = []
        layer, make = case.model.get_submodule(case.layer), score or ClassifierOutputTarget
        own = {"ablation_layer": AblationLayerVit()} if name == "AblationCAM" and token_grid(case) else {}
        cam = getattr(pytorch_grad_cam, name)(case.model, [layer], reshape_transform=token_grid(case), **own)
        base = getattr(cam, "base_cam", cam)
        get, recorder = base.get_cam_image, base.activations_and_grads

        def keep(*given: Any) -> np.ndarray:
            caught.append(get(*given))
            return caught[-1]

        base.get_cam_image = keep
        try:
            if name == "FinerCAM":  # it finds its targets by itself, one class for all images
                for image, target in zip(case.images, case.targets, strict=True):
                    cam(image[None], target_idx=int(target))
            else:
                cam(case.images, [make(int(target)) for target in case.targets])
        finally:
            recorder.activations, recorder.gradients = [], []  # its own release fails on views
            recorder.release()
            case.model.zero_grad()
        return torch.from_numpy(np.concatenate(caught))

    return run


def fullgrad_of_grad_cam(gain: float) -> Maps:
    """FullGrad of grad-cam, of the score times a number; it is never at a layer's resolution."""

    def run(case: Case) -> torch.Tensor:
        from pytorch_grad_cam import FullGrad

        targets = [lambda logits, c=int(target): gain * logits[c] for target in case.targets]
        with FullGrad(case.model, []) as cam:
            found = cam(case.images.clone(), targets)
        case.model.zero_grad()
        return torch.from_numpy(found)

    return run


def guided_of_grad_cam(case: Case) -> torch.Tensor:
    """Guided backpropagation of grad-cam, one image at a time; it exchanges the network's ReLUs, hence the copy."""
    from pytorch_grad_cam import GuidedBackpropReLUModel

    found = []
    for image, target in zip(case.images, case.targets, strict=True):
        guided = GuidedBackpropReLUModel(copy.deepcopy(case.model), "cpu")
        found.append(np.abs(guided(image[None].clone(), int(target))).max(2))
    return torch.from_numpy(np.stack(found))


def of_torchcam(name: str, **options: Any) -> Maps:
    """Raw maps of torchcam."""

    def run(case: Case) -> torch.Tensor:
        from torchcam import methods

        torch.manual_seed(SEED)
        own = dict(options) if name == "LeGrad" else dict(options, reshape_transform=token_grid(case))
        layer: str | list[str] = list(attention_blocks(case.model)) if name == "LeGrad" else case.layer
        targets = case.targets.tolist()
        with getattr(methods, name)(case.model, layer, **own) as cam:
            logits = case.model(case.images)
            (found,) = cam(targets, logits, normalized=False)
        case.model.zero_grad()
        return found.detach()

    return run
