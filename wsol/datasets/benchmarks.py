"""Fingerprints of the field's splits, so that a run can say whether its samples are the benchmark's."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from wsol.datasets.sample import Dataset


class Benchmark(NamedTuple):
    """What a split has: samples, boxes, and the start of the SHA-256 of its sample ids, sorted, a line each."""

    title: str
    samples: int
    boxes: int
    ids: str


BENCHMARKS = {
    ("cub", "train"): Benchmark("CUB-200-2011, train", 5994, 5994, "408872b4b0e1171d"),
    ("cub", "val"): Benchmark("CUBV2, the field's val", 1000, 1000, "455f26689daf2219"),
    ("cub", "test"): Benchmark("CUB-200-2011, test", 5794, 5794, "0c4e769f00133fa1"),
    ("ilsvrc", "val2"): Benchmark("ImageNetV2, the field's val of ILSVRC", 10000, 18532, "bcd13383b7fdaa8a"),
    ("ilsvrc", "val"): Benchmark("ILSVRC-2012, val", 50000, 80477, "68bed6c35194a126"),
    ("openimages", "train"): Benchmark("OpenImages30k, train", 29819, 0, "e2e023c632301143"),
    ("openimages", "val"): Benchmark("OpenImages30k, val", 2500, 0, "435b4b767940bbb7"),
    ("openimages", "test"): Benchmark("OpenImages30k, test", 5000, 0, "0efd208329a8e83f"),
    ("tiny_imagenet", "val"): Benchmark("Tiny-ImageNet, val", 10000, 10000, "22cddd0e813d6f2e"),
}


def compare_with_benchmark(dataset: Dataset) -> tuple[str, bool]:
    """Say whether a dataset is the benchmark's split that it is named for, or what differs; "" of any other dataset."""
    key = dataset.name.lower(), str(dataset.split)
    if key[0] == "ilsvrc" and len(dataset):  # wsolevaluation calls ImageNetV2 val, and ILSVRC's val test
        key = "ilsvrc", dataset[0].sample_id.partition("/")[0]
    benchmark = BENCHMARKS.get(key)
    if benchmark is None:
        return "", False
    table = dataset.table
    ids = hashlib.sha256("\n".join(sorted(table["sample_id"])).encode()).hexdigest()
    boxes = sum(len(boxes) for boxes in table["boxes"] if boxes is not None)
    pairs = {"samples": (len(table), benchmark.samples), "boxes": (boxes, benchmark.boxes or boxes)}
    differences = [f"{count:,} of {wanted:,} {what}" for what, (count, wanted) in pairs.items() if count != wanted]
    if len(table) == benchmark.samples and not ids.startswith(benchmark.ids):
        differences.append("other sample ids")
    if differences:
        return f"not the benchmark's split ({benchmark.title}): {', '.join(differences)}", False
    return f"this is the benchmark's split: {benchmark.title}, {len(table):,} samples, {boxes:,} boxes", True
