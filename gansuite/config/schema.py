"""What an experiment may say: sections, keys, types and bounds, all strict and frozen."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from gansuite.config.messages import shown
from gansuite.errors import UserError
from gansuite.files import local_path


class Section(BaseModel):
    """Base of all sections: unknown keys and wrong types are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FrozenDict(dict[str, Any]):
    """A dict that cannot be changed, like the sections around it."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an experiment cannot be changed; load it with other overrides")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = _refuse
    pop = popitem = clear = _refuse

    def __reduce__(self) -> Any:
        return FrozenDict, (dict(self),)


def _freeze(value: dict[str, Any]) -> FrozenDict:
    return FrozenDict({k: _freeze(v) if isinstance(v, dict) else v for k, v in value.items()})


Frozen = Annotated[dict[str, Any], AfterValidator(_freeze)]


# Bounds that no sensible experiment meets; beyond them lie overflows, full memories and waits that
# never end.
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=1 << 63)]
Long = Annotated[float, Field(ge=1e-6, le=1e9)]
"""Thousands of pictures (from a thousandth of one up) or seconds (up to thirty years)."""
Rate = Annotated[float, Field(ge=0, le=1e6)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class Optim(Section):
    """One player's optimiser. ``clip`` is the largest L2 norm of that player's gradient;
    ``rmsprop_tf`` is TensorFlow's RMSprop, whose accumulator begins at 1 (``eps`` there: 1e-10)."""

    kind: Literal["adam", "rmsprop", "rmsprop_tf", "sgd"] = "adam"
    lr: Rate = 2e-4
    betas: list[Decay] = Field(default=[0.5, 0.999], min_length=2, max_length=2)
    alpha: Decay = 0.99
    momentum: Decay = 0.0
    eps: Rate = 1e-8
    weight_decay: Rate = 0.0
    clip: Annotated[float, Field(gt=0, le=1e9)] | None = None


class Budget(Section):
    """How long a run is: exactly one of ``kimg`` (thousands of real pictures drawn, all domains
    together) and ``seconds`` (training time, evaluation excluded).

    The learning rate is constant until ``decay_from`` (a share of the budget, 1 = never) and then
    falls linearly to 0; with ``decay_steps=n`` it falls in the n stairs per budget of the official
    CycleGAN code (its "epochs") instead of continuously.
    """

    kimg: Long | None = None
    seconds: Long | None = None
    decay_from: float = Field(default=1.0, ge=0, le=1)
    decay_steps: Count | None = None


class Ema(Section):
    """Average of the generator's weights; off without a half-life. ``rampup`` caps the half-life
    at that share of the pictures seen so far (StyleGAN2: 0.05)."""

    half_life_kimg: Long | None = None
    rampup: Long | None = 0.05


class Evaluate(Section):
    """When and on what a run is scored. ``pictures``: test pictures per domain; ``samples``:
    columns of the sample grid; ``best_by``: the metric that picks `best.ckpt`; ``inception``: the
    file of the Inception weights, for FID, KID and IS as well (``auto``: of published data sets,
    where it can be had); ``vgg``: that of VGG-16, for LPIPS and the perceptual path length;
    ``dino``, ``clip``: safetensors files, for fd_dino and cmmd; ``learned``: whether a network is
    trained on the training pictures once per data set, for fd_learned; ``style``: whether the
    content kept and the style reached are scored (``auto``: of data with a domain that is a style
    by its name: painted, cartoon, style, monet, cezanne, ukiyoe, vangogh)."""

    every_kimg: Long | None = None
    pictures: int = Field(default=256, ge=2, le=10_000_000)
    samples: int = Field(default=8, ge=1, le=32)
    weights: Literal["auto", "raw", "ema"] = "auto"
    best_by: str = "fd_learned"
    batch: int = Field(default=32, ge=1, le=65_536)
    inception: str = "auto"
    vgg: str = ""
    dino: str = ""
    clip: str = ""
    learned: bool = True
    style: Literal["auto"] | bool = "auto"


class Log(Section):
    """What is recorded on the way. ``loggers``: Lightning's loggers that a run has beside its own
    files. ``wandb``: the mode of W&B; ``auto`` goes online when a key is configured and stays
    offline otherwise, and never asks."""

    every_kimg: Long = 1.0
    checkpoint_every_kimg: Long | None = None
    loggers: list[Literal["wandb", "tensorboard", "mlflow", "csv"]] = ["wandb"]
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "gansuite"
    group: str | None = None
    tags: list[str] = []


class Health(Section):
    """What happens when training goes wrong (collapse, a saturated discriminator, inverted or
    unchanged pictures). ``warn`` says so once and goes on; ``stop`` ends the run, resumably;
    ``rollback`` goes back to `last.ckpt` and on with other noise and other pictures, at most
    ``retries`` times, and then stops. What is not finite stops the run under ``warn`` as well."""

    action: Literal["warn", "stop", "rollback"] = "warn"
    retries: int = Field(default=2, ge=0, le=1000)


