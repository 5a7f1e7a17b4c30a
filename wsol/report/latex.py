r"""Tables for a paper that `\input` takes: which columns and rows, pivots, names, intervals; never too wide."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any, Literal

import numpy as np
import pandas as pd

from wsol.console import are_numbers
from wsol.errors import UserError, first_names
from wsol.metrics.localization import METRICS
from wsol.report.charts import method_name, method_names
from wsol.settings import settings
from wsol.tables import SHOWN

logger = logging.getLogger("wsol")
LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "`": r"\textasciigrave{}", '"': r"\char34{}",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind \\ these would be its options
    "τ": r"\ensuremath{\tau}", "±": r"\ensuremath{\pm}", "×": r"\ensuremath{\times}", "−": r"\ensuremath{-}",
    "↑": r"\ensuremath{\uparrow}", "↓": r"\ensuremath{\downarrow}", "†": r"\ensuremath{^\dagger}",
})  # fmt: skip
# Box 2 is one of those that anybody may use for a moment; without graphicx the table keeps its size.
FITTED = (
    "%% needs \\usepackage{{booktabs,graphicx}}\n\\begingroup\\leavevmode\\sbox2{{%%\n{table}}}%%\n"
    "\\ifdim\\wd2>\\linewidth\\ifdefined\\resizebox\\resizebox{{\\linewidth}}{{!}}{{\\usebox2}}%%\n"
    "\\else\\usebox2\\fi\\else\\usebox2\\fi\\endgroup\n"
).replace("%%", "%")
SCORES = (*METRICS, "val_top1", "train_loss")
NUMBERS = (*SCORES, "threshold", "n_seeds")  # columns that hold what was measured; others are pivoted
HEADINGS = SHOWN | {"max_box_acc": "MBA", "mean_iou": "mean IoU", "val_top1": "validation accuracy"}
HEADINGS |= {"train_loss": "training loss", "n_seeds": "n", "title": "method"}


@settings
class TableOptions:
    """What stands in a table for a paper.

    Parameters
    ----------
    columns : sequence of str, optional
        Columns of the summary: what is measured, such as "gt_known_loc", and what is pivoted, such as "layer",
        "dataset" or an override of a sweep; by default all that is measured.
    rows : sequence of str, optional
        Columns of the summary that name a row, such as "method".
    names : dict
        How keys, methods or values are called: {"cam": "CAM"}.
    interval : bool, "std" or "none", optional
        95 % intervals beside the numbers; the standard deviation over seeds; neither. None: the latter where it is.
    published : bool
        Whether numbers that papers give for the same images stand below.
    """

    columns: tuple[str, ...] | None = None
    rows: tuple[str, ...] | None = None
    names: dict[Any, Any] = field(default_factory=dict)
    interval: bool | Literal["std", "none"] | None = None
    published: bool = False


def table_options(config: Mapping[str, Any]) -> TableOptions:
    """What a configuration says of tables for a paper."""
    chosen = {key: value for key, value in dict(config.get("table") or {}).items() if value is not None}
    return TableOptions(**chosen, published=bool(config.get("published", False)))


def or_plain(make: Callable[[TableOptions], str], options: TableOptions) -> str:
    """Make a table as asked for; where that can't be, say why and make the plain one, so that no run is lost to it."""
    try:
        return make(options)
    except UserError as error:
        logger.warning("%s; the table for LaTeX is the plain one", error)
        return make(TableOptions(names=options.names))


def paper_table(
    frame: pd.DataFrame,
    keys: Sequence[str],
    options: TableOptions,
    note: str = "",
    published: pd.DataFrame | None = None,
) -> str:
    """Make the table of a summary whose rows `keys` tell apart.

    Beside a column of numbers may stand its `…_low` and `…_high`, or its `…_std`.
    """
    for name in (*(options.columns or ()), *(options.rows or ())):
        if name not in frame:
            raise UserError(f"table: no column {name!r}; there are {first_names(frame.columns, 40)}")
    there = [name for name in (*SHOWN, *SCORES, "n_seeds") if name in frame and frame[name].notna().any()]
    numbers = [name for name in dict.fromkeys(there) if name in NUMBERS]
    across = [name for name in options.columns or () if name not in NUMBERS]
    chosen = [name for name in options.columns or () if name not in across]
    best_first = ("max_box_acc_v2", "gt_known_loc", *numbers)
    default = [name for name in best_first if name in numbers][:1] if across else [n for n in numbers if n in SHOWN]
    chosen = chosen or default or numbers
    down = [key for key in keys if key not in across] if options.rows is None else list(options.rows)
    if "layer" in (*across, *down):  # it is told by its column
        frame = frame.assign(method=frame["method"].str.partition("@")[0])
    if frame.duplicated([*down, *across]).any():
        apart = [name for name in dict.fromkeys(["dataset", *keys, "layer", "protocol", "run"]) if name in frame]
        apart = [name for name in apart if name not in (*down, *across) and frame[name].nunique() > 1]
        raise UserError(f"table.rows={down}: several rows of the summary would be one; add {first_names(apart)}")
    index = pd.MultiIndex.from_frame(frame[[*down, *across]].astype(str))
    values = frame[chosen].astype(float).set_axis(index)
    texts = pd.DataFrame({name: number_texts(frame, name, options.interval) for name in chosen}).set_axis(index)
    if across:
        levels = list(range(len(down), index.nlevels))
        values, texts = (pd.DataFrame(table.unstack(levels, sort=False)) for table in (values, texts))
    marks = _marks(values, "protocol" if "protocol" in down else None)
    called = {str(key): str(name) for key, name in options.names.items()}
    names = method_names(frame["method"]) if "method" in frame else {}
    columns = [_heading(name, names | called, len(chosen) == 1 and bool(across)) for name in texts.columns]
    body, rows = texts.fillna("").set_axis(columns, axis=1), texts.index.to_frame(index=False)
    for key in down:
        rows[key] = [called.get(text, names.get(text, text) if key == "method" else text) for text in rows[key]]
    rows.columns = [called.get(key, HEADINGS.get(key, key.removesuffix(" (override)"))) for key in down]
    table = pd.concat([rows, body.reset_index(drop=True)], axis=1)
    marks = np.hstack([np.full(rows.shape, ""), marks])
    if published is not None and len(published) and not across:
        others = _published(published, table.columns, down, chosen)
        table, marks = pd.concat([table, others]), np.vstack([marks, np.full(others.shape, "")])
    return latex_table(table.reset_index(drop=True), marks, headings={}, note=note)


