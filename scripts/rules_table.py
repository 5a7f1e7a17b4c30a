"""The same artifacts under every paper's rules: what the choice of an evaluator alone does to a number.

    python scripts/rules_table.py --metadata FOLDER [--tiny FOLDER] [--ilsvrc 50000] [--images 1000]

FOLDER holds metadata/CUB/test and metadata/ILSVRC/test of github.com/clovaai/wsolevaluation (not committed); --tiny
is Tiny-ImageNet in its original layout, for CAM of model=efficientnet_lite0. Writes results/rules.md, .csv and .png.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import wsol
from wsol.datasets import TinyImageNet, WSOLEvaluation
from wsol.datasets.sample import Dataset

RESULTS = Path(__file__).parents[1] / "results"
JITTER = 0.12  # standard deviation of each corner, in sides of the ground-truth box
NO_SAY = (
    "name", "ready_boxes", "topk_iou_comparison", "iou_thresholds", "v2_threshold", "mask_size", "mask_interpolation",
    "pxap_bin",
)  # fmt: skip
SAY_IN_BOXES = ("size", "view", "truth", "iou", "average")


def jittered(dataset: Dataset, folder: Path, seed: int = 0) -> Path:
    """Boxes of a regressor that knows each object but for noise, as a table for `boxes=`."""
    random, rows = np.random.default_rng(seed), []
    for sample_id, boxes in zip(dataset.table["sample_id"], dataset.table["boxes"], strict=True):
        x0, y0, x1, y1 = boxes[0] + random.normal(0, JITTER, 4) * np.tile(boxes[0][2:] - boxes[0][:2] + 1, 2)
        rows.append((sample_id, min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    path = folder / "regressor.csv"
    pd.DataFrame(rows, columns=["sample_id", "x0", "y0", "x1", "y1"]).to_csv(path, index=False)
    return path


def by_size(dataset: Dataset) -> Dataset:
    """The same samples, images of one size together: a baseline's sweep is then made once for each size."""
    samples = sorted(dataset, key=lambda sample: sample.image_size or (0, 0))
    return Dataset(samples, name=dataset.name, split=dataset.split, role=dataset.role, classes=dataset.classes)


def rows_of(name: str, results: wsol.Results) -> pd.DataFrame:
    """GT-known localization of each artifact under each preset."""
    table = results.summary[["protocol", "method", "gt_known_loc", "threshold", "threshold_source"]].copy()
    table.insert(0, "artifact", name + ": " + table.pop("method"))
    return table.rename(columns={"protocol": "rules"})


def sentences(values: pd.DataFrame) -> list[str]:
    """One for each artifact: the two rules that disagree most about it, and in which fields they differ."""
    lines = []
    for artifact in map(str, values):
        column = values[artifact].dropna()
        first, second = max(combinations(column.index, 2), key=lambda pair: abs(column[pair[0]] - column[pair[1]]))
        one, two = (vars(wsol.load_protocol(name).for_dataset(artifact.split()[0])) for name in (first, second))
        differ = [f"`{key}`" for key in one if key not in NO_SAY and one[key] != two[key]
                  and (key.startswith(SAY_IN_BOXES) or "regressor" not in artifact)]  # fmt: skip
        lines.append(
            f"- **{artifact}**: `{first}` says {column[first]:.1f} and `{second}` {column[second]:.1f}, of the same "
            f"answers; they differ in {', '.join(differ)}."
        )
    return lines


def mixed(values: pd.DataFrame) -> list[str]:
    """What is published of one dataset under several rules, and how far these are apart here."""
    published, lines = pd.read_csv(RESULTS / "published.csv"), []
    localized = published[published["metric"].isin(["gt_known_loc", "top1_loc"]) & published["protocol"].notna()]
    for names, group in localized.groupby(["dataset", "metric"]):
        dataset, metric = map(str, names)  # type: ignore[call-overload]
        rules = {str(name): rows["source"].iloc[0].split(",")[0] for name, rows in group.groupby("protocol")}
        here = values.loc[
            values.index.isin(rules), [column for column in map(str, values) if column.startswith(dataset)]
        ]
        if len(rules) > 1:
            spans = (
                f"{column.split(': ')[1]} {here[column].min():.1f} to {here[column].max():.1f}"
                for column in map(str, here)
            )
            listed = ", ".join(f"`{name}` ({source})" for name, source in rules.items())
            lines.append(f"- {metric} on {dataset}: {listed}. GT-known above, under these alone: {', '.join(spans)}.")
    return lines


