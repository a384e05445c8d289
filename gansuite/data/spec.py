"""What the rest of the project sees of a data set: its facts, a method's needs, a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite.errors import UserError

View = Literal["single", "unpaired", "paired", "labelled"]


@dataclass(frozen=True)
class LabelSet:
    """Pictures that were labelled together: of those of ``domains`` all ``labels`` are known, and
    of other pictures none. ``exclusive``: a picture has exactly one, its folder or class."""

    domains: tuple[str, ...]
    labels: tuple[str, ...]
    exclusive: bool


@dataclass(frozen=True)
class DataSpec:
    """The facts of a data set as one run sees it; everything a method is built from.

    ``counts`` maps split ("train", "test") to domain to number of pictures. ``labels`` names the
    entries of the label vector: the domains for folders, attribute names for tables, () for none.
    ``digest`` changes when the files (or the parameters of a drawn set) change. ``joint``: the
    label sets of several data sets that are trained on together, () for one alone. ``exclusive``:
    a picture has exactly one label.
    """

    name: str
    size: int
    channels: int
    domains: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    paired: bool
    labels: tuple[str, ...]
    digest: str
    exclusive: bool = True
    joint: tuple[LabelSet, ...] = ()

    @property
    def label_sets(self) -> tuple[LabelSet, ...]:
        """The label sets; their labels one after the other are ``labels``."""
        return self.joint or (LabelSet(self.domains, self.labels, self.exclusive),)

    def set_of(self, label: str) -> int:
        """The number of the label set that ``label`` belongs to."""
        return next(i for i, found in enumerate(self.label_sets) if label in found.labels)

    def summary(self) -> dict[str, Any]:
        """What results say of the data: ``name``, ``digest``, ``domains``."""
        return {"name": self.name, "digest": self.digest, "domains": list(self.domains)}

    def to_dict(self) -> dict[str, Any]:
        """Plain containers only, fit for a checkpoint that loads with ``weights_only=True``."""
        return {
            "name": self.name,
            "size": self.size,
            "channels": self.channels,
            "domains": list(self.domains),
            "counts": {split: dict(by_domain) for split, by_domain in self.counts.items()},
            "paired": self.paired,
            "labels": list(self.labels),
            "digest": self.digest,
            "exclusive": self.exclusive,
            "joint": [[list(s.domains), list(s.labels), s.exclusive] for s in self.joint],
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DataSpec:
        """The inverse of :meth:`to_dict`."""
        names = {key: tuple(data[key]) for key in ("domains", "labels")}
        joint = (LabelSet(tuple(d), tuple(k), one) for d, k, one in data.get("joint", ()))
        return cls(**{**data, **names, "joint": tuple(joint)})


@dataclass(frozen=True)
class Needs:
    """What a method asks of the data; checked before anything is built.

    ``domains`` is an exact number (None: any number from ``min_domains`` up). For the labelled
    view of an attribute table, which has one domain and many labels, the labels are counted.
    ``smoothed``, of the unpaired view: the batch also has the last domain's pictures with their
    edges smoothed.
    ``batches``: how many batches of ``data.batch`` are drawn for one batch of training, whose
    updates take them in turn; every picture counts (R3GAN: new pictures for each player).
    """

    view: View
    domains: int | None = None
    min_domains: int = 1
    smoothed: bool = False
    batches: int = 1

    def check(self, spec: DataSpec, who: str = "this method", where: str = "") -> None:
        """Raise :class:`UserError` naming what ``spec`` lacks; ``who`` and ``where`` are named."""
        found = spec.domains
        if self.view == "labelled":
            if not spec.labels:
                raise UserError(
                    f"{who} needs labels, data '{spec.name}'{_at(where)} has none; use a folder "
                    "per domain or a table of attributes (data.name=folders or attributes)"
                )
            found = spec.labels
        names = ", ".join(found)
        least = self.domains or self.min_domains
        if len(found) < least:
            raise UserError(
                f"{who} needs {least} domains, data '{spec.name}'{_at(where)} has {len(found)} "
                f"({names}); add the pictures of the other domain or choose other data"
            )
        if self.domains is not None and len(found) > self.domains:
            raise UserError(
                f"{who} needs exactly {self.domains} domains, data '{spec.name}'{_at(where)} has "
                f"{len(found)} ({names}); choose with data.domains=[{','.join(found[:least])}]"
            )
        if self.view == "paired" and not spec.paired:
            raise UserError(
                f"{who} needs pairs of pictures, data '{spec.name}'{_at(where)} is unpaired; "
                "use data.name=paired, or data.paired=true with data.name=coats"
            )


def _at(where: str) -> str:
    return f" at {where}" if where else ""


@dataclass
class Batch:
    """One batch of real pictures.

    ``images``: uint8 [N,C,H,W], one tensor per domain for the unpaired and paired views, exactly
    one for single and labelled; derived pictures follow (`Needs.smoothed`). ``labels``: float32
    [N,K] for the labelled view, else None; with S > 1 label sets [N,K+S], of which the last S say
    whose labels are known (one-hot). Where a method needs several batches at a time, they lie one
    after another in each tensor.
    """

    images: tuple[Tensor, ...]
    labels: Tensor | None = None

    @classmethod
    def of(cls, found: Any, domains: Sequence[str] = ()) -> Batch:
        """A batch as any loader gives it: a `Batch`; pictures [N, C, H, W]; a tuple or list of
        them, one for each domain, or of pictures and labels [N] or [N, K]; or a dict, by the
        names of ``domains``, by "A" and "B", or "image" with "label" beside it. Pictures are
        uint8, or float in [-1, 1]; class numbers become one-hot of as many as ``domains``.

        Raises:
            UserError: it is none of these.
        """
        if isinstance(found, Batch):
            return found
        if isinstance(found, Tensor):
            return cls((found,))
        if isinstance(found, Mapping):
            labels = next((found[k] for k in ("label", "labels") if k in found), None)
            for names in (tuple(domains), ("A", "B"), ("image",), ("images",)):
                if names and all(name in found for name in names):
                    return cls._checked([found[name] for name in names], labels, domains)
            raise UserError(
                f"A batch has the keys {', '.join(map(str, found))}; expected are "
                f"{', '.join(domains) or 'image'}, or A and B, or image and label."
            )
        if isinstance(found, list | tuple) and found:
            *images, last = found
            if isinstance(last, Tensor) and last.ndim < 3:
                return cls._checked(images, last, domains)
            return cls._checked([*found], None, domains)
        raise UserError(
            f"A batch is {type(found).__name__}; it must be a tensor of pictures, or a tuple or "
            f"dict of them."
        )

    @classmethod
    def _checked(cls, images: list[Any], labels: Any, domains: Sequence[str]) -> Batch:
        if not images:
            raise UserError("A batch has labels and no pictures; put [N, C, H, W] before them.")
        for x in images:
            if not isinstance(x, Tensor) or x.ndim != 4:
                shape = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
                raise UserError(f"A batch's pictures are {shape}; they must be [N, C, H, W].")
        if labels is not None and labels.ndim == 1:
            labels = F.one_hot(labels.long(), len(domains))
        return cls(tuple(images), None if labels is None else labels.float())

    @property
    def tensors(self) -> list[Tensor]:
        """Pictures, then labels."""
        return [*self.images, *([] if self.labels is None else [self.labels])]

    def split(self, k: int) -> list[Batch]:
        """``k`` equal parts, in order."""
        if k == 1:
            return [self]
        images = [x.chunk(k) for x in self.images]
        labels = self.labels.chunk(k) if self.labels is not None else [None] * k
        return [
            replace(self, images=tuple(x[i] for x in images), labels=labels[i]) for i in range(k)
        ]

    def to(self, device: torch.device | str, non_blocking: bool | None = None) -> Batch:
        """A copy on ``device``; by default without waiting for a GPU."""
        if non_blocking is None:
            non_blocking = torch.device(device).type == "cuda"
        return Batch(
            tuple(x.to(device, non_blocking=non_blocking) for x in self.images),
            None if self.labels is None else self.labels.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory; the data loader calls this."""
        return Batch(
            tuple(x.pin_memory() for x in self.images),
            None if self.labels is None else self.labels.pin_memory(),
        )
