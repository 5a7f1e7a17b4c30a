"""What the tests of pages share: one small run whose class names, file names and dataset try to be markup."""

from __future__ import annotations

import pytest

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
        sample, name = self.shapes[index], f"<i>{index:02d}</i>.png"
        return Sample(sample_id=name, label=sample.label, image=sample.read_image(), boxes=sample.boxes)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> wsol.Results:
    """An untrained network on `HostileShapes`; don't write into its folder."""
    data, folder = HostileShapes(), tmp_path_factory.mktemp("runs") / "hostile"
    network = gapnet(3, widths=(6, 8), strides=(2, 2), seed=0)
    classifier = Classifier(
        name="small", module=network, layer="features", input_size=(40, 40), classes=data.classes, class_ids=data.ids
    )
    with pytest.MonkeyPatch.context() as context:
        context.setattr("wsol.report.page.draw_figures", lambda *_: [])  # no test of a page looks at them
        return wsol.evaluate(data, classifier, METHODS, PROTOCOLS, run_dir=folder, pictures=0, progress=False)
