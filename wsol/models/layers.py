"""Where heatmaps are taken: each family's default target layer, and any layer by its dotted name."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.nn.parameter import is_lazy
from torchvision import models

from wsol.errors import UserError
from wsol.models.frozen import frozen

__all__ = ["default_layer", "find_layer", "last_spatial_layer", "logits_of", "refuse_lazy", "refuse_scripts", "unwrap"]


def unwrap(module: nn.Module) -> nn.Module:
    """Take the network out of `torch.compile` and `DataParallel` wrappers; any other module as it is.

    Examples
    --------
    >>> inner = nn.Linear(2, 2)
    >>> unwrap(nn.DataParallel(inner)) is inner
    True
    """
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def logits_of(output: object, network: str = "the network") -> torch.Tensor:
    """Take the logits from what a network returns: auxiliary outputs come behind them, or each has a name.

    Parameters
    ----------
    output : tensor (B, C), a tuple or list that begins with it, or a mapping with "logits"
    network : str
        For the message.

    Raises
    ------
    UserError
        If there are no logits (B, C).

    Examples
    --------
    >>> logits_of({"loss": None, "logits": torch.zeros(2, 7)}).shape
    torch.Size([2, 7])
    """
    logits = output.get("logits") if isinstance(output, Mapping) else output
    if isinstance(output, tuple | list) and output:
        logits = output[0]
    if not isinstance(logits, torch.Tensor):
        raise UserError(
            f'{network} answers with {type(output).__name__}, not with logits (B, C), nor under the name "logits"; '
            f"wrap it in a module whose forward method returns them"
        )
    if logits.ndim != 2:
        raise UserError(f"{network} answers with shape {tuple(logits.shape)}, not with logits (B, C)")
    return logits


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
    >>> default_layer(models.squeezenet1_1())
    'features'
    """
    module = unwrap(module)
    for family, name_of in _FAMILIES.items():
        if isinstance(module, family):
            name = name_of(module)
            # A subclass may have renamed its parts: only a name that exists is handed out.
            if name in dict(module.named_modules()):
                return name
    return last_spatial_layer(module, input_size)


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Find the layer with this dotted name, as `module.named_modules()` spells it ("layer4.1.conv2").

    Parameters
    ----------
    module : nn.Module
        The network; wrappers of `torch.compile` and `DataParallel` are looked through.
    name : str
        Dotted name.

    Raises
    ------
    UserError
        If there is no such layer (the nearest names are given), or if it is a mere container without a
        forward.

    Examples
    --------
    >>> find_layer(models.squeezenet1_1(), "classifier.3")
    AdaptiveAvgPool2d(output_size=(1, 1))
    """
    name = str(name)  # YAML reads the names of a Sequential's layers as numbers
    layers = dict(unwrap(module).named_modules(remove_duplicate=False))  # one layer may have two names
    layers.pop("", None)
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=5, cutoff=0.3)
        tops = [layer for layer in layers if "." not in layer]
        raise UserError(
            f"layer {name!r} does not exist in this {type(unwrap(module)).__name__}: "
            f"{'did you mean ' + ', '.join(near) + '? ' if near else ''}"
            f"Its outermost layers are {', '.join(tops)}"
        )
    layer = layers[name]
    if isinstance(layer, nn.ModuleList | nn.ModuleDict):
        inside = [f"{name}.{child}" for child, _ in layer.named_children()]
        raise UserError(f"layer {name!r} is a list of layers that never runs itself: name one of {', '.join(inside)}")
    return layer


def refuse_scripts(module: nn.Module, why: str) -> None:
    """Refuse a network with scripted or traced parts, which run unseen. Raises `UserError`, naming the first."""
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UserError(
                f"layer {name} of this {type(module).__name__} is a torch.jit script or trace, which shows nothing of "
                f"what it does: {why}; put the module that it was made of in its place, or use another method"
            )


def refuse_lazy(module: nn.Module) -> None:
    """Refuse a network that has not run yet, and so has no weights. Raises `UserError`, naming the first such layer."""
    for name, layer in module.named_modules():
        if any(is_lazy(tensor) for tensor in [*layer.parameters(False), *layer.buffers(False)]):
            raise UserError(
                f"layer {name} ({type(layer).__name__}) has no weights yet: run the network on images once, "
                f"and load the weights, before you ask for heatmaps"
            )


def last_spatial_layer(module: nn.Module, input_size: tuple[int, int] = (224, 224)) -> str:
    """Run the network once on noise and name the last layer that yields a map (B, C, h, w) with h·w > 1.

    Layers that run more than once, such as a ReLU that serves the whole network, can't be recorded and don't count.
    Where a 1 × 1 convolution, and no linear layer, makes a channel for each class (Network in Network), it is the
    layer before that: the convolution is the head, and a ReLU behind it would cut its maps.

    The mode of every part, the parameters and the state of the random numbers are as before when it ends.

    Parameters
    ----------
    module : nn.Module
        Images (B, 3, H, W) → logits (B, C).
    input_size : (height, width)
        Size of the noise image.

    Raises
    ------
    UserError
        If no layer yields such a map, or if the network can't be run on an image of this size, or has no weights yet.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> last_spatial_layer(net, (16, 16))
    '1'
    """
    module = unwrap(module)
    refuse_lazy(module)
    spatial: list[tuple[str, nn.Module, int]] = []  # name, layer and channels

    def note(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                spatial.append((name, layer, output.shape[1]))

        return hook

    layers = [(name, layer) for name, layer in module.named_modules() if name]
    watched = [(name, layer) for name, layer in layers if not isinstance(layer, torch.jit.ScriptModule)]
    hooks = [layer.register_forward_hook(note(name)) for name, layer in watched]
    like = next(module.parameters(), torch.empty(0))
    noise = torch.randn(2, 3, *input_size, generator=torch.Generator().manual_seed(0))  # (2, 3, H, W)
    try:
        with frozen(module), torch.no_grad():
            answer = module(noise.to(like.device, like.dtype))
    except Exception as error:
        raise UserError(
            f"{type(module).__name__} does not run on images of {input_size[0]} x {input_size[1]} pixels "
            f"({error}): pass its input_size, or name the target layer with layer="
        ) from error
    finally:
        for handle in hooks:
            handle.remove()
    runs = Counter(layer for _, layer, _ in spatial)
    spatial = [row for row in spatial if runs[row[1]] == 1]  # of one that runs again and again no run is meant
    if not spatial:
        raise UserError(
            f"no layer of this {type(module).__name__} yields a spatial map (B, C, h, w): "
            "name the layer that holds the tokens with layer="
        )
    has_linear = any(isinstance(layer, nn.Linear) for layer in module.modules())
    return spatial[-1 if has_linear else _before_head(spatial, logits_of(answer).shape[1])][0]


def _before_head(spatial: list[tuple[str, nn.Module, int]], classes: int) -> int:
    """Which layer stands before a 1 × 1 convolution that makes a channel for each class; without one, the last."""
    for place in range(len(spatial) - 1, 0, -1):
        _, layer, channels = spatial[place]
        if channels != classes:
            break
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1):
            return place - 1
    return -1


def _last_child(parent: str) -> Callable[[nn.Module], str]:
    def name(module: nn.Module) -> str:
        children = [child for child, _ in module.get_submodule(parent).named_children()]
        return f"{parent}.{children[-1]}"

    return name


def _relu_before_last_pool(module: nn.Module) -> str:
    features = list(module.get_submodule("features").named_children())
    pools = [i for i, (_, layer) in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    before = features[: pools[-1]] if pools else features
    relus = [name for name, layer in before if isinstance(layer, nn.ReLU)]
    return f"features.{relus[-1]}" if relus else ""


def _last_block_ln_1(module: nn.Module) -> str:
    return f"{_last_child('encoder.layers')(module)}.ln_1"


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
    models.VisionTransformer: _last_block_ln_1,
    models.SwinTransformer: lambda _: "permute",
}
