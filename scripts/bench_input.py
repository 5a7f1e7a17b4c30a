"""Time the way from JPEG files to the network beside torchvision's, and an evaluation beside its parts, in one run.

Run it on an idle machine, `python scripts/bench_input.py`; it prints a table and writes `results/bench_input.md`.
Everybody reads the same files of 500 x 375 pixels, which the script writes into a temporary folder. Times are medians
of rounds in which all competitors take turns, ratios are medians of those within a round.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from measure import read_options
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import models
from torchvision.transforms import v2

import wsol
from wsol.datasets import AnnotatedFolder, Dataset
from wsol.datasets.images import load_ahead, read_image
from wsol.datasets.views import View
from wsol.models import Classifier
from wsol.models.inference import choose_device

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32
CLASSES = 10
OCTAVES = {4: 60, 16: 30, 64: 15, 200: 8}  # cells across the picture: how many gray levels they differ by
VIEW = View("squash", (224, 224))
Job = Callable[[], object]


def picture(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Make up a picture that compresses as photographs do: smooth noise at several scales, and a little grain."""
    pixels = 120 + 4 * generator.standard_normal((height, width, 3), np.float32)
    for cells, levels in OCTAVES.items():
        coarse = levels * generator.standard_normal((3, cells * 3 // 4, cells), np.float32)
        smooth = [Image.fromarray(channel).resize((width, height), Image.Resampling.BICUBIC) for channel in coarse]
        pixels += np.stack([np.asarray(channel) for channel in smooth], -1)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def write_pictures(folder: Path, count: int) -> Dataset:
    """Write pictures of 500 x 375 pixels in class folders, and a table with a box for each."""
    generator = np.random.default_rng(0)
    rows = ["image,x0,y0,x1,y1"]
    for number in range(count):
        name = f"class{number % CLASSES}/{number:04}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        picture(generator, 500, 375).save(folder / name, quality=90)
        rows.append(f"{name},100,80,399,299")
    boxes = folder / "boxes.csv"
    boxes.write_text("\n".join(rows), encoding="utf-8")
    return AnnotatedFolder(folder, boxes_file=boxes, box_corners="inclusive", box_units="pixels")


def make_classifier(device: torch.device) -> Classifier:
    """Build a ResNet-18 with random weights."""
    torch.manual_seed(0)
    module = models.resnet18(num_classes=CLASSES).eval().to(device, memory_format=torch.channels_last)
    return Classifier(name="resnet18", module=module, layer="layer4", weights="random")


class Plain(TorchDataset[torch.Tensor]):
    """A torchvision pipeline as people write it."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index]).convert("RGB"))


def torchvision_loader(paths: Sequence[Path], classifier: Classifier, workers: int, first: str) -> Job:
    """A `DataLoader` whose processes stay from round to round; it resizes PIL images, or tensors."""
    resize, normalize = v2.Resize(classifier.input_size), v2.Normalize(classifier.mean, classifier.std)
    to_float = v2.ToDtype(torch.float32, scale=True)
    steps = [resize, v2.ToImage()] if first == "resize" else [v2.ToImage(), resize]
    data = Plain(paths, v2.Compose([*steps, to_float, normalize]))
    loader = DataLoader(data, BATCH, num_workers=workers, persistent_workers=workers > 0)
    return lambda: sum(len(batch) for batch in loader)


def our_loader(paths: Sequence[Path], classifier: Classifier, workers: int) -> Job:
    """What an evaluation does with an image before the network sees it."""

    def load(path: Path) -> torch.Tensor:
        return VIEW.apply(read_image(path, path.name))[0]

    def run() -> None:
        for batch in load_ahead(paths, load, BATCH, workers):
            classifier.prepare(torch.cat(batch))

    return run


def network_alone(paths: Sequence[Path], classifier: Classifier, device: torch.device) -> Job:
    """Run the forward pass on images that are there already."""
    pixels = torch.cat([VIEW.apply(read_image(path, path.name))[0] for path in paths])
    batches = [classifier.prepare(part, device) for part in pixels.split(BATCH)]

    def run() -> None:
        with torch.inference_mode():
            torch.cat([classifier.module(images) for images in batches]).cpu()

    return run


def evaluation(dataset: Dataset, classifier: Classifier, device: torch.device, workers: int) -> Job:
    """`wsol.evaluate`: input, network, Grad-CAM, scoring with one protocol, tables."""
    return lambda: wsol.evaluate(
        *(dataset, classifier, ["gradcam"], ["choe2020_v2"]),
        batch_size=BATCH, workers=workers, device=str(device), class_map="position", progress=False,
    )  # fmt: skip


def times(jobs: dict[str, Job], rounds: int) -> dict[str, np.ndarray]:
    """Let all jobs take turns; seconds of each in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for number in range(rounds + 1):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def input_rates(paths: Sequence[Path], classifier: Classifier, rounds: int) -> list[str]:
    """Ours beside torchvision, in the caller's thread alone and with a worker for each core."""
    rows = ["## Input", "", "| workers | pipeline | images/s | images/s per core | ours / it |",
            "| ---: | --- | ---: | ---: | ---: |"]  # fmt: skip
    threads = torch.get_num_threads()
    for workers in (0, threads):
        torch.set_num_threads(1 if workers == 0 else threads)
        jobs = {"ours": our_loader(paths, classifier, workers)}
        jobs["torchvision, PIL resized"] = torchvision_loader(paths, classifier, workers, "resize")
        jobs["torchvision, tensors resized"] = torchvision_loader(paths, classifier, workers, "tensor")
        seconds = times(jobs, rounds)
        for name, values in seconds.items():
            rate, ratio = len(paths) / np.median(values), np.median(values / seconds["ours"])
            rows.append(f"| {workers} | {name} | {rate:.0f} | {rate / max(workers, 1):.0f} | {ratio:.2f} |")
    torch.set_num_threads(threads)
    return [*rows, ""]


def end_to_end(
    dataset: Dataset, paths: Sequence[Path], classifier: Classifier, device: torch.device, rounds: int
) -> list[str]:
    """Compare an evaluation with its input alone and its network alone."""
    workers = torch.get_num_threads()
    jobs = {"input alone": our_loader(paths, classifier, workers)}
    jobs["network alone"] = network_alone(paths, classifier, device)
    jobs["wsol.evaluate"] = evaluation(dataset, classifier, device, workers)
    seconds = times(jobs, rounds)
    found = {name: float(len(paths) / np.median(values)) for name, values in seconds.items()}
    slower = min(("input alone", "network alone"), key=found.__getitem__)
    ratio = np.median(seconds[slower] / seconds["wsol.evaluate"])
    rows = ["## End to end", "",
            f"ResNet-18, random weights, on {device}, batch {BATCH}, {workers} workers. Alone, the network only runs "
            "its forward pass; the evaluation adds Grad-CAM, scoring with `choe2020_v2` and the tables.", "",
            "| what | images/s |", "| --- | ---: |"]  # fmt: skip
    rows += [f"| {name} | {rate:.1f} |" for name, rate in found.items()]
    rows += ["", f"`wsol.evaluate` runs at {ratio:.2f} times the slower of the two."]
    if device.type == "cpu":
        shared = 1 / (1 / found["input alone"] + 1 / found["network alone"])
        rows.append(
            "On a CPU both need the same cores: one after the other they would reach "
            f"{shared:.1f} images/s, {shared / found[slower]:.2f} times the slower, scoring not counted."
        )
    return [*rows, ""]


def draft(folder: Path) -> list[str]:
    """Measure what decoding at a smaller scale changes in the network's input."""
    generator, rows = np.random.default_rng(1), ["## Scaled decoding", ""]
    rows += ["| file | decoded at | largest difference, gray levels | mean | values that differ by more than 1 |",
             "| --- | --- | ---: | ---: | ---: |"]  # fmt: skip
    for width, height in ((500, 375), (1000, 750), (2000, 1500)):
        path = folder / f"draft{width}.jpg"
        picture(generator, width, height).save(path, quality=90)
        with Image.open(path) as scaled:
            scaled.draft("RGB", VIEW.input_size)
            size, pixels = scaled.size, VIEW.apply(np.asarray(scaled))[0].short()
        gap = (pixels - VIEW.apply(read_image(path, path.name))[0].short()).abs()
        rows.append(
            f"| {width} × {height} | {size[0]} × {size[1]} | {gap.max()} | {gap.float().mean():.2f} | "
            f"{(gap > 1).float().mean():.1%} |"
        )
    return [
        *rows, "",
        "`Image.draft` halves only while the picture stays larger than the input, so it would do nothing at "
        "500 × 375; where it works it changes the input by more than rounding, of these smooth pictures already, "
        "so it is not used.", "",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "bench_input.md")
    asked = read_options(parser)
    device = choose_device(asked.device)
    logging.getLogger("wsol").setLevel(logging.ERROR)  # random weights give maps that are worth a warning elsewhere
    rows = [
        "# Input: speed", "",
        f"`python scripts/bench_input.py --rounds {asked.rounds}`: medians in one run, all competitors in turn, ratios "
        "within each turn; images squashed to 224 × 224.",
        "",
        f"{torch.get_num_threads()} threads, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f} when it "
        f"began; torch {torch.__version__}, torchvision {torchvision.__version__}, Pillow {Image.__version__}.", "",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        dataset, classifier = write_pictures(Path(name), asked.images), make_classifier(device)
        paths = [sample.image for sample in dataset if isinstance(sample.image, Path)]
        mean = statistics.mean(path.stat().st_size for path in paths) / 1000
        rows += [f"{len(paths)} JPEG files of 500 × 375 pixels, quality 90, {mean:.0f} kB on average.", ""]
        rows += input_rates(paths, classifier, asked.rounds)
        rows += end_to_end(dataset, paths, classifier, device, asked.rounds) + draft(Path(name))
    text = "\n".join(rows)
    print(text)
    asked.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
