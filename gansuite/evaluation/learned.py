"""Features learned on the run's own real training pictures, where no published weights are at hand.

A small convolutional network is trained once per data set and kept. With linear heads on one vector
of `DIM` numbers per picture it learns what tells good pictures of *this* data set from bad ones:
which domain a picture is of (of a blend of two: how much of each), which way up it is (Gidaris et
al. 2018, arXiv:1803.07728), and how strongly it was blurred, tinted, made noisy, blended with
another picture or cut into shuffled tiles. What a method made never enters. What it tells apart is
in docs/measurements.md (benchmarks/features.py).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansuite import rng
from gansuite.data.cache import lock
from gansuite.data.module import DataModule
from gansuite.errors import UserError
from gansuite.evaluation.comparison import check_images, rgb
from gansuite.evaluation.features import CHUNK, Frozen, colours, exact
from gansuite.losses.perceptual import VGG, draw_

VERSION = 1
"""Grows with every change of the network or of its training: kept ones are then trained anew."""
DIM = 64
WIDTHS = (16, 32, 64, 128)
LARGEST = 128  # pixels; larger pictures are reduced
PICTURES = 1024  # at most, all domains together
BATCH = 32
STEPS = 300
PASSES = 30  # over the pictures at most
LR = 2e-3
TASKS = {"domain": 1.0, "turn": 0.5, "damage": 4.0}
"""What is to be learned, with its weight: see `learn`."""


class LearnedFeatures(Frozen):
    """uint8 [N, ``channels``, H, W] (16x16 or more) -> float64 [N, 64] on the CPU.

    Each number has mean 0 and variance 1 over the training pictures. Pictures of more than 128
    pixels are first reduced to 128 (bilinear, antialiased). ``id`` names the feature and the hash
    of its weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        widths = (colours(channels), *WIDTHS)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(widths, WIDTHS, strict=False)
        )
        self.out = nn.Linear(sum(WIDTHS), DIM)
        self.register_buffer("mean", torch.zeros(DIM, dtype=torch.float64))
        self.register_buffer("std", torch.ones(DIM, dtype=torch.float64))
        self.dim = DIM

    def embed(self, x: Tensor) -> Tensor:
        """float [N, C, H, W] in [-1, 1] -> [N, DIM]: strided convolutions, the mean of each over
        the picture, one linear layer."""
        pooled = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), 0.2)
            pooled.append(x.mean((2, 3)))
        embedded: Tensor = self.out(torch.cat(pooled, 1))
        return embedded

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        check_images(images)
        if min(images.shape[-2:]) < 16:
            raise ValueError(f"features need pictures of 16x16 or more, not {tuple(images.shape)}")
        with exact(self.device()):
            parts = [
                (self.embed(scaled(chunk.to(self.device()))).double() - self.mean) / self.std
                for chunk in images.split(CHUNK)
            ]
        return torch.cat(parts).cpu()

    @property
    def id(self) -> str:  # type: ignore[override]
        digest = hashlib.sha256()
        for value in self.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return f"learned-{DIM}d-v{VERSION}-{digest.hexdigest()[:12]}"


def scaled(images: Tensor, largest: int = LARGEST) -> Tensor:
    """uint8 [N, C, H, W] -> float [N, C (3 of 1), h, w] in [-1, 1], at most ``largest`` a side."""
    x = rgb(images).float() / 127.5 - 1
    side = max(x.shape[-2:])
    if side > largest:
        h, w = (max(16, round(s * largest / side)) for s in x.shape[-2:])
        x = F.interpolate(x, (h, w), mode="bilinear", antialias=True)
    return x


def learned_features(data: DataModule, *, folder: Path | None = None) -> LearnedFeatures:
    """The network of these data: trained on the first training pictures of every domain, or read
    from ``folder`` (default: the cache of ``data``), where it is kept.

    One process trains while others wait. UserError for pictures below 16 pixels or a folder that
    cannot be written.
    """
    if data.spec.size < 16:
        raise UserError(
            f"learned features need pictures of 16 pixels or more, data.size is {data.spec.size}; "
            "set evaluate.learned=false and evaluate.best_by=swd"
        )
    return kept(data, "features", [VERSION], train_features, from_state, folder)


