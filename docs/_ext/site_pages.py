"""What makes a site of plain Markdown: tables of contents from the lists of index.md, the API
reference from docstrings, notebooks. A public name without a docstring is a warning, which
``make docs`` makes an error."""

from __future__ import annotations

import importlib
import inspect
import json
import re
from pathlib import Path
from typing import Any

import reference
from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from pydantic import BaseModel
from reference import members
from sphinx.application import Sphinx
from sphinx.util import logging

import gansuite

log = logging.getLogger(__name__)


def toctrees(text: str) -> str:
    """index.md with a hidden table of contents for the pages that each heading's list links to."""
    parts = re.split(r"^## (.*)$", text, flags=re.M)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        pages = re.findall(r"^- \[([^\]]*)\]\(([^)#:]+)\.(?:md|ipynb)\)", body, re.M)
        lines = "\n".join(f"{name} <{page}>" for name, page in pages)
        text += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{lines}\n```\n"
    return text


def api(text: str) -> str:
    """api.md with the docstrings of all that it names."""
    parts = [text, "```{eval-rst}"]
    for name, thing in reference.public().items():
        if not inspect.ismodule(thing):
            parts.append(shown(f"gansuite.{name}", thing))
    parts.append("```\n")
    for name, thing in reference.public().items():
        if inspect.ismodule(thing):
            parts.append(f"## gansuite.{name}\n")
            for where in reference.modules(thing):
                module = importlib.import_module(where)
                parts.append(f"```{{eval-rst}}\n.. automodule:: {where}\n")
                parts += [shown(f"{where}.{n}", getattr(module, n)) for n in members(module)]
                parts.append("```\n")
    return "\n".join(parts)


def shown(name: str, thing: Any) -> str:
    """What makes autodoc show a class or function; of a method, only what others do not have."""
    if not inspect.isclass(thing):
        return f".. autofunction:: {name}\n"
    members = ""
    if issubclass(thing, gansuite.Method) and thing is not gansuite.Method:
        own = [n for n, x in vars(thing).items() if inspect.isfunction(x) and n[0] != "_"]
        members = ", ".join(n for n in own if not hasattr(gansuite.Method, n) and not contract(n))
        return f".. autoclass:: {name}\n" + (f"   :members: {members}\n" if members else "")
    return f".. autoclass:: {name}\n   :members:\n   :undoc-members:\n"


def contract(name: str) -> bool:
    """Whether it is what every method has, which docs/adding_a_method.md tells."""
    return bool(re.fullmatch(r".*_losses|fake|forward|model_config|training", name))


def house_style(lines: list[str]) -> list[str]:
    """A docstring of ours as reStructuredText: what is indented stays as it is, and neither * nor |
    means anything."""
    found: list[str] = []
    for i, line in enumerate(lines):
        begins = line.startswith("    ") and not (i and lines[i - 1].startswith("    "))
        if begins and not any(lines[i - 1].strip() for _ in lines[:i][-1:]):
            found += ["::", ""]
        if line.startswith("    "):
            line = line.replace("``", "`")
        else:
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            parts[::2] = [re.sub(r"([*|])", r"\\\1", part) for part in parts[::2]]
            line = "".join(parts)
        found.append(line)
    return found


def skipped(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out what every method has."""
    return True if contract(name) else None


def signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, given: str, returns: str
) -> tuple[str, str] | None:
    """The arguments of a class are those of ``__init__``, also where ``__new__`` takes any."""
    if what != "class" or "__init__" not in vars(thing) or issubclass(thing, BaseModel):
        return None
    told = inspect.signature(thing.__init__)
    rest = [p for k, p in told.parameters.items() if k != "self"]
    return str(told.replace(parameters=rest, return_annotation=told.empty)), ""


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Add to a page what is not written in it."""
    change = {"index": toctrees, "reference/api": api}.get(name)
    if change:
        source[0] = change(source[0])


def documented(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Warn of a public name without a docstring, and make the others readable."""
    lines[:] = house_style(lines)
    if what == "attribute":  # napoleon would take what stands before a colon for a type
        kept[name] = list(lines)
    if not any(lines) and what in {"module", "class", "function", "method", "property"}:
        log.warning("%s has no docstring", name)


kept: dict[str, list[str]] = {}


def restored(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Undo what napoleon made of an attribute."""
    lines[:] = kept.get(name, lines) if what == "attribute" else lines


class NotebookParser(MystParser):
    """A notebook as the page that its cells make; outputs are left out."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Read the cells as Markdown."""
        text = []
        for cell in json.loads(inputstring)["cells"]:
            source = "".join(cell["source"])
            code = cell["cell_type"] == "code"
            text.append(f"```python\n{source}\n```" if code else source)
        name = Path(document["source"]).name
        text.insert(1, f"{{download}}`The notebook <{name}>`")
        super().parse("\n\n".join(text), document)


def setup(app: Sphinx) -> dict[str, bool]:
    """Told by conf.py."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.connect("source-read", read)
    app.connect("autodoc-process-docstring", documented, priority=400)
    app.connect("autodoc-process-docstring", restored, priority=600)
    app.connect("autodoc-process-signature", signature)
    app.connect("autodoc-skip-member", skipped)
    return {"parallel_read_safe": True}
