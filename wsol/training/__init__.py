"""Training a classifier for localization: labels in, weights out."""

from wsol.training.recipe import Recipe, Stage
from wsol.training.train import Training, classification_accuracy, train

__all__ = ["Recipe", "Stage", "Training", "classification_accuracy", "train"]
