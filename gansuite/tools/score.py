"""Outside entrants: pictures that any other program made, scored under the protocol of the runs."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansuite import engine
from gansuite.callbacks.samples import save_strips
from gansuite.catalogue import experiment_of
from gansuite.data import DataModule
from gansuite.data.images import is_image, read_image
from gansuite.errors import UserError, nearest
from gansuite.evaluation import Comparison, Evaluator
from gansuite.evaluation.comparison import directions
from gansuite.evaluation.verdict import verdict
from gansuite.imaging import Picture, files_below, picture_image, save_picture
from gansuite.runs import write_json
from gansuite.stacks import is_stack

_NOTHING = "an entry is scored on all of them or not at all"


def score_folder(
    folder: Path,
    data: Sequence[str],
    name: str,
    *,
    comparison: str | None = None,
    seed: int = 0,
    cost: Mapping[str, Any] | None = None,
    out: Path = Path("entries"),
    note: Callable[[str], None] = lambda line: None,
) -> Path:
    """Score the pictures in ``folder`` and write ``out/<name>/seed<seed>/results.json``.

    ``data``: an experiment or a comparison, with overrides, whose test pictures and protocol are
    used. ``comparison``: what the pictures are (``a2b``, ``b2a``, ``to_<domain>``, ``gen``);
    without it, sub-folders of these names are looked for. A translation has the name of its test
    picture (see `picture_names`; any suffix), and the size of the protocol. ``cost``: what is known
    of ``seconds``, ``images_per_second`` and ``parameters``; it is believed.

    Returns the folder of the entry, which `gansuite compare` takes among its names.

    Raises:
        UserError: a test picture is not covered, a picture is unreadable or has another size, or a
            number given is negative or none.
    """
    for key, value in {"seed": seed, **(cost or {})}.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UserError(f"--{key.replace('_', '-')} is {value}; it is a number from 0 up.")
    if not re.fullmatch(r"\w[\w.+@=-]*", name):
        raise UserError(
            f"--name is {name!r}; it names a folder and is made of letters, digits and _ - . + = @."
        )
    if not folder.is_dir():
        raise UserError(f"'{folder}' is no folder; give the one that holds the pictures.")
    experiment = experiment_of(data)
    module = engine.build_data(experiment)
    e, spec = experiment.evaluate, module.spec
    known = {n: (sources, target) for n, sources, target in directions(spec.domains) if sources}
    chosen = _chosen(folder, comparison, [*known, "gen"])
    made = [
        _generated(at, module, e.pictures, note)
        if n == "gen"
        else _translated(at, n, *known[n], module, e.pictures, note)
        for n, at in chosen.items()
    ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluator = Evaluator.of(e, module, device=device, note=note)
    final, references = evaluator.scores(made), evaluator.references(made)
    place = out / name / f"seed{seed}"
    for c in made:
        save_strips(place / "samples", c, e.samples)
    given = {k: v for k, v in (cost or {}).items() if v is not None}
    if "parameters" in given:
        given["parameters"] = {"all": given["parameters"]}
    write_json(
        place / "results.json",
        {
            "experiment": name,
            "method": "",
            "outside": True,
            "seed": seed,
            "data": spec.summary(),
            "protocol": evaluator.report(),
            "budget": {},
            "final": final,
            "best": {},
            "references": references,
            "cost": given,
            "verdict": verdict(final, {}, references),
        },
    )
    return place.parent


def picture_names(module: DataModule, domain: str, limit: int) -> list[str]:
    """What the test pictures of ``domain`` are called, in order: file names without suffix, the
    path below the root where these are not unique, six-digit indices for drawn data."""
    pictures = module.source.pictures.get("test", {}).get(domain)
    count = min(limit, module.spec.counts["test"][domain])
    if not pictures:
        return [f"{i:06d}" for i in range(count)]
    keys = [Path(_key(p.name)) for p in pictures]
    short = [key.name for key in keys]
    unique = len(set(short)) == len(short)
    return (short if unique else [key.as_posix() for key in keys])[:count]


def _key(name: str) -> str:
    """A picture's relative path without suffix; accents composed, as file systems differ."""
    return unicodedata.normalize("NFC", Path(name).with_suffix("").as_posix())


