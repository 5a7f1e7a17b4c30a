"""`wsol compare`: runs side by side, and for each pair of methods whether the difference is significant."""

from collections.abc import Mapping

from omegaconf import DictConfig

from wsol.commands.task import Job
from wsol.config import call, to_dict
from wsol.console import print_line
from wsol.errors import UserError, quantity
from wsol.report.compare import Comparison, compare
from wsol.report.compare_page import headlines, meaning, write_comparison
from wsol.report.faithfulness import print_faithfulness
from wsol.report.latex import table_options
from wsol.report.summary import print_display

ON_SCREEN = 30  # sentences


def run(cfg: DictConfig, job: Job) -> Mapping[str, object]:
    """Runs → `compare.html`, `compare.csv`, `compare.tex` in the job's folder."""
    settings = to_dict(cfg)
    names = ("runs", "metrics", "repeat")
    lists = {name: [value] if isinstance(value := settings[name], str) else value for name in names}
    if not lists["runs"]:
        raise UserError(f"runs={settings['runs']}: name at least one run's folder, as in 'runs=[A,B]'")
    comparison = call(compare, cfg, **lists)
    write_comparison(comparison, job.run_dir, job.request.line, table_options(settings))
    if job.verbose:
        _print(comparison, every_pair=lists["metrics"] is not None)
        print_line(f"Page and tables: {job.run_dir}/compare.html, compare.csv, compare.tex")
    return {"pairs": len(comparison.pairs), "more_than_noise": int(comparison.pairs["more_than_noise"].sum())}


def _print(comparison: Comparison, every_pair: bool) -> None:
    """Print the summaries side by side, and what differs in words."""
    first, pairs = comparison.summary.iloc[0], comparison.pairs
    title = f"{first['dataset']} ({first['split']}, {quantity(first['n_samples'], 'sample')}); percent"
    print_display(comparison.summary, title)
    for note in comparison.notes:
        print_line(f"Mind: {note}")
    chosen = pairs if every_pair else headlines(pairs)
    for protocol, rows in chosen.head(ON_SCREEN).groupby("protocol", sort=False):
        print_line(f"{str(protocol) or 'classification'}:")
        for sentence in rows["sentence"]:
            print_line(f"  {sentence}")
    if len(chosen) > ON_SCREEN:
        print_line(f"and {len(chosen) - ON_SCREEN} more: see compare.html or compare.csv")
    if comparison.faithfulness is not None:
        print_faithfulness(comparison.faithfulness)
    for note in meaning(pairs, comparison.tests):
        print_line(note)
