"""The one table of metrics: what each is called, which way is better, what it needs, what it means
and how it is computed. Everything that lists, ranks, shows or explains metrics reads it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torchmetrics import Metric

    from gansuite.evaluation.extractor import Extractor
    from gansuite.evaluation.protocol import Protocol

Make = Callable[["Protocol", "Extractor", bool], "Metric"]
"""Builds a metric; True: its value is that of all processes together."""


def _of(name: str, network: str = "", **arguments: Any) -> Make:
    """Builds class ``name`` of `evaluation.metrics`, or ``module.name``; an argument that is text
    names a field of the protocol, ``network`` one of the extractor. Nothing is imported before."""

    def make(protocol: Protocol, extractor: Extractor, sync: bool) -> Metric:
        module, _, kind = name.rpartition(".")
        found = importlib.import_module(f"gansuite.evaluation.{module or 'metrics'}")
        given: dict[str, Any] = {
            k: getattr(protocol, v) if isinstance(v, str) else v for k, v in arguments.items()
        }
        if network:
            given["network"] = getattr(extractor, network)
        made: Metric = getattr(found, kind)(sync_on_compute=sync, **given)
        return made

    return make


@dataclass(frozen=True)
class Info:
    """One metric.

    ``inputs``: what its ``update`` gets. ``set:<network>``: both sides in the eyes of a network of
    the extractor (``set:images``: the pictures themselves); else fields of a `Comparison`, without
    which the metric is absent. ``make``: builds it; metrics of one ``make`` are computed together.
    ``option``: the key of ``evaluate`` without which it is not there. ``headline``: shown beside
    the ranking one where there is little room. ``squared``: it is the square of a distance (which
    an unbiased estimate may put below 0). ``pair``: the metric without which it is never shown, as
    each alone is won by a trivial output.
    """

    label: str
    better: Literal["lower", "higher", ""]  # "": it is read, not ranked
    meaning: str
    inputs: tuple[str, ...]
    make: Make
    option: str = ""
    headline: bool = False
    squared: bool = False
    pair: str = ""

    @property
    def arrow(self) -> str:
        return {"lower": "↓", "higher": "↑", "": ""}[self.better]


_PR = _of("PrecisionRecall", k="precision_recall_k")
_PR_DINO = _of("PrecisionRecall", k="precision_recall_k")
_DC = _of("DensityCoverage", k="density_coverage_k")
_SWD = _of(
    "SlicedWasserstein",
    patches="swd_patches",
    directions="swd_directions",
    repeats="swd_repeats",
    smallest="swd_smallest",
    seed="seed",
)

METRICS: dict[str, Info] = {
    "fd_learned": Info(
        "Fréchet distance, learned features",
        "lower",
        "How far the made pictures are, as a set, from real ones, in the eyes of a network trained "
        "on the real training pictures. Not FID.",
        ("set:learned",),
        _of("FrechetDistance"),
        "learned",
        headline=True,
        squared=True,
    ),
    "fd_random": Info(
        "Fréchet distance, random VGG",
        "lower",
        "The same question to a random network, which sees texture more than content. Not FID.",
        ("set:random",),
        _of("FrechetDistance"),
        headline=True,
        squared=True,
    ),
    "kd_random": Info(
        "Kernel distance, random VGG",
        "lower",
        "The same question with a measure that few pictures do not bias.",
        ("set:random",),
        _of("KernelDistance"),
        squared=True,
    ),
    "fid": Info(
        "FID",
        "lower",
        "Fréchet distance in the eyes of the Inception network of 2015.",
        ("set:inception",),
        _of("FID", small="fid_small"),
        "inception",
        headline=True,
        squared=True,
    ),
    "kid": Info(
        "KID",
        "lower",
        "Kernel distance in the eyes of the Inception network of 2015.",
        ("set:inception",),
        _of("KID"),
        "inception",
        headline=True,
        squared=True,
    ),
    "is": Info(
        "Inception score",
        "higher",
        "Are the pictures clear and varied, as ImageNet sees them?",
        ("set:inception",),
        _of("InceptionScore", splits="inception_splits", skip=2048, seed="seed"),
        "inception",
    ),
    "fd_dino": Info(
        "Fréchet distance, DINOv2",
        "lower",
        "Fréchet distance in the eyes of DINOv2.",
        ("set:dino",),
        _of("FrechetDistance"),
        "dino",
        headline=True,
        squared=True,
    ),
    "precision_dino": Info(
        "Precision, DINOv2",
        "higher",
        "Share of made pictures that pass for real in the eyes of DINOv2.",
        ("set:dino",),
        _PR_DINO,
        "dino",
    ),
    "recall_dino": Info(
        "Recall, DINOv2",
        "higher",
        "Share of real pictures that the model could have made, in the eyes of DINOv2.",
        ("set:dino",),
        _PR_DINO,
        "dino",
    ),
    "cmmd": Info(
        "CMMD",
        "lower",
        "Kernel distance in the eyes of CLIP.",
        ("set:clip",),
        _of("CMMD"),
        "clip",
        headline=True,
        squared=True,
    ),
    "swd": Info(
        "Sliced Wasserstein distance",
        "lower",
        "How different texture and shapes are, from fine detail to coarse.",
        ("set:images",),
        _SWD,
        headline=True,
    ),
    "psnr_mask": Info(
        "PSNR inside the mask, dB",
        "higher",
        "How close the animal is to the true translation.",
        ("fake", "truth", "mask"),
        _of("MaskedPSNR"),
        headline=True,
    ),
    "psnr_outside": Info(
        "PSNR outside the mask, dB",
        "higher",
        "How well the background is left alone.",
        ("fake", "truth", "mask"),
        _of("MaskedPSNR", outside=True),
        headline=True,
    ),
    "psnr": Info(
        "PSNR, dB",
        "higher",
        "How close the whole picture is to the true translation.",
        ("fake", "truth"),
        _of("PSNR"),
        headline=True,
    ),
    "ssim": Info(
        "SSIM",
        "higher",
        "Likeness of structure to the true translation; 1 is equal.",
        ("fake", "truth"),
        _of("SSIM"),
        headline=True,
    ),
    "ms_ssim": Info(
        "MS-SSIM",
        "higher",
        "Likeness of structure at five scales; 1 is equal.",
        ("fake", "truth"),
        _of("MSSSIM"),
    ),
    "l1": Info(
        "L1 to the truth",
        "lower",
        "Mean difference from the true translation.",
        ("fake", "truth"),
        _of("L1"),
    ),
    "lpips": Info(
        "LPIPS",
        "lower",
        "Perceived difference from the true translation.",
        ("fake", "truth"),
        _of("PerceptualDistance", network="vgg"),
        "vgg",
    ),
    "content_kept": Info(
        "Content kept",
        "higher",
        "Likeness of structure (SSIM) to the picture that was translated: 1 is won by doing "
        "nothing. To be read with the style reached.",
        ("fake", "source"),
        _of("SSIM"),
        "style",
        headline=True,
        pair="style_reached",
    ),
    "content_distance": Info(
        "Content distance",
        "lower",
        "How far features are from those of the picture that was translated, whatever their style: "
        "0 is won by doing nothing, 1 is nothing in its place. To be read with the style reached.",
        ("fake", "source"),
        _of("style.ContentDistance", network="style"),
        "style",
        pair="style_reached",
    ),
    "style_reached": Info(
        "Style reached",
        "higher",
        "How far the statistics of the pictures came to those of the style: 0 for doing nothing, "
        "1 is won by a copy of the style. To be read with the content kept.",
        ("source", "fake", "real"),
        _of("style.StyleReached", network="style"),
        "style",
        headline=True,
        pair="content_kept",
    ),
    "reference_reached": Info(
        "Reference reached",
        "higher",
        "The same for the one picture that each was to have the style of, of methods that are "
        "given one.",
        ("source", "fake", "reference"),
        _of("style.ReferenceReached", network="style"),
        "style",
        pair="content_kept",
    ),
    "precision": Info(
        "Precision",
        "higher",
        "Share of made pictures that pass for real.",
        ("set:random",),
        _PR,
    ),
    "recall": Info(
        "Recall",
        "higher",
        "Share of real pictures that the model could have made.",
        ("set:random",),
        _PR,
    ),
    "density": Info(
        "Density",
        "higher",
        "How deep inside the real ones the made pictures lie.",
        ("set:random",),
        _DC,
    ),
    "coverage": Info(
        "Coverage",
        "higher",
        "Share of real pictures with a made one close by; low is collapse.",
        ("set:random",),
        _DC,
        headline=True,
    ),
    "diversity": Info(
        "Diversity",
        "",
        "How much made pictures differ from one another, as a share of how much real ones do: "
        "1 is right, near 0 is collapse.",
        ("set:random",),
        _of("Diversity"),
        headline=True,
    ),
    "cycle_l1": Info(
        "Cycle error, L1",
        "lower",
        "What is lost on the way there and back.",
        ("rec", "source"),
        _of("L1"),
    ),
    "identity_l1": Info(
        "Identity error, L1",
        "lower",
        "How much a picture changes that needed no change.",
        ("idt", "real"),
        _of("L1"),
    ),
    "correlation": Info(
        "Correlation with the input",
        "",
        "1: nothing changed; near -1: colours are inverted.",
        ("source", "fake"),
        _of("Correlation"),
    ),
    "checkerboard": Info(
        "Checkerboard",
        "",
        "Strength of the pattern that upsampling can draw; real pictures have about 1.",
        ("set:images",),
        _of("Checkerboard"),
    ),
    "ppl": Info(
        "Perceptual path length",
        "lower",
        "How smoothly pictures follow the noise.",
        ("latent_pairs",),
        _of("PathLength", network="vgg", epsilon="ppl_epsilon"),
        "vgg",
    ),
}

ROWS = {
    "do_nothing": "do nothing",
    "real_vs_real": "real vs real",
    "blurred": "blurred training pictures",
    "copy_the_style": "copy the style",
}
"""The reference rows of `score.reference_rows`, in order: what each is called."""

DISTANCES = ("fd_learned", "fd_random")
"""How far a run is from real pictures: the first of these that it has."""


def distance(scores: Iterable[str]) -> str:
    """The first of `DISTANCES` among the names of ``scores``; the last without any."""
    there = set(scores)
    return next((m for m in DISTANCES if m in there), DISTANCES[-1])


def headlines(names: Iterable[str], most: int | None = None) -> list[str]:
    """The metrics among ``names`` that are shown where there is little room, at most ``most`` of
    them: pairs first, since a pair is shown together or not at all, then in order."""
    known = set(names)
    there = [m for m, x in METRICS.items() if x.headline and {m, x.pair or m} <= known]
    pairs = [m for m in there if METRICS[m].pair]
    most = len(there) if most is None else most
    kept = pairs[: most // 2 * 2]
    kept += [m for m in there if m not in pairs][: most - len(kept)]
    return [m for m in there if m in kept]


OFFLINE = tuple(m for m, info in METRICS.items() if not info.option)
NEEDS = {m: info.option for m, info in METRICS.items() if info.option}
HEADLINE = tuple(m for m, info in METRICS.items() if info.headline)
HIGHER_IS_BETTER: dict[str, bool | None] = {
    m: {"lower": False, "higher": True, "": None}[info.better] for m, info in METRICS.items()
}
