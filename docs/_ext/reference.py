"""The pages of docs/reference, made from what they describe: ``python docs/_ext/reference.py``.

configuration.md: the schema (gansuite/config/schema.py) and the signatures of methods and data
sets. commands.md: the parser of the command line. files.md: the schema of a run's files
(gansuite/compare/schema.py). api.md: the docstrings of `gansuite.__all__`. What types do not say
stands in meanings.yaml.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import pkgutil
import re
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from pydantic import BaseModel

import gansuite
from gansuite import catalogue, cli
from gansuite.compare import schema as files_schema
from gansuite.config import schema
from gansuite.config.loader import options_model
from gansuite.data.published import REGISTRY
from gansuite.signatures import Signature
from gansuite.tools import methods_page

warnings.filterwarnings("ignore", "Default value .* is not JSON serializable")

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent / "reference"
MEANINGS: dict[str, Any] = yaml.safe_load((HERE / "meanings.yaml").read_text())
MADE = "Made by `python docs/_ext/reference.py` from {}; edit that.\n"


class Row(NamedTuple):
    """A line of a table: one key."""

    key: str
    type: str
    default: str
    bounds: str
    unit: str
    meaning: str


# --- what a type says ---------------------------------------------------------------------------

_KINDS = {"integer": "integer", "number": "number", "string": "text", "null": "null"}


def kind(node: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in node:
        return " or ".join(dict.fromkeys(kind(part) for part in node["anyOf"]))
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    match node.get("type"):
        case "boolean":
            return "`true`, `false`"
        case "array":
            return f"list of {kind(node.get('items', {}))}".replace("section", "objects")
        case "object":
            return "mapping"
        case None:
            return "section" if "$ref" in node or "allOf" in node else "anything"
    return _KINDS[node["type"]]


def bounds(node: Mapping[str, Any]) -> str:
    """The bounds of a JSON schema in words."""
    found = [bounds(part) for part in node.get("anyOf", [])]
    low, high = node.get("minItems"), node.get("maxItems")
    if low is not None:
        found.append(f"{low} entries" if low == high else f"at least {low} entries")
    if isinstance(node.get("items"), Mapping):
        found.append(bounds(node["items"]))
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found += [f"{sign} {_number(node[key])}" for key, sign in signs.items() if key in node]
    return ", ".join(dict.fromkeys(text for text in found if text))


def _number(value: float) -> str:
    if value == 1 << 63:
        return "2^63"
    if value == (1 << 63) - 1:
        return "2^63 - 1"
    short = f"{value:g}"
    return short if float(short) == value else str(value)


def shown(value: Any) -> str:
    """A default as it is written in YAML."""
    if value is None or isinstance(value, bool):
        return f"`{str(value).lower()}`".replace("none", "null")
    if isinstance(value, list | dict):
        text = yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
        return f"`{text}`"
    return f"`{value}`" if value != "" else '`""`'


def explained(text: str) -> tuple[str, str]:
    """The unit in brackets at the beginning of ``text``, and the rest on one line."""
    found = re.fullmatch(r"(?:\[([^\]]*)\] )?(.*)", " ".join(text.replace("``", "`").split()))
    assert found, text
    return found[1] or "", found[2]


def rows_of(model: type[BaseModel], texts: Mapping[str, str], only: Any = None) -> Iterator[Row]:
    """A row for every field of ``model`` (those in ``only``), with what ``texts`` say of it."""
    told = model.model_json_schema()
    for key, field in model.model_fields.items():
        if only is not None and key not in only:
            continue
        node = told["properties"][key]
        default = "required" if field.is_required() else shown(_plain(field.get_default()))
        what = kind(node)
        if what == "section" or (isinstance(field.default, BaseModel | schema.FrozenDict)):
            what, default = "section" if what == "section" else what, ""
        unit, meaning = explained(texts[key])
        yield Row(key, what, default, bounds(node), unit, meaning)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def attribute_texts(module: Any, model: type[BaseModel]) -> dict[str, str]:
    """field -> the text below it in the source."""
    body = ast.parse(inspect.getsource(module)).body
    (node,) = [n for n in body if isinstance(n, ast.ClassDef) and n.name == model.__name__]
    return {
        a.target.id: inspect.cleandoc(b.value.value)
        for a, b in zip(node.body, node.body[1:], strict=False)
        if isinstance(a, ast.AnnAssign) and isinstance(a.target, ast.Name)
        if isinstance(b, ast.Expr) and isinstance(b.value, ast.Constant)
    }


# --- configuration.md ---------------------------------------------------------------------------


def section_tables() -> dict[str, list[Row]]:
    """The fixed sections: title -> rows."""
    models: dict[str, type[schema.Section]] = {
        "The experiment": schema.Experiment,
        "optim.PLAYER": schema.Optim,
        **schema.SECTIONS,
        "data, of every data set": schema.DataOptions,
        "compare, of a comparison": schema.Compare,
        "compare.budget": schema.CompareBudget,
    }
    return {
        title: list(rows_of(model, attribute_texts(schema, model)))
        for title, model in models.items()
    }


def option_rows(section: str, name: str, signature: Signature) -> list[Row]:
    """The options of a method or data set; a term's weight is a row of its own."""
    told = MEANINGS[section]
    own = told.get("registry" if name in REGISTRY else name, {})
    common = {k: v for k, v in told["*"].items() if k in signature.options}
    unknown = own.keys() - signature.options.keys()
    missing = signature.options.keys() - own.keys() - common.keys()
    if unknown or missing:
        raise SystemExit(f"meanings.yaml, {section}.{name}: no {sorted(unknown | missing)}")
    texts = {**common, **own}
    model = options_model(signature, schema.Section, section)
    rows = []
    for row in rows_of(model, {"name": "", **texts}, signature.options):
        weights = signature.options["weights"][1] if row.key == "weights" else None
        if weights is None:
            rows.append(row)
            continue
        each = model.model_json_schema()["properties"]["weights"]["additionalProperties"]
        rows += [
            Row(f"weights.{term}", "number", shown(value), bounds(each), "", row.meaning)
            for term, value in weights.items()
        ]
    return rows


