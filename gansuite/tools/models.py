"""Trained models: a method from a checkpoint, or an exported program in its place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gansuite import engine
from gansuite.data.spec import DataSpec, LabelSet
from gansuite.errors import UserError
from gansuite.methods._unconditional import latents
from gansuite.runs import find_checkpoint
from gansuite.tools.programs import Program, from_bytes, load_program, to_bytes

PROGRAMS = (".onnx", ".pt2")


def load_model(path: str | Path, weights: str = "auto") -> Any:
    """The model in a checkpoint, a run folder or a model folder (a `Method`, see
    `engine.load_method`), or in a file of `gansuite export` (an `Exported`), ready for `translate`
    and `sample`.

    Raises:
        UserError: there is none, it is damaged, or ``weights`` are asked for of a program.
    """
    file = find_checkpoint(path)
    if file.suffix.lower() not in PROGRAMS:
        return engine.load_method(file, weights)
    program, says = load_program(file)
    if weights not in ("auto", says["weights"]):
        raise UserError(f"'{path}' has {says['weights']} weights; leave --weights out.")
    if "latent" not in says:
        raise UserError(f"'{path}' was exported by an earlier version; export it again.")
    return Exported(program, says)


class Exported:
    """An exported program that translates, stylizes or samples as the method it was made from.

    Of pictures of fixed sides it is given them scaled to those, and what it makes is scaled back.
    Of several attributes a program knows no others of a picture, so that it sets one alone.
    """

    has_styles = False
    stride: int

    def __init__(self, program: Program, says: dict[str, Any]) -> None:
        self.program, self.says = program, says
        data, function = says["data"], says["function"]
        self.task = "generate" if function == "pictures" else "translate"
        self.by_reference = function == "styled"
        self.truncates = "truncation" in says["inputs"]
        self.fixed, self.latent = says["fixed"], says["latent"]
        self.stride = 1 if self.fixed else says["stride"]
        self.title = f"{says['method']} (exported)"
        self.spec = DataSpec(
            data["name"], says["size"], says["channels"], tuple(data["domains"]), {}, False,
            tuple(data["labels"]), data["digest"],
        )  # fmt: skip
        self.sets = [LabelSet((), tuple(names), one) for names, one in says["label_sets"]]
        labelled = function == "edit"
        self.targets: tuple[str, ...] = self.spec.labels if labelled else (says["to"],)

    def translate(self, x: Tensor, to: str) -> Tensor:
        """As `Method.translate`.

        Raises:
            UserError: the program takes the style of a reference, which is not here.
        """
        if self.by_reference:
            raise UserError("this exported model takes the style of a picture; give --style")
        if self.says["function"] == "edit":
            return self._made(x, label=self.label(to).expand(len(x), -1))
        return self._made(x)

    def label(self, to: str) -> Tensor:
        """float [1, K]: ``to`` alone, and, of several label sets, the mask of its own."""
        names = self.spec.labels
        which = next(i for i, found in enumerate(self.sets) if to in found.labels)
        label = torch.zeros(1, len(names) + (len(self.sets) if len(self.sets) > 1 else 0))
        label[0, names.index(to)] = 1
        if len(self.sets) > 1:
            label[0, len(names) + which] = 1
        return label

    def stylize(
        self, x: Tensor, references: Sequence[tuple[Tensor, float]], strength: float = 1.0
    ) -> Tensor:
        """As `Method.stylize`, by one reference.

        Raises:
            UserError: there are several.
        """
        if len(references) > 1:
            raise UserError("an exported model takes one --style; several need the run itself")
        reference = self._fitting(references[0][0].expand(len(x), -1, -1, -1))
        return self._made(x, reference=reference, strength=torch.tensor([float(strength)]))

    def _fitting(self, x: Tensor) -> Tensor:
        """``x`` with sides that the program takes: what is too much is cut off on both sides."""
        stride, size = self.says["stride"], self.spec.size
        if self.fixed:
            return _scaled(x, (size, size))
        height, width = (side - side % stride for side in x.shape[2:])
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return x[:, :, top : top + height, left : left + width]

    def _made(self, x: Tensor, **more: Tensor) -> Tensor:
        if not self.fixed:
            return self._call(image=x, **more)
        made = self._call(image=_scaled(x, (self.spec.size, self.spec.size)), **more)
        return _scaled(made, (x.shape[2], x.shape[3]))

    def _call(self, **given: Tensor) -> Tensor:
        given = {name: x.cpu() for name, x in given.items()}  # where a program computes
        if not self.says["uint8"]:
            return self.program(**{name: x.float().contiguous() for name, x in given.items()})
        pictures = {k: to_bytes(x) for k, x in given.items() if k in ("image", "reference")}
        return from_bytes(self.program(**given | pictures))

    def z_from(self, n: int, generator: torch.Generator | None) -> Tensor:
        """As `Unconditional.z_from`."""
        return latents(self.latent, n, self.says["inputs"]["z"]["shape"][1], generator)

    def pictures(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """The pictures, float in [-1, 1], of latents ``z``."""
        more = {"truncation": torch.tensor([float(truncation)])} if self.truncates else {}
        return self._call(z=z, **more)

    def sample(
        self, n: int, generator: torch.Generator | None = None, truncation_psi: float = 1.0
    ) -> Tensor:
        """As `Method.sample`."""
        return self.pictures(self.z_from(n, generator), truncation_psi)


def _scaled(x: Tensor, size: tuple[int, int]) -> Tensor:
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
