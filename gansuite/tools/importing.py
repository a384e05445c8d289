"""`gansuite import`: the weights that a method's authors published, as a model of ours.

Files are read with ``weights_only=True``: what holds code is refused, and none of it runs.
"""

from __future__ import annotations

import hashlib
import math
import pickle
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansuite import config as configuration
from gansuite import engine
from gansuite.callbacks.evaluate import Comparisons
from gansuite.callbacks.samples import sample_rows, save_strips
from gansuite.callbacks.session import Session
from gansuite.catalogue import experiment_of, load_experiment, schemas
from gansuite.config import Experiment
from gansuite.data.module import DataModule
from gansuite.data.published import REGISTRY
from gansuite.data.spec import DataSpec
from gansuite.errors import NotFinite, UserError, nearest
from gansuite.evaluation import Evaluator
from gansuite.evaluation.verdict import verdict
from gansuite.imaging import grid, save_picture
from gansuite.losses.precision import full_float32
from gansuite.methods import method_class
from gansuite.methods.base import Method
from gansuite.runs import Run, fitting, write_checkpoint, write_json, write_text
from gansuite.tools.published import FAMILIES, FILTERS, Family, Network

_DATA = ("size", "channels", "labels")  # facts of the shapes that are no options of a method
_NOT_EXECUTED = "nothing in it was executed"


def import_weights(
    source: Path,
    family: str,
    output: Path,
    *,
    parts: Mapping[str, Path] = {},
    data: Sequence[str] = (),
    domains: Sequence[str] = (),
    size: int | None = None,
    note: Callable[[str], None] = lambda line: None,
) -> Path:
    """Write the published weights in ``source`` to ``output``, a run folder that `translate`,
    `sample`, `evaluate`, `export` and `init_from` take.

    ``source``: a file, which is the generator (of two, that to the second domain), or a folder, in
    which networks are told apart by the authors' file names. ``family``: see `FAMILIES`.
    ``parts``: further files, network -> file ("d.b", see `Family.networks`). ``data``: an
    experiment or a comparison, with overrides, on whose test pictures and under whose protocol it
    is scored; then `gansuite compare` takes ``output`` among its names. Without it, ``domains``
    and ``size`` say what the weights were trained on (by default what the authors published).

    A discriminator that is not given begins anew. Of two generators the one that is missing is
    left out: there is no way back.

    Raises:
        UserError: a file that is damaged, holds code or other networks, shapes that do not belong
            together, data of another kind, or an ``output`` that exists; nothing is written.
    """
    if family not in FAMILIES:
        raise UserError(
            f"--as is '{family}'{nearest(family, FAMILIES)}; known are {', '.join(FAMILIES)}."
        )
    found = FAMILIES[family]
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError(f"'{output}' is not empty; give a new folder.")
    files = _files(source, found, parts)
    states = {part: read_state(path, found, part) for part, path in files.items()}
    facts = _facts(states, found, files)
    experiment, spec, module = _data_of(found, facts, data, domains, size, output.name)
    if "d" not in states and "labels" in facts and not spec.exclusive:
        raise UserError(
            "A StarGAN on attributes asks its discriminator which ones a picture has; give it too: "
            "a folder with both files, or --part d=FILE."
        )
    method = engine.build_method(experiment.method, spec, seed=0)
    for network in found.networks:
        if network.part in states:
            _fill(method, network, states[network.part], files[network.part], found)
    _without(method, found, files, spec, note)
    method.configure(engine.make_settings(experiment, module) if module else method.settings)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".import-") as draft:
        folder = Path(draft) / "model"
        notes: dict[str, Any] = {"protocol": {"id": "none"}}
        notes |= {"references": {}, "final": {}, "best": {}}
        if module is not None:
            counts = {
                part: sum(p.numel() for p in _part(method, part).parameters()) for part in files
            }
            notes |= _score(experiment, module, method, folder, family, counts)
        write_checkpoint(
            Run(folder).last,
            {
                "experiment": experiment.plain(),
                "data": spec.to_dict(),
                "method": _state(method),
                "notes": notes,
                "published": {
                    "family": family,
                    "files": {p: [f.name, _sha256(f)] for p, f in files.items()},
                },
            },
        )
        write_text(folder / "config.yaml", experiment.yaml())
        if output.is_dir():
            output.rmdir()
        shutil.move(folder, output)
    return output


