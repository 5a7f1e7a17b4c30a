"""Stack example pictures of a run into the README's: python scripts/readme_picture.py RUN 5 8."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

TARGET = Path(__file__).resolve().parents[1] / "results" / "shapes.png"


def main(run: str, *numbers: str) -> None:
    """Write results/shapes.png."""
    rows = [np.asarray(Image.open(Path(run) / "figures" / f"example_{int(n):02d}.png").convert("RGB")) for n in numbers]
    # Below the panels there is nothing but margin.
    rows = [row[: np.flatnonzero((row < 250).any((1, 2)))[-1] + 8] for row in rows]
    Image.fromarray(np.concatenate(rows)).save(TARGET, optimize=True)
    print(f"{TARGET}: {TARGET.stat().st_size // 1024} kB")


if __name__ == "__main__":
    main(*sys.argv[1:])
