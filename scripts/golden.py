"""The gate of a redesign: the program still makes the same numbers.

    python scripts/golden.py tables [--write FILE]        # from stored maps: a hash of every table, page and comparison
    python scripts/golden.py networks OUT                 # from networks: heatmaps and tables, written to OUT
    python scripts/golden.py differences OLD NEW          # what moved between two such folders, cell by cell

`tables` needs no network: its maps, masks and boxes are made of whole numbers, so its hashes are those of
`tests/golden/tables.json` on every machine. `networks` is run once with an older checkout on PYTHONPATH and once with
this one, on one machine.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd

import wsol
from wsol import cli
from wsol.datasets import Shapes

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016", "selvaraju2017", "gao2021", "exact")
TABLES = ("summary", "metrics", "sensitivity", "per_image", "curves", "sweeps", "samples", "resamples")
STRATA = "^gt_known_loc_(?:size|instances)_"
ONE_PASS = (
    "cam", "gradcam", "gradcampp", "gradcamelementwise", "xgradcam", "hirescam", "layercam", "eigencam",
    "eigengradcam", "kpcacam", "finercam", "fem", "shapleycam",
)  # fmt: skip
PASSES = ("scorecam", "ablationcam", "rise", "occlusion", "fullgrad", "saliency", "guidedbackprop", "smoothgradcampp")
NETWORKS = {
    "resnet18": (*ONE_PASS, *PASSES),
    "vgg11": ("gradcam", "gradcampp", "layercam", "scorecam", "guidedgradcam", "deconvnet"),
    "mobilenet_v2": ("cam", "gradcam", "hirescam", "ablationcam", "fullgrad", "integratedgradients"),
    "densenet121": ("cam", "gradcam", "xgradcam", "finercam", "ablationcam"),
    "convnext_tiny": ("cam", "gradcam", "layercam", "smoothgrad"),
    "vit_b_16": ("gradcam", "hirescam", "rollout", "legrad"),
    "swin_t": ("cam", "gradcam", "eigencam"),
}


class Drawn(wsol.Dataset):
    """Pictures that are not there, with boxes, and masks of two rectangles, all of whole numbers."""

    name, split, role = "drawn", "val", "train-fullsup"

    def __init__(self, length: int = 40, masks: bool = True, several: bool = False, split: str = "val") -> None:
        self.classes = tuple(f"class {label}" for label in range(7))
        self.length, self.masks, self.multilabel, self.split = length, masks, several, split
        self.role = "test" if split == "test" else "train-fullsup"

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> wsol.Sample:
        draw = np.random.Generator(np.random.PCG64(1000 * index + len(self.split)))
        width, height = (int(value) for value in draw.integers(40, 90, 2))
        corners = draw.integers(0, 20, (1 + index % 3, 4)) + np.array([0, 0, 20, 20])  # inside 40 x 40
        image_id, label = f"{self.split}/{index // 2 if self.multilabel else index}", int(draw.integers(7))
        if self.multilabel:  # the size is the image's, which two samples share
            width, height, label = 60 + index // 2, 50, index % 7
        mask = np.zeros((height, width), bool)
        for x0, y0, x1, y1 in corners:
            mask[y0 : y1 + 1, x0 : x1 + 1] = True
        ignore = np.zeros_like(mask)
        ignore[:3] = True
        return wsol.Sample(
            sample_id=f"{image_id}#{self.classes[label]}" if self.multilabel else image_id,
            image_id=image_id,
            label=label,
            image=lambda: np.full((height, width, 3), 100, np.uint8),
            image_size=(width, height),
            boxes=corners.astype(float),
            mask=mask if self.masks else None,
            ignore=ignore if self.masks and index % 2 else None,
        )


def write_maps(folder: Path, dataset: wsol.Dataset, shape: tuple[int, int], raw: bool, missing: int = -1) -> Path:
    """Write a map of whole multiples of 1 / 256 for each sample: noise under a hill, one of them constant."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for index in range(len(dataset)):
        draw = np.random.Generator(np.random.PCG64(index))
        y, x = draw.integers(0, shape[0]), draw.integers(0, shape[1])
        hill = 200 - 8 * ((rows - y) ** 2 + (columns - x) ** 2)
        levels = np.clip(hill + draw.integers(0, 56, shape), 0, 255) - (64 if raw else 0)
        if index == 5:
            levels[:] = 17
        if index != missing:
            path = folder / f"{dataset[index].sample_id}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, levels / 256)
    return folder


def write_predictions(path: Path, dataset: wsol.Dataset) -> Path:
    """Write logits of whole numbers, all different, for each sample."""
    draw = np.random.Generator(np.random.PCG64(7))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", *dataset.classes])
        for index in range(len(dataset)):
            logits = draw.permutation(len(dataset.classes))
            logits[dataset[index].label] += 3
            writer.writerow([dataset[index].sample_id, *logits])
    return path


