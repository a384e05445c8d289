"""Batches that are on a CUDA device by the time they are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from gansuite.data.spec import Batch


class Ahead:
    """The batches of ``loader``, copied to ``device`` on a stream of its own while the batch before
    is computed with. In page-locked memory nobody waits for a copy but that stream."""

    def __init__(self, loader: Iterable[Batch], device: torch.device) -> None:
        self.loader, self.device = loader, device

    def __iter__(self) -> Iterator[Batch]:
        stream = torch.cuda.Stream(self.device)
        for batch in self.loader:
            with torch.cuda.stream(stream):
                copied = batch.to(self.device)
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(stream)
            for x in copied.tensors:
                x.record_stream(current)  # whose kernels read it: its memory is theirs until then
            # when the next is asked for, the kernels of this one have been asked for, not done
            yield copied
