"""What an experiment may say: sections, keys, types and bounds, all strict and frozen.

The text below a key says what it means, with its unit in brackets where it has one;
``python -m gansuite.tools.reference`` makes docs/reference/configuration.md of it.
"""

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
    """One player's optimiser."""

    kind: Literal["adam", "rmsprop", "rmsprop_tf", "sgd"] = "adam"
    """``rmsprop_tf`` is TensorFlow's RMSprop, whose accumulator begins at 1 (``eps``: 1e-10)."""
    lr: Rate = 2e-4
    """The learning rate until ``budget.decay_from``."""
    betas: list[Decay] = Field(default=[0.5, 0.999], min_length=2, max_length=2)
    """Of Adam."""
    alpha: Decay = 0.99
    """The decay of RMSprop's mean square."""
    momentum: Decay = 0.0
    """Of RMSprop and SGD."""
    eps: Rate = 1e-8
    """Added to the divisor of Adam and RMSprop."""
    weight_decay: Rate = 0.0
    """The L2 penalty on the weights."""
    clip: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """The largest L2 norm of this player's gradient; null: any."""


class Budget(Section):
    """How long a run is: exactly one of ``kimg`` and ``seconds``.

    The learning rate is constant until ``decay_from`` and then falls linearly to 0.
    """

    kimg: Long | None = None
    """[1000 pictures] Real pictures drawn, of all domains together."""
    seconds: Long | None = None
    """[s] Training time, evaluation excluded."""
    decay_from: float = Field(default=1.0, ge=0, le=1)
    """[share of the budget] Where the learning rate begins to fall; 1: never."""
    decay_steps: Count | None = None
    """[stairs] In how many stairs per budget it falls, as the "epochs" of the official CycleGAN
    code; null: continuously."""


class Ema(Section):
    """Average of the generator's weights; off without a half-life."""

    half_life_kimg: Long | None = None
    """[1000 pictures] After so many, weights count half; null: no average is kept."""
    rampup: Long | None = 0.05
    """[share of the pictures seen] Caps the half-life early on (StyleGAN2: 0.05); null: no cap."""


class Evaluate(Section):
    """When and on what a run is scored."""

    every_kimg: Long | None = None
    """[1000 pictures] Between two evaluations; null: only at the end."""
    pictures: int = Field(default=256, ge=2, le=10_000_000)
    """[pictures] Test pictures per domain."""
    samples: int = Field(default=8, ge=1, le=32)
    """[columns] Of the sample grid."""
    weights: Literal["auto", "raw", "ema"] = "auto"
    """Whether the averaged weights are scored (``ema``), the others (``raw``), or the averaged
    where there are any."""
    best_by: str = "fd_learned"
    """The metric that picks `best.ckpt`."""
    batch: int = Field(default=32, ge=1, le=65_536)
    """[pictures] That go through networks at once."""
    inception: str = "auto"
    """The file of the Inception weights, for FID, KID and IS as well; ``auto``: of published data
    sets, where it can be had."""
    vgg: str = ""
    """The file of the weights of VGG-16, for LPIPS and the perceptual path length."""
    dino: str = ""
    """The safetensors file of DINOv2, for fd_dino."""
    clip: str = ""
    """The safetensors file of CLIP, for cmmd."""
    learned: bool = True
    """Whether a network is trained on the training pictures once per data set, for fd_learned."""
    style: Literal["auto"] | bool = "auto"
    """Whether the content kept and the style reached are scored; ``auto``: of data with a domain
    that is a style by its name (painted, cartoon, style, monet, cezanne, ukiyoe, vangogh)."""


class Log(Section):
    """What is recorded on the way."""

    every_kimg: Long = 1.0
    """[1000 pictures] Between two lines of losses."""
    checkpoint_every_kimg: Long | None = None
    """[1000 pictures] Between two checkpoints; null: at every evaluation."""
    loggers: list[Literal["wandb", "tensorboard", "mlflow", "csv"]] = ["wandb"]
    """Lightning's loggers that a run has beside its own files."""
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """The mode of W&B; ``auto`` goes online when a key is configured and stays offline otherwise,
    and never asks."""
    project: str = "gansuite"
    """The project at W&B."""
    group: str | None = None
    """The group at W&B; null: the name of the data set."""
    tags: list[str] = []
    """Tags at W&B."""


class Health(Section):
    """What happens when training goes wrong (collapse, a saturated discriminator, inverted or
    unchanged pictures). What is not finite stops the run under ``warn`` as well."""

    action: Literal["warn", "stop", "rollback"] = "warn"
    """``warn`` says so once and goes on; ``stop`` ends the run, resumably; ``rollback`` goes back
    to `last.ckpt` and on with other noise and other pictures."""
    retries: int = Field(default=2, ge=0, le=1000)
    """[times] A run goes back at most; then it stops."""


