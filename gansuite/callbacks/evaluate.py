"""Scores a run under its protocol: at the start (references), at every interval, at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning import Trainer
from torch import Tensor

from gansuite.callbacks.samples import save_strips, to_model
from gansuite.callbacks.session import Session
from gansuite.errors import UserError, nearest
from gansuite.evaluation.comparison import Comparison, directions, to_uint8
from gansuite.evaluation.evaluator import Evaluator
from gansuite.evaluation.extractor import check_weights, inception_file
from gansuite.evaluation.learned import from_state, learned_features
from gansuite.evaluation.pixels import l1
from gansuite.evaluation.protocol import HIGHER_IS_BETTER, Protocol
from gansuite.methods._by_reference import ByReference
from gansuite.processes import broadcast, cpu_group
from gansuite.rng import torch_generator

Make = Callable[[int, Tensor], Tensor]


class Comparisons:
    """Makes the comparisons of a method on the test pictures of its data.

    Under several processes batch j is made by rank j mod world and all are gathered, so the
    pictures are those of a single process.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        e = session.experiment.evaluate
        self.limit, self.batch = e.pictures, e.batch

    def _each(self, pictures: Tensor, make: Make) -> Tensor:
        """`_gathered` as uint8."""
        return self._gathered(pictures, lambda j, part: to_uint8(make(j, part)))

    def _gathered(self, pictures: Tensor, make: Make) -> Tensor:
        """``make(j, batch_j)`` over all batches, on the CPU of every rank."""
        method = self.session.method
        mine: dict[int, Tensor] = {}
        for j, part in enumerate(pictures.split(self.batch)):
            if j % method.world == method.rank:
                mine[j] = make(j, part).cpu()
        if method.world > 1:
            parts: list[Any] = [None] * method.world
            torch.distributed.all_gather_object(parts, mine, group=cpu_group())
            for other in parts:
                mine |= other
        return torch.cat([mine[j] for j in sorted(mine)])

    def _translate(self, pictures: Tensor, to: str) -> Tensor:
        method = self.session.method
        return self._each(pictures, lambda j, part: method.translate(to_model(part, method), to))

    def generated(self, made: bool = True) -> list[Comparison]:
        """``gen``: as many samples as there are test pictures."""
        session, method = self.session, self.session.method
        real = session.data.pictures("test", None, self.limit)
        if not made:
            return [Comparison("gen", real=real, fake=real)]

        def make(j: int, part: Tensor) -> Tensor:
            return method.sample(len(part), torch_generator(0, "evaluate", j))

        def ends(j: int, part: Tensor) -> Tensor:
            generator = torch_generator(0, "walk", j)
            return torch.stack(method.latent_pairs(len(part), generator, Protocol.ppl_epsilon), 1)

        fake, latent_pairs = self._each(real, make), None
        if session.experiment.evaluate.vgg:
            first, second = self._gathered(real, ends).unbind(1)
            latent_pairs = (first, second)
        return [Comparison("gen", real=real, fake=fake, latent_pairs=latent_pairs)]

    def directions(self) -> list[tuple[str, list[str], str]]:
        method = self.session.method
        if not set(method.targets) <= set(method.spec.domains):
            # attributes: from the pictures without each
            return [(f"to_{t}", [f"not {t}"], t) for t in method.targets]
        return [way for way in directions(method.spec.domains) if way[2] in method.targets]

    def translated(self, made: bool = True) -> list[Comparison]:
        """One for each direction; several sources share the number of pictures evenly."""
        return [self._translated(*way, made) for way in self.directions()]

    def _translated(self, name: str, sources: list[str], target: str, made: bool) -> Comparison:
        data = self.session.data
        real = data.pictures("test", target, self.limit)
        limit = max(1, self.limit // len(sources))
        inputs = [data.pictures("test", source, limit) for source in sources]
        method = self.session.method
        fakes = [self._translate(x, target) for x in inputs] if made else inputs
        returns = made and set(sources) <= set(method.targets)
        back = [self._translate(x, s) for x, s in zip(fakes, sources, strict=True) if returns]
        known = set(sources) <= set(method.spec.domains)
        return Comparison(
            name,
            real=real,
            fake=torch.cat(fakes),
            source=torch.cat(inputs),
            truth=_joined([data.truth(s, target, limit) for s in sources if known]),
            mask=_joined([data.masks(s, limit) for s in sources if known]),
            rec=torch.cat(back) if back else None,
            idt=self._translate(real, target) if made else None,
            reference=_joined([self._references(x) for x in inputs]),
            target=target,
        )

    def _references(self, pictures: Tensor) -> Tensor | None:
        """The picture that each is translated in the style of."""
        method = self.session.method
        if not isinstance(method, ByReference):
            return None
        return self._each(pictures, lambda j, part: method.reference_of(to_model(part, method)))

    def __call__(self, made: bool = True) -> list[Comparison]:
        """All of them; with ``made`` false the real pictures stand where made ones would."""
        if made and self.session.method.world > 1:
            # each process has batch statistics of its own; the model is that of rank 0
            for buffer in self.session.method.buffers():
                torch.distributed.broadcast(buffer, 0)
        if self.session.method.task == "generate":
            return self.generated(made)
        return self.translated(made)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    known = [part for part in parts if part is not None]
    return torch.cat(known) if known and len(known) == len(parts) else None


class Scorer:
    """Scores the method, keeping final and best apart.

    ``notes`` receives ``protocol``, ``references``, ``final`` and ``best``. For a generator,
    *do nothing* is a Gaussian fitted to the training pictures.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.compare = Comparisons(session)
        check_weights(session.experiment.evaluate)

    def setup(self, trainer: Trainer) -> None:
        """Fetch or train the networks that look, and fix the protocol.

        Raises:
            UserError: ``evaluate.best_by`` cannot rank.
        """
        session, e = self.session, self.session.experiment.evaluate
        ready: tuple[Any, str] | None = None
        if session.main:  # one process trains and fetches, the others are given what it has
            learned = learned_features(session.data) if e.learned else None
            ready = learned and learned.state_dict(), inception_file(e, session.data, print)
        state, inception = trainer.strategy.broadcast(ready, src=0) or (None, "")
        self.evaluator = Evaluator.of(
            e.model_copy(update={"inception": inception}),
            session.data,
            device=trainer.strategy.root_device,
            learned=from_state(state) if state else None,
        )
        protocol = self.evaluator.protocol
        ranking = [m for m in protocol.metrics if HIGHER_IS_BETTER[m] is not None]
        if e.best_by not in ranking:
            raise UserError(
                f"'evaluate.best_by' is '{e.best_by}', by which this protocol cannot rank"
                f"{nearest(e.best_by, ranking)} (known: {', '.join(ranking)})."
            )
        session.notes["protocol"] = self.evaluator.report()

    def references(self) -> None:
        """Score the reference rows, once per run.

        Raises:
            UserError: no comparison has ``evaluate.best_by``.
        """
        if "references" in self.session.notes:
            return
        session = self.session
        with session.evaluating(), session.method.evaluating("raw"):
            found = self.compare(made=False)  # what the method makes is of no account
            rows = self.evaluator.references(found) if session.main else {}
            by = session.experiment.evaluate.best_by
            # what needs no truth and no source
            known = self._rankable(rows["real_vs_real"]) if session.main else []
            if by not in broadcast(known):
                found = self.compare()
                known = self._rankable(self.evaluator.scores(found)) if session.main else []
            known = broadcast(known)
            if by not in known:
                raise UserError(
                    f"'evaluate.best_by' is '{by}', which no comparison of this run has"
                    f"{nearest(by, known)} (they have: {', '.join(known)})."
                )
            session.notes["references"] = rows
            session.notes["final"] = {}
            session.notes["best"] = {}

    def _rankable(self, scores: dict[str, dict[str, float]]) -> list[str]:
        """The metrics among these that can rank."""
        names = {m for row in scores.values() for m in row}
        metrics = self.evaluator.protocol.metrics
        return [m for m in metrics if m in names and HIGHER_IS_BETTER[m] is not None]

    def __call__(self) -> tuple[dict[str, float], bool]:
        """(``<comparison>/<metric>`` -> value, whether these are the best so far), on rank 0;
        nothing and False elsewhere. Saves the strips."""
        session, e = self.session, self.session.experiment.evaluate
        session.method.assert_finite()
        with session.evaluating():
            with session.method.evaluating(e.weights):
                found = self.compare()
            scores = self.evaluator.scores(found) if session.main else {}
            for c in found if session.main else ():
                save_strips(session.run.path / "samples", c, e.samples)
            session.notes["change"] = {
                c.name: l1(c.fake, c.source) for c in found if c.source is not None
            }
            improved = self._keep(scores)
        return {f"{n}/{m}": v for n, s in scores.items() for m, v in s.items()}, improved

    def _keep(self, scores: dict[str, dict[str, float]]) -> bool:
        """Note the scores as final, and as best if their mean ``best_by`` is the lowest so far."""
        session = self.session
        session.notes["final"] = scores
        by, best = session.experiment.evaluate.best_by, session.notes["best"]
        sign = -1.0 if HIGHER_IS_BETTER[by] else 1.0

        def mean(rows: dict[str, Any]) -> float:
            values = [sign * row[by] for row in rows.values() if by in row]
            return sum(values) / len(values) if values else float("inf")

        if best and mean(scores) >= mean(best):
            return False
        at = session.method.images_seen
        session.notes["best"] = {n: {**s, "images_seen": at} for n, s in scores.items()}
        return True
