"""LaTeX tables: any text comes through, the best is bold, and what is written compiles as it is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from wsol.errors import UserError
from wsol.report.best import best_rows
from wsol.report.latex import escape, latex_table

HOSTILE = (
    "salt & pepper", "100 %", "$x^2$", "#1", "snake_case", "{brace}", "til~de", "car^et", "back\\slash", "{[}x",
    "\\end{tabular}", 'quo"te', "it's", "new\nline\tand tab", "[0pt]", "*star", "a -- b --- c",
    "''q'' ``q`` ,,q,, ?` !`", "<a|b>",
    "Käse Łódź é", "e\u0301 decomposed", "猫", "кот", "חתול", "🐈", "bell \x07 zero\u200bwidth", "τ ≥ 0.2 ± 1",
)  # fmt: skip


def body(text: str) -> list[str]:
    return [line for line in text.splitlines() if "&" in line]


def compiled(text: str, folder: Path, engine: str) -> str:
    """Compile a file and return the text of its page, where a program for that is there."""
    (folder / "table.tex").write_text(text, encoding="utf-8")
    words = [engine, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    if shutil.which("pdftotext") is None:
        return ""
    words = ["pdftotext", "-layout", "table.pdf", "-"]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def table() -> str:
    frame = pd.DataFrame(
        {"class_name": HOSTILE, "n": range(len(HOSTILE)), "acc": [50.04 + i for i in range(len(HOSTILE))]}
    )
    frame.loc[1, "acc"] = None
    return latex_table(frame, headings={"acc": "GT-known & τ*"}, best=["acc"], note="A note: 100 % & more_of it. " * 4)


@pytest.mark.parametrize("engine", ["pdflatex", "lualatex"])
def test_compiles_as_it_is_and_names_come_through(table: str, tmp_path: Path, engine: str) -> None:
    if shutil.which(engine) is None:
        pytest.skip(f"no {engine} here")
    page = compiled(table, tmp_path, engine)
    if page:
        seen = " ".join(page.split())
        for name in ("salt & pepper", "100 %", "#1", "snake_case", "{brace}", "back\\slash", "\\end{tabular}", "[0pt]"):
            assert name in seen
        assert "Käse" in seen and "GT-known & τ" in seen
        assert ("U+732B" in seen) == (engine == "pdflatex")


def test_compiles_inside_a_paper_twice(table: str, tmp_path: Path) -> None:
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here")
    (tmp_path / "inner.tex").write_text(table, encoding="utf-8")
    paper = r"\documentclass{article}\usepackage{booktabs}\begin{document}%s end.\end{document}" % (
        r"\input{inner}" * 2
    )
    page = compiled(paper, tmp_path, "pdflatex")
    assert not page or (page.count("snake") == 2 and "end." in page)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a&b%c$d#e_f", r"a\&b\%c\$d\#e\_f"),
        ("{~^\\}", r"\{\textasciitilde{}\textasciicircum{}\textbackslash{}\}"),
        ("two\n lines\t", "two lines"),
        ("a--b''", "a-{}-b'{}'"),
        ("[x]*", "{[}x{]}{*}"),
        ("\x00\ud800bad", "bad"),
        ("τ", r"\ensuremath{\tau}"),
        ("猫", "猫"),
    ],
)
def test_escape(text: str, expected: str) -> None:
    assert escape(text) == expected


def test_numbers_have_one_decimal_and_missing_values_are_dashes() -> None:
    frame = pd.DataFrame(
        {"m": ["a", "", None], "tau": [0.25, 0.5, None], "acc": [1.25, float("nan"), 100], "n": [1, 2, 3]}
    )
    text = latex_table(frame, decimals={"tau": 3})
    assert r"\begin{tabular}{lrrr}" in text
    assert body(text)[1:] == [r"a & 0.250 & 1.2 & 1 \\", r"-- & 0.500 & -- & 2 \\", r"-- & -- & 100.0 & 3 \\"]


def test_best_is_bold_among_its_own() -> None:
    frame = pd.DataFrame({"p": ["x", "x", "y", "y"], "acc": [70.02, 69.98, 10, 30], "error": [1.0, 2.0, None, 4.0]})
    rows = body(latex_table(frame, best={"acc": "max", "error": "min"}, within="p"))[1:]
    assert rows == [
        r"x & 70.0 & \textbf{1.0} \\",
        r"x & 70.0 & 2.0 \\",
        r"y & 10.0 & -- \\",
        r"y & \textbf{30.0} & 4.0 \\",
    ]
    assert r"\textbf" not in latex_table(frame)


def test_best_names_a_column_that_is_not_there() -> None:
    frame = pd.DataFrame({"acc": [1.0]})
    with pytest.raises(UserError, match="no column 'pxap' among acc"):
        best_rows(frame, "pxap")
    with pytest.raises(UserError, match="acc='most': pass max or min"):
        best_rows(frame, "acc", "most")
