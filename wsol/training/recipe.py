"""How one stage of training goes: a recipe as data; the augmentation, optimizer and schedule that it asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import nn
from torch.optim import lr_scheduler
from torchvision.transforms.v2 import functional

from wsol.datasets.sample import Dataset
from wsol.datasets.views import CROP_SHARE, apply_view
from wsol.errors import UserError
from wsol.models.reference import is_slow
from wsol.settings import settings

Augmentation = Literal["crop", "window", "shift", "flip", "turn", "color"]


def augment(
    image: np.ndarray, kinds: Collection[Augmentation], input_size: tuple[int, int], interpolation: str,
    generator: np.random.Generator,
) -> torch.Tensor:  # fmt: skip
    """Change an image uint8 (H, W, 3) at random and bring it to the input size: uint8 (height, width, 3)."""
    if "crop" in kinds:
        image = _random_part(image, generator)
    height, width = (round(side / CROP_SHARE) if "window" in kinds else side for side in input_size)
    pixels = apply_view(image, "squash", (height, width), interpolation)[0].permute(2, 0, 1)  # (3, h, w)
    if "window" in kinds:
        top, left = (int(generator.integers(pixels.shape[axis + 1] - input_size[axis] + 1)) for axis in (0, 1))
        pixels = functional.crop(pixels, top, left, *input_size)
    if "shift" in kinds:
        pixels = _shift(pixels, generator)
    if "flip" in kinds and generator.random() < 0.5:
        pixels = pixels.flip(2)
    if "turn" in kinds and input_size[0] == input_size[1]:
        pixels = torch.rot90(pixels, int(generator.integers(4)), (1, 2))
    if "color" in kinds:
        for adjust in (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation):
            pixels = adjust(pixels, generator.uniform(0.7, 1.3))
    return pixels.permute(1, 2, 0).contiguous()


def _random_part(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    for _ in range(10):
        area = generator.uniform(0.35, 1.0) * height * width
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        rows, columns = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < rows <= height and 0 < columns <= width:
            top, left = generator.integers(height - rows + 1), generator.integers(width - columns + 1)
            return np.ascontiguousarray(image[top : top + rows, left : left + columns])
    return image


def _shift(pixels: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
    _, height, width = pixels.shape
    down, across = height // 8, width // 8
    padded = functional.pad(pixels, [across, down], padding_mode="reflect")
    top, left = int(generator.integers(2 * down + 1)), int(generator.integers(2 * across + 1))
    return padded[:, top : top + height, left : left + width]


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=100)]
OneOrMore = BeforeValidator(lambda value: (value,) if isinstance(value, str) else tuple(value or ()))
Pairs = BeforeValidator(lambda value: tuple(value.items()) if isinstance(value, Mapping) else tuple(value or ()))
PARTS = ("optimizer", "schedule", "scaler")
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@settings
class Recipe:
    """Cross entropy and everything around it; a value that is out of range or unknown raises a `UserError`.

    Weight decay spares biases and normalization. Choe et al.'s code ("choe2020") has it on everything, and ten times
    the learning rate for what follows the trunk; of ResNets, oddly, for the last stage and fc, but not for the heads of
    ACoL and SPG. One cycle rises for `warmup` of the steps and falls as a cosine; step multiplies by `gamma` every
    `step_epochs` epochs, the first time `step_offset` epochs earlier.

    Examples
    --------
    >>> Recipe(epochs=3, lr=0.1, optimizer="sgd").schedule
    'onecycle'
    """

    epochs: Count = 12
    batch_size: Count = 128
    optimizer: Literal["adamw", "sgd"] = "adamw"  # SGD with Nesterov momentum
    lr: Amount = 2e-3  # the highest
    momentum: Share = 0.9  # SGD's; one cycle moves it, and AdamW's first β, between 0.95 and 0.85
    weight_decay: Amount = 0.05
    groups: Literal["default", "choe2020"] = "default"
    lr_factors: Annotated[tuple[tuple[str, float], ...], Pairs] = ()  # the first pattern found in a parameter's name
    label_smoothing: Share = 0.0
    schedule: Literal["onecycle", "step", "constant"] = "onecycle"
    warmup: Share = 0.2
    step_epochs: Count = 10
    step_offset: Annotated[int, Field(ge=0)] = 0
    gamma: Share = 0.1
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # mixed by autocast; fp16 needs a GPU
    sync_bn: bool = False  # on several GPUs normalize over all of them; otherwise each its own share of a batch
    augment: Annotated[tuple[Augmentation, ...], OneOrMore] = ("crop", "flip")  # "window": cut from 8/7 of the size
    input_size: tuple[Count, Count] | None = None  # height, width; by default the classifier's
    freeze: Annotated[tuple[str, ...], OneOrMore] = ()  # layers whose weights and statistics stay as they are
    localize_every: Annotated[int, Field(ge=0)] = 0  # epochs, on the stage's held-out images; 0: never
    best: Literal["classification", "localization"] = "classification"  # by accuracy, or MaxBoxAccV2 of those images


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training: on what, validated on what, and how."""

    dataset: Dataset  # labels only are used; boxes and masks are never looked at
    recipe: Recipe
    validation: Dataset | None = None  # its classification accuracy decides on the best weights; None: the last are
    localization: Dataset | None = None  # what `localize_every` localizes on: not the test set's, nor trained on


