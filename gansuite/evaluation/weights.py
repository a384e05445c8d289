"""The published weights that some metrics need: where they are, and whether a file is theirs."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from gansuite.data.downloads import Archive, download
from gansuite.errors import UserError


@dataclass(frozen=True)
class Weights:
    """A file of weights as published. ``option``: the key of ``evaluate`` that takes its path;
    ``metrics``: those that need it, in words; ``package``: one that must be installed, too."""

    what: str
    option: str
    metrics: str
    urls: tuple[str, ...]
    size: int
    sha256: str
    package: str = ""

    @property
    def file(self) -> str:
        return self.urls[0].rpartition("/")[2]

    def check(self, path: Path) -> None:
        """UserError, one sentence, unless ``metrics`` can be computed with the file ``path``.

        Costs nothing: to be called before training starts.
        """
        or_not = f"or leave evaluate.{self.option} empty"
        self.check_package()
        if not path.is_file():
            raise UserError(
                f"{self.metrics} need {self.what} at {path}: run `gansuite fetch-metrics"
                f" {path.parent}`, or put {self.urls[0]} ({self.size} bytes, sha256 {self.sha256})"
                f" there, {or_not}"
            )

    def check_package(self) -> None:
        """UserError unless the package is installed that ``metrics`` need."""
        if self.package and importlib.util.find_spec(self.package) is None:
            raise UserError(
                f"{self.metrics} need the package {self.package.replace('_', '-')}:"
                f" pip install 'gansuite[fid]', or set evaluate.{self.option} to ''"
            )

    def verify(self, path: Path, sha256: str = "") -> None:
        """UserError unless ``path`` holds these very weights."""
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        expected = sha256 or self.sha256
        if digest.hexdigest() != expected:
            raise UserError(
                f"'{path}' does not hold {self.what} (its sha256 is {digest.hexdigest()[:12]}...,"
                f" expected {expected[:12]}...); remove it and run `gansuite fetch-metrics` again"
            )

    def fetch(self, folder: Path) -> Path:
        """The file in ``folder``, downloaded (resumed, verified) unless it is there.

        UserError when it cannot be had, or when the file that is there is another one.
        """
        path = folder / self.file
        if path.is_file():
            self.verify(path)
            return path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"folder '{folder}' cannot be made ({error.strerror})") from error
        download(Archive(self.what, self.urls, self.size, self.sha256), path)
        return path


INCEPTION = Weights(
    "the Inception network of 2015-12-05",
    "inception",
    "fid, kid and is",
    (
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
        "weights-inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
    ),
    95_628_359,
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    "torch_fidelity",
)
VGG = Weights(
    "torchvision's VGG-16",
    "vgg",
    "lpips and ppl",
    ("https://download.pytorch.org/models/vgg16-397923af.pth",),
    553_433_881,
    "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
)
WEIGHTS = (INCEPTION, VGG)
