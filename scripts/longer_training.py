"""More training, finer focus? Localization, its best τ and the size of the box, epoch by epoch.

    python scripts/longer_training.py --photographs tiny-imagenet-20 --runs FOLDER   # goes on where it stopped
    python scripts/longer_training.py --runs FOLDER --report                         # writes results/longer_training.md

It is often told that maps concentrate on details as epochs grow. Two networks, Shapes and photographs, 50 epochs at a
constant learning rate, so that nothing but the number of epochs changes. CAM on 500 images that no epoch has seen.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torchvision
from matplotlib.figure import Figure
from torch import nn

from wsol.datasets import Dataset, Shapes, TinyImageNet
from wsol.io import read_environment, write_text
from wsol.models import Classifier
from wsol.models.zoo import gapnet, seeded
from wsol.training import Recipe, Stage, train
from wsol.training.watch import spread

EPOCHS, TRAINED, MEASURED, SIZE = 50, 1600, 500, 64
LOOKED_AT = (1, 2, 5, 10, 20, 35, 50)
COLUMNS = {
    "train_top1": "training Top-1", "val_top1": "Top-1", "gt_known_loc": "GT-known", "max_box_acc_v2": "MaxBoxAccV2",
    "threshold": "τ", "box_area": "box",
}  # fmt: skip
DATA = {"shapes": "Shapes, objects of 50 to 95 % of the image's side", "photographs": "Tiny-ImageNet, twenty classes"}


def six_convolutions(classes: int) -> Classifier:
    """The network that the package ships for Shapes, with random weights: maps of 8 × 8 cells."""
    return Classifier.from_module(gapnet(classes, seed=0), "features", input_size=(SIZE, SIZE))


def shufflenet(classes: int) -> Classifier:
    """ShuffleNet-V2 0.5 without the two strides of its stem: maps of 8 × 8 cells."""
    with seeded(0):
        module = torchvision.models.shufflenet_v2_x0_5(weights=None, num_classes=classes)
    module.conv1[0].stride, module.maxpool = (1, 1), nn.Identity()
    return Classifier.from_module(module, "conv5", input_size=(SIZE, SIZE))


NETWORKS: dict[str, Callable[[int], Classifier]] = {"six convolutions": six_convolutions, "shufflenet": shufflenet}
CELLS = [(data, network) for network in NETWORKS for data in DATA]


def load(data: str, root: Path | None, trained: int, measured: int) -> tuple[Dataset, Dataset]:
    """Images to train on, and others to measure on."""
    if data == "shapes":
        make = partial(Shapes, size=SIZE, object_size=(0.5, 0.95))
        return make("train", length=trained), make("val", length=measured)
    if root is None:
        raise SystemExit("--photographs FOLDER: twenty classes of Tiny-ImageNet in its own layout")
    rest, held_out = spread(TinyImageNet(root, "train"), measured)  # of val nothing is chosen
    return spread(rest, trained)[1], held_out


def folder_of(runs: Path, data: str, network: str) -> Path:
    return runs / f"{data}_{network.replace(' ', '_')}"


def run(folder: Path, data: str, network: str, root: Path | None) -> None:
    """Train one network, localizing after each epoch; what is done stays."""
    if (folder / "done").exists():
        return
    training, held_out = load(data, root, TRAINED, MEASURED)
    recipe = Recipe(epochs=EPOCHS, batch_size=32, lr=1e-3, schedule="constant", localize_every=1)
    stage = Stage(dataset=training, recipe=recipe, validation=held_out, localization=held_out)
    train(NETWORKS[network](len(training.classes)), [stage], run_dir=folder, resume=True, show_progress=False)
    (folder / "done").touch()


def draw(tables: dict[tuple[str, str], pd.DataFrame], path: Path) -> None:
    """Accuracy, localization, τ and area over epochs, a line for each training."""
    names = {name: title for name, title in COLUMNS.items() if name != "train_top1"}
    figure = Figure(figsize=(3.1 * len(names), 3.2), layout="constrained")
    for axes, (name, title) in zip(figure.subplots(1, len(names)), names.items(), strict=True):
        for (data, network), table in tables.items():
            color, dash = f"C{list(NETWORKS).index(network)}", "-" if data == "shapes" else "--"
            axes.plot(range(1, len(table) + 1), table[name], dash, color=color, label=f"{data}, {network}")
        axes.set(title=title, xlabel="epoch", xscale="log")
        axes.set_ylim(bottom=0)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(tables), frameon=False)
    figure.savefig(path, dpi=150)


def rows_of(table: pd.DataFrame) -> list[str]:
    """A Markdown table of some epochs."""
    lines = ["| epoch | " + " | ".join(COLUMNS.values()) + " |", "|---:" * (1 + len(COLUMNS)) + "|"]
    for epoch in (number for number in LOOKED_AT if number <= len(table)):
        row = table.iloc[epoch - 1]
        cells = [f"{row[name]:.3f}" if name == "threshold" else f"{row[name]:.1f}" for name in COLUMNS]
        lines.append(f"| {epoch} | {' | '.join(cells)} |")
    return lines


def summary_of(tables: Sequence[pd.DataFrame]) -> str:
    """What became of box and localization between the fifth and the last epoch, and what that says of the claim."""
    columns = ["box_area", "max_box_acc_v2"]
    early, late = (
        pd.DataFrame([table.iloc[min(epoch, len(table)) - 1][columns] for table in tables]).reset_index(drop=True)
        for epoch in (5, EPOCHS)
    )
    change = late - early
    smaller, better = (change["box_area"] < 0).sum(), (change["max_box_acc_v2"] > 0).sum()
    focused = ((change["box_area"] < 0) & (change["max_box_acc_v2"] < 0)).sum()
    each = "; ".join(f"{row['box_area']:+.1f} and {row['max_box_acc_v2']:+.1f}" for _, row in change.iterrows())
    return (
        f"From epoch 5 to epoch {EPOCHS} the box became smaller in {smaller} of {len(change)} trainings and "
        f"MaxBoxAccV2 higher in {better}. In the order of the tables, box and MaxBoxAccV2 changed by {each} points. "
        f"Maps that concentrate on details would give smaller boxes that localize worse: so it was in {focused} of "
        f"{len(change)}."
    )


def report(runs: Path, path: Path) -> None:
    """Write what is there, and say what is missing."""
    found = {cell: folder_of(runs, *cell) for cell in CELLS}
    done = {cell: pd.read_csv(folder / "history.csv") for cell, folder in found.items() if (folder / "done").exists()}
    minutes = sum(read_environment(found[cell]).get("seconds", 0) for cell in done) / 60
    lines = [
        "# More training, finer focus?", "",
        f"{len(done)} of {len(CELLS)} trainings. Made by `python scripts/longer_training.py`, {date.today()}; "
        f"{minutes:.0f} minutes by the clock, beside much other work.", "",
        f"CAM of two networks trained from scratch on {TRAINED} images of {SIZE} × {SIZE} pixels at a constant "
        f"learning rate (AdamW, 0.001), measured after every epoch on {MEASURED} others. GT-known localization "
        "(IoU 0.5, `choe2020`) and MaxBoxAccV2 are at their best τ on these very images; box: its mean share of the "
        "image at the former's τ. Percent, but for τ.", "",
        f"![over epochs]({path.with_suffix('.png').name})",
    ]  # fmt: skip
    boxes = load("shapes", None, TRAINED, MEASURED)[1].table["boxes"]
    share = np.mean([np.prod(box[0, 2:] - box[0, :2] + 1) for box in boxes]) / SIZE**2
    objects = f" The objects of Shapes have {100 * share:.1f} % of the image."
    lines += ["", summary_of([*done.values()]) + objects] if done else []
    for (data, network), table in done.items():
        lines += ["", f"## {DATA[data]}; {network}", "", *rows_of(table)]
    if done:
        draw(done, path.with_suffix(".png"))
    write_text(path, "\n".join(lines) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    """Train what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="twenty classes of Tiny-ImageNet in its own layout")
    parser.add_argument("--runs", type=Path, default=Path("results/runs/longer_training"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "longer_training.md")
    parser.add_argument("--report", action="store_true", help="train nothing")
    options = parser.parse_args(words)
    for cell in () if options.report else CELLS:
        run(folder_of(options.runs, *cell), *cell, options.photographs)
        print(f"{' '.join(cell)} done", flush=True)
    report(options.runs, options.output)


if __name__ == "__main__":
    main()
