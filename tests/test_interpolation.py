"""``${interpolations}`` that double themselves are refused before memory is full."""

from __future__ import annotations

from typing import Any

import pytest

from gansuite.errors import UserError
from gansuite.interpolation import refuse_growth


def check(content: dict[str, Any]) -> None:
    refuse_growth(content, lambda key: "x.yaml")


def doubling(levels: int) -> dict[str, Any]:
    return {"a0": "x", **{f"a{i}": f"${{a{i - 1}}}${{ a{i - 1} }}" for i in range(1, levels)}}


@pytest.mark.parametrize(
    "content",
    [
        doubling(60),
        {"of": {f"a{i}": f"${{.a{i - 1}}}${{.a{i - 1}}}" for i in range(1, 60)} | {"a0": "x"}},
        {"of": ["x", *(f"${{of[{i}]}}${{of.{i}}}" for i in range(60))]},
        {"a0": ["x"] * 8, **{f"a{i}": [f"${{a{i - 1}}}"] * 8 for i in range(1, 20)}},
        {**doubling(30), "far": "a29", "end": "${${far}}"},
        {**doubling(30), "end": "${oc.env:NOTHING,${a29}}"},
    ],
)
def test_growth_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"x.yaml: '.*' refers to so many other values"):
        check(content)


def test_what_refers_to_others_in_reason_is_not() -> None:
    check(doubling(12))
    check({"a": "${b}", "b": "${a}"})  # for OmegaConf to refuse
    check({"root": "${oc.env:DATA,data}/${data.name}", "data": {"name": "x", "y": "${.name}"}})
    check({"far": "name", "end": "${of.${far}}", "of": {"name": "y"}, "no": "${nowhere[3].x}"})
