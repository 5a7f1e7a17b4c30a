"""Faithfulness in tables: means and tests against SciPy's, runs side by side, LaTeX, agreement with localization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, spearmanr, wilcoxon

import wsol
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.metrics.statistics import holm, rank_agreement, resampled_means
from wsol.models import Classifier, gapnet
from wsol.report.compare import compare
from wsol.report.compare_page import write_comparison
from wsol.report.faithfulness import judge, latex_faithfulness, measured_values, presets_of
from wsol.report.latex import TableOptions
from wsol.report.run import Run

QUICK = {"metrics": ["deletion", "average_drop", "increase"], "steps": 3}
LOGITS = {"metrics": ["insertion", "increase"], "steps": 2, "score": "logit", "relative": False}


def table_of(**columns: np.ndarray) -> pd.DataFrame:
    """Columns named preset__metric__method."""
    table = pd.DataFrame({tuple(name.split("__")): values for name, values in columns.items()})
    return table.rename_axis(columns=["preset", "metric", "method"])


def test_means_and_tests_are_scipys() -> None:
    rng, image = np.random.default_rng(0), np.arange(40)
    a, up = rng.random(40) * 50, rng.random(40) < 0.2
    values = table_of(
        p__deletion__a=a, p__deletion__b=a + rng.random(40) * 9, p__deletion__c=a + rng.normal(0.5, size=40),
        p__increase__a=100.0 * up, p__increase__b=100.0 * (up | (rng.random(40) < 0.5)), p__increase__c=100.0 * up,
    )  # fmt: skip
    judged = judge(values, image, [("a", "b"), ("a", "c"), ("b", "c")])
    means, pairs = judged.means.set_index(["metric", "method"]), judged.pairs.set_index(["metric", "first", "second"])
    assert means["value"].to_numpy() == pytest.approx(values.mean().to_numpy())
    low, high = np.quantile(resampled_means(values.to_numpy()), [0.025, 0.975], axis=0)
    assert means["low"].to_numpy() == pytest.approx(low) and means["high"].to_numpy() == pytest.approx(high)
    for name, first, second in (("deletion", "a", "b"), ("deletion", "a", "c")):
        difference = values["p", name, first] - values["p", name, second]
        assert pairs.loc[(name, first, second), "p"] == pytest.approx(wilcoxon(difference.round(3)).pvalue)
        assert pairs.loc[(name, first, second), "difference"] == pytest.approx(difference.mean())
    only = int((values["p", "increase", "b"] > values["p", "increase", "a"]).sum())
    row = pairs.loc[("increase", "a", "b")]
    assert (row["first_only"], row["second_only"]) == (0, only)
    assert row["p"] == pytest.approx(binomtest(0, only).pvalue) and pairs.loc[("increase", "a", "c"), "p"] == 1
    assert pairs["p_holm"].to_numpy() == pytest.approx(holm(pairs["p"].to_numpy()))
    # Low is good for deletion, high for increase.
    assert set(means.index[means["best"]]) == {("deletion", "a"), ("increase", "b")}
    assert set(means.index[means["differs"]]) == {
        ("deletion", "b"), ("deletion", "c"), ("increase", "a"), ("increase", "c"),
    }  # fmt: skip


def test_rounding_is_no_difference_and_outliers_do_not_decide() -> None:
    rng, image = np.random.default_rng(1), np.arange(60)
    a, outlier = rng.random(60) * 50, np.where(image == 0, -4000.0, rng.random(60))
    values = table_of(p__gain__a=a, p__gain__b=a + 1e-7 * rng.random(60), p__gain__c=a + outlier)
    pairs = judge(values, image, [("a", "b"), ("a", "c")]).pairs
    assert pairs["p"].iloc[0] == 1
    assert pairs["p_holm"].iloc[1] < 0.05  # most samples gain; the mean loses
    assert not pairs["more_than_noise"].any()


def test_samples_of_one_image_are_one_observation() -> None:
    rng, image = np.random.default_rng(2), np.repeat(np.arange(8), 5)
    a = np.repeat(rng.random(8), 5)
    values = table_of(p__increase__a=100 * (a > 2), p__increase__b=100 * (a > 0.0), p__gain__a=a, p__gain__b=a + 1)
    pairs = judge(values, image, [("a", "b")]).pairs
    assert pairs["p"].tolist() == [wilcoxon(np.full(8, 1.0)).pvalue] * 2
    assert pairs[["n_images", "n_samples"]].drop_duplicates().values.tolist() == [[8, 40]]


def evaluate(
    folder: Path, seed: int, presets: Mapping[str, object], limit: int = 10, asked: str = "small",
    methods: Sequence[str] = ("cam", "gradcam", "center"),
) -> Path:  # fmt: skip
    data = Shapes("test", length=12, size=32, classes=7, object_size=(0.4, 0.9))
    network = Classifier(
        name="small", module=gapnet(7, widths=(6, 8), strides=(2, 2), seed=seed), layer="features",
        input_size=(32, 32), classes=data.classes, class_ids=data.ids,
    )  # fmt: skip
    config = {"dataset": {"name": "shapes"}, "model": {"name": asked, "seed": seed}, "faithfulness": presets}
    wsol.evaluate(
        data, network, methods, ["choe2020"], faithfulness=presets, faithfulness_limit=limit,
        run_dir=folder, pictures=0, report=False, progress=False, config=config,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Networks of two seeds, and b asked for under another name: c; a preset of one name has other rules than in a."""
    place = tmp_path_factory.mktemp("faithful")
    presets = {"quick": QUICK, "logits": LOGITS}
    return {
        "a": evaluate(place / "a", 0, presets | {"own": QUICK}),
        "b": evaluate(place / "b", 1, presets | {"own": QUICK | {"steps": 4}}, limit=8),
        "c": evaluate(place / "c", 1, presets | {"own": QUICK | {"steps": 4}}, limit=8, asked="other"),
        "none": evaluate(place / "none", 2, {}),
    }


