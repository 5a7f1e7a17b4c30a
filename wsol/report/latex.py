r"""From a DataFrame to a LaTeX table (booktabs) that compiles as it is and can be `\input` into a paper as well."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import pandas as pd

from wsol.report.best import best_rows

__all__ = ["escape", "latex_table"]

SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind \\ these would be its options
}  # fmt: skip
MATH = {
    "τ": r"\tau", "α": r"\alpha", "β": r"\beta", "γ": r"\gamma", "δ": r"\delta", "ε": r"\varepsilon", "λ": r"\lambda",
    "μ": r"\mu", "π": r"\pi", "σ": r"\sigma", "Δ": r"\Delta", "Σ": r"\Sigma", "×": r"\times", "±": r"\pm",
    "≤": r"\leq", "≥": r"\geq", "≈": r"\approx", "−": "-", "→": r"\to", "∞": r"\infty",
}  # fmt: skip
LIGATURES = re.compile(r"(?<=-)(?=-)|(?<=')(?=')|(?<=,)(?=,)|(?<=[?!])(?=`)")
UNPRINTABLE = ("Cc", "Cf", "Cn", "Cs")  # Unicode's categories of control, format, no and half characters
MISSING = "--"
KNOWN_TO_PDFLATEX = range(0xA0, 0x180)  # Latin-1 and Latin Extended-A

HEAD = r"""% Compiles as it is; \input it into a paper that loads booktabs.
\expandafter\ifx\csname @twoclasseserror\endcsname\documentclass\else
  \documentclass{article}
  \usepackage[paperwidth=WIDTHcm,paperheight=HEIGHTcm,margin=1cm]{geometry}
  \usepackage{booktabs}
  \ifdefined\Umathchar\else\usepackage[T1]{fontenc}\fi
  \IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
  \pagestyle{empty}\setlength{\parindent}{0pt}
  \newcommand{\closealone}{\end{document}}
  \begin{document}