# -- files -------------------------------------------------------------------------------------


def _files(source: Path, family: Family, parts: Mapping[str, Path]) -> dict[str, Path]:
    """part -> file."""
    known = [network.part for network in family.networks]
    for part, path in parts.items():
        if part not in known:
            raise UserError(f"{family.title} has no '{part}'; its networks are {', '.join(known)}.")
        if not path.is_file():
            raise UserError(f"There is no file {path}.")
    if source.is_file():
        return {known[0]: source, **parts}
    if not source.is_dir():
        raise UserError(f"There is no file {source}.")
    inside = sorted(path for path in source.iterdir() if path.is_file())
    found = dict(parts)
    for network in family.networks:
        fitting = [p for p in inside if any(fnmatch(p.name, glob) for glob in network.files)]
        if len(fitting) > 1 and network.part not in parts:
            raise UserError(
                f"'{source}' has {len(fitting)} files for {network.part} "
                f"({', '.join(p.name for p in fitting[:4])}); say which with "
                f"--part {network.part}=FILE."
            )
        if fitting:
            found.setdefault(network.part, fitting[0])
    if known[0] not in found:
        raise UserError(
            f"'{source}' has no generator of {family.title}: no file is named "
            f"{' or '.join(family.networks[0].files)}; give the file itself."
        )
    return found


def read_state(path: Path, family: Family, part: str) -> dict[str, Tensor]:
    """The state dict in ``path`` for the network ``part`` of ``family``, float32 on the CPU.

    Raises:
        UserError: it holds code, is damaged, or has no state of that network.
    """
    network = next(n for n in family.networks if n.part == part)
    content = _loaded(path, family)
    inner = [content.get(k) for k in (*network.inside, "state_dict", "model", "net")]
    candidates = [c for c in (content, *inner) if isinstance(c, Mapping) and c]
    states = [c for c in candidates if all(isinstance(x, Tensor) for x in c.values())]
    if not states:
        raise UserError(f"{path} holds no state dict, names and tensors; give one.")
    state = {str(name).removeprefix("module."): x for name, x in states[0].items()}
    if not network.fits(state):
        other = next((k for k, f in FAMILIES.items() if any(n.fits(state) for n in f.networks)), "")
        like = f"; it looks like one of {other}" if other and FAMILIES[other] is not family else ""
        first = next(iter(state))
        raise UserError(
            f"{path} holds no {part} of {family.title}: it begins with '{first}'{like}."
        )
    return {
        n: x.detach().float() if x.is_floating_point() else x.detach() for n, x in state.items()
    }


