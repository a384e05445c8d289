"""The floors that docs/architecture.md names: who may import whom."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gansuite"


def floors() -> dict[str, int]:
    """Package or module -> its floor, from the page."""
    (line,) = re.findall(r"^`errors .*$", (ROOT / "docs/architecture.md").read_text(), re.M)
    names = [floor.split() for floor in re.findall(r"`([^`]*)`", line)]
    return {name: height for height, floor in enumerate(names) for name in floor}


def imports(file: Path) -> Iterator[str]:
    """The packages or modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "gansuite":
            parts = (node.module or "").split(".")
            yield from [parts[1]] if len(parts) > 1 else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            yield from (parts[1] for parts in names if parts[0] == "gansuite" and len(parts) > 1)


def test_imports_go_down() -> None:
    height, seen = floors(), set()
    for file in PACKAGE.rglob("*.py"):
        own = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        seen.add(own)
        for other in set(imports(file)) - {own, "__version__"}:
            assert height[other] < height[own], f"{file.name} imports {other}"
    assert seen == set(height)