def number_texts(frame: pd.DataFrame, name: str, interval: bool | str | None = None) -> list[str]:
    """A column for people: one decimal, and its interval or standard deviation beside it; "" where there is nothing."""
    digits = {"threshold": 3, "n_seeds": 0, "train_loss": 3}.get(name, 1)
    texts = ["" if pd.isna(value) else f"{value:.{digits}f}" for value in frame[name].astype(float)]
    beside = [""] * len(frame)
    if interval is True and f"{name}_low" in frame:
        ends = zip(frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        beside = ["" if pd.isna(low) else f" [{low:.{digits}f}, {high:.{digits}f}]" for low, high in ends]
    elif interval in (None, "std", True) and f"{name}_std" in frame:
        beside = ["" if pd.isna(std) else f" ± {std:.{digits}f}" for std in frame[f"{name}_std"].astype(float)]
    return [text and text + more for text, more in zip(texts, beside, strict=True)]


def _marks(values: pd.DataFrame, within: str | None) -> np.ndarray:
    """Commands for the best number of each column, and the second, among rows of one protocol."""
    rounded = values.round(1).reset_index(drop=True)
    groups = values.index.get_level_values(within).to_numpy() if within else np.zeros(len(values))
    marks = np.full(values.shape, "", object)
    for number, column in enumerate(values.columns):
        name = column[0] if isinstance(column, tuple) else column
        if name in ("threshold", "n_seeds", "train_loss"):
            continue
        numbers = rounded.iloc[:, number]
        for _, group in numbers.groupby(groups, sort=False):
            first, *others = sorted(group.dropna().unique(), reverse=True) or [np.nan]
            for value, mark in zip((first, *others[:1]) if others else (), ("textbf", "underline"), strict=False):
                marks[group.index[group == value], number] = f"{mark}:--rwrap;"
    return marks


def _heading(name: Any, called: Mapping[str, str], pivoted_alone: bool) -> str:
    """A column's heading: where it is pivoted, by what; then what is measured, unless all measure the same."""
    measure, *across = name if isinstance(name, tuple) else (name,)
    parts = [called.get(str(part), method_name(str(part))) for part in across]
    return ", ".join([*parts, *([] if pivoted_alone else [str(called.get(measure, HEADINGS.get(measure, measure)))])])


def _published(published: pd.DataFrame, columns: pd.Index, down: Sequence[str], chosen: Sequence[str]) -> pd.DataFrame:
    """Rows of what papers give, each with its source."""
    rows = []
    for (method, source), group in published.groupby(["method", "source"], sort=False):
        values = dict(zip(group["metric"], group["value"], strict=True))
        first = {key: group["protocol"].iloc[0] if key == "protocol" else "" for key in down}
        first[down[0]] = f"{method} ({source})"
        if values.keys() & set(chosen):
            rows.append([*first.values(), *(f"{values[name]:.1f}" if name in values else "" for name in chosen)])
    return pd.DataFrame(rows, columns=columns)


def latex_table(
    texts: pd.DataFrame, marks: np.ndarray | None = None, *, headings: Mapping[str, str], note: str = ""
) -> str:
    """Make a table for a paper that loads booktabs and graphicx; empty texts are `--`, any text is escaped.

    `marks` are Styler's styles, such as "textbf:--rwrap;". A table that is too wide for its column is shrunk.
    """
    numbers = [are_numbers(column) for _, column in texts.items()]
    names = [headings.get(str(name), str(name)) for name in texts]  # two columns may be called alike
    style = texts.set_axis(range(texts.shape[1]), axis=1).style
    style = style.format(lambda text: escape_latex(text) or "--").hide(axis="index")
    style = style.format_index(lambda at: escape_latex(names[int(str(at))]), axis=1)
    if marks is not None:
        style = style.apply(lambda _: marks, axis=None)
    table = style.to_latex(column_format="".join("r" if number else "l" for number in numbers), hrules=True)
    below = escape_latex(note).replace("/", r"/\allowbreak{}").replace(r"\_", r"\_\allowbreak{}")
    below = rf"\par\smallskip{{\footnotesize\raggedright {below}\par}}" + "\n" if note else ""
    return FITTED.format(table=table) + below


def escape_latex(text: object) -> str:
    r"""Make LaTeX print a text as it is, on one line: `R&D_1` becomes `R\&D\_1`; control characters vanish."""
    line = " ".join(unicodedata.normalize("NFC", str(text)).split())
    return "".join(filter(str.isprintable, line)).translate(LATEX)
