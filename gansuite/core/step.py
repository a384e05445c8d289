"""`Step`: one batch (or one chunk of it) as the losses of a method see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from gansuite.core.schedule import player_of
from gansuite.data.spec import Batch
from gansuite.draws import Draws

if TYPE_CHECKING:
    from gansuite.core.module import AlternatingModule


MakeStep = Callable[[Sequence[str], Batch, int], "Step"]
"""A step of the updates of a batch, the batch, and the number of the chunk."""


class Step:
    """One batch (or one chunk of it) as the losses see it; lives for that batch.

    ``progress`` is the share of the budget used so far, ``player_batches`` the number of batches
    in which each player was to be updated. ``draws`` has the random numbers of this part of the
    batch.
    """

    def __init__(
        self, method: AlternatingModule, updates: Sequence[str], batch: Batch, chunk: int
    ) -> None:
        self.images_seen = method.images_seen
        self.progress = method.progress
        self.batches = method.batches
        self.player_batches = method.player_batches
        self.position = 0  # of the update within the batch
        self._method = method
        self.updates = updates  # of this batch, in order
        self.batch = batch  # of the update, all its chunks
        self._kept: dict[str, Tensor] = {}
        self._used: dict[str, int] = {}  # where the maker took a picture with its graph
        self._shards = method.world * method.settings.accumulate
        self.chunk = chunk
        self._shard = method.rank * method.settings.accumulate + chunk
        self.draws = Draws(
            method.noise_seed,
            method.batches,
            shard=self._shard,
            device=method.device,
            dtype=cast(torch.dtype, method.dtype),
        )

    @property
    def update(self) -> str:
        """The present update: a player, or ``player.something``."""
        return self.updates[self.position]

    @property
    def player(self) -> str:
        """Whose optimiser makes the present update."""
        return player_of(self.update)

    def due(self, every: int) -> bool:
        """Whether a lazy term is due: in batches 0, every, 2 * every, ... of
        this player."""
        return self.player_batches[self.player] % every == 0

    def number(self, name: str, make: Callable[[], float]) -> float | Tensor:
        """``make()``, which may follow the progress of training; a tensor where batches are
        recorded (`gansuite.core.graphs`). ``name`` is its own in the method."""
        return make()

    def randn(self, n: int, *shape: int) -> Tensor:
        """Standard normal [n, *shape]: for this part of the global batch."""
        return self.draws.randn(n, *shape)

    def rand(self, n: int, *shape: int) -> Tensor:
        """Uniform in [0, 1), [n, *shape]: for this part of the global batch."""
        return self.draws.rand(n, *shape)

    def shuffled_labels(self) -> Tensor:
        """The labels of the global batch in a random order: this part's, [n, K]. Every process
        must call it."""
        mine = self.batch.labels
        assert mine is not None
        whole = self._method.gathered(mine)
        n = len(whole) // self._shards
        order = self.draws.permutation(len(whole))
        return whole[order[self._shard * n : (self._shard + 1) * n].to(whole.device)]

    def shared(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """A value without a graph that several updates of this batch share, made once."""
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def fake(self, name: str, make: Callable[[], Tensor], maker: str = "g") -> Tensor:
        """The picture ``name`` of this batch, made once and shared by the players.

        Its maker gets it with its graph; everyone else detached. If another player asks first and
        the maker's update is still to come, it is made with its graph already and kept;
        otherwise without one. A further update of the maker makes its own: the first has used up
        the graph.
        """
        mine = self.player == maker
        if mine and self._used.setdefault(name, self.position) != self.position:
            self._used[name] = self.position
            del self._kept[name]
        if name not in self._kept:
            later = self.updates[self.position + 1 :]
            if mine or maker in map(player_of, later):
                with self._method.trainable(maker):
                    self._kept[name] = make()
            else:
                with torch.no_grad():
                    self._kept[name] = make()
        return self._kept[name] if mine else self._kept[name].detach()
