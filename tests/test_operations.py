"""How much each method asks of PyTorch in one period of its updates, as integers: what makes a
step slower shows here on any machine, however busy."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import pytest
import torch
from helpers import SMALL, fit
from lightning import Callback
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils._pytree import tree_leaves

from gansuite import engine
from gansuite.core.flops import OperationCounter
from gansuite.data.spec import Batch, DataSpec
from gansuite.methods import method_class, method_names
from gansuite.methods.base import Method
from gansuite.ops import products
from gansuite.rng import torch_generator

PICTURES = 2  # of each domain
# what makes the host wait for a device: a value is read, or the shape of a result depends on one
WAITS = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")


class Work(NamedTuple):
    """Of one period."""

    forward: int  # calls of convolutions, transposed ones as well
    backward: int  # calls of their backward; one may give the gradient of input, weight or both
    flops: int
    waits: int
    steps: int  # of optimisers, which take two kernels each


def built(name: str, size: int = 32) -> Method:
    cls = method_class(name)
    known = inspect.signature(cls.__init__).parameters
    options = {"name": name} | {k: v for k, v in SMALL.items() if k in known}
    many = {"single": 1, "labelled": 3}.get(cls.needs.view, 2)
    domains = ("a", "b", "c")[:many]
    labels = domains if cls.needs.view == "labelled" else ()
    counts = {split: dict.fromkeys(domains, 8) for split in ("train", "test")}
    paired = cls.needs.view == "paired"
    spec = DataSpec("toy", size, 3, domains, counts, paired, labels, "0")
    return engine.build_method(options | MORE.get(name, {}), spec, seed=0)


def batch_for(method: Method) -> Batch:
    needs, spec = method.needs, method.spec
    many = (len(spec.domains) if needs.view in ("unpaired", "paired") else 1) + needs.smoothed
    shape = (many, PICTURES * needs.batches, spec.channels, spec.size, spec.size)
    images = torch.randint(256, shape, generator=torch_generator(0, "t"), dtype=torch.uint8)
    return Batch(tuple(images), torch.eye(3)[:PICTURES] if needs.view == "labelled" else None)


@pytest.fixture(autouse=True)
def any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what only some machines do (`gansuite.ops.products`)."""
    monkeypatch.setattr(products, "exact", lambda: False)


class Allocations(OperationCounter):
    """The bytes of all tensors that operations make, and the kernels of the optimisers."""

    made = kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        given = storages((args, kwargs)).keys()
        self.made += sum(n for at, n in storages(out).items() if at not in given)
        self.kernels += func._overloadpacket.__name__.startswith(("_fused_adam", "_foreach"))
        return out


def storages(tree: Any) -> dict[int, int]:
    """The bytes of each piece of memory."""
    found = [x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, Tensor)]
    return {x.data_ptr(): x.nbytes() for x in found if x.data_ptr()}


class Count(Callback):
    """Counts inside the batches; what the Trainer does in between is not the method's."""

    def __init__(self) -> None:
        self.counter = Allocations()

    def on_train_batch_start(self, *_: Any) -> None:
        self.counter.__enter__()

    def on_train_batch_end(self, *_: Any) -> None:
        self.counter.__exit__(None, None, None)


def work(method: Method) -> tuple[Work, float]:
    """That of one period, the first, and the MB of all tensors that it makes."""
    count, steps = Count(), []
    hook = register_optimizer_step_post_hook(lambda *_: steps.append(1))
    batches = [batch_for(method)] * method.period
    fit(method, len(batches), batch=PICTURES, callbacks=[count], given=batches)
    hook.remove()
    calls = count.counter.calls
    assert count.counter.kernels == 2 * len(steps)
    found = Work(
        calls["convolution"],
        calls["convolution_backward"],
        count.counter.flops,
        sum(calls[name] for name in WAITS),
        len(steps),
    )
    return found, count.counter.made / 1e6


# periods of few batches, and the size at which they take no time
MORE: dict[str, dict[str, Any]] = {
    "cartoongan": {"init": 0},
    "stylegan": {"path_every": 2, "r1_every": 4},
}
SIZES = {"stylegan": 8}

