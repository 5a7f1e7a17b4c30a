"""How long heatmaps take beside the forward pass alone and beside the libraries `torchcam` and `grad-cam`, in one run.

Run it on an idle machine, `python scripts/bench_heatmaps.py`; it prints a table and writes `results/bench_heatmaps.md`.
Everything runs on the same images in the same memory format (channels-last); the peers make their maps method after
method, as they are made to. Competitors take turns, each in a process of its own, since nobody uses several of them
in one: the memory that one leaves behind would speed up the next. Times are medians over rounds, of medians
over batches, each competitor set up and shown one batch before its clock starts; ratios are of times in one round.
Runs differ more than rounds do: each adds a line to `results/bench_heatmaps.csv`, and the page shows them all.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import date
from functools import partial
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import pandas as pd
import torch
from measure import read_options
from torch import nn
from torchvision import models

import wsol
from wsol.io import write_text
from wsol.memory import keep_memory
from wsol.models import default_layer

EIGHT = ("cam", "gradcam", "gradcampp", "xgradcam", "hirescam", "layercam", "gradcamelementwise", "fem")
TORCHCAM = {
    "cam": "CAM", "gradcam": "GradCAM", "gradcampp": "GradCAMpp", "xgradcam": "XGradCAM", "layercam": "LayerCAM",
}  # fmt: skip
GRAD_CAM = {
    "gradcam": "GradCAM", "gradcampp": "GradCAMPlusPlus", "xgradcam": "XGradCAM", "hirescam": "HiResCAM",
    "layercam": "LayerCAM", "gradcamelementwise": "GradCAMElementWise", "fem": "FEM",
}  # fmt: skip
KEPT = "memory kept"
PEERS = {"torchcam": TORCHCAM, "grad-cam": GRAD_CAM}
GRAD_CAMS = tuple(f"{library}, gradcam" for library in PEERS)
Call = Callable[[torch.Tensor], object]
Job = Callable[[], AbstractContextManager[Call]]  # what a library sets up, and what then makes maps of a batch


def network(name: str) -> nn.Module:
    """Build a network with random weights, in channels-last memory."""
    torch.manual_seed(0)
    model = models.get_model(name, weights=None).eval().to(memory_format=torch.channels_last)
    if isinstance(model, models.VisionTransformer):
        nn.init.normal_(model.heads.head.weight, std=0.02)  # torchvision's head starts at zero
    return model


def ours(model: nn.Module, methods: tuple[str, ...], chunk: int = 32) -> Job:
    """All methods from one pass."""
    return lambda: wsol.HeatmapExtractor(model, methods, chunk=chunk)


def token_grid(tensor: torch.Tensor) -> torch.Tensor:
    """Lay the patches of a ViT-B/16 out as maps, as the peers want to be told."""
    return tensor[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)


def of_torchcam(model: nn.Module, method: str) -> Job:
    """One method of torchcam: hooks, forward pass, maps at the layer's resolution."""
    from torchcam import methods

    layer = default_layer(model)
    options: dict[str, object] = {"fc_layer": "fc"} if method == "cam" else {}
    if isinstance(model, models.VisionTransformer):
        options["reshape_transform"] = token_grid

    @contextmanager
    def ready() -> Iterator[Call]:
        with getattr(methods, TORCHCAM[method])(model, layer, **options) as extractor:

            def call(images: torch.Tensor) -> None:
                scores = model(images)
                extractor(scores.argmax(1).tolist(), scores)

            yield call

    return ready


def of_grad_cam(model: nn.Module, name: str, **options: object) -> Job:
    """One method of grad-cam, as its users call it."""
    import pytorch_grad_cam

    tokens, layer = isinstance(model, models.VisionTransformer), default_layer(model)

    @contextmanager
    def ready() -> Iterator[Call]:
        kind = getattr(pytorch_grad_cam, name)
        with kind(model, [model.get_submodule(layer)], reshape_transform=token_grid if tokens else None) as extractor:
            for key, value in options.items():
                setattr(extractor, key, value)
            yield lambda images: extractor(images, None)  # of the highest logit

    return ready


def forward(model: nn.Module) -> Job:
    """Run the network alone."""

    @contextmanager
    def ready() -> Iterator[Call]:
        with torch.inference_mode():
            yield model

    return ready


def competitors(name: str) -> dict[str, Callable[[nn.Module], Job]]:
    """Everybody who makes heatmaps of a network, and the network alone; who is compared runs one after the other."""
    found: dict[str, Callable[[nn.Module], Job]] = {
        "forward": forward,
        "ours, Grad-CAM": lambda model: ours(model, ("gradcam",)),
    }
    methods = ["gradcam"]
    if name == "resnet50":
        methods += [method for method in EIGHT if method != "gradcam"]
    for method in methods:
        if method in TORCHCAM:
            found[f"torchcam, {method}"] = partial(of_torchcam, method=method)
        if method in GRAD_CAM:
            found[f"grad-cam, {method}"] = partial(of_grad_cam, name=GRAD_CAM[method])
        if method == "gradcam" and name == "resnet50":
            found["ours, eight methods"] = lambda model: ours(model, EIGHT)
            found |= {f"{other}, {KEPT}": found[other] for other in ("forward", *GRAD_CAMS)}
    return found


