"""The commands. No logic of their own: each calls one function and prints what it returns.

Nothing heavy is imported before it is needed: names, keys and values are checked first. Each takes
the arguments that `gansuite.cli` parsed and returns the exit code, or None for 0.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap
from pathlib import Path

from gansuite.errors import STOPPED, UserError, leaving_when_asked
from gansuite.lazy import uncollected


@leaving_when_asked()
def exp(args: argparse.Namespace) -> int:
    from gansuite.catalogue import load_experiment

    experiment = load_experiment(args.name, args.overrides)

    with uncollected():
        from gansuite import devices, engine, processes
        from gansuite.compare.report import complete_report, summary_table, write_report
        from gansuite.runs import publish, read_json

    processes.end_with_parent()
    run = experiment.run_dir
    if processes.is_main() and engine.is_done(experiment):
        page = complete_report(run)
        publish(page)
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
    publish(page)
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


def config(args: argparse.Namespace) -> None:
    from gansuite.catalogue import load_experiment

    print(load_experiment(args.name, args.overrides).yaml(), end="")


def check_data(args: argparse.Namespace) -> int:
    from gansuite.catalogue import load_experiment

    experiment = load_experiment(args.name, args.overrides)

    with uncollected():
        from gansuite import engine

    report = engine.check_data(experiment)
    print(report.render())
    return 0 if report.ok else 2


def list_all(args: argparse.Namespace) -> None:
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


def init(args: argparse.Namespace) -> None:
    from gansuite.tools.project import write_project

    for line in write_project(Path(args.folder)):
        print(line)


def compare(args: argparse.Namespace) -> int:
    from gansuite.compare.run import compare

    return compare(
        args.arguments,
        allow_unequal=args.allow_unequal,
        on=args.on,
        submit_only=args.submit_only,
    )


def translate(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite import devices
        from gansuite.tools.models import load_model
        from gansuite.tools.progress import progress_bar
        from gansuite.tools.translate import is_video, translate
        from gansuite.tools.video import translate_video

    film = is_video(Path(args.input)) and Path(args.input).is_file()
    if film and (
        args.style or args.mask or args.keep_colours or args.strength is not None or args.devices
    ):
        raise UserError("A film takes --to, --tile, --overlap, --batch and --device alone.")
    several = [] if args.devices is None else devices.first_gpus(args.devices)
    device = several[0] if several else devices.choose_device(args.device)
    method = load_model(checkpoint, args.weights)
    common = {k: getattr(args, k) for k in ("to", "tile", "overlap", "batch")}
    with progress_bar("frames" if film else "pictures") as progress:
        common |= {"device": device, "note": progress.say, "progress": progress}
        if film:
            count = translate_video(method, Path(args.input), Path(args.output), **common)
        else:
            count = len(
                translate(
                    method,
                    args.input,
                    Path(args.output),
                    style=args.style,
                    strength=args.strength,
                    keep_colours=args.keep_colours,
                    mask=args.mask,
                    devices=several,
                    **common,
                )
            )
    what = "frame(s)" if film else "picture(s)"
    print(f"{count} {what} written to {args.output}{progress.speed}")


def sample(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite import devices
        from gansuite.tools.models import load_model
        from gansuite.tools.progress import progress_bar
        from gansuite.tools.sample import read_seeds, sample

    seeds = read_seeds(args.seeds) if args.seeds else []
    device = devices.choose_device(args.device)
    method = load_model(checkpoint, args.weights)
    with progress_bar("pictures") as progress:
        *written, sheet = sample(
            method,
            args.n,
            Path(args.output),
            seed=args.seed,
            seeds=seeds,
            truncation=args.truncation,
            interpolate=args.interpolate,
            steps=args.steps,
            mix=args.mix,
            device=device,
            progress=progress,
        )
    pictures = [path for path in written if path.suffix in (".png", ".npy")]
    print(f"{len(pictures)} picture(s) and {sheet.name} written to {args.output}")
    for path in (path for path in written if path not in pictures):
        print(path)


def demo(args: argparse.Namespace) -> None:
    for run in args.runs:
        _found(run)

    with uncollected():
        from gansuite import devices
        from gansuite.tools.demo import demo

    device = devices.choose_device(args.device)
    demo(
        args.runs,
        port=args.port,
        weights=args.weights,
        device=device,
        note=lambda line: print(line, flush=True),
    )


def project(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite import devices, engine
        from gansuite.tools.projection import project

    device = devices.choose_device(args.device)
    method = engine.load_method(checkpoint, args.weights)
    output = Path(args.output)
    told = project(
        method,
        Path(args.picture),
        output,
        steps=args.steps,
        lr=args.lr,
        seed=args.seed,
        device=device,
    )
    print(
        f"{output / 'beside.jpg'}: the loss fell from {told['first']:.3g} to {told['final']:.3g} "
        f"({told['latent']} in latent.npy, curve in loss.png)"
    )


def import_(args: argparse.Namespace) -> None:
    from gansuite.catalogue import experiment_of

    if args.data:
        experiment_of(args.data)  # a mistake is found before anything is imported
    parts = dict(item.partition("=")[::2] for item in args.part)

    with uncollected():
        from gansuite.compare.report import summary_table
        from gansuite.runs import Run, read_json
        from gansuite.tools.importing import import_weights

    written = import_weights(
        Path(args.source),
        args.family,
        Path(args.output),
        parts={name: Path(file) for name, file in parts.items()},
        data=args.data,
        domains=args.domains.split(",") if args.domains else [],
        size=args.size,
        note=print,
    )
    if Run(written).done:
        print(summary_table(read_json(Run(written).results)))
        print(f"\nModel: {written} (gansuite compare NAME {written})")
    else:
        print(f"Model: {written}")


def share(args: argparse.Namespace) -> None:
    _found(args.run)

    with uncollected():
        from gansuite.runs import fetched
        from gansuite.tools.share import share

    for path in share(fetched(args.run), Path(args.folder), licence=args.licence):
        print(path)


def export(args: argparse.Namespace) -> None:
    checkpoint = _found(args.checkpoint)

    with uncollected():
        from gansuite.tools.export import export

    entry = export(
        checkpoint,
        Path(args.output),
        to=args.to,
        weights=args.weights,
        uint8=args.uint8,
        runtime=args.ort,
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


def evaluate(args: argparse.Namespace) -> None:
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


def score(args: argparse.Namespace) -> None:
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


def export_test(args: argparse.Namespace) -> None:
    from gansuite.catalogue import experiment_of

    experiment_of([args.name, *args.overrides])  # a mistake is found before anything is imported

    with uncollected():
        from gansuite.tools.score import export_test

    for domain, count in export_test([args.name, *args.overrides], Path(args.folder)).items():
        print(f"{count} picture(s) of {domain} written to {Path(args.folder) / domain}")


def sync(args: argparse.Namespace) -> None:
    from gansuite.loggers.account import sync

    for folder in sync([Path(run) for run in args.runs]):
        print(f"{folder} is synchronised.")


def workspace(args: argparse.Namespace) -> None:
    from gansuite.tools.workspace import save_workspace

    print(save_workspace(args.name, [Path(run) for run in args.runs]))


def report(args: argparse.Namespace) -> None:
    from gansuite.compare.report import write_report
    from gansuite.runs import fetched, publish

    page = write_report(fetched(args.run, checkpoints=False))
    publish(page)
    print(page)


def fetch_metrics(args: argparse.Namespace) -> None:
    from gansuite.evaluation.weights import WEIGHTS

    for weights in WEIGHTS:
        path = weights.fetch(Path(args.folder))
        print(f"{path}\nUse it with evaluate.{weights.option}={path}")
