"""Optimizer, schedule and mixed precision of one stage."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim import lr_scheduler

from wsol.errors import UserError
from wsol.training.progress_file import Standing
from wsol.training.recipe import Recipe

__all__ = ["Tools", "make_tools"]

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Tools:
    """What turns a loss into a step."""

    optimizer: torch.optim.Optimizer
    schedule: lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: str

    def autocast(self) -> AbstractContextManager[None]:
        """Mixed precision, where the recipe asks for it."""
        return torch.autocast(self.device.type, PRECISIONS[self.precision], enabled=self.precision != "fp32")

    def step(self, loss: torch.Tensor) -> None:
        """Go one step down the gradient, and one along the schedule."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()

    def remember(self, standing: Standing) -> None:
        """Put the states into the standing, to be saved."""
        standing.optimizer = self.optimizer.state_dict()
        standing.schedule = self.schedule.state_dict()
        standing.scaler = self.scaler.state_dict()


def make_tools(module: nn.Module, recipe: Recipe, images: int, device: torch.device, standing: Standing) -> Tools:
    """Build a stage's tools, in the state that the standing remembers, if it does.

    Raises
    ------
    UserError
        If half precision is asked for without a GPU.
    """
    if recipe.precision == "fp16" and device.type != "cuda":
        raise UserError("training.precision=fp16 needs a GPU; use bf16 or fp32 here")
    # Batches of a single image are dropped, because batch normalization can't train on them.
    steps = max(images // recipe.batch_size + (images % recipe.batch_size > 1), 1)
    optimizer = _optimizer(module, recipe)
    schedule = _schedule(optimizer, recipe, steps)
    tools = Tools(
        optimizer,
        schedule,
        torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16"),
        device,
        recipe.precision,
    )
    if standing.optimizer is not None and standing.schedule is not None and standing.scaler is not None:
        optimizer.load_state_dict(standing.optimizer)
        schedule.load_state_dict(standing.schedule)
        tools.scaler.load_state_dict(standing.scaler)
    return tools


def _optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    trained = [p for p in module.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, recipe.lr, recipe.momentum, nesterov=recipe.momentum > 0)
    return torch.optim.AdamW(groups, recipe.lr)


def _schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> lr_scheduler.LRScheduler:
    if recipe.schedule == "onecycle":
        return lr_scheduler.OneCycleLR(
            optimizer, recipe.lr, total_steps=steps * recipe.epochs + 1, pct_start=recipe.warmup
        )
    if recipe.schedule == "step":
        return lr_scheduler.StepLR(optimizer, steps * recipe.step_epochs, recipe.gamma)
    return lr_scheduler.ConstantLR(optimizer, 1.0)
