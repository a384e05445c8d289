"""Experiment files: found by name, and read with all they extend."""

from __future__ import annotations

import contextlib
import io
import os
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gansuite.config.messages import COMMAND_LINE, first_line, shown
from gansuite.errors import UserError, nearest

COMPARISON = "compare_"
_PACKAGE = Path(__file__).resolve().parents[1]


def package_folder() -> Path:
    """The package's own experiments: a wheel carries them, a checkout has them beside it."""
    inside = _PACKAGE / "experiments"
    return inside if inside.is_dir() else _PACKAGE.parent / "experiments"


def _files() -> dict[str, Path]:
    """Every file by name: those of ``./experiments`` before the package's own of the same name."""
    folders = (package_folder(), Path("experiments"))
    found = {p.stem: p for folder in folders for p in folder.glob("*.yaml")}
    return dict(sorted(found.items()))


def experiment_files() -> dict[str, Path]:
    """Every experiment by name; files in folders whose name begins with ``_`` are only bases."""
    return {n: p for n, p in _files().items() if not n.startswith(COMPARISON)}


def comparison_files() -> dict[str, Path]:
    """Every comparison by name: the files whose name begins with compare_."""
    return {n: p for n, p in _files().items() if n.startswith(COMPARISON)}


def find_experiment(name: str) -> Path:
    """The file of experiment ``name`` (a name, or a path that ends in .yaml)."""
    if name.endswith((".yaml", ".yml")):
        if not os.path.isfile(name):  # also False for names that no file can have
            raise UserError(f"There is no experiment file {shown(name, '')}.")
        return Path(name)
    known = experiment_files()
    if name in comparison_files():
        raise UserError(
            f"'{name}' is a comparison of experiments; run it with 'gansuite compare {name}'."
        )
    if name not in known:
        raise UserError(
            f"There is no experiment {shown(name)}{nearest(name, known)} "
            f"('gansuite list' shows all)."
        )
    return known[name]


_FILES = 64  # that an experiment may be made of
_BYTES = 1 << 18  # of one file
_DEPTH, _VALUES = 32, 20_000  # of one file or override, with every *alias written out


def read_layers(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """One YAML file with everything it extends, nearest last; each file once, where it is nearest.

    Raises:
        UserError: one sentence that names the file.
    """
    layers: dict[Path, tuple[str, dict[str, Any]]] = {}

    def add(path: Path, below: tuple[Path, ...]) -> None:
        file = path.resolve()
        if file in below:
            names = [p.name for p in (*below, path)]
            raise UserError(f"{path.name} extends itself: {' -> '.join(names)}.")
        if file in layers:
            return
        if len(layers) == _FILES:
            raise UserError(f"{path} is one of more than {_FILES} files that extend another.")
        bases, content = _read_file(path)
        # from the nearest down, so that of a file that several extend the nearest place counts
        layers[file] = (str(path), content)
        for base in reversed(bases):
            add(base, (*below, file))

    add(path, ())
    return list(reversed(layers.values()))


def _read_file(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files that one YAML file extends, and the rest of what it says."""
    if not path.is_file():  # reading a pipe or a device may never end
        raise UserError(f"{path} cannot be read: it is no file.")
    try:
        with open(path, "rb") as file:
            data = file.read(_BYTES + 1)
        if len(data) > _BYTES:
            raise UserError(f"{path} cannot be read: it has more than {_BYTES >> 10} KB.")
        text = data.decode("utf-8-sig")
        _refuse_endless(text, str(path))
        loaded = OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise UserError(f"{path} is not valid YAML{where}: {problem}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read: it is not a text file in UTF-8.") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or 'it holds no keys and values'}."
        ) from None
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"{path}: {first_line(error)}.") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} must be a mapping of keys to values.")
    content = typing.cast(dict[str, Any], OmegaConf.to_container(loaded, resolve=False))
    bases = content.pop("extends", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(
            f"{path}: 'extends' is {shown(bases)}; it must be the name of a file without .yaml, "
            f"or a list of such names."
        )
    files = [_base_file(path, base) for base in bases]
    for base, named in zip(bases, files, strict=True):
        if not os.path.isfile(named):
            given = shown(str(named), "")
            raise UserError(f"{path} extends {shown(base)}, but there is no file {given}.")
    return files, content


def _base_file(path: Path, base: str) -> Path:
    """The file that ``base`` names in ``path``: beside it, or else the package's own."""
    own = path.parent / f"{base}.yaml"
    given = package_folder() / f"{base}.yaml"
    return given if not os.path.isfile(own) and os.path.isfile(given) else own


def _refuse_endless(text: str, where: str) -> None:
    """Raise UserError for YAML that is too deep or too large with every ``*alias`` written out.

    The events are read one by one: nothing is built and nothing recurses.
    """
    known: dict[str, tuple[int, int]] = {}  # anchor -> values and depth of what it stands for
    stack: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, values, depth so far
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, 1, 0))
            values, depth = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = stack.pop()
            depth += 1
            if anchor:
                known[anchor] = values, depth
        elif isinstance(event, yaml.AliasEvent):
            # one that is not known yet stands inside of itself, or for nothing, which YAML tells
            inside = any(anchor == event.anchor for anchor, *_ in stack)
            values, depth = known.get(str(event.anchor), (0, _DEPTH if inside else 0))
        elif isinstance(event, yaml.ScalarEvent):
            values, depth = 1, 0
            if event.anchor:
                known[event.anchor] = values, depth
        else:
            continue
        anchor, so_far, deepest = stack[-1]
        stack[-1] = anchor, so_far + values, max(deepest, depth)
        if len(stack) + depth > _DEPTH:
            raise UserError(f"{where} is nested more than {_DEPTH} levels deep.")
        if so_far + values > _VALUES:
            raise UserError(f"{where} has more than {_VALUES} values.")


def read_overrides(items: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """``key=value`` arguments as the topmost layer."""
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not re.fullmatch(rf"\w+(\.\w+){{0,{_DEPTH}}}", key):
            raise UserError(
                f"{shown(item)} is not an override; write key=value, such as budget.kimg=10."
            )
        with contextlib.suppress(yaml.YAMLError):  # which is reported below
            _refuse_endless(value, f"the command line: '{shown(key, '')}'")
    try:
        found = OmegaConf.from_dotlist(list(items))
        content = OmegaConf.to_container(found, resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(
            f"An override in {shown(' '.join(items))} cannot be read: {first_line(error)}."
        ) from None
    return [(COMMAND_LINE, typing.cast(dict[str, Any], content))]
