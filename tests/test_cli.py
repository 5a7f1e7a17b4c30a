"""The command line, run in this process: what is printed, what is written, and what bad input gets."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from omegaconf import DictConfig

from wsol import cli
from wsol.commands import COMMANDS
from wsol.commands.request import FLAGS
from wsol.commands.task import Job
from wsol.errors import UserError

MINE = """
import numpy as np
from torch import nn
import torch
from wsol.datasets import Dataset, Sample
from wsol.models import Classifier


class Squares(Dataset):
    name, split, classes = "squares", "test", ("dark", "bright")

    def __init__(self, length=6):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = np.full((32, 32, 3), 90, np.uint8)
        image[8:20, 4 + index : 16 + index] = 10 if index % 2 == 0 else 250
        box = [4 + index, 8, 15 + index, 19]
        return Sample(sample_id=f"{index}", label=index % 2, image=image, boxes=[box])


class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=4, padding=1), nn.ReLU())
        self.pool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.head = nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.flatten(self.pool(self.features(images))))


def net(num_classes, seed=0):
    torch.manual_seed(seed)
    return Classifier(name="net", module=Net(num_classes).eval(), layer="features", input_size=(32, 32))


def energy(recording, power=2.0):
    return recording.activations.pow(power).sum(1)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder outside the repository with a dataset, a model and a method of somebody's own."""
    folder = tmp_path / "mine"
    for name, text in {
        "my_parts.py": MINE,
        "dataset/squares.yaml": "_target_: my_parts.Squares\nlength: 6\n",
        "model/net.yaml": "_target_: my_parts.net\nnum_classes: null\n",
        "method/energy.yaml": "# @package methods.energy\n_target_: wsol.heatmaps.make_method\n"
        "function: my_parts.energy\nlayer: null\npower: 2.0\n",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    yield folder
    sys.modules.pop("my_parts", None)


@pytest.fixture
def job(monkeypatch):
    """`wsol evaluate` only notes what it gets; seed=3 is bad input, seed=4 a bug, seed=5 Ctrl-C."""
    seen = []

    def note(cfg: DictConfig, job: Job):
        run_dir = job.run_dir
        seen.append((cfg, run_dir, job.overrides, job.verbose))
        if cfg.seed == 3:
            raise UserError("seed=3 brings bad luck: take another")
        if cfg.seed == 4:
            raise RuntimeError("a bug")
        if cfg.seed == 5:
            raise KeyboardInterrupt
        rows = [["shapes", "cam", cfg.batch_size, ""], ["shapes", "center", cfg.batch_size + 0.5, ""]]
        with (run_dir / "summary.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["dataset", "method", "max_box_acc", "pxap"], *rows])
        return {}

    monkeypatch.setattr("wsol.commands.evaluate.run", note)
    return seen


def said(capsys, *words):
    """Run it; return exit code, stdout, stderr."""
    code = cli.main(words)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_version_and_every_application_helps(capsys):
    assert said(capsys, "--version")[:2] == (0, f"wsol {cli.__version__}\n")
    shown = {name: said(capsys, name, "--help")[1] for name in COMMANDS}
    for name, text in shown.items():
        assert text.startswith(f"wsol {name}: ")
        assert ("choe2020_v2" in text) == (name not in ("train", "check", "compare", "report"))
        assert re.search(r"\n  launcher +joblib, ray, slurm", text) and "  run_dir: " in text
    assert "\n  method " not in shown["train"] and "\n  method " in shown["score"]
    assert "\n  model " not in shown["score"]
    assert re.search(r"experiment +shapes, tiny_imagenet", shown["train"])
    for name, text in shown.items():
        assert f"wsol{'' if name == 'evaluate' else ' ' + name} --cfg job" in text and "-h, --help" in text
    assert "takes several" in shown["evaluate"] and "takes several" not in shown["train"]
    assert "\n    lr: 0.002  # highest" in shown["train"] and "lr:" not in shown["evaluate"]
    for flag in ("--multirun", "--cfg", "--info", "--config-dir", "--debug", "--version", "--hydra-help"):
        assert flag in shown["evaluate"] and flag in FLAGS
    top = said(capsys, "--help")[1]
    assert top == said(capsys, "limit=3", "-h")[1]
    for name in COMMANDS:
        assert f"\n  {name} " in top and f"\n  {name} " not in shown["evaluate"]
    shown_families = re.findall(r"^  (?:method)? +(\w+): .*", top, re.M)
    assert shown_families == ["activation", "gradient", "perturbation", "pixel", "transformer", "baseline"]


@pytest.mark.parametrize(
    "words",
    [
        ["--cfg", "job", "limit=7", "method=full"],
        ["limit=7", "evaluate", "method=full", "--cfg=job"],
        ["method=full", "-c", "job", "--debug", "limit=7"],
    ],
)
def test_flags_and_overrides_in_any_order(capsys, place, words):
    code, out, _ = said(capsys, *words)
    assert code == 0 and "limit: 7\n" in out and "methods:\n  full:\n" in out and "cam:" not in out
    assert not any(place.iterdir())


def test_several_options_keep_their_order_and_can_be_added_or_copied(capsys):
    def methods(*words):
        out = said(capsys, *words, "-c", "job", "-p", "methods")[1]
        return [line for line in out.splitlines() if not line.startswith((" ", "#"))]

    assert methods("method=[gradcam,cam]") == ["gradcam:", "cam:"]
    assert methods("+method=[full]") == ["cam:", "gradcam:", "center:", "full:"]
    out = said(capsys, "method=[]", "+method@methods.deep=gradcam", "methods.deep.layer=x", "-c", "job")[1]
    assert "deep:" in out and "layer: x" in out and "cam:\n" not in out


@pytest.mark.parametrize(
    ("words", "text"),
    [(["--info", "searchpath", "method=full"], r"main +\| file://"), (["--hydra-help"], "hydra/launcher")],
)
def test_info_and_hydra_help_come_from_hydra(words, text):
    """In a process of its own: Hydra says it through logging, which tests before may have set up."""
    ended = subprocess.run([sys.executable, "-m", "wsol", *words], capture_output=True, text=True, check=True)
    assert re.search(text, ended.stdout)


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["predict"], "evaluate, train, score"),
        (["trian"], "train?"),
        (["method=gradcamm"], "gradcam"),
        (["protocol=[choe2020,zhou2017]"], "zhou2016"),
        (["viw=crop"], "did you mean view"),
        (["root=x"], "dataset.root"),
        (["protocols.choe2020_v2.treshold=0.2"], "protocols.choe2020_v2.threshold"),
        (["methods.full.layer=x"], "+method=[full]"),
        (["method.layer=x"], "methods.cam.layer"),
        (["--mutirun"], "--multirun"),
        (["--cfg", "jobs"], "'job', 'hydra', 'all'"),
        (["model=shapes,resnet18"], "--multirun"),
        (["limit=cat (1).jpg"], """'limit="cat (1).jpg"'"""),
        (["train", "method=cam"], "dataset, model, training_method, experiment"),
        (["evaluate", "experiment=shapes"], "experiment/evaluate=shapes"),
        (["evaluate", "train"], "'train'"),
        (["launcher=jobli"], "joblib"),
        (["hydra/launcher=submitit_slrum"], "wsol[launchers"),
        (["--config-dir", "/none/there"], "/none/there"),
    ],
)
def test_unknown_things_get_the_nearest_and_exit_code_2(capsys, place, job, words, hint):
    if "root=x" in words:
        words = ["dataset=tiny_imagenet", *words]
    code, _, err = said(capsys, *words)
    assert code == 2 and hint in err
    assert err.startswith("wsol: error: ") and "Traceback" not in err and err.count("\n") == 1
    assert not job and not any(place.iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["dataset=tiny_imagenet"], "dataset.root"),
        (["dataset=tiny_imagenet", "dataset.root=/none"], "/none"),
        (["method=[]"], "method"),
        (["+method.layer=x"], "'method'"),
        (["+protocol.connectivity=8"], "'protocol'"),
        (["protocol=[]"], "protocol"),
        (["+dataset.color=red"], "'color'"),
        (["methods.cam._target_=nowhere.cam"], "nowhere"),
        (["methods.cam.function=camm"], "'camm'"),
        (["protocols.choe2020_v2.threshold=2"], "threshold"),
        (["train", "dataset=shapes", "+training.lrr=1"], "lrr"),
        (["train", "training.epochs=1"], "training.epochs=1"),
        (["train", "training.lr=abc", "training.stages=[{lr: 0.1}]"], "lr"),
        (["chunk=many"], "chunk='many'"),
        (["score"], "heatmaps"),
        (["score", "heatmaps=x", "limit=0"], "limit=0"),
        (["device=gpu"], "device=gpu"),
        (["on_error=maybe"], "on_error"),
        (["dataset=7"], "options"),
        (["methods=5"], "method=5"),
        (["dataset=tiny_imagenet", "dataset.root=7"], "7/wnids.txt"),
    ],
)
def test_bad_values_get_a_message_and_leave_no_folder(capsys, place, words, hint):
    code, _, err = said(capsys, "run_dir=runs/a", *words)
    assert code == 2 and hint in err and "Traceback" not in err
    assert not (place / "runs" / "a").exists()


