"""Default layers of networks that others publish are those that the literature takes, and Grad-CAM there is exact."""

from __future__ import annotations

import csv
import importlib.util
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import torch

from wsol import HeatmapExtractor
from wsol.models.inference import logits_of
from wsol.models.trace import INPUT, first_tensor, trace

ROOT = Path(__file__).parents[2]
ROWS = list(csv.DictReader((ROOT / "tests" / "cases" / "networks" / "expected.csv").open(encoding="utf-8")))


@pytest.mark.long
@pytest.mark.parametrize("row", ROWS, ids=[row["name"] for row in ROWS])
def test_default_layer_and_gradcam(row: dict[str, str]) -> None:
    pytest.importorskip(row["source"])
    spec = importlib.util.spec_from_file_location("default_layers", ROOT / "scripts" / "default_layers.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    side = int(row["size"])
    layer = script.layer_of(row["source"], row["name"], side)
    assert any(fnmatchcase(layer.split(":")[0], pattern) for pattern in row["expected"].split("|")), layer
    if layer.startswith("REFUSE") or side > 300:
        return
    model, images, kept = script.build(row["source"], row["name"]).double(), torch.randn(1, 3, side, side).double(), []
    module = model.get_submodule(layer.removesuffix(INPUT))

    def keep(tensor: torch.Tensor) -> None:
        tensor.retain_grad()
        kept.append(tensor)

    if layer.endswith(INPUT):
        handle = module.register_forward_pre_hook(lambda _, args, kw: keep(first_tensor(args, kw)), with_kwargs=True)
    else:
        handle = module.register_forward_hook(lambda _, __, output: keep(output))
    logits_of(model(images.clone().requires_grad_()))[0, 1].backward()
    handle.remove()
    layout = trace(model, (side, side), like=images).layout(layer)
    A, G = layout.as_map(kept[0].detach()), layout.as_map(kept[0].grad)
    expected = torch.einsum("bk,bkhw->bhw", G.mean((2, 3)), A).relu()
    with HeatmapExtractor(model, ("gradcam",), layer) as extractor:
        heatmap = extractor(images, torch.tensor([1])).maps["gradcam"]
    torch.testing.assert_close(heatmap, expected, rtol=1e-6, atol=1e-6 * float(expected.max()) + 1e-30)
