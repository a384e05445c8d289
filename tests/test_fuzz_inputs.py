"""Bad input of every kind works or is one sentence. `GANSUITE_FUZZ=20` tries 20 times as many."""

from __future__ import annotations

import os

import pytest
from attacks import KINDS, NAMED, STRATEGIES, Case, Workshop
from forked import load
from hypothesis import HealthCheck, Phase, given, settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks a process for every case"),
]
TIMES = int(os.environ.get("GANSUITE_FUZZ", "1"))
EXAMPLES = {"configuration": 60, "record": 20, "picture": 40, "folder": 40}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    load()
    return Workshop(tmp_path_factory.mktemp("workshop"))


@pytest.mark.parametrize("name", NAMED)
def test_named_cases(name: str, workshop: Workshop) -> None:
    verdict = workshop.try_(NAMED[name])
    assert not verdict.fault, str(verdict)


@pytest.mark.parametrize("kind", KINDS)
def test_drawn_cases(kind: str, workshop: Workshop) -> None:
    @settings(
        max_examples=EXAMPLES[kind] * TIMES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if TIMES > 1 else [Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(STRATEGIES[kind])
    def check(case: Case) -> None:
        verdict = workshop.try_(case)
        assert not verdict.fault, str(verdict)

    check()
