"""Layers of keys and values -> one validated `Experiment`.

Order of precedence, lowest first: defaults of the schema, the ``extends`` chain, the file, the
``key=value`` overrides. Only then are ``${interpolations}`` resolved, so an override reaches every
value that refers to it; then the result is validated and frozen.
"""

from __future__ import annotations

import contextlib
import re
import types
import typing
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import Field, ValidationError, create_model

from gansuite.config.files import find_experiment, read_layers, read_overrides
from gansuite.config.messages import Layers, explain, first_line, place, shown
from gansuite.config.renamed import with_new_names
from gansuite.config.schema import (
    KINDS,
    SECTIONS,
    Compare,
    DataOptions,
    Experiment,
    Log,
    Rate,
    Section,
    fixed_keys,
    out_path,
)
from gansuite.errors import UserError, nearest
from gansuite.interpolation import refuse_growth
from gansuite.signatures import REQUIRED, Signature


@dataclass(frozen=True)
class Schemas:
    """Where the dynamic sections come from: names, and the options behind a name."""

    methods: Sequence[str]
    method: Callable[[str], Signature]
    sources: Sequence[str]
    source: Callable[[str], Signature]


# of options with one of these names, whatever the class; another number lies within a million
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("seed", "split_seed"), (0, (1 << 63) - 1)),
    **dict.fromkeys(("blocks", "d_layers", "mapping_layers"), (0, 64)),
    "n_critic": (0, 1000),
    "train": (0, 10_000_000),
    "test": (0, 10_000_000),
    "mixing": (0, 1),
    "patches": (1, 1_000_000),
    "temperature": (1e-3, 1e3),
    "dropout": (0, 1),
    "clip": (0, 1e6),
}


def options_model(signature: Signature, base: type[Section], name: str) -> type[Section]:
    """A strict model of a class's options on top of ``base``'s fields."""
    fields: dict[str, Any] = {}
    for key, (hint, default) in signature.options.items():
        members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        if {int, float} & {m for m in members if isinstance(m, type)}:
            # an int is a size, a count or a seed: a negative one is always a slip
            low, high = _RANGES.get(key, (0 if int in members else -1e6, 1_000_000))
            hint = Annotated[hint, Field(ge=low, le=high)]
        if key == "weights":
            hint = dict[str, Rate]
        fields[key] = (hint, ... if default is REQUIRED else default)
    return create_model(name, __base__=base, name=(str, ...), **fields)


def _validate(
    model: type[Section], value: Any, layers: Layers, section: Sequence[str] = ()
) -> Section:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise explain(error, value, model, layers, section, fixed_keys()) from None


def checked_options(
    signature: Signature, name: str, given: Mapping[str, Any], where: str
) -> dict[str, Any]:
    """The options ``given`` under ``where`` for ``name``, validated, with its defaults.

    Raises:
        UserError: one sentence that names the key and the nearest match.
    """
    content: Any = dict(given)
    for key in reversed(where.split(".")):
        content = {key: content}
    model = options_model(signature, Section, where)
    whole = {**signature.defaults(), **given, "name": name}
    found = _validate(model, whole, [(f"data set '{name}'", content)], where.split("."))
    return {k: v for k, v in found.model_dump().items() if k != "name"}


def _check_weights(signature: Signature, value: Mapping[str, Any], layers: Layers) -> None:
    known = signature.defaults().get("weights")
    for term in value.get("weights", {}):
        if known is not None and term not in known:
            raise UserError(
                f"{place(layers, ['method', 'weights', term])}: 'method.weights.{term}' is a "
                f"weight for no term of {value['name']}{nearest(term, known)} "
                f"(its terms: {', '.join(known)})."
            )


def load(name: str, overrides: Sequence[str], schemas: Schemas) -> Experiment:
    """Read experiment ``name`` with ``key=value`` overrides.

    Raises:
        UserError: one sentence that names the file, the key and the nearest match.
    """
    path = find_experiment(name)
    layers = [(str(path), {"name": path.stem}), *read_layers(path), *read_overrides(overrides)]
    return resolve(layers, schemas)


def load_comparison(path: Path | None, overrides: Sequence[str] = ()) -> Compare:
    """The ``compare:`` section of a comparison file (None: of no file), with overrides of it.

    Raises:
        UserError: one sentence that names the file, the key and the nearest match.
    """
    layers = read_layers(path) if path else []
    layers = [*layers, *read_overrides([f"compare.{item}" for item in overrides])]
    merged: dict[str, Any] = {}
    for where, content in layers:
        for key in content.keys() - {"compare"}:
            raise UserError(
                f"{where}: there is no key '{key}' in a comparison{nearest(key, ['compare'])}; "
                f"all of it stands under 'compare'."
            )
        if not isinstance(content.get("compare", {}), dict):
            raise UserError(f"{where}: 'compare' must be a mapping of keys to values.")
        with _one_sentence(layers):
            full = OmegaConf.merge(merged, content)
            refuse_growth(_unresolved(full), lambda key: place(layers, key))
            merged = typing.cast(dict[str, Any], OmegaConf.to_container(full, resolve=True))
    _check_texts(merged, layers)
    spec = _validate(Compare, merged.get("compare", {}), layers, ["compare"])
    spec = typing.cast(Compare, spec)
    given = [k for k, v in spec.budget.model_dump().items() if v is not None]
    for what, many in (("seeds", spec.seeds), ("experiments", spec.experiments)):
        twice = [v for i, v in enumerate(many) if v in many[:i]]
        if twice:
            raise UserError(f"{place(layers, ['compare', what])}: {what} names {twice[0]} twice.")
    if len(given) > 1:
        raise UserError(
            f"{place(layers, ['compare', 'budget'])}: a comparison has one budget, not "
            f"{' and '.join(given)}; set the others to null."
        )
    return spec


