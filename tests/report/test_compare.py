"""Runs side by side: the statistics against SciPy and statsmodels, what is refused, words, files, the command."""

import re
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

import wsol
from wsol import cli
from wsol.datasets import Shapes
from wsol.errors import UserError
from wsol.models import Classifier, gapnet
from wsol.report.compare import PAIR_COLUMNS, Comparison, compare
from wsol.report.compare_page import findings, format_p, sentence, write_comparison
from wsol.report.run import Run

LENGTH = 30


def evaluate(
    folder: Path, seed: int, methods: tuple[str, ...], protocols: tuple[str, ...], length: int = LENGTH
) -> Path:
    data = Shapes("test", length=length, size=32, classes=7, object_size=(0.4, 0.9))
    network = Classifier(
        name="small", module=gapnet(7, widths=(6, 8), strides=(2, 2), seed=seed), layer="features",
        input_size=(32, 32), classes=data.classes, class_ids=data.ids,
    )  # fmt: skip
    wsol.evaluate(data, network, methods, protocols, run_dir=folder, pictures=0, report=False, progress=False)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """a and b: two networks on the same images; c: fewer images, other protocols."""
    place = tmp_path_factory.mktemp("runs")
    return {
        "a": evaluate(place / "a", 0, ("cam", "gradcam", "center"), ("choe2020", "zhou2016")),
        "b": evaluate(place / "b", 1, ("cam", "random"), ("choe2020", "zhou2016")),
        "c": evaluate(place / "c", 0, ("cam",), ("choe2020", "choe2020_v2"), 20),
    }


@pytest.fixture(scope="module")
def two(runs: dict[str, Path]) -> Comparison:
    return compare([runs["a"], runs["b"]], resamples=300, seed=4)


@pytest.fixture(scope="module")
def whole(runs: dict[str, Path]) -> Comparison:
    return compare([runs["a"], runs["b"]])


