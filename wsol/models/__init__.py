"""Image classifiers: torchvision's, small ones of our own, and files of weights."""

from wsol.models.checkpoint import load_state, read_checkpoint, save_checkpoint
from wsol.models.inference import logits_of, unwrap
from wsol.models.layers import Classifier, default_layer, find_layer
from wsol.models.zoo import (
    GapNet,
    GlobalAveragePoolingNet,
    alexnet_gap,
    efficientnet_lite0,
    gapnet,
    huggingface_classifier,
    inception_v3_gap,
    shapes_classifier,
    timm_classifier,
    tiny_resnet18,
    torchvision_classifier,
    vgg16_gap,
)  # fmt: skip

__all__ = [
    "Classifier", "GapNet", "GlobalAveragePoolingNet", "alexnet_gap", "default_layer", "efficientnet_lite0",
    "find_layer", "gapnet", "huggingface_classifier", "inception_v3_gap", "load_state", "logits_of", "read_checkpoint",
    "save_checkpoint", "shapes_classifier", "timm_classifier", "tiny_resnet18", "torchvision_classifier", "unwrap",
    "vgg16_gap",
]  # fmt: skip
