"""A classifier, and where its heatmaps are taken: a family's default target layer, or any by its dotted name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any, Literal

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import nn
from torchvision import models

from wsol.errors import UserError, suggest
from wsol.models.inference import answer_with, unwrap
from wsol.models.trace import INPUT, Trace, colors, trace
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
    prefix_tokens : int or sequence of int, optional
        Tokens that stand for no place (class, distillation, registers), where the network doesn't show it: how many
        stand in front of the patches, or their positions ([-1]: the last).
    output : int or str, optional
        Which entry of what the network returns are the logits, where it returns several; a hook on the module takes it.
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
    prefix_tokens: int | tuple[int, ...] | None = None
    output: int | str | None = None

    def __post_init__(self) -> None:
        if self.output is not None:
            answer_with(self.module, self.output)

    @classmethod
    def from_module(cls, module: nn.Module, layer: str | int | None = None, **fields: Any) -> Classifier:
        """Take any network: layer by default as `default_layer` finds it, the rest fields of this class.

        Examples
        --------
        >>> Classifier.from_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())).layer
        '0'
        """
        made = cls(**{"name": type(unwrap(module)).__name__.lower(), "module": module, "layer": "", **fields})
        made.layer = default_layer(module, made.input_size, made.prefix_tokens) if layer is None else str(layer)
        find_layer(module, made.layer)
        return made

    @staticmethod
    def from_timm(name: str, **settings: Any) -> Classifier:
        """Build a network of timm's by its name, see `wsol.models.timm_classifier`."""
        from wsol.models.zoo import timm_classifier

        return timm_classifier(name, **settings)

    @staticmethod
    def from_huggingface(name: str, **settings: Any) -> Classifier:
        """Build a network of transformers', from a hub or a folder, see `wsol.models.huggingface_classifier`."""
        from wsol.models.zoo import huggingface_classifier

        return huggingface_classifier(name, **settings)

    def prepare(self, pixels: torch.Tensor, device: torch.device | str = "cpu") -> torch.Tensor:
        """Normalize a batch, uint8 (B, h, w, 3), on its device: float32 (B, 3, h, w) in channels-last memory."""
        device = torch.device(device)
        if device.type == "cuda":
            pixels = pixels.pin_memory()
        pixels = pixels.to(device, non_blocking=True).float().permute(0, 3, 1, 2)  # (B, 3, h, w)
        mean = torch.tensor(self.mean, device=device).mul(255).view(3, 1, 1)
        scale = torch.tensor(self.std, device=device).mul(255).reciprocal().view(3, 1, 1)
        return pixels.sub_(mean).mul_(scale)


def default_layer(
    module: nn.Module, input_size: tuple[int, int] = (224, 224), prefix_tokens: int | Sequence[int] | None = None,
    channels: int | None = 3,
) -> str:  # fmt: skip
    """Name of the layer whose maps are looked at when no other is asked for: a dotted name, or `name:input`.

    For torchvision's families it is the last spatial map that the literature uses; of VGG and AlexNet the last ReLU
    before the last pool; DenseNet's last normalization (the ReLU behind it works in place, and so on the very tensor
    that is recorded); `ln_1` of ViT's last block (behind it the patch tokens have no influence on the class token any
    more); Swin after its final norm, channels first. Every other network is run once on noise: see `Trace.default`.

    Parameters
    ----------
    module : nn.Module
        Images (B, 3, H, W) → logits (B, C); it may be compiled or data parallel.
    input_size : (height, width)
        Used only where the network has to be run.
    prefix_tokens : int or sequence of int, optional
        Tokens of a transformer that stand for no place: how many stand in front, or where they stand.
    channels : int, optional
        Of its images; None: what the network takes.

    Raises
    ------
    UserError
        If an unknown network doesn't run at this input size, takes other channels, or has no layer whose maps stand for
        what its logits are made of; it lists those that can be looked at.

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
    return trace_layers(module, input_size, prefix_tokens, channels).default()


def trace_layers(
    module: nn.Module, input_size: tuple[int, int] = (224, 224), prefix_tokens: int | Sequence[int] | None = None,
    channels: int | None = 3,
) -> Trace:  # fmt: skip
    """Run a network once on noise to see its layers; arguments and errors are those of `default_layer`."""
    module = unwrap(module)
    refuse_quantized(module)
    run, own_channels = partial(trace, module, input_size, prefix_tokens), colors(module)
    try:
        return run(channels=channels or 3)
    except UserError:
        raise
    except Exception as error:
        name, size = type(module).__name__, f"{input_size[0]} x {input_size[1]}"
        if own_channels == (channels or 3):
            raise UserError(f"{name} does not run on {size} pixels ({error}): pass layer=NAME") from error
        if channels:
            advice = "put a 1 x 1 convolution with fixed weights before it"
            raise UserError(f"{name} takes images of {own_channels} channels, not {channels}: {advice}") from error
    return run(channels=own_channels)


def refuse_quantized(module: nn.Module) -> None:
    """Refuse a network whose parts calculate with whole numbers, through which no gradient passes, naming the first."""
    for name, layer in module.named_modules():
        if ".quantized" in type(layer).__module__ and any(True for _ in layer.buffers()):
            raise UserError(f"layer {name} is quantized and has no gradient: use the float network that it was made of")


def find_layer(module: nn.Module, name: str) -> nn.Module:
    """Find the layer with this dotted name, as `module.named_modules()` spells it ("layer4.1.conv2"; `:input` or not).

    Wrappers of `torch.compile` and `DataParallel` are looked through. Where there is no such layer, a `UserError` gives
    the nearest names.

    Examples
    --------
    >>> find_layer(models.squeezenet1_1(), "classifier.3")
    AdaptiveAvgPool2d(output_size=(1, 1))
    """
    name = str(name).removesuffix(INPUT)  # YAML reads the names of a Sequential's layers as numbers
    layers = dict(unwrap(module).named_modules(remove_duplicate=False))  # one layer may have two names
    layers.pop("", None)
    if name not in layers:
        outermost = ", ".join(layer for layer in layers if "." not in layer)
        raise UserError(f"layer {name!r} does not exist; the outermost are {outermost}{suggest(name, layers)}")
    return layers[name]


def refuse_scripts(module: nn.Module, layer: str = "") -> None:
    """Refuse a network that is a script or trace, or whose layer is or lies in one: what is inside runs unseen."""
    parts = layer.removesuffix(INPUT).split(".")
    for name in ("", *(".".join(parts[: count + 1]) for count in range(len(parts)))):
        if isinstance(module.get_submodule(name), torch.jit.ScriptModule):
            what = f"{name} is" if name else "the network itself is"
            raise UserError(f"layer {layer}: {what} a torch.jit script or trace: use what it was made of")


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