@pytest.fixture
def copies(runs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    return {name: shutil.copytree(folder, tmp_path / name) for name, folder in runs.items()}


def test_every_method_meets_every_other_under_each_protocol(two: Comparison) -> None:
    assert tuple(two.pairs.columns) == PAIR_COLUMNS
    titles = ["CAM (a)", "Grad-CAM (a)", "center baseline (a)", "CAM (b)", "random baseline (b)"]
    assert list(dict.fromkeys(two.summary["title"])) == titles
    located = two.pairs[two.pairs["metric"] == "gt_known_loc"]
    assert located.groupby("protocol").size().to_dict() == {"choe2020": 10, "zhou2016": 10}
    classified = two.pairs[two.pairs["metric"] == "top1_cls"]  # one comparison of networks, whatever the method
    assert classified[["protocol", "first", "second"]].to_numpy().tolist() == [["", "a", "b"]]
    assert "max_box_acc" in set(two.pairs.query("protocol == 'choe2020'")["metric"])
    assert "max_box_acc" not in set(two.pairs.query("protocol == 'zhou2016'")["metric"])


def test_numbers_are_the_runs_own(whole: Comparison, runs: dict[str, Path]) -> None:
    opened = {name: Run.open(folder) for name, folder in runs.items()}
    for _, row in whole.pairs.iterrows():
        for side in ("first", "second"):
            summary = opened[row[f"{side}_run"]].summary
            if row["protocol"]:
                chosen = (summary["method"] == row[f"{side}_method"]) & (summary["protocol"] == row["protocol"])
                summary = summary[chosen]
            assert row[f"{side}_value"] == pytest.approx(summary[row["metric"]].iloc[0], abs=1e-9)
        assert row["low"] - 1e-9 <= row["difference"] <= row["high"] + 1e-9


def test_differences_and_disagreements_against_the_references(two: Comparison, runs: dict[str, Path]) -> None:
    opened = {name: Run.open(folder) for name, folder in runs.items()}
    for _, row in two.pairs[two.pairs["metric"].isin(["gt_known_loc", "top1_loc"])].iterrows():
        names = ((row[f"{side}_run"], row[f"{side}_method"]) for side in ("first", "second"))
        tables = (opened[run].per_image(method, row["protocol"], [row["metric"]]) for run, method in names)
        first, second = (table[row["metric"]].to_numpy(bool) for table in tables)
        counts = int((first & ~second).sum()), int((second & ~first).sum())
        assert (row["first_only"], row["second_only"], row["disagree"]) == (*counts, sum(counts))
        reference = reference_mcnemar([[0, counts[0]], [counts[1], 0]], exact=True).pvalue
        assert row["p"] == pytest.approx(reference, abs=1e-9)
        if counts == (0, 0):
            continue
        interval = scipy.stats.bootstrap(
            (first.astype(float), second.astype(float)), lambda a, b, axis=-1: a.mean(axis) - b.mean(axis),
            n_resamples=300, paired=True, vectorized=True, method="percentile", random_state=np.random.default_rng(4),
        ).confidence_interval  # fmt: skip
        assert row["low"] == pytest.approx(100 * interval.low, abs=1e-9)
        assert row["high"] == pytest.approx(100 * interval.high, abs=1e-9)


def test_holm_counts_each_test_once(two: Comparison) -> None:
    tested = two.pairs[two.pairs["p"].notna()]
    # MaxBoxAcc is MaxBoxAcc at IoU 50, and under an oracle so is GT-known localization.
    again = (tested["protocol"] == "choe2020") & tested["metric"].isin(["max_box_acc", "gt_known_loc"])
    family = tested[~again]
    assert two.tests == len(family)
    assert np.allclose(family["p_holm"], multipletests(family["p"], method="holm")[1], rtol=0, atol=1e-9)
    assert (tested["more_than_noise"] == (tested["p_holm"] < 0.05)).all()
    rest = two.pairs[two.pairs["p"].isna()]
    assert set(rest["metric"]) == {"mean_iou"}
    assert (rest["more_than_noise"] == ((rest["low"] > 0) | (rest["high"] < 0))).all()


def test_protocols_of_equal_rules_are_one_test(copies: dict[str, Path], runs: dict[str, Path]) -> None:
    path, twin = copies["a"] / "summary.csv", asdict(wsol.load_protocol("choe2020")) | {"name": "twin", "holes": False}
    config, rules = yaml.safe_load((copies["a"] / "config.yaml").read_text()), copies["a"] / "rules.json"
    change_config(copies["a"], protocols=config["protocols"] | {"twin": twin})
    rules.write_text(rules.read_text().replace("{", '{"twin": "choe2020",', 1))
    (copies["a"] / "run.json").unlink()  # as of a run before that was written
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, *(line.replace("choe2020", "twin") for line in lines if "choe2020" in line)]))
    one, two = (compare([place["a"]], metrics=["gt_known_loc"]) for place in (runs, copies))
    assert one.tests == two.tests and set(two.pairs["protocol"]) == {"choe2020, twin", "zhou2016"}
    assert one.pairs["p_holm"].tolist() == two.pairs["p_holm"].tolist()


def test_runs_of_several_seeds_are_pooled(copies: dict[str, Path], tmp_path: Path) -> None:
    copies["a1"] = shutil.copytree(copies["a"], tmp_path / "a1")
    for name, seed in (("a", 0), ("a1", 1), ("b", 0)):
        model = {"name": "small" if name != "b" else "other", "seed": seed}
        change_config(copies[name], dataset={"length": LENGTH}, model=model)
    found = compare([copies[name] for name in ("a", "a1", "b")], metrics=["gt_known_loc"], resamples=100)
    titles = ["CAM (a)", "Grad-CAM (a)", "center baseline (a)", "CAM (b)", "random baseline (b)"]
    assert list(dict.fromkeys(found.summary["title"])) == titles
    own = Run.open(copies["a"]).summary.query("method == 'cam'")["gt_known_loc"]
    pooled = found.summary.query("title == 'CAM (a)'")
    assert np.allclose(pooled["gt_known_loc"], own) and (pooled["n_seeds"] == 2).all()
    assert (pooled["gt_known_loc_std"] == 0).all() and found.notes[0].startswith("a: means over 2 seeds")
    tested = found.pairs.set_index(["first", "second"])["p"].notna()
    assert not tested["CAM (a)"].any() and tested["CAM (b)", "random baseline (b)"].all()


def test_fewer_metrics_make_fewer_tests(runs: dict[str, Path], two: Comparison) -> None:
    few = compare([runs["a"], runs["b"]], metrics=["gt_known_loc"])
    assert (few.tests, set(few.pairs["metric"])) == (20, {"gt_known_loc"})
    wide = two.pairs[two.pairs["metric"] == "gt_known_loc"]["p_holm"].to_numpy()
    assert (few.pairs["p_holm"].to_numpy() <= wide + 1e-12).all()
    with pytest.raises(UserError, match="metrics: speed can't be compared; there are top1_cls, .*, pxap"):
        compare([runs["a"]], metrics=["speed"])