class Optimization:
    """Optimizer, schedule and mixed precision of one stage: what turns a loss into a step."""

    def __init__(
        self, module: nn.Module, recipe: Recipe, num_images: int, device: torch.device, world: int = 1
    ) -> None:
        if recipe.precision == "fp16" and device.type != "cuda":
            raise UserError("training.precision=fp16 needs a GPU; use bf16 or fp32 here")
        steps = max(-(-whole_batches(num_images, recipe.batch_size, world) // recipe.batch_size), 1)
        self.precision, self.device = PRECISIONS[recipe.precision], device
        self.optimizer = _optimizer(module, recipe)
        self.schedule = _schedule(self.optimizer, recipe, steps)
        self.scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")

    @property
    def lr(self) -> float:
        """Learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision, where the recipe asks for it."""
        return torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32)

    def step(self, loss: torch.Tensor) -> None:
        """Go one step down the gradient, and one along the schedule."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed training needs, by part."""
        return {name: getattr(self, name).state_dict() for name in PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        for name in PARTS:
            getattr(self, name).load_state_dict(state[name])


def whole_batches(count: int, batch_size: int, world: int = 1) -> int:
    """How many images of an epoch are trained on: no last batch of one (for normalization), or fewer than processes."""
    rest = count % batch_size
    return count - rest if rest < max(2, world) and count > batch_size else count


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {(1.0, True): [], (1.0, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            factor = next((factor for pattern, factor in recipe.lr_factors if re.search(pattern, name)), 1.0)
            if recipe.groups == "choe2020" and not is_slow(name, module):
                factor *= 10
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    decay = {True: recipe.weight_decay, False: 0.0 if recipe.groups == "default" else recipe.weight_decay}
    parts = [{"params": each, "lr": recipe.lr * factor, "weight_decay": decay[large]}
             for (factor, large), each in groups.items()]  # fmt: skip
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parts, recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(parts, recipe.lr)


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> lr_scheduler.LRScheduler:
    """A schedule that goes on with every step; `steps` of them are an epoch."""
    if recipe.schedule == "onecycle":
        total = steps * recipe.epochs + 1
        highest = [group["lr"] for group in optimizer.param_groups]
        return lr_scheduler.OneCycleLR(optimizer, highest, total_steps=total, pct_start=recipe.warmup)
    if recipe.schedule == "step":
        schedule = lr_scheduler.StepLR(optimizer, steps * recipe.step_epochs, recipe.gamma)
        schedule.last_epoch = steps * recipe.step_offset  # as if so much were behind it
        return schedule
    return lr_scheduler.ConstantLR(optimizer, 1.0)
