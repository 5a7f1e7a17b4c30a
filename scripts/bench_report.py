"""Time the report of a large run on synthetic tables, and write results/bench_report.md.

python scripts/bench_report.py [--images 50000] [--methods cam gradcam center] [--out results/bench_report.md]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from measure import read_options

from wsol.heatmaps.store import GENERATED, HeatmapStore, save_heatmaps
from wsol.io import write_text
from wsol.localization import load_protocol
from wsol.tables import METRIC_COLUMNS, SUMMARY_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
RUNS = 140  # of a sweep: as many as Shapes' heatmaps have on average
SIDE = 224
PROTOCOLS = ("choe2020", "choe2020_v2")
KINDS = ("right", "part", "too_much", "elsewhere", "wrong_class")
WORKER = """
import resource, sys, time
import numpy as np
from wsol.datasets import Sample
from wsol.datasets.sample import Dataset
from wsol.report.page import write_report
class Noise(Dataset):
    name, split, classes = "noise", "val", ("one",)
    def __len__(self):
        return int(sys.argv[2])
    def __getitem__(self, index):
        pixels = lambda: np.random.default_rng(index).integers(0, 256, (375, 500, 3), np.uint8)
        return Sample(sample_id=f"val/{index:06d}", label=0, image=pixels)
start = time.perf_counter()
page = write_report(sys.argv[1], Noise())
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, page.stat().st_size)
"""


def write_run(folder: Path, images: int, methods: Sequence[str], classes: int = 1000, map_size: int = 14) -> None:
    """Write the tables and heatmaps of a run that never was, without intervals."""
    folder.mkdir(parents=True, exist_ok=True)
    random, grid = np.random.default_rng(0), load_protocol(PROTOCOLS[0]).grid()
    ids = [f"val/{index:06d}" for index in range(images)]
    labels = np.arange(images) % classes
    names = np.array([f"class {label}" for label in range(classes)], object)
    rank = np.where(random.random(images) < 0.75, 0, random.integers(1, 20, images))
    x0, y0 = random.integers(0, 150, (2, images))
    boxes = np.stack([x0, y0, x0 + random.integers(50, 349, images), y0 + random.integers(50, 224, images)], axis=1)
    samples = pd.DataFrame({"sample_id": ids, "image_id": ids, "label": labels, "class": names[labels], "rank": rank})
    samples = samples.assign(width=500, height=375, true_boxes=list(boxes.astype(float)))
    samples.to_parquet(folder / "samples.parquet", index=False)
    summary, metrics, curves, per_image, writer = [], [], [], [], None
    for method in methods:
        for protocol in PROTOCOLS:
            sweep = _sweep(random, ids, grid)
            table = pa.Table.from_pandas(sweep.assign(method=method, protocol=protocol), preserve_index=False)
            writer = writer or pq.ParquetWriter(folder / "sweeps.parquet", table.schema)
            writer.write_table(table)
            iou = sweep.groupby("sample_id", sort=False)["iou"].max().to_numpy()
            own, values = {"method": method, "protocol": protocol}, 100 * float((iou >= 0.5).mean())
            summary.append(own | {"dataset": "noise", "split": "val", "model": "none", "layer": "", "view": "squash",
                "n_images": images, "n_samples": images, "threshold": 0.3, "threshold_source": "oracle",
                "top1_cls": 75.0, "top1_loc": values, "gt_known_loc": values, "mean_iou": 100 * iou.mean(),
                "max_box_acc_30": values, "max_box_acc_50": values, "max_box_acc_70": values})  # fmt: skip
            metrics += _metrics(random, own, names)
            curves += [_curve(own, delta, grid, values) for delta in (0.3, 0.5, 0.7)]
            kinds = np.array(KINDS, object)[random.integers(0, len(KINDS), images)]
            per_image.append(pd.DataFrame(own | {"sample_id": ids, "iou": iou, "gt_known_loc": iou >= 0.5,
                                                 "error_kind": kinds}))  # fmt: skip
    if writer is not None:
        writer.close()
    pd.concat(per_image).to_parquet(folder / "per_image.parquet", index=False)
    pd.concat(curves).to_parquet(folder / "curves.parquet", index=False)
    pd.DataFrame(summary).reindex(columns=list(SUMMARY_COLUMNS)).to_csv(folder / "summary.csv", index=False)
    pd.DataFrame(metrics).reindex(columns=list(METRIC_COLUMNS)).to_csv(folder / "metrics.csv", index=False)
    rules = {name: asdict(load_protocol(name)) for name in PROTOCOLS}
    plain = json.loads(json.dumps({"protocols": rules}))
    (folder / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    (folder / "environment.json").write_text('{"source": {"dataset": "noise"}}', encoding="utf-8")
    _heatmaps(folder, ids, methods, map_size)


def _sweep(random: np.random.Generator, ids: Sequence[str], grid: np.ndarray) -> pd.DataFrame:
    """Boxes that shrink and IoUs that rise and fall, as the threshold rises."""
    count = len(ids)
    first = random.integers(1, 2 * len(grid) // RUNS, (count, RUNS)).cumsum(axis=1)
    first -= first[:, :1]
    kept = first < len(grid)
    tau = first / len(grid)
    best, peak = random.random((count, 1)) * 0.6, 0.3 + 0.6 * random.random((count, 1))
    lost = (tau * 100).astype(np.float32)
    table = pd.DataFrame({"sample_id": np.repeat(np.array(ids, object), kept.sum(axis=1)), "threshold": tau[kept]})
    for name, edge in (("x0", lost), ("y0", lost), ("x1", SIDE - 1 - lost), ("y1", SIDE - 1 - lost)):
        table[name] = np.floor(edge)[kept]
    return table.assign(iou=(peak * np.exp(-(((tau - best) / 0.3) ** 2)))[kept])


def _metrics(random: np.random.Generator, own: dict[str, str], names: np.ndarray) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [own | {"metric": f"error_{kind}", "class": "", "value": 20.0} for kind in KINDS]
    for metric in ("gt_known_loc", "top1_loc", "mean_iou", "top1_cls"):
        values = 100 * random.random(len(names))
        rows += [
            own | {"metric": metric, "class": name, "value": value} for name, value in zip(names, values, strict=True)
        ]
    return rows


def _curve(own: dict[str, str], delta: float, grid: np.ndarray, peak: float) -> pd.DataFrame:
    values = peak * np.exp(-(((grid - 0.3) / 0.3) ** 2))
    return pd.DataFrame(own | {"iou_threshold": delta, "threshold": grid, "gt_known_loc": values})


def _heatmaps(folder: Path, ids: list[str], methods: Sequence[str], size: int) -> None:
    known = {name: {"function": name if name == "center" else "cam", "layer": "layer4"} for name in methods}
    store = HeatmapStore(list(ids), known, {"dataset": "noise"})
    store.placement[:] = (500, 375, 0, 0, 500, 375)
    for name in methods:
        if store.kind(name) in GENERATED:
            continue
        for start in range(0, len(ids), 1000):
            rows = range(start, min(start + 1000, len(ids)))
            store.add(name, rows, torch.rand(len(rows), size, size).numpy())
    save_heatmaps([store], len(ids), folder / "heatmaps")


def measure(folder: Path, images: int) -> tuple[float, float, int]:
    """Seconds, MiB at the most and bytes of the page, in a process of its own."""
    words = [sys.executable, "-c", WORKER, str(folder), str(images)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(words, check=True, capture_output=True, text=True, env=environment).stdout.split()
    return float(said[0]), float(said[1]), int(said[2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[5_000, 50_000])
    parser.add_argument("--methods", nargs="+", default=["cam", "gradcam", "center"])
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench_report.md")
    options = read_options(parser)
    lines = []
    for images in options.images:
        with tempfile.TemporaryDirectory() as folder:
            # In a process of its own: one that is started here would inherit this one's peak of memory.
            writer = multiprocessing.get_context("spawn").Process(
                target=write_run, args=(Path(folder), images, options.methods)
            )
            writer.start()
            writer.join()
            sweeps = pq.read_metadata(Path(folder) / "sweeps.parquet").num_rows
            spent, memory, size = measure(Path(folder), images)
        lines.append(f"| {images:,} | {sweeps:,} | {spent:.1f} | {memory:,.0f} | {size / 1e6:.1f} |")
        print(lines[-1], flush=True)
    about = (
        f"Made by `python scripts/bench_report.py`: synthetic tables of {len(options.methods)} methods "
        f"({', '.join(options.methods)}) under\n{' and '.join(PROTOCOLS)}, 1,000 classes, no intervals in them, so "
        f"that the report draws its 2,000 resamples itself; page,\nfigures and gallery, in a process of its own."
    )
    machine = f"Python {platform.python_version()}, {options.load}."
    head = "| images | rows of sweeps.parquet | s | MiB at the most | page, MB |\n| ---: | ---: | ---: | ---: | ---: |"
    parts = ("# The report of a large run", about, machine, "\n".join([head, *lines]))
    write_text(options.out, "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