def _loaded(path: Path, family: Family) -> Mapping[str, Any]:
    """The content of a file of tensors and plain containers."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise UserError(f"{path} needs safetensors: pip install 'gansuite[safetensors]'.") from None
    except Exception as error:
        text = f"{type(error).__name__} {error}"
        if isinstance(error, pickle.UnpicklingError) and re.search(
            r"GLOBAL|REDUCE|BUILD|NEWOBJ|Unsupported (global|class|operand)|[Pp]ersistent", text
        ):
            new = path.with_suffix(".state.pth").name
            command = family.convert.format(file=path.name, new=new)
            raise UserError(
                f"{path} is a pickle with code of its own, and {_NOT_EXECUTED}; if you trust who "
                f"made it, run in the authors' repository, in a container without a network, "
                f'`python -c "{command}"` and import {new}.'
            ) from None
        raise UserError(
            f"{path} is damaged, or no file of weights ({type(error).__name__}); download it again."
        ) from None
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict; give one.")
    return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- what the shapes say, and the data ---------------------------------------------------------


def _facts(
    states: Mapping[str, Mapping[str, Tensor]], family: Family, files: Mapping[str, Path]
) -> dict[str, Any]:
    """The options and facts of all networks together."""
    found: dict[str, Any] = {}
    said: dict[str, Path] = {}
    for network in family.networks:
        if network.part not in states:
            continue
        path = files[network.part]
        try:
            facts = network.facts(states[network.part])
        except (KeyError, ValueError, IndexError) as error:
            raise UserError(
                f"{path} holds no whole {network.part} of {family.title}: {error} is not there."
            ) from None
        for key, value in facts.items():
            if found.setdefault(key, value) != value:
                raise UserError(
                    f"{said[key]} and {path} do not belong together: {key} is {found[key]} of the "
                    f"one and {value} of the other."
                )
            said.setdefault(key, path)
    return found


def _data_of(
    family: Family,
    facts: Mapping[str, Any],
    data: Sequence[str],
    domains: Sequence[str],
    size: int | None,
    name: str,
) -> tuple[Experiment, DataSpec, DataModule | None]:
    """The experiment of the model, its data's facts and, with ``data``, its data."""
    if data and (domains or size):
        raise UserError("--data says the domains and the size; leave --domains and --size out.")
    if not re.fullmatch(r"\w[\w.+@=-]{0,99}", name):
        raise UserError(
            f"'{name}' names the model; it is made of letters, digits and _ - . + = @, up to 100."
        )
    plain = load_experiment(family.experiment).plain()
    options = {k: v for k, v in facts.items() if k not in _DATA}
    plain["method"] |= {**family.options, **options}
    plain |= {"name": name, "ema": {"half_life_kimg": None}}  # these weights are what there is
    side, channels = facts.get("size"), facts.get("channels", 3)
    if data:
        given = experiment_of(data).plain()
        plain |= {key: given[key] for key in ("data", "evaluate", "trainer", "seed")}
    elif domains:
        common = {k: plain["data"][k] for k in configuration.DataOptions.model_fields}
        plain["data"] = {**common, **_layout(family, domains)}
    if not data:
        plain["data"]["size"] = size or side or plain["data"]["size"]
        plain["data"]["load_size"] = None
    if "exclusive" in plain["method"] and (data or domains):
        plain["method"]["exclusive"] = []
    if side and plain["data"]["size"] != side:
        raise UserError(
            f"These weights are of networks for {side} pixels, not {plain['data']['size']}; give "
            f"{'data.size=' if data else '--size '}{side}."
        )
    experiment = configuration.resolve([(family.title, plain)], schemas())
    module = engine.build_data(experiment) if data else None
    spec = module.spec if module else _spec(experiment, family, channels, domains, facts)
    if spec.channels != channels:
        raise UserError(f"These weights have {channels} channel(s), the data {spec.channels}.")
    if len(spec.labels) != facts.get("labels", len(spec.labels)):
        raise UserError(
            f"These weights have {facts['labels']} labels, the data {len(spec.labels)} "
            f"({', '.join(spec.labels)}); name them with {'data.' if data else '--'}domains."
        )
    return experiment, spec, module


def _layout(family: Family, domains: Sequence[str]) -> dict[str, Any]:
    """A data section for folders of these names, to be pointed at with ``data.root``."""
    view = method_class(family.method).needs.view
    name = {"unpaired": "unpaired", "paired": "paired"}.get(view, "folders")
    return {"name": name, "domains": list(domains), "root": "data"}


def _spec(
    experiment: Experiment,
    family: Family,
    channels: int,
    domains: Sequence[str],
    facts: Mapping[str, Any],
) -> DataSpec:
    """The facts of data that are not here."""
    data, needs = experiment.data, method_class(family.method).needs
    published = REGISTRY.get(data["name"])
    names = tuple(domains or data.get("domains") or (published.domains if published else ()))
    attributes = () if names else tuple(data.get("attributes") or ())
    labels = attributes or names if "labels" in facts else ()
    names = names or ("pictures",)
    if needs.domains is not None and len(names) != needs.domains:
        raise UserError(
            f"{family.title} needs {needs.domains} domains; --domains names {len(names)}."
        )
    counts = {split: dict.fromkeys(names, 0) for split in ("train", "test")}
    return DataSpec(
        name=data["name"],
        size=data["size"],
        channels=channels,
        domains=names,
        counts=counts,
        paired=needs.view == "paired",
        labels=labels,
        digest="unknown",
        exclusive=not attributes,
    )


# -- weights -----------------------------------------------------------------------------------


def _part(method: Method, part: str) -> nn.Module:
    """The network that `Network.part` names."""
    attribute, _, key = part.partition(".")
    module = method.network(attribute)
    return module[key] if key else module  # type: ignore[index]


