"""Runs as children of this process, on this machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence

from gansuite.compare.executors.child import Child, cores, own_environment, threads
from gansuite.compare.jobs import Job
from gansuite.runs import Run


class Slots:
    """How many runs go on at once, and what each of them may use.

    Without a number: one per GPU, or one. With several at once each has one GPU, taken in turn,
    and its share of the processor cores; one alone has everything.
    """

    def __init__(self, jobs: int | None) -> None:
        import torch

        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        count = torch.cuda.device_count()
        self.gpus = shown.split(",")[:count] if shown else [str(i) for i in range(count)]
        self.count = jobs or max(1, len(self.gpus))

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of the run in ``slot``."""
        env = own_environment()
        if self.count > 1 and self.gpus:
            env["CUDA_VISIBLE_DEVICES"] = self.gpus[slot % len(self.gpus)]
        env["OMP_NUM_THREADS"] = threads(max(1, cores() // self.count))
        return env


class Local:
    """Keeps the slots busy; asked to leave, it stops its children and waits for them."""

    every = 0.2
    left = "the same command resumes it."

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self._children: dict[int, tuple[Job, Child]] = {}  # by slot

    def submit(self, jobs: Sequence[Job]) -> list[Job]:
        changed = []
        for job in [job for job in jobs if job.state == "waiting"]:
            free = set(range(self.slots.count)) - self._children.keys()
            if not free:
                break
            changed.append(job)
            if Run(job.path).held():
                job.state = "elsewhere"
                continue
            slot = min(free)
            environment = self.slots.environment(slot)
            try:
                child = Child(job.path, job.planned.arguments, environment)
            except OSError as error:
                job.state = "failed"
                job.reason = f"{job.path} cannot be written ({error.strerror})."
                continue
            self._children[slot] = (job, child)
            job.state, job.last_line = "running", time.monotonic()
        return changed

    def poll(self, jobs: Sequence[Job]) -> list[Job]:
        changed = []
        for slot, (job, child) in list(self._children.items()):
            code = child.process.poll()
            if code is not None:
                del self._children[slot]
                job.state, job.reason = child.conclude(code)
                changed.append(job)
        return changed

    def leave(self, jobs: Sequence[Job], urgent: Callable[[], bool]) -> None:
        """Ask what still runs to stop, and wait for it; asked twice, end it at once."""
        for _, child in self._children.values():
            child.send(signal.SIGTERM)
        killed = False
        while self._children:
            if urgent() and not killed:
                killed = True
                for _, child in self._children.values():
                    child.send(signal.SIGKILL)
            time.sleep(0.1)
            for slot, (job, child) in list(self._children.items()):
                if child.process.poll() is not None:
                    del self._children[slot]
                    job.state = "done" if job.planned.done else "stopped"