def test_debug_shows_the_traceback(capsys, place, job):
    code, _, err = said(capsys, "seed=3", "--debug")
    assert code == 2 and "Traceback" in err and "brings bad luck" in err


def test_bugs_are_shown_whole_and_ctrl_c_is_130(capsys, place, job):
    code, _, err = said(capsys, "seed=4", "run_dir=a")
    assert code == 1 and "Traceback" in err and "RuntimeError: a bug" in err
    assert cli.main(["seed=5", "run_dir=a"]) == 130
    assert not any(place.iterdir())


def test_a_job_gets_its_own_folder_and_what_was_typed(place, job, capsys):
    assert said(capsys, "seed=1", "evaluate", "method=full")[0] == 0
    assert said(capsys, "seed=1", "method=full")[0] == 0
    (cfg, first, typed, say), (_, second, _, _) = job
    assert (cfg.seed, typed, say) == (1, ["seed=1", "method=full"], True)
    assert first != second and {path.parent for path in (first, second)} == {Path("results/runs")}
    assert sorted(path.name for path in first.iterdir()) == ["summary.csv"]


def test_multirun_ends_in_one_table_also_when_a_job_failed(place, job, capsys):
    code, out, err = said(capsys, "seed=1,3", "-m", "protocols.choe2020_v2.threshold=0.1,0.2", "run_dir=s")
    table = pd.read_csv("s/jobs.csv", dtype=str, keep_default_na=False)
    assert code == 2 and "seed=3 brings bad luck" in err and "4 jobs, 2 failed" in out
    assert list(table.columns) == [
        "job", "seed", "protocols.choe2020_v2.threshold", "dataset", "method", "max_box_acc", "pxap", "error"
    ]  # fmt: skip
    assert list(table["job"]) == ["0", "0", "1", "1", "2", "3"]
    assert list(table["protocols.choe2020_v2.threshold"]) == ["0.1", "0.1", "0.2", "0.2", "0.1", "0.2"]
    assert list(table["method"]) == ["cam", "center", "cam", "center", "", ""]
    assert [bool(text) for text in table["error"]] == [False] * 4 + [True] * 2
    assert sorted(path.name for path in Path("s").iterdir() if path.is_dir()) == ["0", "1", "2", "3"]
    assert len({run_dir for _, run_dir, _, _ in job}) == 4


