"""Networks that turn pictures into feature vectors: a seeded random VGG-16, and Inception-v3.

What the random network measures. Naeem et al. 2020 (section 4) show that a randomly initialised
VGG-16 separates sets of pictures where an ImageNet network is not available or not apt. They take
the 4096 numbers of its second fully connected layer; with the one or two hundred pictures of a
translation test set a Frechet distance in 4096 dimensions measures mostly the number of pictures.
Here each of the first three stages is averaged over the picture and projected at random to 32
numbers, and the third stage also over its four quadrants, to 16: 112 numbers. Stages four and five
are left out: they cost 40 % of the time and, random as they are, lower the ratio of *do nothing* to
*real vs real*. The quadrants let it see where things are (a picture upside down).
With 128 pictures of `coats` a side *do nothing* scores 55 to 73 times *real vs real*; a blur, a
colour shift, noise, a collapse to eight pictures and a mixture of 70 % real and 30 % source score
3 to 396 times (benchmarks/features.py).
On horse2zebra at 128 pixels: *do nothing* 5.9 times.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite import rng
from gansuite.evaluation.comparison import check_images, rgb
from gansuite.evaluation.weights import INCEPTION
from gansuite.losses.precision import full_float32

STAGES = ((64, 64), (128, 128), (256, 256, 256))
CHUNK = 32  # pictures per forward pass: fixed, so that a score does not depend on who asks


class Frozen(nn.Module):
    """A network that only looks: float32, no gradient, and ``train()`` leaves it in eval mode."""

    id: str

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)

    def device(self) -> torch.device:
        return next(self.parameters()).device


@contextlib.contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """Full float32 and the same kernels each time, whatever the training has set."""
    with (
        torch.autocast(device.type, enabled=False),
        full_float32(),
        torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ),
    ):
        yield


def colours(channels: int) -> int:
    """How many channels a network sees of pictures that have ``channels``: three of grey ones."""
    return 3 if channels == 1 else channels


class RandomVGG16(Frozen):
    """The first three stages of VGG-16 with seeded random weights, pooled and projected.

    uint8 [N, 1 or 3, H, W] (at least 8x8) -> float64 [N, 112] on the CPU; for other numbers of
    ``channels`` the first layer has as many. Pictures of more than
    128 pixels are first reduced to 128 (bilinear, antialiased). He-uniform weights, zero biases.
    ``id`` names the feature and the hash of the weights; they are drawn as 53-bit fractions and
    scaled in float64, so they are the same bits on every machine.
    """

    largest = 128

    def __init__(self, seed: int = 0, channels: int = 3) -> None:
        super().__init__()
        digest = hashlib.sha256()

        def uniform(shape: tuple[int, ...], variance: float, *position: int) -> Tensor:
            draw = rng.numpy_generator(seed, "random vgg16", *position).random(shape)
            values = ((draw * 2 - 1) * (3 * variance) ** 0.5).astype(np.dtype("<f4"))
            digest.update(values.tobytes())
            return torch.from_numpy(values)

        self.stages = nn.ModuleList()
        self.projections = nn.ParameterList()
        self.channels = channels = colours(channels)
        for number, widths in enumerate(STAGES):
            stage = nn.Sequential()
            for i, width in enumerate(widths):
                conv = nn.utils.skip_init(nn.Conv2d, channels, width, 3, padding=1)
                fan = 9 * channels
                conv.weight = nn.Parameter(uniform((width, channels, 3, 3), 2 / fan, number, i))
                nn.init.zeros_(conv.bias)
                stage.extend([conv, nn.ReLU(inplace=True)])
                channels = width
            self.stages.append(stage)
            self.projections.append(
                nn.Parameter(uniform((channels, 32), 1 / channels, number, len(widths)))
            )
        quadrants = 4 * channels
        self.projections.append(nn.Parameter(uniform((quadrants, 16), 1 / quadrants, len(STAGES))))
        self.dim = sum(p.shape[1] for p in self.projections)
        self.id = f"random-vgg16-{self.dim}d-{self.largest}px-{digest.hexdigest()[:12]}"
        self.freeze()
        self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        if colours(images.shape[1]) != self.channels:
            raise ValueError(
                f"{self.channels} channels are seen, not those of {tuple(images.shape)}"
            )
        if min(images.shape[-2:]) < 8:
            raise ValueError(f"features need pictures of 8x8 or more, not {tuple(images.shape)}")
        parts = [self.pooled(self.maps(chunk)) for chunk in images.split(CHUNK)]
        return torch.cat(parts)

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        """What each stage makes of a few uint8 pictures, of at most ``largest`` pixels a side."""
        x = rgb(images).to(self.device()).float() / 127.5 - 1
        side = max(x.shape[-2:])
        if side > self.largest:
            h, w = (max(8, round(s * self.largest / side)) for s in x.shape[-2:])
            x = F.interpolate(x, (h, w), mode="bilinear", antialias=True)
        x = x.contiguous(memory_format=torch.channels_last)
        for number, stage in enumerate(self.stages):
            with exact(x.device):
                x = stage(F.max_pool2d(x, 2) if number else x)
            yield x

    def pooled(self, maps: Iterable[Tensor]) -> Tensor:
        """The features [N, dim] of pictures of which the stages make ``maps``."""
        pooled = []
        for x in maps:
            pooled.append(x.mean((2, 3)))
        pooled.append(F.adaptive_avg_pool2d(x, 2).flatten(1))
        # on the CPU: some devices (MPS) have no float64
        both = zip(pooled, self.projections, strict=True)
        return torch.cat([p.cpu().double() @ w.cpu().double() for p, w in both], 1)


class Inception(Frozen):
    """Inception-v3 of 2015-12-05, the network of published FID, KID and IS, from a local file.

    uint8 [N, 1 or 3, H, W] -> float64 [N, 2048 + 1008] on the CPU: pooled features, then logits
    without bias. Resizing to 299 is the legacy one (bilinear as in TensorFlow 1, no antialiasing).
    UserError when the package or the file is missing or the file is another one.
    """

    def __init__(self, weights: Path, *, sha256: str = INCEPTION.sha256) -> None:
        super().__init__()
        INCEPTION.check(weights)
        INCEPTION.verify(weights, sha256)
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        self.network = FeatureExtractorInceptionV3(
            "inception",
            ["2048", "logits_unbiased"],
            feature_extractor_weights_path=str(weights),
        )
        self.dim = 2048
        self.id = f"inception-2015-12-05-legacy-{sha256[:12]}"
        self.freeze()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        device = self.device()
        with exact(device):
            parts = [
                torch.cat(self.network(rgb(chunk).to(device).contiguous()), 1).cpu().double()
                for chunk in images.split(CHUNK)
            ]
        return torch.cat(parts)