def digest(content: bytes) -> str:
    """First sixteen digits of a SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def table_digest(table: pd.DataFrame) -> str:
    """Hash a table's columns and cells, numbers to twelve digits: exp's last bit depends on the processor."""
    plain = table.copy()
    for name, column in table.items():
        if column.dtype.kind == "f":  # what to_csv makes of a number, in a fraction of its time
            texts = [f"{value:.12g}" if value == value else "" for value in column.tolist()]
            plain[name] = pd.Series(texts, column.index, object)
        elif column.dtype == object and column.map(lambda cell: isinstance(cell, np.ndarray | list)).any():
            plain[name] = [json.dumps(np.asarray(cell).tolist()) for cell in column]
    return digest(plain.to_csv(index=False, lineterminator="\n").encode())


def rounded(value: Any) -> Any:
    """Round every number in what JSON holds to twelve digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def page_digests(page: Path) -> dict[str, str]:
    """Hash the data that a page's scripts draw from."""
    pattern = re.compile(r'<script type="application/json" id="([\w-]+)">(.*?)</script>', re.DOTALL)
    pairs = pattern.findall(page.read_text(encoding="utf-8"))
    return {name: digest(json.dumps(rounded(json.loads(text)), sort_keys=True).encode()) for name, text in pairs}


def run_digests(results: wsol.Results, folder: Path) -> dict[str, str]:
    """Hash the tables of a run, in memory and as its folder has them, and its page's data."""
    tables = {name: getattr(results, name) for name in TABLES}
    for name in ("summary", "metrics", "sensitivity"):
        tables[f"{name}.csv"] = pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
    for name in ("metrics", "metrics.csv"):  # strata came later, so they stand apart
        of_strata = tables[name]["metric"].str.contains(STRATA)
        tables[f"{name} strata"], tables[name] = tables[name][of_strata], tables[name][~of_strata]
    digests = {name: table_digest(table) for name, table in tables.items()}
    # What stands below is the version's and other people's: how rows are cited, published numbers.
    digests["summary.md"] = digest((folder / "summary.md").read_bytes().partition(b"\nRules: ")[0])
    for name in ("per_image", "curves", "sweeps", "samples"):
        digests[f"{name}.parquet"] = table_digest(pd.read_parquet(folder / f"{name}.parquet"))
    if (folder / "report.html").is_file():
        digests |= {f"report.html {name}": value for name, value in page_digests(folder / "report.html").items()}
    return digests


def cub_of_golden(root: Path) -> tuple[wsol.Dataset, Path]:
    """Hundred images of CUB in wsolevaluation's layout, and a score map of each."""
    golden = np.load(GOLDEN / "cub_val_100.npz")
    with (GOLDEN / "cub_val_100.csv").open() as file:
        rows = list(csv.DictReader(file))
    folder = root / "metadata" / "CUB" / "val"
    folder.mkdir(parents=True)
    sizes = {row["image_id"]: (row["width"], row["height"]) for row in rows}
    lines = {
        "image_ids": list(sizes),
        "class_labels": [f"{name},{int(name[:3]) - 1}" for name in sizes],
        "image_sizes": [f"{name},{width},{height}" for name, (width, height) in sizes.items()],
        "localization": [",".join(row[key] for key in ("image_id", "x0", "y0", "x1", "y1")) for row in rows],
    }
    for name, content in lines.items():
        (folder / f"{name}.txt").write_text("\n".join(content))
    for name, levels in zip(golden["image_ids"], golden["heatmaps_uint8"], strict=True):
        path = root / "maps" / f"{name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, levels / 255.0)
    return wsol.datasets.WSOLEvaluation(root=root, name="CUB", split="val"), root / "maps"


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Work in a folder, so that tables that name a run name it alike everywhere."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def table_digests() -> dict[str, dict[str, str]]:
    """Hash everything that is made from stored maps: by run, by table."""
    undrawn = "wsol.report.page.draw_figures"  # no figure is hashed, and they take the longest
    with tempfile.TemporaryDirectory() as name, working_in(Path(name)), patch(undrawn):
        return _table_digests()


