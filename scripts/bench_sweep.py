"""Time the sweep against the plain OpenCV loop, in one run, and write results/bench_sweep.md.

python scripts/bench_sweep.py [--maps 12] [--out results/bench_sweep.md]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import cv2
import numba
import numpy as np
from measure import read_options, timed

from wsol.localization import Protocol, load_protocol, score_maps, sweep_thresholds

ROOT = Path(__file__).resolve().parents[1]
TAUS = np.arange(0, 1, 0.001)
FIRST_CALL = """
import time
import numpy as np
from wsol.localization import sweep_thresholds
start = time.perf_counter()
sweep_thresholds(np.eye(64), [0, 0, 9, 9], "choe2020")
print(time.perf_counter() - start)
"""


def opencv_loop(score_map: np.ndarray, taus: np.ndarray) -> np.ndarray:
    """Box of the largest contour at each threshold, one threshold after the other: int64 (T, 4)."""
    levels = (score_map * 255).astype(np.uint8)
    height, width = levels.shape
    boxes = np.zeros((len(taus), 4), np.int64)
    for index, tau in enumerate(taus):
        above = cv2.threshold(levels, int(tau * levels.max()), 255, cv2.THRESH_BINARY)[1]
        contours = cv2.findContours(above, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
        if contours:
            x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
            boxes[index] = x, y, min(x + w, width - 1), min(y + h, height - 1)
    return boxes


def drain(maps: list[np.ndarray], truth: list[list[list[int]]], threads: int) -> int:
    with ThreadPoolExecutor(threads) as pool:
        return sum(1 for _ in pool.map(sweep_thresholds, maps, truth))


def make_maps(count: int) -> dict[str, list[np.ndarray]]:
    generator = np.random.default_rng(0)
    found = {f"224 × 224 from {n} × {n}": score_maps(generator.random((count, n, n)), "choe2020") for n in (7, 14, 28)}
    found["64 × 64 noise"] = score_maps(generator.random((count, 64, 64)), Protocol(size=(64, 64)))
    return found


def compare(maps: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Median seconds of the loop and of the sweep per map, wall and thread; they take turns on one machine."""
    truth = [[maps[0].shape[1] // 4, maps[0].shape[0] // 4, maps[0].shape[1] // 2, maps[0].shape[0] // 2]]
    loop, sweep = [], []
    for score_map in maps:
        boxes = opencv_loop(score_map, TAUS)
        if not np.array_equal(sweep_thresholds(score_map, truth).boxes_largest, boxes):
            raise SystemExit("the sweep and the loop differ")
        for _ in range(3):
            loop.append(timed(opencv_loop, score_map, TAUS, thread=True))
            sweep += [timed(sweep_thresholds, score_map, truth, thread=True) for _ in range(5)]
    return np.median(loop, axis=0), np.median(sweep, axis=0)


def two_threads(maps: list[np.ndarray]) -> tuple[float, float]:
    """Median milliseconds per map with one thread and with two."""
    many = maps * (400 // len(maps))
    truth = [[[20, 20, 90, 90]]] * len(many)
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(7):
        for threads, found in times.items():
            found.append(timed(drain, many, truth, threads).wall / len(many))
    return 1000 * median(times[1]), 1000 * median(times[2])


def first_calls() -> dict[str, float]:
    """Seconds of a process's first call, compiling and then from the cache; and where the package is read-only."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package" / "wsol"
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "wsol", package, ignore=ignored)
        if not (package / "conf").exists():
            shutil.copytree(ROOT / "conf", package / "conf")
        environment = {
            **os.environ,
            "PYTHONPATH": str(package.parent),
            "HOME": folder,
            "XDG_CACHE_HOME": f"{folder}/cache",
        }
        environment.pop("NUMBA_CACHE_DIR", None)
        for place in ("in the package", "package read-only"):
            if place == "package read-only":
                # A file in the folder's place cannot be written to by anybody, not even by root.
                shutil.rmtree(package / "localization" / "__pycache__")
                (package / "localization" / "__pycache__").touch()
            for name in ("compiled", "from the cache"):
                command = [sys.executable, "-c", FIRST_CALL]
                done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
                found[f"{name}, cache {place}" if place == "in the package" else f"{name}, {place}"] = float(
                    done.stdout
                )
    return found


def report(count: int, load: str) -> str:
    cv2.setNumThreads(1)
    sweep_thresholds(np.eye(8), [0, 0, 3, 3])
    load_protocol("choe2020")
    lines = [
        "# The sweep against the plain OpenCV loop",
        "",
        "Made by `python scripts/bench_sweep.py`. 1,000 thresholds, `choe2020`, one thread each, medians over",
        f"{count} maps; every box equal. The loop yields the largest component's boxes; the sweep yields those,",
        "the best boxes of any component, and their IoUs.",
        "",
        f"Python {platform.python_version()}, NumPy {np.__version__}, numba {numba.__version__}, "
        f"OpenCV {cv2.__version__}; {processor()}, {load}.",
        "",
        "| score maps | OpenCV loop, ms (thread) | sweep, ms (thread) | times faster, by thread time |",
        "| --- | ---: | ---: | ---: |",
    ]
    maps = make_maps(count)
    for name, given in maps.items():
        loop, sweep = compare(given)
        times = " | ".join(f"{1000 * wall:.2f} ({1000 * cpu:.2f})" for wall, cpu in (loop, sweep))
        lines.append(f"| {name} | {times} | {loop[1] / sweep[1]:.0f} |")
        print(lines[-1], flush=True)
    one, two = two_threads([score_map for name, given in maps.items() if name.startswith("224") for score_map in given])
    lines += [
        "",
        f"`sweep_thresholds` over those of 224 × 224: {one:.2f} ms per map with one thread, {two:.2f} ms with two: "
        f"{one / two:.2f} times as many.",
        "",
        "| first call in a process | s |",
        "| --- | ---: |",
        *(f"| {name} | {value:.2f} |" for name, value in first_calls().items()),
        "",
    ]
    return "\n".join(lines)


def processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--maps", type=int, default=12, help="how many of each kind")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "bench_sweep.md")
    options = read_options(parser)
    text = report(options.maps, options.load)
    print(text)
    options.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
