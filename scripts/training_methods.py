"""Do training methods localize better? On Shapes, where a glyph tells the class and the body around it is the object.

    python scripts/training_methods.py --runs FOLDER            # 30 trainings, two hours of one core; goes on again
    python scripts/training_methods.py --runs FOLDER --photographs tiny-imagenet-20    # 18 more, six minutes each
    python scripts/training_methods.py --runs FOLDER --report   # writes results/training_methods.md from what is done

Six methods × 3 seeds at the default size of the glyph (0.35 of the object), one seed at 0.2 and 0.5; six methods × 3
seeds on twenty classes of Tiny-ImageNet. Every method has its default options, the same network, images and number of
steps: nothing is tuned. The threshold τ is chosen on the validation split (of the photographs: on training photographs
held out), the numbers are the test split's (the photographs' val).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsol.datasets import Shapes, TinyImageNet
from wsol.engine import evaluate
from wsol.io import read_environment, write_text
from wsol.metrics.statistics import holm, mcnemar
from wsol.models.zoo import shapes_classifier
from wsol.training import ADL, SPG, ACoL, CutMix, HaS, Recipe, Stage, TrainingMethod, train
from wsol.training.watch import spread

METHODS = {"none": TrainingMethod, "has": HaS, "cutmix": CutMix, "adl": ADL, "acol": ACoL, "spg": SPG}
DEFAULT, PHOTOGRAPHS = 0.35, "photographs"
Cell = tuple[str, float | str, int]  # training method; size of the glyph, or the photographs; seed
CELLS: list[Cell] = [
    *((method, DEFAULT, seed) for seed, method in product(range(3), METHODS)),
    *((method, glyph, 0) for glyph, method in product((0.2, 0.5), METHODS)),
]
PHOTOGRAPH_CELLS: list[Cell] = [(method, PHOTOGRAPHS, seed) for seed, method in product(range(3), METHODS)]
EPOCHS, HELD_OUT = 12, 1000  # of the photographs
IMAGES = 1000  # of the validation and of the test split
# Large objects in small pictures first, as for the weights that the package ships, with a third of their images.
STAGES = (
    "training.stages=[{epochs: 3, lr: 0.003, input_size: [48, 48], "
    "dataset: {length: 8000, size: 48, object_size: [0.6, 0.95]}, "
    "validation: {length: 200, size: 48, object_size: [0.6, 0.95]}}, "
    "{epochs: 2, lr: 0.002, dataset: {length: 5000}, validation: {length: 500}}]"
)
SHORT = "training.stages=[{epochs: 1, dataset: {length: 24}, validation: {length: 8}}]"
COLUMNS = ["gt_known_loc", "max_box_acc_v2", "box_area", "top1_cls"]


def wsol(*words: str) -> None:
    """Run the program as somebody types it."""
    subprocess.run([sys.executable, "-m", "wsol", *words], check=True, stdout=subprocess.DEVNULL)


def folder_of(runs: Path, method: str, glyph: float | str, seed: int) -> Path:
    """Folder of one training."""
    return runs / f"{method}_{glyph}_{seed}"


def run_photographs(runs: Path, cell: Cell, root: Path, short: bool) -> None:
    """Train on photographs of 64 × 64 pixels, choose τ on some held out of training, evaluate on val."""
    folder, (method, _, seed) = folder_of(runs, *cell), cell
    if (folder / "test" / "summary.csv").exists():
        return
    whole = TinyImageNet(root, "train")
    training, held_out = spread(whole, min(HELD_OUT, len(whole) // 4))
    training = spread(training, min(64, len(training) - 1))[1] if short else training
    classifier = shapes_classifier(weights=None, num_classes=len(training.classes), seed=seed, input_size=(64, 64))
    recipe = Recipe(epochs=1 if short else EPOCHS, batch_size=32, lr=0.003, warmup=0.3)
    stage = Stage(dataset=training, recipe=recipe, validation=held_out)
    done = train(
        classifier, [stage], method=METHODS[method](), run_dir=folder, seed=seed, resume=True, show_progress=False
    )
    options: dict[str, Any] = {"pictures": 0, "report": False, "progress": False}
    protocols = ["choe2020", "choe2020_v2"]
    evaluate(held_out, done.classifier, ["cam", "center"], protocols, run_dir=folder / "val", **options)
    options["threshold_from"] = folder / "val"
    evaluate(
        TinyImageNet(root, "val"), done.classifier, ["cam", "center"], protocols, run_dir=folder / "test", **options
    )
    print(f"{folder.name} done", flush=True)


def run(runs: Path, cell: Cell, short: bool) -> None:
    """Train, choose τ on the validation split, evaluate on the test split."""
    folder, (method, glyph, seed) = folder_of(runs, *cell), cell
    if (folder / "test" / "summary.csv").exists():
        return
    words = ["train", "experiment=shapes", SHORT if short else STAGES, f"training_method={method}", f"seed={seed}"]
    words += [f"dataset.glyph={glyph}", f"model.seed={seed}", f"run_dir={folder}", "progress=false"]
    wsol(*words, *(["resume=true"] if (folder / "resume.pt").exists() else []))
    for split, more in (("val", []), ("test", [f"threshold_from={folder / 'val'}"])):
        words = ["dataset=shapes", f"dataset.split={split}", f"dataset.glyph={glyph}"]
        words += [
            f"dataset.length={20 if short else IMAGES}",
            "model=shapes",
            "method=[cam]",
            "protocol=[choe2020,choe2020_v2]",
            "report=false",
            "pictures=0",
        ]
        words += [f"model.weights={folder / 'best.safetensors'}", "progress=false", f"run_dir={folder / split}"]
        wsol(*words, *more)
    print(f"{folder.name} done", flush=True)


def read(runs: Path, cells: Sequence[Cell]) -> tuple[pd.DataFrame, dict[Cell, np.ndarray]]:
    """Numbers of the trainings that are done, one row each, and whether each test image is localized."""
    rows, hits = [], {}
    for cell in cells:
        folder = folder_of(runs, *cell)
        if not (folder / "test" / "summary.csv").exists():
            continue
        summary: Any = pd.read_csv(folder / "test" / "summary.csv").query("method == 'cam'").set_index("protocol")
        images = pd.read_parquet(folder / "test" / "per_image.parquet")
        images = images.query("method == 'cam' and protocol == 'choe2020'").sort_values("sample_id")
        hits[cell] = images["gt_known_loc"].to_numpy(bool)
        side = 64 if cell[1] == PHOTOGRAPHS else 96
        area = (images["x1"] - images["x0"] + 1) * (images["y1"] - images["y0"] + 1) / side**2
        row = {**dict(zip(("method", "glyph", "seed"), cell, strict=True)), "box_area": 100 * area.mean()}
        row |= {name: summary.loc["choe2020", name] for name in ("gt_known_loc", "top1_cls", "threshold")}
        row |= {"max_box_acc_v2": summary.loc["choe2020_v2", "max_box_acc_v2"]}
        rows.append(row | {"seconds": read_environment(folder)["seconds"]})
    return pd.DataFrame(rows, columns=["method", "glyph", "seed", *COLUMNS, "threshold", "seconds"]), hits


def p_values(hits: dict[Cell, np.ndarray], glyph: float | str, seeds: Sequence[int]) -> dict[str, float]:
    """McNemar's test of each method against none on the same images, over all seeds that both have, after Holm."""
    found = {}
    for method in [*METHODS][1:]:
        pairs = [(hits.get((method, glyph, seed)), hits.get(("none", glyph, seed))) for seed in seeds]
        whole = [(one, none) for one, none in pairs if one is not None and none is not None]
        if len(whole) == len(seeds):
            one, none = (np.concatenate(side) for side in zip(*whole, strict=True))
            found[method] = float(mcnemar(int((one & ~none).sum()), int((none & ~one).sum())))
    return dict(zip(found, holm(np.array([*found.values()])).tolist(), strict=True)) if found else {}


