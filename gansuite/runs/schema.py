"""What a checkpoint and a line of ``metrics.jsonl`` or ``timing.jsonl`` are made of, by type."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from gansuite.errors import UserError

Count = Annotated[int, Field(strict=True, ge=0)]
Seconds = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Number = Annotated[float, Field(strict=True)]
Word = Annotated[str, Field(strict=True)]
Rows = dict[Word, dict[Word, Number | None]]


def _tensor(value: Any) -> Any:
    import torch  # here, so that a run's records are read without it

    if not isinstance(value, torch.Tensor):
        raise ValueError("Input should be an instance of Tensor")
    return value


AnyTensor = Annotated[Any, PlainValidator(_tensor)]
Tensors = dict[Word, AnyTensor]


class _Model(BaseModel):
    """Further keys are let pass: what is read has been checked, what is not does no harm."""

    model_config = ConfigDict(extra="allow")


class _Counters(_Model):
    batches: Count
    images_seen: Count
    update_counts: dict[Word, Count]
    player_batches: dict[Word, Count]
    rollbacks: Count = 0


class _Group(_Model):
    params: list[Count]
    lr: Seconds


class _Optimizer(_Model):
    state: dict[Count, dict[Word, Any]]
    param_groups: list[_Group]


class _LedgerRow(_Model):
    sum: AnyTensor
    bad: AnyTensor
    n: Count


class _Averages(_Model):
    weights: dict[Word, Tensors]
    updated_at: dict[Word, Count]


class _State(_Model):
    networks: Tensors
    averages: _Averages
    optimizers: dict[Word, _Optimizer]
    counters: _Counters
    progress: Seconds


class _RankState(_Model):
    """What one process keeps for itself: its sums, an image pool."""

    ledger: dict[Word, _LedgerRow]

    @model_validator(mode="after")
    def _a_sum_for_every_key(self) -> _RankState:
        for keys, row in self.ledger.items():
            shape = (keys.count("\n") + 1,)
            if row.sum.shape != shape or row.bad.shape != shape:
                raise ValueError(f"the ledger has no value for each of {keys.split()}")
        return self


class _Method(_Model):
    name: Word


class _Experiment(_Model):
    name: Word
    seed: Annotated[int, Field(strict=True)]
    method: _Method


class _Data(_Model):
    name: Word
    size: Annotated[int, Field(strict=True, ge=1)]
    channels: Annotated[int, Field(strict=True, ge=1)]
    domains: list[Word]
    counts: dict[Word, dict[Word, Count]]
    paired: Annotated[bool, Field(strict=True)]
    labels: list[Word]
    digest: Word


class _Clock(_Model):
    train: Seconds
    evaluation: Seconds


class _Event(_Model):
    images_seen: Count
    batches: Count
    event: Word
    name: Word
    action: Word
    message: Word


class _Protocol(_Model):
    id: Word


class _Flops(_Model):
    begin: Count
    counted: dict[Word, tuple[Count, Count]]


class _Notes(_Model):
    protocol: _Protocol
    references: dict[Word, Rows]
    final: Rows
    best: Rows
    change: dict[Word, Number] = {}
    last_acted: dict[Word, Count] = {}
    health: list[_Event] = []
    d_losses: list[Number] = []
    data_ahead: Count = 0
    flops: _Flops | None = None
    flops_per_image: Count = 0


class _Checkpoint(_Model):
    """All sections of a checkpoint; which of them a reader needs is its own to say."""

    experiment: _Experiment | None = None
    data: _Data | None = None
    method: _State | None = None
    rank_state: list[_RankState] | None = Field(None, min_length=1)
    precision: dict[Word, Any] | None = None
    clock: _Clock | None = None
    lengths: dict[Word, Count | tuple[Count, Word]] | None = None
    notes: _Notes | None = None


def check_checkpoint(content: dict[Any, Any], path: object) -> None:
    """Raise `UserError` naming the first value of a checkpoint that is not of its type."""
    for key in _Checkpoint.model_fields:
        if key in content and content[key] is None:
            raise UserError(f"{path} is no checkpoint that can be used: its '{key}' is empty.")
    try:
        _Checkpoint.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        reason = " ".join(first["msg"].split())
        raise UserError(
            f"{path} is no checkpoint that can be used: '{where}' is wrong ({reason}); give "
            f"another."
        ) from None


class _Record(_Model):
    """A line of values: numbers alone, or None."""

    __pydantic_extra__: dict[str, Number | None]
    kind: Word
    images_seen: Count


class _HealthRecord(_Event):
    kind: Word


_RECORD: TypeAdapter[Any] = TypeAdapter(_Record)
_HEALTH: TypeAdapter[Any] = TypeAdapter(_HealthRecord)


def is_record(value: Any) -> bool:
    """Whether a decoded line is a record: ``kind``, ``images_seen``, and numbers; or an event."""
    event = isinstance(value, dict) and value.get("kind") == "health"
    try:
        (_HEALTH if event else _RECORD).validate_python(value)
    except ValidationError:
        return False
    return True


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a ``.jsonl`` file; what is no record, as a line cut off, is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            record = json.loads(line)
            if is_record(record):
                records.append(record)
    return records