def method_tables() -> dict[str, list[Row]]:
    """method -> rows."""
    known = catalogue.schemas()
    names = [n for n in known.methods if _is_ours(n)]
    return {name: option_rows("method", name, known.method(name)) for name in names}


def _is_ours(method: str) -> bool:
    return (Path(gansuite.__file__).parent / "methods" / f"{method}.py").is_file()


def source_tables() -> dict[str, list[Row]]:
    """data set -> rows; sets of the registry are alike."""
    known = catalogue.schemas()
    return {name: option_rows("data", name, known.source(name)) for name in known.sources}


def table(rows: list[Row]) -> str:
    """A table of Markdown."""
    head = "| key | type | default | bounds | unit | meaning |\n|---|---|---|---|---|---|\n"
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return head + "".join(f"| `{c[0]}` | {' | '.join(c[1:])} |\n" for c in cells)


def configuration() -> str:
    """All of configuration.md."""
    sections, methods, sources = section_tables(), method_tables(), source_tables()
    registry = [name for name in sources if name in REGISTRY]
    count = sum(len(rows) for t in (sections, methods, sources) for rows in t.values())
    made = MADE.format("gansuite/config/schema.py, the signatures of methods and data sets, and")
    parts = [
        "# Configuration reference\n",
        made.replace("and; edit that", "and docs/_ext/meanings.yaml; edit those"),
        f"All {count} keys. A file in `experiments/` sets them as YAML, the command line as "
        "`section.key=value`; the latter wins. An unknown key is an error that names the nearest "
        "one, a value of another type or out of bounds one that names both. "
        "`gansuite config NAME key=value ...` prints what would run. `extends: FILE` begins with "
        "another file, `${section.key}` repeats another value.\n",
        "Defaults are those of the schema; experiments set their own. Where no bound is given, "
        "any value of the type is taken.\n",
    ]
    for title, rows in sections.items():
        parts += [f"## {title}\n", _docstring(title), table(rows)]
    parts += ["## Methods\n", "The keys of `method:`, by `method.name`. What each method does: "]
    parts[-1] += "[methods.md](../methods.md).\n"
    for name, rows in methods.items():
        parts += [f"### method: {name}\n", table(rows)]
    parts += ["## Data sets\n", "The keys of `data:` by `data.name`, beside those of every set. "]
    parts[-1] += "How files must lie: [data.md](../data.md).\n"
    for name, rows in sources.items():
        if name in registry[1:]:
            continue
        title = ", ".join(registry) if name in registry else name
        parts += [f"### data: {title}\n", table(rows)]
    return "\n".join(part for part in parts if part)


def _docstring(title: str) -> str:
    name = {"optim.PLAYER": schema.Optim, **schema.SECTIONS}.get(title)
    return inspect.cleandoc(name.__doc__ or "").replace("``", "`") + "\n" if name else ""


# --- commands.md --------------------------------------------------------------------------------


