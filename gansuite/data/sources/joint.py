"""The source that is made of others."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from gansuite.data.catalogue import build_source, joint_options
from gansuite.data.sources.base import Source
from gansuite.data.spec import LabelSet
from gansuite.errors import UserError


class Joint(Source):
    """Several labelled sets, each of whose labels nobody knows for the pictures of the others.

    Training batches come from the sets by turns. The label vector is that of StarGAN's joint
    training (Choi et al. 2018, section 3.2): the labels of all sets one after the other, 0 where
    unknown, and a one-hot mask that says whose are known. The single domain of a table, or of
    pooled classes, is named after its set.
    """

    name = "joint"
    summary = "several labelled sets at once, with a mask of the known labels (StarGAN)"
    expected = "what each of its sets expects"

    def __init__(self, *, sets: dict[str, dict[str, Any]]) -> None:
        """``sets``: a name of one's own to the ``data`` block of each set: its ``name`` and the
        options of that source."""
        super().__init__()
        self.parts: dict[str, Source] = {
            key: build_source(**options) for key, options in joint_options(sets).items()
        }

    @property
    def where(self) -> str:
        return ", ".join(part.where for part in self.parts.values() if part.where)

    def _scan(self) -> None:
        joint = []
        for key, part in self.parts.items():
            part.prepare()
            self.notes += [f"{key}: {note}" for note in part.notes]
            mine = part.domains if part.domains == part.labels else (key,)
            joint.append(LabelSet(mine, part.labels, part.exclusive))
        self.joint = tuple(joint)
        self.labels = tuple(label for found in joint for label in found.labels)
        self._parts = {
            mine: (part, domain)
            for found, part in zip(joint, self.parts.values(), strict=True)
            for mine, domain in zip(found.domains, part.domains, strict=True)
        }
        pooled = tuple(d for found in joint if found.domains != found.labels for d in found.domains)
        names = self.labels + pooled
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise UserError(
                f"data.sets has the name '{twice[0]}' twice; choose with the domains or "
                "attributes of a set, or rename a folder or a set"
            )

    def fetch(self) -> None:
        for part in self.parts.values():
            part.fetch()

    def prepare(self) -> None:
        if not self.joint:
            self._scan()

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self._parts)

    def counts(self) -> dict[str, dict[str, int]]:
        counts = {domain: (part.counts(), own) for domain, (part, own) in self._parts.items()}
        return {s: {d: n[s][own] for d, (n, own) in counts.items()} for s in ("train", "test")}

    def digest(self) -> str:
        facts = [[key, part.digest()] for key, part in self.parts.items()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def origin(self, domain: str) -> tuple[Source, str]:
        return self._parts[domain]

    def label_vectors(self, split: str, domain: str) -> np.ndarray:
        part, own = self._parts[domain]
        known = part.label_vectors(split, own)
        vectors = np.zeros((len(known), len(self.labels) + len(self.joint)), np.float32)
        which = list(self.parts.values()).index(part)
        first = sum(len(found.labels) for found in self.joint[:which])
        vectors[:, first : first + known.shape[1]] = known
        vectors[:, len(self.labels) + which] = 1
        return vectors

    def masks(self, domain: str, size: int) -> np.ndarray | None:
        part, own = self._parts[domain]
        return part.masks(own, size)
