"""`gansuite export`: a trained model as a file that is shown to make the same pictures."""

from __future__ import annotations

import contextlib
import hashlib
import math
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from gansuite import __version__, engine
from gansuite.catalogue import schemas
from gansuite.config import read_overrides, resolve
from gansuite.core.inference import Inference
from gansuite.data.images import resize_uint8
from gansuite.errors import UserError, nearest
from gansuite.evaluation.comparison import directions
from gansuite.files import read_json, replacing, write_json
from gansuite.methods.base import Method
from gansuite.rng import torch_generator
from gansuite.runs import Run, find_checkpoint, read_checkpoint
from gansuite.runs.weights import describing, write_weights
from gansuite.tools import webpage
from gansuite.tools.programs import (
    OPSET,
    Program,
    check_format,
    from_bytes,
    load_program,
    sides,
    to_bytes,
    traced,
    write_onnx,
    write_pt2,
)

LARGEST = 1e-3
"""By how much an exported program may differ from PyTorch, in pictures of the range [-1, 1]."""
BATCHES = (1, 3)
Scores = Mapping[str, Mapping[str, float]]


def export(
    path: str | Path,
    output: Path,
    *,
    to: str | None = None,
    weights: str = "auto",
    uint8: bool = False,
    opset: int = OPSET,
    runtime: Path | None = None,
    overrides: Sequence[str] = (),
    note: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the model of a checkpoint to ``output``, .pt2, .onnx, .safetensors or .html (a page
    that runs it, see `webpage`), and to ``export.json`` beside it what it is and how it compares
    with PyTorch on test pictures.

    ``to``: the domain it translates to, if there are several ways; by default the last. ``weights``
    as in `engine.load_method`. ``uint8``: pictures are bytes [N, H, W, C] in and out, else float
    [N, C, H, W] in [-1, 1]; a page is of bytes. ``runtime``: of a page, see
    `webpage.read_runtime`. ``overrides``: where the run's data lie now (``data.root=...``).

    Returns its entry in ``export.json``.

    Raises:
        UserError: no checkpoint, an unknown suffix, a missing package or runtime, a file that
            exists, unknown ``to``, no data, or pictures that differ by more than `LARGEST`; nothing
            is written.
    """
    suffix = check_format(output)
    shown = webpage.read_runtime(runtime) if suffix == ".html" else None
    uint8 = uint8 or shown is not None
    if uint8 and suffix == ".safetensors":
        raise UserError(
            f"'{output}' holds weights, not a graph that takes bytes; leave --uint8 out."
        )
    file = find_checkpoint(path)
    content = read_checkpoint(file, needs=("experiment", "data", "method", "notes"))
    method = engine.load_method(file, weights)
    target = _target(method, to, note)
    inference = method.inference(target)
    used = "ema" if method.averages and weights != "raw" else "raw"
    says: dict[str, Any] = {
        "method": content["experiment"]["method"]["name"],
        "experiment": content["experiment"]["name"],
        "seed": content["experiment"]["seed"],
        "images_seen": content["method"]["counters"]["images_seen"],
        "weights": used,
        "protocol": content["notes"]["protocol"]["id"],
        "data": {k: content["data"][k] for k in ("name", "digest", "domains", "labels")},
        "size": method.spec.size,
        "channels": method.spec.channels,
        "stride": method.stride,
        "fixed": sides(method.spec.size, method.stride) is None,
        "label_sets": [[list(found.labels), found.exclusive] for found in method.spec.label_sets],
        "latent": getattr(method, "latent", None),
        "function": inference.name,
        "to": target,
        "uint8": uint8,
    }
    if shown and method.spec.channels not in (1, 3):
        raise UserError(
            f"a page shows pictures of 1 or 3 channels, this model has {method.spec.channels}"
        )
    pictures = {
        size: _pictures(content, overrides, inference, target, size) for size in sizes(method)
    }
    cases = {
        (size, n): _given(inference, pictures[size], n, uint8) for size in pictures for n in BATCHES
    }
    example = list(cases.values())[-1]
    says["inputs"] = {
        name: _described(inference, name, x, method.stride, says["fixed"])
        for name, x in example.items()
    }
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"model{'.onnx' if shown else suffix}"
        if suffix == ".safetensors":
            write_weights(
                draft, method.state_dict(), describing(content, used, _scores(file, content))
            )
            program: Program = engine.load_method(draft).inference(target)
        else:
            graph = traced(inference, example, method.spec.size, method.stride, uint8)
            if draft.suffix == ".onnx":
                write_onnx(graph, draft, says, opset)
            else:
                write_pt2(graph, draft, says)
            program, _ = load_program(draft)
        found = parity(inference, program, cases, uint8)
        if not found["largest"] <= LARGEST:
            raise UserError(
                f"'{output}' was not written: its pictures differ from PyTorch's by "
                f"{found['largest']:.2g}, more than {LARGEST:g}; export to another format."
            )
        written = draft.read_bytes()
    entry = {
        **says,
        "run": str(file),
        "format": suffix[1:],
        "opset": opset if suffix in (".onnx", ".html") else None,
        "parity": found,
        "versions": _versions(),
    }
    if shown:
        written = webpage.page(written, entry, shown, _latents(method, inference))
        entry["versions"]["onnxruntime-web"] = shown.version
    with replacing(output) as writing:
        writing.write(written)
    entry |= {"bytes": len(written), "sha256": hashlib.sha256(written).hexdigest()}
    beside = output.with_name("export.json")
    write_json(beside, {**(read_json(beside) if beside.is_file() else {}), output.name: entry})
    return entry


def evaluate(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """`engine.evaluate` of the run that ``path``, .pt2 or .onnx, was exported from, with its
    program in the place of the networks. Of a translator there are the comparisons that aim at its
    domain; where one goes back again (``cycle_l1``), PyTorch does.

    Raises:
        UserError: as `engine.evaluate`; or ``export.json`` beside it has no entry of this very
            file, or its run is gone.
    """
    program, _ = load_program(path)
    beside = path.with_name("export.json")
    entry = (read_json(beside) if beside.is_file() else {}).get(path.name)
    if not entry or entry["sha256"] != hashlib.sha256(path.read_bytes()).hexdigest():
        raise UserError(f"'{beside}' has no entry of this '{path}'; export it again.")
    found = engine.evaluate(
        find_checkpoint(entry["run"]), overrides, lambda method: _replace(method, program, entry)
    )
    if found["weights"] != entry["weights"]:
        raise UserError(
            f"'{path}' has {entry['weights']} weights, its run scores {found['weights']} ones; "
            f"export it with --weights {found['weights']}."
        )
    if entry["function"] == "translate":
        kept = {
            name
            for name, _, target in directions(entry["data"]["domains"])
            if target == entry["to"]
        }
        for rows in (found["final"], found["recorded"] or {}):
            for name in rows.keys() - kept:
                del rows[name]
    return found


def _replace(method: Method, program: Program, entry: Mapping[str, Any]) -> None:
    """Put ``program`` in the place of the function of ``method`` that it was exported from."""
    name, uint8 = entry["function"], entry["uint8"]
    inference, before = method.inference(entry["to"]), getattr(method, name)

    def function(*given: Any) -> Tensor:
        if name == "translate" and given[1] != entry["to"]:
            return cast(Tensor, before(*given))
        named = dict(zip(inference.inputs, given, strict=False))
        first = next(iter(named.values()))
        for key, kind in inference.inputs.items():
            if kind == "share":
                named[key] = torch.full((1,), float(named.get(key, 1.0)))
            elif kind == "picture" and uint8:
                named[key] = to_bytes(named[key])
        made = program(**named)
        return (from_bytes(made) if uint8 else made).to(first)

    setattr(method, name, function)


def largest_relative(a: Scores, b: Scores) -> tuple[str, float]:
    """The score in which two sets of scores differ most, relative to the larger, and by how much;
    inf where one lacks it."""
    flat = [{f"{n}/{m}": v for n, row in rows.items() for m, v in row.items()} for rows in (a, b)]
    by = {
        k: abs(flat[0][k] - flat[1][k]) / max(abs(flat[0][k]), abs(flat[1][k]), 1e-12)
        if k in flat[0] and k in flat[1]
        else math.inf
        for k in flat[0] | flat[1]
    }
    return max(by.items(), key=lambda item: item[1])


def sizes(method: Method) -> list[tuple[int, int]]:
    """The sizes at which a program is compared: the training size and, where it is free, another
    that is no square."""
    size, stride = method.spec.size, method.stride
    free = method.task == "translate" and sides(size, stride)
    return [(size, size), *([(size + stride, size + 2 * stride)] if free else [])]


def parity(
    inference: Inference,
    program: Program,
    cases: Mapping[tuple[tuple[int, int], int], Mapping[str, Tensor]],
    uint8: bool,
) -> dict[str, Any]:
    """How the pictures of ``program`` differ from those of ``inference``, for each of ``cases``
    ((height, width), batch) -> inputs, and at worst: ``largest``, the largest difference in the
    range [-1, 1]; ``psnr`` in dB, None where nothing differs; ``share``, of 8-bit values that do.

    Of bytes, ``largest`` is how far PyTorch's float is from those that round to the byte.
    """
    rows = []
    for (size, n), given in cases.items():
        floats = {k: from_bytes(x) if x.dtype == torch.uint8 else x for k, x in given.items()}
        with torch.no_grad():
            wanted = inference(**floats)
        made, levels = program(**given), to_bytes(wanted)
        if uint8:
            exact = (wanted.clamp(-1, 1).permute(0, 2, 3, 1).double() + 1) * 127.5
            off = ((exact - made.double()).abs() - 0.5).clamp(min=0) / 127.5
            by, differ = (made.double() - levels.double()) / 127.5, made != levels
        else:
            by = made.double() - wanted.double()
            off, differ = by.abs(), to_bytes(made) != levels
        error = by.square().mean().item()
        rows.append(
            {
                "size": list(size),
                "batch": n,
                "largest": off.max().item(),
                "psnr": 10 * math.log10(4 / error) if error else None,
                "share": differ.double().mean().item(),
            }
        )
    first = next(iter(cases.values()))
    floats = {k: from_bytes(x) if x.dtype == torch.uint8 else x for k, x in first.items()}
    return {
        "largest": torch.tensor([row["largest"] for row in rows]).max().item(),  # or no number
        "psnr": min((row["psnr"] for row in rows if row["psnr"] is not None), default=None),
        "share": max(row["share"] for row in rows),
        "milliseconds": {
            "pytorch": _milliseconds(lambda: inference(**floats)),
            "exported": _milliseconds(lambda: program(**first)),
        },
        "cases": rows,
    }


@torch.no_grad()
def _milliseconds(call: Callable[[], Tensor]) -> float:
    """Of one call, the best of three."""
    best = math.inf
    for _ in range(3):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return round(1000 * best, 3)


def _scores(file: Path, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The scores that the run, or the model folder, has of this checkpoint."""
    if file.suffix == ".safetensors":
        return cast(Mapping[str, Any], content["notes"]["final"])
    return Run(file.parent.parent).scores_at(content["method"]["counters"]["images_seen"])


def _target(method: Method, to: str | None, note: Callable[[str], None]) -> str:
    if method.task != "translate":
        if to is not None:
            raise UserError("this model makes pictures from noise; leave --to out")
        return ""
    targets = method.targets
    one = method.inference(targets[-1])
    if one.name != "translate":
        if to is not None:
            raise UserError(
                f"{method.title} is told where to by its inputs ({', '.join(one.inputs)}); leave "
                f"--to out"
            )
        return targets[-1]
    if to is None:
        if len(targets) > 1:
            note(f"the way to {targets[-1]} is exported (--to {targets[0]} for the way back)")
        return targets[-1]
    if to not in targets:
        raise UserError(
            f"this model translates to {' or '.join(targets)}, not to '{to}'{nearest(to, targets)}"
        )
    return to


def _pictures(
    content: Mapping[str, Any],
    overrides: Sequence[str],
    inference: Inference,
    target: str,
    size: tuple[int, int],
) -> dict[str, Tensor]:
    """Test pictures of the run, uint8 [n, H, W, C], for each input that is one: the references
    are of the target domain, the others are not."""
    names = [name for name, kind in inference.inputs.items() if kind == "picture"]
    if not names:
        return {}
    layers = [("the checkpoint", content["experiment"]), *read_overrides(overrides)]
    data, n = engine.build_data(resolve(layers, schemas())), max(BATCHES)
    found = {}
    for name in names:
        domains = [d for d in data.spec.domains if (d == target) == (name == "reference")]
        real = data.pictures("test", domains[0] if domains else None, n)
        if len(real) < n:
            raise UserError(
                f"an export is compared on {n} test pictures, data '{data.spec.name}' has "
                f"{len(real)}; add some"
            )
        arrays = [resize_uint8(x.permute(1, 2, 0).numpy(), size) for x in real]
        found[name] = torch.from_numpy(np.stack(arrays))
    return found


def _latents(method: Method, inference: Inference) -> Tensor | None:
    """float32 [webpage.SEEDS, z_dim]: the latents of the seeds, as `gansuite sample` draws them."""
    kind = inference.inputs.get("z")
    if not callable(kind):
        return None
    draw = getattr(method, "z_from", None)
    if draw is None:
        return kind(webpage.SEEDS).float()
    seeds = range(webpage.SEEDS)
    return torch.cat([draw(1, torch_generator(s, "sample")) for s in seeds]).float()


def _given(
    inference: Inference, pictures: Mapping[str, Tensor], n: int, uint8: bool
) -> dict[str, Tensor]:
    """``n`` of each input."""

    def of(name: str) -> Tensor:
        kind = inference.inputs[name]
        if kind == "picture":
            return pictures[name][:n] if uint8 else from_bytes(pictures[name][:n]).contiguous()
        return torch.tensor([0.7]) if kind == "share" else kind(n)

    return {name: of(name) for name in inference.inputs}


def _described(
    inference: Inference, name: str, x: Tensor, stride: int, fixed: bool
) -> dict[str, Any]:
    shape: list[Any] = list(x.shape)
    if inference.inputs[name] != "share":
        shape[0] = "batch"
    if inference.inputs[name] == "picture" and not fixed:
        first = 1 if x.dtype == torch.uint8 else 2
        shape[first : first + 2] = [
            f"{side}, a multiple of {stride}" for side in ("height", "width")
        ]
    return {"shape": shape, "type": str(x.dtype).removeprefix("torch.")}


def _versions() -> dict[str, str]:
    found = {"gansuite": __version__, "python": platform.python_version()}
    for package in ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
