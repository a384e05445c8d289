"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) and the perceptual path length (Karras et al. 2019,
section 4.1, arXiv:1812.04948)."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite.evaluation.features import CHUNK, Frozen, exact
from gansuite.evaluation.weights import VGG

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LARGEST = 256  # pixels; path lengths of larger pictures are measured at this size


class LPIPS(Frozen):
    """Version 0.1 of the distance, with VGG-16.

    The convolutions come from torchvision's file ``weights``, the weights of their channels from
    torchmetrics. UserError when the file is missing or another one.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path, *, sha256: str = VGG.sha256) -> None:
        super().__init__()
        VGG.check(weights)
        VGG.verify(weights, sha256)
        heads = importlib.resources.files("torchmetrics.functional.image") / "lpips_models/vgg.pth"
        with heads.open("rb") as file:
            linear = torch.load(file, map_location="cpu", weights_only=True)
        state = torch.load(weights, map_location="cpu", weights_only=True, mmap=True)
        self.stages, self.heads = nn.ModuleList(), nn.ParameterList()
        channels, place = 3, 0  # in torchvision's numbering, which counts ReLUs and pools
        for number, widths in enumerate(STAGES):
            stage = nn.Sequential()
            for width in widths:
                conv = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1)
                conv.weight = nn.Parameter(state[f"features.{place}.weight"].clone())
                conv.bias = nn.Parameter(state[f"features.{place}.bias"].clone())
                stage.extend([conv, nn.ReLU(inplace=True)])
                channels, place = width, place + 2
            self.stages.append(stage)
            self.heads.append(nn.Parameter(linear[f"lin{number}.model.1.weight"].flatten()))
            place += 1
        # the authors' numbers: ImageNet's mean and deviation for pictures in [-1, 1]
        self.register_buffer("mean", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("std", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.id = f"lpips-0.1-vgg-{sha256[:12]}"
        self.freeze()

    @torch.no_grad()
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Floats [N, 1 or 3, H, W] in [-1, 1], twice, 16x16 or more -> float64 [N] on the CPU."""
        if x.shape != y.shape or min(x.shape[-2:]) < 16:
            raise ValueError(f"two sets of 16x16 or more, not {tuple(x.shape)}, {tuple(y.shape)}")
        with exact(self.device()):
            parts = [
                self._distance(a, b) for a, b in zip(x.split(CHUNK), y.split(CHUNK), strict=True)
            ]
        return torch.cat(parts)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        both = torch.cat([x, y]).to(self.mean).expand(-1, 3, -1, -1)
        both = (both - self.mean) / self.std
        total = torch.zeros(len(x), dtype=torch.float64)  # on the CPU: MPS has no float64
        for number, (stage, head) in enumerate(zip(self.stages, self.heads, strict=True)):
            both = stage(F.max_pool2d(both, 2) if number else both)
            unit = both / (both.square().sum(1, keepdim=True).sqrt() + 1e-10)
            a, b = unit.chunk(2)
            gap = ((a - b).square() * head[:, None, None]).sum(1)
            total += gap.mean((1, 2)).cpu()
        return total


def path_lengths(lpips: nn.Module, ends: tuple[Tensor, Tensor], epsilon: float) -> Tensor:
    """[N]: LPIPS / epsilon^2 between pictures ``epsilon`` apart in latent space.

    ``ends``: float [N, C, H, W] in [-1, 1] each; not rounded to grey levels, which would count for
    more than the step.
    """
    if max(ends[0].shape[-2:]) > LARGEST:
        ends = (_reduced(ends[0]), _reduced(ends[1]))
    return lpips(*ends) / epsilon**2


def trimmed_mean(lengths: Tensor) -> Tensor:
    """The mean without the values below the 1st and above the 99th percentile, as in the authors'
    code."""
    low = torch.quantile(lengths, 0.01, interpolation="lower")
    high = torch.quantile(lengths, 0.99, interpolation="higher")
    return lengths[(lengths >= low) & (lengths <= high)].mean()


def path_length(lpips: nn.Module, ends: tuple[Tensor, Tensor], epsilon: float) -> float:
    """`trimmed_mean` of `path_lengths`."""
    return float(trimmed_mean(path_lengths(lpips, ends, epsilon)))


def _reduced(x: Tensor) -> Tensor:
    h, w = (round(s * LARGEST / max(x.shape[-2:])) for s in x.shape[-2:])
    return F.interpolate(x, (h, w), mode="area")