def _fill(
    method: Method, network: Network, state: Mapping[str, Tensor], path: Path, family: Family
) -> None:
    """Put a state of theirs into our network, all of it or none.

    Raises:
        UserError: a name or a shape is another.
    """
    module = _part(method, network.part)
    own, names = module.state_dict(), network.names(state)
    whose = f"{path} holds no {network.part} of {family.title} that is known here"
    for name in state:
        if re.search(FILTERS, name):
            _check_filter(state[name], f"{path}: '{name}'")
        elif name in names and names[name] not in own:
            raise UserError(f"{whose}: '{name}' is too much.")
    given = {names[name]: state[name] for name in state if name in names}
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            given.setdefault(name, tensor)
        if name not in given:
            raise UserError(f"{whose}: what is '{name}' here is not in it.")
        if given[name].shape != tensor.shape:
            back = next(t for t, ours in names.items() if ours == name)
            raise UserError(
                f"{whose}: '{back}' is {list(given[name].shape)}, not {list(tensor.shape)}."
            )
    if family.bgr:  # the only weights with so many channels there are the first and the last
        channels = method.spec.channels
        given = {n: x.flip(1) if x.ndim == 4 and x.shape[1] == channels else x
                 for n, x in given.items()}  # fmt: skip
    with fitting(path):
        module.load_state_dict(given)
        if not all(x.isfinite().all() for x in given.values()):
            raise NotFinite(network.part, 0)


def _check_filter(taps: Tensor, what: str) -> None:
    """Raise `UserError` unless ``taps`` are the binomial ones that our layers have."""
    size = taps.shape[-1]
    row = torch.tensor([math.comb(size - 1, i) for i in range(size)], dtype=torch.float32)
    wanted = torch.outer(row, row) / row.sum() ** 2
    flat = taps.float().reshape(-1, *taps.shape[-2:])
    if taps.shape[-2:] != wanted.shape or not torch.allclose(
        flat / flat.sum((1, 2), keepdim=True), wanted.expand_as(flat), atol=1e-4
    ):
        raise UserError(f"{what} is a filter other than the published one; it is not known here.")


def _without(
    method: Method,
    family: Family,
    files: Mapping[str, Path],
    spec: DataSpec,
    note: Callable[[str], None],
) -> None:
    """What becomes of networks that were not given."""
    missing = [n.part for n in family.networks if n.part not in files]
    for part in missing:
        if part.startswith("g"):
            for tensor in _part(method, part).state_dict().values():
                tensor.zero_()
            note(f"there is no {part}: this model has no way to {spec.domains[0]}")
    fresh = [part for part in missing if not part.startswith("g")]
    if fresh:
        note(f"not given, and begins anew if it is trained on: {', '.join(fresh)}")


def _state(method: Method) -> dict[str, Any]:
    counts = dict.fromkeys(method.players, 0)
    return {
        "networks": method.state_dict(),
        "averages": method.averages.state_dict(),
        "optimizers": {},
        "counters": {
            "batches": 0,
            "images_seen": 0,
            "update_counts": counts,
            "player_batches": dict(counts),
            "rollbacks": 0,
        },
        "progress": 0.0,
    }


def _score(
    experiment: Experiment,
    data: DataModule,
    method: Method,
    folder: Path,
    family: str,
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Score the model as a run would be at its end; writes ``results.json`` and pictures into
    ``folder``, and returns the notes. ``counts``: parameters of each network that was given."""
    e = experiment.evaluate
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    evaluator = Evaluator.of(e, data, device=device)
    session = Session(experiment, data, method.to(device), Run(folder))
    with full_float32(), method.evaluating():
        made = Comparisons(session)()
        sheet = grid(sample_rows(session, e.samples), columns_max=e.samples)
    method.to("cpu")
    save_picture(sheet, folder / "samples" / "final.jpg")
    final, references = evaluator.scores(made), evaluator.references(made)
    for comparison in made:
        save_strips(folder / "samples", comparison, e.samples)
    write_json(
        Run(folder).results,
        {
            "experiment": experiment.name,
            "method": experiment.method["name"],
            "outside": True,
            "published": family,
            "seed": experiment.seed,
            "data": data.spec.summary(),
            "protocol": evaluator.report(),
            "budget": {},
            "final": final,
            "best": {},
            "references": references,
            "cost": {"parameters": dict(counts)},
            "verdict": verdict(final, {}, references),
        },
    )
    protocol = evaluator.report()
    return {"protocol": protocol, "references": references, "final": final, "best": {}}