def cells_of_table(table: pd.DataFrame, method: str, seeds: int) -> list[str]:
    """A method's numbers, mean ± std over all its seeds; each seed's own where some are missing."""
    rows = table[table["method"] == method].sort_values("seed")
    texts = []
    for name in COLUMNS:
        values = rows[name].to_numpy(float)
        if len(values) < seeds:
            texts.append(", ".join(f"{value:.1f}" for value in values) + f" ({len(values)} of {seeds})")
        else:
            texts.append(f"{values.mean():.1f}" + (f" ± {values.std(ddof=1):.1f}" if seeds > 1 else ""))
    return texts


def section(glyph: float | str, seeds: int) -> list[str]:
    """Heading and introduction of one table."""
    if glyph == PHOTOGRAPHS:
        published = (
            "The literature's 40.55 Top-1 localization on Tiny-ImageNet is of all 200 classes (see published.csv)."
        )
        return [
            f"## Twenty classes of Tiny-ImageNet, {seeds} seed{'s' if seeds > 1 else ''}", "",
            f"9,000 training photographs of 64 × 64 pixels, {EPOCHS} epochs; τ and the best epoch on 1,000 others of "
            f"train; numbers on the 1,000 of val. {published}",
        ]  # fmt: skip
    gt_boxes = Shapes("test", length=IMAGES, glyph=float(glyph)).table["boxes"]
    sides = np.array([boxes[0, 2:] - boxes[0, :2] + 1 for boxes in gt_boxes])
    name = f"Glyph {glyph} of the object" + (" (default)" if glyph == DEFAULT else "")
    size = f"The object's own box has {100 * (sides.prod(1) / 96**2).mean():.1f} % of the image."
    return [f"## {name}, {seeds} seed{'s' if seeds > 1 else ''}", "", size]


