"""Activations in place change nothing: outputs, what goes in, gradients and second derivatives are
those of the same networks with every activation writing beside its input."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import gansuite.networks
from gansuite.networks.cartoongan import CartoonDiscriminator, CartoonGenerator
from gansuite.networks.dcgan import DCGANDiscriminator, DCGANGenerator
from gansuite.networks.discogan import DiscoGANDiscriminator, DiscoGANGenerator
from gansuite.networks.dualgan import DualGANCritic, DualGANGenerator
from gansuite.networks.patchgan import PatchDiscriminator
from gansuite.networks.r3gan import R3GANDiscriminator, R3GANGenerator
from gansuite.networks.resnet import ResnetGenerator
from gansuite.networks.sngan import SNGANDiscriminator, SNGANGenerator
from gansuite.networks.stargan import StarGANGenerator
from gansuite.networks.stylegan2 import StyleDiscriminator, StyleGenerator
from gansuite.networks.unet import UNetGenerator
from gansuite.ops.twice import TwiceDifferentiable

_BESIDE = {
    F.leaky_relu_: F.leaky_relu,
    torch.relu_: torch.relu,
    Tensor.relu_: torch.relu,
}


class Beside(TorchFunctionMode):
    """Inside, no activation is in place; ``changed`` counts those that would have been."""

    changed = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func in _BESIDE or given.get("inplace"):
            self.changed += 1
        if "inplace" in given:
            given["inplace"] = False
        return _BESIDE.get(func, func)(*args, **given)


def z(*shape: int) -> tuple[Tensor, ...]:
    return (torch.randn(*shape, dtype=torch.float64),)


def pictures(side: int = 32) -> tuple[Tensor, ...]:
    return z(2, 3, side, side)


Make = Callable[[], nn.Module]
NETWORKS: dict[str, tuple[Make, tuple[Tensor, ...]]] = {
    "cartoon d": (lambda: CartoonDiscriminator(3, 2), pictures(16)),
    "cartoon g": (lambda: CartoonGenerator(3, 2, 1), pictures(16)),
    "dcgan g": (lambda: DCGANGenerator(16, 3, 5, 2), z(3, 5)),
    "dcgan d": (lambda: DCGANDiscriminator(16, 3, 2), pictures(16)),
    "dcgan d, no norm": (lambda: DCGANDiscriminator(16, 3, 2, norm="none"), pictures(16)),
    "discogan g": (lambda: DiscoGANGenerator(3, 2), pictures()),
    "discogan g, extra": (lambda: DiscoGANGenerator(3, 2, extra=True), pictures(64)),
    "discogan d": (lambda: DiscoGANDiscriminator(32, 3, 2), pictures()),
    "dualgan g": (lambda: DualGANGenerator(32, 3, 2), pictures()),
    "dualgan d": (lambda: DualGANCritic(32, 3, 2), pictures()),
    "patch": (lambda: PatchDiscriminator(3, 2), pictures()),
    "patch, antialias": (lambda: PatchDiscriminator(3, 2, antialias=True), pictures()),
    "r3gan g": (lambda: R3GANGenerator(3, 5, [8, 4], 1, 4), z(3, 5)),
    "r3gan d": (lambda: R3GANDiscriminator(3, [8, 4], 1, 4), pictures(8)),
    "resnet g": (lambda: ResnetGenerator(3, 2, 1), pictures(16)),
    "resnet g, antialias": (lambda: ResnetGenerator(3, 2, 1, antialias=True), pictures(16)),
    "sngan g": (lambda: SNGANGenerator(16, 3, 5, 2), z(3, 5)),
    "sngan d": (lambda: SNGANDiscriminator(16, 3, 2), pictures(16)),
    "stargan g": (lambda: StarGANGenerator(2, 3, 2, 1), pictures(16) + z(2, 2)),
    "stylegan g": (
        lambda: StyleGenerator(8, z_dim=5, w_dim=4, base=64, max_channels=8, mapping_layers=2),
        z(3, 5),
    ),
    "stylegan d": (lambda: StyleDiscriminator(8, 3, base=64, max_channels=8), pictures(8)),
    "unet": (lambda: UNetGenerator(3, 2, 5), pictures()),
    "unet, batch norm": (lambda: UNetGenerator(3, 2, 5, norm="batch", dropout=0.5), pictures()),
}


def derivatives(network: nn.Module, given: tuple[Tensor, ...], inside: Any) -> list[Tensor]:
    """Outputs, their slope by the input and, of a loss with the length of that slope, the gradients
    by everything."""
    x = tuple(t.clone().requires_grad_() for t in given)
    torch.manual_seed(1)  # dropout
    with inside:
        outputs = tree_leaves(network(*(t * 1 for t in x)))
    total = torch.stack([(out * out.detach().cos()).sum() for out in outputs]).sum()
    slopes = torch.autograd.grad(total, x, create_graph=True, allow_unused=True)
    there = [s for s in slopes if s is not None]
    loss = total + torch.stack([s.square().sum() for s in there]).sum()
    found = torch.autograd.grad(loss, [*network.parameters(), *x], allow_unused=True)
    return [*outputs, *there, *(g for g in found if g is not None), *network.buffers()]


CRITICS = [(name, True) for name in NETWORKS if name.split(",")[0].endswith((" d", "patch"))]


@pytest.mark.parametrize(("name", "twice"), [*((name, False) for name in NETWORKS), *CRITICS])
def test_an_activation_in_place_changes_nothing(name: str, twice: bool) -> None:
    torch.manual_seed(0)
    make, given = NETWORKS[name]
    network = make().double()
    for p in network.parameters():  # biases, and last layers, that begin at 0
        p.data += 0.1 * torch.randn_like(p)
    beside, before = Beside(), [t.clone() for t in given]
    found = []
    for mode in (nullcontext(), beside):
        with TwiceDifferentiable() if twice else nullcontext():
            found.append(derivatives(copy.deepcopy(network), given, mode))
    assert beside.changed > 0
    assert all(map(torch.equal, given, before))
    for in_place, apart in zip(*found, strict=True):
        assert (in_place - apart).abs().max() <= 1e-8 * (1 + apart.abs().max())


def test_a_network_is_given_back_what_it_was_given() -> None:
    """An activation in place does not reach the picture, nor features that are asked for."""
    network = ResnetGenerator(3, 2, 1).double()
    (x,) = pictures(16)
    kept = x.clone()
    found = network.features(x, list(network.taps))
    with Beside():
        apart = network.features(kept, list(network.taps))
    assert torch.equal(x, kept)
    assert all(torch.equal(found[tap], apart[tap]) for tap in network.taps)


def test_every_network_with_activations_in_place_is_here() -> None:
    folder = Path(gansuite.networks.__file__).parent
    in_place = re.compile(r"ReLU\(([\d.]+, )?(inplace=)?True\)|relu_\(")
    files = {p for p in folder.rglob("*.py") if in_place.search(p.read_text())}
    mine = {type(m).__module__ for make, _ in NETWORKS.values() for m in make().modules()}
    names = [p.relative_to(folder.parent).with_suffix("").parts for p in files]
    assert {".".join(("gansuite", *parts)) for parts in names} - mine == set()
