"""The networks that look at pictures in one evaluation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from gansuite.config import Evaluate
from gansuite.data.module import DataModule
from gansuite.errors import UserError
from gansuite.evaluation.features import Inception, RandomVGG16
from gansuite.evaluation.learned import LearnedFeatures, learned_features
from gansuite.evaluation.perceptual import LPIPS
from gansuite.evaluation.style import StyleStatistics
from gansuite.evaluation.vit import Clip, Dino
from gansuite.evaluation.weights import INCEPTION, VGG
from gansuite.stacks import is_stack


@dataclass(frozen=True)
class Extractor:
    """The random network always, the others where their weights are given.

    Not a Module, so it cannot slip into a checkpoint, an optimizer or an average.
    """

    random: RandomVGG16
    inception: Inception | None = None
    vgg: LPIPS | None = None
    learned: LearnedFeatures | None = None
    dino: Dino | None = None
    clip: Clip | None = None

    @functools.cached_property
    def style(self) -> StyleStatistics:
        """The random network, asked for the statistics of its channels."""
        return StyleStatistics(self.random)

    def ids(self) -> dict[str, str]:
        """What the protocol calls them; empty for one that is not there."""
        return {
            "extractor": self.random.id,
            "inception": self.inception.id if self.inception else "",
            "vgg": self.vgg.id if self.vgg else "",
            "learned": self.learned.id if self.learned else "",
            "dino": self.dino.id if self.dino else "",
            "clip": self.clip.id if self.clip else "",
        }


def build_extractor(
    *,
    seed: int = 0,
    channels: int = 3,
    device: torch.device | str = "cpu",
    inception: str = "",
    vgg: str = "",
    dino: str = "",
    clip: str = "",
    learned: LearnedFeatures | None = None,
) -> Extractor:
    """The random network on ``device``, and those whose files of weights are given; ``learned``:
    the network trained on the data (`learned.learned_features`).

    Raises:
        UserError: weights for pictures of 1 or 3 ``channels``, which these have not.
    """
    given = {"inception": inception, "vgg": vgg, "dino": dino, "clip": clip}
    if is_stack(channels) and (named := [key for key, file in given.items() if file]):
        raise UserError(
            f"'evaluate.{named[0]}' is of a network for 1 or 3 channels, these pictures have "
            f"{channels}; leave it out."
        )
    return Extractor(
        RandomVGG16(seed, channels).to(device),
        Inception(Path(inception)).to(device) if inception else None,
        LPIPS(Path(vgg)).to(device) if vgg else None,
        learned.to(device) if learned else None,
        Dino(Path(dino)).to(device) if dino else None,
        Clip(Path(clip)).to(device) if clip else None,
    )


def extractor_of(
    options: Evaluate,
    data: DataModule,
    *,
    device: torch.device | str = "cpu",
    learned: LearnedFeatures | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Extractor:
    """The networks that ``evaluate`` asks for on these data.

    ``learned``: the network trained on them, where it is at hand; else it is read from the cache or
    trained. ``note`` receives one line where FID was to be had and cannot.
    """
    if options.learned and learned is None:
        learned = learned_features(data)
    return build_extractor(
        channels=data.spec.channels,
        device=device,
        inception=inception_file(options, data, note),
        vgg=options.vgg,
        dino=options.dino,
        clip=options.clip,
        learned=learned if options.learned else None,
    )


def inception_file(
    options: Evaluate, data: DataModule, note: Callable[[str], None] = lambda line: None
) -> str:
    """The file of Inception's weights, "" for none.

    ``evaluate.inception=auto`` (the default): for data that are themselves downloaded, the file in
    the cache, fetched once. Where it cannot be had a line says so and the run goes on without FID.
    """
    if options.inception != "auto":
        return options.inception
    if data.cache is None or not is_downloaded(data.source):
        return ""
    try:
        INCEPTION.check_package()
        return str(INCEPTION.fetch(data.cache))
    except UserError as error:
        note(f"no FID: {error}")
        return ""


def is_downloaded(source: object) -> bool:
    """Whether a source of pictures, or its class, is a published set that is fetched."""
    return bool(getattr(source, "downloads", False))


def check_weights(options: Evaluate) -> None:
    """UserError, one sentence, where a file of weights that ``evaluate`` names cannot be used;
    costs nothing, to be called before training starts."""
    if options.inception not in ("", "auto"):
        INCEPTION.check(Path(options.inception))
    if options.vgg:
        VGG.check(Path(options.vgg))
    for kind, file in ((Dino, options.dino), (Clip, options.clip)):
        if file:
            kind.check(Path(file))
