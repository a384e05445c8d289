"""What a training step costs, counted while the first batches train."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lightning import LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gansuite.callbacks.session import RunCallback, Session


class _FlopCounter(TorchDispatchMode):
    """Adds up FLOPs (2 per multiply-add) of convolutions and matrix products.

    Not `FlopCounterMode`, which raises under the ``autograd.grad`` of a gradient penalty.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


class CountFlops(RunCallback):
    """FLOPs per real picture, forward and backward, all players; into
    ``notes["flops_per_image"]``.

    Counted over the first cycle of the method's updates and lazy terms, and kept in
    ``notes["flops"]`` on the way, so that the number is the same wherever the run was interrupted.
    Every kind of batch counts as often as in the budget (its first 1,000 cycles), so that a warm-up
    is not taken for the whole.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._counter = _FlopCounter()
        self._counting = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if "flops_per_image" not in self.session.notes:
            self._counter.total = 0
            self._counter.__enter__()
            self._counting = True

    def after_batch(self, trainer: Trainer) -> None:
        if not self._counting:
            return
        self._stop()
        method, notes = self.session.method, self.session.notes
        last = method.batches - 1
        # a checkpoint of an earlier version has no count: it begins there
        found = notes.setdefault("flops", {"begin": last, "counted": {}})
        updates = " ".join(method.updates_in(last))
        times, total = found["counted"].get(updates, (0, 0))
        found["counted"][updates] = [times + 1, total + self._counter.total]
        if method.batches - found["begin"] == method.period:
            del notes["flops"]
            notes["flops_per_image"] = self._per_image(found["counted"])

    def _per_image(self, counted: dict[str, list[int]]) -> int:
        """``counted``: updates -> [batches, FLOPs of this process] in one cycle."""
        method, budget = self.session.method, self.session.budget_images
        each, cycle = self.session.data.images_per_batch, method.period
        batches = cycle * min(-(-budget // (each * cycle)), 1000) if budget else cycle
        often = Counter(" ".join(method.updates_in(i)) for i in range(batches))
        flops = sum(total / times * often[updates] for updates, (times, total) in counted.items())
        return round(flops * method.world / (each * sum(often[updates] for updates in counted)))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._counting:
            self._counter.__exit__(None, None, None)
            self._counting = False

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing to do."""
