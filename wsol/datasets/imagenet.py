"""The 1,000 classes of ILSVRC-2012 by WordNet id and by name, in the order of every ImageNet classifier's logits."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["imagenet_names", "imagenet_wnids"]


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """WordNet ids of the ILSVRC-2012 classes in the order of the logits, which is their sorted order.

    Returns
    -------
    tuple of str (1000,)

    References
    ----------
    Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015.

    Examples
    --------
    >>> imagenet_wnids()[:2], len(imagenet_wnids())
    (('n01440764', 'n01443537'), 1000)
    """
    return tuple(files("wsol.datasets").joinpath("imagenet_wnids.txt").read_text("ascii").split())


@cache
def imagenet_names() -> tuple[str, ...]:
    """Names of the 1,000 ILSVRC-2012 classes in the order of the logits, as torchvision spells them.

    Returns
    -------
    tuple of str (1000,)
        Two are called "crane" and two "maillot".

    Examples
    --------
    >>> imagenet_names()[:2]
    ('tench', 'goldfish')
    """
    from torchvision.models import ResNet18_Weights

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
