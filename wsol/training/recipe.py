"""How one stage of training goes, as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.training.augment import AUGMENTATIONS

__all__ = ["Recipe", "Stage"]

CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("onecycle", "step", "constant"),
    "precision": ("fp32", "bf16", "fp16"),
}
HIGHEST = {"lr": 100, "momentum": 1, "label_smoothing": 1, "weight_decay": 100, "warmup": 1, "gamma": 1}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Cross entropy and everything around it.

    Parameters
    ----------
    epochs, batch_size : int
    optimizer : "adamw" or "sgd"
        SGD with Nesterov momentum.
    lr : float
        The highest learning rate.
    momentum, weight_decay, label_smoothing : float
        Momentum is SGD's under the step and constant schedules; one cycle moves it, and AdamW's first β, between 0.95
        and 0.85. Weight decay spares biases and normalization.
    schedule : "onecycle", "step" or "constant"
        One cycle rises for `warmup` of the steps and falls as a cosine; step multiplies by `gamma` every
        `step_epochs` epochs.
    precision : "fp32", "bf16" or "fp16"
        Mixed precision by autocast; fp16 needs a GPU.
    augment : sequence of str
        See `wsol.training.augment`.
    input_size : (height, width), optional
        By default the classifier's.
    freeze : sequence of str
        Dotted names of layers whose weights and statistics stay as they are: less to calculate.

    Raises
    ------
    UserError
        If a value is out of range or unknown.

    Examples
    --------
    >>> Recipe(epochs=3, lr=0.1, optimizer="sgd").schedule
    'onecycle'
    """

    epochs: int = 12
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 2e-3
    momentum: float = 0.9
    weight_decay: float = 0.05
    label_smoothing: float = 0.0
    schedule: str = "onecycle"
    warmup: float = 0.2
    step_epochs: int = 10
    gamma: float = 0.1
    precision: str = "fp32"
    augment: tuple[str, ...] = ("crop", "flip")
    input_size: tuple[int, int] | None = None
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("augment", "freeze"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value or ()))
        if self.input_size is not None:
            object.__setattr__(self, "input_size", _two_sides(self.input_size))
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"training.{name}={getattr(self, name)}: there are {', '.join(known)}")
        for kind in self.augment:
            if kind not in AUGMENTATIONS:
                raise UserError(f"training.augment: unknown {kind!r}; there are {', '.join(AUGMENTATIONS)}")
        for name in ("epochs", "batch_size", "step_epochs"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise UserError(f"training.{name}={getattr(self, name)}: pass a whole number from 1")
        for name, highest in HIGHEST.items():
            if not isinstance(getattr(self, name), int | float) or not 0 <= getattr(self, name) <= highest:
                raise UserError(f"training.{name}={getattr(self, name)}: pass a number in [0, {highest:g}]")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the fields, for configurations."""
        return tuple(field.name for field in fields(cls))


def _two_sides(value: Any) -> tuple[int, int]:
    sides = tuple(value) if isinstance(value, Sequence) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise UserError(f"training.input_size={value}: pass two whole numbers from 1, [height, width]")
    return sides


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training: on what, validated on what, and how.

    Parameters
    ----------
    dataset : Dataset
        Labels only are used; boxes and masks are never looked at.
    recipe : Recipe
    validation : Dataset, optional
        Its classification accuracy decides which weights are the best; None: the last are.
    """

    dataset: Dataset
    recipe: Recipe
    validation: Dataset | None = None
