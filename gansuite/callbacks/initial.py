"""What a fresh run begins with when ``init_from`` names the weights of another one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansuite.callbacks.session import Session
from gansuite.config import Experiment, user_path
from gansuite.errors import UserError
from gansuite.methods.base import Method
from gansuite.runs import find_checkpoint, fitting, read_checkpoint


def read_initial(experiment: Experiment, method: Method) -> dict[str, Any]:
    """The weights that ``init_from`` names, as ``networks``, and as ``note`` where they are from:
    the file, its experiment, which weights, their digest, and what begins anew.

    They are of the same method and the same shapes; domains, pictures, size (where the networks
    have no part in it) and all settings of training may be others. So may the number of labels,
    of which only the weights that follow it begin anew (`Method.per_label`). What belongs to no
    player (optimisers, counters, image pools, the strength of ADA, networks of losses) begins as in
    any run, the averages with these weights.

    Raises:
        UserError: no checkpoint, another method, or a tensor of another shape.
    """
    given = user_path(experiment.init_from, "init_from")
    try:
        file = find_checkpoint(given)
    except UserError as error:
        raise UserError(f"'init_from': {error}") from None
    content = read_checkpoint(file, needs=("experiment", "data", "method"))
    name, own = content["experiment"]["method"]["name"], experiment.method["name"]
    if name != own:
        raise UserError(f"'init_from' is {given}, which holds a {name}, not a {own}; give another.")
    state, averages = dict(content["method"]["networks"]), content["method"]["averages"]["weights"]
    weights = experiment.init_weights
    if weights == "ema" and not averages:
        raise UserError(f"'init_weights' is ema, but {given} holds no averaged weights; use raw.")
    if weights != "raw":
        for network, tensors in averages.items():
            state |= {f"{network}.{key}": x for key, x in tensors.items()}
    anew = _fitted(state, method, given)
    with fitting(file):
        if not all(bool(x.isfinite().all()) for x in state.values()):
            raise UserError(f"{file} holds weights that are not finite; give another.")
    return {
        "networks": state,
        "note": {
            "from": str(given),
            "experiment": content["experiment"]["name"],
            "seed": content["experiment"]["seed"],
            "images_seen": content["method"]["counters"]["images_seen"],
            "weights": "ema" if averages and weights != "raw" else "raw",
            "digest": _digest(state),
            "anew": anew,
            **({"published": p["family"]} if (p := content.get("published")) else {}),
        },
    }


def begin_with(session: Session, initial: dict[str, Any] | None) -> None:
    """Put the weights of `read_initial` into the method and its averages, and note it."""
    if initial is None:
        return
    method = session.method
    method.load_state_dict(initial["networks"])
    for name in list(method.averages.modules):
        method.averages.track(name, method.network(name))
    method.averages.to(method.device, method.dtype)  # type: ignore[arg-type]
    session.notes["init"] = initial["note"]


def _fitted(state: dict[str, Tensor], method: Method, given: Path) -> list[str]:
    """Make ``state`` one of ``method``; what of it begins anew.

    Raises:
        UserError: a tensor is missing, too much or of another shape.
    """
    own, anew = method.state_dict(), []
    players = {network for name in method.players for network in method.networks_of(name)}
    for key in [*state]:
        if key.partition(".")[0] not in players:
            del state[key]
        elif key not in own:
            raise UserError(_other(given, method, f"'{key}' of it is not there"))
    for key, tensor in own.items():
        if key.partition(".")[0] not in players:
            state[key] = tensor.detach().cpu().clone()  # of the losses, this run's own
            continue
        if key not in state:
            raise UserError(_other(given, method, f"it has no '{key}'"))
        found = state[key]
        if found.shape == tensor.shape:
            continue
        if key not in method.per_label:
            shapes = f"{list(found.shape)} there and {list(tensor.shape)} here"
            raise UserError(_other(given, method, f"'{key}' is {shapes}"))
        kept = method.spec.channels if method.per_label[key] else 0
        fresh = tensor.detach().cpu().clone()
        if kept and found.shape[0] == tensor.shape[0] and found.shape[2:] == tensor.shape[2:]:
            fresh[:, :kept] = found[:, :kept]
        state[key] = fresh
        anew.append(key)
    return anew


def _other(given: Path, method: Method, what: str) -> str:
    more = f", but for the number of labels ({', '.join(method.per_label)})"
    return (
        f"'init_from' is {given}, whose networks are others: {what}; give it the same "
        f"'method' options and 'data.channels'{more if method.per_label else ''}."
    )


def _digest(state: Mapping[str, Tensor]) -> str:
    """16 hex digits of all tensors and their names."""
    found = hashlib.sha256()
    for key in sorted(state):
        found.update(key.encode())
        found.update(state[key].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
