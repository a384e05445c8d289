"""Scores that compare pictures with pictures, pixel by pixel. All take uint8 [N, C, H, W].

Means over pictures are means of per-picture scores, as in the translation papers; the PSNR of the
pooled error, which some libraries report, is lower.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Rounding to 256 levels alone makes a mean squared error of 1/12: no two roundings of one picture
# can be told apart below it. Equal pictures therefore score 58.92 dB, not infinity.
MSE_FLOOR = 1 / 12


def psnr_where(a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
    """PSNR over the pixels of ``mask`` (bool [N, 1, H, W]): dB, one number for each
    picture whose mask is not empty."""
    error = (a.double() - b.double()).square().mean(1, keepdim=True)
    count = mask.sum((1, 2, 3))
    mse = (error * mask).sum((1, 2, 3))[count > 0] / count[count > 0]
    return 10 * torch.log10(255**2 / mse.clamp_min(MSE_FLOOR))


def l1(a: Tensor, b: Tensor) -> float:
    """Mean absolute difference, in units of the full range: 0 equal, 1 black against white."""
    return float((a.double() - b.double()).abs().mean() / 255)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """[N]: Pearson correlation of the pixel values of each pair of pictures.

    Near 1: the method returns its input; near -1: it inverts it. 0 for a picture of one value.
    """
    x, y = (t.double().flatten(1) for t in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    scale = x.norm(dim=1) * y.norm(dim=1)
    return (x * y).sum(1) / scale.clamp_min(1e-12)


def nyquist_excess(images: Tensor) -> float | None:
    """Power at the highest frequencies over the power just below them, mean of three peaks.

    Upsampling with unequal overlap draws a checkerboard, a spike at the corners of the spectrum
    ((h/2, w/2), (h/2, 0), (0, w/2)) that pictures of nature do not have. Taken from the power
    spectrum averaged over pictures and channels, under a Hann window (else the jump from one border
    to the other leaks into the corners); each corner is compared with the bins two to four steps
    away on its own axis. None for odd sizes, which have no such frequency, and below 16 pixels.
    """
    h, w = images.shape[-2:]
    if h % 2 or w % 2 or min(h, w) < 16:
        return None
    rows, columns = (torch.hann_window(s, dtype=torch.float64).to(images.device) for s in (h, w))
    power = torch.zeros(h, w, dtype=torch.float64, device=images.device)
    for chunk in images.split(32):
        x = chunk.double()
        x = (x - x.mean((2, 3), keepdim=True)) * rows[:, None] * columns
        power += torch.fft.fft2(x, norm="ortho").abs().square().mean(1).sum(0)
    power = power / len(images) + MSE_FLOOR / 10  # a tenth of the rounding noise: no 0 / 0
    near = torch.arange(2, 5, device=images.device)
    ratios = []
    for u, v in ((h // 2, w // 2), (h // 2, 0), (0, w // 2)):
        around = ([power[u - near, v]] if u else []) + ([power[u, v - near]] if v else [])
        ratios.append(power[u, v] / torch.cat(around).mean())
    return float(torch.stack(ratios).mean())
