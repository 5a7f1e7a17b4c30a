"""Write docs/layers.md: the layer that is looked at by default in networks of timm and transformers, random weights."""

import csv
import gc
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wsol.errors import UserError
from wsol.models import default_layer

ROOT = Path(__file__).parents[1]
EXPECTED = ROOT / "tests" / "cases" / "networks" / "expected.csv"
HEAD = """# Default layers

Written by `scripts/default_layers.py`: where heatmaps are taken unless `model.layer` says otherwise. `wsol explain
layers=true model=…` lists a network's layers.

| from | network | pixels | default layer |
| --- | --- | ---: | --- |
"""
VIT: dict[str, Any] = {
    "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 96,
    "image_size": 64, "patch_size": 8,
}  # fmt: skip
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
TEXT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 50}
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 12, "depths": [1, 1, 2], "num_heads": [1, 2, 3]}
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("ViT", "DeiT", "Dinov2", "Dinov2WithRegisters", "Beit"), VIT),
    "CLIP": {"vision_config": VIT, "text_config": TEXT},
    "Swin": {**SWIN, "window_size": 4},
    "ConvNext": STAGES,
    "ResNet": {"embedding_size": 8, **STAGES},
    "RegNet": {"embedding_size": 8, "groups_width": 8, **STAGES},
    "MobileViT": {"image_size": 64},
}


def build(source: str, name: str) -> nn.Module:
    """A network of five classes, of transformers a small one."""
    torch.manual_seed(0)
    if source == "timm":
        import timm

        network: nn.Module = timm.create_model(name, num_classes=5)
    else:
        import transformers

        config = getattr(transformers, f"{name}Config")(num_labels=5, **SETTINGS.get(name, {}))
        network = getattr(transformers, f"{name}ForImageClassification")(config)
    return network.eval()


def layer_of(source: str, name: str, side: int) -> str:
    """Its default layer, or REFUSE and why."""
    try:
        return default_layer(build(source, name), (side, side))
    except UserError as error:
        return f"REFUSE: {str(error).split(';')[0]}"


def main() -> None:
    rows = []
    with EXPECTED.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            layer = layer_of(row["source"], row["name"], int(row["size"]))
            rows.append(f"| {row['source']} | {row['name']} | {row['size']} | {layer} |")
            print(rows[-1], flush=True)
            gc.collect()
    (ROOT / "docs" / "layers.md").write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
