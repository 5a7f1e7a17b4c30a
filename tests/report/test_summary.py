"""The summary for people: what is best is bold, odd names stay in their cells, published numbers stand beside."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from wsol.errors import UserError
from wsol.io import published_file
from wsol.localization import load_protocol
from wsol.report.latex import TableOptions, escape_latex, latex_table
from wsol.report.summary import (
    best_cells,
    html_summary,
    latex_summary,
    merge_equal,
    print_summary,
    published_beside,
    published_numbers,
    sensitivity_texts,
    write_summary,
)
from wsol.tables import SUMMARY_COLUMNS, Results

HOSTILE = (
    "salt & pepper", "100 %", "$x^2$", "#1", "snake_case", "{brace}", "til~de", "car^et", "back\\slash", "{[}x",
    "\\end{tabular}", 'quo"te', "it's", "new\nline\tand tab", "[0pt]", "*star", "a -- b --- c",
    "''q'' ``q`` ,,q,, ?` !`", "<a|b>", "Käse Łódź é", "bell \x07 zero\u200bwidth", "τ ± 1",
)  # fmt: skip


@pytest.fixture
def summary() -> pd.DataFrame:
    rows = [
        ("cam", "choe2020", 0.3264, "oracle", 75.44),
        ("my|own_1", "choe2020", 0.2, "oracle", 70.0),
        ("cam", "zhou2016", 0.2, "fixed", 60.0),
        ("my|own_1", "zhou2016", 0.2, "fixed", 60.04),
    ]
    frame = pd.DataFrame(rows, columns=["method", "protocol", "threshold", "threshold_source", "gt_known_loc"])
    frame = frame.reindex(columns=list(SUMMARY_COLUMNS))
    frame = frame.assign(dataset="shapes", split="test", model="net", view="squash", layer="features")
    frame = frame.assign(n_images=9, n_samples=9)
    return frame.astype(dict.fromkeys(SUMMARY_COLUMNS[-11:], float))


def test_markdown_and_latex(summary: pd.DataFrame, tmp_path: Path) -> None:
    write_summary(summary, tmp_path)
    markdown = (tmp_path / "summary.md").read_text(encoding="utf-8").splitlines()
    assert markdown[:4] == [
        "| method | protocol | τ | GT-known |",
        "| --- | --- | ---: | ---: |",
        "| CAM | choe2020 | 0.326* | **75.4** |",
        "| my\\|own_1 | choe2020 | 0.200* | 70.0 |",
    ]
    assert "**" not in "".join(markdown[4:6]), "both are 60.0"
    assert markdown[-1].startswith("τ\\*: ")
    latex = (tmp_path / "summary.tex").read_text(encoding="utf-8")
    assert r"\begin{tabular}{llrr}" in latex
    assert r"CAM & choe2020 & 0.326 & \textbf{75.4} \\" in latex
    assert r"my\textbar{}own\_1 & choe2020 & 0.200 & \underline{70.0} \\" in latex
    assert r"my\textbar{}own\_1 & zhou2016 & 0.200 & 60.0 \\" in latex
    assert r"\ensuremath{\tau}{*}: " in latex.splitlines()[-1]


def test_printed_without_a_terminal(summary: pd.DataFrame, capsys: pytest.CaptureFixture) -> None:
    empty = pd.DataFrame()
    results = Results(summary, empty, empty, environment={"source": {"weights": "random"}})
    print_summary(results)
    out = capsys.readouterr().out
    assert out.startswith("shapes (test, 9 samples), net, view squash; percent\n| method   | protocol | ")
    assert "| CAM      | choe2020 | 0.326* |     75.4 |" in out
    assert "Weights: random; layers: CAM, my|own_1 at features" in out
    assert "|   15.4 |" in out, "the spread over the protocols"
    assert "\x1b" not in out and "\u2501" not in out
    print_summary(replace(results, summary=summary.assign(n_images=1, n_samples=1)))
    assert "(test, 1 sample)" in capsys.readouterr().out


def test_protocols_whose_rules_make_equal_outcomes_are_one_row(summary: pd.DataFrame) -> None:
    twin = replace(load_protocol("choe2020"), name="twin", holes=False, ready_boxes=True)
    rules = {"choe2020": load_protocol("choe2020"), "zhou2016": load_protocol("zhou2016"), "twin": twin}
    rules["v2"] = load_protocol("choe2020_v2")
    half = summary.query("protocol == 'choe2020'")
    table = pd.concat([summary, half.assign(protocol="twin"), half.assign(protocol="v2")], ignore_index=True)
    merged = merge_equal(table, rules)
    assert list(dict.fromkeys(merged["protocol"])) == ["choe2020, twin", "zhou2016", "v2"], (
        "equal results decide nothing"
    )
    assert len(merged) == 6
    table.loc[table["protocol"] == "twin", "threshold_source"] = "results/runs/VAL"
    assert merge_equal(table, rules)["protocol"].nunique() == 4
    assert sensitivity_texts(half.assign(protocol="v2")) is None, "nothing differs"


def test_the_page_has_what_the_others_have(summary: pd.DataFrame) -> None:
    columns = ["method", "protocol", "metric", "low", "high", "oracle"]
    intervals = pd.DataFrame([("cam", "choe2020", "gt_known_loc", 70.0, 81.0, True)], columns=columns)
    paper = {"method": "CAM", "split": "test", "source": "Zhou", "note": "", "metric": "top1_loc", "value": 42.8}
    table = html_summary(summary, intervals, {"my|own_1": "center"}, pd.DataFrame([paper]))
    assert [title for _, title, *_ in table["columns"]] == ["method", "protocol", "τ", "Top-1 loc", "GT-known"]
    assert [row["kind"] for row in table["rows"]] == ["", "baseline", "", "baseline", "published"]
    first, *_, paper_row = table["rows"]
    assert first["texts"] == {"method": "CAM", "protocol": "choe2020", "threshold": "0.326", "gt_known_loc": "75.4"}
    notes = {"method": "at features", "protocol": "", "threshold": "oracle*", "gt_known_loc": "70.0–81.0*"}
    assert first["notes"] == notes
    assert paper_row["texts"] == {"method": "CAM", "top1_loc": "42.8"}
    assert paper_row["notes"] == {"method": "published, test: Zhou"}
    assert [list(row["best"]) for row in table["rows"]] == [["gt_known_loc"], [], [], [], []]


def test_best_among_its_own() -> None:
    table = pd.DataFrame({"p": ["x", "x", "y", "y", "z"], "acc": ["70.02", "69.98", "10", "30", ""], "n": range(5)})
    assert best_cells(table, ["acc"], "p")["acc"].tolist() == [False, False, False, True, False]
    assert best_cells(table, ["acc"])["acc"].tolist() == [True, True, False, False, False]
    assert not best_cells(table, [], "p").any(axis=None)


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a&b%c$d#e_f", r"a\&b\%c\$d\#e\_f"),
        ("{~^\\}", r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}"),
        ("two\n lines\t", "two lines"),
        ("[x]*", "{[}x{]}{*}"),
        ("\x00\ud800bad", "bad"),
        ("τ", r"\ensuremath{\tau}"),
        ("猫", "猫"),
    ],
)
def test_latex_prints_any_text(text: str, escaped: str) -> None:
    assert escape_latex(text) == escaped


def compile_paper(place: Path, text: str, kind: str, packages: str) -> None:
    """Take a table with \\input into a column and over the page; nothing may stick out."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    (place / "rows.tex").write_text(text, encoding="utf-8")
    table = r"\begin{table}\centering\input{rows.tex}\caption{x}\end{table}"
    preamble = rf"\documentclass{kind}\usepackage[T1]{{fontenc}}{packages}\begin{{document}}"
    paper = preamble + table + table.replace("{table}", "{table*}") + r"\end{document}"
    (place / "paper.tex").write_text(paper, encoding="utf-8")
    words = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout, done.stdout[-2000:]


