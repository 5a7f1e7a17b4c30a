"""The same artifacts under every paper's rules: what the choice of an evaluator alone does to a number.

    python scripts/rules_table.py --metadata FOLDER [--tiny FOLDER] [--ilsvrc 50000] [--images 1000]

FOLDER holds metadata/CUB/test and metadata/ILSVRC/test of github.com/clovaai/wsolevaluation (not committed); --tiny
is Tiny-ImageNet in its original layout, for CAM of model=efficientnet_lite0. Writes results/rules.md, .csv and .png.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import wsol
from wsol.datasets import TinyImageNet, WSOLEvaluation
from wsol.datasets.sample import Dataset

RESULTS = Path(__file__).parents[1] / "results"
JITTER = 0.12  # standard deviation of each corner, in sides of the ground-truth box
NOT_THE_RULES = {"name", "threshold", "thresholds", "mask_size", "mask_interpolation", "pxap_bin"}
MIXED = """From the papers' own tables of results, which were not checked line by line here: GenPromp and SAT (both ICCV
2023) set numbers made under their own rules (`zhao2023_genpromp`, `wu2023_sat`) beside those of PSOL, BAS and CREAM (a
crop of 0.875, averages over classes), TS-CAM (the squashed image, averages over images) and LCTR (a crop that keeps the
aspect). GT-known numbers at a fixed τ stand beside others at the best τ on the test set itself (`choe2020_v2`,
`kim2021_ivr`, `zhu2022_dawsol`, `belharbi2022_fcam`).
"""


def jittered(dataset: Dataset, folder: Path, seed: int = 0) -> Path:
    """Boxes of a regressor that knows each object but for noise, as a table for `boxes=`."""
    random, rows = np.random.default_rng(seed), []
    for sample_id, boxes in zip(dataset.table["sample_id"], dataset.table["boxes"], strict=True):
        x0, y0, x1, y1 = boxes[0] + random.normal(0, JITTER, 4) * np.tile(boxes[0][2:] - boxes[0][:2] + 1, 2)
        rows.append((sample_id, min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)))
    path = folder / "regressor.csv"
    pd.DataFrame(rows, columns=["sample_id", "x0", "y0", "x1", "y1"]).to_csv(path, index=False)
    return path


def scored(name: str, dataset: Dataset, **sources: object) -> pd.DataFrame:
    """GT-known localization of an artifact under one preset after the other, so that only a summary is kept."""
    rows = []
    for protocol in wsol.localization.protocol_names():
        if wsol.load_protocol(protocol).ready_boxes and "boxes" not in sources:
            continue
        print(name, protocol, flush=True)
        results = wsol.score(dataset, protocols=[protocol], progress=False, **sources)  # type: ignore[arg-type]
        for row in results.summary.itertuples():
            value = f"{row.gt_known_loc:.1f}" + ("*" if str(row.threshold_source).startswith("oracle") else "")
            column = f"{name}: {row.method}"
            rows.append({"rules": protocol, "artifact": column, "gt_known_loc": row.gt_known_loc, "text": value})
    return pd.DataFrame(rows)


def sentences(values: pd.DataFrame) -> list[str]:
    """One for each artifact: the two rules that disagree most about it, and in what they differ."""
    lines = []
    for artifact in values:
        column = values[artifact].dropna()
        first, second = max(combinations(column.index, 2), key=lambda pair: abs(column[pair[0]] - column[pair[1]]))
        one, two = (asdict(wsol.load_protocol(name)) for name in (first, second))
        differ = [key for key in one if key not in NOT_THE_RULES and one[key] != two[key]]
        lines.append(
            f"- **{artifact}**: `{first}` says {column[first]:.1f} and `{second}` {column[second]:.1f}, of the same "
            f"answers; they differ in {', '.join(differ)}."
        )
    return lines


def main() -> None:
    """Score all artifacts and write table, figure and sentences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--metadata", type=Path, required=True)
    parser.add_argument("--tiny", type=Path)
    parser.add_argument("--ilsvrc", type=int, default=50_000)
    parser.add_argument("--images", type=int, default=1000)
    asked = parser.parse_args()
    cub = WSOLEvaluation(asked.metadata, "CUB", "test")
    ilsvrc = WSOLEvaluation(asked.metadata, "ILSVRC", "test").first(asked.ilsvrc)
    baselines = {"methods": ["center", "full"]}
    parts = [scored("CUB test", cub, **baselines), scored(f"ILSVRC val ({len(ilsvrc):,})", ilsvrc, **baselines)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        boxes = {"boxes": jittered(cub, folder), "box_corners": "inclusive", "box_units": "pixels"}
        parts.append(scored("CUB test", cub, **boxes))
        if asked.tiny is not None:
            tiny = TinyImageNet(asked.tiny, "val").first(asked.images)
            from wsol.models import efficientnet_lite0

            wsol.evaluate(
                tiny, efficientnet_lite0(), ["cam"], ["choe2020"], run_dir=folder / "run", report=False, pictures=0
            )
            parts.append(scored(f"Tiny-ImageNet val ({len(tiny):,})", tiny, heatmaps=folder / "run" / "heatmaps"))
    table = pd.concat(parts)
    table.to_csv(RESULTS / "rules.csv", index=False)
    values = table.pivot_table("gt_known_loc", "rules", "artifact", sort=False)
    texts = table.pivot_table("text", "rules", "artifact", aggfunc="first", sort=False).reindex(values.index).fillna("")
    head = f"| rules | {' | '.join(values)} |\n| --- |{' ---: |' * len(values.columns)}\n"
    lines = "".join(f"| {name} | {' | '.join(texts.loc[name, list(values)])} |\n" for name in values.index)
    text = (
        "# The same answers under every paper's rules\n\nGT-known localization in percent; *: τ is the best on these "
        f"very images. Made by `scripts/rules_table.py`, wsol {wsol.__version__}. The regressor is ground truth whose "
        f"corners were moved by {JITTER} of its sides (standard deviation).\n\n{head}{lines}\n"
        "## Where two rules disagree most\n\n" + "\n".join(sentences(values))
    )
    text += f"\n\n## Who mixes such rules\n\n{MIXED}\n![](rules.png)\n"
    (RESULTS / "rules.md").write_text(text, encoding="utf-8")
    figure = Figure(figsize=(7.5, 0.28 * len(values) + 1.6), layout="constrained")
    axis = figure.subplots()
    for artifact in values:
        axis.plot(values[artifact], range(len(values)), "o", label=artifact, alpha=0.8)
    axis.set_yticks(range(len(values)), list(values.index), fontsize=7)
    axis.set(xlabel="GT-known localization (%)", xlim=(0, 100))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize=7)
    figure.savefig(RESULTS / "rules.png", dpi=150)


if __name__ == "__main__":
    main()
