"""The command line: what can be said, and how a command ends."""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from gansuite import __version__, commands
from gansuite.errors import UserError, nearest


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
        if processes := _processes():
            processes.part()
    except SystemExit as error:  # it was asked to stop before there was anything to save
        code = error.code
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
    _end(code or 0)


def _end(code: Any) -> NoReturn:
    if processes := _processes():
        processes.leave(code)
    sys.exit(code)


def _failed(code: int, error: BaseException) -> None:
    if processes := _processes():
        processes.fail(code, error)


def _processes() -> Any:
    """The module of that name, if it was imported: by whatever trains."""
    return sys.modules.get("gansuite.processes")


def _parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; ``rest`` names the list that takes those which follow an option."""
    args, more = parser.parse_known_args(argv)
    rest = getattr(args, "rest", "")
    takes = {"arguments": r"[^-].*", "data": r"\w+(\.\w+)*=.*"}.get(rest, r"(?!)")
    unknown = [word for word in more if not re.fullmatch(takes, word, re.DOTALL)]
    if unknown:
        parser = getattr(args, "parser", parser)
        flag, hint = unknown[0].startswith("-"), ""
        if flag:
            known = [o for action in parser._actions for o in action.option_strings]
            near = nearest(unknown[0].partition("=")[0].strip("-"), [o.strip("-") for o in known])
            hint = near.replace(" '", " '--")
        if flag and not hint and ("overrides" in args or rest):
            hint = "; what an experiment may change is written key=value, such as seed=1"
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if more:
        setattr(args, rest, [*getattr(args, rest), *more])
    for name in _MADE:
        if "://" in (path := str(getattr(args, name, ""))):
            raise UserError(f"'{path}' is an address; give a file or a folder here, and copy it.")
    return args


_MADE = ("output", "folder", "interpolate")
"""Arguments that name what is written of a run, on this machine."""
_SHELLS = ("bash", "zsh", "fish", "tcsh")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as everything else does."""

    def error(self, message: str) -> NoReturn:
        unknown = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if unknown:
            known = re.findall(r"[\w-]+", unknown[2])
            message = f"there is no '{unknown[1]}'{nearest(unknown[1], known)} ({', '.join(known)})"
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
        self._commands = self.parser.add_subparsers(metavar="COMMAND", prog="gansuite")

    def group(self, title: str) -> None:
        """The commands that are added from now on are listed under ``title``."""
        self.parser.epilog = f"{self.parser.epilog}\n\n{title}:".lstrip()

    def add(self, name: str, help: str, call: Any = None) -> argparse.ArgumentParser:
        """A command; ``call``, or the function of `commands` with its name, takes its arguments and
        returns the exit code, or None for 0."""
        self.parser.epilog = f"{self.parser.epilog}\n    {name:<14} {help}"
        sub = self._commands.add_parser(name, help=help, description=help)
        sub.set_defaults(call=call or getattr(commands, name.replace("-", "_")), parser=sub)
        return sub


Offer = Callable[[argparse.Action, Literal["names", "files"]], None]
"""Told what a shell may offer for an argument: names of experiments, or files."""