def wide_summary() -> pd.DataFrame:
    """Three methods of two layers under two protocols, with all that can be measured and intervals."""
    rows, settings = [], (("cam", "gradcam", "center"), ("layer3", "layer4"), ("choe2020", "choe2020_v2"))
    for number, (method, layer, protocol) in enumerate(product(*settings)):
        row = {"method": f"{method}@{layer}", "layer": layer, "protocol": protocol, "threshold": 0.25}
        row |= dict.fromkeys(SUMMARY_COLUMNS[-11:], 50.0 + number) | {"threshold_source": "results/runs/a_b/" * 6}
        row |= {f"gt_known_loc_{end}": row["gt_known_loc"] + side for end, side in (("low", -2), ("high", 2))}
        rows.append(row | {"dataset": "CUB", "split": "test", "model": "resnet50", "n_images": 5794, "n_samples": 5794})
    return pd.DataFrame(rows)


def test_a_table_is_pivoted_named_and_cut_as_asked() -> None:
    both = TableOptions(rows=["method", "protocol"], columns=["layer", "gt_known_loc"], names={"cam": "Our CAM"})
    lines = latex_summary(wide_summary(), both)
    assert r"method & protocol & layer3 & layer4 \\" in lines and r"Our CAM & choe2020 & 50.0 & 52.0 \\" in lines
    assert r"Grad-CAM & choe2020 & \underline{54.0} & \underline{56.0} \\" in lines
    one = TableOptions(columns=["gt_known_loc", "max_box_acc_v2"], interval=True)
    assert r"CAM at layer3 & choe2020 & 50.0 {[}48.0, 52.0{]} & 50.0 \\" in latex_summary(wide_summary(), one)
    with pytest.raises(UserError, match="protocol"):
        latex_summary(wide_summary(), TableOptions(rows=["method"], columns=["layer"]))
    with pytest.raises(UserError, match="gt_know"):
        latex_summary(wide_summary(), TableOptions(columns=["gt_know"]))
    assert "(Choe" in latex_summary(wide_summary().query("protocol == 'choe2020'"), TableOptions(published=True))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["{article}", "[twocolumn]{article}"])
