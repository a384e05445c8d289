"""How far ``${interpolations}`` grow, computed before any is resolved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gansuite.errors import UserError

_LIMIT = 1 << 18  # characters and values of one experiment with everything written out
_INNERMOST = re.compile(r"\$\{\s*([^${}]*?)\s*\}")

Key = tuple[str, ...]


def refuse_growth(content: Mapping[str, Any], where: Callable[[Sequence[str]], str]) -> None:
    """Raise UserError for values that refer to others so often that no memory holds them.

    ``content``: plain containers, not resolved. ``where``: the file in which a key is written.
    """
    sizes: dict[Key, int] = {}

    def size(key: Key, value: Any) -> int:
        """Characters of a text, values of a container; what stands behind a reference included."""
        if key in sizes:
            return sizes[key]
        sizes[key] = 0  # what refers to itself is refused when it is resolved
        found = 1
        if isinstance(value, Mapping):
            found += sum(size((*key, str(k)), v) for k, v in value.items())
        elif isinstance(value, list):
            found += sum(size((*key, str(i)), v) for i, v in enumerate(value))
        elif isinstance(value, str):
            found += len(value) + sum(size(k, at(k)) for k in references(key, value))
        if found > _LIMIT:
            raise UserError(
                f"{where(key)}: '{'.'.join(key)}' refers to so many other values that it would "
                f"have more than {_LIMIT} characters."
            )
        sizes[key] = found
        return found

    def at(key: Key) -> Any:
        value: Any = content
        for part in key:
            if isinstance(value, Mapping):
                value = value.get(part)
            elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
                value = value[int(part)]
            else:
                return None
        return value

    def references(key: Key, text: str) -> list[Key]:
        """What ``text`` refers to, from the innermost outwards."""
        found: list[Key] = []
        while match := _INNERMOST.search(text):
            target = "" if ":" in match[1] else match[1]  # a resolver's value is as long as it is
            dots = len(target) - len(target.lstrip("."))
            parts = re.findall(r"[^.\[\]]+", target)
            named = (*key[: max(0, len(key) - dots)], *parts) if dots else tuple(parts)
            if parts:
                found.append(named)
            value = at(named) if parts else ""
            inside = text.count("${", 0, match.start()) > text.count("}", 0, match.start())
            if inside and isinstance(value, str) and "${" in value:
                raise UserError(
                    f"{where(key)}: '{'.'.join(key)}' refers to others in too many steps."
                )
            text = f"{text[: match.start()]}{value if inside else ''}{text[match.end() :]}"
        return found

    size((), content)
