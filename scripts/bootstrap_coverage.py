"""How often a 95 % bootstrap interval covers the truth: τ fixed, chosen on another split, or an oracle.

    python scripts/bootstrap_coverage.py            # writes results/bootstrap_coverage.md; some ten minutes

Images are simulated: each is right on an interval of thresholds around a center of its own, as a box that is too large
below and too small above. The accuracy of all images that might ever be drawn is known at every τ, so one can count
how often the interval made from N images holds it. For an oracle the truth is the best accuracy that any τ has.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
from scipy.stats import norm

from wsol.console import progress
from wsol.io import write_text
from wsol.metrics.statistics import percentile_interval, resampled_means, resamples_of

TAUS = np.arange(0, 1, 0.01)
FIXED = int(0.25 * len(TAUS))
# Spread of the centers, and how far around its center an image is right.
SETTINGS = {"narrow spread": (0.10, 0.15), "wide spread": (0.25, 0.20), "flat": (0.50, 0.25)}
CENTER, JITTER = 0.35, 0.3
KINDS = {
    "fixed": "τ fixed",
    "other split": "τ chosen on another split",
    "oracle": "oracle, τ held (what is reported)",
    "oracle again": "oracle, τ chosen again in every resample",
}


def simulate(images: int, spread: float, reach: float, random: np.random.Generator) -> np.ndarray:
    """Draw images: whether each is right at each τ, bool (images, T)."""
    centers = random.normal(CENTER, spread, (images, 1))
    reaches = reach * np.exp(random.normal(0, JITTER, (images, 1)))
    return np.abs(TAUS - centers) <= reaches


def true_accuracy(spread: float, reach: float) -> np.ndarray:
    """Accuracy over τ of all images there might be: the reaches are integrated over, (T,)."""
    quantiles = (np.arange(4000) + 0.5) / 4000
    reaches = reach * np.exp(norm.ppf(quantiles) * JITTER)[:, None]
    right = norm.cdf((TAUS - CENTER + reaches) / spread) - norm.cdf((TAUS - CENTER - reaches) / spread)
    return np.asarray(right.mean(axis=0))


def best_of_resamples(right: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Choose τ again in every resample: the highest mean (resamples,) of outcomes (N, T) over the thresholds."""
    drawn = resamples_of(len(right), resamples, seed)
    return np.concatenate([(counts @ right.astype(np.float64)).max(axis=1) / len(right) for counts in drawn])


def coverage(
    images: int, spread: float, reach: float, repetitions: int, resamples: int, seed: int = 0
) -> dict[str, float]:
    """Count how often intervals hold the truth.

    Parameters
    ----------
    images : int
        N; the other split has as many.
    spread, reach : float
        See `SETTINGS`.
    repetitions : int
        Simulated evaluations.
    resamples : int
    seed : int

    Returns
    -------
    dict of kind to share of the repetitions
    """
    truth, random = true_accuracy(spread, reach), np.random.default_rng(seed)
    held = dict.fromkeys(KINDS, 0)
    with progress(f"{images} images", repetitions) as advance:
        for repetition in range(repetitions):
            right = simulate(images, spread, reach, random)
            other = int(simulate(images, spread, reach, random).sum(axis=0).argmax())
            columns = [FIXED, other, int(right.sum(axis=0).argmax())]
            means = resampled_means(right[:, columns], None, resamples, repetition)
            best = best_of_resamples(right, resamples, repetition)
            low, high = percentile_interval(np.column_stack([means, best]))
            known = (truth[FIXED], truth[other], truth.max(), truth.max())
            for kind, value, least, most in zip(KINDS, known, low, high, strict=True):
                held[kind] += bool(least <= value <= most)
            advance(1)
    return {kind: count / repetitions for kind, count in held.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--images", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--out", type=Path, default=Path("results/bootstrap_coverage.md"))
    arguments = parser.parse_args()
    lines = []
    for name, (spread, reach) in SETTINGS.items():
        for images in arguments.images:
            found = coverage(images, spread, reach, arguments.repetitions, arguments.resamples)
            best = 100 * true_accuracy(spread, reach).max()
            lines.append(
                f"| {name} | {best:.0f} | {images:,} | " + " | ".join(f"{100 * v:.1f}" for v in found.values()) + " |"
            )
    error = 100 * 1.96 * math.sqrt(0.95 * 0.05 / arguments.repetitions)
    write_text(
        arguments.out,
        PAGE.format(error=error, rows="\n".join(lines), kinds=" | ".join(KINDS.values()), **vars(arguments)),
    )


PAGE = """# How often a 95 % bootstrap interval covers the truth

Percent of {repetitions:,} simulated evaluations, {resamples:,} resamples each; 95 would come out within ± {error:.1f}.
`python scripts/bootstrap_coverage.py` makes this page; its first lines say what is simulated.

| best τ of the images | accuracy at the best τ (%) | images | {kinds} |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

With τ fixed, or chosen on another split, an interval keeps what it promises. An oracle's doesn't: the best accuracy on
the images at hand lies above the best that all images have, and the interval lies around it. So `wsol` marks these
intervals with a star; `threshold_from=RUN`, a run on another split, avoids the oracle. Choosing τ again in every
resample adds the same bias once more and covers less, so intervals hold τ.
"""

if __name__ == "__main__":
    main()