class Trainer(Section):
    """Where and how a run computes. ``data.batch`` is global: each of devices x num_nodes
    processes takes ``accumulate`` chunks of batch / (devices x num_nodes x accumulate)."""

    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    """``auto``: a GPU if there is one."""
    devices: Annotated[int, Field(ge=1, le=1024)] | Literal["auto"] = "auto"
    """[processes] On each node, one to a device. ``auto``: what a launcher has started, else as
    many GPUs as can share the batch, else 1."""
    num_nodes: int = Field(default=1, ge=1, le=1024)
    """[machines] Started by torchrun or SLURM."""
    precision: Literal["auto", "32-true", "64-true", "bf16-mixed", "16-mixed"] = "auto"
    """As Lightning names it; ``bf16-mixed`` takes less memory. ``auto``: as the run was begun; of a
    new one ``bf16-mixed`` on GPUs from Ampere on, else ``32-true``."""
    penalties: Literal["full", "mixed"] = "full"
    """Under bf16-mixed: whether critics run in float32 (``full``) or in 16 bits (``mixed``) where
    their gradient is penalised."""
    accumulate: int = Field(default=1, ge=1, le=65_536)
    """[chunks] That a batch is computed in, one after the other, to save memory."""
    deterministic: bool = False
    """Whether GPUs compute the same bits again, more slowly."""
    sync_batchnorm: bool = False
    """Whether batch norm sees the pictures of all processes."""
    channels_last: bool | Literal["auto"] = "auto"
    """Whether networks without instance and group norm have the memory layout that CPUs are faster
    with, and GPUs in 16 bits. ``auto``: as the run was begun; of a new one there."""
    recompute: bool = False
    """Whether maps within the networks are computed again in the backward pass, to save memory."""
    graphs: bool = False
    """Whether whole batches are recorded as CUDA graphs, which small networks are faster with."""
    compile: bool = False
    """Whether the networks are compiled (torch.compile), where no loss differentiates them twice;
    needs a C++ compiler."""


class DataOptions(Section):
    """The keys that every ``data:`` section shares; the others belong to its source."""

    size: int = Field(default=64, ge=8, le=4096)
    """[pixels] The side of the pictures that networks see."""
    load_size: Annotated[int, Field(ge=8, le=8192)] | None = None
    """[pixels] Training pictures are resized to this side and a random square of ``size`` is cut
    out; null: ``size``, whole pictures."""
    batch: int = Field(default=1, ge=1, le=65_536)
    """[pictures] Per domain and update, of all processes together."""
    flip: bool = True
    """Whether training pictures are mirrored at random."""
    resize: Literal["bicubic", "bilinear", "bilinear_aliased"] = "bicubic"
    """The filter; ``bilinear_aliased`` does not smooth before making smaller."""
    channels: Annotated[int, Field(ge=1, le=64)] | None = None
    """[channels] Grey (1), colour (3) or as many as .npy and TIFF files hold; null: what the data
    set usually has."""
    workers: int = Field(default=0, ge=0, le=256)
    """[processes] That prepare batches beside each training process; no number depends on it."""


class CompareBudget(Section):
    """What is equal for all runs of a comparison, at most one of these. Without any, each has its
    own budget, and these must be equal."""

    kimg: Long | None = None
    """[1000 pictures] Real pictures drawn."""
    seconds: Long | None = None
    """[s] Of training."""
    pflop: Long | None = None
    """[10^15 operations] Floating-point operations of training."""


class Compare(Section):
    """What is compared."""

    title: str = ""
    """Of the page."""
    experiments: list[str] = []
    """Names of experiments."""
    entries: list[str] = []
    """Run folders, or outside entries written by `gansuite score`."""
    seeds: list[Seed] = Field(default=[0], min_length=1)
    """Of every experiment."""
    budget: CompareBudget = CompareBudget()
    """Of every run."""
    set: list[str] = []
    """Overrides for every run, as ``key=value``."""
    rank_by: str = "fd_learned"
    """The metric whose final value ranks."""


_NEWER = ("recompute", "graphs", "compile", "penalties")


class Experiment(Section):
    """What runs. ``method`` and ``data`` are validated dicts (their classes know them)."""

    name: str
    """The folder below ``out``; the file's name if it is not given."""
    seed: Seed = 0
    """Of everything that is drawn: initial weights, order of pictures, noise."""
    out: str = "runs"
    """Where runs lie: a folder, or an address such as s3://bucket/runs."""
    method: Frozen
    """``name`` and the options of a method, see below."""
    data: Frozen
    """``name`` and the options of a data set, see below."""
    optim: Annotated[dict[str, Optim], AfterValidator(_freeze)] = FrozenDict()
    """One section for each player, such as ``optim.g`` and ``optim.d``."""
    budget: Budget = Budget()
    """How long."""
    ema: Ema = Ema()
    """Averaged weights."""
    evaluate: Evaluate = Evaluate()
    """Scores."""
    log: Log = Log()
    """Records."""
    health: Health = Health()
    """Alarms."""
    trainer: Trainer = Trainer()
    """Devices and precision."""
    init_from: str = ""
    """A run folder, a checkpoint or a model folder whose weights training begins with; "": none."""
    init_weights: Literal["auto", "raw", "ema"] = "auto"
    """Of ``init_from`` the averaged weights (``ema``), the others (``raw``), or the averaged where
    there are any."""
    freeze: Annotated[dict[str, list[str]], AfterValidator(_freeze)] = FrozenDict()
    """For each player the layers that stay as they are, by the beginning of their names, with *
    for anything."""

    def plain(self) -> dict[str, Any]:
        """Dicts, lists and scalars only, in a fixed order: what is saved and compared. Of a run
        from scratch there is no word of what it might begin with, and of the Trainer's newer
        options only where they are used, so that older runs can be resumed."""
        unused: dict[str, Any] = {}
        if not self.init_from:
            unused |= dict.fromkeys(("init_from", "init_weights", "freeze"), True)
        plain = Trainer()
        unused["trainer"] = {k for k in _NEWER if getattr(self.trainer, k) == getattr(plain, k)}
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
