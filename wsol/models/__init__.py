"""Image classifiers: torchvision's, small ones of our own, and files of weights."""

from wsol.models.checkpoint import load_state, read_checkpoint, save_checkpoint
from wsol.models.classifier import Classifier
from wsol.models.gap import GlobalAveragePoolingNet, alexnet_gap, vgg16_gap
from wsol.models.gapnet import GapNet, gapnet
from wsol.models.layers import default_layer, find_layer, logits_of, unwrap
from wsol.models.shapes import shapes_classifier
from wsol.models.tiny_resnet import tiny_resnet18
from wsol.models.torchvision_models import torchvision_classifier

__all__ = [
    "Classifier",
    "GapNet",
    "GlobalAveragePoolingNet",
    "alexnet_gap",
    "default_layer",
    "find_layer",
    "gapnet",
    "load_state",
    "logits_of",
    "read_checkpoint",
    "save_checkpoint",
    "shapes_classifier",
    "tiny_resnet18",
    "torchvision_classifier",
    "unwrap",
    "vgg16_gap",
]