@pytest.mark.parametrize(
    "options", [{"interval": True, "published": True}, {"columns": ["layer", "gt_known_loc", "pxap"]}]
)
def test_any_table_fits_one_and_two_columns(tmp_path: Path, kind: str, options: dict) -> None:
    text = latex_summary(wide_summary(), TableOptions(**options))
    compile_paper(tmp_path, text, kind, r"\usepackage{booktabs,graphicx}")


@pytest.mark.long
def test_latex_of_hostile_names_compiles_inside_a_paper(tmp_path: Path) -> None:
    table = pd.DataFrame({"class_name": HOSTILE, "acc": [f"{50 + i}.0" for i in range(len(HOSTILE))]})
    table.loc[1, "acc"] = ""
    marks = np.where(best_cells(table, ["acc"]), "textbf:--rwrap;", "")
    text = latex_table(table, marks, headings={"acc": "GT-known & τ*"}, note="100 % & more_of it.")
    assert r"\begin{tabular}{lr}" in text and r"100 \% & -- \\" in text
    compile_paper(tmp_path, text, "{article}", r"\usepackage{booktabs}")


def test_every_published_number_is_a_percentage_of_a_known_metric_with_its_source() -> None:
    table = pd.read_csv(published_file(), keep_default_na=False)
    assert len(table) > 100
    assert table["value"].between(0, 100, inclusive="neither").all()
    assert set(table["metric"]) <= set(SUMMARY_COLUMNS)
    for column in ("dataset", "split", "method", "source"):
        assert (table[column] != "").all(), column
    keys = ["dataset", "split", "model", "method", "metric", "normalization", "source"]
    assert not table.duplicated(keys).any()
    assert table["protocol"].str.fullmatch(r"(\w+\d{4}\w*)?").all() and (table["n_images"] >= 1000).all()


@pytest.mark.parametrize(
    ("dataset", "model", "method", "metric", "value"),
    [
        ("ilsvrc", "resnet50", "CAM", "max_box_acc_v2", 63.65),
        ("ImageNet", "vgg16_gap", "CAM", "top1_loc", 42.8),
        ("ILSVRC", "vgg16_gap", "CAM", "max_box_acc_v2", 60.02),
        ("CUB_200_2011", "Inception-v3", "CAM", "max_box_acc_v2", 56.68),
        ("OpenImages", "resnet50", "CAM", "pxap", 58.49),
        ("cub", "anything", "center baseline", "max_box_acc_v2", 59.7),
        ("tiny_imagenet", "tiny_resnet18", "CAM", "top1_loc", 40.55),
    ],
)
def test_names_of_ours_find_those_of_papers(dataset: str, model: str, method: str, metric: str, value: float) -> None:
    table = published_numbers(dataset, model)
    table = table[table["normalization"].isin(["", "minmax"])]
    assert table[(table["method"] == method) & (table["metric"] == metric)]["value"].tolist() == [value]


@pytest.mark.parametrize(("dataset", "split", "images", "shown", "words"), [
    ("CUB", "test", 5794, 4, ""), ("ILSVRC", "val", 50_000, 4, ""), ("ILSVRC", "test", 50_000, 4, ""),
    ("Tiny-ImageNet", "val", 200, 0, "200 of 10,000"), ("ILSVRC", "val", 10_000, 0, "10,000 of 50,000"),
    ("CUB", "val", 5794, 0, "val, not test"), ("shapes", "test", 5794, 0, ""),
])  # fmt: skip
def test_published_numbers_stand_beside_the_same_images_only(
    tmp_path: Path, summary: pd.DataFrame, dataset: str, split: str, images: int, shown: int, words: str
) -> None:
    ours = summary.assign(dataset=dataset, split=split, n_images=images, model="resnet50")
    table, note = published_beside(ours)
    cam = table.query("method == 'CAM' and model == 'resnet50'")
    assert len(cam) == shown and words in note and bool(words) == bool(note)
    write_summary(ours, tmp_path, {"choe2020": "choe2020@01234567, wsol 1"})
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    assert text.count("| CAM | resnet50 |") == shown and words in text and "choe2020@01234567" in text


@pytest.mark.parametrize(
    ("dataset", "model", "models"),
    [
        ("shapes", "shapes", set()),
        ("cub2", "resnet50", set()),
        ("", "", set()),
        ("ilsvrc", "resnet18", {""}),
        ("ilsvrc", "googlenet", {"", "GoogLeNet"}),
    ],
)
def test_what_is_not_the_same_is_not_beside(dataset: str, model: str, models: set[str]) -> None:
    assert set(published_numbers(dataset, model)["model"]) == models


def test_results_show_themselves_in_a_notebook(run: Results) -> None:
    lines = repr(run).splitlines()[1:]  # the first names the folder, however long its path is
    assert len(lines) < 45 and max(map(len, lines)) <= 120
    html = run._repr_html_()
    assert "GT-known" in html and "font-weight: bold" in html
    figure = Figure()
    axes = figure.subplots()
    assert run.plot("zhou2016", axes) is axes and len(axes.lines) == 2 * run.summary["method"].nunique()
    with pytest.raises(UserError, match="choe2020_v2"):
        run.plot(iou=0.4)
    assert run.plot().figure is not None and "Grad-CAM" in run.to_latex()
