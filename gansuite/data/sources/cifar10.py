"""CIFAR-10, as torchvision stores it or as plain folders."""

from __future__ import annotations

import numpy as np

from gansuite.data.sources.classes import ClassSet
from gansuite.errors import UserError


class Cifar10(ClassSet):
    """Krizhevsky's ten classes, 32 x 32, colour."""

    name = "cifar10"
    summary = "ten classes of objects, 32 px, 170 MB, downloaded on first use"
    expected = "cifar-10-batches-py/, or train/<class>/ and test/<class>/"
    classes = (
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    address = "https://www.cs.toronto.edu/~kriz/cifar.html"
    files = "the unpacked folder cifar-10-batches-py"

    def _arrays(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        if not (self.root / "cifar-10-batches-py").is_dir():
            return {}
        from torchvision.datasets import CIFAR10

        try:
            sets = {s: CIFAR10(str(self.root), train=s == "train") for s in ("train", "test")}
        except RuntimeError as error:
            raise UserError(
                f"cifar10 at '{self.root / 'cifar-10-batches-py'}' is incomplete or damaged; get "
                f"it again from {self.address}"
            ) from error
        return {s: (np.asarray(x.data), np.asarray(x.targets)) for s, x in sets.items()}
