"""Whole batches as CUDA graphs: what a batch asks of the device is recorded once and from then on
only started, so that small networks do not wait for Python.

A graph is the kernels that one batch has asked for, with every number and every address it had. So
what changes from batch to batch lies in tensors that stay where they are and are filled before: the
pictures, the random numbers, the learning rates of Adam, the weights of the losses
(`Step.number`). What else the host decides (which updates, which lazy terms, other settings of an
optimiser) makes it a batch of another kind, with a graph of its own. The first batches of every
kind are computed as ever, which is also what a graph is recorded from; the numbers are the same.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor

from gansuite.core.schedule import player_of
from gansuite.core.step import Step
from gansuite.data.spec import Batch
from gansuite.draws import Draws
from gansuite.errors import UserError

if TYPE_CHECKING:
    from gansuite.core.module import AlternatingModule

WARM_UP = 2
"""Batches of a kind that come before its graph: in these, libraries choose their kernels and
optimisers make their state."""
KINDS = 64
"""That are remembered; settings that move in every batch make every batch a kind of its own."""

Name = tuple[Any, ...]
Call = tuple[Callable[..., Tensor], tuple[Any, ...]]
"""A draw: which, and of what shape."""
Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Records what a function asks of the device, without doing it, and gives what does it."""


def cuda_recorder() -> Recorder:
    """CUDA graphs that share their memory. Raises `UserError` without a CUDA device."""
    if not torch.cuda.is_available():
        raise UserError("'trainer.graphs' is true, which needs a CUDA device; set it to false.")
    pool = torch.cuda.graph_pool_handle()

    def record(compute: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        # threads that pin memory for the next batch go on meanwhile
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            compute()
        return graph.replay

    return record


class OnHost(Exception):
    """A batch does what would be the same in every batch of a graph."""


class _Draws(Draws):
    """Draws that ``give`` makes, or has made before."""

    def __init__(self, draws: Draws, give: Callable[[Call], Tensor]) -> None:
        self.__dict__ |= draws.__dict__
        self._give = give

    def randn(self, n: int, *shape: int) -> Tensor:
        return self._give((Draws.randn, (n, *shape)))

    def rand(self, n: int, *shape: int) -> Tensor:
        return self._give((Draws.rand, (n, *shape)))

    def permutation(self, n: int) -> Tensor:
        return self._give((Draws.permutation, (n,)))

    def decided(self, make: Callable[[Draws], Tensor]) -> Tensor:
        return self._give((Draws.decided, (make,)))

    def chances(self, n: int, k: int) -> NoReturn:
        raise OnHost("draws numbers for the host (use Draws.decided)")

    def common(self, k: int) -> NoReturn:
        raise OnHost("draws numbers for the host (use Draws.decided)")


class _Step(Step):
    """A `Step` whose losses do not see where training is."""

    HIDDEN = ("images_seen", "progress", "batches", "player_batches")

    def __init__(
        self, graphs: StepGraphs, updates: Sequence[str], batch: Batch, chunk: int
    ) -> None:
        super().__init__(graphs.method, updates, batch, chunk)
        self._graphs, self.open = graphs, False
        self._hidden = {name: self.__dict__.pop(name) for name in self.HIDDEN}

    def __getattr__(self, name: str) -> Any:
        if name not in self.HIDDEN:
            raise AttributeError(name)
        if not self.open:
            raise OnHost(f"reads 'step.{name}' (use Step.due or Step.number)")
        return self._hidden[name]

    def due(self, every: int) -> bool:
        self._graphs.asked.setdefault(tuple(self.updates), set()).add((self.player, every))
        return bool(self._hidden["player_batches"][self.player] % every == 0)

    def number(self, name: str, make: Callable[[], float]) -> Tensor:
        return self._graphs.number((name,), lambda steps: make())


@dataclass
class _Kind:
    """Batches that ask the same of the device."""

    seen: int = 0
    numbers: dict[Name, Callable[[Sequence[_Step]], float]] = field(default_factory=dict)
    calls: list[list[Call]] = field(default_factory=list)  # of the draws of each chunk
    # of the graph
    start: Callable[[], None] | None = None
    batch: Batch = field(default_factory=lambda: Batch(()))
    drawn: list[list[Tensor]] = field(default_factory=list)
    losses: list[tuple[str, Tensor]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)  # updates of each player
    updated: set[str] = field(default_factory=set)


class StepGraphs:
    """Computes the batches of ``method``; see the module.

    ``record`` is `cuda_recorder`'s, unless a test has another.
    """

    def __init__(self, method: AlternatingModule, record: Recorder | None = None) -> None:
        self.method = method
        self.asked: dict[tuple[str, ...], set[tuple[str, int]]] = {}  # of `Step.due`, by updates
        self._record = record
        self._kinds: OrderedDict[Any, _Kind] = OrderedDict()
        self._numbers: dict[Name, Tensor] = {}
        self._kind, self._recording = _Kind(), False
        self._steps: list[_Step] = []

    def forget(self) -> None:
        """Training goes on from another state, whose tensors are others."""
        self._kinds.clear()

    def __call__(self, batch: Batch, updates: Sequence[str], optimizers: Any) -> set[str]:
        """Compute a batch; the players that were updated.

        Raises:
            UserError: it cannot be recorded.
        """
        method = self.method
        kind = self._kind = self._kind_of(batch, updates)
        try:
            # in the first cycle FLOPs are counted, which a graph would hide
            first = method.batches < method.period
            if kind.start is None and (first or kind.seen < WARM_UP):
                kind.seen += not first
                kind.numbers.clear()
                kind.calls.clear()
                return self._compute(batch, updates, optimizers)
            if kind.start is None:
                self._make(kind, batch, updates, optimizers)
            else:
                self._fill(kind, batch, updates)
                self._count(kind, updates, optimizers)
            assert kind.start is not None
            kind.start()
            return kind.updated
        except OnHost as error:
            raise self.refused(str(error)) from None
        finally:
            self._steps = []  # and with them the pictures of this batch
            for player in dict.fromkeys(map(player_of, updates)):  # no tensors in checkpoints
                for group in optimizers[player].optimizer.param_groups:
                    group["lr"] = method.optim_now(player).lr

    def check(self) -> None:
        """Raise `UserError` where there can be no graph."""
        if self.method.on_host:
            raise self.refused(self.method.on_host)
        if self.method.world > 1:
            raise self.refused("is averaged over several processes (trainer.devices=1)")
        self._record = self._record or cuda_recorder()

    def refused(self, reason: str) -> UserError:
        return UserError(
            f"A batch of {self.method.title} cannot be recorded as a CUDA graph, because it "
            f"{reason}; set 'trainer.graphs=false'."
        )

    def _kind_of(self, batch: Batch, updates: Sequence[str]) -> _Kind:
        method = self.method
        settings = []
        for player in dict.fromkeys(map(player_of, updates)):
            now = method.optim_now(player).model_dump()
            if now["kind"] == "adam":
                del now["lr"]
            settings.append(repr(now))
        due = {
            (player, every, method.player_batches[player] % every == 0)
            for player, every in self.asked.get(tuple(updates), ())
        }
        shapes = [(x.shape, x.dtype) for x in batch.tensors]
        key = (tuple(updates), frozenset(due), tuple(settings), tuple(shapes))
        kind = self._kinds.setdefault(key, _Kind())
        self._kinds.move_to_end(key)
        if len(self._kinds) > KINDS:
            self._kinds.popitem(last=False)
        return kind

    def _compute(self, batch: Batch, updates: Sequence[str], optimizers: Any) -> set[str]:
        self._steps = []
        return self.method.compute(batch, updates, optimizers, self.step)

    def step(self, updates: Sequence[str], batch: Batch, chunk: int) -> Step:
        """What `Step` is to an ordinary batch."""
        step, kind = _Step(self, updates, batch, chunk), self._kind
        if self._recording:
            left = iter(kind.drawn[chunk])
            step.draws = _Draws(step.draws, lambda call: next(left))
        else:
            plain, calls = step.draws, list[Call]()
            kind.calls.append(calls)

            def give(call: Call) -> Tensor:
                calls.append(call)
                return call[0](plain, *call[1])

            step.draws = _Draws(plain, give)
        self._steps.append(step)
        return step

    # -- numbers that move -------------------------------------------------------------------

    def number(
        self,
        name: Name,
        make: Callable[[Sequence[_Step]], float],
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """``make(the steps of this batch)`` as a tensor [] of this ``name``."""
        name = (*name, dtype)
        if name not in self._numbers:
            self._numbers[name] = torch.zeros((), dtype=dtype, device=self.method.device)
        if not self._recording:
            self._kind.numbers[name] = make
            self._numbers[name].fill_(make(self._steps))
        return self._numbers[name]

    def weight(self, term: str, step: Step, loss: Tensor) -> Tensor:
        """`Method.weight_of` now."""
        place, chunk = step.position, step.chunk

        def make(steps: Sequence[_Step]) -> float:
            step = steps[chunk]
            before, step.position, step.open = step.position, place, True
            try:
                return self.method.weight_of(term, step)
            finally:
                step.position, step.open = before, False

        return self.number(("weight", term, place, chunk), make, loss.dtype)

    def lr(self, player: str) -> Tensor:
        """The learning rate of ``player`` now."""
        return self.number(("lr", player), lambda steps: self.method.optim_now(player).lr)

    # -- graphs ------------------------------------------------------------------------------

    def _make(self, kind: _Kind, batch: Batch, updates: Sequence[str], optimizers: Any) -> None:
        method = self.method
        labels = None if batch.labels is None else torch.empty_like(batch.labels)
        kind.batch = Batch(tuple(map(torch.empty_like, batch.images)), labels)
        kind.drawn = [[torch.empty_like(x) for x in c] for c in self._drawn(kind, batch, updates)]
        self._fill(kind, batch, updates)
        counts, first = dict(method.update_counts), len(method.ledger.batch)

        def compute() -> None:
            kind.updated = self._compute(kind.batch, updates, optimizers)

        assert self._record is not None
        self._recording = True
        try:
            kind.start = self._record(compute)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise self.refused(f"does what a graph cannot ({reason})") from error
        finally:
            self._recording = False
        kind.losses = method.ledger.batch[first:]
        kind.counts = {p: n - counts[p] for p, n in method.update_counts.items()}

    def _drawn(self, kind: _Kind, batch: Batch, updates: Sequence[str]) -> list[list[Tensor]]:
        """The draws of this batch, and its steps."""
        self._steps = [_Step(self, updates, batch, i) for i in range(len(kind.calls))]
        return [
            [how(step.draws, *given) for how, given in calls]
            for step, calls in zip(self._steps, kind.calls, strict=True)
        ]

    def _fill(self, kind: _Kind, batch: Batch, updates: Sequence[str]) -> None:
        for x, new in zip(kind.batch.tensors, batch.tensors, strict=True):
            x.copy_(new, non_blocking=True)
        for kept, drawn in zip(kind.drawn, self._drawn(kind, batch, updates), strict=True):
            for x, new in zip(kept, drawn, strict=True):
                x.copy_(new)
        for name, make in kind.numbers.items():
            self._numbers[name].fill_(make(self._steps))

    def _count(self, kind: _Kind, updates: Sequence[str], optimizers: Any) -> None:
        """What else a batch does to the method and to its Trainer."""
        method = self.method
        for player, n in kind.counts.items():
            method.update_counts[player] += n
        for player in set(map(player_of, updates)):
            method.player_batches[player] += 1
        method.ledger.batch += kind.losses
        first = optimizers[player_of(updates[0])]
        first._on_before_step()
        first._on_after_step()
