"""Attacks: trainings that are killed at random moments, and bad input in quantity.

    python benchmarks/storm.py kills [--count 200] [--minutes 60] [--seed 0] [--methods NAME ...]
    python benchmarks/storm.py inputs [--count 400] [--seed 0] [--kinds NAME ...]

*kills*: tiny runs of every method on `coats` (settings drawn by the seed) and comparisons of two
are ended by SIGKILL, SIGTERM or SIGINT, at any time while they train, while a file is being
written, or between the results and the page, and are resumed until they are done. A kill counts
only if the process was training (or writing its last files) when the signal was sent; the others
are listed as *early* and *late*. Every run must end with the metrics, checkpoints and results of
the same run in peace, to the bit, and without a temporary file, traceback or wait above 60 s.

*inputs*: the named cases and `--count` drawn ones of tests/attacks.py; each must work or be one
sentence with exit code 2, and leave nothing half-written.

Everything that happened is written to `--out` (storm_kills.json, storm_inputs.json), what went
wrong is printed, and the exit code is 1 if anything did. `inputs --case N` with the same seed,
kinds and count repeats one; the moments of kills are the clock's and do not repeat. Needs the
`test` extra, and Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process with threads cannot be forked well
os.environ["WANDB_MODE"] = "disabled"
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from attacks import KINDS, NAMED, Tally, Workshop, cases, outcome, temporary, tree
from forked import ENDED, HANG, STARTING, TRAINING, Board, Command, Ended, load, run
from helpers import difference, experiment

from gansuite.methods import method_names

COMPARE = "compare"
FAULTS = ("wrong numbers", "tracebacks", "hangs", "leftovers", "other")
# the settings under which a resume was once inexact: an interval without an update, and one player
# that learns alone
FIXED = {
    "discogan": (
        (
            *("method.width=8", "method.d_width=8", "data.batch=8", "budget.kimg=0.64"),
            *("evaluate.every_kimg=0.32", "log.every_kimg=0.016"),
            *("log.checkpoint_every_kimg=0.016", "optim.g.lr=0", "optim.d.lr=0.002"),
        ),
    ),
}
VARIANTS = 4  # settings of a method; each needs a run in peace


@dataclass
class Kill:
    """One signal. ``moment``: training, writing (a file was), closing (after the last batch), early
    or late. ``images``: pictures seen when it was sent. ``code``: the exit code."""

    signal: str
    moment: str
    images: int
    code: int | None
    seconds: float


@dataclass
class Trial:
    """One run, from its start to its end through all kills."""

    method: str
    overrides: tuple[str, ...]
    kills: list[Kill] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)  # one of FAULTS, what exactly
    attempts: int = 0

    @property
    def hits(self) -> int:
        return sum(k.moment not in ("early", "late") for k in self.kills)


class Unable(Exception):
    """A run does not come to its end, even in peace."""


class Storm:
    """Trials in ``folder``, with moments drawn by ``draw``."""

    def __init__(self, folder: Path, draw: random.Random) -> None:
        self.folder, self.draw = folder, draw
        self.cache = folder / "cache"
        self.cache.mkdir()
        self.peace: dict[tuple[str, ...], tuple[dict[str, Any], float]] = {}
        self.drawn: dict[str, list[tuple[str, ...]]] = {}

    # -- settings --

    def overrides(self, method: str) -> tuple[str, ...]:
        """The settings of a trial, one of `VARIANTS` of each method."""
        if method not in self.drawn:
            fixed = FIXED.get(method, ())
            more = [self._variant(method) for _ in range(VARIANTS - len(fixed))]
            self.drawn[method] = [*fixed, *more]
        return self.draw.choice(self.drawn[method])

    def _variant(self, method: str) -> tuple[str, ...]:
        """How often what is done, and something that has a state of its own."""
        draw = self.draw
        step = 0.004 if method not in ("vanilla", "stylegan", "stargan") else 0.002
        often = draw.choice([1, 2, 3])
        found = [
            f"log.every_kimg={often * step:g}",
            f"log.checkpoint_every_kimg={draw.choice([1, 2, 5]) * step:g}",
            f"evaluate.every_kimg={draw.choice([6, 8, 12]) * step:g}",
            f"budget.kimg={24 * step:g}",
            f"seed={draw.randrange(3)}",
        ]
        more = [
            ("ema.half_life_kimg=0.004",),
            ("trainer.accumulate=2",),
            ("health.action=rollback", "health.retries=1"),
            ("budget.decay_from=0.25", "optim.d.clip=0.5"),
            ("trainer.precision=bf16-mixed",),
            ("data.workers=1",),
            (),
        ]
        return (*found, *draw.choice(more))

    def write(self, method: str, overrides: tuple[str, ...], at: Path) -> list[str]:
        """The experiment file (or two), and the command."""
        if method == COMPARE:
            words = []
            for name in ("vanilla_coats", "discogan_coats"):
                e = experiment(name, Path("unused"), 40, *overrides)
                (at / f"{name}.yaml").write_text(e.yaml())
                words.append(f"{name}.yaml")
            return ["compare", *words, "name=c", "out=runs", "jobs=2", "--allow-unequal"]
        e = experiment(f"{method}_coats", Path("runs"), 24, *overrides)
        (at / "e.yaml").write_text(e.yaml())
        return ["exp", "e.yaml"]

    # -- one trial --

    def in_peace(self, method: str, overrides: tuple[str, ...]) -> tuple[dict[str, Any], float]:
        """What a run of these settings comes to, and its seconds of training."""
        key = (method, *overrides)
        if key not in self.peace:
            at = self._place("peace")
            board = Board()
            command = Command(self.write(method, overrides, at), at, cache=self.cache, board=board)
            begun = None
            while command.alive():
                if begun is None and board.read()[0] == TRAINING:
                    begun = time.monotonic()
                if board.read()[0] == ENDED:
                    break
                time.sleep(0.002)
            seconds = time.monotonic() - (command.begun if begun is None else begun)
            ended = command.wait(4 * HANG)
            for _ in range(4):
                if stopped_itself(ended):
                    ended = run(command.words, at, cache=self.cache)
            if ended.code != 0:
                raise Unable(f"exit code {ended.code} in peace: {ended.err.strip()[-400:]}")
            self.peace[key] = {p: outcome(at / p) for p in runs(at)}, seconds
        return self.peace[key]

    def trial(self, method: str, wanted: int) -> Trial:
        """A run that is hit up to ``wanted`` times, then left to end."""
        overrides = () if method == COMPARE else self.overrides(method)
        found = Trial(method, overrides)
        try:
            expected, seconds = self.in_peace(method, overrides)
        except Unable as error:
            found.faults.append(("other", str(error)))
            self.drawn[method].remove(overrides)
            return found
        at = self._place("trial")
        words = self.write(method, overrides, at)
        done = False
        while not done and found.attempts < 4 * wanted + 4:
            found.attempts += 1
            left = (wanted - found.hits) > 0 and found.attempts <= 3 * wanted
            if left and method == COMPARE:
                ended = self._kill_comparison(found, words, at, seconds)
            elif left:
                ended = self._kill(found, words, at, seconds)
            else:
                # what runs to its end may take as long as in peace, on a busy machine
                ended = run(words, at, cache=self.cache, limit=HANG + 4 * seconds)
            self._judge(found, ended)
            if ended.code is None and found.attempts > 3:
                break
            done = ended.code == 0
        again = run(words, at, cache=self.cache)
        if again.code != 0:
            found.faults.append(("other", f"repeated when done: exit code {again.code}"))
        if not done:
            found.faults.append(("other", f"never done in {found.attempts} attempts"))
        self._compare(found, at, expected)
        return found

    def _place(self, name: str) -> Path:
        at = self.folder / name
        shutil.rmtree(at, ignore_errors=True)
        at.mkdir()
        return at

    def _kill(self, found: Trial, words: list[str], at: Path, seconds: float) -> Ended:
        draw, board = self.draw, Board()
        aim = draw.choices(["training", "writing", "closing"], [6, 3, 1])[0]
        number = draw.choices([signal.SIGKILL, signal.SIGTERM, signal.SIGINT], [2, 1, 1])[0]
        delay, nth = draw.random() * seconds / 2, draw.randrange(1, 5)
        command = Command(words, at, cache=self.cache, board=board)
        deadline = time.monotonic() + HANG
        since, seen, writing = None, set[str](), False
        while command.alive() and time.monotonic() < deadline:
            phase, _ = board.read()
            if phase != STARTING and since is None:
                since = time.monotonic()
            if aim == "training" and since is not None and time.monotonic() >= since + delay:
                break
            if aim == "writing" and since is not None:
                seen |= {str(p) for p in being_written(at)}
                if len(seen) >= nth:
                    writing = True
                    break
            if aim == "closing" and phase == ENDED:
                time.sleep(draw.random() * 0.2)
                break
            time.sleep(0.0005)
        return self._send(found, command, number, board, writing)

    def _send(
        self, found: Trial, command: Command, number: int, board: Board, writing: bool
    ) -> Ended:
        alive = command.alive()
        phase, images = board.read()
        begun = time.monotonic()
        if alive:
            command.send(number)
            if number == signal.SIGINT and self.draw.random() < 0.3:
                time.sleep(0.001)  # a second Ctrl-C ends it at once
                with contextlib.suppress(ProcessLookupError):
                    command.send(number)
        ended = command.wait()
        moment = "late" if not alive else {STARTING: "early", ENDED: "closing"}.get(phase, "")
        moment = moment or ("writing" if writing else "training")
        name = signal.Signals(number).name
        found.kills.append(
            Kill(name, moment, images, ended.code, round(time.monotonic() - begun, 3))
        )
        return ended

    def _kill_comparison(self, found: Trial, words: list[str], at: Path, seconds: float) -> Ended:
        """Its runs are processes of their own, which must stop as well, resumably."""
        number = self.draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
        delay = self.draw.random() * 3
        board = Board()
        command = Command(words, at, cache=self.cache)
        deadline = time.monotonic() + HANG + 4 * seconds
        since, before = None, pictures_seen(at)
        while command.alive() and time.monotonic() < deadline:
            now = pictures_seen(at)
            if now > before and since is None:
                since = time.monotonic()
                board.write(TRAINING, now)
            if since is not None and time.monotonic() >= since + delay:
                board.write(TRAINING, now)
                break
            time.sleep(0.01)
        return self._send(found, command, number, board, False)

    def _judge(self, found: Trial, ended: Ended) -> None:
        said = ended.err + ended.out
        if ended.code is None:
            found.faults.append(("hangs", f"still there {HANG:g} s after {_last(found)}"))
        if "Traceback (most recent call last)" in said:
            found.faults.append(("tracebacks", f"{said.strip().splitlines()[-1]} {_last(found)}"))
        if ended.strays:
            found.faults.append(("leftovers", f"a process outlived the command {_last(found)}"))
        killed = {-number for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)}
        fine = ended.code in {None, 0, 75, 130, *killed} or stopped_itself(ended)
        if not fine:
            told = (ended.err.strip().splitlines() or [""])[-1]
            found.faults.append(("other", f"exit code {ended.code}: {told} {_last(found)}"))

    def _compare(self, found: Trial, at: Path, expected: dict[str, Any]) -> None:
        left = temporary([at / p for p in tree(at)])
        left += temporary([self.cache / p for p in tree(self.cache)])
        if left:
            found.faults.append(("leftovers", ", ".join(p.name for p in left)))
        for path, whole in expected.items():
            try:
                unlike = difference(outcome(at / path), whole)
            except Exception as error:
                unlike = f"{type(error).__name__}: {error}"
            if unlike == "/page: False != True":
                found.faults.append(("other", f"{path} has no report.html"))
            elif unlike:
                found.faults.append(("wrong numbers", f"{path}{unlike}"[:600]))


def stopped_itself(ended: Ended) -> bool:
    """Whether it stopped itself for its health, after which the same command goes on."""
    return ended.code == 2 and "the same command goes on" in ended.err


def _last(trial: Trial) -> str:
    return f"({trial.kills[-1]})" if trial.kills else "(undisturbed)"


def runs(at: Path) -> list[str]:
    """The run directories below ``at``."""
    return sorted(str(p.parent.relative_to(at)) for p in at.rglob("metrics.jsonl"))


def being_written(at: Path) -> list[Path]:
    """Temporary files of the checkpoints and results."""
    found: list[Path] = []
    for folder in at.glob("runs/*/seed*"):
        for place in (folder, folder / "checkpoints"):
            with contextlib.suppress(OSError):
                found += temporary([p for p in place.iterdir() if p.name[0] == "."])
    return found


def pictures_seen(at: Path) -> int:
    """The last noted number of pictures, of all runs together."""
    total = 0
    for path in at.rglob("timing.jsonl"):
        lines = path.read_bytes().splitlines()
        with contextlib.suppress(IndexError, ValueError, KeyError):
            total += json.loads(lines[-1])["images_seen"]
    return total


def kills(args: argparse.Namespace, folder: Path) -> bool:
    draw = random.Random(args.seed)
    storm = Storm(folder, draw)
    names = args.methods or [*method_names(), COMPARE]
    trials: list[Trial] = []
    begun = time.monotonic()

    def hits(name: str) -> int:
        return sum(t.hits for t in trials if t.method == name)

    # a comparison costs as much as ten runs: it has a fifth of the others' share
    weight = {name: 0.2 if name == COMPARE else 1.0 for name in names}
    while (now := sum(t.hits for t in trials)) < args.count:
        if args.minutes is not None and time.monotonic() > begun + 60 * args.minutes:
            print(f"stopped after {args.minutes:g} minutes, at {now} of {args.count} kills")
            break
        name = min(names, key=lambda n: hits(n) / weight[n])
        trial = storm.trial(name, min(draw.choice([1, 2, 3, 4]), args.count - now))
        trials.append(trial)
        for fault in trial.faults:
            print(f"{trial.method} {' '.join(trial.overrides)}\n  {': '.join(fault)}", flush=True)
        progress(sum(t.hits for t in trials), args.count)
    rows = []
    for name in names:
        own = [t for t in trials if t.method == name]
        counted = Counter(word for t in own for word, _ in t.faults)
        missed = sum(len(t.kills) - t.hits for t in own)
        rows.append([name, len(own), hits(name), missed, *(counted[f] for f in FAULTS)])
    rows.append(["all", *(sum(r[i] for r in rows) for i in range(1, len(rows[0])))])
    print(table(["method", "runs", "kills", "missed", *FAULTS], rows))
    sent = [k for t in trials for k in t.kills]
    for what in ("signal", "moment", "code"):
        told = Counter(getattr(k, what) for k in sent)
        print(f"by {what}: " + ", ".join(f"{k} {n}" for k, n in told.most_common()))
    print(f"{time.monotonic() - begun:.0f} seconds")
    plain = [{**asdict(t), "hits": t.hits} for t in trials]
    write(args, "storm_kills.json", {"trials": plain, "table": rows})
    return any(t.faults for t in trials)


def inputs(args: argparse.Namespace, folder: Path) -> bool:
    kinds = args.kinds or list(KINDS)
    workshop, tally = Workshop(folder), Tally()
    begun = time.monotonic()
    # what trains is dearer than what is only read
    todo = [c for c in NAMED.values() if c.kind in kinds]
    todo += [c for k in kinds for c in cases(k, -(-args.count // len(kinds)), args.seed)]
    plain = []
    for i, case in enumerate(todo):
        if args.case not in (None, i):
            continue
        verdict = workshop.try_(case)
        tally.add(verdict)
        if verdict.fault:
            print(f"{i}: {verdict}", flush=True)
        ended = verdict.ended
        plain.append(
            {
                "number": i,
                "case": str(case),
                "code": ended.code,
                "seconds": round(ended.seconds, 2),
                "said": ended.err[-300:].encode("ascii", "backslashreplace").decode(),
                "fault": f"{verdict.fault} {verdict.detail}".strip(),
            }
        )
        progress(i + 1, len(todo))
    words = list(
        dict.fromkeys(["worked", "refused", *(w for r in tally.counts.values() for w in r)])
    )
    rows = []
    for kind, counts in tally.counts.items():
        rows.append([kind, sum(counts.values()), *(counts.get(w, 0) for w in words)])
    rows.append(["all", *(sum(r[i] for r in rows) for i in range(1, len(rows[0])))])
    print(table(["inputs", "cases", *words], rows))
    print(f"{time.monotonic() - begun:.0f} seconds")
    write(args, "storm_inputs.json", {"cases": plain, "table": rows})
    return bool(tally.faults)


def progress(done: int, of: int) -> None:
    if sys.stderr.isatty():
        print(f"{done}/{of}", end="\r", file=sys.stderr, flush=True)


def table(head: list[str], rows: list[list[Any]]) -> str:
    lines = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            c.ljust(w) if not i else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    )


def write(args: argparse.Namespace, name: str, content: Any) -> None:
    path = Path(args.out) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seed": args.seed, **content}, indent=1) + "\n")
    print(f"all of it: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["kills", "inputs"])
    parser.add_argument("--count", type=int, help="kills (200) or drawn inputs (400)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", choices=[*method_names(), COMPARE])
    parser.add_argument("--kinds", nargs="+", choices=KINDS)
    parser.add_argument("--minutes", type=float, help="no further run is begun after these (kills)")
    parser.add_argument("--case", type=int, help="only the input of this number")
    parser.add_argument("--out", default="build", help="where the json goes (build)")
    args = parser.parse_args()
    args.count = args.count or {"kills": 200, "inputs": 400}[args.what]
    load()
    attack: Callable[[argparse.Namespace, Path], bool] = {"kills": kills, "inputs": inputs}[
        args.what
    ]
    with tempfile.TemporaryDirectory(prefix="storm-", ignore_cleanup_errors=True) as folder:
        found = attack(args, Path(folder))
    sys.exit(int(found))


if __name__ == "__main__":
    main()
