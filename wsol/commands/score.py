"""`wsol score`: dataset + heatmaps that are there already, or baselines + protocols → the same tables, no network."""

from __future__ import annotations

from collections.abc import Mapping

from omegaconf import DictConfig

from wsol.commands.ending import print_run, print_steps, sweep_step
from wsol.commands.task import Job
from wsol.config import build_dataset, build_methods, build_protocols, call, to_dict
from wsol.engine import ScoreOptions, score
from wsol.io import expand_path

__all__ = ["run"]


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Score, say what came out, and how to go on."""
    settings = to_dict(cfg)
    protocols = build_protocols(cfg.protocols)
    results = call(
        score,
        cfg,
        ScoreOptions,
        dataset=build_dataset(cfg.dataset),
        heatmaps=expand_path(cfg.heatmaps),
        methods=build_methods(cfg.methods) if cfg.methods else {},
        protocols=protocols,
        predictions=expand_path(cfg.predictions),
        threshold_from=expand_path(cfg.threshold_from),
        run_dir=job.run_dir,
        config=settings | {"run_dir": str(job.run_dir)},
        command=job.request.line,
        progress=cfg.progress and job.verbose,
    )
    if job.verbose:
        print_run(results, job.run_dir)
        print_steps(job, sweep_step(job, protocols), (["wsol", "score", "--help"], "all options"))
    return {}
