"""Perceptual networks and what is measured in their features: content, style, structure.

One network for all of it, the convolutions of VGG-19 (Simonyan & Zisserman 2015) with reflection
padding, in four forms: seeded random weights (He, Wang, Hopcroft 2016, arXiv:1606.04801: without
training it serves texture well once every layer is rescaled), a classifier of the run's own domains
(`evaluation.learned.train_classifier`), the published weights from a file, or the learned encoder
of a method. None is a network that scores (`evaluation.features`, `evaluation.learned`): these are
other architectures of other seeds and depths.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.functional.image import structural_similarity_index_measure

from gansuite.errors import UserError
from gansuite.losses.precision import full
from gansuite.ops.winograd import Conv3x3
from gansuite.rng import numpy_generator

Network = Literal["random_vgg", "classifier", "vgg19"]

STAGES = (2, 2, 4, 4)  # convolutions of VGG-19 before each of its first pools
URL = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth"
SIZE = 574_673_361
# The digest's first eight digits: torchvision puts them into the file's name, and PyTorch's own
# download compares no more. All 64 were not to be had, so a file is verified by this prefix.
SHA256 = "dcbb9e9d"
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pictures in [0, 1]


def convolutions(last: str) -> list[str]:
    """The names of the convolutions up to the tap ``last``: conv1_1, conv1_2, conv2_1, ..."""
    names = [f"conv{s}_{i}" for s, n in enumerate(STAGES, 1) for i in range(1, n + 1)]
    name = last.replace("relu", "conv")
    if name not in names:
        raise UserError(f"VGG-19 has no layer '{last}' here (relu1_1 to relu4_4, or conv...).")
    return names[: names.index(name) + 1]


class VGG(nn.Module):
    """VGG-19 up to ``last`` ("relu4_1", "conv4_4", ...), ``width`` channels in its first stage.

    ``forward(x, taps)``: [N, channels, H, W] in [-1, 1] -> the features after each of ``taps``, in
    their order: ``relu<stage>_<i>``, or ``conv<stage>_<i>`` before the ReLU. Stage s has 1/2^(s-1)
    of the sides, rounded down. Reflection padding and a leading 1x1 convolution that normalises the
    colours, as in the network of AdaIN: 3,505,740 numbers up to relu4_1.
    """

    def __init__(self, last: str = "relu4_1", width: int = 64, channels: int = 3) -> None:
        super().__init__()
        if channels not in (1, 3):
            raise UserError(
                f"'data.channels' is {channels}, but the perceptual network sees 1 or 3 channels; "
                f"take a method without one, such as cyclegan or cut."
            )
        self.last, self.width = last, width
        self.colours = nn.Conv2d(channels, 3, 1)
        with torch.no_grad():
            self.colours.weight.copy_(torch.eye(3)[:, :channels, None, None])
            if channels == 1:
                self.colours.weight.fill_(1.0)
            nn.init.zeros_(cast(Tensor, self.colours.bias))
        self.convs = nn.ModuleDict()
        inputs = 3
        for name in convolutions(last):
            outputs = width << int(name[4]) - 1
            self.convs[name] = Conv3x3(inputs, outputs)
            inputs = outputs
        self.channels = inputs  # of the last features

    def layers(self) -> list[tuple[str, nn.Conv2d]]:
        """The convolutions by name, in order."""
        return [(name, cast(nn.Conv2d, conv)) for name, conv in self.convs.items()]

    def forward(self, x: Tensor, taps: Sequence[str]) -> list[Tensor]:
        found: dict[str, Tensor] = {}
        x = self.colours(x)
        for name, conv in self.layers():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = conv(_reflected(x))
            found[name] = x
            x = F.relu(x)
            found[name.replace("conv", "relu")] = x
            if all(tap in found for tap in taps):
                break
        return [found[tap] for tap in taps]


def _reflected(x: Tensor) -> Tensor:
    # from slices: deterministic on CUDA, unlike F.pad's backward pass
    x = torch.cat([x[..., 1:2], x, x[..., -2:-1]], -1)
    return torch.cat([x[..., 1:2, :], x, x[..., -2:-1, :]], -2)


def perceptual_network(
    name: Network,
    last: str,
    *,
    width: int = 64,
    channels: int = 3,
    seed: int = 0,
    file: str = "",
    key: str = "method.width",
) -> VGG:
    """A `VGG` that nobody trains: its weights are constants, no parameters. They are a function of
    the arguments, or the ``file``'s, and part of no checkpoint; but those of a ``classifier``,
    which is `blank` until it has learned from the pictures, are. ``key``: where ``width`` is set.

    Raises:
        UserError: ``vgg19`` without its file, with another file, or with a width of its own.
    """
    vgg = VGG(last, width, channels)
    if name == "random_vgg":
        draw_(vgg, seed)
    elif name == "vgg19":
        _load_(vgg, file, width, key)
    for module in list(vgg.modules()):
        for own, value in list(module.named_parameters(recurse=False)):
            delattr(module, own)
            kept = torch.zeros_like(value) if name == "classifier" else value.detach()
            module.register_buffer(own, kept, persistent=name == "classifier")
    return vgg


def blank(network: nn.Module) -> bool:
    """Whether this is a `VGG` that has not learned its weights yet."""
    return isinstance(network, VGG) and not network.colours.weight.any()


@torch.no_grad()
def draw_(vgg: VGG, seed: int) -> None:
    """He-normal weights without biases; each layer is then divided by the mean of its activations
    on the calibration pictures, so that it is 1 there. In float64, so that the rounded weights do
    not depend on the machine."""
    x = F.conv2d(calibration(vgg.colours.in_channels), vgg.colours.weight.double())
    for position, (name, conv) in enumerate(vgg.layers()):
        if name.endswith("_1") and position:
            x = F.max_pool2d(x, 2)
        shape = conv.weight.shape
        numbers = numpy_generator(seed, "perceptual vgg19", position).standard_normal(shape)
        weight = torch.from_numpy(numbers) * (2 / shape[1:].numel()) ** 0.5
        y = F.relu(F.conv2d(_reflected(x), weight))
        scale = float(f"{float(y.mean()):.6g}")
        x = y / scale
        conv.weight.copy_(weight / scale)
        nn.init.zeros_(cast(Tensor, conv.bias))


def calibration(channels: int = 3, pictures: int = 4, size: int = 64) -> Tensor:
    """float64 [pictures, channels, size, size] in [-1, 1]: noise of six octaves of equal strength,
    as the spectra of pictures of nature have it. The same everywhere."""
    generator = numpy_generator(0, "calibration")
    total = np.zeros((pictures, channels, size, size))
    for side in (2, 4, 8, 16, 32, 64):
        octave = generator.random((pictures, channels, side, side)) * 2 - 1
        total += octave.repeat(size // side, 2).repeat(size // side, 3) / 6**0.5
    return torch.from_numpy(total.clip(-1, 1))


@torch.no_grad()
def _load_(vgg: VGG, file: str, width: int, key: str) -> None:
    how = f"give the path of {URL} ({SIZE:,} bytes) as method.network_file"
    path = Path(file)
    if not file:
        raise UserError(f"'method.network' is vgg19, whose weights come from a file: {how}.")
    if not path.is_file():
        raise UserError(f"There is no file '{path}' with the weights of VGG-19: {how}.")
    if width != 64:
        raise UserError(f"VGG-19 has 64 channels in its first stage, not {width}: set {key}=64.")
    digest = hashlib.sha256()
    with open(path, "rb") as opened:
        while chunk := opened.read(1 << 20):
            digest.update(chunk)
    if not digest.hexdigest().startswith(SHA256):
        raise UserError(
            f"'{path}' does not hold torchvision's VGG-19 (its sha256 begins with "
            f"{digest.hexdigest()[:8]}, not {SHA256}): {how}."
        )
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    place = 0  # in torchvision's numbering, which counts ReLUs and pools
    for name, conv in vgg.layers():
        place += name.endswith("_1") and name != "conv1_1"
        conv.weight.copy_(state[f"features.{place}.weight"])
        cast(Tensor, conv.bias).copy_(state[f"features.{place}.bias"])
        place += 2
    std, mean = torch.tensor(_STD), torch.tensor(_MEAN)
    vgg.colours.weight.mul_((0.5 / std)[:, None, None, None])
    cast(Tensor, vgg.colours.bias).copy_((0.5 - mean) / std)


# ------------------------------------------------------------------------------------- statistics


def statistics(x: Tensor, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the pixels of each channel, [N, C, 1, 1] each, in full
    precision: the biased variance plus ``eps``, as in the AdaIN authors' content statistics."""
    variance, mean = torch.var_mean(full(x), (2, 3), correction=0, keepdim=True)
    return mean, (variance + eps).sqrt()


