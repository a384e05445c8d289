"""`docs/methods.md`, made from the docstrings: ``python -m gansuite.tools.methods_page``."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

from gansuite.methods import method_class, method_names

HEAD = """# The methods: what each follows, and where it deviates

Made from the docstrings by `python -m gansuite.tools.methods_page`; edit those.

"""


def paragraphs(text: str) -> list[str]:
    """The paragraphs of a docstring, each on one line."""
    return [" ".join(p.split()) for p in inspect.cleandoc(text).split("\n\n")]


def facts(name: str) -> dict[str, str]:
    """Paper, gist, what is followed and the known deviations of method ``name``."""
    cls = method_class(name)
    doc = paragraphs(cls.__doc__ or "")
    module = importlib.import_module(cls.__module__)
    whole = " ".join(doc)
    follows = re.search(r"Follows (.*?)(?=Known deviations|$)", whole)
    deviations = re.search(r"Known deviations?: (.*?)$", whole)
    return {
        "paper": " ".join(paragraphs(module.__doc__ or "")),
        "gist": doc[0] if doc else "",
        "follows": follows.group(1).strip() if follows else "the paper",
        "deviations": deviations.group(1).strip() if deviations else "not stated",
    }


def section(name: str) -> str:
    """The section of one method."""
    f = facts(name)
    rows = [
        ("Paper", f["paper"]),
        ("In short", f["gist"]),
        ("Follows", f["follows"]),
        ("Known deviations", f["deviations"]),
    ]
    table = "\n".join(
        f"| {k} | {v.replace('|', chr(92) + '|').replace('``', '`')} |" for k, v in rows
    )
    return f"## {name}\n\n| | |\n|---|---|\n{table}\n"


def page() -> str:
    """All of `docs/methods.md`."""
    return HEAD + "\n".join(section(name) for name in method_names())


if __name__ == "__main__":
    Path("docs/methods.md").write_text(page())
