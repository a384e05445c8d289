"""Experiment files: YAML -> one typed, frozen, strict `Experiment`.

Order of precedence, lowest first: defaults of the schema, the ``extends`` chain, the file, the
``key=value`` overrides. Only then are ``${interpolations}`` resolved, so an override reaches every
value that refers to it; then the result is validated and frozen. No torch here: the schemas of the
``method:`` and ``data:`` sections are the ``__init__`` signatures of the classes that
`Schemas` hands over.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import types
import typing
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model

from gansuite.errors import UserError, nearest


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
    file of the Inception weights, for FID, KID and IS as well; ``vgg``: that of VGG-16, for LPIPS
    and the perceptual path length."""

    every_kimg: Long | None = None
    pictures: int = Field(default=256, ge=2, le=10_000_000)
    samples: int = Field(default=8, ge=1, le=32)
    weights: Literal["auto", "raw", "ema"] = "auto"
    best_by: str = "fd_random"
    batch: int = Field(default=32, ge=1, le=65_536)
    inception: str = ""
    vgg: str = ""


class Log(Section):
    """What is recorded on the way. ``wandb: auto`` goes online when a key is configured and stays
    offline otherwise; it never asks."""

    every_kimg: Long = 1.0
    checkpoint_every_kimg: Long | None = None
    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    project: str = "gansuite"
    group: str | None = None
    tags: list[str] = []
    tensorboard: bool = False


class Guard(Section):
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
    channels: Literal[1, 3] | None = None
    workers: int = Field(default=0, ge=0, le=256)


COMPARISON = "compare_"


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
    rank_by: str = "fd_random"


class Experiment(Section):
    """What runs. ``method`` and ``data`` are validated dicts (their classes know them)."""

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
    guard: Guard = Guard()
    trainer: Trainer = Trainer()

    def plain(self) -> dict[str, Any]:
        """Dicts, lists and scalars only, in a fixed order: what is saved and compared."""
        return self.model_dump(mode="python")

    def yaml(self) -> str:
        """`plain` as text; read again as an experiment file it is this experiment."""
        # OmegaConf's writer, since it quotes what its reader takes for a number ('1e4')
        return OmegaConf.to_yaml(OmegaConf.create(self.plain()))

    @property
    def run_dir(self) -> Path:
        return user_path(self.out, "out") / self.name / f"seed{self.seed}"


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
    raise UserError(f"'{key}' is {_short(text)}, which is no path ({reason}); write another.")


@dataclass(frozen=True)
class Schemas:
    """Where the dynamic sections come from: names, and the class behind a name."""

    methods: Sequence[str]
    method: Callable[[str], type]
    sources: Sequence[str]
    source: Callable[[str], type]


def experiment_folder() -> Path:
    """``experiments/`` of the working directory, else the one beside the package."""
    here = Path("experiments")
    return here if here.is_dir() else Path(__file__).resolve().parents[1] / "experiments"


def experiment_files() -> dict[str, Path]:
    """Every experiment by name; files in folders whose name begins with ``_`` are only bases."""
    found = sorted(experiment_folder().glob("*.yaml"))
    return {p.stem: p for p in found if not p.stem.startswith(COMPARISON)}


def comparison_files() -> dict[str, Path]:
    """Every comparison by name: the files in ``experiments/`` whose name begins with compare_."""
    return {p.stem: p for p in sorted(experiment_folder().glob(f"{COMPARISON}*.yaml"))}


def find_experiment(name: str) -> Path:
    """The file of experiment ``name`` (a name, or a path that ends in .yaml)."""
    if name.endswith((".yaml", ".yml")):
        if not os.path.isfile(name):  # also False for names that no file can have
            raise UserError(f"There is no experiment file {_short(name, '')}.")
        return Path(name)
    known = experiment_files()
    if name in comparison_files():
        raise UserError(
            f"'{name}' is a comparison of experiments; run it with 'gansuite compare {name}'."
        )
    if name not in known:
        raise UserError(
            f"There is no experiment {_short(name)} in {experiment_folder()}{nearest(name, known)} "
            f"('gansuite list' shows all)."
        )
    return known[name]


Layers = Sequence[tuple[str, Mapping[str, Any]]]
"""(where it was written, content) of everything that makes up an experiment, lowest first."""

COMMAND_LINE = "the command line"


_FILES = 64  # that an experiment may be made of
_BYTES = 1 << 18  # of one file
_DEPTH, _VALUES = 32, 20_000  # of one file or override, with every *alias written out


