"""Check and time a GPU, in one command of at most six minutes on a bare machine with torch: results/gpu.md.

python scripts/gpu_check.py [--device cuda] [--batch 128] [--images 4000] [--workers 16]

ResNet-50 at 224, channels-last, without and with autocast: images a second of the forward pass, of Grad-CAM, of eight
methods; its heatmaps beside the CPU's; and a whole evaluation of generated JPEG files. A rehearsal on a CPU:
--device cpu --batch 2 --images 8 --workers 1 --rounds 1
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from bench_input import write_pictures
from torchvision import models

import wsol
from wsol.models import Classifier

ROOT = Path(__file__).resolve().parents[1]
EIGHT = ("cam", "gradcam", "gradcampp", "xgradcam", "hirescam", "layercam", "gradcamelementwise", "fem")
TOLERANCE = 1e-3  # largest difference of a map from the CPU's, of its largest value


def rate(job: Callable[[], object], images: int, rounds: int, device: torch.device) -> float:
    """Images a second: the median of so many calls, after two that warm up."""
    seconds = []
    for number in range(rounds + 2):
        begun = time.perf_counter()
        job()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if number >= 2:
            seconds.append(time.perf_counter() - begun)
    return images / statistics.median(seconds)


def rates(network: torch.nn.Module, images: torch.Tensor, rounds: int, cast: bool) -> list[float]:
    """Images a second of the forward pass alone, of Grad-CAM, of eight methods."""
    found = []
    with torch.autocast(images.device.type, torch.bfloat16) if cast else nullcontext():
        with torch.inference_mode():
            found.append(rate(lambda: network(images), len(images), rounds, images.device))
        for methods in (("gradcam",), EIGHT):
            with wsol.HeatmapExtractor(network, methods) as extractor:
                found.append(rate(lambda: extractor(images), len(images), rounds, images.device))
    return found


def differences(network: torch.nn.Module, images: torch.Tensor, device: torch.device) -> dict[str, float]:
    """Largest difference of each method's maps from the CPU's, relative to a map's largest value."""
    made = []
    targets = torch.arange(len(images))
    for place in (torch.device("cpu"), device):
        with wsol.HeatmapExtractor(network.to(place), EIGHT) as extractor:
            maps = extractor(images.to(place), targets.to(place)).maps
            made.append({name: values.detach().float().cpu() for name, values in maps.items()})
    return {name: float((made[1][name] - values).abs().max() / values.abs().max()) for name, values in made[0].items()}


def pipeline(network: torch.nn.Module, options: argparse.Namespace) -> float:
    """Images a second of a whole evaluation of JPEG files, with eight methods and two protocols."""
    model = Classifier(name="resnet50", module=network, layer="layer4", weights="random")
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "images").mkdir()
        dataset = write_pictures(Path(name) / "images", options.images)
        begun = time.perf_counter()
        wsol.evaluate(dataset, model, EIGHT, ("choe2020", "choe2020_v2"), run_dir=Path(name) / "run", pictures=0,
                      batch_size=options.batch, workers=options.workers, device=str(options.device), report=False,
                      class_map="position", progress=False)  # fmt: skip
        return options.images / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cuda"))
    for name, value in (("batch", 128), ("images", 4000), ("workers", 16), ("rounds", 10)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "gpu.md")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    device, layout = options.device, torch.channels_last
    network = models.resnet50(num_classes=10).eval().to(memory_format=layout)
    apart = differences(network, torch.randn(min(4, options.batch), 3, 224, 224).to(memory_format=layout), device)
    images = torch.randn(options.batch, 3, 224, 224, device=device).contiguous(memory_format=layout)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    rows = []
    for cast in (False, True):
        found = " | ".join(f"{of:,.1f}" for of in rates(network, images, options.rounds, cast))
        rows.append(f"| {'bfloat16' if cast else 'off'} | {found} |")
    worst = max(apart, key=apart.__getitem__)
    text = "\n".join([
        "# On a GPU", "",
        f"`python scripts/gpu_check.py --batch {options.batch}`: ResNet-50 at 224, channels-last, on {name}, torch "
        f"{torch.__version__}; images a second.", "",
        "| autocast | forward | Grad-CAM | eight methods |", "| --- | ---: | ---: | ---: |", *rows, "",
        f"Maps differ from the CPU's by at most {apart[worst]:.1e} of their largest value ({worst}).", "",
        f"A whole evaluation of {options.images} JPEG files, eight methods, two protocols, {options.workers} workers: "
        f"{pipeline(network, options):,.1f} images a second.", "",
    ])  # fmt: skip
    print(text)
    options.out.write_text(text, encoding="utf-8")
    if apart[worst] > TOLERANCE:
        raise SystemExit(f"{worst}: maps differ from the CPU's by {apart[worst]:.1e}")


if __name__ == "__main__":
    main()