def learned_classifier(data: DataModule, last: str, width: int, seed: int) -> dict[str, Tensor]:
    """The weights of a `losses.perceptual.VGG` up to ``last`` that tells the domains of these data
    apart: trained once and kept as `learned_features`, of which it is no relative: another network
    of another depth, another seed, and the domains alone are asked for."""

    def train(domains: Mapping[str, Tensor]) -> VGG:
        # 0 is the seed of the features that score
        return train_classifier(domains, last, width, data.spec.channels, seed=seed + 1)

    def read(state: Mapping[str, Tensor]) -> VGG:
        network = VGG(last, width, data.spec.channels)
        network.load_state_dict(dict(state))
        return network

    recipe = [VERSION, last, width, seed]
    return dict(kept(data, "classifier", recipe, train, read).state_dict())


N = TypeVar("N", bound=nn.Module)


def kept(
    data: DataModule,
    what: str,
    recipe: list[Any],
    train: Callable[[dict[str, Tensor]], N],
    read: Callable[[Mapping[str, Tensor]], N],
    folder: Path | None = None,
) -> N:
    """What ``train`` makes of the first training pictures of every domain, by domain; with a
    ``folder`` (default: the cache of ``data``) it is made once and ``read`` again.

    ``recipe``: on what it depends beside the pictures.
    """
    spec = data.spec
    share = max(1, PICTURES // len(spec.domains))

    def made() -> N:
        return train({d: data.pictures("train", d, share) for d in spec.domains})

    folder = folder or data.cache
    if folder is None:
        return made()
    facts = [spec.summary(), spec.size, spec.channels, spec.counts["train"]]
    text = json.dumps([*recipe[:1], *facts, *recipe[1:]], sort_keys=True)
    name = f"{what}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"
    path = folder / f"{name}.pt"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / f".{name}.lock"):
            try:
                return read(torch.load(path, weights_only=True))
            except Exception:  # none, or a damaged one, which raises what it likes: made again
                network = made()
            torch.save(network.state_dict(), path.with_suffix(".part"))
            path.with_suffix(".part").replace(path)
            return network
    except OSError as error:
        raise UserError(
            f"the learned {what} cannot be kept in '{folder}' ({error.strerror or error}); set "
            "GANSUITE_CACHE to another folder"
        ) from error


def from_state(state: Mapping[str, Tensor]) -> LearnedFeatures:
    """The network with these weights."""
    network = LearnedFeatures(state["convs.0.weight"].shape[1])
    network.load_state_dict(dict(state))
    network.freeze()
    return network


def train_features(domains: Mapping[str, Tensor], *, seed: int = 0) -> LearnedFeatures:
    """A network trained on uint8 pictures [N, C, H, W] by domain.

    A pure function of the pictures and ``seed``, bit for bit on one kind of CPU, whatever the
    number of threads: one is used.
    """
    images = torch.cat([scaled(x) for x in domains.values()])
    with alone(seed, "learned features, weights", images.device):
        network = LearnedFeatures(images.shape[1])
        learn(network, network.embed, DIM, images, domains, seed)
        with torch.no_grad():
            seen = torch.cat([network.embed(x) for x in images.split(CHUNK)]).double()
        network.mean.copy_(seen.mean(0))
        network.std.copy_(seen.std(0, correction=0).clamp_min(1e-3))
    network.freeze()
    return network


