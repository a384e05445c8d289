"""What a class can be configured with: the keyword-only arguments of its ``__init__``.

They are read from the source text, without importing the module and all that it needs (PyTorch
takes seconds), so that a misspelt key is answered at once. Whatever the text does not tell by
itself is asked of the class.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

REQUIRED = inspect.Parameter.empty


class Unreadable(Exception):
    """A source text that needs running to be understood."""


@dataclass(frozen=True)
class Signature:
    """``summary``: the first sentence of the class's docstring; ``options``: name -> (type,
    default), `REQUIRED` where there is no default. Mappings and lists are plain."""

    summary: str
    options: Mapping[str, tuple[Any, Any]]

    def defaults(self) -> dict[str, Any]:
        """The options that have a default."""
        return {k: default for k, (_, default) in self.options.items() if default is not REQUIRED}


def of_class(cls: type) -> Signature:
    """The signature of a class that is imported already."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    options = {
        p.name: (hints.get(p.name, Any), _plain(p.default))
        for p in parameters
        if p.kind is p.KEYWORD_ONLY
    }
    return Signature(_first_sentence(inspect.getdoc(cls)), options)


def of_source(module: str, name: str | None = None) -> Signature:
    """The signature of class ``name`` in ``module`` (None: the one public class with options).

    Raises:
        Unreadable: the text alone does not tell; import the module and ask the class.
    """
    found = _Module.find(module)
    node = found.the_class(name)
    where, args = found.arguments_of(node)
    options = {}
    for argument, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        hint = where.value(argument.annotation) if argument.annotation else Any
        options[argument.arg] = (hint, REQUIRED if default is None else where.value(default))
    return Signature(_first_sentence(ast.get_docstring(node)), options)


def summary(module: str, name: str | None = None) -> str:
    """The first sentence of the docstring of a class, found as by `of_source`; "" without one.

    Raises:
        Unreadable: there is no such class in the text.
    """
    return _first_sentence(ast.get_docstring(_Module.find(module).the_class(name)))


def constant(module: str, name: str, attribute: str) -> Any:
    """The value of ``attribute`` as class ``name`` of ``module`` itself defines it.

    Raises:
        Unreadable: it does not, or it must be run to be understood.
    """
    found = _Module.find(module)
    for part in found.the_class(name).body:
        if isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == attribute:
            return found.value(part.value)
    raise Unreadable(f"{module}.{name} does not define {attribute}")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _first_sentence(text: str | None) -> str:
    paragraph = " ".join((text or "").strip().partition("\n\n")[0].split())
    return re.split(r"\.\s+(?=[A-Z`])", paragraph)[0].rstrip(".")


_TYPES: dict[str, Any] = {
    **{t.__name__: t for t in (int, float, str, bool, list, dict, tuple)},
    "Any": Any,
    "Literal": Literal,
    "Mapping": Mapping,
    "Sequence": Sequence,
    "Annotated": Annotated,
}


class _Module:
    """The text of a module: its classes, and what its names stand for."""

    def __init__(self, name: str, file: Path) -> None:
        self.name = name
        try:
            body = ast.parse(file.read_text(encoding="utf-8")).body
        except (OSError, SyntaxError, ValueError) as error:
            raise Unreadable(f"{file}: {error}") from error
        self.classes = {n.name: n for n in body if isinstance(n, ast.ClassDef)}
        self.assigned: dict[str, ast.expr] = {}
        self.imported: dict[str, tuple[str, str]] = {}
        for node in body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.assigned[node.targets[0].id] = node.value
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    self.imported[alias.asname or alias.name] = (node.module, alias.name)

    @staticmethod
    @cache
    def find(name: str) -> _Module:
        """The module ``name``; neither it nor its packages are imported."""
        top, _, rest = name.partition(".")
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        folders = list(spec.submodule_search_locations or []) if spec else []
        files = [Path(spec.origin)] if spec and spec.origin and not rest else []
        for folder in folders if rest else []:
            path = Path(folder, *rest.split("."))
            files += [path.with_suffix(".py"), path / "__init__.py"]
        for file in files:
            if file.is_file():
                return _Module(name, file)
        raise Unreadable(f"there is no file of module {name}")

    def the_class(self, name: str | None) -> ast.ClassDef:
        """Class ``name``; None: the one public class with options."""
        names = [name] if name else [n for n, c in self.classes.items() if self.has_options(c)]
        if len(names) != 1 or names[0] not in self.classes:
            raise Unreadable(f"{self.name} defines no class {name or 'with options, or several'}")
        return self.classes[names[0]]

    def has_options(self, node: ast.ClassDef) -> bool:
        """Whether this public class has keyword-only arguments of its own."""
        args = self._own_arguments(node)
        return not node.name.startswith("_") and args is not None and bool(args.kwonlyargs)

    @staticmethod
    def _own_arguments(node: ast.ClassDef) -> ast.arguments | None:
        for part in node.body:
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                return part.args
        return None

    def arguments_of(self, node: ast.ClassDef) -> tuple[_Module, ast.arguments]:
        """The arguments of a class, its own or inherited ones, and the module they stand in."""
        own = self._own_arguments(node)
        if own is not None:
            return self, own
        for base in node.bases:
            if isinstance(base, ast.Name):
                where, name = self, base.id
                if name in self.imported:
                    module, name = self.imported[name]
                    where = _Module.find(module)
                if name in where.classes:
                    return where.arguments_of(where.classes[name])
        raise Unreadable(f"{self.name}.{node.name} inherits its arguments from elsewhere")

    def value(self, node: ast.expr) -> Any:
        """What a type annotation or a default stands for: literals, type expressions, names of
        such, ``terms(...)`` and bounds, ``Field(...)``. Nothing is run."""
        match node:
            case ast.Constant():
                return node.value
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand)
            case ast.List() | ast.Tuple():
                return [self.value(part) for part in node.elts]
            case ast.Dict() if None not in node.keys:
                keys = [self.value(key) for key in node.keys if key is not None]
                return dict(zip(keys, map(self.value, node.values), strict=True))
            case ast.Call(func=ast.Name(id="terms" | "Field" as called), args=[]):
                found = {str(k.arg): self.value(k.value) for k in node.keywords}
                return found if called == "terms" else Field(**found)
            case ast.Name():
                return self._named(node.id)
            case ast.Subscript():
                inner = node.slice
                parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
                values = tuple(map(self.value, parts))
                return self.value(node.value)[values if len(values) > 1 else values[0]]
            case ast.BinOp(op=ast.BitOr()):
                return self.value(node.left) | self.value(node.right)
        raise Unreadable(f"{self.name}: {ast.unparse(node)}")

    def _named(self, name: str) -> Any:
        if name in self.assigned:
            return self.value(self.assigned[name])
        if name in self.imported and self.imported[name][0].startswith("gansuite."):
            module, other = self.imported[name]
            return _Module.find(module)._named(other)
        if name in _TYPES:
            return _TYPES[name]
        raise Unreadable(f"{self.name}: {name}")