def artifacts(asked: argparse.Namespace, folder: Path) -> pd.DataFrame:
    """Score all artifacts under every preset that applies."""
    every: dict[str, Any] = {"protocols": ["all"], "progress": False}
    cub = by_size(WSOLEvaluation(asked.metadata, "CUB", "test"))
    ilsvrc = by_size(WSOLEvaluation(asked.metadata, "ILSVRC", "test").first(asked.ilsvrc))
    boxes: dict[str, Any] = {"boxes": jittered(cub, folder), "box_corners": "inclusive", "box_units": "pixels"}
    parts = [rows_of("CUB test", wsol.score(cub, methods=["center", "full"], **every))]
    parts.append(rows_of("CUB test", wsol.score(cub, **boxes, **every)))
    parts.append(rows_of(f"ILSVRC val ({len(ilsvrc):,})", wsol.score(ilsvrc, methods=["center", "full"], **every)))
    if asked.tiny is not None:
        from wsol.models import efficientnet_lite0

        tiny = TinyImageNet(asked.tiny, "val").first(asked.images)
        results = wsol.evaluate(tiny, efficientnet_lite0(), ["cam"], **every)
        parts.append(rows_of(f"Tiny-ImageNet val ({len(tiny):,})", results))
    return pd.concat(parts)


def draw(values: pd.DataFrame) -> None:
    """One row for each preset, one color for each artifact."""
    figure = Figure(figsize=(7.5, 0.28 * len(values) + 1.6), layout="constrained")
    axis = figure.subplots()
    for artifact in values:
        axis.plot(values[artifact], range(len(values)), "o", label=artifact, alpha=0.8)
    axis.set_yticks(range(len(values)), list(values.index), fontsize=7)
    axis.set(xlabel="GT-known localization (%)", xlim=(0, 100))
    axis.invert_yaxis()
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    figure.savefig(RESULTS / "rules.png", dpi=150)


def main() -> None:
    """Score all artifacts and write table, figure and sentences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--tiny", type=Path)
    parser.add_argument("--ilsvrc", type=int, default=50_000)
    parser.add_argument("--images", type=int, default=1000)
    with tempfile.TemporaryDirectory() as folder:
        table = artifacts(parser.parse_args(), Path(folder))
    table.to_csv(RESULTS / "rules.csv", index=False)
    values = table.pivot_table("gt_known_loc", "rules", "artifact", sort=False).sort_index()
    oracle = table["threshold_source"].str.startswith("oracle").map({True: "*", False: ""})
    texts = table.assign(text=table["gt_known_loc"].map("{:.1f}".format) + oracle)
    texts = texts.pivot(index="rules", columns="artifact", values="text").loc[values.index, values.columns].fillna("")
    rows = (f"| {name} | {' | '.join(texts.loc[name])} |" for name in texts.index)
    lines, disagree, beside = map("\n".join, (rows, sentences(values), mixed(values)))
    text = f"""# The same answers under every paper's rules

GT-known localization in percent; *: τ is the best on these very images; empty: rules that don't apply (heatmaps, where
boxes are asked for; raw heatmaps, where maps in [0, 1] are). Made by `scripts/rules_table.py`, wsol {wsol.__version__}.
The regressor is ground truth whose corners were moved by {JITTER} of its sides (standard deviation).

| rules | {" | ".join(map(str, values))} |
| --- |{" ---: |" * len(values.columns)}
{lines}

## Where two rules disagree most

{disagree}

## Which published numbers were made under different rules

Numbers of one dataset and metric in `published.csv`, by the rules it names; a table that sets them side by side mixes
these rules.

{beside}

![](rules.png)
"""
    (RESULTS / "rules.md").write_text(text, encoding="utf-8")
    draw(values)


if __name__ == "__main__":
    main()