def test_pxap_is_compared_by_the_resamples_that_the_runs_keep(
    runs: dict[str, Path], two: Comparison, whole: Comparison
) -> None:
    assert "pxap" not in set(two.pairs["metric"])  # other resamples than the runs'
    assert any(note.startswith("PxAP can't be compared of CAM (a), Grad-CAM (a),") for note in two.notes)
    with pytest.raises(UserError, match="PxAP"):
        compare([runs["a"], runs["b"]], metrics=["pxap"], seed=1)
    pairs = whole.pairs[whole.pairs["metric"] == "pxap"]
    assert pairs.groupby("protocol").size().to_dict() == {"choe2020": 10, "zhou2016": 10}
    opened = {name: Run.open(folder) for name, folder in runs.items()}
    for _, row in pairs.iterrows():
        first, second = (
            opened[row[f"{side}_run"]].drawn_pxap(row[f"{side}_method"], row["protocol"], 2000)
            for side in ("first", "second")
        )
        assert [row["low"], row["high"]] == pytest.approx(100 * np.quantile(first - second, [0.025, 0.975]), abs=1e-9)
        assert np.isnan(row["p"]) and "PxAP" in row["sentence"]
        assert row["more_than_noise"] == (row["low"] > 0 or row["high"] < 0)
    fewer = compare([runs["a"], runs["b"]], metrics=["pxap"], resamples=500).pairs
    again = fewer[fewer["protocol"] == "choe2020"].iloc[0]
    run = opened["a"]
    drawn = run.drawn_pxap("cam", "choe2020", 500) - run.drawn_pxap("gradcam", "choe2020", 500)
    assert again["low"] == pytest.approx(100 * np.quantile(drawn, 0.025), abs=1e-9)


def test_methods_of_one_run_whose_pxap_was_not_resampled(copies: dict[str, Path]) -> None:
    for name in ("resamples.parquet", "run.json"):  # as of a run before these were written
        (copies["a"] / name).unlink()
    found = compare([copies["a"]])
    assert set(found.pairs["first"]) | set(found.pairs["second"]) == {"CAM", "Grad-CAM", "center baseline"}
    assert not found.pairs["metric"].isin(["top1_cls", "top5_cls", "pxap"]).any()
    assert any(note.startswith("PxAP can't be compared of CAM, ") for note in found.notes)
    with pytest.raises(UserError, match="two methods"):
        compare([copies["c"]])


def test_against_one_method_or_run(runs: dict[str, Path]) -> None:
    found = compare([runs["a"], runs["b"]], against="center", metrics=["gt_known_loc"])
    assert found.pairs["second"].tolist() == ["center baseline (a)"] * 2 * 4
    assert found.notes == ["Compared with center only."]
    assert len(compare([runs["a"], runs["b"]], against="b", metrics=["gt_known_loc"]).pairs) == 2 * 3 * 2
    with pytest.raises(UserError, match=r"layercam.*cam, a, CAM"):
        compare([runs["a"], runs["b"]], against="layercam")
    found = compare([runs["a"], runs["b"]], most=5, metrics=["gt_known_loc"])
    assert set(found.pairs["second"]) == {"CAM (a)"}
    assert found.notes[0].startswith("All 20 pairs would be more than 5: each is compared with CAM (a) only.")


def test_other_images_and_protocols_are_refused_or_shared(runs: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"samples.*test/00020, .* 7 more.*zhou2016.*choe2020_v2.*shared=true"):
        compare([runs["a"], runs["c"]])
    found = compare([runs["a"], runs["c"]], shared=True)
    assert set(found.pairs["protocol"]) == {"", "choe2020"}
    assert (found.pairs["n_images"] == 20).all()
    assert found.notes[0].endswith("Compared on 20 samples under choe2020.")
    # The same network, method and rules: on what they share nothing differs, and MaxBoxAcc is that of run c.
    same = found.pairs[(found.pairs["first"] == "CAM (a)") & (found.pairs["second"] == "CAM (c)")]
    assert (same["difference"] == 0).all()
    assert (same["disagree"].dropna() == 0).all()
    own = Run.open(runs["c"]).summary.set_index("protocol").loc["choe2020"]
    shown = found.summary[found.summary["title"] == "CAM (a)"].iloc[0]
    assert (shown["max_box_acc_70"], shown["threshold"]) == (own["max_box_acc_70"], own["threshold"])
    assert shown["n_samples"] == 20
    assert np.isnan(shown["pxap"])


