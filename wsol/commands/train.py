"""`wsol train`: dataset + classifier + recipe → weights in the run's folder."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig

from wsol.commands.request import group_options, key_of
from wsol.commands.task import Job, print_steps
from wsol.config import build_dataset, build_model, build_training_method, call, resume_config, to_dict
from wsol.console import print_line
from wsol.datasets.sample import Dataset
from wsol.errors import UserError
from wsol.io import from_here, read_environment, write_yaml
from wsol.training import Recipe, Stage, train
from wsol.training.watch import spread

# Keys of a training's dataset and model that say nothing about how its weights are evaluated, or that their file says.
EVALUATIONS_OWN = ("split", "length", "weights", "checkpoint", "backbone", "seed", "input_size")
FREE = ("resume", "run_dir", "workers", "device", "progress", "training")  # train judges recipes itself


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Train, say what came out, and how to evaluate it; a run that is resumed goes on with its own configuration."""
    run_dir, first = job.run_dir, os.environ.get("RANK", "0") == "0"  # of torchrun's processes
    if cfg.resume and (run_dir / "config.yaml").exists():
        cfg = resume_config(run_dir, to_dict(cfg), job.overrides, FREE)
    elif cfg.resume and not {key_of(word) for word in job.overrides} & {"dataset", "model", "experiment"}:
        raise UserError(f"nothing to resume: {run_dir} has no config.yaml; pass the folder of a training run")
    settings = to_dict(cfg) | {"run_dir": str(run_dir)}
    _refuse_without_effect(job.typed("training."), settings["training"]["stages"])
    stages = build_stages(settings)
    classifier = build_model(cfg.model, stages[-1].dataset, for_training=True)
    if not cfg.resume and (run_dir / "resume.pt").exists():
        raise UserError(f"{run_dir} holds a training run already: go on with resume=true, or choose another run_dir")
    if first and not (run_dir / "resume.pt").exists():
        write_yaml(run_dir / "config.yaml", settings)
    job = job.begun(str(read_environment(run_dir).get("command", "")) if cfg.resume else job.request.line)
    objects = {"classifier": classifier, "stages": stages, "run_dir": run_dir, "config": settings}
    objects |= {"method": build_training_method(cfg.training_method), "command": job.request.line}
    trained = call(train, cfg, show_progress=cfg.progress and job.verbose and first, **objects)
    if first:  # a run that is resumed was accepted
        write_yaml(run_dir / "config.yaml", settings)
    last = trained.history.iloc[-1]
    best = trained.history.loc[trained.history["stage"] == last["stage"], "val_top1"].max()
    if job.verbose and first:
        _print_end(cfg, job, best)
    return {"epochs": len(trained.history), "train_loss": f"{last['train_loss']:.4f}", "val_top1": f"{best:.4f}"}


def _print_end(cfg: DictConfig, job: Job, best: float) -> None:
    names = ("best.safetensors", "last.safetensors")
    weights = next(from_here(job.run_dir / name) for name in names if (job.run_dir / name).exists())
    key = "weights" if str(cfg.model.get("_target_")).endswith("shapes_classifier") else "checkpoint"
    accuracy = "" if best != best else f"Validation accuracy {100 * best:.1f} %. "
    print_line(f"{accuracy}Weights: {weights}")
    words = ["wsol"]
    for group in ("dataset", "model"):
        plain = _option(group, job.choices[group], job)
        words.append(f"{group}={job.choices[group]}")
        for name, value in cfg[group].items():
            if name not in EVALUATIONS_OWN and value != plain.get(name):
                words.append(f"{group}.{name}={'null' if value is None else value}")
    print_steps(job, ([*words, f"model.{key}={weights}"], "evaluate it"))


def _option(group: str, name: str, job: Job) -> dict[str, Any]:
    """What an option's file says, and the files that it begins with."""
    content = yaml.safe_load(group_options(group, job.request.config_dir)[name].read_text("utf-8"))
    above = [_option(group, other, job) for other in content.pop("defaults", []) if other != "_self_"]
    return {key: value for part in (*above, content) for key, value in part.items()}


def _refuse_without_effect(words: Sequence[str], stages: Sequence[Any]) -> None:
    """Refuse a typed `training.KEY=…` where every stage of the recipe says something else."""
    for word in words:
        key = word.partition("=")[0].removeprefix("training.")
        if stages and all(key in stage for stage in stages):
            raise UserError(f"{word}: every stage of this recipe says its own; change training.stages[0].{key}, …")


def build_stages(settings: Mapping[str, Any]) -> list[Stage]:
    """Make the stages of a training: each with its dataset, its validation set and its recipe.

    `settings` has `dataset`, `validation` and `localization` (keys of `dataset` that differ, or None), `training`: keys
    of a `Recipe`, and `stages`, a list of mappings that override them and, under `dataset` and `validation`, keys of
    those; `limit`, how many samples of each are taken; and `hold_out`, how many are localized on, not trained on.
    """
    common = {key: value for key, value in settings["training"].items() if key != "stages"}
    Recipe(**common)  # also where each stage has its own
    limit, stages = settings.get("limit"), []

    def build(config: Mapping[str, Any]) -> Dataset:
        dataset = build_dataset(config)
        return dataset if limit is None or limit >= len(dataset) else spread(dataset, limit)[1]

    for stage in settings["training"]["stages"] or [{}]:
        stage_keys = to_dict(stage, "training.stages")
        data = settings["dataset"] | (stage_keys.pop("dataset", None) or {})
        changes = stage_keys.pop("validation", None) or {}
        recipe, validation, localization = Recipe(**common | stage_keys), None, None
        if settings["validation"] is not None:
            validation = build(data | settings["validation"] | changes)
        dataset = build(data)
        if recipe.localize_every and settings.get("localization") is not None:
            localization = build(data | settings["localization"])
        elif recipe.localize_every:
            dataset, localization = spread(dataset, settings["hold_out"])
        stages.append(Stage(dataset=dataset, recipe=recipe, validation=validation, localization=localization))
    return stages
