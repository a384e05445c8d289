"""Published weights, written by networks with the authors' names, become models of ours."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import standins
import torch
from PIL import Image
from torch import Tensor, nn

from gansuite import cli, engine
from gansuite.errors import UserError
from gansuite.rng import torch_generator
from gansuite.runs import read_checkpoint, read_json
from gansuite.tools.importing import import_weights
from gansuite.tools.share import share
from gansuite.tools.translate import translate

COATS = ("coats", "train=8", "test=4")


def noisy(module: nn.Module) -> nn.Module:
    """Weights and statistics other than those that a network begins with, of the same size."""
    g = torch_generator(0, "noisy")
    with torch.no_grad():
        for name, x in module.state_dict().items():
            if name.endswith(("filt", "resample_filter", "num_batches_tracked")):
                continue
            noise = torch.randn(x.shape, generator=g)
            x.add_(noise.abs() * 0.3 if name.endswith("running_var") else noise * 0.1)
    return module


def saved(module: nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(noisy(module).state_dict(), path)
    module.double()  # from here on it is only compared with
    return path


def loaded(model: Path) -> Any:
    """In double precision, in which a hundred layers do not blur a mistake."""
    return engine.load_method(model).double()


def pictures(n: int, side: int) -> Tensor:
    x = torch.rand(n, 3, side, side, generator=torch_generator(0, "pictures"))
    return x.double() * 2 - 1


def same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1e-5 * max(1.0, float(theirs.abs().max()))


@torch.no_grad()
def cyclegan(folder: Path, width: int = 4, blocks: int = 2) -> None:
    nets = {"G_A": standins.resnet(width, blocks), "G_B": standins.resnet(width, blocks)}
    nets |= {"D_A": standins.patch(width), "D_B": standins.patch(width)}
    for i, (name, net) in enumerate(nets.items()):
        with torch.random.fork_rng():
            torch.manual_seed(i)
            for p in net.parameters():
                p.add_(torch.randn_like(p) * 0.1)
        saved(net, folder / f"latest_net_{name}.pth")
    method = loaded(import_weights(folder, "cyclegan", folder / "model"))
    x = pictures(2, 32)
    same(method.translate(x, "zebra"), nets["G_A"](x))
    same(method.translate(x, "horse"), nets["G_B"](x))
    same(method.d["b"](x), nets["D_A"](x))  # which judges zebras
    same(method.d["a"](x), nets["D_B"](x))


@torch.no_grad()
def cyclegan_unet(folder: Path, width: int = 4, levels: int = 5) -> None:
    net = standins.UNet(width, levels, nn.InstanceNorm2d)
    critics = dict.fromkeys(("d.a", "d.b"), saved(standins.patch(4), folder / "d.pth"))
    file, size = saved(net, folder / "a.pth"), 2**levels
    model = import_weights(file, "cyclegan", folder / "model", parts=critics, size=size)
    x = pictures(1, size)
    same(loaded(model).translate(x, "zebra"), net.eval()(x))


@torch.no_grad()
def cut(folder: Path, width: int = 4, blocks: int = 5) -> None:
    g, d = standins.resnet(width, blocks, cut=True), standins.patch(width, cut=True)
    f = standins.cut_heads((3, 2 * width, 4 * width, 4 * width, 4 * width))
    for name, net in {"G": g, "D": d, "F": f}.items():
        saved(net, folder / f"latest_net_{name}.pth")
    method = loaded(import_weights(folder, "cut", folder / "model"))
    x = pictures(2, 32)
    same(method.translate(x, "zebra"), g(x))
    same(method.d(x), d(x))
    for i, (own, c) in enumerate(zip(method.f.heads.values(), (3, 8, 16, 16, 16), strict=True)):
        given = torch.rand(5, c * width // 4 if i else 3).double()
        same(own(given), f[f"mlp_{i}"](given))


@torch.no_grad()
def pix2pix(folder: Path, width: int = 4, levels: int = 6) -> None:
    g, d = standins.UNet(width, levels), standins.patch(width, channels=6, batch=True)
    saved(g, folder / "latest_net_G.pth")
    saved(d, folder / "latest_net_D.pth")
    model = import_weights(folder, "pix2pix", folder / "model", size=2**levels)
    method = loaded(model)
    x = pictures(2, 2**levels)
    same(method.d(torch.cat([x, x.flip(0)], 1)), d.eval()(torch.cat([x, x.flip(0)], 1)))
    same(method.g(x), g.eval()(x))
    for m in g.modules():  # as the authors' test: batch statistics of one picture, no dropout here
        m.train(isinstance(m, nn.BatchNorm2d))
    same(method.translate(x, "photo")[:1], g(x[:1]))


@torch.no_grad()
def stargan(folder: Path, width: int = 4, blocks: int = 2) -> None:
    g = standins.StarGANGenerator(width, 5, blocks)
    d = standins.StarGANDiscriminator(width, 5, 128, 6)
    saved(g, folder / "200000-G.ckpt")
    saved(d, folder / "200000-D.ckpt")
    method = loaded(import_weights(folder, "stargan", folder / "model"))
    x, label = pictures(2, 32), torch.tensor([[0.0, 1, 0, 1, 1], [1, 0, 0, 0, 1]]).double()
    same(method.edit(x, label), g(x, label))
    x = pictures(2, 128)
    for own, theirs in zip(method.d(x), d(x), strict=True):
        same(own, theirs)
    assert method.targets == ("Black_Hair", "Blond_Hair", "Brown_Hair", "Male", "Young")
    method.translate(x, "Male")


@torch.no_grad()
def discogan(folder: Path, width: int = 4) -> None:
    g, d = standins.disco_generator(width), standins.DiscoDiscriminator(width)
    saved(g, folder / "model_gen_B-1.0")
    saved(d, folder / "model_dis_B-1.0")
    method = loaded(import_weights(folder, "discogan", folder / "model"))
    x = pictures(2, 64)
    theirs = (x.flip(1) + 1) / 2  # [0, 1], blue first
    same(method.translate(x, "shoes"), g.eval()(theirs).flip(1) * 2 - 1)
    same(method.d["b"](x)[0], d.eval()(theirs))
    assert method.targets == ("shoes",)
    Image.new("RGB", (64, 64)).save(folder / "a.png")
    with pytest.raises(UserError, match="no way back"):
        translate(method.float(), str(folder / "a.png"), folder / "out", to="edges")


@torch.no_grad()
def dcgan(folder: Path, width: int = 4) -> None:
    g, d = standins.dcgan_generator(width), standins.dcgan_discriminator(width)
    saved(g, folder / "netG_epoch_24.pth")
    saved(d, folder / "netD_epoch_24.pth")
    method = loaded(import_weights(folder, "dcgan", folder / "model"))
    z = torch.randn(3, 100, generator=torch_generator(0, "z")).double()
    same(method.pictures(z), g.eval()(z[:, :, None, None]))
    same(method.d(pictures(3, 64)), d.eval()(pictures(3, 64)).flatten())
    assert method.sample(2, torch_generator(0, "s")).shape == (2, 3, 64, 64)


@torch.no_grad()
def stylegan(folder: Path, size: int = 32, most: int = 8, z: int = 6, w: int = 5) -> None:
    sides = [2**k for k in range(2, size.bit_length())]
    widths = {side: min(size * most // 2 // side, most) for side in sides}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        g, d = standins.StyleGAN2(size, widths, z, w, 2), standins.StyleGAN2D(widths)
    torch.save({"G_ema": g.state_dict(), "D": d.state_dict()}, folder / "G_ema.pt")
    g.double(), d.double()
    (folder / "D.pt").write_bytes((folder / "G_ema.pt").read_bytes())
    method = loaded(import_weights(folder, "stylegan2-ada", folder / "model"))
    latents = torch.randn(3, z, generator=torch_generator(0, "z")).double()
    for truncation in (1.0, 0.5):
        made = method.g(latents, noise="const", truncation_psi=truncation)
        same(made, g(latents, truncation))
    same(method.d(pictures(4, size)), d(pictures(4, size)))


FAMILIES: list[Callable[..., None]] = [
    cyclegan, cyclegan_unet, cut, pix2pix, stargan, discogan, dcgan, stylegan,
]  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.__name__)
def test_what_is_imported_computes_what_the_authors_network_does(
    family: Callable[..., None], tmp_path: Path
) -> None:
    family(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "sizes"),
    [
        (cyclegan, {"width": 64, "blocks": 9}),
        (cyclegan_unet, {"width": 64, "levels": 8}),
        (cut, {"width": 64, "blocks": 9}),
        (pix2pix, {"width": 64, "levels": 8}),
        (stargan, {"width": 64, "blocks": 6}),
        (discogan, {"width": 64}),
        (dcgan, {"width": 64}),
        (stylegan, {"size": 64, "most": 512, "z": 512, "w": 512}),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_at_published_size(
    family: Callable[..., None], sizes: dict[str, Any], tmp_path: Path
) -> None:
    family(tmp_path, **sizes)


# -- what is refused ---------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> Any:
        return os.system, (f"touch {os.environ['EVIL_FILE']}",)


def told(capsys: Any, *words: str) -> str:
    """The one sentence of a command that fails."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", *words])
    assert stop.value.code == 2
    text = capsys.readouterr().err.strip()
    assert "\n" not in text
    assert text.startswith("gansuite: ")
    return text


