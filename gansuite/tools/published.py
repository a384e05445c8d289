"""The published checkpoints that `gansuite import` reads, by family: what the authors call their
networks' files and layers, what we call them, and which options the shapes tell.

Names are facts about the authors' state dicts; none of their code is here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

State = Mapping[str, Tensor]
Names = Callable[[State], Mapping[str, str]]
"""Their state -> their name: our name. A name that is left out is not used."""
Facts = Callable[[State], Mapping[str, Any]]
"""Their state -> options of the method; ``size``, ``channels`` and ``labels`` are the data's."""

FILTERS = r"(^|\.)(filt|resample_filter)$"
"""Buffers with the taps of a low-pass, which our layers have by themselves: checked, not copied."""
_STATISTICS = r"\.(running_mean|running_var|num_batches_tracked)$"


@dataclass(frozen=True)
class Network:
    """One network: the ``part`` of our method that it becomes, the authors' ``files`` (patterns),
    names (regular expressions) by which its state is known, all ``names`` and the ``facts`` that
    its shapes tell. ``inside``: keys under which a file may hold its state."""

    part: str
    files: tuple[str, ...]
    has: tuple[str, ...]
    names: Names
    facts: Facts = lambda state: {}
    inside: tuple[str, ...] = ()

    def fits(self, state: Iterable[str]) -> bool:
        """Whether a state of these names may be that of this network."""
        found = list(state)
        return all(any(re.fullmatch(has, name) for name in found) for has in self.has)


