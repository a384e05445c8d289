"""Peak memory of training and of evaluation, apart."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """The most memory in use at once, in bytes: of the device on CUDA, of the process elsewhere.

    Where the system's mark cannot be set back (not on Linux, or not allowed) ``training`` is that
    of the whole process and ``evaluation`` stays None.
    """

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self._training = 0.0
        self._evaluation: float | None = None
        self._apart = False

    def start(self, device: torch.device) -> None:
        """Training begins now, on ``device``; what was before does not count."""
        self.device = device
        self._apart = self._reset()

    @property
    def training(self) -> float:
        return max(self._training, self._peak())

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """What is used inside counts as evaluation."""
        if not self._apart:
            yield
            return
        self._training = self.training
        self._reset()
        try:
            yield
        finally:
            self._evaluation = max(self._evaluation or 0.0, self._peak())
            self._reset()

    def megabytes(self) -> dict[str, float | None]:
        """As in ``results.json``: ``peak_memory_mb`` of training, ``peak_memory_eval_mb``."""
        pair = {"peak_memory_mb": self.training, "peak_memory_eval_mb": self._evaluation}
        return {k: None if v is None else round(v / 1e6, 1) for k, v in pair.items()}

    def _reset(self) -> bool:
        """Set the mark back to what is in use now; False where that cannot be done."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return True
        try:
            _RESET.write_text("5")
        except OSError:
            return False
        return True

    def _peak(self) -> float:
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s*(\d+) kB", _STATUS.read_text())
            if found:
                return 1024.0 * int(found[1])
        try:
            import resource
        except ImportError:  # Windows
            return 0.0
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return float(peak if sys.platform == "darwin" else 1024 * peak)