@pytest.mark.parametrize("how", ["torch", "legacy", "pickle"])
def test_a_pickle_with_code_is_refused_and_nothing_runs(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("EVIL_FILE", str(tmp_path / "ran"))
    file = tmp_path / "net.pkl"
    if how == "pickle":
        file.write_bytes(pickle.dumps({"G_ema": Evil()}))
    else:
        torch.save({"a": Evil()}, file, _use_new_zipfile_serialization=how == "torch")
    text = told(capsys, str(file), str(tmp_path / "out"), "--as", "stylegan2-ada")
    assert "pickle with code" in text
    assert "pickle.load(open('net.pkl', 'rb'))" in text
    assert "net.state.pth" in text
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pkl"]


def test_a_whole_module_is_refused_with_the_command_that_converts_it(
    tmp_path: Path, capsys: Any
) -> None:
    torch.save(standins.disco_generator(4), tmp_path / "model_gen_B")
    text = told(capsys, str(tmp_path / "model_gen_B"), str(tmp_path / "out"), "--as", "discogan")
    assert "torch.load('model_gen_B', weights_only=False" in text


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path: Path, capsys: Any, zipped: bool) -> None:
    file = tmp_path / "net_G_A.pth"
    state = standins.resnet(4, 1).state_dict()
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 20):
        file.write_bytes(whole[:size])
        assert "is damaged" in told(capsys, str(file), str(tmp_path / "o"), "--as", "cyclegan")
    assert sorted(p.name for p in tmp_path.iterdir()) == [file.name]