def resolve(layers: Layers, schemas: Schemas) -> Experiment:
    """Merge layers over the defaults, resolve interpolations, validate and freeze."""
    layers = with_new_names(layers, list(Log().loggers))
    with _one_sentence(layers):
        return _resolve(layers, schemas)


@contextlib.contextmanager
def _one_sentence(layers: Layers) -> Iterator[None]:
    """Make one sentence of what merging and resolving raise."""
    try:
        yield
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        where = place(layers, key.split(".")) + f": '{key}'" if key else layers[-1][0]
        reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", first_line(error))
        raise UserError(f"{where}: {reason}.") from None
    except RecursionError:
        raise UserError(f"{layers[-1][0]}: a value refers to too many others.") from None


def _unresolved(full: Any) -> dict[str, Any]:
    return typing.cast(dict[str, Any], OmegaConf.to_container(full, resolve=False))


def _check_texts(value: Any, layers: Layers, key: tuple[str, ...] = ()) -> None:
    """Every text must be one that a file, a page and a path can hold."""
    if isinstance(value, str):
        bad = next((c for c in value if unicodedata.category(c) in ("Cc", "Cs")), None)
        if bad is not None:
            what = "not UTF-8" if unicodedata.category(bad) == "Cs" else "a control character"
            raise UserError(
                f"{place(layers, key)}: '{'.'.join(key)}' is {shown(value)}, which has "
                f"{bad!r} in it ({what})."
            )
    for name, inner in (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        _check_texts(str(name), layers, key)
        _check_texts(inner, layers, (*key, str(name)))


def _check_kinds(below: Any, above: Any, where: str, key: tuple[str, ...] = ()) -> None:
    """A list never stands where a mapping is expected, nor the other way round."""
    if isinstance(below, dict) and isinstance(above, list):
        kind = "a mapping of keys to values"
    elif isinstance(below, list) and isinstance(above, dict):
        kind = "a list"
    else:
        kind = ""
    if kind:
        raise UserError(f"{where}: '{'.'.join(key)}' is {shown(above)}; it must be {kind}.")
    if isinstance(below, dict) and isinstance(above, dict):
        for name in below.keys() & above.keys():
            _check_kinds(below[name], above[name], where, (*key, str(name)))


def _resolve(layers: Layers, schemas: Schemas) -> Experiment:
    for i, (where, content) in enumerate(layers):
        for _, below in [("", KINDS), *layers[:i]]:
            _check_kinds(below, content, where)
    merged = typing.cast(DictConfig, OmegaConf.merge(*[content for _, content in layers]))
    signatures: dict[str, Signature] = {}
    for section, noun, names, get in (
        ("method", "method", schemas.methods, schemas.method),
        ("data", "data set", schemas.sources, schemas.source),
    ):
        block = merged.get(section)
        chosen = block.get("name") if isinstance(block, DictConfig) else block
        where = place(layers, [section, "name"])
        if not isinstance(block, DictConfig) or not isinstance(chosen, str):
            hint = f"write '{section}.name={chosen}'" if isinstance(chosen, str) else "give it"
            raise UserError(
                f"{where}: '{section}.name' is missing; {hint} (known: {', '.join(names)})."
            )
        if chosen not in names:
            raise UserError(
                f"{where}: there is no {noun} '{chosen}'{nearest(chosen, names)} "
                f"(known: {', '.join(names)})."
            )
        signatures[section] = get(chosen)
    defaults = {
        "method": signatures["method"].defaults(),
        "data": {**DataOptions().model_dump(), **signatures["data"].defaults()},
        **{k: m().model_dump() for k, m in SECTIONS.items()},
        "seed": 0,
        "out": "runs",
        "init_from": "",
        "init_weights": "auto",
        "freeze": {},
    }
    for where, content in layers:
        _check_kinds(defaults, content, where)
    full = OmegaConf.merge(defaults, merged)
    refuse_growth(_unresolved(full), lambda key: place(layers, key))
    plain = typing.cast(
        dict[str, Any], OmegaConf.to_container(full, resolve=True, throw_on_missing=True)
    )
    _check_texts(plain, layers)
    for section, base in (("method", Section), ("data", DataOptions)):
        model = options_model(signatures[section], base, section)
        plain[section] = _validate(model, plain[section], layers, [section]).model_dump()
    _check_weights(signatures["method"], plain["method"], layers)
    experiment = typing.cast(Experiment, _validate(Experiment, plain, layers))
    both = experiment.budget.kimg is not None
    if both == (experiment.budget.seconds is not None):
        state = "both given; set one of them to null" if both else "both null; give one of them"
        raise UserError(
            f"{place(layers, ['budget'])}: 'budget.kimg' and 'budget.seconds' are {state}."
        )
    if not re.fullmatch(r"\w[\w.+@=-]{0,99}", experiment.name):
        raise UserError(
            f"{place(layers, ['name'])}: 'name' is {shown(experiment.name)}; it names a folder "
            f"and is made of at most 100 letters, digits and _ - . + = @."
        )
    if experiment.freeze and not experiment.init_from:
        raise UserError(
            f"{place(layers, ['freeze'])}: 'freeze' keeps layers as they are, so that 'init_from' "
            f"must say what they are; give it, or leave 'freeze' out."
        )
    if not experiment.out:
        raise UserError(f"{place(layers, ['out'])}: 'out' is empty; it names a folder.")
    out_path(experiment.out)
    return experiment


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: old -> new`` for every value that differs between two plain configurations."""
    lines: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines
