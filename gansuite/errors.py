"""How a command ends that does not end well: the exception whose message is meant for the person at
the keyboard, the signals that stop a run, and the exit code of a run that was stopped."""

from __future__ import annotations

import contextlib
import difflib
import signal
from collections.abc import Iterable, Iterator
from typing import Any

STOPPED = 75
"""Exit code of a process that was asked to stop and can be resumed."""
RESUMES = "the same command resumes the run"
"""How a sentence ends that is said where a run was lost and nothing is wrong with it."""
SCHEDULER = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
"""The signals by which a scheduler asks a run to save and to leave, resumably."""


@contextlib.contextmanager
def leaving_when_asked() -> Iterator[None]:
    """Inside, a signal of a scheduler ends the command with 75, so that it is started again.
    Training heeds these signals itself, and saves before it leaves. Behind it a process that ends
    with its command (`ends_with_its_command`) heeds none: a scheduler sends several, and the last
    would end by force what is ending."""

    def leave(number: int, frame: Any) -> None:
        for other in SCHEDULER:
            signal.signal(other, signal.SIG_IGN)  # once is enough
        print(f"Stopped by {signal.Signals(number).name}; the same command resumes it.", flush=True)
        raise SystemExit(STOPPED)

    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread: whoever runs us handles signals
        before = {number: signal.signal(number, leave) for number in SCHEDULER}
    try:
        yield
    finally:
        for number, handler in before.items():
            handler = signal.SIG_DFL if handler is None else handler
            signal.signal(number, signal.SIG_IGN if _ends else handler)


_ends = False


def ends_with_its_command() -> None:
    """Say that this process is one command and nothing else."""
    global _ends
    _ends = True


def heed_no_more() -> None:
    """Have further signals of a scheduler change nothing, if this process ends with its command:
    it leaves, as it was asked, and has saved."""
    with contextlib.suppress(ValueError):  # not the main thread
        for number in SCHEDULER if _ends else ():
            signal.signal(number, signal.SIG_IGN)


class UserError(Exception):
    """Bad input. Its text is one clear sentence; the command line prints it and exits with 2."""


class NotFinite(UserError):
    """A loss or a parameter is infinite or no number; what is saved is from before.

    ``what`` it is, ``images_seen`` when it was seen, ``rollbacks``: after so many
    attempts to mend it.
    """

    def __init__(self, what: str, images_seen: int, rollbacks: int = 0) -> None:
        self.what, self.images_seen, self.rollbacks = what, images_seen, rollbacks
        self.text = f"{what} is not finite"
        tried = f"After {rollbacks} rollback(s): " if rollbacks else ""
        super().__init__(
            f"{tried}Training stopped at {images_seen / 1000:g} kimg: {self.text}; "
            f"checkpoints are from before. A lower 'optim.*.lr', 'optim.*.clip=1' or "
            f"'trainer.precision=32-true' helps, or 'health.action=rollback', which resumes from "
            f"them with other noise."
        )


def nearest(word: str, options: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the closest of ``options``, else an empty string."""
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