def center_of(runs: Path, seeds: int) -> list[str]:
    """The center baseline's row under the photographs: it does not depend on the training."""
    folders = [folder_of(runs, "none", PHOTOGRAPHS, seed) / "test" for seed in range(seeds)]
    if not (folders[0] / "summary.csv").exists():
        return []
    center: Any = pd.read_csv(folders[0] / "summary.csv").query("method == 'center'").set_index("protocol")
    known, v2 = center.loc["choe2020", "gt_known_loc"], center.loc["choe2020_v2", "max_box_acc_v2"]
    return [f"| center baseline | {known:.1f} | {v2:.1f} | | | |"]


def findings_of(table: pd.DataFrame, p: dict[str, float], classes: int) -> list[str]:
    """What one table says, in sentences: what is better or worse than none, and which trainings learned nothing."""
    means = table.groupby("method")["gt_known_loc"].mean()
    names: dict[str, list[str]] = {"better than none": [], "worse": [], "not told apart from it": []}
    for method in p:
        apart = "better than none" if means[method] > means["none"] else "worse"
        names[apart if p[method] < 0.05 else "not told apart from it"].append(method)
    said = "; ".join(f"{text}: {', '.join(methods) or 'no method'}" for text, methods in names.items())
    lines = ["", f"GT-known localization, significantly {said}."] if p else []
    for row in table[table["top1_cls"] < 150 / classes].itertuples():
        others = table.query("method == @row.method and seed != @row.seed")["gt_known_loc"]
        rest = f"; GT-known of its others: {', '.join(f'{value:.1f}' for value in others)}" if len(others) else ""
        lines += ["", f"{row.method}, seed {row.seed}, learned nothing: Top-1 {row.top1_cls:.1f}, chance{rest}."]
    return lines


def report(runs: Path, cells: Sequence[Cell], path: Path) -> None:
    """Write what is there, and how much of it is missing."""
    table, hits = read(runs, cells)
    lines = [
        "# Do training methods localize better?", "",
        f"{len(table)} of {len(cells)} trainings. Made by `python scripts/training_methods.py`, {date.today()}; "
        f"{table['seconds'].sum() / 60:.0f} minutes of training in all, beside other work.", "",
        "Shapes: the body is the object, a small glyph on it tells the class. One network (six convolutions, "
        f"12 × 12 maps), one recipe, every method with its default options, nothing tuned. {IMAGES} test images; "
        "τ from the validation split; percent. Box: mean area of the box at τ. p: McNemar's test against none on "
        "the same images, all seeds together, after Holm; it speaks of these trainings, and ± says how much others may "
        "differ. With a seed missing there is no mean: each value stands "
        "there.",
    ]  # fmt: skip
    heading = "| method | GT-known | MaxBoxAccV2 (oracle) | box | Top-1 classification | p |"
    sections = dict.fromkeys(glyph for _, glyph, _ in cells)
    for glyph in sections:
        seeds = sorted({seed for _, other, seed in cells if other == glyph})
        here, p = table[table["glyph"] == glyph], p_values(hits, glyph, seeds)
        lines += ["", *section(glyph, len(seeds)), ""]
        if not len(here):
            lines += ["None of these trainings has been made."]
            continue
        lines += [heading, "|---|---|---|---|---|---|"]
        for method in METHODS:
            shown = f"{p[method]:.2g}" if method in p else ""
            lines.append(f"| {method} | {' | '.join(cells_of_table(here, method, len(seeds)))} | {shown} |")
        lines += center_of(runs, len(seeds)) if glyph == PHOTOGRAPHS else []
        lines += findings_of(here, p, 20 if glyph == PHOTOGRAPHS else 10)
    write_text(path, "\n".join(lines) + "\n")


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("results/runs/training_methods"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "training_methods.md")
    parser.add_argument("--photographs", type=Path, help="classes of Tiny-ImageNet in its own layout; without: Shapes")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--short", action="store_true", help="two methods, one seed, a few images")
    options = parser.parse_args(words)
    few: list[Cell] = [(method, where, 0) for where in (DEFAULT, PHOTOGRAPHS) for method in ("none", "cutmix")]
    cells = few if options.short else [*CELLS, *PHOTOGRAPH_CELLS]
    for cell in () if options.report else cells:
        if cell[1] != PHOTOGRAPHS and options.photographs is None:
            run(options.runs, cell, options.short)
        elif cell[1] == PHOTOGRAPHS and options.photographs is not None:
            run_photographs(options.runs, cell, options.photographs, options.short)
    report(options.runs, cells, options.output)


if __name__ == "__main__":
    main()
