"""For test_ddp.py: trains experiments on two processes and notes what each process has."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import torch
from helpers import EachBatch, experiment

from gansuite import engine
from gansuite.config import Experiment
from gansuite.methods.base import Method, Step


def stop_and_resume(e: Experiment, batch: int) -> None:
    def stop(method: Method) -> None:
        if method.batches == batch:
            raise InterruptedError

    made, watching = engine.make_trainer, engine.processes.watching_others
    engine.make_trainer = lambda e, c: made(e, [*c, EachBatch(stop)])
    engine.processes.watching_others = lambda release: contextlib.nullcontext()
    with contextlib.suppress(InterruptedError):
        engine.train(e)
    engine.make_trainer, engine.processes.watching_others = made, watching
    torch.distributed.barrier()  # the checkpoint is written
    engine.train(e)


def main(out: Path, cases: dict[str, list[str]], stop: int) -> None:
    """In each of two ranks: ``cases`` as in `test_ddp`."""
    for case, (name, batches, *overrides) in cases.items():
        noise: list[Any] = []
        draw = Step.randn

        def spy(self: Step, n: int, *shape: int, noise: Any = noise, draw: Any = draw) -> Any:
            noise.append(draw(self, n, *shape))
            return noise[-1]

        Step.randn = spy  # type: ignore[method-assign]
        engine.rehearse = lambda *_: None  # it draws as well
        e = experiment(name, out / case, int(batches), *overrides, "trainer.devices=2")
        initial = engine.ready_method(e, engine.build_data(e)).state_dict()
        session = engine.train(e)
        Step.randn = draw  # type: ignore[method-assign]
        found = {
            "initial": initial,
            "networks": session.method.state_dict(),
            "averages": session.method.training_state()["averages"],
            "noise": noise,
            "world": session.method.world,
        }
        if stop:
            stop_and_resume(e.model_copy(update={"out": str(out / "stopped" / case)}), stop)
        torch.save(found, out / f"{case}-{session.method.rank}.pt")