@pytest.mark.slow
def test_another_family_or_shape_is_refused(tmp_path: Path, capsys: Any) -> None:
    out = str(tmp_path / "out")

    def refused(state: Any, family: str, *more: str) -> str:
        torch.save(state, tmp_path / "a.pth")
        if family == "cyclegan":  # small ones, which are made sooner
            more = (*more, "--part", f"d.a={critic}", "--part", f"d.b={critic}")
        text = told(capsys, str(tmp_path / "a.pth"), out, "--as", family, *more)
        assert not (tmp_path / "out").exists()
        return text

    critic = saved(standins.patch(4), tmp_path / "d.pth")
    cycle, cut = (standins.resnet(4, 1, cut=cut).state_dict() for cut in (False, True))
    assert "looks like one of cut" in refused(cut, "cyclegan")
    assert "looks like one of cyclegan" in refused(cycle, "cut")
    assert "begins with 'x'" in refused({"x": torch.zeros(1)}, "dcgan")
    assert "no state dict" in refused({"x": 3}, "dcgan")
    assert "did you mean 'cyclegan'" in refused(cycle, "cycelgan")
    lost = {k: x for k, x in cycle.items() if k != "model.18.bias"}
    assert "what is 'body.18.bias' here is not in it" in refused(lost, "cyclegan")
    assert "'model.99.weight' is too much" in refused(
        {**cycle, "model.99.weight": torch.zeros(1)}, "cyclegan"
    )
    other = {**cycle, "model.4.weight": torch.zeros(9, 4, 3, 3)}
    assert "'model.4.weight' is [9, 4, 3, 3], not [8, 4, 3, 3]" in refused(other, "cyclegan")
    broken = {**cycle, "model.4.weight": torch.full((8, 4, 3, 3), float("nan"))}
    assert "not finite" in refused(broken, "cyclegan")
    sharp = {**cut, "model.7.filt": torch.ones(8, 1, 3, 3)}
    assert "filter other than the published" in refused(sharp, "cut")
    g = standins.StarGANGenerator(4, 3, 1).state_dict()
    assert "have 3 labels, the data 5" in refused(g, "stargan")
    assert "asks its discriminator" in refused(
        standins.StarGANGenerator(4, 5, 1).state_dict(), "stargan"
    )
    small = standins.dcgan_generator(4).state_dict()
    assert "for 64 pixels, not 32" in refused(small, "dcgan", "--size", "32")
    assert "has no 'q'" in refused(cycle, "cyclegan", "--part", "q=a.pth")
    assert "names 3" in refused(cycle, "cyclegan", "--domains", "a,b,c")