def times(name: str, competitor: str, batch: int, batches: int, sent: Connection) -> None:
    """Send the seconds that a competitor takes for each batch; in a process of its own."""
    if competitor.endswith(KEPT):
        keep_memory()
    model = network(name)
    images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    seconds = []
    with competitors(name)[competitor](model)() as call:
        for _ in range(batches + 1):
            began = time.perf_counter()
            call(images)
            seconds.append(time.perf_counter() - began)
    sent.send(seconds[1:])  # the first warms up


def measured(name: str, batch: int, rounds: int, batches: int = 3) -> dict[str, list[float]]:
    """Let all competitors take turns; median seconds of each in each round."""
    seconds: dict[str, list[float]] = {competitor: [] for competitor in competitors(name)}
    context = multiprocessing.get_context("fork")  # nothing has run in this process that a child could take over
    for _ in range(rounds):
        for competitor, found in seconds.items():
            received, sent = context.Pipe(duplex=False)
            process = context.Process(target=times, args=(name, competitor, batch, batches, sent))
            process.start()
            sent.close()
            found.append(statistics.median(received.recv()))
            process.join()
    return seconds


def ratios(theirs: list[float], own: list[float]) -> list[float]:
    """How many times as fast our own is, in each round."""
    return [one / other for one, other in zip(theirs, own, strict=True)]


def ratio(theirs: list[float], own: list[float]) -> str:
    """How many times as fast our own is: the median of the rounds, and their range."""
    found = ratios(theirs, own)
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}) times"


def eight_of(library: str, found: dict[str, list[float]]) -> list[float]:
    """Seconds that eight methods of a library would take one after the other, at the mean of those that it has."""
    turns = zip(*(found[f"{library}, {method}"] for method in PEERS[library]), strict=True)
    return [8 * statistics.mean(turn) for turn in turns]


def runs_so_far(record: Path, rounds: int, found: dict[str, list[float]]) -> list[str]:
    """Add this run to the record of all of them, and show it."""
    one, eight = found["ours, Grad-CAM"], found["ours, eight methods"]
    columns = {
        "Grad-CAM / forward": ratios(one, found["forward"]),
        "eight / forward": ratios(eight, found["forward"]),
        **{f"{library} / Grad-CAM": ratios(found[f"{library}, gradcam"], one) for library in PEERS},
    }
    columns |= {f"eight of {library} / eight": ratios(eight_of(library, found), eight) for library in PEERS}
    row = {name: f"{statistics.median(values):.2f}" for name, values in columns.items()}
    about = {"day": f"{date.today()}", "rounds": str(rounds), "processor": processor(), "torch": torch.__version__}
    table = pd.DataFrame([about | row])
    if record.exists():
        table = pd.concat([pd.read_csv(record, dtype=str, keep_default_na=False), table])  # "" where not measured
    write_text(record, table.to_csv(index=False, lineterminator="\n"))
    names = list(map(str, table))
    lines = [f"| {' | '.join(names)} |", "|" + " --- |" * len(names)]
    lines += [f"| {' | '.join(cells)} |" for cells in table.to_numpy().tolist()]
    return ["", "All runs; the machine is a shared one, and memory costs more at some times.", "", *lines]


def fast_methods(rounds: int, batch: int, record: Path) -> list[str]:
    """ResNet-50: one method, and eight together."""
    found = measured("resnet50", batch, rounds)
    middle = {name: statistics.median(values) for name, values in found.items()}
    one, eight = found["ours, Grad-CAM"], found["ours, eight methods"]
    rows = [f"## ResNet-50, batch {batch}, 224 x 224", "", "| what | seconds | x forward |", "| --- | ---: | ---: |"]
    rows += [f"| {name} | {value:.3f} | {value / middle['forward']:.2f} |" for name, value in middle.items()]
    rows += ["", f"Medians of {rounds} rounds, in parentheses their range."]
    for library, table in PEERS.items():
        alone = f"{library}, gradcam"
        rows += [
            "", f"Grad-CAM: {ratio(found[alone], one)} as fast as {library}; "
            f"{ratio(found[f'{alone}, {KEPT}'], one)} where {library} is given the same kept memory.",
            f"Eight methods: {ratio(eight_of(library, found), eight)} as fast as {library}, method after method, at "
            f"the mean of the {len(table)} of them that it has.",
        ]  # fmt: skip
    return [*rows, *runs_so_far(record, rounds, found), ""]


def other_networks(rounds: int, batch: int) -> list[str]:
    """Grad-CAM on networks of other kinds."""
    columns = ("forward", "ours, Grad-CAM", *GRAD_CAMS)
    rows = ["## Grad-CAM on other networks", "", f"Batch {batch}, seconds.", "",
            "| network | forward | ours | torchcam | grad-cam | faster peer / ours |",
            "| --- | ---: | ---: | ---: | ---: | --- |"]  # fmt: skip
    for name in ("vgg16", "mobilenet_v3_large", "vit_b_16"):
        found = measured(name, batch, rounds)
        faster = min((found[peer] for peer in GRAD_CAMS if peer in found), key=statistics.median)
        cells = [f"{statistics.median(found[key]):.3f}" if key in found else "-" for key in columns]
        rows.append(f"| {name} | {' | '.join(cells)} | {ratio(faster, found['ours, Grad-CAM'])} |")
    return [*rows, ""]


