"""What is said of a wrong key or value: one sentence with the file, the key and the way out."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from gansuite.errors import UserError, nearest

Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""(where it was written, content) of everything that makes up an experiment, lowest first."""

COMMAND_LINE = "the command line"


def first_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."), "")


def shown(value: Any, quotes: str = "'") -> str:
    """``value`` as a message shows it: a text in ``quotes``, long ones cut."""
    text = (repr(value) if quotes else value) if isinstance(value, str) else repr(value)
    return (
        text if len(text) <= 200 else f"{text[:120]}...{quotes if isinstance(value, str) else ''}"
    )


def place(layers: Layers, key: Sequence[str]) -> str:
    """Where ``key`` was written last; the experiment's own file for one that nobody wrote."""
    files = [name for name, _ in layers if name != COMMAND_LINE]
    for name, content in reversed(layers):
        value: Any = content
        for part in key:
            if isinstance(value, Mapping):
                if part not in value:
                    break
                value = value[part]
        else:
            return name
    return files[-1]


def explain(
    error: ValidationError,
    value: Any,
    model: Any,
    layers: Layers,
    section: Sequence[str],
    fixed_keys: Sequence[str],
) -> UserError:
    """The first validation error as one sentence: file, key, what is wrong, the nearest match.

    ``fixed_keys`` are those of all fixed sections, for a key that was written in the wrong one.
    """
    errors = error.errors()
    first = errors[0]
    # of a union, every member reports, with its type as a last part that is no key
    location: list[str] = []
    for part in first["loc"]:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif not (isinstance(value, list) and isinstance(part, int)) and first["type"] != "missing":
            break
        location.append(str(part))
    key = [*section, *location]
    where, dotted = place(layers, key), shown(".".join(key), "")
    if first["type"] == "missing":
        return UserError(f"{where}: the key '{dotted}' is missing.")
    if first["type"] == "extra_forbidden":
        for part in location[:-1]:
            inner = getattr(model, "model_fields", {}).get(part)
            model = typing.get_args(model)[1] if inner is None else inner.annotation
        known = list(model.model_fields)
        elsewhere = [k for k in fixed_keys if k.split(".")[-1] == key[-1]]
        near = nearest(key[-1], known).replace("'", f"'{'.'.join([*key[:-1], ''])}", 1)
        hint = f"; did you mean '{elsewhere[0]}'?" if elsewhere else near
        return UserError(
            f"{where}: there is no key '{dotted}'{hint} (known here: {', '.join(known)})."
        )
    n = len(location)
    messages = [e["msg"] for e in errors if e["loc"][:n] == first["loc"][:n]]
    wrong = " or ".join(dict.fromkeys(m.removeprefix("Input should be ") for m in messages))
    if messages[0].startswith("Input should be "):
        wrong = "it must be " + wrong.partition(" or instance of ")[0]
        wrong = wrong.replace("a valid dictionary", "a mapping of keys to values")
    found = "null" if first["input"] is None else shown(first["input"])
    return UserError(f"{where}: '{dotted}' is {found}; {wrong[0].lower()}{wrong[1:]}.")
