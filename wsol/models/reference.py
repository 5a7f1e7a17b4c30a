"""Networks for training methods: ADL inside a network, the heads of ACoL and SPG on one, smaller strides.

Parts are called, sized and initialized as in the code of Choe et al., CVPR 2020 (wsolevaluation), so that its files
load; so are the names of blocks that ADL shifts. The same goes for networks that it doesn't have.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torchvision.models import ResNet
from torchvision.models.inception import InceptionB

from wsol.errors import UserError
from wsol.models.layers import Classifier

Stages = dict[str, nn.Module]  # run one after the other
HEADS = ("classifier_A.4", "SPG_A4", "SPG_A_4", "fc")  # what makes the logits of ACoL, SPG and the reference's VGG
CHANNELS = 1024  # of ACoL's heads, or twice the trunk's where that is less


class GlobalAveragePoolingNet(nn.Module):
    """Convolutions, their mean over space, one linear layer: so that CAM is exact (Zhou et al., CVPR 2016).

    Parameters
    ----------
    features : nn.Sequential
        Images (B, 3, H, W) → maps (B, channels, h, w), the last layer a ReLU.
    channels, num_classes : int
        Number of those maps, and of logits.
    dropout : float
        On the pooled features, in training only.
    """

    def __init__(self, features: nn.Sequential, channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, num_classes) of normalized images (B, 3, H, W)."""
        maps = self.features(images)  # (B, channels, h, w)
        pooled = self.flatten(self.pool(maps))  # (B, channels)
        return self.classifier(self.dropout(pooled))  # (B, C)


