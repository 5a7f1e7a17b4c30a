"""Time a whole evaluation beside decoding, network with heatmaps, scoring, and write results/bench_pipeline.md.

python scripts/bench_pipeline.py [--images 2000] [--batch 64] [--workers 2] [--device auto] [--anyway]

ResNet-18 at 224, seven map methods of one recording and the center, four protocols, JPEG files of 500 x 375 pixels. On
a CPU the wall should be at most 1.1 times the stages' processor seconds over the cores, on a GPU 1.1 times the longest
stage.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from pathlib import Path

import torch
from bench_input import make_classifier, our_loader, write_pictures
from measure import Seconds, read_options, timed

import wsol
from wsol.datasets import Dataset
from wsol.datasets.classes import map_classes
from wsol.heatmaps.collect import Recorder
from wsol.heatmaps.method import expand_layers, make_method
from wsol.metrics.scoring import Scorer
from wsol.models import Classifier
from wsol.models.inference import choose_device

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("cam", "gradcam", "gradcampp", "xgradcam", "hirescam", "layercam", "gradcamelementwise", "center")
PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016", "exact")


def stages(
    dataset: Dataset, classifier: Classifier, device: torch.device, batch: int, workers: int
) -> dict[str, Seconds]:
    """Time each stage alone; what the network's takes is without the decoding, which is timed before."""
    paths = [sample.image for sample in dataset if isinstance(sample.image, Path)]
    found = {"decoding": timed(our_loader(paths, classifier, workers))}
    class_map = map_classes(dataset.classes, dataset.ids, None, None, len(dataset.classes), "position")
    methods = expand_layers({name: make_method(name) for name in METHODS})
    options = {"batch_size": batch, "workers": workers, "device": device}
    parts: list = []
    with Recorder(dataset, classifier, methods, class_map, **options) as recorder:  # type: ignore[arg-type]
        both = timed(lambda: parts.extend(recorder.record([range(len(dataset))])))
    both = Seconds(*(max(one - other, 0.0) for one, other in zip(both, found["decoding"], strict=True)))
    found["network and heatmaps"] = both
    rules = {name: wsol.load_protocol(name).for_dataset().for_many_maps() for name in PROTOCOLS}
    scorer = Scorer(dataset, rules)
    found["scoring"] = timed(lambda: scorer.score(parts[0][0], range(len(dataset)), workers))
    return found


def report(options: argparse.Namespace) -> str:
    device, cores = choose_device(options.device), os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "images").mkdir()
        dataset, classifier = write_pictures(Path(name) / "images", options.images), make_classifier(device)
        shared = {"batch_size": options.batch, "workers": options.workers, "device": str(device), "pictures": 0,
                  "class_map": "position", "progress": False, "report": False}  # fmt: skip
        wsol.evaluate(dataset, classifier, METHODS, PROTOCOLS, **(shared | {"limit": options.batch}))  # warms up
        of = stages(dataset, classifier, device, options.batch, options.workers)
        whole = timed(
            lambda: wsol.evaluate(dataset, classifier, METHODS, PROTOCOLS, run_dir=Path(name) / "run", **shared)
        )
    bound = sum(cpu for _, cpu in of.values()) / cores if device.type == "cpu" else max(wall for wall, _ in of.values())
    rows = [f"| {stage} | {wall:.1f} | {cpu:.1f} |" for stage, (wall, cpu) in (of | {"wsol.evaluate": whole}).items()]
    return "\n".join([
        "# The whole pipeline beside its stages", "",
        f"`python scripts/bench_pipeline.py`: {options.images} images, batch {options.batch}, {options.workers} "
        f"workers, on {device}; {options.load}.", "",
        "| stage | wall, s | processor, s |", "| --- | ---: | ---: |", *rows, "",
        f"Bound {bound:.1f} s; the evaluation, tables and all, takes {whole.wall / bound:.2f} times that.", "",
    ])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("images", 2000), ("batch", 64), ("workers", os.cpu_count() or 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench_pipeline.md")
    options = read_options(parser)
    logging.disable(logging.WARNING)
    text = report(options)
    print(text)
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
