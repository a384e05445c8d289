"""Where the tensors of a batch lie on a CUDA device, without one: PyTorch's fake tensors refuse an
operation of tensors of two devices as a device does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_operations import MORE, SIZES, batch_for, built
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from gansuite.core import step as steps
from gansuite.core.step import Step
from gansuite.data.spec import Batch
from gansuite.draws import Draws
from gansuite.methods import method_names

ADDED: dict[str, dict[str, Any]] = {
    "vanilla": {"augment": "diffaugment", "dequantise": True, "latent": "uniform"},
    "stylegan": {"augment": "ada"},
    "cut": {"preset": "fastcut"},
}


def placed(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device="cuda")


class Fakes(Draws):
    """A generator of a device needs that device."""

    def randn(self, n: int, *shape: int) -> Tensor:
        return torch.empty(n, *shape, dtype=self.dtype, device="cuda")

    rand = randn

    def permutation(self, n: int) -> Tensor:
        return torch.empty(n, dtype=torch.long, device="cuda")

    def decided(self, make: Callable[[Draws], Tensor]) -> Tensor:
        return make(Draws(0)).to("cuda")


def on_device(method: nn.Module) -> None:
    for module in method.modules():
        for own in (module._parameters, module._buffers):
            for name, x in own.items():
                if x is not None:
                    fake = placed(x)
                    own[name] = (
                        nn.Parameter(fake, x.requires_grad) if own is module._parameters else fake
                    )
        if hasattr(module, "_device"):  # of Lightning's modules
            module._device = torch.device("cuda:0")


def fakes_work() -> bool:
    """Fake tensors of CUDA; older versions of PyTorch ask a driver for them."""
    try:
        with FakeTensorMode():
            x = torch.empty(4, device="cuda")
            return (x[..., 1:2] + 1).device.type == "cuda"
    except (RuntimeError, AssertionError):
        return False


needs_fakes = pytest.mark.skipif(not fakes_work(), reason="no fake CUDA tensors here")


@needs_fakes
@pytest.mark.parametrize("name", method_names())
def test_all_of_a_batch_lies_on_the_device(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MORE, name, MORE.get(name, {}) | ADDED.get(name, {}))
    method, given = built(name, SIZES.get(name, 32)), batch_for(built(name, SIZES.get(name, 32)))
    method.player_batches = dict.fromkeys(method.players, 0)
    # the engine of backward passes asks for the device
    monkeypatch.setattr(torch.autograd, "grad", lambda y, x, **_: (torch.ones_like(x) * y.mean(),))
    losses = 0
    with FakeTensorMode():
        on_device(method)
        for kept in method.rank_state.values():
            kept.load_state_dict({k: torch.empty(0) for k in ("images", "total")} | {"number": 0})
        labels = None if given.labels is None else placed(given.labels)
        batch = method.prepared(Batch(tuple(map(placed, given.images)), labels))
        (first, *_) = batch.split(method.needs.batches)
        for updates in {tuple(method.updates_in(i)) for i in range(method.period)}:
            monkeypatch.setattr(
                steps, "Draws", lambda *_, **options: Fakes(0, dtype=options["dtype"])
            )
            step = Step(method, updates, first, 0)
            for step.position, update in enumerate(updates):
                found = getattr(method, update.replace(".", "_") + "_losses")(first, step)
                assert {x.device.type for x in found.values()} <= {"cuda"}
                losses += len(found)
    assert losses >= len(method.players)


@needs_fakes
def test_a_tensor_on_the_host_is_seen() -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="device"):
        torch.empty(2, device="cuda") + torch.empty(2)
