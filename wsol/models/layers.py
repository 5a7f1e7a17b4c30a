"""A classifier, and where its heatmaps are taken: a family's default target layer, or any by its dotted name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torchvision import models

from wsol.errors import UserError, suggest
from wsol.models.inference import frozen, logits_of, unwrap
from wsol.settings import settings


@settings(frozen=False)
class Classifier:
    """A network and how to use it; a value that is not of its kind is refused with a `UserError`.

    Parameters
    ----------
    name : str
        Its name in the tables: "resnet50".
    module : nn.Module
        Normalized images (B, 3, H, W) → logits (B, C).
    layer : str
        Dotted name of the default target layer.
    input_size : (height, width)
        Pixels of the network's input.
    mean, std : (red, green, blue)
        Normalization on the 0…1 scale; ImageNet's by default.
    interpolation : "bilinear" or "bicubic"
        How images are resized to the input size.
    classes, class_ids : tuple of str, optional
        Names, and WordNet ids or the like, in the order of the logits; None where unknown.
    weights : str
        What was loaded, for people: "IMAGENET1K_V2", a file, "random".
    knobs : mapping
        What the training data was generated with (Shapes); empty elsewhere.
    output_stride : int, optional
        Side of a map's cell in pixels, where the network was told.
    trained_size : (height, width), optional
        Pixels that the weights were trained with, where their file says so.
    training_method : mapping
        What a training method put into the network, by its name and options; empty where nothing was.
    class_map : callable, optional
        (maps (B, K, h, w) of `layer`, targets (B,)) → (B, h, w): the network's own class activation map, which the
        method cam takes; its attribute `layer`, if it has one, is what the tables call it.
    """

    name: str
    module: nn.Module
    layer: str
    input_size: tuple[PositiveInt, PositiveInt] = (224, 224)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (0.229, 0.224, 0.225)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    classes: tuple[str, ...] | None = None
    class_ids: tuple[str, ...] | None = None
    weights: str = "as passed"
    knobs: Mapping[str, object] = field(default_factory=dict)
    output_stride: PositiveInt | None = None
    trained_size: tuple[PositiveInt, PositiveInt] | None = None
    training_method: Mapping[str, object] = field(default_factory=dict)
    class_map: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None

    def prepare(self, pixels: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """Normalize a batch, uint8 (B, h, w, 3), on its device: float32 (B, 3, h, w) in channels-last memory."""
        device = torch.device(device)
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(device, non_blocking=True).float().permute(0, 3, 1, 2)  # (B, 3, h, w)
        mean = torch.tensor(self.mean, device=device).mul(255).view(3, 1, 1)
        scale = torch.tensor(self.std, device=device).mul(255).reciprocal().view(3, 1, 1)
        return pixels.sub_(mean).mul_(scale)


def default_layer(module: nn.Module, input_size: tuple[int, int] = (224, 224)) -> str:
    """Dotted name of the layer whose output heatmaps are made from when no other is asked for.

    For torchvision's families it is the last spatial map that the literature uses; of VGG and AlexNet the last ReLU
    before the last pool; DenseNet's last normalization (the ReLU behind it works in place, and so on the very tensor
    that is recorded); `ln_1` of ViT's last block (behind it the patch tokens have no influence on the class token any
    more); Swin after its final norm, channels first. Every other network is run once, see `last_spatial_layer`.

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

    Wrappers of `torch.compile` and `DataParallel` are looked through. Where there is no such layer, a `UserError` gives
    the nearest names.

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
        raise UserError(f"layer {name!r} does not exist; the outermost are {outermost}{suggest(name, layers)}")
    return layers[name]


def refuse_scripts(module: nn.Module, why: str) -> None:
    """Refuse a network with scripted or traced parts, which run unseen, naming the first."""
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UserError(f"layer {name} is a torch.jit script or trace, but {why}: use what it was made of")


def last_spatial_layer(module: nn.Module, input_size: tuple[int, int] = (224, 224)) -> str:
    """Run the network once on noise of (height, width) and name the last layer that yields a map (B, C, h, w), h·w > 1.

    Layers that run more than once, such as a ReLU that serves the whole network, can't be recorded and don't count.
    Where a 1 × 1 convolution, and no linear layer, makes a channel for each class (Network in Network), it is the
    layer before that: the convolution is the head, and a ReLU behind it would cut its maps.
    """
    module = unwrap(module)
    names = {layer: name for name, layer in module.named_modules() if name}
    maps: list[tuple[nn.Module, int]] = []  # layer and channels, in the order of the pass

    def note(layer: nn.Module, _inputs: object, output: object) -> None:
        if layer in names and isinstance(output, torch.Tensor) and output.ndim == 4 and output[0, 0].numel() > 1:
            maps.append((layer, output.shape[1]))

    like = next(module.parameters(), torch.empty(0))
    noise = torch.randn(2, 3, *input_size, generator=torch.Generator().manual_seed(0))  # (2, 3, H, W)
    try:
        with register_module_forward_hook(note), frozen(module), torch.no_grad():
            classes = logits_of(module(noise.to(like.device, like.dtype))).shape[1]
    except Exception as error:
        size = f"{input_size[0]} x {input_size[1]}"
        raise UserError(f"{type(module).__name__} does not run on {size} pixels ({error}): pass layer=NAME") from error
    runs = Counter(layer for layer, _ in maps)
    maps = [(layer, channels) for layer, channels in maps if runs[layer] == 1]
    heads = [
        place
        for place, (layer, channels) in enumerate(maps)
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and channels == classes
    ]
    if heads and heads[-1] > 0 and not any(isinstance(layer, nn.Linear) for layer in names):
        maps = maps[: heads[-1]]
    if not maps:
        raise UserError(f"no layer of this {type(module).__name__} yields a map (B, C, h, w): name one with layer=")
    return names[maps[-1][0]]


def _last_child(parent: str, suffix: str = "") -> Callable[[nn.Module], str]:
    return lambda module: f"{parent}.{[name for name, _ in module.get_submodule(parent).named_children()][-1]}{suffix}"


def _relu_before_last_pool(module: nn.Module) -> str:
    features = list(module.get_submodule("features").named_children())
    pools = [i for i, (_, layer) in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    relus = [name for name, layer in features[: pools[-1] if pools else None] if isinstance(layer, nn.ReLU)]
    return f"features.{relus[-1]}" if relus else ""


_FAMILIES: dict[tuple[type[nn.Module], ...], Callable[[nn.Module], str]] = {
    (models.ResNet,): lambda _: "layer4",
    (models.RegNet,): _last_child("trunk_output"),
    (models.VGG, models.AlexNet): _relu_before_last_pool,
    (models.DenseNet,): lambda _: "features.norm5",
    (models.ConvNeXt, models.EfficientNet, models.MobileNetV2, models.MobileNetV3): _last_child("features"),
    (models.SqueezeNet,): lambda _: "features",
    (models.GoogLeNet,): lambda _: "inception5b",
    (models.Inception3,): lambda _: "Mixed_7c",
    (models.MNASNet,): lambda _: "layers",
    (models.ShuffleNetV2,): lambda _: "conv5",
    (models.MaxVit,): _last_child("blocks"),
    (models.VisionTransformer,): _last_child("encoder.layers", ".ln_1"),
    (models.SwinTransformer,): lambda _: "permute",
}
