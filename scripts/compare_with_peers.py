"""Our heatmaps beside those of the libraries `grad-cam` and `torchcam`: how far they are apart, and why.

`python -m scripts.compare_with_peers`, in the folder of the repository, writes `results/heatmaps_and_peers.md`.
"""

from __future__ import annotations

import argparse
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
from wsol.heatmaps.method import METHODS
from wsol.memory import keep_memory


def short(number: float) -> str:
    if number >= 0.01:
        return f"{number:.2f}"
    digits, exponent = f"{number:.0e}".split("e")
    return f"{digits}e{int(exponent)}" if number else "0"


def cell(verdict: Verdict, letters: dict[str, str]) -> str:
    """Write a verdict down; causes get letters in the order in which they come up."""
    marks = ", ".join(letters.setdefault(cause.text, ascii_lowercase[len(letters)]) for cause in verdict.causes)
    if verdict.difference is None:
        return f"{verdict.refusal} ({marks})" if marks else verdict.refusal
    if verdict.agrees:
        return f"agrees, {short(verdict.difference)}"
    left = f"({marks}), then {short(verdict.left or 0)}" if verdict.explained else "for no cause found"
    return f"**{short(verdict.difference)}** {left}"


def table(rows: Sequence[Row], shown: Sequence[Case], letters: dict[str, str]) -> list[str]:
    lines = [f"| ours | theirs | {' | '.join(case.name for case in shown)} |", "| --- | --- |" + " --- |" * len(shown)]
    for row in rows:
        cells = [cell(judge(row, case), letters) for case in shown]
        given = ", ".join(f"{name}={value}" for name, value in row.options)
        lines.append(f"| {row.method}{f' ({given})' if given else ''} | `{row.label}` | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return lines


def beside(title: str, rows: Sequence[Row], shown: Sequence[Case]) -> list[str]:
    """Everything about one library."""
    letters: dict[str, str] = {}
    lines = [f"## Beside {title} {version(title)}", "", *table(rows, shown, letters), ""]
    lines += [f"- **{letter}** {text}" for text, letter in letters.items()]
    none = [name for name in METHODS if name not in {row.method for row in rows}]
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
- “–”: not defined for this network. “not run”: a pass for every channel, too slow here. “too faint”: our maps stay
  below 1e-5.

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
    asked = parser.parse_args()
    logging.getLogger("torchcam").setLevel(logging.ERROR)
    keep_memory()
    shown = list(cases())
    lines = [introduction(shown)]
    lines += beside("grad-cam", grad_cam_rows(), shown) + beside("torchcam", torchcam_rows(), shown)
    lines += [FAINT_MAPS, *faint_maps(), ""]
    asked.out.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
