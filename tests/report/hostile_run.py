"""A small run whose class names, file names and notes try to be markup, for the tests of pages."""

from __future__ import annotations

from pathlib import Path

import wsol
from wsol.datasets import Shapes
from wsol.datasets.sample import Dataset, Sample
from wsol.models import Classifier, gapnet

HOSTILE = ("</script><script>window.hacked = 1</script>", "\"><img src=x onerror='window.hacked = 2'>", "NA")
METHODS = ("cam", "gradcam", "center")
PROTOCOLS = ("choe2020", "choe2020_v2", "zhou2016")
COUNT = 24


class HostileShapes(Dataset):
    """Shapes of three classes with names that a page must show as they are."""

    name, split, classes = "shapes & <b>co</b>", "test", HOSTILE

    def __init__(self) -> None:
        self.shapes = Shapes("test", length=COUNT, size=40, classes=3, object_size=(0.5, 0.9))

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Sample:
        sample = self.shapes[index]
        return Sample(
            sample_id=f"<i>{index:02d}</i>.png", label=sample.label, image=sample.read_image(), boxes=sample.boxes
        )


def make_run(folder: Path) -> wsol.Results:
    """Evaluate an untrained network on `HostileShapes`."""
    data = HostileShapes()
    network = gapnet(3, widths=(6, 8), strides=(2, 2), seed=0)
    classifier = Classifier(
        name="small", module=network, layer="features", input_size=(40, 40), classes=data.classes, class_ids=data.ids
    )
    return wsol.evaluate(data, classifier, METHODS, PROTOCOLS, run_dir=folder, pictures=0, progress=False)
