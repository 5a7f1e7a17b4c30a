"""The small network for the Shapes set, with the weights that the package ships."""

from __future__ import annotations

import os
from importlib.resources import files

from wsol.errors import UserError
from wsol.models.build import build_classifier
from wsol.models.classifier import Classifier
from wsol.models.gapnet import gapnet

__all__ = ["SHIPPED", "shapes_classifier"]

SHIPPED = files("wsol.models").joinpath("weights", "shapes.safetensors")


def shapes_classifier(
    weights: str | os.PathLike[str] | None = "shipped",
    num_classes: int | None = None,
    layer: str | None = None,
    seed: int = 0,
) -> Classifier:
    """Build the six-layer network with global average pooling, trained on the Shapes set's default knobs.

    Parameters
    ----------
    weights : "shipped", path or None
        The package's own weights, a file of yours, or random ones (None).
    num_classes : int, optional
        By default the file's number; 10 for random weights.
    layer : str, optional
        Dotted name of the target layer, by default `features`.
    seed : int
        For random weights.

    Returns
    -------
    Classifier
        In evaluation mode, on the CPU; `knobs` are those of the pictures that it was trained on.

    Raises
    ------
    UserError
        If the weights are not there or do not fit.

    Examples
    --------
    >>> shapes_classifier(weights=None).input_size
    (96, 96)
    """
    checkpoint = None if weights is None else weights
    if checkpoint == "shipped":
        if not SHIPPED.is_file():
            raise UserError(
                f"the shipped weights are not at {SHIPPED}: install the package again, make them with "
                "`wsol train experiment=shapes`, or pass weights=FILE (weights=null for random ones)"
            )
        checkpoint = str(SHIPPED)
    classifier = build_classifier(
        "shapes",
        gapnet,
        num_classes=num_classes,
        default_classes=10,
        checkpoint=checkpoint,
        seed=seed,
        layer=layer or "features",
        shown={"input_size": (96, 96), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)},
    )
    if weights == "shipped":
        classifier.weights = "shipped"
    return classifier
