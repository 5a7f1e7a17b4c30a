"""`wsol score`: dataset + heatmaps that are there already, or baselines + protocols → the same tables, no network."""

from collections.abc import Mapping

from omegaconf import DictConfig

from wsol.commands.task import Job, print_plan, print_run, print_steps, sweep_step
from wsol.config import build_dataset, build_methods, build_protocols, call
from wsol.engine import ScoreOptions, score


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Score, say what came out, and how to go on."""
    cfg = job.resumed(cfg)
    protocols = build_protocols(cfg.protocols)
    objects = {"protocols": protocols, "methods": build_methods(cfg.methods) if cfg.methods else {}}
    results = call(score, cfg, ScoreOptions, dataset=build_dataset(cfg.dataset), **objects, **job.keywords(cfg))
    if cfg.plan:
        print_plan(results.environment["plan"])
    elif job.verbose:
        print_run(results, job.run_dir)
        job = job.begun(results.environment["command"])
        swept = [sweep_step(job, f"protocols.{next(iter(protocols))}.threshold=0.1,0.15,0.2")]
        has_thresholds = results.summary["threshold"].notna().any()  # boxes and masks have none
        print_steps(job, *(swept if has_thresholds else []), (["wsol", "score", "--help"], "all options"))
    return {}