class ADL(nn.Module):
    """Attention-based dropout layer: in training, hides the most attended part of maps, or weighs them by attention.

    With a the mean of the maps (B, K, h, w) over channels: F · [a < threshold · max a], the maximum of each image; or
    F · sigmoid(a). One draw for the whole batch says which; in evaluation nothing happens.
    Choe and Shim, "Attention-Based Dropout Layer for Weakly Supervised Object Localization", CVPR 2019, section 3,
    whose keep_prob is 1 - drop_rate.
    """

    def __init__(self, drop_rate: float = 0.75, threshold: float = 0.9) -> None:
        super().__init__()
        self.drop_rate, self.threshold = drop_rate, threshold

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps (B, K, h, w), changed in training."""
        if not self.training:
            return maps
        attention = maps.mean(1, keepdim=True)  # (B, 1, h, w)
        if float(torch.rand(())) >= 1 - self.drop_rate:
            return maps * (attention < self.threshold * attention.amax((2, 3), keepdim=True))
        return maps * attention.sigmoid()


class _Staged(nn.Module):
    """Named stages, one after the other; heads come behind them."""

    def __init__(self, stages: Stages) -> None:
        super().__init__()
        self._stages = tuple(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)

    def trunk(self, images: torch.Tensor, at: Sequence[str] = ()) -> list[torch.Tensor]:
        """Maps behind the stages `at`, in the order of the stages, and behind the last."""
        maps, kept = images, list[torch.Tensor]()
        for name in self._stages:
            maps = self.get_submodule(name)(maps)
            kept += [maps] if name in at else []
        return [*kept, maps]


class ACoL(_Staged):
    """Two heads: the second learns from maps in which what the first attends to is erased.

    The map of a class is the maximum of both heads' maps, each between 0 and 1; a constant one makes it 0.
    Zhang et al., "Adversarial Complementary Learning for Weakly Supervised Object Localization", CVPR 2018, section 3.
    """

    def __init__(self, stages: Stages, channels: int, num_classes: int, how: str, threshold: float = 0.7) -> None:
        super().__init__(stages)
        self.threshold = threshold
        self.classifier_A, self.classifier_B = (self._head(channels, num_classes) for _ in "AB")
        _initialize(self.classifier_A, how)
        _initialize(self.classifier_B, how)

    @staticmethod
    def _head(channels: int, num_classes: int) -> nn.Sequential:
        units = min(CHANNELS, 2 * channels)
        first, second = nn.Conv2d(channels, units, 3, padding=1), nn.Conv2d(units, units, 3, padding=1)
        return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.Conv2d(units, num_classes, 1))

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        """Logits (B, C) of the first head; with labels (B,) a dict: `logits`, and `erased`, the second head's."""
        (maps,) = self.trunk(images)
        class_maps = self.classifier_A(maps)  # (B, C, h, w)
        logits = class_maps.mean((2, 3))
        if labels is None:
            return logits
        erased = self.classifier_B(self.erase(maps, _of_class(class_maps, labels)))
        return {"logits": logits, "erased": erased.mean((2, 3))}

    def erase(self, maps: torch.Tensor, class_map: torch.Tensor) -> torch.Tensor:
        """Maps (B, K, h, w), 0 where the class's map (B, h, w), between 0 and 1, is the threshold or more."""
        return maps * ~(min_max(class_map.detach()) >= self.threshold)[:, None]  # NaN erases nothing

    def class_map(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Maximum of both heads' maps of classes (B,), (B, h, w)."""
        first = _of_class(self.classifier_A(features), targets)
        second = _of_class(self.classifier_B(self.erase(features, first)), targets)
        return torch.maximum(min_max(first), min_max(second)).nan_to_num(0)

    class_map.layer = "acol:both"  # type: ignore[attr-defined]


class SPG(_Staged):
    """Side branches that learn, each from the next deeper one, what is object and what is background.

    Zhang et al., "Self-produced Guidance for Weakly-supervised Object Localization", ECCV 2018, section 3.
    """

    def __init__(
        self, stages: Stages, head: str, num_classes: int, at: tuple[str, str], channels: Sequence[int], units: int
    ) -> None:
        super().__init__(stages)
        self.at, self._head = at, head
        early, late, last = channels
        few = min(512, last)
        self.add_module(head, nn.Conv2d(last, num_classes, 1))
        self.SPG_B_1a = nn.Sequential(nn.Conv2d(early, units, 3, padding=1), nn.ReLU())
        self.SPG_B_2a = nn.Sequential(nn.Conv2d(late, units, 3, padding=1), nn.ReLU())
        self.SPG_B_shared = nn.Sequential(nn.Conv2d(units, units, 3, padding=1), nn.ReLU(), nn.Conv2d(units, 1, 1))
        self.SPG_C = nn.Sequential(nn.Conv2d(last, few, 3, padding=1), nn.ReLU(), nn.Conv2d(few, 1, 1))
        for name in (head, "SPG_B_1a", "SPG_B_2a", "SPG_B_shared", "SPG_C"):
            _initialize(self.get_submodule(name), "xavier")

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        """Logits (B, C); with labels (B,) a dict: also their class maps (B, h, w) and the logits of b1, b2 and c."""
        early, late, last = self.trunk(images, self.at)
        class_maps = self.get_submodule(self._head)(last)
        logits = class_maps.mean((2, 3))
        if labels is None:
            return logits
        b1, b2 = self.SPG_B_shared(self.SPG_B_1a(early)), self.SPG_B_shared(self.SPG_B_2a(late))
        sides = {"b1": b1[:, 0], "b2": b2[:, 0], "c": self.SPG_C(last)[:, 0]}  # (B, h, w) each
        return {"logits": logits, "class_map": _of_class(class_maps, labels), **sides}

    def class_map(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The classes' channels of what is averaged to logits (B, h, w)."""
        return _of_class(self.get_submodule(self._head)(features), targets)


def min_max(maps: torch.Tensor) -> torch.Tensor:
    """Bring each map (…, h, w) between 0 and 1; a constant one becomes NaN."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / (high - low)


def _of_class(class_maps: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return class_maps[torch.arange(len(targets), device=targets.device), targets]  # (B, h, w)


def _initialize(module: nn.Module, how: str) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            if how == "he":
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            else:
                nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def adapt(classifier: Classifier, name: str, **options: Any) -> None:
    """Give a classifier what "adl" (options of `ADL`, and `layers` to stand behind), "acol" or "spg" need, once."""
    if classifier.training_method.get("name", name) != name:
        raise UserError(f"{classifier.name} was made for {classifier.training_method['name']}, not for {name}")
    if not classifier.training_method:
        build = {"adl": _with_adl, "acol": _with_acol, "spg": _with_spg}[name]
        training = classifier.module.training
        classifier.module, classifier.layer = build(classifier, **options)
        classifier.module.train(training)
        classifier.class_map = getattr(classifier.module, "class_map", None)
    for module in classifier.module.modules():
        if isinstance(module, ADL | ACoL):
            vars(module).update((key, options[key]) for key in ("threshold", "drop_rate") if key in options)
    classifier.training_method = {"name": name, **options}


def _with_adl(classifier: Classifier, layers: Sequence[str] = (), **options: Any) -> tuple[nn.Module, str]:
    module = classifier.module
    if isinstance(module, nn.Sequential):
        for dropout in (child for name, child in module.named_children() if name.startswith("dropout")):
            vars(dropout)["p"] = 0.0
    names = {"Mixed_5d": "ADL_5d", "Mixed_6e": "ADL_6e", "SPG_A3_2b": "ADL_A3_2b"}
    for place in reversed(tuple(layers) or _adl_places(classifier)):  # the last first: places before it stay
        _insert(module, place, ADL(**options), names.get(place, ""))
    return module, classifier.layer


def _adl_places(classifier: Classifier) -> tuple[str, ...]:
    module = classifier.module
    if isinstance(module, ResNet):
        return "layer3.0", "layer4.0", f"layer4.{len(module.layer4) - 1}"
    if _is_inception(module):
        return "Mixed_5d", "Mixed_6e", "SPG_A3_2b"
    features = _features(classifier, "adl")
    ends = _places(features)
    if _is_vgg(features):
        return f"features.{ends[6] + 1}", f"features.{ends[9]}", f"features.{ends[12]}"  # pool3, conv4_3, conv5_3
    return tuple(f"features.{end}" for end in dict.fromkeys((ends[len(ends) // 2 - 1], ends[-2], ends[-1])))


def _insert(network: nn.Module, place: str, layer: nn.Module, name: str) -> None:
    """Put a layer behind another of a Sequential; numbers of those behind it rise by 1."""
    above, _, child = place.rpartition(".")
    parent = network.get_submodule(above)
    children = list(parent.named_children())
    if not isinstance(parent, nn.Sequential) or child not in dict(children):
        raise UserError(f"training_method.layers: {place} is no layer of an nn.Sequential")
    children.insert([key for key, _ in children].index(child) + 1, (name, layer))
    parent._modules.clear()
    for number, (key, module) in enumerate(children):
        parent.add_module(key or str(number) if not child.isdigit() else str(number), module)


def _with_acol(classifier: Classifier, **options: Any) -> tuple[nn.Module, str]:
    module, classes = classifier.module, _num_classes(classifier.module)
    if isinstance(module, ResNet):
        stages, how = _children_before(module, "avgpool"), "he"
        channels = module.fc.in_features
    elif _is_inception(module):
        stages, channels, how = _children_before(module, "dropout1"), 768, "xavier"
    else:
        features, how = _features(classifier, "acol"), "xavier"
        if _is_vgg(features):  # pools are 3 × 3, also where the stride is 1; conv6 goes, a mean over 3 × 3 comes
            ends = {2: 2, 4: 2, 7: 2, 10: 1 if _is_large(features) else 2, 13: 1}
            convolutions = [features[place] for place in _places(features, nn.Conv2d)[:13]]
            features = nn.Sequential(*_pooled(convolutions, ends), nn.AvgPool2d(3, 1, 1))
        stages, channels = {"features": features}, _channels(features)
    return ACoL(stages, channels, classes, how, **options), list(stages)[-1]


def _pooled(convolutions: Sequence[nn.Module], strides: Mapping[int, int]) -> list[nn.Module]:
    """Convolutions and their ReLUs, and max-pools 3 × 3 behind some, by number, with these strides."""
    layers: list[nn.Module] = []
    for number, convolution in enumerate(convolutions, 1):
        layers += [convolution, nn.ReLU(inplace=True)]
        if number in strides:
            layers.append(nn.MaxPool2d(3, strides[number], padding=1))
    return layers


def _with_spg(classifier: Classifier) -> tuple[nn.Module, str]:
    module, classes = classifier.module, _num_classes(classifier.module)
    if isinstance(module, ResNet):
        stages = _children_before(module, "layer3")
        stages |= {"SPG_A1": module.layer3[:1], "SPG_A2": nn.Sequential(*module.layer3[1:]), "layer4": module.layer4}
        channels = _channels(module.layer3[-1])
        sides = (channels, channels, module.fc.in_features)
        return SPG(stages, "SPG_A4", classes, ("SPG_A1", "SPG_A2"), sides, channels), "layer4"
    if _is_inception(module):
        stages = _children_before(module, "SPG_A4")
        early = "pool" if "pool" in stages else "Mixed_5d"
        return SPG(stages, "SPG_A4", classes, (early, "Mixed_6d"), (288, 768, 1024), 512), "SPG_A3_2b"
    features = _features(classifier, "spg")
    ends = _places(features)
    if _is_vgg(features):
        convolutions = [features[place] for place in _places(features, nn.Conv2d)]
        stages = {"features": features[: ends[6] + 2], "SPG_A_1": nn.Sequential(*_pooled(convolutions[7:10], {}))}
        if not _is_large(features):
            stages["pool"] = nn.MaxPool2d(3, 2, padding=1)
        early = list(stages)[-1]
        stages["SPG_A_2"] = nn.Sequential(*_pooled(convolutions[10:13], {}))
        last = [nn.Conv2d(512, 512, 3, padding=1) for _ in range(2)]
        stages["SPG_A_3"] = nn.Sequential(*_pooled(last, {}))
        _initialize(stages["SPG_A_3"], "xavier")
        return SPG(stages, "SPG_A_4", classes, (early, "SPG_A_2"), (512, 512, 512), 512), "SPG_A_3"
    cuts = 0, ends[len(ends) // 2 - 1] + 1, ends[-2] + 1, len(features)
    parts = [nn.Sequential(*features[start:stop]) for start, stop in pairwise(cuts)]
    stages = dict(zip(("features", "SPG_A_1", "SPG_A_2"), parts, strict=True))
    widths = [_channels(part) for part in parts]
    return SPG(stages, "SPG_A_4", classes, ("features", "SPG_A_1"), widths, widths[1]), "SPG_A_2"


def _children_before(module: nn.Module, name: str) -> Stages:
    children = dict(module.named_children())
    return {child: children[child] for child in list(children)[: list(children).index(name)]}


def _features(classifier: Classifier, method: str) -> nn.Sequential:
    module = classifier.module
    if not isinstance(module, GlobalAveragePoolingNet):
        choices = "a ResNet, vgg16_gap, alexnet_gap, shapes or inception_v3_gap"
        hint = "; or name training_method.layers" if method == "adl" else ""
        raise UserError(f"training_method={method} doesn't know {classifier.name}: choose {choices}{hint}")
    return module.features


def _num_classes(module: nn.Module) -> int:
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)][-1].weight.shape[0]


def _channels(maps: nn.Module) -> int:
    return [layer for layer in maps.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels


def _places(features: nn.Sequential, kind: type[nn.Module] = nn.ReLU) -> list[int]:
    return [number for number, layer in enumerate(features) if isinstance(layer, kind)]


def _is_large(features: nn.Sequential) -> bool:
    """Whether the reference's VGG leaves out its fourth pool too."""
    return len(_places(features, nn.MaxPool2d)) == 3


def _is_vgg(features: nn.Sequential) -> bool:
    return len(_places(features, nn.Conv2d)) == 14 and len(_places(features, nn.MaxPool2d)) in (3, 4)


def _is_inception(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and "Mixed_6e" in dict(module.named_children())


def method_of(names: set[str]) -> dict[str, Any]:
    """Which method's network a file of the reference holds, by the names of its parameters."""
    if "classifier_A.0.weight" in names:
        return {"name": "acol"}
    if "SPG_B_shared.0.weight" in names:
        return {"name": "spg"}
    shifted = "layer4.3.conv1.weight" in names or {"features.18.weight", "conv6.weight"} <= names
    return {"name": "adl"} if shifted else {}


def own_names(state: Mapping[str, torch.Tensor], module: nn.Module) -> Mapping[str, torch.Tensor]:
    """The reference's state dict of VGG by our names: conv6 is the last of the features, fc the classifier."""
    if "conv6.weight" not in state or not isinstance(module, GlobalAveragePoolingNet):
        return state
    last = _places(module.features)[-1] - 1
    replaced = ((r"^conv6\.", f"features.{last}."), (r"^fc\.", "classifier."))
    renamed: Callable[[str], str] = lambda name: re.sub(*replaced[0], re.sub(*replaced[1], name))  # noqa: E731
    return {renamed(name): tensor for name, tensor in state.items()}


def is_slow(name: str, module: nn.Module) -> bool:
    """Whether the reference trains a parameter at the plain learning rate, not at ten times that.

    Of a ResNet all but the last stage and fc, so ACoL's and SPG's heads too; else what it calls features, Mixed and
    Conv2d.
    """
    if any(part.startswith("layer4.") for part, _ in module.named_parameters()):
        return "layer4." not in name and "fc." not in name
    if isinstance(module, GlobalAveragePoolingNet) and _is_vgg(module.features):
        return name.startswith("features.") and not name.startswith(f"features.{_places(module.features)[-1] - 1}.")
    return name.startswith(("features.", "Mixed", "Conv2d_"))


def reduce_stride(network: nn.Module, output_stride: int | None) -> nn.Module:
    """Give the last strided stages of a ResNet stride 1, without dilation, until an image is divided by so much."""
    if output_stride is None:
        return network
    if not isinstance(network, ResNet):
        raise UserError(f"output_stride={output_stride}: of torchvision's networks only ResNets have it; leave it out")
    stages = [network.layer1, network.layer2, network.layer3, network.layer4]
    stem = int(network.conv1.stride[0]) * (2 if isinstance(network.maxpool, nn.MaxPool2d) else 1)
    strided = [stage[0] for stage in stages if stage[0].stride > 1]
    possible = [stem * 2**count for count in range(len(strided) + 1)]
    if output_stride not in possible:
        raise UserError(f"output_stride={output_stride}: choose one of {', '.join(map(str, possible[::-1]))}")
    for block in strided[possible.index(output_stride) :]:
        block.stride, block.downsample[0].stride = 1, (1, 1)
        (block.conv2 if hasattr(block, "conv3") else block.conv1).stride = (1, 1)
    return network


class SameSizeInceptionB(InceptionB):
    """Inception's Mixed_6a with stride 1: maps keep their size."""

    def __init__(self) -> None:
        super().__init__(288)
        for branch in (self.branch3x3, self.branch3x3dbl_3):
            branch.conv.stride, branch.conv.padding = (1, 1), (1, 1)

    def _forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        deep = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return [self.branch3x3(x), deep, nn.functional.max_pool2d(x, 3, 1, padding=1)]


def inception(network: nn.Module, num_classes: int, output_stride: int) -> nn.Sequential:
    """Torchvision's Inception-V3 up to Mixed_6e, whose maps stay large, and the reference's head."""
    if output_stride not in (16, 8):
        raise UserError(f"output_stride={output_stride}: choose 16 or 8")
    stages = _children_before(network, "Mixed_7a")
    stages.pop("AuxLogits", None)
    stages["Conv2d_1a_3x3"].get_submodule("conv").padding = (1, 1)  # type: ignore[assignment]
    same = SameSizeInceptionB()
    same.load_state_dict(stages["Mixed_6a"].state_dict())
    pool = {"pool": nn.MaxPool2d(3, 2, ceil_mode=True)} if output_stride == 16 else {}
    order: Stages = {}
    for name, stage in stages.items():
        stage = nn.MaxPool2d(3, 2, padding=1, ceil_mode=True) if name.startswith("maxpool") else stage
        order |= (pool if name == "Mixed_6a" else {}) | {name: same if name == "Mixed_6a" else stage}
    first, second, last = nn.Conv2d(768, 1024, 3, padding=1), nn.Conv2d(1024, 1024, 3, padding=1), nn.Dropout(0.5)
    head = nn.Conv2d(1024, num_classes, 1)
    order |= {"dropout1": nn.Dropout(0.5), "SPG_A3_1b": nn.Sequential(first, nn.ReLU())}
    order |= {"dropout2": nn.Dropout(0.5), "SPG_A3_2b": nn.Sequential(second, nn.ReLU()), "dropout3": last}
    for layer in (first, second, head):
        _initialize(layer, "xavier")
    order |= {"SPG_A4": head, "avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(order))