@pytest.mark.long
def test_optuna_looks_for_the_best_settings(place, job, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    words = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "hydra.sweeper.n_trials=3"]
    code, _, err = said(capsys, "-m", *words, "hydra.sweeper.n_jobs=1", "batch_size=choice(8,16)", "run_dir=s")
    assert code == 0, err
    best = yaml.safe_load(Path("s/optimization_results.yaml").read_text())
    sizes = pd.read_csv("s/sweep.csv")["batch_size"]
    assert len(job) == 3 and best["best_value"] == sizes.max() == best["best_params"]["batch_size"]


def test_multirun_over_options_and_lists(place, job, capsys):
    code, _, _ = said(capsys, "-m", "model=shapes,resnet18", "method=[cam],[gradcam,center]", "run_dir=s")
    table = pd.read_csv("s/sweep.csv", dtype=str, keep_default_na=False)
    assert code == 0 and len(job) == 4
    assert list(dict.fromkeys(zip(table["model"], table["method (override)"], strict=True))) == [
        (model, methods) for model in ("shapes", "resnet18") for methods in ("[cam]", "[gradcam,center]")
    ]


def test_multirun_with_a_bug_exits_1_and_a_shorter_second_sweep_forgets_the_first(place, job, capsys):
    code, _, err = said(capsys, "-m", "seed=1,4,2", "run_dir=s")
    assert code == 1 and "RuntimeError: a bug" in err
    assert said(capsys, "-m", "seed=7,8", "run_dir=s")[0] == 0
    assert list(pd.read_csv("s/jobs.csv")["seed"]) == [7, 7, 8, 8]


