"""Methods that look at the attention of a torchvision ViT.

The pass keeps what goes into every block; attention is calculated from that, so that the network runs as it always
does. Each method takes a `Recording` and returns maps (B, h, w) of the patches, not negative.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import nn
from torchvision import models

from wsol.errors import UserError
from wsol.heatmaps.method import method
from wsol.heatmaps.recording import Recording
from wsol.models.trace import token_grid


@method(needs="attention", score=None)
def rollout(recording: Recording, keep: Annotated[float, Field(ge=0, lt=1)] = 0.5) -> torch.Tensor:
    """Attention rollout: the class token's row of Ã_L · … · Ã_1 with Ã_l = keep · I + (1 − keep) · A_l.

    A_l is the attention of block l, the mean over its heads; the map is the same for every class.
    Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020, eq. 1.
    """
    attention = (_attention(block, tokens).mean(1) for block, tokens in _blocks(recording))  # (B, N, N)
    mixed = (keep * torch.eye(one.shape[1]).to(one) + (1 - keep) * one for one in attention)
    return _grid(reduce(lambda below, block: block @ below, mixed)[:, 0, 1:], recording)


@method(needs="attention")
def legrad(
    recording: Recording, blocks: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], ...] | None = None
) -> torch.Tensor:
    """LeGrad: L = mean over blocks, heads and query tokens of ReLU(∂s_l / ∂A_l), for the keys that are patches.

    s_l is the score of class c from the mean of block l's tokens, through norm and head; of the last so many `blocks`
    only, or of those listed, 0 the first.
    Bousselham et al., "LeGrad: An Explainability Method for Vision Transformers via Feature …", ICCV 2025.
    """
    model, maps = recording.model, []
    for block, tokens in _chosen(_blocks(recording), blocks):
        attention = _attention(block, tokens).requires_grad_()  # (B, heads, N, N)
        output = _behind_attention(block, tokens, attention)
        logits = model.heads(model.encoder.ln(output.mean(1)))  # type: ignore[operator, union-attr]
        (gradient,) = torch.autograd.grad(recording.scores_of(logits).sum(), attention)
        maps.append(gradient.relu().mean((1, 2))[:, 1:])  # (B, h*w)
    return _grid(torch.stack(maps).mean(0), recording)


def attention_blocks(model: nn.Module) -> tuple[str, ...]:
    """Dotted names of a ViT's blocks, first to last."""
    if not isinstance(model, models.VisionTransformer):
        raise UserError(
            f"rollout and legrad look at a vision transformer's attention, and this is a {type(model).__name__}: "
            f"choose model.name=vit_b_16 or the like, or other methods"
        )
    return tuple(f"encoder.layers.{name}" for name, _ in model.encoder.layers.named_children())


def _blocks(recording: Recording) -> list[tuple[nn.Module, torch.Tensor]]:
    """Every block with the tokens (B, N, K) that went into it."""
    return [(recording.model.get_submodule(name), tokens) for name, tokens in recording.inputs.items()]


def _chosen(blocks: list[Any], which: int | Sequence[int] | None) -> list[Any]:
    """The last so many blocks, or those listed."""
    if which is None or isinstance(which, int):
        return blocks[-(which or 0) :]
    if not which or max(which) >= len(blocks):
        raise UserError(f"legrad: blocks={list(which)}: name some of the blocks 0 … {len(blocks) - 1}")
    return [blocks[number] for number in which]


def _attention(block: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """softmax(Q Kᵀ / √d) of a block's heads: (B, heads, N, N)."""
    query, key, _ = _projected(block, tokens)
    return (query @ key.transpose(2, 3) / query.shape[-1] ** 0.5).softmax(-1)


def _behind_attention(block: nn.Module, tokens: torch.Tensor, attention: torch.Tensor) -> torch.Tensor:
    """What the block makes of its tokens with this attention: (B, N, K)."""
    layer = block.self_attention
    _, _, value = _projected(block, tokens)
    mixed = layer.out_proj((attention @ value).transpose(1, 2).flatten(2)) + tokens  # type: ignore[operator, union-attr]
    return mixed + block.mlp(block.ln_2(mixed))  # type: ignore[operator]


def _projected(block: nn.Module, tokens: torch.Tensor) -> list[torch.Tensor]:
    """Queries, keys and values of a block's heads, each (B, heads, N, d)."""
    layer = block.self_attention
    assert isinstance(layer, nn.MultiheadAttention)
    projected = nn.functional.linear(block.ln_1(tokens), layer.in_proj_weight, layer.in_proj_bias)  # type: ignore[operator]
    return [part.unflatten(2, (layer.num_heads, -1)).transpose(1, 2) for part in projected.chunk(3, -1)]


def _grid(patches: torch.Tensor, recording: Recording) -> torch.Tensor:
    """Lay patches (B, h*w) out as (B, h, w)."""
    height, width = recording.images.shape[2:]
    return patches.unflatten(1, token_grid(patches.shape[1], (height, width)))
