"""`wsol evaluate`, or `wsol` alone: dataset + classifier + methods + protocols → tables in the run's folder."""

from collections.abc import Mapping

from omegaconf import DictConfig

from wsol.commands.task import Job, earlier_heatmaps, print_plan, print_run, print_steps, sweep_step
from wsol.config import build_dataset, build_methods, build_model, build_protocols, call, for_any_dataset, to_dict
from wsol.engine import Options, ScoreOptions, evaluate, score


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Evaluate, say what came out, and how to go on."""
    cfg = job.resumed(cfg)
    methods, protocols = build_methods(cfg.methods), build_protocols(cfg.protocols)
    dataset = build_dataset(cfg.dataset)
    class_map = cfg.dataset.get("class_map") if "class_map" in for_any_dataset(cfg.dataset) else None
    objects = {"dataset": dataset, "methods": methods, "protocols": protocols, "model": build_model(cfg.model, dataset)}
    objects |= {"class_map": class_map, "faithfulness": to_dict(cfg.get("faithfulness") or {}, "faithfulness")}
    keywords, heatmaps = job.keywords(cfg), None if objects["faithfulness"] or cfg.plan else earlier_heatmaps(job)
    if heatmaps is not None:  # a sweep over rules of scoring: the network has run
        keywords["config"]["heatmaps"] = str(heatmaps)
        of_run = {"dataset": dataset, "methods": {}, "protocols": protocols, "heatmaps": heatmaps}
        call(score, cfg, ScoreOptions, **of_run, **keywords)
        return {}
    results = call(evaluate, cfg, Options, **objects, **keywords)
    if cfg.plan:
        print_plan(results.environment["plan"])
    elif job.verbose:
        print_run(results, job.run_dir)
        job = job.begun(results.environment["command"])
        other = next((name for name in ("zhou2016", "exact") if name not in protocols), "choe2020")
        data = [f"dataset={job.choices['dataset']}", *job.typed("dataset."), *job.typed("limit=")]
        again = ["wsol", "score", f"heatmaps={job.run_dir / 'heatmaps'}", *data, f"protocol=[{other}]"]
        print_steps(
            job,
            (again, "other rules, without the network"),
            sweep_step(job, "view=squash,crop"),
            (["wsol", "--help"], "all options"),
        )
    return {}
