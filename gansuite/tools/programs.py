"""Programs: a method's `Inference` as a file that runs without gansuite, and such a file run."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import Dim

from gansuite.core.inference import Inference
from gansuite.errors import UserError

FORMATS = (".pt2", ".onnx", ".safetensors", ".html")
OPSET = 20
_MOST = 1 << 16  # pixels a side
_LEAST = 16  # as in `translate`
_KEY = "gansuite"  # of what a file says of itself

Program = Callable[..., Tensor]
"""Takes tensors by the names of the inputs and gives the pictures."""


def check_format(path: Path) -> str:
    """The suffix of ``path``, which says the format.

    Raises:
        UserError: it is none of `FORMATS`, the packages for it are missing, or the file exists.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise UserError(
            f"'{path}' has no suffix of a format: name it .pt2 (PyTorch), .onnx (ONNX), "
            f".safetensors (weights alone) or .html (a page that runs it)."
        )
    onnx = ("onnx", ("onnx", "onnxscript", "onnxruntime"))
    needed = {".onnx": onnx, ".html": onnx, ".safetensors": ("safetensors", ("safetensors",))}
    extra, packages = needed.get(suffix, ("", ()))
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"'{path}' needs the package {package}: pip install 'gansuite[{extra}]'."
            )
    if path.exists():
        raise UserError(f"'{path}' exists; give another name, or remove it first.")
    return suffix


class Bytes(nn.Module):
    """An `Inference` from bytes to bytes: pictures are uint8 [N, H, W, C], as they lie in files,
    in and out; numbers out of range are cut, the rest goes to the nearest level."""

    def __init__(self, inference: Inference) -> None:
        super().__init__()
        self.inference = inference
        pictures = [name for name, kind in inference.inputs.items() if kind == "picture"]

        @functools.wraps(inference.forward)
        def forward(*_: Tensor, **given: Tensor) -> Tensor:
            given |= {name: from_bytes(given[name]) for name in pictures}
            return to_bytes(inference(**given))

        self.forward = forward


def from_bytes(x: Tensor) -> Tensor:
    """uint8 [N, H, W, C] -> float [N, C, H, W] in [-1, 1]."""
    return x.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(x: Tensor) -> Tensor:
    """float [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C]."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)


def sides(size: int, stride: int) -> dict[str, Any] | None:
    """The dimensions H and W of a program, any multiple of ``stride``; None where they must be
    ``size``: a network that halves its training size down to one pixel does not have the same
    graph at that size as at others."""
    if stride >= size:
        return None
    least = math.ceil(max(min(_LEAST, size), 2 * stride) / stride)
    return {
        side: stride * Dim(side, min=least, max=_MOST // stride)
        for side in ("height", "width", "reference_height", "reference_width")
    }


def traced(
    inference: Inference, given: Mapping[str, Tensor], size: int, stride: int, uint8: bool
) -> torch.export.ExportedProgram:
    """The graph of ``inference``, for any batch, and any size if the networks allow (`sides`).

    ``given``: an example of each input, of more than one picture.
    """
    batch, named = Dim("batch", min=1, max=_MOST), sides(size, stride)
    shapes: dict[str, Any] = {}
    for name, kind in inference.inputs.items():
        shapes[name] = {} if kind == "share" else {0: batch}
        if kind == "picture" and named:
            first, before = 1 if uint8 else 2, "" if name == "image" else f"{name}_"
            shapes[name] |= {first: named[f"{before}height"], first + 1: named[f"{before}width"]}
    module = Bytes(inference) if uint8 else inference
    with torch.no_grad(), _quiet():
        return torch.export.export(
            module.eval(), (), dict(given), dynamic_shapes=shapes, strict=False
        )


def write_pt2(program: torch.export.ExportedProgram, path: Path, says: Mapping[str, Any]) -> None:
    """Save it as torch.export does; ``says`` is kept beside it as JSON."""
    with _quiet():
        torch.export.save(program, path, extra_files={f"{_KEY}.json": json.dumps(says)})


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    says: Mapping[str, Any],
    opset: int,
) -> None:
    """Save it as one ONNX file; ``says`` is its metadata."""
    names = list(program.example_inputs[1])
    with _quiet():
        made = torch.onnx.export(
            program,
            (),
            kwargs=program.example_inputs[1],
            dynamo=True,
            input_names=names,
            output_names=["picture"],
            opset_version=opset,
            verbose=False,
        )
    assert made is not None
    made.model.metadata_props[_KEY] = json.dumps(says)
    made.save(path)


def load_program(path: str | Path) -> tuple[Program, dict[str, Any]]:
    """What `gansuite export` wrote to a .pt2 or .onnx file, ready to be called by the names of its
    inputs, and what the file says of itself.

    Raises:
        UserError: it is no such file, or onnxruntime is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"There is no exported model {path}.")
    if path.suffix.lower() == ".pt2":
        return _load_pt2(path)
    if path.suffix.lower() == ".onnx":
        return _load_onnx(path)
    raise UserError(f"'{path}' is no exported model; its name ends in .pt2 or .onnx.")


def _load_pt2(path: Path) -> tuple[Program, dict[str, Any]]:
    kept = {f"{_KEY}.json": ""}
    try:
        with _quiet():
            module = torch.export.load(path, extra_files=kept).module()
            says = json.loads(kept[f"{_KEY}.json"])
    except Exception as error:
        raise _damaged(path, error) from error

    def run(**given: Tensor) -> Tensor:
        with torch.no_grad():
            return cast(Tensor, module(**given))

    return run, says


def _load_onnx(path: Path) -> tuple[Program, dict[str, Any]]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            f"'{path}' needs the package onnxruntime: pip install 'gansuite[onnx]'."
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        says = json.loads(session.get_modelmeta().custom_metadata_map[_KEY])
    except Exception as error:
        raise _damaged(path, error) from error

    def run(**given: Tensor) -> Tensor:
        (made,) = session.run(None, {name: x.cpu().numpy() for name, x in given.items()})
        return torch.from_numpy(made)

    return run, says


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"'{path}' was not written by 'gansuite export', or is damaged ({type(error).__name__})."
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Leave unsaid what the exporters find of note."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
