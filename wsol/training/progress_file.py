"""Where a training stands: what is kept between epochs, and taken up again after an interruption."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from wsol.errors import UserError
from wsol.io import atomic_write
from wsol.training.recipe import Recipe

__all__ = ["Standing"]


@dataclass
class Standing:
    """Epochs done, the best weights so far, and the optimizer as it was.

    Parameters
    ----------
    stage, epoch : int
        The next epoch to train (both from 0).
    history : list of dict
        A row per epoch that is done.
    best_top1 : float
        Validation accuracy of `best`; -1 before there is any.
    best : state dict or None
    optimizer, schedule, scaler : state dict or None
        As they were after the last epoch; None at the start.
    plan : list of dict
        The recipes, stage by stage.
    """

    stage: int = 0
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_top1: float = -1.0
    best: dict[str, torch.Tensor] | None = None
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    scaler: dict[str, Any] | None = None
    plan: list[dict[str, Any]] = field(default_factory=list)

    def keep_plan(self, recipes: Sequence[Recipe]) -> None:
        """Remember the recipes; refuse others than those that the training began with.

        More epochs of a stage at hand are fine where its schedule doesn't depend on their number.

        Raises
        ------
        UserError
            If a recipe differs, naming the first key that does.
        """
        plan = [asdict(recipe) for recipe in recipes]
        for number, (old, new) in enumerate(zip(self.plan, plan, strict=False)):
            free = {"epochs"} if new["schedule"] != "onecycle" and number >= self.stage else set()
            changed = [key for key in new if key not in free and old.get(key) != new[key]]
            if changed:
                key = changed[0]
                raise UserError(
                    f"resume: stage {number + 1} began with training.{key}={old.get(key)}, now it is "
                    f"{new[key]}; pass what it began with, or start anew in another run_dir"
                )
        if self.plan and len(self.plan) != len(plan):
            raise UserError(f"resume: {len(plan)} stages, but the training began with {len(self.plan)}")
        self.plan = plan

    def keep_best(self, module: nn.Module, top1: float) -> bool:
        """Copy the weights if they are the best so far (later epochs win ties); without validation, the last."""
        if top1 == top1 and top1 < self.best_top1:
            return False
        self.best_top1 = top1
        self.best = {name: value.detach().clone() for name, value in module.state_dict().items()}
        return True

    def save(self, folder: Path, module: nn.Module) -> None:
        """Write `resume.pt` and `history.csv`, whole or not at all."""
        with atomic_write(folder / "resume.pt") as path:
            torch.save({**self.__dict__, "module": module.state_dict()}, path)
        with atomic_write(folder / "history.csv") as path:
            pd.DataFrame(self.history).to_csv(path, index=False)

    @classmethod
    def load(cls, folder: Path | None, module: nn.Module, device: torch.device) -> Standing:
        """Read `resume.pt` into the module and a new standing.

        Raises
        ------
        UserError
            If there is no such file or it belongs to another network.
        """
        path = None if folder is None else folder / "resume.pt"
        if path is None or not path.is_file():
            raise UserError(f"nothing to resume: no file {path}; pass run_dir=<the interrupted run's folder>")
        try:
            saved = torch.load(path, map_location=device, weights_only=True)
            module.load_state_dict(saved.pop("module"))
            return cls(**saved)
        except Exception as error:  # of a damaged file torch.load makes whatever it happens to be
            raise UserError(f"{path} doesn't belong to this training: {error}") from error
