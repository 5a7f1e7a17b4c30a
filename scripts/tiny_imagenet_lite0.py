"""A real network on real photographs: EfficientNet-Lite0 on Tiny-ImageNet's 10,000 validation photographs.

    python scripts/tiny_imagenet_lite0.py --root tiny-imagenet-200 --runs FOLDER     # goes on where it stopped
    python scripts/tiny_imagenet_lite0.py --root tiny-imagenet-200 --runs FOLDER --methods cam,gradcam,center
    python scripts/tiny_imagenet_lite0.py --runs FOLDER --report    # writes results/tiny_imagenet_lite0.md
    python scripts/tiny_imagenet_lite0.py --runs FOLDER --samples imagenet-sample-images    # its last section alone

Every method of one recording, under every preset that needs nothing but boxes; the perturbation methods on the first
500. τ is chosen on ten training photographs of each class, never on the validation split; the root needs only those.

The samples are github.com/EliSchwartz/imagenet-sample-images: one photograph of each of ImageNet's 1,000 classes,
without boxes. The script classifies them, tells how maps of the true class differ, and draws some in FOLDER/samples.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import binomtest

import wsol
from wsol.datasets import Dataset, Sample, TinyImageNet
from wsol.datasets.classes import map_classes
from wsol.engine import evaluate
from wsol.heatmaps.collect import Recorder
from wsol.heatmaps.method import make_method, method_cards
from wsol.heatmaps.store import HeatmapStore
from wsol.io import imagenet_classes, read_environment, write_text
from wsol.models import efficientnet_lite0
from wsol.report.gallery import evenly_spaced

FEW, OF_EACH_CLASS = 500, 10
METHODS = (
    "cam", "gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam", "eigencam", "eigengradcam",
    "kpcacam", "finercam", "fem", "center", "full",
)  # fmt: skip
FEW_METHODS = ("cam", "scorecam", "ablationcam", "occlusion", "center")
PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016", "selvaraju2017", "gao2021", "exact")
SAMPLES, DRAWN, ROWS = "\n## One photograph per class\n", 24, 6  # heading, pictures, pictures in a grid
LOOK = (  # of all 1,000, by eye
    "Twenty-four of them, evenly spaced, were looked at on 2026-11-27. By eye CAM, Grad-CAM, XGrad-CAM and HiResCAM "
    "are one method, and Grad-CAM++, element-wise Grad-CAM and LayerCAM another. The two differ on few: of two "
    "televisions (`screen`) the first takes the one on the floor, the second the one on the table; of a `jean` the "
    "denim, or a seam. Eigen-CAM, KPCA-CAM and FEM, which never ask for the class, miss it more often: the first two "
    "mark the coloured label on the `jean`, all three the chain above the `padlock` (EigenGrad-CAM too), and FEM the "
    "face above the `military uniform`. FEM's maps are the smallest, often a few cells of the object (`carton`, "
    "`toilet tissue`). Finer-CAM's leave out the shoulders of the `trench coat`, and add the tail and the lawn beside "
    "it to the head of the `Norwegian elkhound`. What all have in common matters more: of a sitting dog they show the "
    "head, of what fills the photograph a part (`freight car`, `stone wall`, `worm fence`); several birds become one "
    "blob (`flamingo`); and a cell of the 7 × 7 grid, enlarged, is wider than a small object (`bison`, `leaf beetle`; "
    "that of the `English springer` takes in the legs of two people), so that a box around it is too large."
)
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
    _, heading, samples = path.read_text("utf-8").partition(SAMPLES) if path.exists() else ("", "", "")
    write_text(path, "\n".join(lines) + ".\n" + heading + samples)


def sample_images(folder: Path) -> Dataset:
    """Photographs `n01440764_tench.JPEG` with the labels that their names begin with, and no boxes."""
    ids, files = list(imagenet_classes()), sorted(folder.glob("n*.JPEG"))
    labels = [ids.index(file.name.partition("_")[0]) for file in files]
    samples = [Sample(sample_id=f.name, label=label, image=f) for f, label in zip(files, labels, strict=True)]
    return Dataset(samples, name="imagenet samples", classes=list(imagenet_classes().values()), class_ids=ids)


def record(dataset: Dataset, methods: Sequence[str], view: str) -> tuple[HeatmapStore, pd.DataFrame]:
    """Maps of the true class of every photograph that can be read, and its rank among the 1,000 logits."""
    classifier = efficientnet_lite0()
    names = dataset.classes, dataset.ids
    class_map = map_classes(*names, classifier.classes, classifier.class_ids, len(dataset.classes))
    made = {name: make_method(name) for name in methods}
    with Recorder(dataset, classifier, made, class_map, view=view, on_error="skip") as recorder:
        store, samples, _, _ = next(recorder.record([range(len(dataset))]))
    return store, samples


def ranked(samples: pd.DataFrame, view: str) -> str:
    """A row of Top-1 and Top-5 with Wilson's intervals, percent."""
    cells = []
    for most in (1, 5):
        share = binomtest(int((samples["rank"] < most).sum()), len(samples))
        low, high = share.proportion_ci(method="wilson")
        cells += [f"{100 * share.statistic:.1f}", f"{100 * low:.1f} to {100 * high:.1f}"]
    return f"| {view} | {' | '.join(cells)} |"


