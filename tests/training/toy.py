"""A toy to train on: two tints of noise, and a network with all that must be taken up again as it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from wsol.datasets import Dataset, Sample
from wsol.models import Classifier, load_state, read_checkpoint
from wsol.training import Recipe, Stage, Training, train


class Tints(Dataset):
    """Noise with a tint of red or of green; it can be told to break off after so many pictures."""

    name, classes, knobs = "tints", ("red", "green"), {"strength": 60}

    def __init__(self, count: int = 24, split: str = "train", classes: Sequence[str] = ("red", "green")) -> None:
        self.count, self.split, self.classes = count, split, tuple(classes)
        self.left: float = float("inf")

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        label, offset = index % len(self.classes), 1000 if self.split == "val" else 0
        image = np.random.default_rng(offset + index).integers(60, 180, (20, 20, 3), dtype=np.uint8)
        image[..., label] += 60
        return Sample(sample_id=f"{self.split}/{index}", label=label, image=image)


class Small(nn.Module):
    """With batch normalization and dropout: both must be taken up again as they were."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()
        self.dropout, self.head = nn.Dropout(0.3), nn.Linear(8, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.relu(self.norm(self.conv(images))).mean((2, 3))))


def small(seed: int = 0, module: Callable[[], nn.Module] = Small) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Classifier(name="small", module=module(), layer="relu", input_size=(16, 16))


def recipe(**keys: object) -> Recipe:
    return Recipe(**{"epochs": 3, "batch_size": 8, "lr": 0.03, **keys})


def run(classifier: Classifier, stages: Sequence[Stage], **options: object) -> Training:
    return train(classifier, stages, **{"device": "cpu", "workers": 0, "show_progress": False, **options})


def weights(classifier: Classifier) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in classifier.module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def stages_of(plan: list[dict[str, object]], data: Dataset) -> list[Stage]:
    return [Stage(dataset=data, recipe=recipe(**keys), validation=Tints(8, "val")) for keys in plan]


def file_weights(path: Path) -> dict[str, torch.Tensor]:
    classifier = small(seed=7)
    load_state(classifier.module, read_checkpoint(path))
    return weights(classifier)
