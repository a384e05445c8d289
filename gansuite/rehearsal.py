"""A batch without numbers, before anything is read or written: do the losses accept its shape?"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from gansuite.core.graphs import OnHost, StepGraphs
from gansuite.core.step import MakeStep
from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.methods.base import Method, Step

_REFUSED = (ValueError, RuntimeError, UserError)


def rehearse(method: Method, pictures: int, build: Callable[[DataSpec], Method]) -> None:
    """Call every loss of ``method`` on ``pictures`` pictures of each domain, as one chunk of its
    first batches; ``build`` makes the same method for another spec. ``method`` stays as it is.

    Runs on PyTorch's meta device, where a tensor has a shape and no content: well below a second.
    What cannot run there is tried on the CPU.

    Raises:
        UserError: the losses refuse this ``data.size`` or number of pictures, and take larger ones.
    """
    reason = _refusal(method, pictures)
    if not reason:
        if method.settings.graphs:
            _may_be_recorded(method, pictures)
        return
    size, title = method.spec.size, method.title
    problem = f"{title} cannot be trained at 'data.size' {size} on {pictures} picture(s) at a time"
    if not _refusal(method, 2 * pictures):
        raise UserError(
            f"{problem} ({reason}); with {2 * pictures} it can: raise 'data.batch', or lower "
            f"'trainer.accumulate' or the number of processes."
        )
    for larger in (2 * size, 4 * size, 8 * size):
        if not _refusal(build(replace(method.spec, size=larger)), pictures):
            raise UserError(f"{problem} ({reason}); with 'data.size' {larger} it can.")
    # neither is to blame: training will show what is


def _refusal(method: Method, pictures: int) -> str:
    """The first line of what the losses raise; "" when they accept the shape."""
    for device in ("meta", "cpu"):
        try:
            with torch.random.fork_rng(devices=[]), _nothing_is_empty():
                _losses(copy.deepcopy(method).to(device), pictures)
        except Exception as error:
            if device == "cpu" and not isinstance(error, _REFUSED):
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            continue
        return ""
    return reason


def _may_be_recorded(method: Method, pictures: int) -> None:
    """Raise `UserError` if the losses decide on the host what a CUDA graph would repeat."""
    method = copy.deepcopy(method).to("meta")
    recorded = StepGraphs(method)
    if method.on_host:
        raise recorded.refused(method.on_host)
    try:
        with torch.random.fork_rng(devices=[]):
            _losses(method, pictures, recorded.step)
    except OnHost as error:
        raise recorded.refused(str(error)) from None


@contextlib.contextmanager
def _nothing_is_empty() -> Iterator[None]:
    """A layer of which nothing comes out is refused: PyTorch 2.6 computes convolutions whose kernel
    is larger than the picture on the meta device, and only there."""

    def check(layer: nn.Module, given: object, made: object) -> None:
        if isinstance(made, Tensor) and not made.numel():
            raise RuntimeError(f"nothing is left of a picture after a {type(layer).__name__}")

    hook = nn.modules.module.register_module_forward_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _losses(method: Method, pictures: int, make_step: MakeStep | None = None) -> None:
    spec, view = method.spec, method.needs.view
    device, dtype = method.device, next(method.parameters()).dtype
    many = len(spec.domains) if view in ("unpaired", "paired") else 1
    shape = (pictures, spec.channels, spec.size, spec.size)
    images = tuple(torch.zeros(shape, device=device, dtype=dtype) for _ in range(many))
    known = len(spec.joint) if len(spec.joint) > 1 else 0
    labels = None
    if view == "labelled":
        labels = torch.zeros(pictures, len(spec.labels) + known, device=device, dtype=dtype)
    chunk = Batch(images, labels)
    k = method.settings.accumulate
    whole = Batch(images, None if labels is None else labels.repeat(k, 1))
    for turn in dict.fromkeys(tuple(method.updates_in(i)) for i in range(len(method.alternation))):
        step = (make_step or functools.partial(Step, method))(turn, whole, 0)
        for step.position, phase in enumerate(turn):
            getattr(method, phase.replace(".", "_") + "_losses")(chunk, step)
