"""How memory and disk grow with the samples of a run, and what the tables of a large run take: results/soak.md.

python scripts/soak.py [run | tables] [--small 2000 --large 50000] [--samples 50000 --methods 30]
                       [--out results/soak.md]

run: recording and scoring of generated images of one color, a network of one convolution, five methods under six
protocols, with boxes and with masks. tables: join, tables and page from generated parts, the scores of one shard of
noise again and again for every method. Each in a process of its own, whose peak of resident memory is read on the way
and at its end.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import wsol
from wsol.datasets import Dataset, Sample
from wsol.engine import Options, _write_run
from wsol.heatmaps.store import HeatmapStore, samples_table
from wsol.io import write_yaml
from wsol.metrics.scoring import MethodScores, Scorer, ShardScores, ground_truth_boxes
from wsol.shards import Part, Shards
from wsol.tables import SampleTable, make_tables

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("cam", "gradcam", "hirescam", "layercam", "random")
PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016", "selvaraju2017", "gao2021", "exact")
SIZE = 64  # of the images


class Plain(Dataset):
    """Images of one color, each with a box or with its mask."""

    name, split, classes = "plain", "test", tuple(f"class {number}" for number in range(10))

    def __init__(self, length: int, masks: bool = False) -> None:
        self.length, self.masks = length, masks

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if index >= self.length:
            raise IndexError(index)
        x, y = index % 24, index // 24 % 24
        box = np.array([[x, y, x + 30, y + 30]])
        mask = {"mask": lambda: _mask(x, y)} if self.masks else {"boxes": box}
        image = lambda: np.full((SIZE, SIZE, 3), index % 251, np.uint8)  # noqa: E731
        return Sample(sample_id=f"image {index:07}", label=index % 10, image=image, image_size=(SIZE, SIZE), **mask)


def _mask(x: int, y: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[y : y + 31, x : x + 31] = True
    return mask


def peak() -> int:
    """Peak of this process's resident memory, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident() -> int:
    """Resident memory of this process now, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def run(count: int, masks: bool) -> dict[str, Any]:
    """Evaluate a generated set; peaks when the last shard is written, and at the end."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3, stride=8), nn.ReLU())
    network = nn.Sequential(layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()
    model = wsol.models.Classifier(name="plain", module=network, layer="0", input_size=(SIZE, SIZE))
    found: dict[str, Any] = {}
    sizes: list[int] = []  # when each shard is written
    keep, join = Shards._keep, Shards.join_heatmaps

    def keeping(shards: Shards, number: int, part: Part) -> None:
        keep(shards, number, part)
        sizes.append(resident())

    def noting(shards: Shards) -> tuple[HeatmapStore, pd.DataFrame]:
        growth = sizes[-1] - sizes[len(sizes) // 5]
        found.update(growth=growth, scored=peak(), parts=size_of(shards.work))
        return join(shards)

    Shards._keep = keeping  # type: ignore[assignment,method-assign]
    Shards.join_heatmaps = noting  # type: ignore[assignment,method-assign]
    with tempfile.TemporaryDirectory() as folder:
        more: dict[str, Any] = {"report": False, "pictures": 0, "progress": False, "class_map": "position"}
        wsol.evaluate(Plain(count, masks), model, METHODS, PROTOCOLS, run_dir=folder, **more)
        return found | {"peak": peak(), "disk": size_of(Path(folder))}


def tables(count: int, methods: int) -> dict[str, Any]:
    """Make the tables of so many samples and methods from generated parts."""
    data, shard = Plain(count), range(min(512, count))
    protocols = {name: wsol.load_protocol(name).for_dataset("plain").for_many_maps() for name in PROTOCOLS}
    scorer, generator = Scorer(data, protocols), np.random.default_rng(0)
    store = HeatmapStore([f"image {index:07}" for index in range(count)], {"noise": {"function": "noise", "layer": ""}})
    store.place(range(count), (SIZE, SIZE), (0.0, 0.0, SIZE, SIZE))
    store.add("noise", shard, generator.random((len(shard), 14, 14)))
    scores = scorer.score(store, shard, 2)["noise"]
    names = {f"method {number}": {"function": "noise", "layer": ""} for number in range(methods)}
    store.methods, store._maps = names, dict.fromkeys(names, store._maps["noise"])
    ranks = {index: (index % 7, np.arange(5, dtype=np.int32), np.full(5, 0.1, np.float32)) for index in range(count)}
    table = SampleTable(samples_table(data, store, ranks), ground_truth_boxes(data), data.classes, False, True)
    with tempfile.TemporaryDirectory() as folder:
        with Shards(data, 512, {}, folder, {}) as shards:
            for number, part in enumerate(shards.ranges):
                sweeps = {name: packed.take(packed.sample < len(part)) for name, packed in scores.sweeps.items()}
                sweeps = {name: of._replace(sample=of.sample + np.int32(part.start)) for name, of in sweeps.items()}
                moved = ShardScores(sweeps, {}, scores.numbers[: len(part)])
                shards._keep(number, Part(None, None, dict.fromkeys(names, moved)))
            before, parts, begun = peak(), size_of(shards.work), time.process_time()
            thresholds: Any = {(method, name): (None, "oracle") for method in names for name in protocols}
            source = {"dataset": "plain", "split": "test", "model": "plain", "view": "squash"}
            scored: Iterator[MethodScores] = shards.join_scores(scorer, names)
            results = make_tables(scored, table, protocols, thresholds, source, Path(folder))
            seconds, peaks = time.process_time() - begun, {"before": before, "tables": peak()}
            results.environment = {"source": source, "cite": {}, "notes": []}
            config = {"protocols": {name: asdict(protocol) for name, protocol in protocols.items()}}
            write_yaml(Path(folder) / "config.yaml", config)
            _write_run(results, data, store, config, Options())
        return peaks | {"peak": peak(), "parts": parts, "disk": size_of(Path(folder)), "cpu": seconds}


def measured(*words: object) -> dict[str, Any]:
    """What a process of its own measures."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--do", *map(str, words)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    print(*words, done.stdout.strip(), flush=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def runs(options: argparse.Namespace) -> list[str]:
    """Recording and scoring of few images and of many."""
    lines = [
        "Five methods, six protocols; MB, and what each image more takes. Growth is that of resident memory while",
        "shards are recorded and scored, from the first fifth of them to the last.", "",
        "| ground truth | images | growth | peak while recording and scoring | peak | parts | run |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]  # fmt: skip
    names = ("growth", "scored", "peak", "parts", "disk")
    for kind in ("boxes", "masks"):
        small, large = (measured("run", count, kind) for count in (options.small, options.large))
        for count, of in ((options.small, small), (options.large, large)):
            lines.append(f"| {kind} | {count:,} | {' | '.join(f'{of[name] / 1e6:,.1f}' for name in names)} |")
        more = {name: (large[name] - small[name]) / (options.large - options.small) for name in names}
        more["growth"] = large["growth"] / (0.8 * options.large)
        lines.append(f"| {kind} | one more | {' | '.join(f'{value / 1e3:.2f} KB' for value in more.values())} |")
    return lines


def joined(options: argparse.Namespace) -> list[str]:
    """Tables and page from generated parts."""
    of = measured("tables", options.samples, options.methods)
    mb = {name: f"{value / 1e6:,.0f} MB" for name, value in of.items()}
    return [
        f"Tables and page of {options.samples:,} samples, {options.methods} methods and six protocols from generated "
        f"parts ({mb['parts']}):", f"resident memory {mb['before']} before, at most {mb['tables']} with the tables and "
        f"{mb['peak']} with page and pictures;", f"{of['cpu']:,.0f} s of CPU time for the tables; {mb['disk']} with "
        "the parts.",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["run", "tables", "all"], default="all")
    for name, value in (("small", 2000), ("large", 50_000), ("samples", 50_000), ("methods", 30)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "soak.md")
    parser.add_argument("--do", nargs=3, metavar="WORD", help="what a process of its own measures")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.do:
        kind, count, more = options.do
        print(json.dumps(run(int(count), more == "masks") if kind == "run" else tables(int(count), int(more))))
        return
    parts = [part(options) for name, part in (("run", runs), ("tables", joined)) if options.what in (name, "all")]
    lines = [
        "# Memory and disk",
        "",
        "Made by `python scripts/soak.py`.",
        *(line for part in parts for line in ("", *part)),
    ]
    text = "\n".join([*lines, ""])
    print(text)
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