class Trainer(Section):
    """Where and how a run computes. ``data.batch`` is global: each of devices x num_nodes
    processes takes ``accumulate`` chunks of batch / (devices x num_nodes x accumulate)."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    num_nodes: int = Field(default=1, ge=1, le=1024)
    precision: Literal["32-true", "64-true", "bf16-mixed", "16-mixed"] = "32-true"
    accumulate: int = Field(default=1, ge=1, le=65_536)
    deterministic: bool = False
    sync_batchnorm: bool = False
    channels_last: bool = False


class DataOptions(Section):
    """The keys that every ``data:`` section shares; the others belong to its source."""

    size: int = Field(default=64, ge=8, le=4096)
    load_size: Annotated[int, Field(ge=8, le=8192)] | None = None
    batch: int = Field(default=1, ge=1, le=65_536)
    flip: bool = True
    resize: Literal["bicubic", "bilinear", "bilinear_aliased"] = "bicubic"
    channels: Annotated[int, Field(ge=1, le=64)] | None = None
    workers: int = Field(default=0, ge=0, le=256)


class CompareBudget(Section):
    """What is equal for all runs of a comparison, at most one of: thousands of real pictures,
    seconds of training, 10^15 floating-point operations. Without any, each has its own budget,
    and these must be equal."""

    kimg: Long | None = None
    seconds: Long | None = None
    pflop: Long | None = None


class Compare(Section):
    """What is compared. ``set``: overrides for every run; ``entries``: run folders, or outside
    entries written by `gansuite score`; ``rank_by``: the metric whose final value ranks."""

    title: str = ""
    experiments: list[str] = []
    entries: list[str] = []
    seeds: list[Seed] = Field(default=[0], min_length=1)
    budget: CompareBudget = CompareBudget()
    set: list[str] = []
    rank_by: str = "fd_learned"


class Experiment(Section):
    """What runs. ``method`` and ``data`` are validated dicts (their classes know them).

    ``init_from``: a run folder, a checkpoint or a model folder whose weights training begins with
    ("": none), of which ``init_weights``: the averaged ones (``ema``), the others (``raw``), or
    ``auto``: averaged where there are any. ``freeze``: for each player the layers that stay as
    they are, by the beginning of their names, with * for anything.
    """

    name: str
    seed: Seed = 0
    out: str = "runs"
    method: Frozen
    data: Frozen
    optim: Annotated[dict[str, Optim], AfterValidator(_freeze)] = FrozenDict()
    budget: Budget = Budget()
    ema: Ema = Ema()
    evaluate: Evaluate = Evaluate()
    log: Log = Log()
    health: Health = Health()
    trainer: Trainer = Trainer()
    init_from: str = ""
    init_weights: Literal["auto", "raw", "ema"] = "auto"
    freeze: Annotated[dict[str, list[str]], AfterValidator(_freeze)] = FrozenDict()

    def plain(self) -> dict[str, Any]:
        """Dicts, lists and scalars only, in a fixed order: what is saved and compared. Of a run
        from scratch there is no word of what it might begin with."""
        unused = set() if self.init_from else {"init_from", "init_weights", "freeze"}
        return self.model_dump(mode="python", exclude=unused)

    def yaml(self) -> str:
        """`plain` as text; read again as an experiment file it is this experiment."""
        # OmegaConf's writer, since it quotes what its reader takes for a number ('1e4')
        return OmegaConf.to_yaml(OmegaConf.create(self.plain()))

    @property
    def run_dir(self) -> Path:
        return out_path(self.out) / self.name / f"seed{self.seed}"


def out_path(text: str) -> Path:
    """The folder ``out`` on this machine: of an address such as ``s3://bucket/runs``, its copy.

    Raises:
        UserError: as `user_path`, or an address names no folder.
    """
    try:
        return user_path(str(local_path(text)), "out")
    except ValueError as error:
        raise UserError(f"'out' is {shown(text)}, which is no address ({error}).") from None


def user_path(text: str, key: str) -> Path:
    """The path ``text`` of option ``key``, with ``~`` for the home folder.

    Raises:
        UserError: nobody has this home folder, or the operating system takes no such name.
    """
    try:
        path = Path(text).expanduser()
        os.fspath(path).encode()
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            os.lstat(path)
    except RuntimeError:
        reason = "there is no such home folder"
    except UnicodeEncodeError:
        reason = "it is not UTF-8"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    else:
        return path
    raise UserError(f"'{key}' is {shown(text)}, which is no path ({reason}); write another.")


SECTIONS: dict[str, type[Section]] = {
    "budget": Budget,
    "ema": Ema,
    "evaluate": Evaluate,
    "log": Log,
    "health": Health,
    "trainer": Trainer,
}


KINDS: dict[str, Any] = {name: {} for name in ("method", "data", "optim", *SECTIONS)}


def fixed_keys() -> list[str]:
    """The keys of the fixed sections, for a key that was written in the wrong one."""
    sections: dict[str, type[Section]] = {"data": DataOptions, "optim.g": Optim, **SECTIONS}
    return [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]