@dataclass(frozen=True)
class Family:
    """``method`` with the settings of ``experiment``, and ``networks``, of which the first is what
    a file alone is. ``bgr``: trained on blue, green, red. ``convert``: Python that makes a state
    dict of the authors' own file, where that holds code."""

    title: str
    method: str
    experiment: str
    networks: tuple[Network, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    bgr: bool = False
    convert: str = (
        "import torch; m = torch.load('{file}', weights_only=False, map_location='cpu'); "
        "torch.save(getattr(m, 'state_dict', lambda: m)(), '{new}')"
    )


def renamed(*rules: tuple[str, str], drop: str = r"(?!)") -> Names:
    """Every name with the ``rules`` (pattern, replacement) applied in order."""

    def names(state: State) -> dict[str, str]:
        found = {}
        for theirs in state:
            if re.search(drop, theirs) or re.search(FILTERS, theirs):
                continue
            ours = theirs
            for pattern, replacement in rules:
                ours = re.sub(pattern, replacement, ours)
            found[theirs] = ours
        return found

    return names


def _count(state: Iterable[str], pattern: str) -> int:
    return sum(bool(re.fullmatch(pattern, name)) for name in state)


def _resnet(state: State) -> dict[str, Any]:
    first = state["model.1.weight"]
    blocks = _count(state, r"model\.\d+\.conv_block\.1\.weight")
    return {"width": len(first), "channels": first.shape[1], "blocks": blocks}


def _patch(state: State) -> dict[str, Any]:
    first = state["model.0.weight"]
    return {"d_width": len(first), "d_layers": _count(state, r"model\.\d+\.weight") - 2}


def _conditional_patch(state: State) -> dict[str, Any]:
    convolutions = [x for name, x in state.items() if name.endswith("weight") and x.ndim == 4]
    norm = "batch" if any(name.endswith("running_mean") for name in state) else "instance"
    return {"d_width": len(convolutions[0]), "d_layers": len(convolutions) - 2, "norm": norm}


_RESNET = renamed((r"^model\.", "body."), (r"\.conv_block\.", ".body."), drop=_STATISTICS)
_PATCH = renamed((r"^model\.", "body."), drop=_STATISTICS)


def _levels(state: Iterable[str]) -> int:
    """Halvings of a nested U-Net."""
    return 1 + max(len(re.findall(r"\.[13]\.model(?=\.)", name)) for name in state)


def _unet(state: State) -> dict[str, str]:
    """Each level lies inside the one around it: down, what is inside, up."""
    last = _levels(state) - 1
    found: dict[str, str] = {}
    path = "model.model"
    for level in range(last + 1):
        down, up = f"downs.{level}", f"ups.{last - level}"
        if level == 0:
            rows = {"0": down, "3": f"{up}.1"}
        elif level < last:
            rows = {"1": f"{down}.1", "2": f"{down}.2", "5": f"{up}.1", "6": f"{up}.2"}
        else:
            rows = {"1": f"{down}.1", "3": f"{up}.1", "4": f"{up}.2"}
        for theirs, ours in rows.items():
            start = f"{path}.{theirs}."
            own = [n for n in state if n.startswith(start) and "." not in n[len(start) :]]
            found |= {n: f"{ours}.{n[len(start) :]}" for n in own}
        path += ".3.model" if level else ".1.model"
    return found


def _unet_facts(state: State) -> dict[str, Any]:
    first = state["model.model.0.weight"]
    norm = "batch" if any(name.endswith("running_mean") for name in state) else "instance"
    levels = {"width": len(first), "channels": first.shape[1], "norm": norm}
    return {**levels, "size": 2 ** _levels(state)}


def _either(has: str, yes: Any, no: Any) -> Any:
    return lambda state: yes(state) if has in state else no(state)


def _cyclegan_unet(state: State) -> dict[str, Any]:
    facts = _unet_facts(state)
    facts.pop("norm")
    return {**facts, "generator": "unet"}


def _stargan_g(state: State) -> dict[str, Any]:
    first, last = state["main.0.weight"], _last(state, r"main\.(\d+)\.weight")
    labels = first.shape[1] - len(last)
    blocks = _count(state, r"main\.\d+\.main\.0\.weight")
    return {"width": len(first), "channels": len(last), "labels": labels, "blocks": blocks}


def _stargan_d(state: State) -> dict[str, Any]:
    layers, heads = _count(state, r"main\.\d+\.weight"), state["conv2.weight"]
    size = heads.shape[2] << layers
    facts = {"d_width": len(state["main.0.weight"]), "d_layers": layers, "size": size}
    return {**facts, "labels": len(heads)}


def _last(state: State, pattern: str) -> Tensor:
    numbers = {int(m[1]): name for name in state if (m := re.fullmatch(pattern, name))}
    return state[numbers[max(numbers)]]


def _dcgan_g(state: State) -> dict[str, Any]:
    convolutions = [x for x in state.values() if x.ndim == 4]
    last = _last(state, r"main\.(\d+)\.weight")
    facts = {"z_dim": len(state["main.0.weight"]), "width": len(last), "channels": last.shape[1]}
    return {**facts, "size": 2 ** (len(convolutions) + 1)}


def _discogan_g(state: State) -> dict[str, Any]:
    first = state["main.0.weight"]
    extra = any(x.ndim == 4 and len(x) == 100 for x in state.values())
    return {"width": len(first), "channels": first.shape[1], "extra": extra}


def _stylegan_g(state: State) -> dict[str, Any]:
    widths = {
        int(m[1]): len(state[name])
        for name in state
        if (m := re.fullmatch(r"synthesis\.b(\d+)\.conv1\.weight", name))
    }
    size, most = max(widths), max(widths.values())
    first = state["mapping.fc0.weight"]
    return {
        "size": size,
        "channels": len(state[f"synthesis.b{size}.torgb.bias"]),
        "z_dim": first.shape[1],
        "w_dim": len(first),
        "mapping_layers": _count(state, r"mapping\.fc\d+\.weight"),
        "base": widths[size] * size,
        "max_channels": most,
    }


def _stylegan_d(state: State) -> dict[str, Any]:
    return {"residual": any(".skip." in name for name in state)}


def _blocks(growing: bool) -> Names:
    """The resolutions of StyleGAN2, which name its blocks, as numbers of ours."""

    def names(state: State) -> Mapping[str, str]:
        found = {int(m[1]) for name in state if (m := re.search(r"(?:^|\.)b(\d+)\.", name))}
        sides = sorted(found, reverse=not growing)
        numbered = ((rf"(^|\.)b{side}\.", rf"\g<1>blocks.{i}.") for i, side in enumerate(sides))
        if growing:
            return renamed(
                (r"^synthesis\.b4\.const$", "synthesis.const"),
                *numbered,
                (r"^mapping\.fc(\d+)\.", r"mapping.layers.\1."),
                (r"\.(conv0|conv1|torgb)\.(weight|affine\.\w+)$", r".\1.conv.\2"),
                (r"\.conv0\.", ".up."),
                (r"\.conv1\.", ".conv."),
                (r"\.torgb\.", ".rgb."),
            )(state)
        return renamed(
            (r"^b4\.(conv)\.", r"\1."),
            (r"^b4\.fc\.", "dense."),
            (r"^b4\.out\.", "out."),
            *numbered,
            (r"^blocks\.0\.fromrgb\.", "from_rgb."),
            (r"\.conv0\.", ".conv."),
            (r"\.conv1\.", ".down."),
        )(state)

    return names


def _cut_heads(state: State) -> dict[str, str]:
    maps = ("pixels", "down1", "down2", "block1", "block5")
    rules = ((rf"^mlp_{i}\.", f"heads.{name}.") for i, name in enumerate(maps))
    return dict(renamed(*rules)(state))


def _cyclegan(part: str, *files: str) -> Network:
    has = (r"model\.7\.weight|model\.model\.0\.weight",)
    names = _either("model.1.weight", _RESNET, _unet)
    facts = _either("model.1.weight", _resnet, _cyclegan_unet)
    return Network(part, files, has, names, facts)


def _critic(part: str, *files: str) -> Network:
    return Network(part, files, (r"model\.0\.weight", r"model\.2\.weight"), _PATCH, _patch)


def _disco(part: str, file: str) -> Network:
    has = (r"main\.0\.weight", r"main\.12\.running_mean")
    return Network(part, (file,), has, renamed((r"^main\.", "body.")), _discogan_g)


def _disco_d(part: str, file: str) -> Network:
    rules = [(rf"^conv{i}\.", f"layers.{i - 2}.0.") for i in (2, 3, 4)]
    rules += [(rf"^bn{i}\.", f"layers.{i - 2}.1.") for i in (2, 3, 4)]
    names = renamed((r"^conv1\.", "first.0."), (r"^conv5\.", "last."), *rules)
    has = (r"conv1\.weight", r"conv5\.weight")
    return Network(part, (file,), has, names, lambda state: {"d_width": len(state["conv1.weight"])})


FAMILIES: dict[str, Family] = {
    "cyclegan": Family(
        "CycleGAN (junyanz/pytorch-CycleGAN-and-pix2pix)",
        "cyclegan",
        "cyclegan_horse2zebra",
        (
            _cyclegan("g.ab", "*net_G_A.pth", "*net_G.pth"),
            _cyclegan("g.ba", "*net_G_B.pth"),
            _critic("d.b", "*net_D_A.pth"),  # there a critic has the letter of its generator
            _critic("d.a", "*net_D_B.pth"),
        ),
    ),
    "cut": Family(
        "CUT (taesungp/contrastive-unpaired-translation)",
        "cut",
        "cut_horse2zebra",
        (
            Network(
                "g",
                ("*net_G.pth",),
                (r"model\.1\.weight", r"model\.7\.filt"),
                _RESNET,
                _resnet,
            ),
            Network("f", ("*net_F.pth",), (r"mlp_0\.0\.weight",), _cut_heads),
            Network("d", ("*net_D.pth",), (r"model\.0\.weight", r"model\.2\.filt"), _PATCH, _patch),
        ),
    ),
    "pix2pix": Family(
        "pix2pix (junyanz/pytorch-CycleGAN-and-pix2pix)",
        "pix2pix",
        "pix2pix_facades",
        (
            Network("g", ("*net_G.pth",), (r"model\.model\.0\.weight",), _unet, _unet_facts),
            Network(
                "d",
                ("*net_D.pth",),
                (r"model\.0\.weight", r"model\.2\.weight"),
                renamed((r"^model\.", "body.")),
                _conditional_patch,
            ),
        ),
    ),
    "stargan": Family(
        "StarGAN (yunjey/stargan)",
        "stargan",
        "stargan_celeba",
        (
            Network(
                "g",
                ("*-G.ckpt",),
                (r"main\.0\.weight", r"main\.9\.main\.0\.weight"),
                renamed((r"(^|\.)main\.", r"\1body."), drop=_STATISTICS),
                _stargan_g,
            ),
            Network(
                "d",
                ("*-D.ckpt",),
                (r"main\.0\.weight", r"conv1\.weight", r"conv2\.weight"),
                renamed(
                    (r"^main\.", "body."), (r"^conv1\.", "adv_head."), (r"^conv2\.", "cls_head.")
                ),
                _stargan_d,
            ),
        ),
    ),
    "discogan": Family(
        "DiscoGAN (SKTBrain/DiscoGAN)",
        "discogan",
        "discogan_edges2shoes",
        (
            _disco("g.ab", "*gen_B*"),
            _disco("g.ba", "*gen_A*"),
            _disco_d("d.a", "*dis_A*"),
            _disco_d("d.b", "*dis_B*"),
        ),
        bgr=True,
    ),
    "dcgan": Family(
        "DCGAN (pytorch/examples)",
        "vanilla",
        "vanilla_celeba",
        (
            Network(
                "g",
                ("netG*",),
                (r"main\.0\.weight", r"main\.1\.running_mean"),
                renamed((r"^main\.", "body.")),
                _dcgan_g,
            ),
            Network(
                "d",
                ("netD*",),
                (r"main\.0\.weight", r"main\.3\.running_mean"),
                renamed((r"^main\.", "body.")),
                lambda state: {"d_width": len(state["main.0.weight"])},
            ),
        ),
        {"network": "dcgan", "latent": "normal"},
    ),
    "stylegan2-ada": Family(
        "StyleGAN2-ADA (NVlabs/stylegan2-ada-pytorch)",
        "stylegan",
        "stylegan_afhq",
        (
            Network(
                "g",
                ("*G_ema*", "*g_ema*"),
                (r"mapping\.fc0\.weight", r"synthesis\.b4\.const"),
                _blocks(growing=True),
                _stylegan_g,
                ("G_ema", "g_ema", "G"),
            ),
            Network(
                "d",
                ("*_D.*", "D.*"),
                (r"b4\.fc\.weight", r"b4\.out\.weight"),
                _blocks(growing=False),
                _stylegan_d,
                ("D",),
            ),
        ),
        convert=(
            "import pickle, torch; nets = pickle.load(open('{file}', 'rb')); "
            "torch.save({{k: nets[k].state_dict() for k in ('G_ema', 'D')}}, '{new}')"
        ),
    ),
}
