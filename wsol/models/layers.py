"""Where heatmaps are taken: each family's default target layer, and any layer by its dotted name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
from torch import nn
from torchvision import models

from wsol.errors import UserError, suggest
from wsol.models.inference import frozen, logits_of, unwrap

__all__ = ["default_layer", "find_layer", "last_spatial_layer", "refuse_scripts"]


def default_layer(module: nn.Module, input_size: tuple[int, int] = (224, 224)) -> str:
    """Dotted name of the layer whose output heatmaps are made from when no other is asked for.

    For torchvision's families it is the last spatial map that the literature uses: the last stage of ResNet,
    ResNeXt, RegNet, ConvNeXt and MaxViT; the last ReLU before the last pool of VGG and AlexNet; DenseNet's
    last normalization (the ReLU behind it works in place, and so on the very tensor that is recorded); the
    last features of MobileNet, EfficientNet, SqueezeNet, GoogLeNet, Inception, MNASNet and ShuffleNet; `ln_1`
    of ViT's last block (behind it the patch tokens have no influence on the class token any more); Swin after
    its final norm, channels first. Every other network is run once, see `last_spatial_layer`.

    Parameters
    ----------
    module : nn.Module
        Images (B, 3, H, W) → logits (B, C); it may be compiled or data parallel.
    input_size : (height, width)
        Used only where the network has to be run.

    Raises
    ------
    UserError
        If an unknown network has no layer with a spatial output, or doesn't run at this input size.

    Examples
    --------
    >>> default_layer(models.resnet18())
    'layer4'
    """
    module = unwrap(module)
    names = dict(module.named_modules())
    for family, name_of in _FAMILIES.items():
        # A subclass may have renamed its parts: only a name that exists is handed out.
        if isinstance(module, family) and (name := name_of(module)) in names:
            return name
    return last_spatial_layer(module, input_size)


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Find the layer with this dotted name, as `module.named_modules()` spells it ("layer4.1.conv2").

    Parameters
    ----------
    module : nn.Module
        The network; wrappers of `torch.compile` and `DataParallel` are looked through.
    name : str

    Raises
    ------
    UserError
        If there is no such layer (the nearest names are given), or if it is a mere container without a forward method.

    Examples
    --------
    >>> find_layer(models.squeezenet1_1(), "classifier.3")
    AdaptiveAvgPool2d(output_size=(1, 1))
    """
    name = str(name)  # YAML reads the names of a Sequential's layers as numbers
    layers = dict(unwrap(module).named_modules(remove_duplicate=False))  # one layer may have two names
    layers.pop("", None)
    if name not in layers:
        outermost = ", ".join(layer for layer in layers if "." not in layer)
        raise UserError(
            f"layer {name!r} does not exist in this {type(unwrap(module)).__name__}, whose outermost layers are "
            f"{outermost}{suggest(name, layers)}"
        )
    layer = layers[name]
    if isinstance(layer, nn.ModuleList | nn.ModuleDict):
        children = ", ".join(f"{name}.{child}" for child, _ in layer.named_children())
        raise UserError(f"layer {name!r} is a list of layers that never runs itself: name one of {children}")
    return layer


def refuse_scripts(module: nn.Module, why: str) -> None:
    """Refuse a network with scripted or traced parts, which run unseen, naming the first."""
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UserError(
                f"layer {name} of this {type(module).__name__} is a torch.jit script or trace, which shows nothing of "
                f"what it does: {why}; put the module that it was made of in its place, or use another method"
            )


def last_spatial_layer(module: nn.Module, input_size: tuple[int, int] = (224, 224)) -> str:
    """Run the network once on noise of (height, width) and name the last layer that yields a map (B, C, h, w), h·w > 1.

    Layers that run more than once, such as a ReLU that serves the whole network, can't be recorded and don't count.
    Where a 1 × 1 convolution, and no linear layer, makes a channel for each class (Network in Network), it is the
    layer before that: the convolution is the head, and a ReLU behind it would cut its maps.
    """
    module = unwrap(module)
    maps: list[tuple[str, nn.Module, int]] = []  # name, layer and channels

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                maps.append((name, layer, output.shape[1]))

        return hook

    layers = [(name, layer) for name, layer in module.named_modules() if name]
    watched = [(name, layer) for name, layer in layers if not isinstance(layer, torch.jit.ScriptModule)]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in watched]
    like = next(module.parameters(), torch.empty(0))
    noise = torch.randn(2, 3, *input_size, generator=torch.Generator().manual_seed(0))  # (2, 3, H, W)
    try:
        with frozen(module), torch.no_grad():
            output = module(noise.to(like.device, like.dtype))
    except Exception as error:
        raise UserError(
            f"{type(module).__name__} does not run on images of {input_size[0]} x {input_size[1]} pixels "
            f"({error}): pass its input_size, or name the target layer with layer="
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    runs = Counter(layer for _, layer, _ in maps)
    maps = [entry for entry in maps if runs[entry[1]] == 1]  # of one that runs again and again no run is meant
    if not maps:
        raise UserError(
            f"no layer of this {type(module).__name__} yields a spatial map (B, C, h, w): "
            "name the layer that holds the tokens with layer="
        )
    has_linear = any(isinstance(layer, nn.Linear) for layer in module.modules())
    return maps[-1 if has_linear else _before_head(maps, logits_of(output).shape[1])][0]


def _before_head(maps: list[tuple[str, nn.Module, int]], classes: int) -> int:
    """Which layer stands before a 1 × 1 convolution that makes a channel for each class; without one, the last."""
    for place in range(len(maps) - 1, 0, -1):
        _, layer, channels = maps[place]
        if channels != classes:
            break
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            return place - 1
    return -1


def _last_child(parent: str, suffix: str = "") -> Callable[[nn.Module], str]:
    return lambda module: f"{parent}.{[name for name, _ in module.get_submodule(parent).named_children()][-1]}{suffix}"


def _relu_before_last_pool(module: nn.Module) -> str:
    features = list(module.get_submodule("features").named_children())
    pools = [i for i, (_, layer) in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    relus = [name for name, layer in features[: pools[-1] if pools else None] if isinstance(layer, nn.ReLU)]
    return f"features.{relus[-1]}" if relus else ""


_FAMILIES: dict[type[nn.Module], Callable[[nn.Module], str]] = {
    models.ResNet: lambda _: "layer4",
    models.RegNet: _last_child("trunk_output"),
    models.ConvNeXt: _last_child("features"),
    models.VGG: _relu_before_last_pool,
    models.AlexNet: _relu_before_last_pool,
    models.DenseNet: lambda _: "features.norm5",
    models.MobileNetV2: _last_child("features"),
    models.MobileNetV3: _last_child("features"),
    models.EfficientNet: _last_child("features"),
    models.SqueezeNet: lambda _: "features",
    models.GoogLeNet: lambda _: "inception5b",
    models.Inception3: lambda _: "Mixed_7c",
    models.MNASNet: lambda _: "layers",
    models.ShuffleNetV2: lambda _: "conv5",
    models.MaxVit: _last_child("blocks"),
    models.VisionTransformer: _last_child("encoder.layers", ".ln_1"),
    models.SwinTransformer: lambda _: "permute",
}