def read_layers(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """One YAML file with everything it extends, nearest last; each file once, where it is nearest.

    Raises:
        UserError: one sentence that names the file.
    """
    layers: dict[Path, tuple[str, dict[str, Any]]] = {}

    def add(path: Path, below: tuple[Path, ...]) -> None:
        file = path.resolve()
        if file in below:
            names = [p.name for p in (*below, path)]
            raise UserError(f"{path.name} extends itself: {' -> '.join(names)}.")
        if file in layers:
            return
        if len(layers) == _FILES:
            raise UserError(f"{path} is one of more than {_FILES} files that extend another.")
        bases, content = _read_file(path)
        # from the nearest down, so that of a file that several extend the nearest place counts
        layers[file] = (str(path), content)
        for base in reversed(bases):
            add(base, (*below, file))

    add(path, ())
    return list(reversed(layers.values()))


def _read_file(path: Path) -> tuple[list[Path], dict[str, Any]]:
    """The files that one YAML file extends, and the rest of what it says."""
    if not path.is_file():  # reading a pipe or a device may never end
        raise UserError(f"{path} cannot be read: it is no file.")
    try:
        with open(path, "rb") as file:
            data = file.read(_BYTES + 1)
        if len(data) > _BYTES:
            raise UserError(f"{path} cannot be read: it has more than {_BYTES >> 10} KB.")
        text = data.decode("utf-8-sig")
        _refuse_endless(text, str(path))
        loaded = OmegaConf.load(io.StringIO(text))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or _first_line(error)
        raise UserError(f"{path} is not valid YAML{where}: {problem}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} cannot be read: it is not a text file in UTF-8.") from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror or 'it holds no keys and values'}."
        ) from None
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(f"{path}: {_first_line(error)}.") from None
    if not isinstance(loaded, DictConfig):
        raise UserError(f"{path} must be a mapping of keys to values.")
    content = typing.cast(dict[str, Any], OmegaConf.to_container(loaded, resolve=False))
    bases = content.pop("extends", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise UserError(
            f"{path}: 'extends' is {_short(bases)}; it must be the name of a file without .yaml, "
            f"or a list of such names."
        )
    files = [path.parent / f"{base}.yaml" for base in bases]
    for base, named in zip(bases, files, strict=True):
        if not os.path.isfile(named):
            told = _short(str(named), "")
            raise UserError(f"{path} extends {_short(base)}, but there is no file {told}.")
    return files, content


def _refuse_endless(text: str, where: str) -> None:
    """Raise UserError for YAML that is too deep or too large with every ``*alias`` written out.

    The events are read one by one: nothing is built and nothing recurses.
    """
    known: dict[str, tuple[int, int]] = {}  # anchor -> values and depth of what it stands for
    stack: list[tuple[str | None, int, int]] = [(None, 0, 0)]  # anchor, values, depth so far
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            stack.append((event.anchor, 1, 0))
            values, depth = 0, 0
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, values, depth = stack.pop()
            depth += 1
            if anchor:
                known[anchor] = values, depth
        elif isinstance(event, yaml.AliasEvent):
            # one that is not known yet stands inside of itself, or for nothing, which YAML tells
            inside = any(anchor == event.anchor for anchor, *_ in stack)
            values, depth = known.get(str(event.anchor), (0, _DEPTH if inside else 0))
        elif isinstance(event, yaml.ScalarEvent):
            values, depth = 1, 0
            if event.anchor:
                known[event.anchor] = values, depth
        else:
            continue
        anchor, so_far, deepest = stack[-1]
        stack[-1] = anchor, so_far + values, max(deepest, depth)
        if len(stack) + depth > _DEPTH:
            raise UserError(f"{where} is nested more than {_DEPTH} levels deep.")
        if so_far + values > _VALUES:
            raise UserError(f"{where} has more than {_VALUES} values.")


def read_overrides(items: Sequence[str]) -> list[tuple[str, dict[str, Any]]]:
    """``key=value`` arguments as the topmost layer."""
    for item in items:
        key, equals, value = item.partition("=")
        if not equals or not re.fullmatch(rf"\w+(\.\w+){{0,{_DEPTH}}}", key):
            raise UserError(
                f"{_short(item)} is not an override; write key=value, such as budget.kimg=10."
            )
        with contextlib.suppress(yaml.YAMLError):  # which is told below
            _refuse_endless(value, f"the command line: '{_short(key, '')}'")
    try:
        found = OmegaConf.from_dotlist(list(items))
        content = OmegaConf.to_container(found, resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException, ValueError, TypeError) as error:
        raise UserError(
            f"An override in {_short(' '.join(items))} cannot be read: {_first_line(error)}."
        ) from None
    return [(COMMAND_LINE, typing.cast(dict[str, Any], content))]


def _first_line(error: Exception) -> str:
    return _short((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."), "")


def _short(value: Any, quotes: str = "'") -> str:
    """``value`` as a message shows it: a text in ``quotes``, long ones cut."""
    text = (repr(value) if quotes else value) if isinstance(value, str) else repr(value)
    return (
        text if len(text) <= 200 else f"{text[:120]}...{quotes if isinstance(value, str) else ''}"
    )


def _where(layers: Layers, key: Sequence[str]) -> str:
    """Where ``key`` was written last; the experiment's own file for one that nobody wrote."""
    files = [name for name, _ in layers if name != COMMAND_LINE]
    for name, content in reversed(layers):
        value: Any = content
        for part in key:
            if isinstance(value, Mapping):
                if part not in value:
                    break
                value = value[part]
        else:
            return name
    return files[-1]


def signature_defaults(cls: type) -> dict[str, Any]:
    """Keyword-only arguments of ``cls.__init__`` with their defaults, as plain containers."""
    parameters = inspect.signature(cls.__init__).parameters.values()  # type: ignore[misc]
    return {
        p.name: _plain(p.default)
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and p.default is not p.empty
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


# of options with one of these names, whatever the class; another number lies within a million
_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("seed", "split_seed"), (0, (1 << 63) - 1)),
    **dict.fromkeys(("blocks", "d_layers", "mapping_layers"), (0, 64)),
    "n_critic": (0, 1000),
    "train": (0, 10_000_000),
    "test": (0, 10_000_000),
    "mixing": (0, 1),
    "patches": (1, 1_000_000),
    "temperature": (1e-3, 1e3),
    "dropout": (0, 1),
    "clip": (0, 1e6),
}


def _signature_model(cls: type, base: type[Section], name: str) -> type[Section]:
    """A strict model of ``cls.__init__``'s keyword-only arguments on top of ``base``'s fields."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    fields: dict[str, Any] = {}
    for p in inspect.signature(cls.__init__).parameters.values():  # type: ignore[misc]
        if p.kind is p.KEYWORD_ONLY:
            default = ... if p.default is p.empty else _plain(p.default)
            hint = hints.get(p.name, Any)
            members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            if {int, float} & {m for m in members if isinstance(m, type)}:
                # an int is a size, a count or a seed: a negative one is always a slip
                low, high = _RANGES.get(p.name, (0 if int in members else -1e6, 1_000_000))
                hint = Annotated[hint, Field(ge=low, le=high)]
            fields[p.name] = (hint, default)
    return create_model(name, __base__=base, name=(str, ...), **fields)


def _explain(
    error: ValidationError, value: Any, model: Any, layers: Layers, section: Sequence[str]
) -> UserError:
    """The first validation error as one sentence: file, key, what is wrong, the nearest match."""
    errors = error.errors()
    first = errors[0]
    # of a union, every member reports, with its type as a last part that is no key
    location: list[str] = []
    for part in first["loc"]:
        if isinstance(value, Mapping) and part in value:
            value = value[part]
        elif not (isinstance(value, list) and isinstance(part, int)) and first["type"] != "missing":
            break
        location.append(str(part))
    key = [*section, *location]
    where, dotted = _where(layers, key), _short(".".join(key), "")
    if first["type"] == "missing":
        return UserError(f"{where}: the key '{dotted}' is missing.")
    if first["type"] == "extra_forbidden":
        for part in location[:-1]:
            inner = getattr(model, "model_fields", {}).get(part)
            model = typing.get_args(model)[1] if inner is None else inner.annotation
        known = list(model.model_fields)
        elsewhere = [k for k in _fixed_keys() if k.split(".")[-1] == key[-1]]
        near = nearest(key[-1], known).replace("'", f"'{'.'.join([*key[:-1], ''])}", 1)
        hint = f"; did you mean '{elsewhere[0]}'?" if elsewhere else near
        return UserError(
            f"{where}: there is no key '{dotted}'{hint} (known here: {', '.join(known)})."
        )
    n = len(location)
    messages = [e["msg"] for e in errors if e["loc"][:n] == first["loc"][:n]]
    told = " or ".join(dict.fromkeys(m.removeprefix("Input should be ") for m in messages))
    if messages[0].startswith("Input should be "):
        told = "it must be " + told.partition(" or instance of ")[0]
    shown = "null" if first["input"] is None else _short(first["input"])
    return UserError(f"{where}: '{dotted}' is {shown}; {told[0].lower()}{told[1:]}.")


def _fixed_keys() -> list[str]:
    """The keys of the fixed sections, for a key that was written in the wrong one."""
    sections: dict[str, type[Section]] = {"data": DataOptions, "optim.g": Optim, **_SECTIONS}
    return [f"{name}.{key}" for name, model in sections.items() for key in model.model_fields]


def _validate(
    model: type[Section], value: Any, layers: Layers, section: Sequence[str] = ()
) -> Section:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise _explain(error, value, model, layers, section) from None


def checked_options(cls: type, name: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options ``given`` under ``where`` for ``cls.__init__``, validated, with its defaults.

    Raises:
        UserError: one sentence that names the key and the nearest match.
    """
    content: Any = dict(given)
    for key in reversed(where.split(".")):
        content = {key: content}
    model = _signature_model(cls, Section, where)
    whole = {**signature_defaults(cls), **given, "name": name}
    found = _validate(model, whole, [(f"data set '{name}'", content)], where.split("."))
    return {k: v for k, v in found.model_dump().items() if k != "name"}


def _check_weights(cls: type, value: Mapping[str, Any], layers: Layers) -> None:
    known = signature_defaults(cls).get("weights")
    for term in value.get("weights", {}):
        if known is not None and term not in known:
            raise UserError(
                f"{_where(layers, ['method', 'weights', term])}: 'method.weights.{term}' is a "
                f"weight for no term of {value['name']}{nearest(term, known)} "
                f"(its terms: {', '.join(known)})."
            )


def load(name: str, overrides: Sequence[str], schemas: Schemas) -> Experiment:
    """Read experiment ``name`` with ``key=value`` overrides.

    Raises:
        UserError: one sentence that names the file, the key and the nearest match.
    """
    path = find_experiment(name)
    layers = [(str(path), {"name": path.stem}), *read_layers(path), *read_overrides(overrides)]
    return resolve(layers, schemas)


def load_comparison(path: Path | None, overrides: Sequence[str] = ()) -> Compare:
    """The ``compare:`` section of a comparison file (None: of no file), with overrides of it.

    Raises:
        UserError: one sentence that names the file, the key and the nearest match.
    """
    layers = read_layers(path) if path else []
    layers = [*layers, *read_overrides([f"compare.{item}" for item in overrides])]
    merged: dict[str, Any] = {}
    for where, content in layers:
        for key in content.keys() - {"compare"}:
            raise UserError(
                f"{where}: there is no key '{key}' in a comparison{nearest(key, ['compare'])}; "
                f"all of it stands under 'compare'."
            )
        if not isinstance(content.get("compare", {}), dict):
            raise UserError(f"{where}: 'compare' must be a mapping of keys to values.")
        with _told(layers):
            full = OmegaConf.merge(merged, content)
            merged = typing.cast(dict[str, Any], OmegaConf.to_container(full, resolve=True))
    _check_texts(merged, layers)
    spec = _validate(Compare, merged.get("compare", {}), layers, ["compare"])
    spec = typing.cast(Compare, spec)
    given = [k for k, v in spec.budget.model_dump().items() if v is not None]
    for what, many in (("seeds", spec.seeds), ("experiments", spec.experiments)):
        twice = [v for i, v in enumerate(many) if v in many[:i]]
        if twice:
            raise UserError(f"{_where(layers, ['compare', what])}: {what} names {twice[0]} twice.")
    if len(given) > 1:
        raise UserError(
            f"{_where(layers, ['compare', 'budget'])}: a comparison has one budget, not "
            f"{' and '.join(given)}; set the others to null."
        )
    return spec


def resolve(layers: Layers, schemas: Schemas) -> Experiment:
    """Merge layers over the defaults, resolve interpolations, validate and freeze."""
    with _told(layers):
        return _resolve(layers, schemas)


@contextlib.contextmanager
def _told(layers: Layers) -> Iterator[None]:
    """Make one sentence of what merging and resolving raise."""
    try:
        yield
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or ""
        where = _where(layers, key.split(".")) + f": '{key}'" if key else layers[-1][0]
        reason = re.sub(r"^\w+ raised while resolving interpolation: ", "", _first_line(error))
        raise UserError(f"{where}: {reason}.") from None
    except RecursionError:
        raise UserError(f"{layers[-1][0]}: a value refers to too many others.") from None


def _check_texts(value: Any, layers: Layers, key: tuple[str, ...] = ()) -> None:
    """Every text must be one that a file, a page and a path can hold."""
    if isinstance(value, str):
        bad = next((c for c in value if unicodedata.category(c) in ("Cc", "Cs")), None)
        if bad is not None:
            what = "not UTF-8" if unicodedata.category(bad) == "Cs" else "a control character"
            raise UserError(
                f"{_where(layers, key)}: '{'.'.join(key)}' is {_short(value)}, which has "
                f"{bad!r} in it ({what})."
            )
    for name, inner in (
        value.items()
        if isinstance(value, Mapping)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        _check_texts(str(name), layers, key)
        _check_texts(inner, layers, (*key, str(name)))


def _check_kinds(below: Any, above: Any, where: str, key: tuple[str, ...] = ()) -> None:
    """A list never stands where a mapping is expected, nor the other way round."""
    if isinstance(below, dict) and isinstance(above, list):
        kind = "a mapping of keys to values"
    elif isinstance(below, list) and isinstance(above, dict):
        kind = "a list"
    else:
        kind = ""
    if kind:
        raise UserError(f"{where}: '{'.'.join(key)}' is {_short(above)}; it must be {kind}.")
    if isinstance(below, dict) and isinstance(above, dict):
        for name in below.keys() & above.keys():
            _check_kinds(below[name], above[name], where, (*key, str(name)))


def _resolve(layers: Layers, schemas: Schemas) -> Experiment:
    for i, (where, content) in enumerate(layers):
        for _, below in [("", _KINDS), *layers[:i]]:
            _check_kinds(below, content, where)
    merged = typing.cast(DictConfig, OmegaConf.merge(*[content for _, content in layers]))
    classes: dict[str, type] = {}
    for section, noun, names, get in (
        ("method", "method", schemas.methods, schemas.method),
        ("data", "data set", schemas.sources, schemas.source),
    ):
        block = merged.get(section)
        chosen = block.get("name") if isinstance(block, DictConfig) else block
        where = _where(layers, [section, "name"])
        if not isinstance(block, DictConfig) or not isinstance(chosen, str):
            hint = f"write '{section}.name={chosen}'" if isinstance(chosen, str) else "give it"
            raise UserError(
                f"{where}: '{section}.name' is missing; {hint} (known: {', '.join(names)})."
            )
        if chosen not in names:
            raise UserError(
                f"{where}: there is no {noun} '{chosen}'{nearest(chosen, names)} "
                f"(known: {', '.join(names)})."
            )
        classes[section] = get(chosen)
    defaults = {
        "method": signature_defaults(classes["method"]),
        "data": {**DataOptions().model_dump(), **signature_defaults(classes["data"])},
        **{k: m().model_dump() for k, m in _SECTIONS.items()},
        "seed": 0,
        "out": "runs",
    }
    for where, content in layers:
        _check_kinds(defaults, content, where)
    full = OmegaConf.merge(defaults, merged)
    plain = typing.cast(
        dict[str, Any], OmegaConf.to_container(full, resolve=True, throw_on_missing=True)
    )
    _check_texts(plain, layers)
    for section, base in (("method", Section), ("data", DataOptions)):
        model = _signature_model(classes[section], base, section)
        plain[section] = _validate(model, plain[section], layers, [section]).model_dump()
    _check_weights(classes["method"], plain["method"], layers)
    experiment = typing.cast(Experiment, _validate(Experiment, plain, layers))
    both = experiment.budget.kimg is not None
    if both == (experiment.budget.seconds is not None):
        told = "both given; set one of them to null" if both else "both null; give one of them"
        raise UserError(
            f"{_where(layers, ['budget'])}: 'budget.kimg' and 'budget.seconds' are {told}."
        )
    if not re.fullmatch(r"\w[\w.+@=-]{0,99}", experiment.name):
        raise UserError(
            f"{_where(layers, ['name'])}: 'name' is {_short(experiment.name)}; it names a folder "
            f"and is made of at most 100 letters, digits and _ - . + = @."
        )
    if not experiment.out:
        raise UserError(f"{_where(layers, ['out'])}: 'out' is empty; it names a folder.")
    user_path(experiment.out, "out")
    return experiment


_SECTIONS: dict[str, type[Section]] = {
    "budget": Budget,
    "ema": Ema,
    "evaluate": Evaluate,
    "log": Log,
    "guard": Guard,
    "trainer": Trainer,
}
_KINDS: dict[str, Any] = {name: {} for name in ("method", "data", "optim", *_SECTIONS)}


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key: old -> new`` for every value that differs between two plain configurations."""
    lines: list[str] = []
    for key in dict.fromkeys([*old, *new]):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += difference(a, b, f"{prefix}{key}.")
        elif a != b:
            lines.append(f"{prefix}{key}: {a} -> {b}")
    return lines