def _parser(offer: Offer = lambda action, what: None) -> argparse.ArgumentParser:
    known = _Commands()
    add = known.add

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

    known.group("begin")
    sub = add("list", "list methods, data sets, experiments and comparisons", commands.list_all)
    sub.add_argument("--names", action="store_true", help="only names of experiments, one a line")
    sub = add("init", "write a small project: your folders, your method, its test")
    files(sub, "folder", "DIR", "a new or empty folder")
    experiment(add("check-data", "say what data an experiment expects and finds"))

    known.group("train")
    experiment(add("config", "print exactly what an experiment would run"))
    experiment(add("exp", "train an experiment, or resume it where it stopped"))
    sub = add("report", "write the report page of a run again")
    files(sub, "run", "RUN", "a run folder such as runs/cyclegan_coats/seed0")

    known.group("compare")
    sub = add("compare", "run what is missing of a comparison, and compare")
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
    sub = add("evaluate", "score a checkpoint, or an exported model, as its run did")
    checkpoint(sub)
    overrides(sub, "data.root=...")

    sub = add("score", "score pictures that another program made, as an entry to compare")
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

    sub = add("export-test", "write the test pictures for other programs")
    names(sub, "name", "NAME", "an experiment or a comparison")
    files(sub, "folder", "DIR", "where to write them")
    overrides(sub, "data.size=64")

    what = "download the weights for FID, KID and IS (96 MB) and for LPIPS and PPL (553 MB)"
    sub = add("fetch-metrics", what)
    sub.add_argument("folder", metavar="FOLDER", nargs="?", default="weights")

    known.group("use")
    sub = add("translate", "translate pictures with a trained model")
    checkpoint(sub)
    files(sub, "input", "IN", "a picture, a folder, a pattern in quotes, or a film")
    files(sub, "output", "OUT", "a folder (or a file, for one picture or a film)")
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
    what = "pictures or frames at once, where they have one size (8)"
    sub.add_argument("--batch", type=int, default=8, metavar="N", help=what)
    what = "share the pictures among the first N GPUs, in place of --device"
    sub.add_argument("--devices", type=int, metavar="N", help=what)
    weights_and_device(sub)

    sub = add("sample", "make pictures with a trained model")
    checkpoint(sub)
    files(sub, "output", "OUT", "a folder")
    sub.add_argument("-n", type=int, default=64, help="how many (64)")
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--seeds", metavar="1,5-9", help="one picture of each, in place of -n")
    what = "how far from the mean picture: 0 to 1, as drawn (stylegan)"
    sub.add_argument("--truncation", type=float, metavar="PSI", help=what)
    what = "a walk from picture to picture, as .gif, .webp or .mp4"
    files(sub, "--interpolate", "FILE", what, type=Path)
    sub.add_argument("--steps", type=int, default=24, help="frames between two of it (24)")
    what = "grids of half of the seeds with the styles of the others (stylegan)"
    sub.add_argument("--mix", action="store_true", help=what)
    weights_and_device(sub)

    sub = add("project", "find what a generator can make that is nearest to a picture")
    checkpoint(sub)
    files(sub, "picture", "PICTURE", "a picture")
    files(sub, "output", "OUT", "a folder")
    sub.add_argument("--steps", type=int, default=500, help="of the optimiser (500)")
    sub.add_argument("--lr", type=float, default=0.1, help="its rate (0.1)")
    sub.add_argument("--seed", type=int, default=0)
    weights_and_device(sub)

    sub = add("demo", "show models in a page of this machine: pictures through all of them")
    what = "run folders, checkpoints, model folders, .onnx or .pt2 files"
    files(sub, "runs", "RUN", what, nargs="+")
    sub.add_argument("--port", type=int, default=7860, help="of the page's address (7860)")
    weights_and_device(sub)

    sub = add(
        "import", "make a model of weights that a method's authors published", commands.import_
    )
    sub.set_defaults(rest="data")
    files(sub, "source", "FILE", "a state dict (.pth, .ckpt, .safetensors), or a folder of them")
    files(sub, "output", "OUT", "a new folder")
    what = "whose they are: cyclegan, cut, pix2pix, stargan, discogan, dcgan, stylegan2-ada"
    sub.add_argument("--as", dest="family", required=True, metavar="FAMILY", help=what)
    what = "a further file, such as d.b=net_D_A.pth (repeat it)"
    files(sub, "--part", "NAME=FILE", what, action="append", default=[])
    what = "the experiment or comparison on whose test pictures it is scored, for compare"
    names(sub, "--data", "NAME, key=value", what, nargs="+", default=[])
    sub.add_argument("--domains", metavar="A,B", help="what it was trained on, without --data")
    sub.add_argument("--size", type=int, help="in pixels, without --data")

    known.group("share")
    sub = add("export", "write a model as .pt2, .onnx or a page, shown to make the same pictures")
    checkpoint(sub)
    files(sub, "output", "OUT", "a file: .pt2, .onnx, .safetensors, or .html: a page that runs it")
    overrides(sub, "data.root=...")
    sub.add_argument("--to", help="the domain to translate to")
    sub.add_argument("--uint8", action="store_true", help="bytes [N, H, W, C] in and out")
    what = "of a page: the npm package onnxruntime-web, as 'npm pack' writes it or as a folder"
    files(sub, "--ort", "FILE", what, type=Path)
    sub.add_argument("--weights", default="auto", choices=["auto", "ema", "raw"])
    sub = add("share", "make a model folder of a run: weights, config, card, samples")
    files(sub, "run", "RUN", "a finished run folder")
    files(sub, "folder", "FOLDER", "a new folder")
    sub.add_argument("--licence", default="", help="of the pictures, for the card (not stated)")
    sub = add("sync", "send offline W&B runs to the server")
    sub.add_argument("runs", metavar="RUN", nargs="*", default=["runs"], help="run folders (runs)")
    sub = add("workspace", "save a W&B workspace with the panels that compare runs")
    sub.add_argument("name", metavar="NAME", help="what it is called")
    sub.add_argument("runs", metavar="RUN", nargs="*", default=["runs"], help="run folders (runs)")

    known.group("shell")
    sub = add("completion", "print what makes a shell complete these commands", _completion)
    sub.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    return known.parser


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
