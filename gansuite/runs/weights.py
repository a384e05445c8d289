"""A trained model as one safetensors file: the weights it is used with and, as the metadata, all
that is needed to build it again and to score it under its protocol. Nothing is unpickled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansuite.errors import UserError
from gansuite.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

NAME = "model.safetensors"
"""What the file of a model folder is called."""
_KEY = "gansuite"


def public(value: Any) -> Any:
    """Plain containers without the paths of a machine: of an absolute one the last part stays."""
    if isinstance(value, Mapping):
        return {key: public(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [public(inner) for inner in value]
    absolute = isinstance(value, str) and (value.startswith(("/", "~")) or value[1:3] == ":\\")
    return value.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1] if absolute else value


def describing(
    content: Mapping[str, Any], weights: str, final: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Of a checkpoint's content what goes with its weights, ``ema`` or ``raw``, and the scores
    that were made with them; fit for JSON."""
    state, notes = content["method"], content["notes"]
    return {
        "experiment": public(content["experiment"]),
        "data": content["data"],
        "counters": state["counters"],
        "progress": state["progress"],
        "protocol": notes["protocol"],
        "references": notes["references"],
        "final": final or {},
        "weights": weights,
        "averaged": sorted(state["averages"]["weights"]) if weights == "ema" else [],
    }


def write_weights(path: Path, tensors: Mapping[str, Tensor], describes: Mapping[str, Any]) -> None:
    """Write ``tensors``, a method's state, and what `describing` says of it, atomically.

    Raises:
        UserError: safetensors is missing, or the folder cannot be written.
    """
    try:
        from safetensors.torch import save
    except ImportError:
        raise _missing(path) from None
    apart = {name: x.detach().cpu().clone().contiguous() for name, x in tensors.items()}
    with replacing(path) as file:
        file.write(save(apart, {"format": "pt", _KEY: json.dumps(describes)}))


def _missing(path: Path) -> UserError:
    return UserError(f"{path} needs the package safetensors: pip install 'gansuite[safetensors]'.")


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, as far as it can be had from a file of `write_weights`.

    Raises:
        UserError: it is no such file or damaged, or safetensors is missing.
    """
    try:
        from safetensors import safe_open
    except ImportError:
        raise _missing(path) from None
    try:
        with safe_open(path, framework="pt") as file:
            says = json.loads((file.metadata() or {})[_KEY])
            networks = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        averages = {
            name: {k[len(name) + 1 :]: x for k, x in networks.items() if k.startswith(f"{name}.")}
            for name in says["averaged"]
        }
        return {
            "experiment": says["experiment"],
            "data": says["data"],
            "method": {
                "networks": networks,
                "averages": {"weights": averages, "updated_at": dict.fromkeys(averages, 0)},
                "optimizers": {},
                "counters": says["counters"],
                "progress": says["progress"],
            },
            "notes": {
                "protocol": says["protocol"],
                "references": says["references"],
                "final": says["final"],
                "best": {},
            },
        }
    except Exception as error:
        raise UserError(
            f"{path} is no model of gansuite, or it is damaged ({type(error).__name__}); give a "
            f"file that 'gansuite export' or 'gansuite share' wrote."
        ) from error