def change_config(folder: Path, **changes: object) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config | changes))


def test_rules_of_the_same_name_must_be_the_same(copies: dict[str, Path]) -> None:
    change_config(copies["b"], protocols={"choe2020": asdict(wsol.load_protocol("choe2020")) | {"connectivity": 4}})
    with pytest.raises(UserError, match="choe2020.connectivity: 8 in a, 4 in b"):
        compare([copies["a"], copies["b"]])
    found = compare([copies["a"], copies["b"]], shared=True, metrics=["gt_known_loc"])
    assert set(found.pairs["protocol"]) == {"zhou2016"}


def test_data_of_the_same_name_must_be_the_same(copies: dict[str, Path]) -> None:
    change_config(copies["a"], dataset={"glyph": 0.2, "root": "/a"})
    change_config(copies["b"], dataset={"glyph": 0.5, "root": "/b"})
    with pytest.raises(UserError, match=r"dataset.glyph: 0.2 in a, 0.5 in b.*shared=true"):
        compare([copies["a"], copies["b"]])


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("sample_id", None, "a has samples that b has not.* 27 more"),
        ("class", "another", "class of sample test/00000.*another in b"),
        ("width", 1, "width of sample test/00000 is 32 in a, 1 in b"),
        ("true_boxes", np.ones(4), r"true_boxes of sample test/00000 is .* \[1.0, 1.0, 1.0, 1.0\] in b"),
    ],
)
def test_samples_of_the_same_name_must_be_the_same(
    copies: dict[str, Path], column: str, value: object, message: str
) -> None:
    samples = pd.read_parquet(copies["b"] / "samples.parquet")
    samples[column] = [f"other{row}" if value is None else value for row in range(len(samples))]
    samples.to_parquet(copies["b"] / "samples.parquet")
    (copies["b"] / "run.json").unlink()  # which would tell
    with pytest.raises(UserError, match=message):
        compare([copies["a"], copies["b"]], shared=True)


def test_which_runs_are_found(copies: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="named already"):
        compare([copies["a"], f"{copies['a']}/../a"])
    with pytest.raises(UserError, match="nowhere"):
        compare([tmp_path / "nowhere"])
    with pytest.raises(UserError, match=r"none\*"):
        compare([f"{tmp_path}/none*"])
    shutil.rmtree(copies["c"])
    (copies["b"] / "environment.json").unlink()
    with pytest.raises(UserError, match="environment.json missing"):
        compare([copies["a"], copies["b"]])
    found = compare([f"{tmp_path}/*"], metrics=["gt_known_loc"])
    assert list(found.aligned.runs) == ["small"]
    assert "left out: " in caplog.text
    assert "environment.json missing" in caplog.text


def test_an_oracle_beside_a_fixed_threshold_is_told(copies: dict[str, Path]) -> None:
    path = copies["b"] / "summary.csv"
    path.write_text(path.read_text().replace(",oracle,", ",/runs/val,"))
    (copies["b"] / "run.json").unlink()  # which would tell
    found = compare([copies["a"], copies["b"]], metrics=["gt_known_loc"])
    assert any("τ of choe2020: an oracle" in note and "another split in b" in note for note in found.notes)


ROW = {
    "metric": "top1_loc", "first": "A", "second": "B", "first_value": 72.06, "second_value": 70.0, "difference": 2.06,
    "low": 0.5, "high": 3.4, "p_holm": 0.0004, "disagree": 12, "more_than_noise": True, "n_images": 1200,
    "n_samples": 1200,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({}, ["A has 72.1 %", "1,200 images, 2.1 points more", "(significant: ", "0.5 to 3.4", "p < 0.001; 12 differ"]),
        ({"more_than_noise": False, "low": -0.5, "p_holm": 0.2}, ["told apart (", "−0.5 to 3.4", "p = 0.2;"]),
        ({"more_than_noise": False, "p_holm": 0.2}, ["told apart among so many tests"]),
        (
            {"metric": "mean_iou", "p_holm": np.nan, "disagree": pd.NA, "difference": -1.0, "low": -2, "high": -0.02},
            ["B has 72.1 % mean IoU", "1.00 points more than A", "0.02 to 2.00)."],
        ),
        ({"difference": 0.0, "disagree": 0, "low": 0.0, "high": 0.0}, ["the same outcome in Top-1 localization"]),
        ({"difference": 0.0, "low": -1.0, "n_samples": 1300}, ["equal", "1,300 samples of 1,200 images"]),
        ({"metric": "gt_known_loc", "first": "center baseline"}, ["The center baseline localizes 72.1 % of"]),
    ],
)  # fmt: skip
def test_sentences(changes: dict[str, object], facts: list[str]) -> None:
    text = sentence(ROW | changes)
    assert all(fact in text for fact in facts), text
    assert text[0].isupper() and text.endswith(".")


