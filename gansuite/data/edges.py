"""Pictures with smoothed edges, which CartoonGAN's discriminator is to refuse.

The published preparation (Canny 100/200, dilation 5 x 5, Gaussian 5 x 5 where the dilated edges
are) in NumPy, without OpenCV.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class EdgeSmoothing:
    """``low`` and ``high``: Canny's thresholds of |dx| + |dy| on 256 grey levels; ``side``: of the
    dilation and of the Gaussian, in pixels; ``sigma`` of the Gaussian."""

    low: float = 100
    high: float = 200
    side: int = 5
    sigma: float = 1.1

    @classmethod
    def at(cls, size: int) -> EdgeSmoothing:
        """As published for 256 pixels; 3 pixels wide below 128, where 5 would blur everything."""
        return cls() if size >= 128 else cls(side=3, sigma=0.8)

    @property
    def key(self) -> str:
        """Names the parameters, for a cache."""
        return "edges-" + "-".join(f"{v:g}" for v in asdict(self).values())

    def edges(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """[N, C, H, W] -> bool [N, H, W]: Canny's edges, one pixel wide, before the dilation."""
        x = images.astype(np.float32)
        grey = np.round(x[:, 0] if x.shape[1] == 1 else np.tensordot(x, _LUMINANCE, ([1], [0])))
        wide = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="reflect")
        across = wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:]
        dx = across[:, :, 2:] - across[:, :, :-2]
        down = wide[:, :, :-2] + 2 * wide[:, :, 1:-1] + wide[:, :, 2:]
        dy = down[:, 2:] - down[:, :-2]
        size = np.abs(dx) + np.abs(dy)
        # the two neighbours along the gradient, in one of four directions
        steep, flat = np.abs(dy) > 2.4142 * np.abs(dx), np.abs(dy) < 0.4142 * np.abs(dx)
        thin = np.zeros(size.shape, np.bool_)
        for chosen, step in (
            (flat, (0, 1)),
            (steep, (1, 0)),
            (~flat & ~steep & (dx * dy >= 0), (1, 1)),
            (~flat & ~steep & (dx * dy < 0), (1, -1)),
        ):
            before, after = _moved(size, step), _moved(size, (-step[0], -step[1]))
            thin |= chosen & (size > before) & (size >= after)
        weak, found = thin & (size > self.low), thin & (size > self.high)
        while True:  # what hangs together with a strong edge
            grown = _dilated(found, 3) & weak
            if (grown == found).all():
                return found
            found = grown

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [N, C, H, W], blurred within the dilated edges and untouched elsewhere."""
        near = _dilated(self.edges(images), self.side)[:, None]
        half = self.side // 2
        at = np.arange(-half, half + 1, dtype=np.float32)
        window = np.exp(-(at**2) / (2 * self.sigma**2))
        window /= window.sum()
        wide = np.pad(
            images.astype(np.float32), ((0, 0), (0, 0), (half, half), (half, half)), mode="reflect"
        )
        height, width = images.shape[2:]
        rows = sum(w * wide[:, :, i : i + height] for i, w in enumerate(window))
        blurred = sum(w * rows[..., i : i + width] for i, w in enumerate(window))
        return np.where(near, np.rint(blurred).astype(np.uint8), images)

    def fill(self, out: np.ndarray, images: np.ndarray) -> None:
        """Write the smoothed ``images`` into ``out``, a few at a time."""
        for start in range(0, len(images), 64):
            out[start : start + 64] = self(np.asarray(images[start : start + 64]))


def changed(images: np.ndarray, smoothed: np.ndarray, most: int = 64) -> float:
    """The share of the pixels of the first ``most`` pictures that the smoothing changed."""
    return float((images[:most] != smoothed[:most]).any(1).mean())


def _moved(x: np.ndarray, step: tuple[int, int]) -> np.ndarray:
    """``x`` [N, H, W] with its place (y, x) taken from (y + step[0], x + step[1]); 0 outside."""
    wide = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[1:]
    return wide[:, 1 + step[0] : 1 + step[0] + height, 1 + step[1] : 1 + step[1] + width]


def _dilated(x: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    half, (height, width) = side // 2, x.shape[1:]
    wide = np.pad(x, ((0, 0), (half, half), (half, half)))
    rows = np.logical_or.reduce([wide[:, i : i + height] for i in range(side)])
    return np.logical_or.reduce([rows[:, :, i : i + width] for i in range(side)])
