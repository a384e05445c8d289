"""How a command ends that does not end well: the exception whose message is meant for the person at
the keyboard, and the exit code of a run that was stopped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

STOPPED = 75
"""Exit code of a process that was asked to stop and can be resumed."""


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
