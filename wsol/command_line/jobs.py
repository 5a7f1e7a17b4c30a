"""What each application does: build the objects, run, say what came out and how to go on."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from wsol.command_line.values import check_values
from wsol.config import (
    build_dataset,
    build_methods,
    build_model,
    build_protocols,
    check_root_keys,
    class_map_of,
    plain,
)
from wsol.errors import UserError
from wsol.io import expand_path

__all__ = ["Job", "evaluate_job", "score_job", "train_job"]

Step = tuple[Sequence[str], str]  # a command, and what it is for
# (configuration, folder of the run, overrides as typed, whether to print) → values for a sweep's table
Job = Callable[[DictConfig, Path, Sequence[str], bool], Mapping[str, object]]


def evaluate_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """Dataset + classifier + methods + protocols → tables in `run_dir`."""
    settings = _checked(cfg, run_dir)
    methods, protocols = build_methods(cfg.methods), build_protocols(cfg.protocols)
    dataset = build_dataset(cfg.dataset)
    classifier = build_model(cfg.model, dataset)
    from wsol.evaluate import evaluate  # not above: torch is not loaded for --help

    results = evaluate(
        dataset,
        classifier,
        methods=methods,
        protocols=protocols,
        view=cfg.view,
        flip=cfg.flip,
        batch_size=cfg.batch_size,
        workers=cfg.workers,
        device=cfg.device,
        seed=cfg.seed,
        score=cfg.score,
        chunk=cfg.chunk,
        on_error=cfg.on_error,
        predict_over=cfg.predict_over,
        class_map=class_map_of(cfg.dataset),
        threshold_from=expand_path(cfg.threshold_from),
        threshold_from_test=cfg.threshold_from_test,
        pictures=cfg.pictures,
        report=cfg.report,
        limit=cfg.limit,
        run_dir=run_dir,
        config=settings,
        progress=cfg.progress and say,
    )
    if say:
        other = next((name for name in ("zhou2016", "exact") if name not in protocols), "choe2020")
        data = [f"dataset={_chosen('dataset')}", *_typed(overrides, "dataset.")]
        rules = [f"heatmaps={run_dir / 'heatmaps'}", *data, f"protocol=[{other}]"]
        steps = [(["wsol", "score", *rules, *_typed(overrides, "limit=")], "other rules, without the network")]
        _report(
            results,
            run_dir,
            [*steps, _sweep(["wsol"], overrides, protocols), (["wsol", "--help"], "all options")],
        )
    return {}


def score_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """Dataset + heatmaps that are there already, or baselines + protocols → the same tables."""
    settings = _checked(cfg, run_dir)
    from wsol.evaluate import score

    methods, protocols = build_methods(cfg.methods) if cfg.methods else {}, build_protocols(cfg.protocols)
    results = score(
        build_dataset(cfg.dataset),
        expand_path(cfg.heatmaps),
        protocols=protocols,
        methods=methods,
        heatmaps_kind=cfg.heatmaps_kind,
        heatmaps_name=cfg.heatmaps_name,
        predictions=expand_path(cfg.predictions),
        predictions_classes=cfg.predictions_classes,
        on_error=cfg.on_error,
        seed=cfg.seed,
        threshold_from=expand_path(cfg.threshold_from),
        threshold_from_test=cfg.threshold_from_test,
        workers=cfg.workers,
        limit=cfg.limit,
        pictures=cfg.pictures,
        report=cfg.report,
        run_dir=run_dir,
        config=settings,
        progress=cfg.progress and say,
    )
    if say:
        steps = [
            _sweep(["wsol", "score"], overrides, protocols),
            (["wsol", "score", "--help"], "all options"),
        ]
        _report(results, run_dir, steps)
    return {}


def train_job(cfg: DictConfig, run_dir: Path, overrides: Sequence[str], say: bool) -> Mapping[str, object]:
    """Dataset + classifier + recipe → weights in `run_dir`."""
    settings = _checked(cfg, run_dir)
    from wsol.training import train

    _refuse_without_effect(overrides, settings["training"]["stages"])
    stages = build_stages(settings)
    classifier = build_model(cfg.model, stages[-1].dataset, for_training=True)
    if not cfg.resume and (run_dir / "resume.pt").exists():
        raise UserError(f"{run_dir} holds a training run already: go on with resume=true, or choose another run_dir")
    (run_dir / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(settings)), encoding="utf-8")
    trained = train(
        classifier,
        stages,
        run_dir=run_dir,
        seed=cfg.seed,
        workers=cfg.workers,
        device=cfg.device,
        resume=cfg.resume,
        show_progress=cfg.progress and say,
    )
    last = trained.history.iloc[-1]
    best = trained.history.loc[trained.history["stage"] == last["stage"], "val_top1"].max()
    values = {
        "epochs": len(trained.history),
        "train_loss": f"{last['train_loss']:.4f}",
        "val_top1": f"{best:.4f}",
    }
    if say:
        from wsol.console import console

        weights = run_dir / "best.safetensors"
        weights = weights if weights.exists() else run_dir / "last.safetensors"
        key = "weights" if cfg.model.get("_target_", "").endswith("shapes_classifier") else "checkpoint"
        accuracy = "" if best != best else f"Validation accuracy {100 * best:.1f} %. "
        console().print(f"{accuracy}Weights: {_short(weights)}", soft_wrap=True)
        model = _chosen("model")
        data = [word for word in _typed(overrides, "dataset.") if not word.startswith("dataset.split=")]
        words = ["wsol", f"dataset={_chosen('dataset')}", *data]
        _go_on((([*words, f"model={model}", f"model.{key}={_short(weights)}"], "evaluate it"),))
    return values


def _refuse_without_effect(overrides: Sequence[str], stages: Sequence[Any]) -> None:
    """Refuse a typed `training.KEY=…` where every stage of the recipe says something else."""
    for word in _typed(overrides, "training."):
        key = word.partition("=")[0].removeprefix("training.")
        if stages and all(isinstance(own, Mapping) and key in own for own in stages):
            raise UserError(
                f"{word}: every stage of this recipe says its own {key}; change training.stages[0].{key} and so "
                f"on, or train in one stage with training.stages=[]"
            )


def build_stages(settings: Mapping[str, Any]) -> list[Any]:
    """Make the stages of a training: each with its dataset, its validation set and its recipe.

    Parameters
    ----------
    settings : mapping
        `dataset`, `validation` (keys of `dataset` that differ, or None) and `training`: keys of
        `wsol.training.Recipe`, and `stages`, a list of mappings that override them and, under `dataset` and
        `validation`, keys of those.

    Returns
    -------
    list of Stage

    Raises
    ------
    UserError
        If a key is unknown, or its value can't be meant.
    """
    from wsol.training import Recipe, Stage

    common = dict(settings["training"])
    stages, known, made = common.pop("stages") or [{}], Recipe.names(), []
    Recipe(**{key: value for key, value in common.items() if key in known})  # also where each stage has its own
    for number, own in enumerate(stages):
        where = "training" if not own else f"training.stages[{number}]"
        if not isinstance(own, Mapping):
            raise UserError(f"{where}={own!r}: wanted key: value pairs, such as {{epochs: 3}}")
        keys = {
            **common,
            **{key: value for key, value in own.items() if key not in ("dataset", "validation")},
        }
        for key in keys:
            if key not in known:
                raise UserError(f"{where}.{key}: there is no such key; there are {', '.join(known)}")
        recipe = Recipe(**keys)
        data = {**settings["dataset"], **(own.get("dataset") or {})}
        validation = None
        if settings["validation"] is not None:
            validation = build_dataset({**data, **settings["validation"], **(own.get("validation") or {})})
        made.append(Stage(dataset=build_dataset(data), recipe=recipe, validation=validation))
    return made


def _checked(cfg: DictConfig, run_dir: Path) -> dict[str, Any]:
    check_root_keys(cfg)
    settings = plain(cfg)
    check_values(settings)
    return {**settings, "run_dir": str(run_dir)}


def _report(results: Any, run_dir: Path, steps: Sequence[Step]) -> None:
    from wsol.console import console
    from wsol.report.summary import print_summary

    print_summary(results)
    page = run_dir / "report.html"
    written = ["Tables", *(["heatmaps"] if (run_dir / "heatmaps").is_dir() else [])]
    written += ["pictures"] if any(run_dir.glob("figures/example_*")) else []
    console().print(f"{', '.join(written)}: {_short(run_dir)}", soft_wrap=True)
    if page.is_file():
        console().print(f"Report: {_short(page)}", soft_wrap=True)
    _go_on(steps)


def _go_on(steps: Sequence[Step]) -> None:
    from wsol.console import console

    sources = HydraConfig.get().runtime.config_sources
    own = [word for source in sources if source.provider == "command-line" for word in ("-cd", source.path)]
    console().print("Go on with:")
    for words, purpose in steps:
        line = " ".join(shlex.quote(word) for word in [*words, *own])
        console().print(f"  {line}  # {purpose}", soft_wrap=True, markup=False)


def _short(path: Path) -> str:
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)


def _sweep(words: Sequence[str], overrides: Sequence[str], protocols: Iterable[str]) -> Step:
    again = [word for word in overrides if not word.startswith("run_dir=")]
    return [
        *words,
        "-m",
        *again,
        f"protocols.{next(iter(protocols))}.threshold=0.1,0.15,0.2",
    ], "a sweep, one table"


def _typed(overrides: Sequence[str], start: str) -> list[str]:
    return [word for word in overrides if word.startswith(start)]


def _chosen(group: str) -> str:
    return str(HydraConfig.get().runtime.choices[group])