def _chosen(folder: Path, comparison: str | None, known: Sequence[str]) -> dict[str, Path]:
    """comparison name -> the folder of its pictures."""
    if comparison is not None:
        if comparison not in known:
            raise UserError(
                f"--comparison is '{comparison}', which these data do not have"
                f"{nearest(comparison, known)} ({', '.join(known)})."
            )
        return {comparison: folder}
    found = {n: folder / n for n in known if (folder / n).is_dir()}
    if not found:
        raise UserError(
            f"'{folder}' has no folder named {' or '.join(known)}; name them so, or say what the "
            f"pictures are with --comparison."
        )
    return found


def _pictures_in(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Relative path without suffix -> file."""
    found: dict[str, Path] = {}
    for path in files_below(folder):
        if not (is_image(path, suffixes) and path.is_file()):
            continue
        key = _key(path.relative_to(folder).as_posix())
        if key in found:
            raise UserError(f"'{found[key]}' and '{path}' are both named {key}; keep one.")
        found[key] = path
    return found


def _read(paths: Sequence[Path], module: DataModule) -> Tensor:
    """uint8 [N, C, size, size]; every picture must have that size already."""
    size, arrays = module.spec.size, []
    for path in paths:
        array = read_image(path, module.spec.channels)
        if array.shape[:2] != (size, size):
            raise UserError(
                f"'{path}' is {array.shape[1]} x {array.shape[0]} pixels, the protocol has "
                f"{size} x {size}; 'gansuite export-test' writes the inputs at that size."
            )
        arrays.append(array)
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()


def _translated(
    folder: Path,
    name: str,
    sources: Sequence[str],
    target: str,
    module: DataModule,
    limit: int,
    note: Callable[[str], None],
) -> Comparison:
    share = max(1, limit // len(sources))
    wanted = [
        f"{source}/{key}" if len(sources) > 1 else key
        for source in sources
        for key in picture_names(module, source, share)
    ]
    found = _pictures_in(folder, module.source.suffixes)
    missing = [key for key in wanted if key not in found]
    if missing:
        raise UserError(
            f"'{folder}' covers {len(wanted) - len(missing)} of the {len(wanted)} test pictures of "
            f"{' and '.join(sources)} ({name}); the first that is missing is '{missing[0]}', and "
            f"{_NOTHING}."
        )
    if len(found) > len(wanted):
        note(f"{len(found) - len(wanted)} picture(s) in '{folder}' match no test picture: left out")

    def together(get: Callable[[str], Tensor | None]) -> Tensor | None:
        parts = [part for s in sources if (part := get(s)) is not None]
        return torch.cat(parts) if len(parts) == len(sources) else None

    return Comparison(
        name,
        real=module.pictures("test", target, limit),
        fake=_read([found[key] for key in wanted], module),
        source=together(lambda s: module.pictures("test", s, share)),
        truth=together(lambda s: module.truth(s, target, share)),
        mask=together(lambda s: module.masks(s, share)),
        target=target,
    )


def _generated(
    folder: Path, module: DataModule, limit: int, note: Callable[[str], None]
) -> Comparison:
    real = module.pictures("test", None, limit)
    found = list(_pictures_in(folder, module.source.suffixes).values())
    if len(found) < len(real):
        raise UserError(
            f"'{folder}' holds {len(found)} pictures, the protocol scores {len(real)}; make "
            f"{len(real) - len(found)} more."
        )
    if len(found) > len(real):
        note(f"the first {len(real)} of {len(found)} pictures in '{folder}' are scored, by name")
    return Comparison("gen", real=real, fake=_read(found[: len(real)], module))


def export_test(data: Sequence[str], folder: Path) -> dict[str, int]:
    """Write the test pictures that are to be translated, ``folder/<domain>/<name>.png`` (.npy
    where they are no grey or colour pictures), at the size and with the names under which
    `score_folder` expects the results; how many by domain."""
    experiment = experiment_of(data)
    module = engine.build_data(experiment)
    limit = experiment.evaluate.pictures
    suffix = ".npy" if is_stack(module.spec.channels) else ".png"
    written = {}
    for domain in module.spec.domains:
        pictures = module.pictures("test", domain, limit)
        for key, picture in zip(picture_names(module, domain, limit), pictures, strict=True):
            array = picture.permute(1, 2, 0).numpy()
            save_picture(picture_image(Picture(array)), folder / domain / f"{key}{suffix}")
        written[domain] = len(pictures)
    return written