# -- what an imported model is good for --------------------------------------------------------


@pytest.mark.slow
def test_it_is_scored_and_compared_as_published_weights(
    here: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(standins.resnet(4, 1), here / "horse2zebra.pth")
    tiny = ["data.train=16", "data.test=8", "data.size=32", "evaluate.pictures=8"]
    tiny += ["evaluate.learned=false", "evaluate.best_by=swd", "evaluate.samples=2"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["import", "horse2zebra.pth", "h2z", "--as", "cyclegan",
                  "--data", "cyclegan_coats", *tiny])  # fmt: skip
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "there is no g.ba: this model has no way to horse" in text
    assert "a2b" in text
    content = read_checkpoint("h2z")
    assert content["published"]["family"] == "cyclegan"
    assert content["data"]["name"] == "coats"
    found = engine.evaluate("h2z")
    assert found["final"] == content["notes"]["final"]
    assert list(found["final"]) == ["a2b"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["compare", "h2z", "name=c", "rank_by=swd"])
    assert stop.value.code == 0
    table = (here / "runs" / "c" / "leaderboard.md").read_text()
    assert "h2z (published weights)" in table
    page = (here / "runs" / "c" / "index.html").read_text()
    assert "h2z has published weights" in page
    assert "outside entry" not in page
    share(here / "h2z", here / "folder")
    card = (here / "folder" / "README.md").read_text()
    assert "weights that its authors published" in card
    assert engine.load_method(here / "folder").targets == ("zebra",)
    assert read_json(here / "h2z" / "results.json")["cost"]["parameters"].keys() == {"g.ab"}


def test_other_domains_and_labels_are_named(tmp_path: Path) -> None:
    g = saved(standins.StarGANGenerator(4, 3, 1), tmp_path / "g.ckpt")
    d = saved(standins.StarGANDiscriminator(4, 3, 32, 2), tmp_path / "critic")
    names = ("angry", "happy", "sad")
    model = import_weights(g, "stargan", tmp_path / "m", parts={"d": d}, domains=names, size=32)
    method = loaded(model)
    assert method.targets == names
    assert method.spec.size == 32
    assert method.translate(pictures(1, 32), "sad").shape == (1, 3, 32, 32)
