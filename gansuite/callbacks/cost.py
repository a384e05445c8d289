"""What a training step costs, counted while the first batches train."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gansuite.callbacks.session import RunCallback, Session


class _Counter(TorchDispatchMode):
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
    """FLOPs per real picture, forward and backward, all players, over one cycle of the method's
    turns and lazy terms (whichever batch it begins with); into ``notes["flops_per_image"]``."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._counter = _Counter()
        self._begin: int | None = None
        self._counting = False
        self._next = 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if "flops_per_image" not in self.session.notes:
            if self._begin is not None and self.session.method.batches < self._next:
                self._begin, self._counter.total = None, 0  # rolled back
            self._next = self.session.method.batches + 1
            self._begin = self.session.method.batches if self._begin is None else self._begin
            self._counter.__enter__()
            self._counting = True

    def after_batch(self, trainer: Trainer) -> None:
        self._stop()
        method, notes = self.session.method, self.session.notes
        if "flops_per_image" not in notes and method.batches - (self._begin or 0) == method.cycle:
            images = self.session.data.images_per_batch * method.cycle / method.world
            notes["flops_per_image"] = round(self._counter.total / images)

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
