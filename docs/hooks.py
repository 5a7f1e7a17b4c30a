"""Pages that are made from the program itself when the site is built: methods, protocols, the changelog."""

from __future__ import annotations

import ast
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from wsol.heatmaps.method import BASELINES, method_cards
from wsol.io import conf_dir
from wsol.localization.protocol import Protocol, load_protocol, protocol_names

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = {
    "activation": "From the activations alone",
    "gradient": "From activations and gradients",
    "perturbation": "From further passes",
    "pixel": "To the pixels",
    "transformer": "Through a transformer's attention",
    "baseline": "Baselines, which never look at the image",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"methods.md": methods_page(), "protocols.md": protocols_page(), "changelog.md": changelog_page()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    picture = str(ROOT / "results" / "shapes.png")
    files.append(File.generated(config, "img/shapes.png", abs_src_path=picture))
    return files


def changelog_page() -> str:
    """The repository's changelog."""
    return (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def methods_page() -> str:
    """Every method by family: what it is, its docstring with the formula, its options and the paper."""
    text = [
        "# Methods",
        "Every method is a function of one *recording*: the target layer's activations A, the gradients G of the class "
        "score with respect to them, the classifier's weights and the logits. All methods of the first two families "
        "that you ask for share one forward pass, and one backward pass for each class.",
    ]
    if (ROOT / "docs" / "img" / "methods.png").is_file():
        text.append("![One photograph, one class, every method](img/methods.png)")
        text.append(
            "EfficientNet-Lite0's maps for the class Egyptian cat (SS-CAM, IS-CAM and RISE with fewer passes). "
            "FullGrad wants other ReLUs, rollout and LeGrad a transformer."
        )
    family = ""
    for name, card in method_cards().items():
        if card.family != family:
            family = card.family
            text.append(f"## {FAMILIES.get(family, family)}")
        text.append(f"### {card.title} `{name}` {{#{name}}}")
        text.append(card.summary[:1].upper() + card.summary[1:] + ".")
        if name not in BASELINES:
            text.append(_quoted(_docstring(family, name)))
        if card.paper:
            label, _, link = card.paper.rpartition(", ")
            text.append(f"Paper: [{label or link}]({link}).")
        text.append(_options(conf_dir() / "method" / f"{name}.yaml"))
    return "\n\n".join(text) + "\n"


def _docstring(family: str, name: str) -> str:
    tree = ast.parse((ROOT / "wsol" / "heatmaps" / f"{family}.py").read_text(encoding="utf-8"))
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return ast.get_docstring(nodes[name]) or "" if name in nodes else ""


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}  " for line in text.splitlines())


def _options(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    keys = [line for line in lines if line[:1].isalpha() and not line.startswith(("_target_", "function", "about"))]
    return "```yaml\n" + "\n".join(keys) + "\n```" if keys else ""


def protocols_page() -> str:
    """Every preset with its paper's rules, and one table of the fields in which they differ."""
    protocols = {name: asdict(load_protocol(name)) for name in protocol_names()}
    differing = [f.name for f in fields(Protocol) if len({str(p[f.name]) for p in protocols.values()}) > 1]
    differing.remove("name")
    text = [
        "# Protocols",
        "A protocol is every rule of scoring on which papers differ, as data: one small YAML file in "
        "`conf/protocol/`, read into [`wsol.Protocol`](api.md#wsol.localization.Protocol), whose fields are explained "
        "there. `'protocol=[choe2020,gao2021]'` scores the same heatmaps under both. A released preset never changes "
        "its numbers; a correction gets a new name.",
        "## Side by side",
        "Only fields in which presets differ; `·` is what `choe2020` has.",
        _side_by_side(protocols, differing),
    ]
    for name in protocols:
        comment = [line.lstrip("# ") for line in _head(conf_dir() / "protocol" / f"{name}.yaml")]
        text += [f"## `{name}`", *comment]
    return "\n\n".join(text) + "\n"


def _head(path: Path) -> list[str]:
    """The comment at the top of a preset, in sentences: what it reproduces, and what not."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    paragraphs: list[str] = []
    for line in lines[1:]:
        starts = line.startswith(("# Reproduces", "# Does not", "# 'protocol", "# Unverified", "# unverified"))
        if starts or not paragraphs:
            paragraphs.append(line)
        else:
            paragraphs[-1] += " " + line.lstrip("# ")
    return paragraphs


def _side_by_side(protocols: dict[str, dict[str, Any]], names: list[str]) -> str:
    reference = protocols["choe2020"]
    rows = [
        "| preset | " + " | ".join(name.replace("_", " ") for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for protocol, values in protocols.items():
        own = [protocol == "choe2020" or values[name] != reference[name] for name in names]
        cells = [f"`{yaml_text(values[name])}`" if shown else "·" for name, shown in zip(names, own, strict=True)]
        rows.append(f"| [{protocol}](#{protocol}) | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def yaml_text(value: Any) -> str:
    """Write a field's value as a preset would."""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n").removesuffix("\n...").replace("|", "\\|")
