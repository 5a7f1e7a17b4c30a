"""Attention of vision transformers: rollout and LeGrad against plain loops over the attention layers' own weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from tests.heatmaps import networks
from tests.heatmaps.networks import maps_of
from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.models import gapnet


@pytest.fixture
def vit() -> models.VisionTransformer:
    return networks.vit(blocks=3)


def images() -> torch.Tensor:
    return networks.images(side=32)


def walk(model: models.VisionTransformer) -> list[tuple[nn.Module, torch.Tensor, torch.Tensor]]:
    """Every block, its input and its heads' attention as nn.MultiheadAttention itself says it."""
    result = []
    tokens = model._process_input(images())
    tokens = torch.cat([model.class_token.expand(3, -1, -1), tokens], 1) + model.encoder.pos_embedding
    for block in model.encoder.layers:
        normed = block.ln_1(tokens)
        _, attention = block.self_attention(normed, normed, normed, average_attn_weights=False)
        result.append((block, tokens, attention))
        tokens = block(tokens)
    return result


@pytest.mark.parametrize("keep", [0.5, 0.2])
def test_rollout_is_the_product_of_the_blocks(vit: models.VisionTransformer, keep: float) -> None:
    maps = maps_of(vit, {"it": {"function": "rollout", "keep": keep}}, images())["it"]
    with torch.no_grad():
        for image in range(3):
            total = torch.eye(17, dtype=torch.float64)
            for _, _, attention in walk(vit):
                total = (keep * torch.eye(17) + (1 - keep) * attention[image].mean(0)) @ total
            torch.testing.assert_close(maps[image], total[0, 1:].reshape(4, 4))


@pytest.mark.parametrize("blocks", [None, 1, 2])
def test_legrad_is_the_mean_of_clipped_gradients(vit: models.VisionTransformer, blocks: int | None) -> None:
    targets = torch.tensor([4, 0, 2])
    result, maps = maps_of(vit, {"it": {"function": "legrad", "blocks": blocks}}, images(), targets)["it"], []
    for block, tokens, attention in walk(vit)[-(blocks or 3) :]:
        weights = attention.detach().requires_grad_()
        own = block.self_attention
        value = (block.ln_1(tokens) @ own.in_proj_weight[32:].T + own.in_proj_bias[32:]).reshape(3, 17, 2, 8)
        mixed = torch.einsum("bhqk,bkhd->bqhd", weights, value).reshape(3, 17, 16)
        between = tokens + own.out_proj(mixed)
        logits = vit.heads(vit.encoder.ln((between + block.mlp(block.ln_2(between))).mean(1)))
        (gradient,) = torch.autograd.grad(logits[[0, 1, 2], targets].sum(), weights)
        maps.append(gradient.clamp(min=0).mean((1, 2))[:, 1:].reshape(3, 4, 4))
    torch.testing.assert_close(result, sum(maps) / len(maps), rtol=1e-5, atol=1e-9)
    assert result.max() > 0


def test_the_logits_do_not_change(vit: models.VisionTransformer) -> None:
    with torch.no_grad():
        expected = vit(images())
    with HeatmapExtractor(vit, ("rollout", "legrad")) as extractor:
        result = extractor(images())
    torch.testing.assert_close(result.logits, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["rollout", "legrad"])
def test_other_networks_are_refused(method: str) -> None:
    with pytest.raises(UserError, match="vision transformer.*GapNet"), HeatmapExtractor(gapnet(3), (method,)) as e:
        e(torch.rand(1, 3, 32, 32))


def test_rollout_takes_no_layer() -> None:
    with pytest.raises(UserError, match="rollout looks at no layer"):
        make_method("rollout", layer="encoder")


def test_behind_the_last_block_patches_have_no_gradient(vit: models.VisionTransformer) -> None:
    with HeatmapExtractor(vit, ("gradcam",), "encoder.layers.encoder_layer_2") as extractor:
        assert not extractor(images()).maps["gradcam"].any()
