"""The heatmaps of several pictures of one image put together."""

from __future__ import annotations

import torch
from torch.nn import functional

from wsol.datasets.view import View

__all__ = ["merge"]


def merge(maps: torch.Tensor, view: View) -> torch.Tensor:
    """Turn mirrored heatmaps back and average them where they lie on the image.

    Where all pictures show the same part, the maps are averaged as they are. Ten-crop's are enlarged to the crops
    (bilinear), laid on the canvas, and each pixel is the mean of the crops that cover it, as Zhou et al. merge them.

    Parameters
    ----------
    maps : tensor (B, V, …, h, w)
        Of each of the view's pictures, in its order.
    view : View

    Returns
    -------
    tensor (B, …, h, w); for ten-crop (B, …, H, W), the size of the canvas

    References
    ----------
    Zhou, Khosla, Lapedriza, Oliva, Torralba, "Learning Deep Features for Discriminative Localization", CVPR 2016.

    Examples
    --------
    >>> merge(torch.rand(2, 10, 7, 7), View("tencrop", (224, 224))).shape
    torch.Size([2, 256, 256])
    """
    crops = view.crops
    turned = [maps[:, i].flip(-1) if crop.flipped else maps[:, i] for i, crop in enumerate(crops)]
    if view.canvas == view.input_size:
        return torch.stack(turned).mean(0)
    height, width = view.input_size
    total = maps.new_zeros(*turned[0].shape[:-2], *view.canvas)
    count = maps.new_zeros(view.canvas)
    for heatmap, crop in zip(turned, crops, strict=True):
        place = (..., slice(crop.top, crop.top + height), slice(crop.left, crop.left + width))
        flat = heatmap.reshape(-1, 1, *heatmap.shape[-2:])
        enlarged = functional.interpolate(flat, view.input_size, mode="bilinear")
        total[place] += enlarged.reshape(*heatmap.shape[:-2], height, width)
        count[place] += 1
    return total / count
