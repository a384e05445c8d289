"""What the files of a run hold, as types: the door through which compare, report and score read
them. A file from elsewhere, or one that was edited, is refused in one sentence; keys that are not
known here are let through, as a later version may write more.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from gansuite.errors import UserError

Count = Annotated[int, Field(ge=0, le=2**53)]
Score = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Price = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e21)]
Scores = dict[str, dict[str, Score]]
_LONGEST = 60  # characters of a wrong value that a sentence shows


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _DataOf(_Part):
    name: str = ""
    digest: str
    domains: list[str] | None = None


class _Protocol(_Part):
    id: str
    size: Count | None = None
    samples: Count | None = None
    weights: str | None = None


class _BudgetOf(_Part):
    kimg: Price | None = None
    seconds: Price | None = None


class _References(_Part):
    do_nothing: Scores = {}
    real_vs_real: Scores = {}


class _Cost(_Part):
    seconds: Price | None = None
    eval_seconds: Price | None = None
    evaluation_share: Price | None = None
    images_per_second: Price | None = None
    peak_memory_mb: Price | None = None
    flops_per_image: Price | None = None
    parameters: dict[str, Count] | None = None


class Event(_Part):
    """What was seen on the way: an entry of ``health``, or such a line of ``metrics.jsonl``."""

    images_seen: Count = 0
    back_to: Count = 0
    event: str = ""
    name: str = ""
    action: str = ""
    message: str = ""


class _Init(_Part):
    experiment: str
    digest: str


class Results(_Part):
    """``results.json``; see `callbacks.results`, `tools.score` and `tools.importing`, which write
    it."""

    experiment: str = ""
    method: str = ""
    outside: bool = False
    published: str = ""
    seed: Count = 0
    data: _DataOf
    protocol: _Protocol
    budget: _BudgetOf = _BudgetOf()
    images_seen: Count | None = None
    final: Scores
    best: Scores = {}
    references: _References = _References()
    cost: _Cost = _Cost()
    health: list[Event] = []
    init: _Init | None = None
    verdict: str = ""


class _NamedSection(_Part):
    name: str | None = None


class _DataSection(_NamedSection):
    size: Count | None = None


class Config(_Part):
    """``config.yaml``, as far as a comparison reads it. Its rules may be those of another version,
    so that it is not held against the configuration's own schema."""

    name: str | None = None
    seed: Count | None = None
    method: _NamedSection = _NamedSection()
    data: _DataSection = _DataSection()
    budget: _BudgetOf | None = None
    evaluate: dict[str, Any] | None = None
    trainer: dict[str, Any] | None = None
    ema: dict[str, Any] | None = None
    health: dict[str, Any] | None = None
    log: dict[str, Any] | None = None
    optim: dict[str, Any] | None = None


class Environment(_Part):
    """``environment.json``."""

    device: str = ""
    command: str | list[str] = ""
    packages: dict[str, str] = {}


class _Record(_Part):
    """A line of ``metrics.jsonl`` or ``timing.jsonl``; what is not named here is a number."""

    __pydantic_extra__: dict[str, float | None]
    kind: str
    images_seen: Count
    batches: Count = 0
    seconds: Price | None = None


_RECORD = TypeAdapter(_Record)
_EVENT = TypeAdapter(Event)


def read_results(file: Path) -> dict[str, Any]:
    """The content of a ``results.json``.

    Raises:
        UserError: it is damaged, or holds something of another type.
    """
    fix = f"remove {file} and run the same command again"
    content = _parsed(file, fix)
    checked = _check(TypeAdapter(Results), content, file, fix)
    if not checked.outside and "budget" not in content:
        raise UserError(f"{file} is damaged (it has no 'budget'); {fix}.")
    return content


def read_config(file: Path) -> dict[str, Any]:
    """The content of a run's ``config.yaml``; {} without one.

    Raises:
        UserError: it is damaged, or a section is none.
    """
    return _optional(file, TypeAdapter(Config), f"write {file} anew, or leave this run out")


def read_environment(file: Path) -> dict[str, Any]:
    """The newest entry of an ``environment.json``; {} without one.

    Raises:
        UserError: it is damaged, or holds something of another type.
    """
    if not file.is_file():
        return {}
    fix = f"remove {file}, which only says what ran"
    content = _parsed(file, fix, (dict, list))
    listed = content if isinstance(content, list) else [content]
    _check(TypeAdapter(list[Environment]), listed, file, fix)
    return listed[-1] if listed else {}


def read_records(file: Path) -> tuple[dict[str, Any], ...]:
    """The records of a ``.jsonl`` file, in order. A line that is cut off is left out: it is what a
    run that was killed leaves.

    Raises:
        UserError: a record holds something of another type; its line is named.
    """
    if not file.is_file():
        return ()
    fix = f"remove the line, or move {file} away"
    found = []
    for number, line in enumerate(_text(file, fix).splitlines(), 1):
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            kind = record.get("kind") if isinstance(record, dict) else None
            model: TypeAdapter[Any] = _EVENT if kind == "health" else _RECORD
            _check(model, record, f"{file}, line {number},", fix)
            found.append(record)
    return tuple(found)


def _text(file: Path, fix: str) -> str:
    try:
        return file.read_text(errors="replace")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); {fix}.") from error


def _parsed(file: Path, fix: str, kinds: tuple[type, ...] = (dict,)) -> Any:
    """A mapping (or one of ``kinds``) from a JSON or YAML file."""
    text = _text(file, fix)
    try:
        content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file} is damaged ({type(error).__name__}); {fix}.") from error
    if not isinstance(content, kinds):
        what = "no JSON object" if file.suffix == ".json" else "no mapping"
        raise UserError(f"{file} holds {what}; {fix}.")
    return content


def _optional(file: Path, model: TypeAdapter[Any], fix: str) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content = _parsed(file, fix)
    _check(model, content, file, fix)
    return content


def _check(model: TypeAdapter[Any], content: Any, where: object, fix: str) -> Any:
    """Raise for the first thing that is of another type, and for nests too deep to be ours."""
    try:
        if any(depth > 16 for depth in _depths(content)):
            raise UserError(f"{where} is damaged (it is nested more than 16 deep); {fix}.")
        return model.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, _location(first["loc"], content)))
        if first["type"] == "missing":
            raise UserError(f"{where} is damaged (it has no '{key}'); {fix}.") from None
        wanted = re.sub(r" or (instance of )?_?[A-Z]\w+$", "", first["msg"])
        wanted = wanted.removeprefix("Input should be ")
        value = "null" if first["input"] is None else repr(first["input"])
        shown = value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
        raise UserError(
            f"{where} is damaged ({repr(key) + ' is ' if key else 'it is '}{shown}, not "
            f"{wanted[0].lower()}{wanted[1:]}); {fix}."
        ) from None


def _location(parts: tuple[int | str, ...], content: Any) -> Iterator[int | str]:
    """The keys of a location, without the members of unions that pydantic adds."""
    for i, part in enumerate(parts):
        inside = isinstance(content, Mapping) and part in content
        if inside or (isinstance(content, list) and isinstance(part, int)):
            content = content[part]
            yield part
        elif i == len(parts) - 1 and isinstance(content, Mapping):
            yield part  # what is missing


def _depths(content: Any) -> Iterator[int]:
    """How deep each container lies; without recursion."""
    waiting = [(content, 1)]
    while waiting:
        value, depth = waiting.pop()
        yield depth
        if depth <= 16:
            inner = value.values() if isinstance(value, dict) else value
            inner = inner if isinstance(value, dict | list) else ()
            waiting += [(v, depth + 1) for v in inner if isinstance(v, dict | list)]
