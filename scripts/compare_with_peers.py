"""Our heatmaps beside those of the libraries `grad-cam` and `torchcam`: how far they are apart, and why.

`python -m scripts.compare_with_peers`, in the folder of the repository, writes `results/heatmaps_and_peers.md`.
It takes more than an hour on two cores. Each cell is kept as it comes: stopped and started again, it goes on where it
was, and when it is stopped (Ctrl-C) the page is written with what there is.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from string import ascii_lowercase

from scripts.peers.comparison import Row, Verdict, apart, judge
from scripts.peers.maps import of_grad_cam, of_torchcam, ours
from scripts.peers.networks import Case, cases, random_case
from scripts.peers.rows import grad_cam_rows, torchcam_rows
from wsol.heatmaps.method import builtin_methods
from wsol.io import write_text
from wsol.memory import keep_memory


def short(number: float) -> str:
    if number >= 0.01:
        return f"{number:.2f}"
    digits, exponent = f"{number:.0e}".split("e")
    return f"{digits}e{int(exponent)}" if number else "0"


def said(verdict: Verdict) -> str:
    """Write a verdict down; `{}` stands for the letters of its causes."""
    if verdict.difference is None:
        return f"{verdict.refusal} ({{}})" if verdict.causes else verdict.refusal
    if verdict.agrees:
        return f"agrees, {short(verdict.difference)}"
    left = f"({{}}), then {short(verdict.left or 0)}" if verdict.explained else "for no cause found"
    return f"**{short(verdict.difference)}** {left}"


class Cells:
    """What was found so far, by library, method and network: a text with the causes that it names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def fill(self, library: str, row: Row, case: Case) -> None:
        """Compare, unless it was done before."""
        if self._key(library, row, case) not in self.found:
            verdict = judge(row, case)
            self.found[self._key(library, row, case)] = [said(verdict), *(cause.text for cause in verdict.causes)]
            write_text(self.path, json.dumps(self.found, indent=1, ensure_ascii=False))
            print(self._key(library, row, case), said(verdict), flush=True)

    def read(self, library: str, row: Row, case: Case, letters: dict[str, str]) -> str:
        """Return a cell; causes get letters in the order in which they come up."""
        text, *causes = self.found.get(self._key(library, row, case), ["not run"])
        return text.format(", ".join(letters.setdefault(cause, ascii_lowercase[len(letters)]) for cause in causes))

    def _key(self, library: str, row: Row, case: Case) -> str:
        return f"{library} {version(library)} {row.label} {dict(row.options) or ''} {case.name}"


def beside(title: str, rows: Sequence[Row], shown: Sequence[Case], cells: Cells) -> list[str]:
    """Everything about one library."""
    letters: dict[str, str] = {}
    lines = [f"## Beside {title} {version(title)}", ""]
    lines += [f"| ours | theirs | {' | '.join(case.name for case in shown)} |", "| --- | --- |" + " --- |" * len(shown)]
    for row in rows:
        given = ", ".join(f"{name}={value}" for name, value in row.options)
        texts = [cells.read(title, row, case, letters) for case in shown]
        lines.append(f"| {row.method}{f' ({given})' if given else ''} | `{row.label}` | {' | '.join(texts)} |")
    lines.append("")
    lines += [f"- **{letter}** {text}" for text, letter in letters.items()]
    none = [name for name in builtin_methods() if name not in {row.method for row in rows}]
    return [*lines, "", f"{title} has no {', '.join(none)}.", ""]


def faint_maps() -> list[str]:
    """A network as torchvision leaves it: what becomes of maps far below one."""
    case = random_case("", "mobilenet_v3_large", 128, settled=False)
    lines = ["| method | maximum of ours | grad-cam | torchcam |", "| --- | ---: | ---: | ---: |"]
    for method, one, other in (
        ("gradcam", "GradCAM", "GradCAM"),
        ("layercam", "LayerCAM", "LayerCAM"),
        ("xgradcam", "XGradCAM", "XGradCAM"),
        ("gradcampp", "GradCAMPlusPlus", "GradCAMpp"),
    ):
        mine = ours(method)(case)
        cells = [short(apart(mine, theirs)) for theirs in (of_grad_cam(one)(case).relu(), of_torchcam(other)(case))]
        lines.append(f"| {method} | {short(float(mine.max()))} | {' | '.join(cells)} |")
    return lines


INTRODUCTION = """# Our heatmaps beside grad-cam and torchcam

Made by `python -m scripts.compare_with_peers`. Raw maps at the layer's resolution (FullGrad and guided
backpropagation: at the image's), of the same layer and classes, each brought to [0, 1] by its own minimum and maximum.
A number is the largest difference at any place of two images, in float32.

- “agrees, 2e-7”: below 1e-4.
- “**0.14** (b, a), then 7e-6”: apart by 0.14, for the causes b and a named below the table. With what the library does
  otherwise done to our recording, or with one option changed, 7e-6 is left: that is the proof of the cause.
- “–”: not defined for this network. “too faint”: our maps stay below 1e-5. “not run”: stopped before.

{networks}

Shapes is our network with its shipped weights, on its own pictures. The others have random weights, batch
normalizations that know the statistics of the noise they are shown, and twenty classes.

{versions}.
"""
FAINT_MAPS = """## Maps far below one

MobileNet-V3-large as torchvision initializes it, without such statistics: its maps are too faint for the tables above.
A small number in a denominator then decides what is seen; ours has none.
"""


def introduction(shown: Sequence[Case]) -> str:
    lines = ["| network | layer | image | map |", "| --- | --- | --- | --- |"]
    for case in shown:
        sizes = [case.images.shape[2:], ours("fem")(case).shape[1:]]
        lines.append(f"| {case.name} | `{case.layer}` | {' | '.join(f'{h} × {w}' for h, w in sizes)} |")
    parts = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "grad-cam", "torchcam"))
    return INTRODUCTION.format(networks="\n".join(lines), versions=f"Python {platform.python_version()}, {parts}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "results" / "heatmaps_and_peers.md")
    kept = Path(__file__).parents[1] / "results" / "runs" / "heatmaps_and_peers.json"
    parser.add_argument("--cells", type=Path, default=kept, help="where cells are kept; without it, from the beginning")
    asked = parser.parse_args()
    logging.getLogger("torchcam").setLevel(logging.ERROR)
    keep_memory()
    shown, cells = list(cases()), Cells(asked.cells)
    rows = {"grad-cam": grad_cam_rows(), "torchcam": torchcam_rows()}
    slow = ("sscam", "iscam")
    todo = [(library, row, case) for library in rows for row in rows[library] for case in shown]
    try:
        for one in sorted(todo, key=lambda one: (one[1].method in slow, one[2].name == "DenseNet-121")):  # slowest last
            cells.fill(*one)
    except KeyboardInterrupt:
        print("stopped: the page says what was not run")
    lines = [introduction(shown)]
    for library in rows:
        lines += beside(library, rows[library], shown, cells)
    lines += [FAINT_MAPS, *faint_maps(), ""]
    asked.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