def _table_digests() -> dict[str, dict[str, str]]:
    digests: dict[str, dict[str, str]] = {}

    def score(name: str, dataset: wsol.Dataset, heatmaps: Path | None, **options: Any) -> None:
        more: dict[str, Any] = {"report": False, "progress": False, "workers": 1} | options
        results = wsol.score(dataset, heatmaps, PROTOCOLS, run_dir=Path(name), **more)
        digests[name] = run_digests(results, Path(name))

    baselines, data = ["center", "full", "random"], Drawn()
    raw = write_maps(Path("raw"), data, (7, 7), raw=True)
    logits = write_predictions(Path("logits.csv"), data)
    score("raw", data, raw, heatmaps_kind="raw", methods=baselines, predictions=logits, report=True)
    maps = write_maps(Path("maps"), data, (30, 20), raw=False, missing=3)
    score("skipped", data, maps, on_error="skip", predictions=logits)
    test = Drawn(length=30, split="test", masks=False)
    score("test", test, write_maps(Path("test_maps"), test, (7, 7), raw=True), heatmaps_kind="raw",
          heatmaps_name="raw", threshold_from="raw")  # fmt: skip
    several = Drawn(length=20, several=True)
    score("several", several, write_maps(Path("several_maps"), several, (9, 9), raw=False), methods=["center"])
    score("baselines", Shapes(length=12), None, methods=baselines, report=True)
    cub, cub_maps = cub_of_golden(Path("cub"))
    score("cub", cub, cub_maps)
    words = ["runs=[raw,skipped]", "run_dir=compared", "resamples=200"]
    with redirect_stdout(io.StringIO()):
        status = cli.main(["compare", *words])
    if status:
        raise SystemExit("wsol compare failed")
    digests["compared"] = {"compare.csv": table_digest(pd.read_csv("compared/compare.csv", keep_default_na=False))}
    digests["compared"] |= page_digests(Path("compared/compare.html"))
    return digests


def write_networks(folder: Path) -> None:
    """Write heatmaps and tables of networks with random weights, all methods, on a few generated images."""
    import torch

    from wsol.models import Classifier, shapes_classifier, torchvision_classifier

    torch.set_num_threads(1)
    shapes, methods = Shapes(length=60), [*ONE_PASS, "center", "random", "full"]
    wsol.evaluate(shapes, shapes_classifier(), methods, PROTOCOLS, run_dir=folder / "shapes", progress=False)
    for view, flip in (("crop", True), ("tencrop", False)):
        run_dir = folder / f"shapes_{view}"
        wsol.evaluate(
            Shapes(length=8), shapes_classifier(), ["cam", "gradcam"], PROTOCOLS, view=view, flip=flip,
            run_dir=run_dir, progress=False,
        )  # fmt: skip
    images = Shapes(length=3)
    for name, chosen in NETWORKS.items():
        size = 224 if name == "vit_b_16" else 96
        classifier: Classifier = torchvision_classifier(name, weights=None, num_classes=10, seed=0, input_size=size)
        wsol.evaluate(
            images, classifier, chosen, ["choe2020"], class_map="position", run_dir=folder / name, seed=3,
            progress=False, report=False, pictures=0,
        )  # fmt: skip
        print(name, flush=True)


def differences(old: Path, new: Path) -> list[str]:
    """Name everything that differs between two folders of `networks`: heatmaps, and cells of tables."""
    lines = []
    for path in sorted(old.rglob("*.npy")):
        before, after = np.load(path).astype(float), np.load(new / path.relative_to(old)).astype(float)
        gap = float(np.abs(before - after).max() / max(np.abs(before).max(), 1e-300)) if before.size else 0.0
        if gap:
            lines.append(f"{path.relative_to(old)}: {gap:.1e} of the maximum, {(before != after).sum()} values")
    for path in sorted(path for path in old.rglob("*") if path.suffix in (".csv", ".parquet")):
        read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
        before, after = (read(root / path.relative_to(old)) for root in (old, new))
        if list(before.columns) != list(after.columns) or len(before) != len(after):
            lines.append(f"{path.relative_to(old)}: {before.shape} became {after.shape}")
            continue
        for column in before.columns:
            texts = [[repr(np.asarray(cell).tolist()) for cell in table[column]] for table in (before, after)]
            rows = [row for row, pair in enumerate(zip(*texts, strict=True)) if pair[0] != pair[1]]
            if rows:
                lines.append(
                    f"{path.relative_to(old)}: {column} differs in {len(rows)} of {len(before)} rows, "
                    f"first {texts[0][rows[0]]} became {texts[1][rows[0]]}"
                )
    return lines


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tables").add_argument("--write", type=Path)
    commands.add_parser("networks").add_argument("out", type=Path)
    both = commands.add_parser("differences")
    both.add_argument("old", type=Path)
    both.add_argument("new", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "networks":
        write_networks(arguments.out)
    elif arguments.command == "differences":
        lines = differences(arguments.old, arguments.new)
        print("\n".join(lines) or "nothing differs")
        sys.exit(bool(lines))
    else:
        text = json.dumps(table_digests(), indent=1) + "\n"
        if arguments.write:
            arguments.write.write_text(text)
        else:
            print(text, end="")


if __name__ == "__main__":
    main()
