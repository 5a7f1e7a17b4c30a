"""From heatmaps to numbers: everything after the sweeps is a query of them; counts are whole, so that parts add up.

Of N samples, IoU(τ) is that of the box at threshold τ with the ground truth (the best of its boxes), rank that of the
true class, 0 the best; sums and means are over samples, [.] is 1 where it holds. What is greater or equal is so by a
protocol's `iou_comparison`.

    Top-k cls     Σ [rank < k] / N                                 Russakovsky et al., IJCV 2015
    Top-k loc     Σ [rank < k][IoU(τ) >= 0.5] / N                  the same
    GT-known      Σ [IoU(τ) >= 0.5] / N                            Choe et al., CVPR 2020
    CorLoc        mean over classes of their GT-known              Deselaers et al., ECCV 2010
    MaxBoxAcc     max over τ of Σ [IoU(τ) >= δ] / N, δ = 0.5       Choe et al., CVPR 2020
    MaxBoxAccV2   mean over δ = 0.3, 0.5, 0.7 of the same          Choe et al., arXiv 2007.04178
    error kinds   see `error_kind`
    PxAP          Σ_l precision(τ_l) (recall(τ_l) - recall(τ_l-1)) Choe et al., CVPR 2020
    pointing      Σ [the peak is in a box, or 15 pixels off] / N   Zhang et al., ECCV 2016
    energy        mean of Σ_box max(H, 0) / Σ_image max(H, 0)      Wang et al. (Score-CAM), CVPR Workshops 2020

`outcomes_of` gives all but the last four from `Sweeps`; `PxAP` takes counts of `pixel_histograms`; `point_and_energy`
gives the last two. Intervals and tests are in `wsol.metrics.statistics`.
"""

from wsol.metrics.localization import ERROR_KINDS, METRICS, OUTCOMES, ErrorKind, Sweeps, error_kind, outcomes_of
from wsol.metrics.pixels import PxAP, pixel_histograms, point_and_energy

__all__ = [
    "ERROR_KINDS", "METRICS", "OUTCOMES", "ErrorKind", "PxAP", "Sweeps", "error_kind", "outcomes_of",
    "pixel_histograms", "point_and_energy",
]  # fmt: skip