def commands() -> str:
    """All of commands.md."""
    parser = cli._parser()
    (subs,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    parts = [
        "# Commands\n",
        MADE.format("gansuite/cli.py"),
        "`gansuite COMMAND -h` says the same. Every command ends with 0; with 2 after bad input, "
        "in one sentence; with 75 when it was stopped and the same command resumes it; with 69 "
        "when another process of the run is gone.\n",
    ]
    helps = {a.dest: a.help or "" for a in subs._choices_actions}
    for name, sub in subs.choices.items():
        parts += [f"## gansuite {name}\n", f"{helps[name][0].upper()}{helps[name][1:]}.\n"]
        rows = [_argument(a) for a in sub._actions if not isinstance(a, argparse._HelpAction)]
        parts.append("| | |\n|---|---|\n" + "".join(rows) if rows else "")
    return "\n".join(part for part in parts if part)


def _argument(action: argparse.Action) -> str:
    name = " ".join(action.option_strings)
    value = action.metavar or (action.dest.upper() if action.option_strings else action.dest)
    value = " ".join(value) if isinstance(value, tuple) else value
    if action.choices:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    shows = f"{name} {value}".strip() if action.nargs != 0 else name
    return f"| `{shows}` | {(action.help or '').replace('|', chr(92) + '|')} |\n"


# --- files.md -----------------------------------------------------------------------------------


def _typed(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, field in model.model_fields.items():
        inner = field.annotation
        parts = [inner, *getattr(inner, "__args__", ())]
        deeper = [p for p in parts if inspect.isclass(p) and issubclass(p, BaseModel)]
        if deeper and not str(inner).startswith("list"):
            yield from _typed(deeper[0], f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", kind(model.model_json_schema()["properties"][key])


def files() -> str:
    """All of files.md."""
    checked = {
        "results.json": dict(_typed(files_schema.Results)),
        "metrics.jsonl": dict([*_typed(files_schema._Record), *_typed(files_schema.Event)]),
        "timing.jsonl": dict(_typed(files_schema._Record)),
        "environment.json": dict(_typed(files_schema.Environment)),
    }
    intro = {
        "results.json": "One object, written at the end of a run.",
        "metrics.jsonl": "One object a line, in the order of `images_seen`. On a CPU it is equal "
        "byte for byte in a run that was interrupted and one that was not.",
        "timing.jsonl": "The clock at the same points; never equal twice.",
        "environment.json": "A list: what the run was trained with, one entry for each change.",
    }
    parts = [
        "# The files of a run\n",
        MADE.format("gansuite/compare/schema.py and docs/_ext/meanings.yaml"),
        "`runs/NAME/seedK/` holds what follows, `config.yaml` "
        "([all keys](configuration.md)), `samples/`, `report.html` and `checkpoints/` "
        "(`last.ckpt`, `last.prev.ckpt`, `best.ckpt`: tensors and plain containers, for "
        "`torch.load(..., weights_only=True)`). Keys with a type are checked when a file is read: "
        "one of another type is refused in one sentence. Further keys are let through.\n",
    ]
    for name, told in MEANINGS["files"].items():
        head = f"## {name}\n\n{intro[name]}\n\n| key | type | unit | meaning |\n|---|---|---|---|\n"
        rows = []
        for key, text in told.items():
            unit, meaning = explained(text)
            rows.append(f"| `{key}` | {checked[name].get(key, '')} | {unit} | {meaning} |\n")
        missing = {k for k in checked[name] if k not in told} - {"seconds"}
        if missing - ({"batches"} if name == "timing.jsonl" else set()):
            raise SystemExit(f"meanings.yaml, files.{name}: no {sorted(missing)}")
        parts.append(head + "".join(rows))
    return "\n".join(parts)


# --- api.md -------------------------------------------------------------------------------------


def public() -> dict[str, Any]:
    """The names of `gansuite.__all__` that people use: name -> object."""
    return {n: getattr(gansuite, n) for n in gansuite.__all__ if n != "__version__"}


def modules(package: Any) -> list[str]:
    """The modules whose classes and functions a public module holds: itself, or those below it."""
    below = [m.name for m in pkgutil.iter_modules(getattr(package, "__path__", []))]
    return [f"{package.__name__}.{name}" for name in below] or [package.__name__]


def members(module: Any) -> list[str]:
    """The public classes and functions that a module defines, in the order of its source."""
    kinds = inspect.isclass, inspect.isfunction
    return [
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and any(is_one(thing) for is_one in kinds)
        if thing.__module__.startswith(module.__name__)
    ]


def first_sentence(thing: Any) -> str:
    """Of a docstring, as Markdown."""
    paragraph = " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())
    text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", paragraph.replace("``", "`"))
    return re.split(r"(?<=[.:])\s+(?=[A-Z`])", text)[0].rstrip(":").replace("|", "\\|")


def api() -> str:
    """api.md as it is read in the repository; on the site the docstrings follow."""
    parts = [
        "# API reference\n",
        MADE.format("the docstrings").replace("that", "those"),
        "The public names of `import gansuite`. Nothing is imported (PyTorch takes seconds) "
        "before a name is used. On the site the whole docstrings follow; here, "
        "`python -c 'import gansuite; help(gansuite.CycleGAN)'`.\n",
    ]
    groups: dict[str, list[str]] = {"Classes and functions": [], "Modules": []}
    for name, thing in public().items():
        groups["Modules" if inspect.ismodule(thing) else "Classes and functions"].append(name)
    for title, names in groups.items():
        rows = [f"| `gansuite.{n}` | {first_sentence(public()[n])} |\n" for n in names]
        parts.append(f"## {title}\n\n| | |\n|---|---|\n{''.join(rows)}")
    return "\n".join(parts)


PAGES_OF = {"configuration": configuration, "commands": commands, "files": files, "api": api}


if __name__ == "__main__":
    for _name, _make in PAGES_OF.items():
        (PAGES / f"{_name}.md").write_text(_make())
        print(PAGES / f"{_name}.md")
    (HERE.parent / "methods.md").write_text(methods_page.page())