def test_findings_name_the_best_its_equals_and_those_behind() -> None:
    values = pd.Series({"A": 70.0, "B": 69.0, "center baseline": 60.0, "C": 50.0, "D": 41.0})
    p = {("A", "B"): 0.4, ("A", "C"): 0.01, ("A", "D"): 0.001, ("B", "center baseline"): 0.2}
    p |= {("A", "center baseline"): 0.01, ("C", "center baseline"): 0.01, ("D", "center baseline"): 0.001}
    first, same, less, weak = findings(values, ["center baseline"], p, "of 9 images")
    assert "A" in first and "70.0 %" in first and "10.0 points" in first and "(" not in first
    assert "A" in same and "B" in same and "C" not in same
    assert "C and D" in less and "20.0 to 29.0" in less and "B" in weak and "C" not in weak
    assert findings(values[2:3], ["center baseline"], p, "") == []


def test_p_values_have_the_digits_that_matter() -> None:
    assert [format_p(p) for p in (1e-9, 0.00213, 0.0312, 0.314, 1.0)] == ["< 0.001", "0.002", "0.031", "0.31", "1"]


def test_files(two: Comparison, tmp_path: Path) -> None:
    write_comparison(two, tmp_path, "wsol compare '<runs>'")
    table = pd.read_csv(tmp_path / "compare.csv", keep_default_na=False)
    assert tuple(table.columns) == PAIR_COLUMNS
    assert list(table["sentence"]) == list(two.pairs["sentence"])
    latex = (tmp_path / "compare.tex").read_text()
    assert (
        latex.count(r" \\") == 1 + 10 + 1 + 20 + 1
    )  # summary; GT-known localization of pairs, classification of networks
    assert "Grad-CAM (a)" in latex
    page = (tmp_path / "compare.html").read_text()
    assert "wsol compare &#39;&lt;runs&gt;&#39;" in page
    assert page.count("<tr data-metric=") == len(two.pairs)
    first = two.pairs[two.pairs["metric"] == "gt_known_loc"].groupby("protocol", sort=False).size()
    shown = re.findall(r'<tr data-metric="(\w+)" data-rules="(\w+)">', page)  # all others are hidden at first
    assert shown == [("gt_known_loc", first.index[0])] * first.iloc[0]
    assert 'src="http' not in page


def test_the_command(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"runs=[{runs['a']},{runs['b']}]", f"run_dir={tmp_path}/out", "resamples=200", "metrics=gt_known_loc"]
    assert cli.main(["compare", *words, "table.names={cam: My CAM, gt_known_loc: Loc}", "table.interval=true"]) == 0
    latex = (tmp_path / "out" / "compare.tex").read_text()
    assert latex.count("My CAM (a) & ") == 2 + 2 * 4 and "& Loc &" in latex and "Grad-CAM (a)" in latex
    interval = re.search(r"My CAM \(a\) & choe2020 &.*?(\d+\.\d) \{\[\}(\d+\.\d), (\d+\.\d)\{\]\}", latex)
    assert interval and float(interval[2]) < float(interval[1]) < float(interval[3])
    said = capsys.readouterr().out
    assert "CAM (a)" in said
    assert "30 images" in said
    assert " 20 tests" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.csv", "compare.html", "compare.tex"}
    assert "wsol compare" in (tmp_path / "out" / "compare.html").read_text()


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ([], "runs"),
        (["runs=/nowhere"], "/nowhere"),
        (["runs=[]"], "runs"),
        (["runs=x", "resamples=3"], "resamples"),
        (["runs=x", "shared=1"], "shared"),
    ],
)
def test_what_the_command_refuses(
    words: list[str], culprit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *words, f"run_dir={tmp_path}/out"]) == 2
    assert culprit in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