def test_interrupted_sweep_keeps_what_is_there(place, job, capsys):
    assert said(capsys, "-m", "seed=1,5,2", "run_dir=s")[0] == 130
    table = pd.read_csv("s/jobs.csv", keep_default_na=False)
    assert list(table["seed"]) == [1, 1, 5, 2]
    assert "stopped before its end" in table["error"].iloc[2] and table["error"].iloc[3] == "never started"


def test_sweep_with_an_unknown_option_starts_nothing(place, job, capsys):
    code, _, err = said(capsys, "-m", "model=shapes,resnet51", "run_dir=s")
    assert code == 2 and "resnet50" in err and not job and not any(place.iterdir())


def test_presets_belong_to_their_application(capsys):
    code, out, _ = said(capsys, "train", "experiment=tiny_imagenet", "--cfg", "job")
    assert code == 0 and "wsol.datasets.TinyImageNet" in out and "split: train" in out
    assert said(capsys, "train", "experiment/train=tiny_imagenet", "--cfg", "job")[1] == out
    assert "tiny_resnet18" in said(capsys, "experiment=tiny_imagenet", "--cfg", "job")[1]


def test_train_alone_is_the_shapes_preset(capsys):
    alone = said(capsys, "train", "--cfg", "job")[1]
    assert alone == said(capsys, "train", "experiment=shapes", "--cfg", "job")[1]
    assert "object_size" not in said(capsys, "train", "model=resnet18", "dataset=cifar10", "--cfg", "job")[1]


@pytest.mark.parametrize("launcher", ["joblib", "slurm", "submitit_slurm"])
def test_launchers_are_a_choice_in_every_application(capsys, launcher):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    for name in COMMANDS:
        code, out, _ = said(capsys, name, f"launcher={launcher}", "--cfg", "hydra", "-p", "hydra.launcher")
        assert code == 0 and {"joblib": "JoblibLauncher"}.get(launcher, "SlurmLauncher") in out
        assert launcher == "joblib" or "timeout_min: 240" in out


def complete(capsys, monkeypatch, line):
    monkeypatch.setenv("COMP_LINE", line)
    code, out, _ = said(capsys, "-sc", "query=bash")
    assert code == 0 and os.environ["COMP_LINE"] == line
    return out.split()


def test_completion_behind_a_command(capsys, monkeypatch, mine):
    assert complete(capsys, monkeypatch, "wsol tr") == ["train"]
    assert complete(capsys, monkeypatch, "wsol model=resnet") == ["model=resnet18", "model=resnet50"]
    assert complete(capsys, monkeypatch, "wsol train experiment=") == [
        "experiment=shapes",
        "experiment=tiny_imagenet",
    ]
    assert complete(capsys, monkeypatch, "wsol train exp") == ["experiment="]
    assert complete(capsys, monkeypatch, "wsol train -m seed=1,2 training.lr") == [
        "training.lr=",
        "training.lr_factors.",
    ]
    assert complete(capsys, monkeypatch, "wsol --mul") == ["--multirun"]
    assert complete(capsys, monkeypatch, f"wsol -cd {mine} method=en") == ["method=energy"]
    assert "method=" not in complete(capsys, monkeypatch, "wsol train met")
    assert {"evaluate", "train", "dataset=", "view="} <= set(complete(capsys, monkeypatch, "wsol "))


