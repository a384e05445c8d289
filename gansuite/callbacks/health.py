"""Watches a run by the rules of `evaluation.health`, and warns, stops or rolls back."""

from __future__ import annotations

from typing import Any

from lightning import LightningModule, Trainer

from gansuite.callbacks.checkpoint import newest_for_all, restore
from gansuite.callbacks.interval import crossed
from gansuite.callbacks.progress import Progress
from gansuite.callbacks.record import Recorder
from gansuite.callbacks.session import RunCallback, Session
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


class Health(RunCallback):
    """Looks at the means of each log interval and the scores of each evaluation, which are at hand
    then: nothing is computed or synchronised per batch.

    ``notes["health"]`` is the list of events, ``{images_seen, batches, event, name, action,
    message}``: ``action`` is what was done (warn, stop, rollback with ``back_to``; "end" for what
    held at the end of the budget). Those on the way are lines of ``metrics.jsonl`` too. Comes after
    the callbacks that measure and before those that save.
    """

    def __init__(self, session: Session, recorder: Recorder, progress: Progress) -> None:
        super().__init__(session)
        self.recorder, self.progress = recorder, progress
        e = session.experiment
        self.intervals = [
            None if k is None else 1000 * k for k in (e.log.every_kimg, e.evaluate.every_kimg)
        ]
        self.undecided = undecided(session.method)

    @property
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.session.notes.setdefault("health", [])
        return found

    def after_batch(self, trainer: Trainer) -> None:
        session = self.session
        after = session.method.images_seen
        before = after - session.data.images_per_batch
        logged, scored = (crossed(every, before, after) for every in self.intervals)
        if session.trouble is None and session.finished and session.rolls_back:
            try:  # afterwards there is no batch left to go back from
                session.method.assert_finite()
            except NotFinite as error:
                session.trouble = error
        if session.trouble is not None:
            self._not_finite(trainer, session.trouble)
        elif logged or scored:
            self._look(trainer, logged)

    def _look(self, trainer: Trainer, logged: bool) -> None:
        session = self.session
        seen = self._symptoms(logged) if session.main else []
        # only rank 0 has the scores; all must act alike
        seen = trainer.strategy.broadcast(seen, src=0)
        session.suspect = bool(seen)
        if session.finished:  # too late to act: `on_train_end` says what is left to say
            return
        for symptom in seen:
            if symptom.due:
                self._act(trainer, symptom)
                if not session.suspect:  # rolled back
                    return

    def _symptoms(self, logged: bool) -> list[Symptom]:
        session, notes = self.session, self.session.notes
        losses: list[float] = notes.setdefault("d_losses", [])
        if logged:
            losses += [session.latest[k] for k in _TERMS if k in session.latest]
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

    def _act(self, trainer: Trainer, symptom: Symptom) -> None:
        session, guard = self.session, self.session.experiment.guard
        action: str = guard.action
        if action == "rollback":
            if session.method.rollbacks < guard.retries:
                self._roll_back(trainer, symptom.event, symptom.name, symptom.text)
                return
            action = "stop"
        of_kind = [e for e in self.events if e["event"] == symptom.event]
        if any(e["action"] in ("warn", "stop") for e in of_kind):
            return  # said before; a run that is resumed after it was stopped goes on
        self._note(symptom.event, symptom.name, action, symptom.text)
        if action == "stop":
            tried = f" after {session.method.rollbacks} rollbacks" * session.rolls_back
            session.stopped = session.stopped or "guard"
            session.told = (
                f"Stopped at {session.method.images_seen / 1000:g} kimg{tried}, "
                f"{MEANING[symptom.event]}: {symptom.text}; the same command goes on regardless."
            )
            trainer.should_stop = True

    def _not_finite(self, trainer: Trainer, error: NotFinite) -> None:
        session = self.session
        tries = session.experiment.guard.retries
        if session.method.rollbacks >= tries:
            raise NotFinite(error.what, error.images_seen, rollbacks=tries)
        self._roll_back(trainer, "non_finite", "", error.text)
        session.trouble = None

    def _roll_back(self, trainer: Trainer, event: str, name: str, text: str) -> None:
        """Take the state of ``last.ckpt`` back, and go on with other noise and other pictures.

        Everything follows from that file and from what led here, so that a run which is
        interrupted in between rolls back in the same way again.
        """
        session, method = self.session, self.session.method
        content = newest_for_all(session)
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
        session.suspect = False
        trainer.should_stop = bool(session.stopped)
        if session.main:
            session.run.rewind(content["lengths"])
            lines = [r for r in read_lines(session.run.metrics) if r["kind"] == "health"]
            for past in self.events[len(lines) :]:
                session.run.append(session.run.metrics, {"kind": "health", **past})
        self.recorder.begin()

    def _note(self, event: str, name: str, action: str, text: str, back_to: int = -1) -> None:
        session, method = self.session, self.session.method
        said = {"images_seen": method.images_seen, "batches": method.batches, "event": event}
        entry = {**said, "name": name, "action": action, "message": text}
        done = ""
        if action == "rollback":
            entry["back_to"] = back_to
            done = f"; back to {back_to / 1000:g} kimg, with other noise"
        self.events.append(entry)
        if session.main and action in ("warn", "stop"):
            session.run.append(session.run.metrics, {"kind": "health", **entry})
        if action in ("warn", "rollback"):
            kimg = method.images_seen / 1000
            self.progress.say(f"{kimg:g} kimg, {MEANING[event]}: {text}{done}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        session = self.session
        if session.trouble is not None:
            raise session.trouble
        if session.stopped or not session.main:
            return
        records = self._evaluations()
        for s in [*self._symptoms(logged=False), *ending(records)]:
            if s.event != "saturated" or s.due:
                entry = (s.event, s.name, "end")
                if entry not in [(e["event"], e["name"], e["action"]) for e in self.events]:
                    self._note(*entry, s.text)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        # without a checkpoint there is nothing to resume, and the folder goes again
        if isinstance(exception, NotFinite) and self.session.run.last.is_file():
            self._note("non_finite", "", "stop", exception.text)
