"""What people type as it stands in a message or a page: tildes, plurals, pipes, names that two things want."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import wsol
from wsol.cli import main
from wsol.commands.request import read_words
from wsol.config import build_dataset, for_any_dataset
from wsol.errors import UserError
from wsol.models import Classifier, gapnet

PICTURE = np.zeros((20, 30, 3), np.uint8)


class Mine(wsol.Dataset):
    """Takes keys that go with any other dataset as arguments of its own."""

    name, split, classes = "mine", "test", ("x",)

    def __init__(self, boxes: str, class_map: str = "") -> None:
        super().__init__([wsol.Sample(sample_id=boxes, label=0, image=PICTURE, boxes=[[0, 0, 9, 9]])])
        self.class_map = class_map


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("dataset.root=~/x", "HOME/x"), ("+a=~/x", "HOME/x"), ("run_dir=~", "HOME"), ("a='~/x y'", "HOME/x y"),
        ('a="~/x"', "HOME/x"), ("runs=[~/a,~/b]", ["HOME/a", "HOME/b"]), ("runs=[~/a, '~/b']", ["HOME/a", "HOME/b"]),
        ("a={b: ~/c}", {"b": "HOME/c"}), ("a=~/x,~/y", ["HOME/x", "HOME/y"]), ("a='x~/y'", "x~/y"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("home", ["/home/me", "/home/my (own), home"])
def test_a_leading_tilde_is_the_home_folder(monkeypatch, word, value, home):
    monkeypatch.setenv("HOME", home)
    (override,) = read_words(["evaluate", word]).overrides
    parsed = OverridesParser.create().parse_override(override)
    read = list(map(str, parsed.sweep_iterator())) if parsed.is_sweep_override() else parsed.value()
    strip = str(read).replace("\\", "") if parsed.is_sweep_override() else str(read)
    assert strip == str(value).replace("HOME", home)
    assert read_words(["--config-dir=~/mine"]).config_dir == Path(home) / "mine"
    assert read_words(["~dataset.seed"]).overrides == ["~dataset.seed"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["methods=cam"], "method=cam"), (["methods=[cam,gradcam]"], "method=[cam,gradcam]"),
        (["protocols=exact"], "protocol=exact"), (["score", "methods=center"], "method=center"),
    ],
)  # fmt: skip
def test_a_plural_hints_at_the_group(tmp_path, capsys, words, said):
    assert main([*words, "limit=2", f"run_dir={tmp_path}/r"]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flags", ["--info", "--cfg job", "--help"])
def test_a_pipe_that_closes_is_no_error(flags, tmp_path):
    script = f"exec {sys.executable} -m wsol {flags} | exec {sys.executable} -c 'pass'"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {script}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "Logging error" not in done.stderr


def test_arguments_of_ones_own_dataset_are_its_own():
    target = "tests.test_pasted.Mine"
    dataset = build_dataset({"_target_": target, "boxes": "mine.csv", "class_map": "a.csv", "sizes": None})
    assert (dataset[0].sample_id, dataset.class_map) == ("mine.csv", "a.csv")
    assert for_any_dataset({"_target_": target}) == ["sizes"]
    assert for_any_dataset({"_target_": "wsol.datasets.CUB"}) == ["class_map", "boxes", "sizes"]
    with pytest.raises(UserError, match=r"dataset\.boxes=mine"):
        build_dataset({"_target_": "wsol.datasets.Shapes", "boxes": "mine.csv"})


@pytest.mark.parametrize("weights", ["random", "random (seed 0)", "IMAGENET1K_V2, head random (seed 3)"])
def test_random_weights_are_said(caplog, weights):
    module = gapnet(1, widths=(4,), strides=(4,), seed=0)
    model = Classifier(name="m", module=module, layer="features", input_size=(32, 32), weights=weights)
    results = wsol.evaluate(Mine("a"), model, ["full"], ["exact"], class_map="position", progress=False, report=False)
    (note,) = [note for note in results.environment["notes"] if "random" in note]
    assert note in [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_old_path_of_keep_memory():
    code = "import wsol; assert wsol.memory.keep_memory in (wsol.keep_memory,)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
