"""Watches a run by the rules of `evaluation.health`, and warns, stops or rolls back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning import Trainer

from gansuite.callbacks.checkpoint import newest_for_all, restore
from gansuite.callbacks.session import Session
from gansuite.errors import NotFinite
from gansuite.evaluation.health import (
    INTERVALS,
    MEANING,
    Symptom,
    ending,
    saturation,
    symptoms,
)
from gansuite.losses.adversarial import Adversarial
from gansuite.methods.base import Method
from gansuite.runs import read_lines

_TERMS = ("loss/d/gan", "loss/d/dis")


def undecided(method: Method) -> float | None:
    """The adversarial loss of the method's discriminator when it can't tell; None: no floor."""
    used = [v for v in vars(method).values() if isinstance(v, Adversarial)]
    return used[0].undecided if used else None


class Health:
    """Looks at the means of each log interval and the scores of each evaluation, which are at hand
    then: nothing is computed or synchronised per batch.

    ``notes["health"]`` is the list of events, ``{images_seen, batches, event, name, action,
    message}``: ``action`` is what was done (warn, stop, rollback with ``back_to``; "end" for what
    held at the end of the budget). Those on the way are lines of ``metrics.jsonl`` too.
    ``unhealthy``: the state showed a symptom at the last look, so that it must not replace one to
    go back to. ``say`` prints a line.
    """

    def __init__(self, session: Session, say: Callable[[str], None]) -> None:
        self.session, self.say = session, say
        self.undecided = undecided(session.method)
        self.unhealthy = False

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.session.notes.setdefault("health", [])
        return found

    @property
    def may_roll_back(self) -> bool:
        """Whether a rollback is asked for and left."""
        session = self.session
        left = session.method.rollbacks < session.experiment.health.retries
        return session.rolls_back and left

    def look(self, trainer: Trainer, logged: bool) -> bool:
        """Act on the symptoms of the state now, which has been ``logged`` or scored; whether the
        run has gone back to its checkpoint."""
        session = self.session
        # only rank 0 has the scores; all must act alike
        seen = trainer.strategy.broadcast(self._symptoms(logged) if session.main else [], src=0)
        self.unhealthy = bool(seen)
        if session.finished:  # too late to act: `at_end` says what is left to say
            return False
        for symptom in seen:
            if symptom.due and self.may_roll_back:
                self._roll_back(trainer, symptom.event, symptom.name, symptom.text)
                return True
            if symptom.due:
                self._warn_or_stop(symptom)
        return False

    def _symptoms(self, logged: bool) -> list[Symptom]:
        session, notes = self.session, self.session.notes
        losses: list[float] = notes.setdefault("d_losses", [])
        if logged:
            losses += [session.losses[k] for k in _TERMS if k in session.losses]
            del losses[:-INTERVALS]
        found = symptoms(
            self._evaluations(),
            notes.get("references", {}),
            notes.get("change", {}),
            session.method.progress,
        )
        saturated = saturation(losses, self.undecided)
        return [*found, *([saturated] if saturated else [])]

    def _evaluations(self) -> list[dict[str, Any]]:
        return [r for r in read_lines(self.session.run.metrics) if r["kind"] == "eval"]

    def _warn_or_stop(self, symptom: Symptom) -> None:
        session = self.session
        of_kind = [e for e in self.events if e["event"] == symptom.event]
        if any(e["action"] in ("warn", "stop") for e in of_kind):
            return  # said before; a run that is resumed after it was stopped goes on
        action = "warn" if session.experiment.health.action == "warn" else "stop"
        self._note(symptom.event, symptom.name, action, symptom.text)
        if action == "stop":
            tried = f" after {session.method.rollbacks} rollbacks" * session.rolls_back
            session.stopped = session.stopped or "health"
            session.stop_reason = (
                f"Stopped at {session.method.images_seen / 1000:g} kimg{tried}, "
                f"{MEANING[symptom.event]}: {symptom.text}; the same command goes on regardless."
            )

    def not_finite(self, trainer: Trainer, error: NotFinite) -> None:
        """Go back from a state that is not finite.

        Raises:
            NotFinite: rollbacks are not asked for, or used up.
        """
        if not self.session.rolls_back:
            raise error
        if not self.may_roll_back:
            tries = self.session.experiment.health.retries
            raise NotFinite(error.what, error.images_seen, rollbacks=tries)
        self._roll_back(trainer, "non_finite", "", error.text)

    def _roll_back(self, trainer: Trainer, event: str, name: str, text: str) -> None:
        """Take the state of ``last.ckpt`` back, and go on with other noise and other pictures.

        Everything follows from that file and from what led here, so that a run which is
        interrupted in between rolls back in the same way again.
        """
        session, method = self.session, self.session.method
        content = newest_for_all(session, interim=False)
        assert content is not None
        notes = session.notes
        self._note(event, name, "rollback", text, content["method"]["counters"]["images_seen"])
        position = method.batches + notes.get("data_ahead", 0)
        again = method.rollbacks + 1
        kept: dict[str, Any] = {
            k: notes[k] for k in ("health", "best", "flops_per_image") if k in notes
        }
        restore(session, trainer, content)
        method.rollbacks = again
        notes.clear()
        notes.update({**content["notes"], **kept, "data_ahead": position - method.batches})
        self.unhealthy = False
        if session.main:
            session.run.rewind(content["lengths"])
            lines = [r for r in read_lines(session.run.metrics) if r["kind"] == "health"]
            for past in self.events[len(lines) :]:
                session.run.append(session.run.metrics, {"kind": "health", **past})
            session.loggers.rewind(method.images_seen)

    def _note(self, event: str, name: str, action: str, text: str, back_to: int = -1) -> None:
        session, method = self.session, self.session.method
        where = {"images_seen": method.images_seen, "batches": method.batches, "event": event}
        entry = {**where, "name": name, "action": action, "message": text}
        done = ""
        if action == "rollback":
            entry["back_to"] = back_to
            done = f"; back to {back_to / 1000:g} kimg, with other noise"
        self.events.append(entry)
        if session.main and action in ("warn", "stop"):
            session.run.append(session.run.metrics, {"kind": "health", **entry})
        if action in ("warn", "rollback"):
            kimg = method.images_seen / 1000
            self.say(f"{kimg:g} kimg, {MEANING[event]}: {text}{done}")

    def at_end(self) -> None:
        """Note what holds at the end of the budget."""
        for s in [*self._symptoms(logged=False), *ending(self._evaluations())]:
            if s.event != "saturated" or s.due:
                entry = (s.event, s.name, "end")
                if entry not in [(e["event"], e["name"], e["action"]) for e in self.events]:
                    self._note(*entry, s.text)

    def at_failure(self, error: BaseException) -> None:
        """Note a number that is none, which ends the run."""
        # without a checkpoint there is nothing to resume, and the folder goes again
        if isinstance(error, NotFinite) and self.session.run.last.is_file():
            self._note("non_finite", "", "stop", error.text)
