"""`Method`: the contract between a GAN and everything around it.

A method declares its players, their losses and the order of their turns; this base does the rest,
in the same code for all: manual optimisation, freezing, weighting, clipping, accumulation, the
learning-rate schedule, averaged weights, counters, noise and the exact training state.
It knows no Trainer options, callbacks, metrics or data loading.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, cast

import torch
from lightning import LightningModule
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn

from gansuite.config import Budget, Ema, Optim
from gansuite.data.spec import Batch, DataSpec, Needs
from gansuite.errors import NotFinite, UserError
from gansuite.losses.path_length import lazy_adam
from gansuite.methods._ledger import Ledger
from gansuite.methods._optimizers import TFRMSprop
from gansuite.methods._state import load_optimizer
from gansuite.methods._step import Step as Step
from gansuite.methods._step import player_of as player_of
from gansuite.rng import derive, seed_device

FLOAT = torch.float32  # of the noise, whatever the precision of the run


def terms(**weights: float) -> Mapping[str, float]:
    """The loss terms of a method with their default weights, for its signature."""
    return MappingProxyType(weights)


class Stateful(Protocol):
    """What a method may keep in ``memory`` beside networks: an image pool, for instance.

    It is each process's own, and its tensors follow the device of what comes in: a loaded state
    is on the CPU. With a static ``merge(states)`` that makes one state of those of all processes,
    it is also exact when a run is resumed on another number of them.
    """

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """What a run asks of a method. ``images_per_batch`` counts the real pictures of one global
    batch, all domains and `Needs.batches` together; ``accumulate`` is the number of
    chunks it is computed in."""

    seed: int
    images_per_batch: int
    optim: Mapping[str, Optim] = field(default_factory=dict)
    budget: Budget = field(default_factory=lambda: Budget(kimg=1.0))
    ema: Ema = field(default_factory=Ema)
    accumulate: int = 1
    fused: bool = True


def critic_turns(n_critic: int) -> tuple[tuple[str, ...], ...]:
    """``n_critic`` batches for the critic, the last of which then trains the generator too.

    Raises:
        UserError: ``n_critic`` is below 1.
    """
    if n_critic < 1:
        raise UserError(
            f"'method.n_critic' is {n_critic}; it is how many batches train the critic for each "
            f"of the generator, 1 or more."
        )
    return (("d",),) * (n_critic - 1) + (("d", "g"),)


def lr_factor(progress: float, budget: Budget) -> float:
    """Share of the base learning rate at ``progress`` (0..1 of the budget).

    Continuous: 1 until ``decay_from``, then linearly to 0. With ``decay_steps`` n, the official
    CycleGAN stairs: for epoch e of n, 1 - max(0, e + 1 - n0) / (n - n0 + 1), n0 = decay_from * n.
    """
    if budget.decay_from >= 1:
        return 1.0
    progress = min(max(progress, 0.0), 1.0)
    if budget.decay_steps is None:
        return min(1.0, (1 - progress) / (1 - budget.decay_from))
    n, n0 = budget.decay_steps, budget.decay_steps * budget.decay_from
    epoch = min(int(progress * n + 1e-9), n - 1)
    return 1 - max(0.0, epoch + 1 - n0) / (n - n0 + 1)


def cosine(start: float, end: float, share: float) -> float:
    """From ``start`` to ``end`` along half a cosine as ``share`` goes from 0 to 1, then ``end``."""
    return end + (start - end) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


class Method(LightningModule):
    """Base of all methods. A subclass states:

    - ``needs``: the view of the data it trains on;
    - ``__init__(self, spec, *, ...)``: typed keyword arguments, which are its config schema, with
      ``weights: Mapping[str, float] = terms(...)``; the players become attributes (``g``, ``d``);
    - ``turns``: for each batch, cycled, the phases in order. A phase is a player's name, or
      ``player.something`` for a further update of the same player; its losses come from
      ``<player>_losses(batch, step)`` or ``<player>_<something>_losses(batch, step)``: a dict of
      unweighted terms. A term that is not due is absent; an empty dict skips the update. Every
      weight other than 0 must meet its term within the first ``cycle`` batches. All parameters
      of a player are trained: frozen networks belong elsewhere;
    - ``sample(n, ...)`` or ``translate(x, to)``, and ``stride`` if pictures must be padded;
    - optionally ``averaged``, ``memory``, ``turn``, ``walk``, ``weight_of``, ``optim_now``,
      ``after_update``, ``after_batch``, and ``lazy``: players whose regulariser takes a step of its
      own every so many rounds, for which Adam is corrected (StyleGAN2, appendix B).

    In a further phase (``player.something``) the parameters that its losses do not reach have the
    gradient 0, so Adam's moments decay there too, as in StyleGAN2's code.
    """

    needs: ClassVar[Needs] = Needs(view="single")
    averaged: ClassVar[tuple[str, ...]] = ("g",)
    task: ClassVar[Literal["generate", "translate"]] = "generate"

    turns: Sequence[Sequence[str]] = (("g", "d"),)
    lazy: Mapping[str, int] = {}
    stride: int = 1

    def __init__(self, spec: DataSpec, weights: Mapping[str, float]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.spec = spec
        self.weights = dict(weights)
        self.memory: dict[str, Stateful] = {}
        self.plan = Plan(seed=0, images_per_batch=1)
        self.batches = 0
        self.images_seen = 0
        self.rollbacks = 0  # how often training went back to a checkpoint; each has its own noise
        self.progress = 0.0
        self.taken: dict[str, int] = {}  # updates of each player
        self.rounds: dict[str, int] = {}  # batches in which each player was on turn
        self.met: set[str] = set()
        self._ledger = Ledger()
        self._averages: dict[str, nn.Module] = {}  # a plain dict: not part of the module tree
        self._averaged_at: dict[str, int] = {}
        self._clipping: float | None = None

    # -- declared by a method ----------------------------------------------------------------

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n pictures, float [n, C, H, W] in [-1, 1]."""
        raise UserError(f"{type(self).__name__} translates pictures; it does not make new ones.")

    def walk(self, n: int, generator: torch.Generator, epsilon: float) -> tuple[Tensor, Tensor]:
        """n pictures as of ``sample``, and those ``epsilon`` of the way to other ones in latent
        space further: what the perceptual path length compares."""
        raise UserError(
            f"{type(self).__name__} has no latent path; leave evaluate.vgg empty for it."
        )

    def translate(self, x: Tensor, to: str) -> Tensor:
        """``x``, float [N, C, H, W] in [-1, 1], as a picture of domain ``to``, same shape."""
        raise UserError(f"{type(self).__name__} makes pictures; it does not translate them.")

    def turn(self, batch: int) -> Sequence[str]:
        """The phases of batch 0, 1, ...; override for a pattern that does not repeat."""
        return self.turns[batch % len(self.turns)]

    def weight_of(self, term: str, step: Step) -> float:
        """The weight of a term now; override for weights that change on the way."""
        return self.weights[term]

    def optim_now(self, player: str) -> Optim:
        """The optimiser settings of ``player`` for its next update; override to schedule them."""
        now = self.optim_of(player)
        factor = lr_factor(self.progress, self.plan.budget)
        return now.model_copy(update={"lr": now.lr * factor})

    def after_update(self, phase: str, step: Step) -> None:
        """Called after an update of a player, e.g. to clip a critic's weights."""

    def after_batch(self) -> None:
        """Called once after the updates of a batch, its chunks together, before the averages."""

    # -- players -----------------------------------------------------------------------------

    @property
    def players(self) -> tuple[str, ...]:
        """Names of the players, generator first."""
        names = {player_of(phase) for turn in self.turns for phase in turn}
        return tuple(sorted(names, key=lambda name: (name != "g", name)))

    @property
    def targets(self) -> tuple[str, ...]:
        """What ``translate`` can aim at: the domains, or the attributes of a labelled table."""
        labelled = self.needs.view == "labelled"
        return self.spec.labels if labelled else self.spec.domains

    @property
    def cycle(self) -> int:
        """Batches after which turns and lazy terms repeat."""
        return math.lcm(len(self.turns), *(every for every in self.lazy.values() if every))

    def player(self, name: str) -> nn.Module:
        return cast(nn.Module, getattr(self, name))

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each player."""
        return {n: sum(p.numel() for p in self.player(n).parameters()) for n in self.players}

    @contextlib.contextmanager
    def thawed(self, name: str) -> Iterator[None]:
        """Inside, the parameters of player ``name`` require gradients, whoever is on turn."""
        parameters = list(self.player(name).parameters())
        before = [p.requires_grad for p in parameters]
        for p in parameters:
            p.requires_grad_(True)
        try:
            yield
        finally:
            for p, required in zip(parameters, before, strict=True):
                p.requires_grad_(required)

    # -- the run -----------------------------------------------------------------------------

    def follow(self, plan: Plan) -> None:
        """Adopt the plan of a run; checks that it names this method's players."""
        for name in plan.optim:
            if name not in self.players:
                raise UserError(
                    f"'optim.{name}' is the optimiser of no player of {self.title} "
                    f"(its players: {', '.join(self.players)})."
                )
        self.plan = plan
        self.taken = dict.fromkeys(self.players, 0)
        self.rounds = dict.fromkeys(self.players, 0)
        if plan.ema.half_life_kimg is not None:
            self._averages = {n: self._copy(n) for n in self.averaged}

    def _copy(self, name: str) -> nn.Module:
        return copy.deepcopy(self.player(name)).requires_grad_(False).eval()

    @property
    def title(self) -> str:
        """The method's name in config files: that of its module."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def noise_seed(self) -> int:
        """The seed of all noise in training: the run's own, and another after each rollback."""
        seed, again = self.plan.seed, self.rollbacks
        return derive(seed, "rollback", again) if again else seed

    @property
    def rank(self) -> int:
        return self.global_rank if self._trainer is not None else 0

    @property
    def world(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

    def optim_of(self, player: str) -> Optim:
        """The optimiser settings of ``player``, corrected for its lazy regulariser."""
        given, every = self.plan.optim.get(player) or Optim(), self.lazy.get(player, 0)
        if not every or given.kind != "adam":
            return given
        lr, betas = lazy_adam(given.lr, (given.betas[0], given.betas[1]), every)
        return given.model_copy(update={"lr": lr, "betas": list(betas)})

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """One optimiser per player, in the order of ``players``."""
        return [self._optimizer(self.player(n), self.optim_of(n)) for n in self.players]

    def _optimizer(self, module: nn.Module, o: Optim) -> torch.optim.Optimizer:
        parameters = list(module.parameters())
        if o.kind == "adam":
            return torch.optim.Adam(
                parameters,
                lr=o.lr,
                betas=(o.betas[0], o.betas[1]),
                eps=o.eps,
                weight_decay=o.weight_decay,
                fused=self.plan.fused,
            )
        if o.kind in ("rmsprop", "rmsprop_tf"):
            return (TFRMSprop if o.kind == "rmsprop_tf" else torch.optim.RMSprop)(
                parameters,
                lr=o.lr,
                alpha=o.alpha,
                eps=o.eps,
                momentum=o.momentum,
                weight_decay=o.weight_decay,
            )
        return torch.optim.SGD(
            parameters, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay
        )

    def on_fit_start(self) -> None:
        for module in self._averages.values():
            module.to(self.device, cast(torch.dtype, self.dtype))

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Without waiting for the device: Lightning's own way waits for all earlier work."""
        return batch.to(device, non_blocking=True)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """uint8 -> float in [-1, 1], on the device."""
        return replace(batch, images=tuple(map(self.scaled, batch.images)))

    def scaled(self, images: Tensor) -> Tensor:
        """uint8 -> [-1, 1] in the parameters' type."""
        return images.to(cast(torch.dtype, self.dtype)).div_(127.5).sub_(1.0)

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """One batch: every phase of this turn, in order."""
        turn = self.turn(self.batches)
        # layers that draw by themselves (dropout) are also a function of the position only
        seed_device(derive(self.noise_seed, "layers", self.batches, self.rank), self.device)
        drawn = batch.split(self.needs.batches)
        steps = [Step(self, turn, batch, i) for i in range(self.plan.accumulate)]
        updated = set()
        for position, phase in enumerate(turn):
            if self._update(phase, position, drawn[position % len(drawn)], steps):
                updated.add(player_of(phase))
        for name in set(map(player_of, turn)):
            self.rounds[name] += 1
        self.after_batch()
        self._ledger.enter(self.batches)
        self.batches += 1
        self.images_seen += self.plan.images_per_batch
        for name in self._averages:
            if name in updated:
                self._average(name)
        if self.plan.budget.kimg is not None:
            self.progress = self.images_seen / (1000 * self.plan.budget.kimg)
        if self.batches == self.cycle:
            self._check_weights()

    def _update(self, phase: str, position: int, batch: Batch, steps: list[Step]) -> bool:
        """One optimiser step of the player on turn; False when no term was due."""
        player = player_of(phase)
        losses = getattr(self, phase.replace(".", "_") + "_losses")
        for name in self.players:
            self.player(name).requires_grad_(name == player)
        optimizer = self._optimizers[player]
        optimizer.zero_grad()
        updated = False
        for chunk, step in zip(batch.split(len(steps)), steps, strict=True):
            step.position, step.batch = position, batch
            found: dict[str, Tensor] = losses(chunk, step)
            if found:
                total = self._weigh(player, found, step) / len(steps)
                self.manual_backward(total)
                updated = True
        if not updated:
            return False
        if phase != player:
            for p in self.player(player).parameters():
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad
        self._schedule(optimizer.optimizer, player)
        optimizer.step()
        self.taken[player] += 1
        self.after_update(phase, steps[-1])
        return True

    @property
    def _optimizers(self) -> dict[str, Any]:
        found = self.optimizers()
        return dict(zip(self.players, found if isinstance(found, list) else [found], strict=True))

    def _weigh(self, player: str, found: Mapping[str, Tensor], step: Step) -> Tensor:
        total: Tensor | None = None
        for term, loss in found.items():
            if term not in self.weights:
                raise UserError(
                    f"The term '{term}' of {self.title}'s player '{player}' has no weight "
                    f"(weights: {', '.join(self.weights)})."
                )
            self.met.add(term)
            self.record(f"loss/{player}/{term}", loss)
            part = loss * self.weight_of(term, step)
            total = part if total is None else total + part
        assert total is not None
        self.record(f"loss/{player}/total", total)
        return total

    def _check_weights(self) -> None:
        unmet = [t for t, w in self.weights.items() if w and t not in self.met]
        if unmet:
            raise UserError(
                f"'method.weights.{unmet[0]}' met no term of {self.title} in {self.batches} "
                f"batches; set it to 0."
            )

    # -- what is logged ----------------------------------------------------------------------

    def record(self, key: str, value: Tensor) -> None:
        """Add a value to the means that are logged at the next interval (no synchronisation)."""
        self._ledger.note(key, value)

    def collect(self) -> dict[str, float]:
        """Means over the interval since the last call, over all ranks; the only synchronisation.

        Raises:
            NotFinite: a value was not finite; the sentence names the first such term.
        """
        found, sick = self._ledger.take(self.mean_over_ranks, self._least_over_ranks)
        if sick:
            raise self._not_finite(f"the term '{sick}'")
        if not found:
            return {}
        self.assert_finite()
        return found | {f"lr/{n}": self.lr(n) for n in self.players}

    def gathered(self, x: Tensor) -> Tensor:
        """[n, ...] of this process -> [world * n, ...] of all, in the order of ranks."""
        if self.world == 1:
            return x
        found = [torch.empty_like(x) for _ in range(self.world)]
        torch.distributed.all_gather(found, x.contiguous())
        return torch.cat(found)

    def mean_over_ranks(self, value: Tensor) -> Tensor:
        """The mean of ``value`` over all processes, without a gradient."""
        return self._over_ranks(value, torch.distributed.ReduceOp.SUM) / self.world

    def _least_over_ranks(self, value: Tensor) -> Tensor:
        return self._over_ranks(value, torch.distributed.ReduceOp.MIN)

    def _over_ranks(self, value: Tensor, op: torch.distributed.ReduceOp.RedOpType) -> Tensor:
        # the strategy's own way waits at a barrier first
        value = value.detach().clone()
        if self.world > 1:
            torch.distributed.all_reduce(value, op)
        return value

    def assert_finite(self) -> None:
        """Raise `NotFinite` if any parameter of a player is not finite."""
        for name in self.players:
            norms = torch._foreach_norm(list(self.player(name).parameters()))
            if not bool(torch.isfinite(torch.stack(norms).sum())):
                raise self._not_finite(f"a parameter of player '{name}'")

    def _not_finite(self, what: str) -> NotFinite:
        return NotFinite(
            f"Training stopped at {self.images_seen / 1000:g} kimg: {what} is not finite; "
            f"checkpoints are from before. A lower 'optim.*.lr', 'optim.*.clip=1' or "
            f"'trainer.precision=32-true' helps, or 'guard.action=rollback', which resumes from "
            f"them with other noise."
        )

    def lr(self, player: str) -> float:
        """The learning rate of ``player`` now."""
        return self.optim_now(player).lr

    def _schedule(self, optimizer: torch.optim.Optimizer, player: str) -> None:
        now = self.optim_now(player)
        for group in optimizer.param_groups:
            group.update({k: v for k, v in now if k in group})
        self._clipping = now.clip

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip here: under 16-mixed the gradients are unscaled by now."""
        if self._clipping is not None:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, self._clipping)

    # -- averaged weights --------------------------------------------------------------------

    @torch.no_grad()
    def _average(self, name: str) -> None:
        half_life = 1000 * cast(float, self.plan.ema.half_life_kimg)
        now = self.images_seen
        if self.plan.ema.rampup is not None:
            before = now - self.plan.images_per_batch  # as StyleGAN2 counts: without this batch
            half_life = min(half_life, before * self.plan.ema.rampup)
        beta = 0.5 ** ((now - self._averaged_at.get(name, 0)) / max(half_life, 1e-8))
        self._averaged_at[name] = now
        averages, live = self._averages[name], self.player(name)
        # a non-finite update must never reach the average; decided on the device, without a sync
        floats = [t for t in (*live.parameters(), *live.buffers()) if t.is_floating_point()]
        finite = torch.isfinite(torch.stack(torch._foreach_norm(floats)).sum())
        for a, p in zip(averages.parameters(), live.parameters(), strict=True):
            torch.where(finite, torch.lerp(a, p, 1 - beta), a, out=a)
        for kept, buffer in zip(averages.buffers(), live.buffers(), strict=True):
            torch.where(finite, buffer, kept, out=kept)

    def has_averages(self) -> bool:
        return bool(self._averages)

    def adopt_averages(self) -> None:
        """Put the averaged weights, where there are any, in the players' place for good."""
        for name, module in self._averages.items():
            setattr(self, name, module)

    @contextlib.contextmanager
    def evaluating(self, weights: str = "auto") -> Iterator[str]:
        """Inside, the method is in eval mode, without gradients, and with its ``ema`` or ``raw``
        weights ("auto": ema where there is one); yields which."""
        chosen = ("ema" if self._averages else "raw") if weights == "auto" else weights
        if chosen == "ema" and not self._averages:
            raise UserError("There are no averaged weights here (ema.half_life_kimg was not set).")
        live = {n: self.player(n) for n in self._averages} if chosen == "ema" else {}
        was_training = self.training
        try:
            for name in live:
                setattr(self, name, self._averages[name])
            self.eval()
            with torch.no_grad():
                yield chosen
        finally:
            for name, module in live.items():
                setattr(self, name, module)
            self.train(was_training)

    # -- state -------------------------------------------------------------------------------

    def training_state(self) -> dict[str, Any]:
        """Everything that training depends on, beside the precision plugin's scaler: tensors and
        plain containers only. ``memory`` is this rank's own, on the CPU to be sent to another."""
        optimizers = [o.state_dict() for o in self._raw_optimizers()]
        return {
            "networks": self.state_dict(),
            "averages": {n: m.state_dict() for n, m in self._averages.items()},
            "averaged_at": dict(self._averaged_at),
            "optimizers": dict(zip(self.players, optimizers, strict=True)),
            "counters": {
                "batches": self.batches,
                "images_seen": self.images_seen,
                "taken": dict(self.taken),
                "rounds": dict(self.rounds),
                "rollbacks": self.rollbacks,
            },
            "progress": self.progress,
            "met": sorted(self.met),
            "memory": move_data_to_device(
                {n: m.state_dict() for n, m in self._memories.items()}, torch.device("cpu")
            ),
        }

    @property
    def _memories(self) -> dict[str, Stateful]:
        return {**self.memory, "ledger": self._ledger}

    def own_memory(self, saved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The part of this process in the ``memory`` of all that took a checkpoint: its own.

        Where their number has changed it is what they had together if that is known how to make
        (`Stateful`), else its own, and that of rank 0 for new processes.
        """
        found = dict(saved[self.rank if self.rank < len(saved) else 0])
        if len(saved) != self.world:
            for name, memory in self._memories.items():
                if merge := getattr(memory, "merge", None):
                    found[name] = merge([other[name] for other in saved])
        return found

    def _raw_optimizers(self) -> list[torch.optim.Optimizer]:
        found = self.optimizers(use_pl_optimizer=False)
        return found if isinstance(found, list) else [found]

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """The networks and their averages of a training state: enough to sample or translate."""
        self.load_state_dict(state["networks"])
        for name, average in state["averages"].items():
            if name not in self._averages:
                self._averages[name] = self._copy(name)
            self._averages[name].load_state_dict(average)

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `training_state` was taken."""
        self.load_weights(state)
        for name, optimizer in zip(self.players, self._raw_optimizers(), strict=True):
            load_optimizer(optimizer, state["optimizers"][name])
        self._averaged_at = dict(state["averaged_at"])
        counters = state["counters"]
        self.batches = counters["batches"]
        self.images_seen = counters["images_seen"]
        self.rollbacks = counters.get("rollbacks", 0)
        self.taken = dict(counters["taken"])
        self.rounds = dict(counters["rounds"])
        self.progress = state["progress"]
        self.met = set(state["met"])
        for name, memory in self._memories.items():
            memory.load_state_dict(state["memory"][name])
