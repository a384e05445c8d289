"""The commands. No logic of their own: each calls one function and prints what it returns.

Nothing heavy is imported before it is needed: names, keys and values are checked first.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from gansuite import __version__
from gansuite.errors import STOPPED, UserError, leaving_when_asked, nearest
from gansuite.lazy import uncollected


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point: exits with 0, with 2 after bad input, with 75 when stopped and resumable.

    A rank that another process watches tells its reason to that one instead.
    """
    parser = _parser()
    try:
        args = _parsed(parser, argv)
        if "call" not in args:
            parser.print_help()
            sys.exit(0)
        code = args.call(args)
    except UserError as error:
        _failed(2, error)
        print(f"gansuite: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C has nothing left to end
        _failed(130, error)
        print("gansuite: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ImportError, MemoryError) as error:
        if not re.search("map segment|allocate memory|^$", str(error)):
            raise
        print("gansuite: there is too little memory to begin with (ulimit -v)", file=sys.stderr)
        code = 2
    except Exception as error:
        _failed(1, error)
        raise
    sys.exit(code or 0)


def _failed(code: int, error: BaseException) -> None:
    if "gansuite.processes" in sys.modules:  # imported by whatever trains
        from gansuite import processes

        processes.fail(code, error)


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; ``rest`` names the list that takes those which follow an option."""
    args, more = parser.parse_known_args(argv)
    rest = getattr(args, "rest", "")
    takes = {"arguments": r"[^-].*", "data": r"\w+(\.\w+)*=.*"}.get(rest, r"(?!)")
    unknown = [word for word in more if not re.fullmatch(takes, word, re.DOTALL)]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if more:
        setattr(args, rest, [*getattr(args, rest), *more])
    return args


_SHELLS = ("bash", "zsh", "fish", "tcsh")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as everything else does."""

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if unknown:
            known = re.findall(r"[\w-]+", unknown[2])
            message = f"there is no '{unknown[1]}'{nearest(unknown[1], known)} ({', '.join(known)})"
        elif message.startswith("unrecognized arguments: -"):
            message += "; what an experiment may change is written key=value, such as seed=1"
        message = message.replace("NAME, key=value", "NAME")
        raise UserError(f"{message}; see '{self.prog} -h'.")


class _Grouped(argparse.RawDescriptionHelpFormatter):
    """Leaves the list of commands to the text below the options, which groups them."""

    def add_argument(self, action: argparse.Action) -> None:
        if not isinstance(action, argparse._SubParsersAction):
            super().add_argument(action)


class _Commands:
    """The parser of all commands, which lists them by what they are for."""

    def __init__(self) -> None:
        self.parser = _Parser(
            prog="gansuite",
            description="GAN families compared on equal terms.",
            usage="gansuite [-h] [--version] COMMAND ...",
            formatter_class=_Grouped,
            epilog="",
        )
        version = f"gansuite {__version__}"
        self.parser.add_argument("--version", action="version", version=version)
        self._commands = self.parser.add_subparsers(metavar="COMMAND")

    def group(self, title: str) -> None:
        """The commands that are added from now on are listed under ``title``."""
        self.parser.epilog = f"{self.parser.epilog}\n\n{title}:".lstrip()

    def add(self, name: str, call: Any, help: str) -> argparse.ArgumentParser:
        """A command; ``call`` takes its arguments and returns the exit code, or None for 0."""
        self.parser.epilog = f"{self.parser.epilog}\n    {name:<14} {help}"
        sub = self._commands.add_parser(name, help=help, description=help)
        sub.set_defaults(call=call)
        return sub


Offer = Callable[[argparse.Action, Literal["names", "files"]], None]
"""Told what a shell may offer for an argument: names of experiments, or files."""


def _parser(offer: Offer = lambda action, what: None) -> argparse.ArgumentParser:
    commands = _Commands()
    add = commands.add

    def names(
        sub: argparse.ArgumentParser, name: str, metavar: str, help: str, **options: Any
    ) -> None:
        offer(sub.add_argument(name, metavar=metavar, help=help, **options), "names")

    def files(
        sub: argparse.ArgumentParser, name: str, metavar: str, help: str, **options: Any
    ) -> None:
        offer(sub.add_argument(name, metavar=metavar, help=help, **options), "files")

    def overrides(sub: argparse.ArgumentParser, such_as: str) -> None:
        sub.add_argument("overrides", nargs="*", metavar="key=value", help=f"such as {such_as}")

    def experiment(sub: argparse.ArgumentParser) -> None:
        names(sub, "name", "NAME", "an experiment, or a path to a .yaml file")
        overrides(sub, "budget.kimg=1")

    def checkpoint(sub: argparse.ArgumentParser) -> None:
        files(sub, "checkpoint", "CKPT", "a .ckpt file or a run folder")

    def weights_and_device(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--weights", default="auto", choices=["auto", "ema", "raw"])
        devices = "where to compute: auto (a GPU if there is one), cpu, cuda, cuda:1, mps"
        sub.add_argument("--device", default="auto", help=devices)

    commands.group("begin")
    sub = add("list", _list, "list methods, data sets, experiments and comparisons")
    sub.add_argument("--names", action="store_true", help="only names of experiments, one a line")
    sub = add("init", _init, "write a small project: your folders, your method, its test")
    files(sub, "folder", "DIR", "a new or empty folder")
    experiment(add("check-data", _check_data, "say what data an experiment expects and finds"))

    commands.group("train")
    experiment(add("config", _config, "print exactly what an experiment would run"))
    experiment(add("exp", _exp, "train an experiment, or resume it where it stopped"))
    sub = add("report", _report, "write the report page of a run again")
    files(sub, "run", "RUN", "a run folder such as runs/cyclegan_coats/seed0")

    commands.group("compare")
    sub = add("compare", _compare, "run what is missing of a comparison, and compare")
    sub.set_defaults(rest="arguments")
    what = (
        "experiments, a comparison, folders with results; seeds=0,1,2 budget.kimg=8 jobs=2 "
        "name=... out=...; any other key=value goes to every run"
    )
    names(sub, "arguments", "NAME, key=value", what, nargs="+")
    sub.add_argument(
        "--allow-unequal", action="store_true", help="note what is unequal instead of refusing"
    )
    what = "who runs it: this machine, a SLURM cluster (slurm.partition=... slurm.timeout_min=240 "
    what += "slurm.gpus_per_node=1 slurm.parallel=16), or a script for sbatch that is written"
    sub.add_argument("--on", choices=["local", "slurm", "script"], default="local", help=what)
    sub.add_argument("--submit-only", action="store_true", help="do not wait for the cluster")
    sub = add("evaluate", _evaluate, "score a checkpoint, or an exported model, as its run did")
    checkpoint(sub)
    overrides(sub, "data.root=...")

    sub = add("score", _score, "score pictures that another program made, as an entry to compare")
    sub.set_defaults(rest="data")
    files(sub, "folder", "DIR", "the pictures, or folders a2b, b2a, gen")
    sub.add_argument("--name", required=True, help="what the entry is called")
    what = "the experiment or comparison whose test pictures and protocol count"
    names(sub, "--data", "NAME, key=value", what, required=True, nargs="+")
    sub.add_argument("--comparison", help="what the pictures in DIR are: a2b, b2a, to_..., gen")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--seconds", type=float, help="how long it trained, if known")
    sub.add_argument("--parameters", type=int, help="of all networks together, if known")
    sub.add_argument("--images-per-second", type=float, help="of its training, if known")
    sub.add_argument("--out", default="entries", help="where entries lie (entries)")

    sub = add("export-test", _export_test, "write the test pictures for other programs")
    names(sub, "name", "NAME", "an experiment or a comparison")
    files(sub, "folder", "DIR", "where to write them")
    overrides(sub, "data.size=64")

    what = "download the weights for FID, KID and IS (96 MB) and for LPIPS and PPL (553 MB)"
    sub = add("fetch-metrics", _fetch_metrics, what)
    sub.add_argument("folder", metavar="FOLDER", nargs="?", default="weights")

    commands.group("use")
    sub = add("translate", _translate, "translate pictures with a trained model")
    checkpoint(sub)
    files(sub, "input", "IN", "a picture, a folder, or a pattern in quotes")
    files(sub, "output", "OUT", "a folder (or a file, for one picture)")
    sub.add_argument("--to", help="the domain to translate to")
    what = "a picture of the style; with =SHARE of several (repeat it)"
    files(sub, "--style", "PICTURE", what, action="append", default=[])
    sub.add_argument("--strength", type=float, help="of the style, 0 to 1 (1)")
    what = "give the style the picture's own colours first"
    sub.add_argument("--keep-colours", action="store_true", help=what)
    what = "a picture as large as the input: white is translated, black stays"
    files(sub, "--mask", "PICTURE", what, type=Path)
    what = "work in overlapping squares of so many pixels, for pictures that are too large"
    sub.add_argument("--tile", type=int, metavar="PIXELS", help=what)
    sub.add_argument("--overlap", type=int, default=64, metavar="PIXELS", help="of tiles (64)")
    weights_and_device(sub)

    sub = add("sample", _sample, "make pictures with a trained model")
    checkpoint(sub)
    files(sub, "output", "OUT", "a folder")
    sub.add_argument("-n", type=int, default=64, help="how many (64)")
    sub.add_argument("--seed", type=int, default=0)
    weights_and_device(sub)

    commands.group("share")
    sub = add("export", _export, "write a model as .pt2 or .onnx, shown to make the same pictures")
    checkpoint(sub)
    files(sub, "output", "OUT", "a file: .pt2, .onnx or .safetensors")
    overrides(sub, "data.root=...")
    sub.add_argument("--to", help="the domain to translate to")
    sub.add_argument("--uint8", action="store_true", help="bytes [N, H, W, C] in and out")
    sub.add_argument("--weights", default="auto", choices=["auto", "ema", "raw"])
    sub = add("share", _share, "make a model folder of a run: weights, config, card, samples")
    files(sub, "run", "RUN", "a finished run folder")
    files(sub, "folder", "FOLDER", "a new folder")
    sub.add_argument("--licence", default="", help="of the pictures, for the card (not stated)")
    sub = add("sync", _sync, "send offline W&B runs to the server")
    sub.add_argument("runs", metavar="RUN", nargs="*", default=["runs"], help="run folders (runs)")
    sub = add("workspace", _workspace, "save a W&B workspace with the panels that compare runs")
    sub.add_argument("name", metavar="NAME", help="what it is called")
    sub.add_argument("runs", metavar="RUN", nargs="*", default=["runs"], help="run folders (runs)")

    commands.group("shell")
    sub = add("completion", _completion, "print what makes a shell complete these commands")
    sub.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    return commands.parser


@leaving_when_asked()
def _exp(args: argparse.Namespace) -> int:
    from gansuite.catalogue import load_experiment

    experiment = load_experiment(args.name, args.overrides)

    with uncollected():
        from gansuite import devices, engine, processes
        from gansuite.compare.report import complete_report, summary_table, write_report
        from gansuite.runs import read_json

    processes.end_with_parent()
    run = experiment.run_dir
    if processes.is_main() and engine.is_done(experiment):
        page = complete_report(run)
        print(
            f"{run} is done; its report is {page}. Give 'seed=' or 'name=' for "
            f"another run, or remove the folder to run it again."
        )
        return 0
    if devices.launches(experiment):
        command = [sys.executable, "-m", "gansuite", "exp", args.name, *args.overrides]
        return processes.watch(command, devices.processes_of(experiment)[1])
    session = engine.train(experiment)
    if not session.main:
        return 0
    page = write_report(run)
    if session.stopped == "health":
        raise UserError(session.stop_reason)
    if session.stopped:
        print(f"Stopped by {session.stopped}; the same command resumes it. Report: {page}")
        return STOPPED
    print()
    results = read_json(session.run.results)
    print(f"{summary_table(results)}\n\nVerdict: {results['verdict']}")
    print(f"\nPicture: {run / 'samples' / 'final.jpg'}\nReport:  {page}")
    return 0


def _config(args: argparse.Namespace) -> None:
    from gansuite.catalogue import load_experiment

    print(load_experiment(args.name, args.overrides).yaml(), end="")


def _check_data(args: argparse.Namespace) -> int:
    from gansuite.catalogue import load_experiment

    experiment = load_experiment(args.name, args.overrides)

    with uncollected():
        from gansuite import engine

    report = engine.check_data(experiment)
    print(report.render())
    return 0 if report.ok else 2


def _list(args: argparse.Namespace) -> None:
    from gansuite import catalogue, config

    if args.names:
        print("\n".join([*config.experiment_files(), *config.comparison_files()]))
        return
    for title, rows in catalogue.inventory().items():
        print(f"{title}:")
        width = max(len(name) for name, _ in rows) if rows else 0
        for name, text in rows:
            print(_wrapped(f"  {name:<{width}}  ", text))
        print()


def _wrapped(head: str, text: str) -> str:
    """``text`` behind ``head``, wrapped to the width of the terminal; one line elsewhere."""
    if not sys.stdout.isatty():
        return f"{head}{text}".rstrip()
    columns = max(shutil.get_terminal_size().columns, len(head) + 20)
    indent = " " * len(head)
    return textwrap.fill(text, columns, initial_indent=head, subsequent_indent=indent) or head


def _init(args: argparse.Namespace) -> None:
    from gansuite.tools.project import write_project

    for line in write_project(Path(args.folder)):
        print(line)


def _completion(args: argparse.Namespace) -> None:
    try:
        import shtab
    except ImportError:
        raise UserError(
            "Completion needs the package shtab; install it with 'pip install shtab'."
        ) from None
    what = {"names": shtab.cmd("gansuite list --names"), "files": shtab.FILE}
    parser = _parser(lambda action, kind: setattr(action, "complete", what[kind]))
    print(shtab.complete(parser, args.shell))


def _compare(args: argparse.Namespace) -> int:
    from gansuite.compare.run import compare

    return compare(
        args.arguments,
        allow_unequal=args.allow_unequal,
        on=args.on,
        submit_only=args.submit_only,
    )


def _translate(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite import devices, engine
        from gansuite.tools.translate import translate

    device = devices.choose_device(args.device)
    method = engine.load_method(checkpoint, args.weights)
    written = translate(
        method,
        args.input,
        Path(args.output),
        to=args.to,
        style=args.style,
        strength=args.strength,
        keep_colours=args.keep_colours,
        mask=args.mask,
        tile=args.tile,
        overlap=args.overlap,
        device=device,
        note=print,
    )
    print(f"{len(written)} picture(s) written to {args.output}")


def _sample(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite import devices, engine
        from gansuite.tools.sample import sample

    device = devices.choose_device(args.device)
    method = engine.load_method(checkpoint, args.weights)
    *written, sheet = sample(method, args.n, Path(args.output), seed=args.seed, device=device)
    print(f"{len(written)} picture(s) and {sheet.name} written to {args.output}")


def _share(args: argparse.Namespace) -> None:
    _found(args.run)

    with uncollected():
        from gansuite.tools.share import share

    for path in share(Path(args.run), Path(args.folder), licence=args.licence):
        print(path)


def _export(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite.tools.export import export

    entry = export(
        checkpoint,
        Path(args.output),
        to=args.to,
        weights=args.weights,
        uint8=args.uint8,
        overrides=args.overrides,
        note=print,
    )
    parity = entry["parity"]
    print(
        f"{args.output}: at most {parity['largest']:.2g} from PyTorch (of -1 to 1), "
        f"{parity['share']:.2%} of 8-bit values differ; see export.json beside it"
    )


def _found(checkpoint: str) -> Path:
    """The file of a checkpoint; raises for one that is not there, before anything is imported."""
    from gansuite.runs import find_checkpoint

    return find_checkpoint(checkpoint)


def _evaluate(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite import engine
        from gansuite.compare.report import summary_table
        from gansuite.tools import export

    exported = checkpoint.suffix in {".onnx", ".pt2"}
    score = export.evaluate if exported else engine.evaluate
    found = score(checkpoint, args.overrides)
    print(
        f"{found['experiment']}, seed {found['seed']}, at {found['images_seen'] / 1000:g} kimg, "
        f"{found['weights']} weights, protocol {found['protocol']['id']}\n"
    )
    print(summary_table(found))
    if found["recorded"] is None:
        print("\nThe run has no scores to compare with: none at this point, protocol and data.")
        return
    if exported:
        key, by = export.largest_relative(found["final"], found["recorded"])
        print(f"\nAt most {by:.2g} of a score from those that the run recorded ({key}).")
        return
    key, by = engine.largest_difference(found["final"], found["recorded"])
    same = "Equal to the scores that the run recorded."
    print("\n" + (f"Unlike the scores that the run recorded: {key} by {by:.2g}." if by else same))


def _score(args: argparse.Namespace) -> None:
    from gansuite.catalogue import experiment_of

    experiment_of(args.data)  # a mistake is found before anything is imported

    with uncollected():
        from gansuite.compare.report import summary_table
        from gansuite.runs import read_json
        from gansuite.tools.score import score_folder

    cost = {k: getattr(args, k) for k in ("seconds", "parameters", "images_per_second")}
    entry = score_folder(
        Path(args.folder),
        args.data,
        args.name,
        comparison=args.comparison,
        seed=args.seed,
        cost=cost,
        out=Path(args.out),
        note=print,
    )
    print(summary_table(read_json(entry / f"seed{args.seed}" / "results.json")))
    print(f"\nEntry: {entry} (gansuite compare NAME {entry})")


def _export_test(args: argparse.Namespace) -> None:
    from gansuite.catalogue import experiment_of

    experiment_of([args.name, *args.overrides])  # a mistake is found before anything is imported

    with uncollected():
        from gansuite.tools.score import export_test

    for domain, count in export_test([args.name, *args.overrides], Path(args.folder)).items():
        print(f"{count} picture(s) of {domain} written to {Path(args.folder) / domain}")


def _sync(args: argparse.Namespace) -> None:
    from gansuite.loggers.account import sync

    for folder in sync([Path(run) for run in args.runs]):
        print(f"{folder} is synchronised.")


def _workspace(args: argparse.Namespace) -> None:
    from gansuite.tools.workspace import save_workspace

    print(save_workspace(args.name, [Path(run) for run in args.runs]))


def _report(args: argparse.Namespace) -> None:
    from gansuite.compare.report import write_report

    print(write_report(Path(args.run)))


def _fetch_metrics(args: argparse.Namespace) -> None:
    from gansuite.evaluation.weights import WEIGHTS

    for weights in WEIGHTS:
        path = weights.fetch(Path(args.folder))
        print(f"{path}\nUse it with evaluate.{weights.option}={path}")