def values_of(store: HeatmapStore, method: str, place: int) -> np.ndarray:
    """A map that a network gave (h, w)."""
    return np.asarray(store.heatmap(method, place).values)


def looks(store: HeatmapStore, methods: Sequence[str], places: Sequence[int]) -> list[str]:
    """A Markdown table: how like CAM's each method's maps are, and how much of the photograph they cover."""
    lines = ["| method | correlation with CAM | 5 % have less than | above 0.5 | empty |", "|---" * 5 + "|"]
    cams = [values_of(store, "cam", place).ravel() for place in places]
    for name in methods:
        maps = [values_of(store, name, place) for place in places]
        empty = sum(np.ptp(values) == 0 for values in maps)
        alike = [np.corrcoef(a, b.ravel())[0, 1] for a, b in zip(cams, maps, strict=True) if np.ptp(b) > 0]
        area = np.mean([(wsol.score_map(values, "choe2020") >= 0.5).mean() for values in maps])
        cells = f"{np.mean(alike):.2f} | {np.quantile(alike, 0.05):.2f} | {100 * area:.0f} % | {empty}"
        lines.append(f"| {name} | {cells} |")
    return lines


def draw(dataset: Dataset, store: HeatmapStore, samples: pd.DataFrame, methods: Sequence[str], folder: Path) -> None:
    """Grids of photographs and, beside each, its maps: a column per method. They are not for the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = evenly_spaced(list(samples.index), DRAWN)
    for start in range(0, len(drawn), ROWS):
        rows = drawn[start : start + ROWS]
        figure = Figure(figsize=(1.5 * (1 + len(methods)), 1.5 * len(rows)), layout="compressed")
        for line, place in zip(figure.subplots(len(rows), 1 + len(methods), squeeze=False), rows, strict=True):
            image, row = dataset[place].read_image(), samples.loc[place]
            for axis, name in zip(line, ["", *methods], strict=True):
                picture = wsol.overlay(image, values_of(store, name, place)) if name else image
                axis.imshow(picture, aspect="auto")
                axis.set_title(name or f"{row['class'][:20]}, rank {row['rank'] + 1}", fontsize=7)
                axis.set_axis_off()
        figure.savefig(folder / f"maps_{start // ROWS}.png", dpi=110)


def report_samples(folder: Path, methods: Sequence[str], runs: Path, path: Path) -> None:
    """Classify, compare, draw; put the section into the file, behind what is there."""
    began, dataset = time.time(), sample_images(folder)
    methods = [name for name in methods if make_method(name).baseline is None]
    (store, whole), (_, cropped) = (record(dataset, methods, view) for view in ("squash", "crop"))
    whole, cropped = (samples[~store.unreadable] for samples in (whole, cropped))
    draw(dataset, store, whole, methods, runs / "samples")
    text = [
        SAMPLES,
        f"github.com/EliSchwartz/imagenet-sample-images: {len(whole)} of {len(dataset)} files can be read. Made by "
        f"`python scripts/tiny_imagenet_lite0.py --samples FOLDER`, {date.today()}; {(time.time() - began) / 60:.0f} "
        f"minutes of {os.cpu_count()} CPU cores, beside other work.", "",
        "All 1,000 classes compete. Each photograph was drawn at random from ImageNet, of which split is not said. The "
        "network's authors give 75.1 for Top-1, so it was most likely trained on them: this shows that classes, names "
        "and input are right, and tests nothing else. Percent.", "",
        "| view | Top-1 | 95 % | Top-5 | 95 % |", "|---" * 5 + "|", ranked(whole, "squash"), ranked(cropped, "crop"),
        "", "The maps are of the true class, of whole photographs. There are no boxes to hold them against: how alike "
        "they are, value by value, and how much of the score map of `choe2020` is above 0.5.", "",
        *looks(store, methods, list(whole.index)), "", LOOK if len(dataset) == len(dataset.classes) else "",
    ]  # fmt: skip
    before = path.read_text("utf-8").partition(SAMPLES)[0] if path.exists() else ""
    write_text(path, before + "\n".join(text).rstrip() + "\n")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="Tiny-ImageNet as it is handed out")
    parser.add_argument("--runs", type=Path, default=Path("results/runs/tiny_imagenet_lite0"))
    parser.add_argument("--methods", default=",".join(METHODS), help="of one recording")
    parser.add_argument("--few", default=",".join(FEW_METHODS), help=f"on {FEW} photographs; empty for none")
    parser.add_argument("--limit", type=int, help="photographs of the validation split, to try it")
    parser.add_argument("--samples", type=Path, help="one photograph of each class; nothing else is done")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--file", type=Path, default=Path("results/tiny_imagenet_lite0.md"))
    given = parser.parse_args(words)
    methods, few = (list(filter(None, names.split(","))) for names in (given.methods, given.few))
    if given.samples:
        report_samples(given.samples, methods, given.runs, given.file)
        return
    if not given.report:
        run_all(given.root, given.runs, methods, few, given.limit)
    report(given.runs, given.file)


if __name__ == "__main__":
    main()
