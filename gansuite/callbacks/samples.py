"""The picture of the run: one labelled grid per event, same inputs and noise every time."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gansuite.callbacks.session import Session
from gansuite.evaluation.comparison import Comparison, to_uint8
from gansuite.imaging import grid, save_picture, strip
from gansuite.methods.base import Method
from gansuite.rng import torch_generator
from gansuite.runs import replacing

Rows = list[tuple[str, Tensor]]


def to_model(pictures: Tensor, method: Method) -> Tensor:
    """uint8 -> float [-1, 1] where ``method`` is."""
    return method.scaled(pictures.to(method.device))


def sample_rows(session: Session, count: int) -> Rows:
    """The rows of the grid: samples, or for each direction source, translation, truth, cycle."""
    method, data = session.method, session.data
    if method.task == "generate":
        generator = torch_generator(session.experiment.seed, "grid")
        made = to_uint8(method.sample(count * 4, generator).cpu())
        return [("made", made[i * count : (i + 1) * count]) for i in range(4)]
    if method.by_reference:
        return reference_rows(session, count)
    rows: Rows = []
    domains = method.spec.domains
    for i, source in enumerate(domains):
        if set(method.targets) <= {source}:
            continue  # there is no way from here
        real = data.pictures("test", source, count)
        rows.append((source, real))
        x = to_model(real, method)
        for target in method.targets:
            if target == source:
                continue
            fake = method.translate(x, target)
            rows.append((f"to {target}", to_uint8(fake.cpu())))
            truth = data.truth(source, target, count)
            if truth is not None and len(domains) == 2:
                rows.append((f"true {target}", truth))
            if len(domains) == 2 and source in method.targets:
                rows.append(
                    (f"and back to {source}", to_uint8(method.translate(fake, source).cpu()))
                )
        if len(domains) > 2 and i == 1:
            break
    return rows


def reference_rows(session: Session, count: int) -> Rows:
    """Contents along the top, references down the left side, what is made of both in between; where
    the true translation is known, it follows."""
    method, data = session.method, session.data
    (target,) = method.targets
    (source,) = set(method.spec.domains) - {target}
    contents, references = data.pictures("test", source, count - 1), data.pictures("test", target)
    # of other scenes than the contents, where both show the same
    picked = references[-4:]
    corner = torch.full_like(picked[:1], 255)
    x = to_model(contents, method)
    rows: Rows = [(f"{source}, and below {target}", torch.cat([corner, contents]))]
    for reference in picked.split(1):
        made = method.stylize(x, [(to_model(reference, method), 1.0)])
        rows.append(("", torch.cat([reference, to_uint8(made.cpu())])))
    made = method.stylize(x, [(to_model(picked[:1], method), 1.0)], strength=0.5)
    rows.append(("the first at half strength", torch.cat([corner, to_uint8(made.cpu())])))
    truth = data.truth(source, target, count - 1)
    return rows if truth is None else [*rows, (f"true {target}", torch.cat([corner, truth]))]


def save_strips(folder: Path, comparison: Comparison, count: int) -> None:
    """``strip_<comparison>_{source,fake,truth}.png``: ``count`` of the pictures that were scored.

    They lie evenly over the whole set, so that every source domain and, between two runs of one
    protocol, the same inputs are in them. One lossless row of squares per file, unscaled.
    """
    total = len(comparison.fake)
    picked = torch.arange(min(count, total)) * total // min(count, total)
    for row in ("source", "fake", "truth"):
        pictures = getattr(comparison, row)
        if pictures is not None:
            save_picture(strip(pictures[picked]), folder / f"strip_{comparison.name}_{row}.png")


def save_samples(session: Session) -> None:
    """``samples/<images_seen>.jpg``, on rank 0, and to the loggers."""
    if not session.main:
        return
    with session.evaluating():
        path, e = _sample_file(session), session.experiment.evaluate
        with session.method.evaluating(e.weights):
            rows = sample_rows(session, e.samples)
        save_picture(grid(rows, columns_max=e.samples), path)
        session.loggers.picture(path, session.method.images_seen)


def name_final(session: Session) -> None:
    """The picture just drawn is ``samples/final.jpg`` as well."""
    last = _sample_file(session)
    with replacing(last.with_name("final.jpg")) as file:
        file.write(last.read_bytes())


def _sample_file(session: Session) -> Path:
    return session.run.path / "samples" / f"{session.method.images_seen:09d}.jpg"