def train_classifier(
    domains: Mapping[str, Tensor], last: str, width: int, channels: int, *, seed: int = 0
) -> VGG:
    """A `losses.perceptual.VGG` up to ``last`` trained to name the domain of uint8 pictures
    [N, C, H, W], at 64 pixels at most; as exact as `train_features`.

    It begins with the weights of the random network, sees the same damaged and blended pictures as
    `train_features`, and in the end each of its layers is divided by the mean of its activations on
    the pictures, so that it is 1 there, as the random network's.
    """
    images = torch.cat([scaled(x, 64)[:, :channels] for x in domains.values()])
    taps = [f"relu{stage}_1" for stage in range(1, int(last[4]) + 1)]
    with alone(seed, "perceptual classifier", images.device):
        network = VGG(last, width, channels)
        draw_(network, seed)
        network.colours.requires_grad_(False)

        def embed(x: Tensor) -> Tensor:
            return torch.cat([y.mean((2, 3)) for y in network(x[:, :channels], taps)], 1)

        dim = sum(width << stage for stage in range(len(taps)))
        tasks = {"domain": 1.0}
        learn(network, embed, dim, images, domains, seed, tasks, steps=STEPS // 2, lr=5e-4)
        with torch.no_grad():
            names = [name.replace("conv", "relu") for name, _ in network.layers()]
            means = torch.zeros(len(names))
            for x in images.split(CHUNK):
                means += torch.stack([y.sum() / y[0].numel() for y in network(x, names)])
            before = torch.ones(())
            means = (means / len(images)).clamp_min(1e-6)
            for (_, conv), mean in zip(network.layers(), means, strict=True):
                conv.weight.mul_(before / mean)
                cast(Tensor, conv.bias).div_(mean)
                before = mean
    return network


@contextlib.contextmanager
def alone(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """One thread, full precision, gradients, and draws of one's own that leave no trace."""
    with one_thread(), torch.random.fork_rng(devices=[]), torch.enable_grad(), exact(device):
        torch.manual_seed(rng.derive(seed, purpose))
        yield


def learn(
    network: nn.Module,
    embed: Callable[[Tensor], Tensor],
    dim: int,
    images: Tensor,
    domains: Mapping[str, Tensor],
    seed: int,
    tasks: Mapping[str, float] = TASKS,
    *,
    steps: int = STEPS,
    lr: float = LR,
) -> None:
    """Train ``network`` with a linear head for each of ``tasks`` (with its weight) on ``embed``,
    [N, C, H, W] in [-1, 1] -> [N, dim]; ``images``: those of the ``domains``, one after another."""
    kinds = torch.cat([torch.full((len(x),), i) for i, x in enumerate(domains.values())])
    steps = min(steps, max(1, PASSES * len(images) // BATCH))
    sizes = {"domain": len(domains), "turn": 4, "damage": 4 + images.shape[1]}
    heads = nn.ModuleDict({name: nn.Linear(dim, sizes[name]) for name in tasks})
    weights = [p for p in (*network.parameters(), *heads.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps + 1)
    for step in range(steps):
        made = Damaged.draw(images, kinds, len(domains), seed, step)
        z = embed(made.images)
        losses = [weight * made.loss(task, heads[task](z)) for task, weight in tasks.items()]
        optimizer.zero_grad()
        sum(losses, torch.zeros(())).backward()
        optimizer.step()
        schedule.step()


class Damaged:
    """A batch to learn from: ``images`` [B, C, H, W], the shares of the ``domains`` in them [B, K],
    how many quarter ``turns`` they were given [B], and their ``damage`` [B, 4 + C], each from 0
    (or, of a tint, -1) to 1: blur, noise, blend, shuffled tiles, tint of each channel."""

    def __init__(self, images: Tensor, domains: Tensor, turns: Tensor, damage: Tensor) -> None:
        self.images, self.domains, self.turns, self.damage = images, domains, turns, damage

    def loss(self, task: str, found: Tensor) -> Tensor:
        """Of what was found for one of `TASKS`, [B, numbers of that task]."""
        if task == "domain":
            return -(self.domains * F.log_softmax(found, 1)).sum(1).mean()
        if task == "turn":
            return F.cross_entropy(found, self.turns, label_smoothing=0.1)
        return F.mse_loss(found, self.damage)

    @classmethod
    def draw(cls, images: Tensor, kinds: Tensor, count: int, seed: int, step: int) -> Damaged:
        """Batch number ``step``; a pure function of (seed, step) and the pictures."""
        draw = rng.numpy_generator(seed, "learned features", step)
        n, channels = min(BATCH, len(images)), images.shape[1]
        first, other = (torch.from_numpy(draw.permutation(len(images))[:n]) for _ in range(2))

        def some(chance: float) -> Tensor:
            values = draw.random(n) * (draw.random(n) < chance)
            return torch.from_numpy(values.astype(np.float32))

        def wide(x: Tensor) -> Tensor:
            return x.view(n, -1, 1, 1)

        blend, blur, noise = some(0.5), some(0.4), some(0.4)
        sign = torch.from_numpy(draw.choice([-1.0, 1.0], (n, channels)).astype(np.float32))
        tint = sign * torch.stack([some(0.4) for _ in range(channels)], 1)
        tiles = torch.from_numpy((draw.random(n) < 0.25).astype(np.float32))
        mirrored = torch.from_numpy(draw.random(n) < 0.5)
        turns = torch.from_numpy(draw.integers(0, 4, n))
        x = images[first].lerp(images[other], wide(blend / 2))
        x = torch.where(wide(mirrored), x.flip(3), x)
        cells = int(draw.choice([2, 4]))
        order = torch.from_numpy(np.stack([draw.permutation(cells**2) for _ in range(n)]))
        x = torch.where(wide(tiles) > 0, shuffled(x, cells, order), x)
        # squares, since what is weak is harder to see and is to be seen as well
        x = blurred(x, 2 * blur.square())
        normal = torch.from_numpy(draw.standard_normal(x.shape, np.float32))
        x = x + 0.4 * wide(tint * tint.abs()) + 0.5 * wide(noise.square()) * normal
        x = x.clamp(-1, 1)
        if x.shape[2] != x.shape[3]:
            turns = turns // 2 * 2  # a picture that is no square can only stand on its head
        for k in range(1, 4):
            x[turns == k] = torch.rot90(x[turns == k], k, (2, 3)) if k in turns else x[turns == k]
        known = F.one_hot(kinds, count).float()
        shares = known[first].lerp(known[other], (blend / 2)[:, None])
        damage = torch.cat([torch.stack([blur, noise, blend, tiles], 1), tint], 1)
        return cls(x, shares, turns, damage)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, whatever the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """float [N, C, H, W] through a Gaussian of ``sigma`` [N] pixels, cut at 4 pixels."""
    at = torch.arange(-4, 5)
    taps = torch.exp(-0.5 * (at / sigma.clamp_min(0.05)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)
    flat = F.pad(x, (4, 4, 4, 4), mode="reflect").flatten(0, 1)[None]
    flat = F.conv2d(flat, taps[:, None, None], groups=len(taps))
    return F.conv2d(flat, taps[:, None, :, None], groups=len(taps)).view(x.shape)


def shuffled(x: Tensor, cells: int, order: Tensor) -> Tensor:
    """Each picture of [N, C, H, W] cut into cells x cells tiles, put together in ``order``
    [N, cells^2]; what is left over at the right and at the bottom stays."""
    n, c = x.shape[:2]
    h, w = (s // cells for s in x.shape[-2:])
    inner = x[..., : h * cells, : w * cells]
    tiles = inner.reshape(n, c, cells, h, cells, w).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    tiles = tiles.gather(1, order[:, :, None, None, None].expand_as(tiles))
    tiles = tiles.view(n, cells, cells, c, h, w).permute(0, 3, 1, 4, 2, 5)
    out = x.clone()
    out[..., : h * cells, : w * cells] = tiles.reshape(n, c, h * cells, w * cells)
    return out
