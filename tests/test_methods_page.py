"""docs/methods.md says what the docstrings say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gansuite.methods import method_names
from gansuite.tools.methods_page import facts, section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "methods.md"


def test_the_page_is_what_the_docstrings_say() -> None:
    text = PAGE.read_text()
    documented = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert len(documented) >= 6
    for name in documented:
        assert section(name) in text, f"run python -m gansuite.tools.methods_page ({name})"


@pytest.mark.parametrize("name", method_names())
def test_every_method_states_paper_and_deviations(name: str) -> None:
    found = facts(name)
    assert found["deviations"] != "not stated"
    assert "20" in found["paper"]
    assert found["gist"].endswith(".")
