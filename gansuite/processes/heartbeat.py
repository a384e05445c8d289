"""Whether the other ranks of a run are alive, also where no connection says so: a rank that waits
for one on another node would wait for as long as the longest evaluation may take.

Every rank tells the store at which they met, every `EVERY` seconds, that it is alive, and looks
after the next one; who finds that one silent, or ends for a reason of its own, leaves word there
for all. So the traffic is the same for each rank however many there are.

Two environment variables, in seconds: ``GANSUITE_HEARTBEAT`` (45), the silence after which a rank
counts as lost, and ``GANSUITE_TIMEOUT`` (3600), how long ranks that are alive may wait for one.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from lightning.fabric.plugins.environments import ClusterEnvironment
from torch import distributed

from gansuite.errors import UserError

EVERY = 2.0
_FIRST = 5  # times the silence: a rank may be slow to begin, as when a disk is cold
_DONE = "done"
_WORD = "lost"


class Store(Protocol):
    """What is used of `torch.distributed.Store`."""

    def set(self, key: str, value: str, /) -> None: ...
    def get(self, key: str, /) -> bytes: ...
    def check(self, keys: list[str], /) -> bool: ...


def longest() -> timedelta:
    """How long ranks may wait for one that is alive.

    Raises:
        UserError: the environment says something else than seconds.
    """
    return timedelta(seconds=_seconds("GANSUITE_TIMEOUT", 3600))


def silence() -> float:
    """Seconds without a sign of life after which a rank counts as lost.

    Raises:
        UserError: the environment says something else than seconds.
    """
    return _seconds("GANSUITE_HEARTBEAT", 45)


def _seconds(name: str, default: int) -> int:
    text = os.environ.get(name, "") or str(default)
    if not text.isdecimal() or not 5 <= int(text) <= 1_000_000:
        raise UserError(f"{name} is '{text}'; it must be a whole number of seconds, 5 or more.")
    return int(text)


def connect(cluster: ClusterEnvironment) -> Store:
    """The store of this start of the run, by a connection of its own."""
    store = distributed.TCPStore(
        cluster.main_address, cluster.main_port, is_master=False, timeout=longest()
    )
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return distributed.PrefixStore(f"gansuite/{start}", store)


class Heartbeat:
    """The signs of life of ``rank`` among ``world``; ``lost`` is called, once, with what became of
    another one, in a thread of its own. One thread speaks to the store, which may not answer; the
    other judges, and counts its own steps instead of reading a clock, so that a process that was
    suspended blames nobody."""

    def __init__(
        self, rank: int, world: int, connect: Callable[[], Store], lost: Callable[[str], None]
    ) -> None:
        self.rank, self.next = rank, (rank + 1) % world
        self._connect, self._lost = connect, lost
        self._silence = silence()
        self._over, self._spoken, self._wake = (threading.Event() for _ in range(3))
        self._word = ""  # what we leave for the others
        self._told = ""  # what another has left
        self._heard = b""
        self._steps = 0.0  # seconds of silence of the next one
        self._threads = [
            threading.Thread(target=target, name="heartbeat", daemon=True)
            for target in (self._speak, self._judge)
        ]

    def begin(self) -> None:
        for thread in self._threads:
            thread.start()

    def end(self, word: str = "") -> None:
        """This rank is done, or ends for the reason ``word``, which the others are told."""
        self._word = word or _DONE
        self._over.set()
        self._wake.set()
        self._threads[0].join(2 * EVERY)

    def _speak(self) -> None:
        beats = 0
        with contextlib.suppress(RuntimeError):  # a store that is gone is silence
            store = self._connect()
            while not self._word:
                beats += 1
                store.set(str(self.rank), str(beats))
                self._listen(store)
                self._wake.wait(EVERY)
            store.set(str(self.rank), _DONE)
            if self._word != _DONE:
                store.set(_WORD, self._word)
        self._spoken.set()

    def _listen(self, store: Store) -> None:
        if store.check([_WORD]):
            self._told = store.get(_WORD).decode()
        if store.check([str(self.next)]):
            heard = store.get(str(self.next))
            if heard != self._heard or heard == _DONE.encode():
                self._heard, self._steps = heard, 0.0

    def _judge(self) -> None:
        while not self._over.wait(1.0):
            self._steps += 1.0
            why = self._told
            if not why and self._steps > self._silence * (1 if self._heard else _FIRST):
                why = self._word = f"rank {self.next} was not heard of for {self._steps:.0f} s"
                self._wake.set()
                self._spoken.wait(EVERY)
            if why:
                self._lost(why)
                return
