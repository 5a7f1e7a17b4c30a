"""Training a classifier for localization: labels in, weights out."""

from wsol.training.methods import ADL, SPG, ACoL, CutMix, HaS, TrainingMethod
from wsol.training.recipe import Recipe, Stage
from wsol.training.train import Training, classification_accuracy, train

__all__ = [
    "ADL", "SPG", "ACoL", "CutMix", "HaS", "Recipe", "Stage", "Training", "TrainingMethod", "classification_accuracy",
    "train",
]  # fmt: skip