def slow_methods(rounds: int) -> list[str]:
    """Methods of several passes, on ResNet-18."""
    model, images = network("resnet18"), torch.randn(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)

    def seconds(job: Job) -> float:
        with job() as call:
            began = time.perf_counter()
            call(images)
            return time.perf_counter() - began

    rows = ["## Methods of several passes", "",
            "ResNet-18, one image of 224 x 224, 512 channels, batches of 32; one process, the better of two.", "",
            "| method | ours | grad-cam | grad-cam / ours |", "| --- | ---: | ---: | ---: |"]  # fmt: skip
    for method, name in (("scorecam", "ScoreCAM"), ("ablationcam", "AblationCAM")):
        jobs = ours(model, (method,), chunk=32), of_grad_cam(model, name, batch_size=32)
        mine, theirs = (
            min(times) for times in zip(*([seconds(job) for job in jobs] for _ in range(rounds)), strict=True)
        )
        rows.append(f"| {method} | {mine:.2f} s | {theirs:.2f} s | {theirs / mine:.1f} |")
    return [*rows, ""]


def mebibytes(field: str) -> float:
    """Memory of this process, in MiB, as Linux counts it: VmHWM, the highest, or VmRSS, that of now."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))


def peak(kind: str, batch: int) -> None:
    """Print the highest resident memory, in MiB, of this process: of inference alone, or with heatmaps.

    Not by `getrusage`, whose maximum a process takes over from the one that started it.
    """
    model = network("resnet50")
    images = torch.randn(batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    with (forward(model) if kind == "forward" else ours(model, EIGHT))() as call:
        for _ in range(5):
            call(images)
    print(mebibytes("VmHWM"))


def flat(batches: int) -> None:
    """Print the resident memory, in MiB, after 100 batches of all sizes and after all of them."""
    draw, resident = random.Random(0), []
    with ours(network("resnet18"), ("gradcam", "layercam", "eigencam"))() as call:
        for number in range(1, batches + 1):
            side = draw.choice((32, 48, 64, 96))
            call(torch.rand(draw.choice((1, 2, 5, 8)), 3, side, side))
            if number in (100, batches):
                resident.append(mebibytes("VmRSS"))
    print(*resident)


def memory(batch: int) -> list[str]:
    """Measure memory in processes of their own."""

    def said(*arguments: str) -> list[float]:
        command = [sys.executable, __file__, "--anyway", "--batch", str(batch), *arguments]
        return [
            float(word) for word in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        ]

    (alone,), (eight,), (early, late) = said("--peak", "forward"), said("--peak", "eight"), said("--flat", "2000")
    return [
        "## Memory", "",
        f"ResNet-50, batch {batch}: highest resident memory of a process that runs the network five times, "
        f"{alone:.0f} MiB; with eight heatmaps, {eight:.0f} MiB ({eight / alone:.2f} times).", "",
        "ResNet-18, three methods, 2,000 batches of 1 to 8 images of 32 to 96 pixels, each drawn anew: "
        f"{early:.1f} MiB after 100, {late:.1f} MiB after all.", "",
    ]  # fmt: skip


def processor() -> str:
    """Name of the processor, as Linux says it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sections", nargs="+", choices=("one", "networks", "several", "memory"))
    parser.add_argument("--peak", choices=("forward", "eight"))
    parser.add_argument("--flat", type=int)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "results" / "bench_heatmaps.md")
    asked = read_options(parser)
    if asked.peak:
        peak(asked.peak, asked.batch)
        return
    if asked.flat:
        flat(asked.flat)
        return
    rows = [
        "# Heatmaps: speed", "",
        "`python scripts/bench_heatmaps.py`: medians in one run; all competitors in turn, each in a process of its "
        "own, set up and warm; channels-last memory. Ours keeps the memory that a batch frees while its extractor is "
        "open; others do so in the rows \"memory kept\", by `wsol.memory.keep_memory`.", "",
        f"{torch.get_num_threads()} threads of {processor()}, torch {torch.__version__}, "
        f"torchcam {version('torchcam')}, grad-cam {version('grad-cam')}; {asked.load}.", "",
    ]  # fmt: skip
    sections = {
        "one": lambda: fast_methods(asked.rounds, asked.batch, asked.output.with_suffix(".csv")),
        "networks": lambda: other_networks(asked.rounds, asked.batch // 2),
        "several": lambda: slow_methods(2),
        "memory": lambda: memory(asked.batch),
    }
    for name in (name for name in sections if name in (asked.sections or sections)):  # processes fork before others run
        rows += sections[name]()
        asked.output.write_text("\n".join(rows), encoding="utf-8")  # each as it comes: the whole takes minutes
    print("\n".join(rows))


if __name__ == "__main__":
    main()