def test_runs_are_compared_on_what_both_measured(runs: dict[str, Path], tmp_path: Path) -> None:
    a, c = runs["a"], runs["c"]
    comparison = compare([a, c], metrics=["gt_known_loc", "deletion", "insertion"])
    judged = comparison.faithfulness
    assert judged is not None
    assert set(judged.means["preset"]) == {"quick", "logits"}
    assert any("own" in note for note in comparison.notes)
    rows = Run.open(a).faithfulness
    expected = rows[(rows["preset"] == "logits") & (rows["metric"] == "insertion") & rows["share"].isna()]
    mean = expected[expected["method"] == "cam"]["value"].iloc[:8].mean()  # logits as they are
    ((shown,),) = judged.means.query("preset == 'logits' and method == 'CAM (a)'")[["value"]].to_numpy()
    assert shown == pytest.approx(mean)
    write_comparison(comparison, tmp_path)
    table = pd.read_csv(tmp_path / "compare.csv", keep_default_na=False)
    measured = table[table["protocol"].isin(["quick", "logits"])]
    assert len(measured) == 2 * 15 and set(measured["first_run"]) == {"a", "c"}
    assert set(measured["n_samples"].astype(int)) == {8}
    page = (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert 'id="faithfulness"' in page and page.count('<tr data-metric="deletion (quick)"') == 15
    only = compare([a, c], metrics=["deletion"], against="center")
    assert set(only.pairs["metric"]) == {"deletion"} and len(only.pairs) == 8 and only.tests == 0
    write_comparison(only, tmp_path)
    assert ">nan<" not in (tmp_path / "compare.html").read_text(encoding="utf-8")  # Wilcoxon's test counts nobody


def test_seeds_are_pooled(runs: dict[str, Path]) -> None:
    a, b = (Run.open(runs[name]) for name in "ab")
    ids = b.faithfulness["sample_id"].unique()
    tables = [measured_values(run.faithfulness, presets_of(run.config, run.faithfulness["preset"].unique()))
              for run in (a, b)]  # fmt: skip
    mean = np.mean([table.loc[ids, ("quick", "deletion", "gradcam")].mean() for table in tables])
    judged = compare([a.folder, b.folder]).faithfulness
    assert judged is not None
    rows = judged.means.query("preset == 'quick' and metric == 'deletion'").set_index("method")
    assert len(rows) == 3 and rows.loc["Grad-CAM", "value"] == pytest.approx(mean)


def test_a_run_without_it(runs: dict[str, Path]) -> None:
    assert compare([runs["none"]]).faithfulness is None
    assert not (runs["none"] / "faithfulness.tex").exists()
    with pytest.raises(UserError, match="deletion"):
        compare([runs["none"]], metrics=["deletion"])
    judged = compare([runs["c"], runs["none"]]).faithfulness
    assert judged is not None and all(title.endswith("(c)") for title in judged.means["method"])


def test_one_method_that_was_measured_has_no_pair(runs: dict[str, Path], tmp_path: Path) -> None:
    one = evaluate(tmp_path / "one", 1, {"quick": QUICK}, asked="other", methods=["cam"])
    comparison = compare([one, runs["none"]], against="CAM (one)")
    judged = comparison.faithfulness
    assert judged is not None and set(judged.means["method"]) == {"CAM (one)"} and judged.pairs.empty
    assert len(comparison.pairs) and not comparison.pairs["metric"].isin(["deletion", "average_drop", "increase"]).any()
    write_comparison(comparison, tmp_path)
    with pytest.raises(UserError, match="deletion"):
        compare([one, runs["none"]], against="CAM (one)", metrics=["deletion"])


def test_a_table_for_a_paper(runs: dict[str, Path]) -> None:
    text = (runs["a"] / "faithfulness.tex").read_text(encoding="utf-8")
    assert text.count(r" \\") == 1 + 3 * 3
    judged = compare([runs["a"]]).faithfulness
    assert judged is not None
    chosen = latex_faithfulness(judged, TableOptions(interval=False, names={"quick": "Mine", "CAM": "Ours"}))
    assert "Mine & Ours & " in chosen and "{[}" not in chosen.partition(r"\bottomrule")[0]


@pytest.mark.usefixtures("no_figures")
def test_a_run_records_its_presets_and_older_runs_have_the_released_ones(tmp_path: Path) -> None:
    data, folder = Shapes(length=4), tmp_path / "run"
    wsol.evaluate(
        data, wsol.models.shapes_classifier(), ["cam", "center"], ["choe2020"], faithfulness=["chattopadhay2018"],
        faithfulness_limit=2, run_dir=folder, pictures=0, progress=False,
    )  # fmt: skip
    page = (folder / "report.html").read_text(encoding="utf-8")  # neither curves nor enough methods for a correlation
    assert 'id="faithfulness"' in page
    recorded = presets_of(Run.open(folder).config, ["chattopadhay2018"])
    assert recorded == presets_of({}, ["chattopadhay2018"])
    with pytest.raises(UserError, match="config.yaml"):
        presets_of({"faithfulness": {"mine": "deletion"}}, ["mine"])


def test_agreement_is_over_images() -> None:
    rng, image = np.random.default_rng(0), np.repeat(np.arange(10), 4)
    first, second = rng.random((40, 6)), rng.random((40, 6))
    rho, low, high = rank_agreement(first, second, image)
    assert rho == pytest.approx(spearmanr(first.mean(0), second.mean(0)).statistic)
    means = [resampled_means(table, image) for table in (first, second)]
    each = [spearmanr(one, two).statistic for one, two in zip(*means, strict=True)]
    assert (low, high) == pytest.approx(np.quantile(each, [0.025, 0.975]))
