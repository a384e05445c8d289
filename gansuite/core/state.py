"""What a method's training consists of at any moment, and how it is saved and put back."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, cast

import torch
from lightning import LightningModule
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor, nn
from torch.nn import SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from gansuite.config import Ema
from gansuite.core.averages import WeightAverages
from gansuite.core.ledger import LossLedger
from gansuite.core.optimizers import load_optimizer
from gansuite.core.schedule import player_of
from gansuite.core.settings import Settings
from gansuite.data.spec import DataSpec
from gansuite.errors import UserError


class Stateful(Protocol):
    """What a method may keep in ``rank_state`` beside networks: an image pool, for instance.

    It is each process's own, and its tensors follow the device of what comes in: a loaded state
    is on the CPU. With a static ``merge(states)`` that makes one state of those of all processes,
    a run can also be resumed on another number of them.
    """

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


class TrainingState(LightningModule):
    """A `LightningModule` of players with averaged weights, counters and a loss ledger, whose
    whole state goes into a checkpoint: the project's own, or Lightning's.

    Of a Lightning checkpoint ``trainer.fit(ckpt_path=...)`` resumes exactly, if the data module
    does too (`gansuite.DataModule`).
    """

    averaged: ClassVar[tuple[str, ...]]
    networks: ClassVar[Mapping[str, tuple[str, ...]]]
    alternation: Sequence[Sequence[str]]
    spec: DataSpec
    settings: Settings

    def __init__(self) -> None:
        super().__init__()
        self.rank_state: dict[str, Stateful] = {}  # differs between processes
        self.ledger = LossLedger()
        self.averages = WeightAverages(Ema())
        self.batches = 0
        self.images_seen = 0
        self.rollbacks = 0  # how often training went back to a checkpoint; each has its own noise
        self.progress = 0.0  # share of the budget that is used
        self.update_counts: dict[str, int] = {}  # of each player
        self.player_batches: dict[str, int] = {}  # in which a player was to be updated
        self.frozen: dict[str, list[nn.Parameter]] = {}  # of each player, what is not trained

    # -- players -----------------------------------------------------------------------------

    @property
    def players(self) -> tuple[str, ...]:
        """Names of the players, generator first."""
        names = {player_of(update) for updates in self.alternation for update in updates}
        return tuple(sorted(names, key=lambda name: (name != "g", name)))

    def networks_of(self, player: str) -> tuple[str, ...]:
        """The attributes that hold the networks of ``player``."""
        return self.networks.get(player, (player,))

    def network(self, name: str) -> nn.Module:
        return cast(nn.Module, getattr(self, name))

    def player(self, name: str) -> nn.Module:
        """All networks of a player."""
        names = self.networks_of(name)
        if len(names) == 1:
            return self.network(names[0])
        return nn.ModuleDict({n: self.network(n) for n in names})

    def parameter_counts(self) -> dict[str, int]:
        """Number of parameters of each network, player by player."""
        names = (n for player in self.players for n in self.networks_of(player))
        return {n: sum(p.numel() for p in self.network(n).parameters()) for n in names}

    def let_train(self, name: str, on: bool = True) -> None:
        """Whether the parameters of player ``name`` require gradients; the frozen ones never do."""
        self.player(name).requires_grad_(on)
        for p in self.frozen.get(name, ()):
            p.requires_grad_(False)

    @contextlib.contextmanager
    def trainable(self, name: str) -> Iterator[None]:
        """Inside, the parameters of player ``name`` require gradients, whoever is updated."""
        parameters = list(self.player(name).parameters())
        before = [p.requires_grad for p in parameters]
        self.let_train(name)
        try:
            yield
        finally:
            for p, required in zip(parameters, before, strict=True):
                p.requires_grad_(required)

    # -- several processes -------------------------------------------------------------------

    @property
    def rank(self) -> int:
        return self.global_rank if self._trainer is not None else 0

    @property
    def world(self) -> int:
        return self.trainer.world_size if self._trainer is not None else 1

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

    # -- averaged weights --------------------------------------------------------------------

    def adopt_averages(self) -> None:
        """Put the averaged weights, where there are any, in the players' place for good."""
        for name, module in self.averages.modules.items():
            setattr(self, name, module)

    @contextlib.contextmanager
    def evaluating(self, weights: str = "auto") -> Iterator[str]:
        """Inside, the method is in eval mode, without gradients, and with its ``ema`` or ``raw``
        weights ("auto": ema where there is one); yields which."""
        chosen = ("ema" if self.averages else "raw") if weights == "auto" else weights
        if chosen == "ema" and not self.averages:
            raise UserError("There are no averaged weights here (ema.half_life_kimg was not set).")
        live = {n: self.network(n) for n in self.averages.modules} if chosen == "ema" else {}
        was_training = self.training
        try:
            for name in live:
                setattr(self, name, self.averages.modules[name])
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
        plain containers only. ``rank_state`` is this process's own, on the CPU to be sent."""
        optimizers = [o.state_dict() for o in self._raw_optimizers()]
        return {
            "networks": self.state_dict(),
            "optimizers": dict(zip(self.players, optimizers, strict=True)),
            **self._extra_state(),
            "rank_state": self._own_state(),
        }

    def _extra_state(self) -> dict[str, Any]:
        return {
            "averages": self.averages.state_dict(),
            "counters": {
                "batches": self.batches,
                "images_seen": self.images_seen,
                "update_counts": dict(self.update_counts),
                "player_batches": dict(self.player_batches),
                "rollbacks": self.rollbacks,
            },
            "progress": self.progress,
        }

    @property
    def _stateful(self) -> dict[str, Stateful]:
        return {**self.rank_state, "ledger": self.ledger}

    def _own_state(self) -> dict[str, Any]:
        found = {n: m.state_dict() for n, m in self._stateful.items()}
        return cast(dict[str, Any], move_data_to_device(found, torch.device("cpu")))

    def own_part(self, saved: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The part of this process in the ``rank_state`` of all that took a checkpoint: its own, or
        where their number has changed what they had together (`Stateful`).

        Raises:
            UserError: with another number of processes training would not go on as it did.
        """
        if len(saved) == self.world:
            return dict(saved[self.rank])
        found = {}
        for name, kept in self._stateful.items():
            states = [other[name] for other in saved]
            if merge := getattr(kept, "merge", None):
                found[name] = merge(states)
            elif any(not isinstance(v, Tensor) or v.numel() for s in states for v in s.values()):
                self._refuse_processes(len(saved), f"each of which has a {name} of its own")
            else:
                found[name] = states[0]
        if any(isinstance(m, _BatchNorm) and type(m) is not SyncBatchNorm for m in self.modules()):
            self._refuse_processes(len(saved), "each of which has normalised its share of a batch")
        share = (self.settings.images_per_batch or 0) // self.settings.accumulate
        for group in {getattr(m, "mbstd_group", 1) for m in self.modules()}:
            if share // len(saved) % group or share // self.world % group:
                self._refuse_processes(len(saved), "each of which has compared its own pictures")
        return found

    def _refuse_processes(self, before: int, why: str) -> None:
        raise UserError(
            f"This run was trained by {before} process(es), {why}, so {self.world} cannot go on "
            f"exactly where they stopped; start {before} again ('trainer.devices' x "
            f"'trainer.num_nodes'), or give 'name=' for a new run."
        )

    def _raw_optimizers(self) -> list[torch.optim.Optimizer]:
        found = self.optimizers(use_pl_optimizer=False)
        return found if isinstance(found, list) else [found]

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """The networks and their averages of a training state: enough to sample or translate."""
        self.load_state_dict(state["networks"])
        self._load_averages(state["averages"])

    def _load_averages(self, state: Mapping[str, Any]) -> None:
        self.averages.load_state_dict(state, {n: self.network(n) for n in self.averaged})

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """Continue exactly where `training_state` was taken."""
        self._from_elsewhere()
        self.load_weights(state)
        for name, optimizer in zip(self.players, self._raw_optimizers(), strict=True):
            load_optimizer(optimizer, state["optimizers"][name])
        self._load_counters(state)
        self._load_own(state["rank_state"])

    def _from_elsewhere(self) -> None:
        """Before another state is taken over."""

    def _load_counters(self, state: Mapping[str, Any]) -> None:
        counters = state["counters"]
        self.batches = counters["batches"]
        self.images_seen = counters["images_seen"]
        self.rollbacks = counters["rollbacks"]
        self.update_counts = dict(counters["update_counts"])
        self.player_batches = dict(counters["player_batches"])
        self.progress = state["progress"]

    def _load_own(self, state: Mapping[str, Any]) -> None:
        for name, kept in self._stateful.items():
            kept.load_state_dict(state[name])

    # -- Lightning's checkpoints -------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        own = [self._own_state()]
        if self.world > 1:
            own = [None] * self.world  # type: ignore[list-item]
            torch.distributed.all_gather_object(own, self._own_state())
        checkpoint["gansuite"] = {**self._extra_state(), "rank_state": own}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["gansuite"]
        self._from_elsewhere()
        self._load_averages(state["averages"])
        self._load_counters(state)
        self._load_own(self.own_part(state["rank_state"]))

    def _remember_options(self, options: Mapping[str, Any]) -> None:
        """What Lightning keeps as hyperparameters: the data's facts and the method's options, in
        plain containers, so that its checkpoints load with ``weights_only=True``."""
        self._set_hparams({"data": self.spec.to_dict(), **options})
        self._hparams_initial = copy.deepcopy(self._hparams)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: Any, map_location: Any = "cpu", **options: Any
    ) -> Any:
        """The method that an ordinary Trainer saved, with its averages; ``options`` override those
        that it was made with. Loads with ``weights_only=True``."""
        content = torch.load(checkpoint_path, map_location=map_location, weights_only=True)
        given = dict(content["hyper_parameters"])
        spec = DataSpec.from_dict(given.pop("data"))
        method = cls(spec, **{**given, **options})  # type: ignore[call-arg]
        method.on_load_checkpoint(content)
        method.load_state_dict(content["state_dict"])
        return method
