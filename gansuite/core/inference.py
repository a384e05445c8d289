"""What a trained method is used by: networks, and a function of named inputs that makes pictures
with them. It is all that leaves gansuite when a model is exported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

Input = Literal["picture", "share"] | Callable[[int], Tensor]
"""``"picture"``: float [N, C, H, W] in [-1, 1], with sides that are multiples of the method's
``stride``; ``"share"``: float [1], 0 to 1; or, of a vector float [N, k], what makes n of them."""


class Inference(nn.Module):
    """``call(**tensors)``, which makes pictures, float [N, C, H, W] in [-1, 1], with ``networks``.

    ``name``: the function of the method that it is, whose first arguments are the ``inputs``, in
    their order. A program exported from it can take that function's place.
    """

    def __init__(
        self, networks: nn.Module, call: Callable[..., Tensor], name: str, **inputs: Input
    ) -> None:
        super().__init__()
        self.networks, self.name, self.inputs = networks, name, inputs
        self.forward = call
