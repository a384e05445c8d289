"""The losses of a log interval: added up on their device, read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class LossLedger:
    """Sums of the recorded values, one row for every set of keys that a batch has had.

    Nothing is synchronised before `means`. The state is this process's own.
    """

    def __init__(self) -> None:
        self.batch: list[tuple[str, Tensor]] = []  # the values of this batch
        self._rows: dict[str, dict[str, Any]] = {}  # and of all since the last `means`

    def record(self, key: str, value: Tensor) -> None:
        """Add a scalar of the batch in hand."""
        self.batch.append((key, value.detach().float()))

    def close_batch(self, batch: int) -> None:
        """Add the values of batch number ``batch`` to the sums."""
        if not self.batch:
            return
        keys, found = zip(*self.batch, strict=True)
        self.batch = []
        values = torch.stack(found)
        # the batch in which a value ceased to be finite: every value follows soon after
        bad = torch.where(values - values == 0, torch.inf, float(batch))
        row = self._rows.get("\n".join(keys))
        if row is None:
            row = {"sum": torch.zeros_like(values), "bad": torch.full_like(bad, torch.inf), "n": 0}
            self._rows["\n".join(keys)] = row
        row["sum"] = row["sum"].to(values.device) + values
        row["bad"] = torch.minimum(row["bad"].to(bad.device), bad)
        row["n"] += 1

    def means(
        self, mean: Callable[[Tensor], Tensor], least: Callable[[Tensor], Tensor]
    ) -> tuple[dict[str, float], str]:
        """(means since the last call, the key that first ceased to be finite or ""), over all
        processes; ``mean`` and ``least`` reduce a tensor over them."""
        if not self._rows:
            return {}, ""
        keys = [key.split("\n") for key in self._rows]
        rows, self._rows = list(self._rows.values()), {}
        total = mean(torch.cat([row["sum"] for row in rows]))
        sums = total.tolist()
        names = [name for group in keys for name in group]
        if not bool(torch.isfinite(total).all()):
            first = least(torch.cat([row["bad"] for row in rows])).tolist()
            return {}, names[first.index(min(first))]
        counts = [row["n"] for row, group in zip(rows, keys, strict=True) for _ in group]
        found = {}
        for name in dict.fromkeys(names):
            at = [i for i, other in enumerate(names) if other == name]
            found[name] = sum(sums[i] for i in at) / sum(counts[i] for i in at)
        return found, ""

    def state_dict(self) -> dict[str, Any]:
        """{keys: {sum [k], bad [k], n}}; the keys of a row are joined by newlines."""
        return {
            key: {"sum": row["sum"].clone(), "bad": row["bad"].clone(), "n": row["n"]}
            for key, row in self._rows.items()
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batch = []
        self._rows = {key: dict(row) for key, row in state.items()}

    @staticmethod
    def merge(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The state of all processes together, from those of each."""
        return {
            key: {
                "sum": torch.stack([state[key]["sum"] for state in states]).mean(0),
                "bad": torch.stack([state[key]["bad"] for state in states]).amin(0),
                "n": row["n"],
            }
            for key, row in states[0].items()
        }
