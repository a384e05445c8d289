"""How sharp the edges of a run's test pictures are: the strongest tenth of |dx| + |dy| of the grey
picture (Sobel), of the sources, what was made of them and, where it is known, the truth.

python benchmarks/sharpness.py runs/cartoongan_coats/seed0 [more runs]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import sobel


def sharpness(file: Path) -> float:
    """Mean over pictures of a strip: the mean of the tenth of pixels with the largest gradient,
    in grey levels."""
    strip = np.asarray(Image.open(file).convert("L"), np.float64)
    side = strip.shape[0]
    found = []
    for left in range(0, strip.shape[1] - side + 1, side):
        picture = strip[:, left : left + side]
        size = (np.abs(sobel(picture, 0)) + np.abs(sobel(picture, 1))).ravel() / 8
        found.append(np.sort(size)[-len(size) // 10 :].mean())
    return float(np.mean(found))


if __name__ == "__main__":
    for run in sys.argv[1:]:
        for file in sorted(Path(run).glob("samples/strip_*.png")):
            print(f"{run}  {file.stem.removeprefix('strip_'):14}  {sharpness(file):.1f}")