def test_completion_in_bash_itself(tmp_path):
    program = tmp_path / "bin" / "wsol"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wsol "$@"\n')
    program.chmod(0o755)
    script = """
        eval "$(wsol -sc install=bash)"
        COMP_LINE="wsol train model=alex" COMP_POINT=21 COMP_CWORD=2
        hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    root = str(Path(cli.__file__).resolve().parents[1])
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": root}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["model=alexnet_gap"], done.stderr


def test_own_dataset_model_and_method_from_outside(place, mine, capsys):
    words = ["dataset=squares", "model=net", "method=[energy,cam]", "run_dir=a", "--config-dir", str(mine)]
    words += ["report=false", "pictures=0"]
    code, out, err = said(capsys, *words, "protocol=choe2020", "methods.energy.power=1.5")
    assert code == 0, err
    table = pd.read_csv("a/summary.csv")
    assert list(table["method"]) == ["energy", "cam"] and set(table["n_samples"]) == {6}
    assert "about" not in (place / "a" / "config.yaml").read_text(), "what is shown of a method decides nothing"
    assert "energy" in said(capsys, "--help", "--config-dir", str(mine))[1]
    assert "wsol score heatmaps=a/heatmaps dataset=squares" in out


@pytest.mark.parametrize("words", [
    ["limit=3", "method=[center]", "report=false", "pictures=0"],
    ["train", "dataset.size=64", "model=shapes", "model.weights=null", "training.epochs=1"],
], ids=["evaluate", "train"])  # fmt: skip
def test_a_resumed_run_names_the_choices_that_it_began_with(place, capsys, words):
    (place / "mine" / "dataset").mkdir(parents=True)
    (place / "mine" / "dataset" / "few.yaml").write_text("defaults: [shapes]\nlength: 4\n")
    resume = [*words[:1], "resume=true"] if words[0] == "train" else ["resume=true"]
    runs = [*words, "dataset=few", "-cd", "mine"], [*resume, "workers=1"]
    out, resumed = (said(capsys, *words, "run_dir=a")[1] for words in runs)
    assert resumed[resumed.index("Go on with") :] == out[out.index("Go on with") :]
    assert "dataset=few" in resumed


def test_own_option_with_our_name_is_hidden_and_said_so(place, mine, job, capsys):
    (mine / "model" / "resnet50.yaml").write_text("_target_: my_parts.net\n")
    code, _, err = said(capsys, "--config-dir", str(mine))
    assert code == 0 and "resnet50.yaml is hidden by our own model/resnet50.yaml" in err


@pytest.mark.parametrize(
    "head", ["# my own\n# @package methods.energy\n", "\ufeff# @package methods.energy\n", "# @package methods.cam\n"]
)
def test_own_method_with_a_wrong_first_line_is_refused(place, mine, capsys, head):
    path = mine / "method" / "energy.yaml"
    path.write_text(head + path.read_text().split("\n", 1)[1], encoding="utf-8")
    code, _, err = said(capsys, "method=[energy]", "dataset=squares", "model=net", "-cd", str(mine), "run_dir=a")
    assert code == 2 and "'# @package methods.energy'" in err and str(path) in err
    assert not (place / "a").exists()


def test_broken_yaml_is_named(place, mine, capsys):
    (mine / "method" / "energy.yaml").write_text("# @package methods.energy\n_target_: [\n")
    code, _, err = said(capsys, "method=[energy]", "-cd", str(mine))
    assert code == 2 and "energy.yaml" in err and "Traceback" not in err


@pytest.mark.long
def test_joblib_runs_a_sweep_with_own_parts_and_a_failing_job(place, mine, capfd):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = "dataset=squares model=net method=[center] protocol=choe2020 pictures=0 limit=3 view=squash,nonsense"
    code = cli.main([*words.split(), "run_dir=s", "launcher=joblib", "hydra.launcher.n_jobs=2", "-cd", str(mine), "-m"])
    captured = capfd.readouterr()
    assert code == 2, captured.err
    table = pd.read_csv("s/sweep.csv", keep_default_na=False)
    assert list(table["limit"]) == [3, 3] and list(table["n_samples"]) == ["3", ""]
    assert [bool(error) for error in table["error"]] == [False, True] and "nonsense" in table["error"][1]


@pytest.mark.long
def test_long_jobs_say_how_far_they_are_where_there_is_no_terminal(capsys, place, monkeypatch):
    monkeypatch.setattr("wsol.console.QUIET_SECONDS", -1)
    code, _, err = said(capsys, "limit=3", "pictures=0", "method=[cam]", "protocol=[choe2020]", "run_dir=run")
    assert code == 0
    assert "heatmaps: 3 of 3, 0:00:00 left" in err
    code, _, err = said(capsys, "score", "limit=3", "pictures=0", "heatmaps=run/heatmaps", "run_dir=again")
    assert code == 0
    assert "scoring: 3 of 3" in err
