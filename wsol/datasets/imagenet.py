"""The 1,000 classes of ILSVRC-2012 by WordNet id, in the order of every ImageNet classifier's logits."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["imagenet_wnids"]


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
