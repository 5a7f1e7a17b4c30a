"""The README's pictures: python scripts/readme_picture.py RUN 5 8 stacks examples of a run of Shapes.

python scripts/readme_picture.py cat.png, after wsol explain output=cat.png, makes the other one smaller.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

RESULTS = Path(__file__).resolve().parents[1] / "results"
WIDTH = 900  # pixels


def shapes(run: str, *numbers: str) -> Path:
    """Write results/shapes.png."""
    rows = [np.asarray(Image.open(Path(run) / "figures" / f"example_{int(n):02d}.png").convert("RGB")) for n in numbers]
    # Below the panels there is nothing but margin.
    rows = [row[: np.flatnonzero((row < 250).any((1, 2)))[-1] + 8] for row in rows]
    Image.fromarray(np.concatenate(rows)).save(RESULTS / "shapes.png", optimize=True)
    return RESULTS / "shapes.png"


def cat(picture: str) -> Path:
    """Write results/chelsea.png."""
    image = Image.open(picture).convert("RGB")
    image = image.resize((WIDTH, round(WIDTH * image.height / image.width)), Image.Resampling.LANCZOS)
    image.save(RESULTS / "chelsea.png", optimize=True)
    return RESULTS / "chelsea.png"


def main(first: str, *numbers: str) -> None:
    """Make the one that the words ask for."""
    target = shapes(first, *numbers) if numbers else cat(first)
    print(f"{target}: {target.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