\fi
"""
FOOT = r"\ifdefined\closealone\expandafter\closealone\fi" + "\n"


def escape(text: object) -> str:
    r"""Make LaTeX print a text as it is.

    Parameters
    ----------
    text : object
        Anything with a text; line breaks and tabs become spaces, other control characters vanish.

    Returns
    -------
    str
        Letters beyond ASCII stay as they are; a few Greek letters and signs become math.

    Examples
    --------
    >>> print(escape("100 % of {R&D}_1 at τ ≥ 0.2"))
    100 \% of \{R\&D\}\_1 at \ensuremath{\tau} \ensuremath{\geq} 0.2
    """
    plain = " ".join(unicodedata.normalize("NFC", str(text)).split())
    plain = LIGATURES.sub("\0", "".join(c for c in plain if unicodedata.category(c) not in UNPRINTABLE))
    return "".join(_one(character) for character in plain)


def latex_table(
    frame: pd.DataFrame,
    *,
    headings: Mapping[str, str] | None = None,
    decimals: int | Mapping[str, int] = 1,
    best: Sequence[str] | Mapping[str, str] = (),
    within: str | None = None,
    note: str = "",
) -> str:
    r"""Make a table with booktabs' rules.

    Parameters
    ----------
    frame : DataFrame
        Text columns stand to the left, numbers to the right; the index is not shown. Any text is printed as it is.
    headings : mapping, optional
        Column → what stands above it; by default the column's name.
    decimals : int or mapping of column to int
        Of numbers that are not whole; 1 where the mapping has none, as percent want it.
    best : sequence of columns, or mapping of column to "max" or "min"
        Where the best number is bold; the largest, if nothing is said. What looks equal is bold together, and
        nothing where all look equal.
    within : str, optional
        A column: the best is looked for among rows of equal value there.
    note : str
        Stands below the table.

    Returns
    -------
    str
        A whole file. On its own it makes a page as large as the table; inside another document, just the table.
        Missing values (and empty texts) are `--`.

    Raises
    ------
    UserError
        If `best` or `within` names no column.

    Examples
    --------
    >>> table = pd.DataFrame({"class": ["A & B", "C_1", "D"], "acc": [75.44, 70, None]})
    >>> text = latex_table(table, headings={"acc": "GT-known"}, best=["acc"])
    >>> print(*(line for line in text.splitlines() if "&" in line), sep="\n")
    class & GT-known \\
    A \& B & \textbf{75.4} \\
    C\_1 & 70.0 \\
    D & -- \\
    """
    names = [str(name) for name in frame.columns]
    titles = [str((headings or {}).get(name, name)) for name in names]
    places = {name: decimals if isinstance(decimals, int) else decimals.get(name, 1) for name in names}
    numeric = [name for name in names if _numbers(frame[name])]
    texts = {name: [_text(value, places[name]) for value in frame[name]] for name in names}
    cells = {name: [escape(text) or MISSING for text in texts[name]] for name in names}
    ways = dict(best) if isinstance(best, Mapping) else dict.fromkeys(best, "max")
    for name, way in ways.items():
        for row in best_rows(frame, name, way, places[name], within):
            cells[name][row] = rf"\textbf{{{cells[name][row]}}}"
    body = [" & ".join(row) + r" \\" for row in zip(*cells.values(), strict=True)]
    lines = [
        rf"\begin{{tabular}}{{{''.join('r' if name in numeric else 'l' for name in names)}}}",
        r"\toprule",
        " & ".join(escape(title) for title in titles) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if note:
        lines.append(rf"\par\smallskip{{\footnotesize {escape(note)}\par}}")
    characters = [max(map(_length, (title, *texts[name]))) for name, title in zip(names, titles, strict=True)]
    width, height = _page(sum(characters) + 2 * len(names), len(body), len(note))
    text = "\n".join(lines) + "\n"
    head = HEAD.replace("WIDTH", str(width)).replace("HEIGHT", str(height))
    return head + _letters(text) + text + FOOT


def _one(character: str) -> str:
    if character == "\0":  # keeps two characters from melting into one
        return "{}"
    if character in MATH:
        return rf"\ensuremath{{{MATH[character]}}}"
    return SPECIAL.get(character, character)


def _numbers(column: pd.Series) -> bool:
    """Whether a column holds numbers: of its type, or as what is there among missing values."""
    if column.dtype != object:
        return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    there = column.dropna()
    return len(there) > 0 and all(pd.api.types.is_number(value) for value in there)


def _text(value: object, places: int) -> str:
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if pd.api.types.is_float(value):
        return f"{value:.{places}f}"
    return str(value)


def _page(characters: int, rows: int, note: int) -> tuple[int, int]:
    """Width and height in cm that surely hold the table, within TeX's largest length."""
    width = min(max(12, 4 + characters // 4), 500)
    return width, min(4 + round(0.5 * rows) + note // (4 * width), 500)


def _rare(text: str) -> list[str]:
    """Find the letters that pdfLaTeX may not know."""
    return [c for c in text if ord(c) > 127 and ord(c) not in KNOWN_TO_PDFLATEX]


def _length(text: str) -> int:
    return len(text) + 5 * len(_rare(text))  # as a code point, U+732B, at the worst


def _letters(text: str) -> str:
    """Definitions for rare letters; pdfLaTeX would stop at them."""
    rare = sorted(set(_rare(text)))
    if not rare:
        return ""
    lines = ["% pdfLaTeX prints code points of letters that it lacks; XeLaTeX and LuaLaTeX print what their font has."]
    lines.append(r"\ifdefined\Umathchar\else")
    for c in rare:
        name = rf"u8:\detokenize{{{c}}}"
        lines.append(rf"  \ifcsname {name}\endcsname\else\expandafter\def\csname {name}\endcsname{{U+{ord(c):04X}}}\fi")
    return "\n".join([*lines, r"\fi"]) + "\n"
