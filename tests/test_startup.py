"""What needs no PyTorch imports none: help, names, configurations, and every mistake in them."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_compare_run import TINY

from gansuite.lazy import uncollected

# runs one command after the other; heavy modules are named by their first importer
_CODE = """
import sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in {"torch", "lightning", "numpy", "PIL", "wandb", "matplotlib", "scipy"}:
            raise SystemExit(f"{name} is imported by {words}")

sys.meta_path.insert(0, Watch())
words = "gansuite.cli"
from gansuite import cli
for line in sys.stdin.read().splitlines():
    words, code = line.split()[1:], int(line.split()[0])
    try:
        cli.main(words)
    except SystemExit as end:
        assert end.code == code, (words, end.code)
"""

LIGHT = {
    "help": ["0", "0 --help", "0 --version", "0 exp -h", "0 compare --help", "2 exq"],
    "list": ["0 list", "0 list --names"],
    "config": ["0 config cyclegan_coats seed=3", "0 config stargan_coats_joint"],
    "completion": ["0 completion bash", "0 completion zsh", "0 completion fish", "2 completion sh"],
    "mistakes": [
        "2 exp cyclegan_cats",
        "2 exp cyclegan_coats data.bacth=3",
        "2 exp cyclegan_coats data.batch=x",
        "2 exp cyclegan_coats method.name=cyclegn",
        "2 exp cyclegan_coats method.weights.cycl=1",
        "2 exp stargan_coats_joint data.sets.x.name=coats data.sets.x.domain=[zebra]",
        "2 exp horse2zebra data.name=horse2zebre",
        "2 check-data cyclegan_cats",
        "2 compare compare_cots",
        "2 compare cyclegan_coats vanilla_cats",
        "2 compare cyclegan_coats seeds=a",
        "2 compare cyclegan_coats rank_by=fd_rndom",
        "2 compare cyclegan_coats data.bacth=3",
        "2 compare cyclegan_coats vanilla_coats data.size=32 budget.kmig=3",
        "2 translate no.ckpt in out",
        "2 sample no.ckpt out",
        "2 evaluate no.ckpt",
        "2 score pictures --name x --data cyclegan_cats",
        "2 export-test cyclegan_cats out",
        "2 init 3d",
    ],
}


def test_nothing_heavy_is_imported(here: Path) -> None:
    lines = [line for case in LIGHT.values() for line in case]
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        input="\n".join(lines),
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("gansuite: ") == sum(line.startswith("2") for line in lines)
    assert not list(here.iterdir())


@pytest.mark.parametrize("before", [True, False])
def test_no_garbage_is_looked_for_while_importing(before: bool) -> None:
    now = gc.isenabled()
    (gc.enable if before else gc.disable)()
    try:
        with contextlib.suppress(KeyError), uncollected():
            assert not gc.isenabled()
            mine = [object()]
            raise KeyError
        assert gc.isenabled() is before
        assert gc.is_tracked(mine)
        assert any(x is mine for x in gc.get_objects(generation=2))
        assert gc.get_freeze_count() == 0
    finally:
        (gc.enable if now else gc.disable)()


def test_ctrl_c_while_the_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    from gansuite.__main__ import main

    class Interrupted:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "gansuite.cli":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "gansuite.cli", raising=False)
    monkeypatch.delattr("gansuite.cli", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupted(), *sys.meta_path])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130


_LEAN = """
import sys
from gansuite.lazy import uncollected
with uncollected():
    from gansuite import engine
found = {"lightning", "torchmetrics", "transformers", "matplotlib", "scipy.signal"} & {*sys.modules}
assert found == {"lightning", "torchmetrics"}, found
import scipy.signal
assert callable(scipy.signal.convolve)
from lightning_utilities.core.imports import RequirementCache
assert RequirementCache("matplotlib"), "it is left out beside those imports as well"

from gansuite.cli import main
main(["exp", "vanilla_coats", "budget.kimg=0.032", *sys.argv[1:]])
late = sys.modules["torch._dynamo"]
assert type(late).__name__ == "_Late" and "torch._inductor" not in sys.modules, "a run compiles"
import torch._dynamo.utils as first
import torch
assert sys.modules["torch._dynamo"] is late is torch._dynamo and first is late.utils
assert first.is_compile_supported("cpu") in (True, False) and hasattr(first, "counters")
convolution = torch.nn.Conv2d(3, 4, 3)
graphs = []
compiled = torch.compile(convolution, backend=lambda graph, example: graphs.append(1) or graph)
x = torch.randn(2, 3, 8, 8)
assert torch.equal(compiled(x), convolution(x)) and graphs == [1]
assert isinstance(compiled, torch._dynamo.OptimizedModule)
"""


@pytest.mark.slow
def test_a_command_does_not_import_what_it_does_not_need(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-c", _LEAN, *TINY, f"out={tmp_path}"],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
