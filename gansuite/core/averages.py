"""Averages of a player's weights (EMA), by half-life in pictures."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from gansuite.config import Ema


class WeightAverages:
    """Averaged copies of players, outside the module tree: neither trained nor wrapped by DDP.

    With ``ema.rampup`` the half-life is at most that share of the pictures seen before the batch,
    as StyleGAN2 counts. An update that is not finite never reaches an average.
    """

    def __init__(self, ema: Ema) -> None:
        self.ema = ema
        self.modules: dict[str, nn.Module] = {}
        self._updated_at: dict[str, int] = {}  # in pictures seen

    def __bool__(self) -> bool:
        return bool(self.modules)

    def track(self, name: str, player: nn.Module) -> None:
        """Begin the average of a player with its present weights."""
        self.modules[name] = copy.deepcopy(player).requires_grad_(False).eval()

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        for module in self.modules.values():
            module.to(device, dtype)

    @torch.no_grad()
    def update(self, name: str, player: nn.Module, images_seen: int, batch: int) -> None:
        """Move the average towards ``player`` after a batch of ``batch`` pictures."""
        assert self.ema.half_life_kimg is not None
        half_life = 1000 * self.ema.half_life_kimg
        if self.ema.rampup is not None:
            half_life = min(half_life, (images_seen - batch) * self.ema.rampup)
        beta = 0.5 ** ((images_seen - self._updated_at.get(name, 0)) / max(half_life, 1e-8))
        self._updated_at[name] = images_seen
        average = self.modules[name]
        # decided on the device, without a synchronisation
        floats = [t for t in (*player.parameters(), *player.buffers()) if t.is_floating_point()]
        finite = torch.isfinite(torch.stack(torch._foreach_norm(floats)).sum())
        for a, p in zip(average.parameters(), player.parameters(), strict=True):
            torch.where(finite, torch.lerp(a, p, 1 - beta), a, out=a)
        for kept, buffer in zip(average.buffers(), player.buffers(), strict=True):
            torch.where(finite, buffer, kept, out=kept)

    def state_dict(self) -> dict[str, Any]:
        return {
            "weights": {n: m.state_dict() for n, m in self.modules.items()},
            "updated_at": dict(self._updated_at),
        }

    def load_state_dict(self, state: Mapping[str, Any], players: Mapping[str, nn.Module]) -> None:
        """Averages of ``players``, also of those that were not tracked yet."""
        for name, weights in state["weights"].items():
            if name not in self.modules:
                self.track(name, players[name])
            # a run in double precision resumes before its averages were told of that
            dtype = next((p.dtype for p in players[name].parameters()), torch.float32)
            self.modules[name].to(dtype=dtype).load_state_dict(weights)
        self._updated_at = dict(state["updated_at"])
