"""Copies to a device ahead of their use, with streams that only note what they are asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gansuite.data.ahead import Ahead
from gansuite.data.spec import Batch


def batches(n: int) -> list[Batch]:
    return [Batch((torch.full((1, 3, 2, 2), i),), torch.full((1, 2), float(i))) for i in range(n)]


def test_a_batch_is_copied_while_the_one_before_is_computed_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []

    class Stream:
        def __init__(self, name: Any) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            told.append(f"{self.name} waits for {other.name}")

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        told.append(f"copy on {stream.name}")
        yield

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream("aside"))
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(Tensor, "record_stream", lambda x, s: told.append(f"kept for {s.name}"))
    for i, batch in enumerate(Ahead(batches(2), torch.device("cpu"))):
        assert int(batch.images[0].max()) == i
        told.append(f"compute {i}")
    each = ["copy on aside", "main waits for aside", "kept for main", "kept for main"]
    assert told == [*each, "compute 0", *each, "compute 1"]


@pytest.mark.gpu
def test_batches_come_on_the_device_as_they_were() -> None:
    given = [batch.pin_memory() for batch in batches(5)]
    for batch, expected in zip(Ahead(given, torch.device("cuda")), given, strict=True):
        for x, y in zip(batch.tensors, expected.tensors, strict=True):
            assert x.device.type == "cuda"
            assert torch.equal(x.cpu(), y)