def adain(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """``x`` [N, C, H, W] with the given statistics [N, C, 1, 1] in place of its own (Huang &
    Belongie 2017, eq. 8)."""
    own_mean, own_std = statistics(x)
    return ((full(x) - own_mean) / own_std * std + mean).to(x.dtype)


def gram(x: Tensor) -> Tensor:
    """F F' / (C H W), [N, C, H, W] -> [N, C, C], in full precision (Johnson et al. 2016)."""
    f = full(x).flatten(2)
    return f @ f.mT / f[0].numel()


def style_distance(
    x: Iterable[Tensor], y: Iterable[Tensor], by: Literal["mean_std", "gram"] = "mean_std"
) -> Tensor:
    """Sum over layers of the mean squared differences of the channels' means and deviations
    (Huang & Belongie 2017, eq. 13), or of the Gram matrices, of features [N, C, H, W]."""
    terms = []
    for a, b in zip(x, y, strict=True):
        if by == "gram":
            terms.append(F.mse_loss(gram(a), gram(b)))
        else:
            pairs = zip(statistics(a), statistics(b), strict=True)
            terms += [F.mse_loss(p, q) for p, q in pairs]
    return torch.stack(terms).sum()


def structural(x: Tensor, y: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004; window 11, sigma 1.5) of pictures in [-1, 1]."""
    # its luminance term is meant for brightness from 0 up
    x, y = (full(x) + 1) / 2, (full(y) + 1) / 2
    score = structural_similarity_index_measure(x, y, data_range=1.0)
    assert isinstance(score, Tensor)
    return 1 - score


def total_variation(x: Tensor) -> Tensor:
    """Mean absolute difference between neighbours, both ways."""
    x = full(x)
    return (x[..., 1:] - x[..., :-1]).abs().mean() + (x[..., 1:, :] - x[..., :-1, :]).abs().mean()
