"""Options read from source text are those that the class itself has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gansuite.data import SOURCES
from gansuite.methods import method_class, method_names
from gansuite.signatures import REQUIRED, Unreadable, of_class, of_source


@pytest.mark.parametrize("name", method_names())
def test_a_method_without_importing_it(name: str) -> None:
    cls = method_class(name)
    found = of_source(cls.__module__), of_source(cls.__module__, cls.__name__), of_class(cls)
    # Python 3.10 calls an option whose default is None optional
    texts = (re.sub(r"typing\.Optional\[(\w+)\]", r"\1 | None", repr(each)) for each in found)
    assert len(set(texts)) == 1


@pytest.mark.parametrize("name", [n for n, s in SOURCES.items() if "registry" not in s.__module__])
def test_a_source_without_importing_it(name: str) -> None:
    cls = SOURCES[name]
    assert of_source(cls.__module__, cls.__name__) == of_class(cls)


def _module(here: Path, text: str) -> str:
    (here / "strange_module.py").write_text(text)
    code = (
        "import gansuite.signatures as s\n"
        "try: print(s.of_source('strange_module'))\n"
        "except s.Unreadable as e: print('Unreadable', e)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_must_run_to_be_understood_is_said_to_be(here: Path) -> None:
    text = "class A:\n    def __init__(self, spec, *, n: int = {}) -> None: ...\n"
    assert "'n': (<class 'int'>, 3)" in _module(here, text.format("3"))
    assert _module(here, text.format("len('abc')")).startswith("Unreadable")
    # and it is not run
    told = _module(here, "open('ran', 'w')\n" + text.format("__import__('os').getpid()"))
    assert told.startswith("Unreadable")
    assert not (here / "ran").exists()
    assert _module(here, "class A(B): ...").startswith("Unreadable")
    assert _module(here, "class A(:").startswith("Unreadable")


def test_required_options_have_no_default() -> None:
    found = of_source("gansuite.data.sources.unpaired", "Unpaired")
    assert found.options["root"] == (str, REQUIRED)
    assert "root" not in found.defaults()
    assert found.defaults()["domains"] == ["A", "B"]
    with pytest.raises(Unreadable, match="no_such"):
        of_source("gansuite.no_such")