# G and D: the convolutions of one pass of one network; g and d their FLOPs, g1 and d1 those of the
# first layer. A pass with all gradients costs 3 g, one without the weights' 2 g, and real pictures
# (or noise) need no gradient: g1 less. The backward of a low-pass is a convolution. A penalty runs
# D's backward once for the slope; through the slope, each layer has a convolution and a call for
# its weight; then D's passes where a second derivative is not 0, with a call for each gradient.
EXPECTED = {
    # 17 for the fake (encoder twice 6, decoder 5), 6 each for phi of x, s and y, 3 D of 5;
    # backward: the decoder, phi of y and D
    "adain": Work(50, 26, 25_534_464, 0, 2),
    # G 12, 2 D of 7 (real, fake and smoothed in one, then G's), 2 phi of 13; phi of the photograph:
    # none
    "cartoongan": Work(52, 39, 110_432_256, 0, 2),
    # G 12 once for both pictures, 2 D of 8 (real and fake in one, then G's), 7 of G's for the
    # maps of the reals, and of the fakes, which go backward; so do 12 low-passes
    "cut": Work(42 + 12, 35 - 12, 267_418_112, 0, 2),
    # 4 G of 8 (fake and identity in one, then the cycle, each way), 4 D of 5 (2 for G, 2 of real
    # and fake for D), all backward;
    # 18 g - 4 g1 + 16 d - 4 d1, with g 7,176,192, g1 2,408,448, d 761,856, d1 196,608
    "cyclegan": Work(52, 52, 130_940_928, 0, 2),
    # D's batch: 2 G of 6 without a graph, 4 D of 4; each of G's two: 4 G, 4 D, of which the real
    # pictures' are without a graph; besides 2 in the middle of G and 1 of D, products of matrices;
    # 2 g + 4 (3 d - d1) + 2 (2 (3 g - g1) + 6 g + 6 d), g 1,179,648, g1 = d1 196,608, d 590,336
    "discogan": Work(108, 80, 43_266_048, 0, 3),
    # 4 G of 6 and 4 in the middle that are products of matrices, 6 D of 3 (2 for G, 2 of real and
    # fake for D, 2 for its penalty), through the slope 2 * 3;
    # backward: as many as the former, 2 * 3 for the slope, for its weights, and since the
    # penalty's D has a call for each gradient
    "dualgan": Work(42 + 6, 42 + 18, 30_816_256, 0, 2),
    # G 6 and 4 in the middle that are products of matrices, 3 D of 5;
    # 3 g - g1 + 8 d - 2 d1, g 1,900,544, g1 196,608, d 958,464, d1 393,216
    "pix2pix": Work(21, 21, 12_386_304, 0, 2),
    # 2 G of 16 (D's without a graph), 4 D of 17, of which 3 each are low-passes: 6 backward for G
    # and D of its fakes, and in each of 2 penalties 3 for the slope, 17 through it, and 3;
    # backward without the low-passes: G, D of its fakes, and for each penalty 14 for the slope,
    # for the weights, and 2 * 14
    "r3gan": Work(32 + 68 + 6 + 46, 13 + 14 + 2 * 56, 68_292_944, 0, 2),
    # 6 G of 8 (5 fakes, 4 of them without a graph, and the way back), 10 D of 5 (real and fake in
    # one, and the penalty's) and one for G, 3 through each of 5 slopes; backward: 2 G, D for G, and
    # in each of 5 batches 5, 4 for the slope and 4 for its weights: behind the penalty's leaky
    # ReLUs there is nothing
    "stargan": Work(103 + 15, 21 + 5 * 13, 122_640_384, 0, 6),
    # in 4 batches G 7, 3 D of 7, of which 2 each are low-passes, 4 * 8 of them backward; 2 G for
    # the path, 7 for and through its slope and back; D for R1, 2 + 7 + 2;
    # backward without the low-passes: 4 (G 5, 3 D of 5), the path's 2 * 3 * 5, R1's 4 * 5
    "stylegan": Work(4 * 28 + 32 + 14 + 14 + 7 + 11, 80 + 30 + 20, 14_869_088, 0, 11),
    # G 4, 3 D of 4; 3 g - g1 + 8 d - 2 d1, g 466,944, g1 8,192, d 459,776, d1 196,608
    "vanilla": Work(16, 16, 4_677_632, 0, 2),
}


# MB of all tensors made in a period, without views; versions of PyTorch differ by up to 3 %. What
# is not done in place, or is made twice, shows here.
MADE = {
    "adain": 5.15,
    "cartoongan": 8.02,
    "cut": 24.53,
    "cyclegan": 14.04,
    "discogan": 7.88,
    "dualgan": 6.35,
    "pix2pix": 2.00,
    "r3gan": 6.87,
    "stargan": 8.83,
    "stylegan": 2.58,
    "vanilla": 0.481,
}


def test_every_method_is_in_the_table() -> None:
    assert EXPECTED.keys() == MADE.keys() == set(method_names())


@pytest.mark.parametrize("name", method_names())
def test_a_period_asks_for_what_it_did(name: str) -> None:
    """Where a method is to do something else: the new numbers, and why, belong in the table."""
    found, made = work(built(name, SIZES.get(name, 32)))
    assert found == EXPECTED[name]
    assert made == pytest.approx(MADE[name], rel=0.05)


def test_what_is_added_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = EXPECTED["vanilla"]
    monkeypatch.setitem(MORE, "vanilla", {"fresh_fakes": 1})  # D's own fakes, without a graph
    found, made = work(built("vanilla"))
    assert made > 1.1 * MADE["vanilla"]
    assert found == plain._replace(forward=plain.forward + 4, flops=plain.flops + 466_944)
    monkeypatch.setitem(MORE, "vanilla", {})
    method = built("vanilla")
    monkeypatch.setattr(
        method, "after_update", lambda *_: float(method.g.body[0].weight[0, 0, 0, 0])
    )
    assert work(method)[0] == plain._replace(waits=2)  # once after each update


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 4, 16])
def test_a_convolution_of_groups_is_counted_by_its_channels(groups: int, transposed: bool) -> None:
    """2 * 9 multiply-adds for each pixel and each pair of channels of one group, and as many for
    each of the two gradients."""
    x = torch.randn(2, 16, 8, 8, requires_grad=True)
    weight = torch.randn(16, 16 // groups, 3, 3, requires_grad=True)
    convolve = torch.conv_transpose2d if transposed else torch.conv2d
    with OperationCounter() as counter:
        convolve(x, weight, padding=1, groups=groups).sum().backward()
    assert counter.flops == 3 * 2 * 9 * (2 * 8 * 8) * 16 * 16 // groups
