"""Watching a training: localization on images held out, the curve over epochs as a picture, other people's loggers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import Subset

from wsol.datasets.sample import DESCRIPTION, Dataset
from wsol.errors import UserError, quantity
from wsol.io import atomic_write
from wsol.models import Classifier
from wsol.models.zoo import package

LOGGERS = {"tensorboard": "torch.utils.tensorboard", "wandb": "wandb", "mlflow": "mlflow"}  # where each is
PERCENT = ("train_top1", "val_top1", "gt_known_loc", "max_box_acc_v2", "box_area")  # fractions inside the program
Log = Callable[[Mapping[str, float], int], None]


def spread(dataset: Dataset, count: int) -> tuple[Dataset, Dataset]:
    """Split off so many samples, evenly spread over a dataset: the rest, and they."""
    if not 0 < count < len(dataset):
        samples = quantity(len(dataset), "sample")
        raise UserError(f"{dataset.name} ({dataset.split}) has {samples}: {count} can't be split off")
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    parts = np.setdiff1d(np.arange(len(dataset)), chosen), chosen
    about = {name: getattr(dataset, name) for name in DESCRIPTION}
    rest, part = (Dataset(Subset(dataset, indices.tolist()), **about) for indices in parts)  # type: ignore[arg-type]
    return rest, part


def localize(classifier: Classifier, dataset: Dataset, workers: int, device: str) -> dict[str, float]:
    """CAM's GT-known localization, MaxBoxAccV2 and the box's mean share of the image at the former's best threshold."""
    from wsol.engine import evaluate

    options: dict[str, Any] = {"workers": workers, "device": device, "progress": False}
    # Each process localizes on all images: an evaluation is shared by its folder, and here there is none.
    several = {name: os.environ.pop(name) for name in ("RANK", "WORLD_SIZE") if name in os.environ}
    try:
        results = evaluate(dataset, classifier, ["cam"], ["choe2020", "choe2020_v2"], **options)
    finally:
        os.environ.update(several)
    one, any_component = (dict(results.summary.iloc[number]) for number in (0, 1))
    boxes = results.per_image.query("protocol == 'choe2020'").merge(results.samples[["sample_id", "width", "height"]])
    sides = (boxes["x1"] - boxes["x0"] + 1) / boxes["width"], (boxes["y1"] - boxes["y0"] + 1) / boxes["height"]
    values = {
        "gt_known_loc": one["gt_known_loc"] / 100,
        "max_box_acc_v2": any_component["max_box_acc_v2"] / 100,
        "threshold": one["threshold"],
        "box_area": (sides[0] * sides[1]).mean(),
    }
    return {name: float(value) for name, value in values.items()}  # resume.pt holds plain numbers only


def in_percent(history: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The history as it is written down and shown."""
    table = pd.DataFrame(history)
    columns = [name for name in PERCENT if name in table]
    table[columns] *= 100
    return table


def draw_history(table: pd.DataFrame, path: Path) -> None:
    """Draw the loss and all accuracies over the epochs of all stages."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(table) + 1)
    left.plot(epochs, table["train_loss"], marker=".")
    left.set(xlabel="epoch", ylabel="training loss")
    for name in (name for name in PERCENT if name in table and table[name].notna().any()):
        measured = table[name].notna().to_numpy()
        right.plot(np.array(epochs)[measured], table[name][measured], marker=".", label=name)
    right.set(xlabel="epoch", ylabel="percent")
    right.legend()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


@contextmanager
def logging_to(name: str | None, folder: Path | None, config: Mapping[str, Any]) -> Iterator[Log]:
    """Give a function that hands an epoch's numbers to "tensorboard", "wandb" or "mlflow"; None: one that doesn't."""
    place = folder or Path.cwd()
    if name is None:
        yield lambda row, step: None
        return
    if name not in LOGGERS:
        raise UserError(f"logger={name}: choose {', '.join(LOGGERS)}, or null")
    module = package(LOGGERS[name], name)
    if name == "tensorboard":
        with module.SummaryWriter(str(place / "tensorboard")) as writer:

            def log(row: Mapping[str, float], step: int) -> None:
                for key, value in row.items():
                    writer.add_scalar(key, value, step)
                writer.flush()

            yield log
    elif name == "wandb":
        with module.init(project="wsol", dir=place, name=place.name, config=dict(config)) as run:
            yield lambda row, step: run.log(dict(row), step=step)
    else:
        with module.start_run(run_name=place.name):
            module.log_params(pd.json_normalize(dict(config)).iloc[0].astype(str).str[:500].to_dict())
            yield lambda row, step: module.log_metrics(dict(row), step=step)
