"""Perceptual networks, AdaIN, CartoonGAN's parts and the two scores of a stylisation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import EachBatch, difference, experiment, fit, parameters
from PIL import Image
from torch import Tensor, nn
from torchvision.models.vgg import make_layers

from gansuite import catalogue, engine
from gansuite.data.coats import render_many
from gansuite.data.edges import EdgeSmoothing, changed
from gansuite.data.published import REGISTRY
from gansuite.data.renderings import RENDERINGS
from gansuite.data.spec import Batch, DataSpec
from gansuite.errors import UserError
from gansuite.evaluation import (
    Comparison,
    Extractor,
    Protocol,
    build_extractor,
    learned,
    reference_rows,
)
from gansuite.evaluation.features import RandomVGG16
from gansuite.evaluation.frechet import frechet_distance
from gansuite.evaluation.learned import train_classifier
from gansuite.evaluation.score import Statistics, score
from gansuite.evaluation.style import STYLES, StyleStatistics, has_style
from gansuite.evaluation.table import METRICS, headlines
from gansuite.losses import perceptual
from gansuite.losses.adversarial import adversarial
from gansuite.losses.perceptual import (
    VGG,
    adain,
    blank,
    calibration,
    gram,
    perceptual_network,
    statistics,
    structural,
    style_distance,
    total_variation,
)
from gansuite.methods.adain import AdaIN
from gansuite.methods.base import Method
from gansuite.methods.cartoongan import CartoonGAN
from gansuite.networks.adain import CodeGenerator, VGGDecoder
from gansuite.networks.cartoongan import CartoonDiscriminator, CartoonGenerator
from gansuite.runs import read_json, read_lines
from gansuite.tools.style import read_style, with_colours_of
from gansuite.tools.translate import translate


def met(method: Method) -> set[str]:
    """The terms of the losses so far."""
    keys = [key for row in method.ledger.state_dict() for key in row.split("\n")]
    return {key.split("/")[2] for key in keys if key.startswith("loss/")} - {"total"}


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def spec(size: int = 32) -> DataSpec:
    both = {"horse": 8, "painted": 8}
    counts = {"train": both, "test": both}
    return DataSpec("coats", size, 3, ("horse", "painted"), counts, False, ("horse", "painted"), "")


def pictures(n: int = 2, size: int = 32, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, 3, size, size, generator=g, dtype=torch.float64) * 2 - 1


def coats(domain: str, start: int, n: int = 12) -> Tensor:
    made, _ = render_many(domain, range(start, start + n), size=32)
    return torch.from_numpy(made.transpose(0, 3, 1, 2).copy())


# ----------------------------------------------------------------------------- published integers


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        made = {
            "decoder": count(VGGDecoder()),
            "g": count(CartoonGenerator()),
            "g affine": count(CartoonGenerator(norm="instance_affine")),
            "d": count(CartoonDiscriminator()),
            "d affine": count(CartoonDiscriminator(norm="instance_affine")),
        }
    assert made == {
        "decoder": 3_505_219,
        "g": 11_120_195,
        "g affine": 11_129_667,
        "d": 1_128_385,
        "d affine": 1_129_665,
    }
    assert count(VGG("relu4_1")) == 3_505_740
    light = CodeGenerator()
    parts = (light.content, light.style, light.mlp, nn.ModuleList([light.blocks, light.decoder]))
    assert [count(part) for part in parts] == [759_104, 432_072, 149_760, 851_139]
    assert count(light) == 2_192_075
    norms = [block.norm.channels for block in light.blocks for _ in range(2)]
    assert light.mlp[-1].out_features == 2 * sum(norms)


def test_vgg_to_conv4_4_has_its_published_size() -> None:
    assert count(VGG("conv4_4", width=64)) == 10_585_152 + 12


# ------------------------------------------------------------------------------ perceptual network


@pytest.fixture(scope="module")
def vgg() -> VGG:
    return perceptual_network("random_vgg", "relu3_1", width=8)


def test_a_random_network_is_calibrated_and_constant(vgg: VGG) -> None:
    taps = [name.replace("conv", "relu") for name in perceptual.convolutions("relu3_1")]
    means = [float(f.mean()) for f in vgg(calibration().float(), taps)]
    assert means == pytest.approx([1.0] * len(taps), abs=1e-4)
    assert not list(vgg.parameters())
    assert not vgg.state_dict()  # in no checkpoint
    again = perceptual_network("random_vgg", "relu3_1", width=8)
    other = perceptual_network("random_vgg", "relu3_1", width=8, seed=1)
    weight = vgg.convs["conv1_1"].weight
    assert torch.equal(weight, again.convs["conv1_1"].weight)
    assert not torch.equal(weight, other.convs["conv1_1"].weight)


def test_it_is_not_the_network_that_scores() -> None:
    mine = perceptual_network("random_vgg", "relu2_1").convs["conv1_2"].weight.flatten()
    scores = RandomVGG16().stages[0][2].weight.flatten()
    assert abs(float(torch.corrcoef(torch.stack([mine, scores]))[0, 1])) < 0.02
    assert sum(map(len, ((64, 64), (128, 128), (256, 256, 256)))) not in (
        len(perceptual.convolutions("relu3_1")),
        len(perceptual.convolutions("relu4_1")),
        len(perceptual.convolutions("conv4_4")),
    )


def test_its_layers_are_torchs(vgg: VGG) -> None:
    x = pictures().float()
    stack = nn.Sequential()
    for name in perceptual.convolutions("relu3_1"):
        if name in ("conv2_1", "conv3_1"):
            stack.append(nn.MaxPool2d(2))
        weight = vgg.convs[name].weight
        conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3)
        conv.load_state_dict({"weight": weight, "bias": vgg.convs[name].bias})
        stack.extend([nn.ReflectionPad2d(1), conv, nn.ReLU()])
    (last,) = vgg(x, ["relu3_1"])
    torch.testing.assert_close(last, stack(x))
    before, after = vgg(x, ["conv2_2", "relu2_2"])
    assert float(before.min()) < 0
    assert torch.equal(before.relu(), after)


@pytest.mark.slow
def test_a_classifier_learns_to_tell_the_domains_apart() -> None:
    both = {"horse": coats("horse", 0, 32), "painted": coats("painted", 1000, 32)}
    network = train_classifier(both, "relu2_1", 8, 3, seed=1)
    taps = ["relu1_1", "relu1_2", "relu2_1"]

    def look(images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return network(images.float() / 127.5 - 1, taps)

    means = [float(y.mean()) for y in look(torch.cat([*both.values()]))]
    assert means == pytest.approx([1.0] * 3, rel=1e-4)  # as the random network's
    others = {"horse": coats("horse", 500, 32), "painted": coats("painted", 2000, 32)}

    def pooled(images: Tensor) -> Tensor:
        return torch.cat([y.mean((2, 3)) for y in look(images)], 1)

    middle = [pooled(x).mean(0) for x in both.values()]
    right = 0
    for i, images in enumerate(others.values()):
        far = torch.stack([(pooled(images) - m).norm(dim=1) for m in middle])
        right += int((far.argmin(0) == i).sum())
    assert right > 0.75 * 64
    few = {name: images[:4] for name, images in both.items()}
    first, again, other = (
        train_classifier(few, "relu1_1", 4, 3, seed=s).state_dict() for s in (1, 1, 2)
    )
    assert difference(first, again) == ""
    assert difference(first, other)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["frozen", "learned"])
def test_a_classifier_is_learned_once_and_kept_in_the_checkpoint(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSUITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(learned, "STEPS", 2)
    options = ["method.network=classifier", f"method.encoder={encoder}", "ema.half_life_kimg=1"]
    e = experiment("adain_coats", tmp_path, 2, *options, "evaluate.learned=false",
                   "evaluate.best_by=fd_random")  # fmt: skip
    session = engine.train(e)
    judge = session.method.judge
    (file,) = (tmp_path / "cache").glob("classifier-*.pt")
    state = torch.load(file, weights_only=True)
    assert difference(dict(judge.state_dict()), state) == ""
    (line, *_) = read_lines(session.run.metrics)
    assert {"loss/g/content/classifier", "loss/g/style/classifier"} <= set(line)
    # an encoder that learns begins with it, and one that does not is it
    encoders = (session.method.g.encoder, session.method.averages.modules["g"].encoder)
    for found in encoders:
        weight = found.convs["conv1_1"].weight
        if encoder == "frozen":
            assert torch.equal(weight, state["convs.conv1_1.weight"])
        else:
            torch.testing.assert_close(weight, state["convs.conv1_1.weight"], rtol=0, atol=0.02)
    monkeypatch.setattr(learned, "learn", lambda *_, **__: pytest.fail("learned again"))
    copy = engine.load_method(e.run_dir, weights="raw")  # without any data
    x, s = pictures(2).float(), pictures(2, seed=1).float()
    with torch.no_grad(), session.method.evaluating("raw"):
        assert torch.equal(copy.stylize(x, [(s, 1.0)]), session.method.stylize(x, [(s, 1.0)]))
    kept = learned.learned_classifier(engine.build_data(e), judge.last, judge.width, 0)
    assert difference(kept, state) == ""


def test_a_classifier_needs_pictures_to_learn_from() -> None:
    method = AdaIN(spec(), levels=3, width=4, d_width=4, network="classifier")
    assert blank(method.judge)
    with pytest.raises(UserError, match=r"learns from the pictures of a gansuite\.DataModule"):
        fit(method, 1, given=batches(1, 2))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"file": ""}, "comes? from a file.*vgg19-dcbb9e9d.pth"),
        ({"file": "missing.pth"}, "no file 'missing.pth'"),
        ({"file": "other.pth"}, "other.pth' does not hold torchvision's VGG-19"),
        ({"file": "other.pth", "width": 8, "key": "method.x"}, "not 8: set method.x=64"),
    ],
)
def test_published_weights_come_from_their_file_alone(
    options: dict[str, Any], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"features.0.weight": torch.zeros(1)}, "other.pth")
    with pytest.raises(UserError, match=match):
        perceptual_network("vgg19", "relu1_1", **options)


def test_published_weights_are_taken_layer_by_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    theirs = make_layers([64, 64, "M", 128, 128, "M", 256])  # VGG-19 to relu3_1
    file = tmp_path / "vgg19.pth"
    torch.save({f"features.{k}": v for k, v in theirs.state_dict().items()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(perceptual, "SHA256", digest[:8])
    ours = perceptual_network("vgg19", "relu3_1", file=str(file))
    x = pictures(1).float()
    mean, std = torch.tensor(perceptual._MEAN), torch.tensor(perceptual._STD)
    wanted = theirs((((x + 1) / 2) - mean[:, None, None]) / std[:, None, None])
    (found,) = ours(x, ["relu3_1"])
    inner = (..., slice(3, -3), slice(3, -3))  # the borders differ: they pad with zeros
    torch.testing.assert_close(found[inner], wanted[inner], atol=1e-5, rtol=1e-4)


# -------------------------------------------------------------------------------- AdaIN, in float64


def test_adain_gives_the_statistics_and_keeps_what_has_them() -> None:
    x, s = pictures(3, 16) * 2 + 1, pictures(3, 12, seed=1) * 5 - 3
    y = adain(x, *statistics(s))
    for found, wanted in zip(statistics(y), statistics(s), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(adain(x, *statistics(x)), x)
    flat = x.flatten(2)
    std = (flat.var(2, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(statistics(x)[1].flatten(1), std)


def test_style_distances_against_loops() -> None:
    a, b = [pictures(2, 8), pictures(2, 4, 2)], [pictures(2, 8, 3), pictures(2, 4, 4)]
    means, grams = 0.0, 0.0
    for p, q in zip(a, b, strict=True):
        p_, q_ = p.numpy(), q.numpy()
        for f in (lambda z: z.mean((2, 3)), lambda z: np.sqrt(z.var((2, 3)) + 1e-5)):
            means += float(((f(p_) - f(q_)) ** 2).mean())
        n = p_[0].size
        g = [np.einsum("nchw,ndhw->ncd", z, z) / n for z in (p_, q_)]
        grams += float(((g[0] - g[1]) ** 2).mean())
        np.testing.assert_allclose(gram(p).numpy(), g[0])
    assert float(style_distance(a, b)) == pytest.approx(means)
    assert float(style_distance(a, b, "gram")) == pytest.approx(grams)


def test_structure_and_smoothness() -> None:
    x = pictures()
    assert float(structural(x, x)) == pytest.approx(0, abs=1e-12)
    assert float(structural(x, -x)) > 1
    assert float(structural(x, x + 0.1)) < float(structural(x, x.flip(-1)))
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    assert float(total_variation(ramp)) == 1.0


# ------------------------------------------------------------------------------------- AdaIN-GAN


@pytest.fixture(scope="module")
def adain_gan() -> AdaIN:
    torch.manual_seed(0)
    method = AdaIN(spec(), levels=3, width=8, d_width=4, references=2).eval()
    for p in method.g.decoder.parameters():
        nn.init.normal_(p, 0, 0.05)
    return method


def test_strength_and_shares(adain_gan: AdaIN) -> None:
    x, s, t = (pictures(2, 32, seed).float() for seed in (0, 1, 2))
    g, tap = adain_gan.g, ["relu3_1"]
    features = g.encoder(x, tap)[0]
    none = adain_gan.stylize(x, [(s, 1.0)], 0.0)
    torch.testing.assert_close(none, g.decoder(features).clamp(-1, 1), atol=1e-5, rtol=1e-4)
    half = adain_gan.stylize(x, [(s, 2.0), (t, 6.0)], 0.5)
    parts = [adain(features, *statistics(g.encoder(p, tap)[0])) for p in (s, t)]
    mixed = 0.5 * features + 0.5 * (0.25 * parts[0] + 0.75 * parts[1])
    torch.testing.assert_close(half, g.decoder(mixed).clamp(-1, 1), atol=1e-5, rtol=1e-4)
    one = adain_gan.stylize(x, [(s[:1], 1.0)])  # one reference for all
    assert one.shape == x.shape


def test_translation_takes_a_reference_by_the_picture_alone(adain_gan: AdaIN) -> None:
    x = (pictures(6).mul(127).round() / 127.5).float()
    before = adain_gan.translate(x, "painted")
    torch.testing.assert_close(before, adain_gan.stylize(x, [(x, 1.0)]))  # it has seen none
    adain_gan.references.copy_(torch.randint(256, adain_gan.references.shape))
    adain_gan.known.fill_(2)
    together = adain_gan.translate(x, "painted")
    alone = torch.cat([adain_gan.translate(part, "painted") for part in x.split(1)])
    adain_gan.known.zero_()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    with pytest.raises(UserError, match="not to 'horse'"):
        adain_gan.translate(x, "horse")


def test_the_method_of_2017_is_one_override_away() -> None:
    e = catalogue.load_experiment("adain_coats", ["method.weights.gan=0"])
    method = engine.ready_method(e, engine.build_data(e))
    assert method.players == ("g",)
    assert len(method.configure_optimizers()) == 1


def batches(n: int, parts: int) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    shape = (2, 3, 32, 32)
    return [
        Batch(
            tuple(torch.randint(256, shape, generator=g, dtype=torch.uint8) for _ in range(parts))
        )
        for _ in range(n)
    ]


def test_without_an_adversary_the_decoder_alone_is_trained() -> None:
    weights = {**AdaIN(spec(), levels=3, width=4, d_width=4).weights, "gan": 0.0}
    method = AdaIN(spec(), levels=3, width=4, references=3, weights=weights)
    assert method.players == ("g",)
    assert method.targets == ("painted",)
    encoder = {k: v.clone() for k, v in method.g.encoder.named_buffers()}
    decoder = parameters(method.g.decoder)
    given = batches(2, 2)
    fit(method, 2, given=given)
    assert encoder
    for name, buffer in method.g.encoder.named_buffers():
        assert torch.equal(buffer, encoder[name])
    trained = parameters(method.g.decoder)
    assert not any(torch.equal(trained[k], decoder[k]) for k in decoder)
    assert count(method.g) == count(method.g.decoder)
    assert met(method) == {"content", "style"}
    # the references are the first pictures of the style
    kept = torch.cat([given[0].images[1], given[1].images[1]])[:3]
    assert torch.equal(method.references, kept)
    assert int(method.known) == 3


@pytest.mark.parametrize(
    "options",
    [
        {"injection": "mlp", "style_loss": "gram"},
        {"encoder": "learned"},
        {"encoder": "learned", "network": "own"},
    ],
)
def test_every_term_and_both_injections(options: dict[str, Any]) -> None:
    everything = dict.fromkeys(AdaIN(spec(), levels=3, width=4, d_width=4).weights, 1.0)
    method = AdaIN(spec(), levels=3, width=4, d_width=4, weights=everything, **options)
    before = parameters(method.g)
    fit(method, 1, given=batches(1, 2))
    assert met(method) == set(everything)
    eyes = options.get("network", "random_vgg")
    assert f"loss/g/content/{eyes}" in method.loss_means()
    after = parameters(method.g)
    learns = {k.partition(".")[0] for k in after if not torch.equal(before[k], after[k])}
    stats = options.get("injection") != "mlp"
    assert learns >= ({"encoder", "decoder"} if stats else {"content", "style", "mlp", "decoder"})


def test_the_own_network_needs_a_learned_encoder() -> None:
    with pytest.raises(UserError, match=r"needs method\.injection=stats and method"):
        AdaIN(spec(), network="own", levels=3, width=4)


# ------------------------------------------------------------------------- translation by a picture


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name, size in (("in.png", (40, 48)), ("a.png", (50, 33)), ("b=2.png", (32, 64))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(name)
    mask = np.zeros((40, 48), np.uint8)
    mask[:20] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def test_translating_by_references(adain_gan: AdaIN, here: Path) -> None:
    def made(**options: Any) -> np.ndarray:
        (file,) = translate(adain_gan, "in.png", here / "out", **options)
        return np.asarray(Image.open(file)).astype(int)

    source = np.asarray(Image.open("in.png")).astype(int)
    plain = made(style=["a.png"])
    assert plain.shape == source.shape
    assert np.array_equal(plain, made(style=["a.png=3"]))
    assert not np.array_equal(plain, made(style=["a.png"], strength=0.2))
    assert not np.array_equal(plain, made(style=["a.png=1", "b=2.png"]))
    assert np.array_equal(plain, made(style=["a.png=1", "b=2.png=0"]))
    assert not np.array_equal(plain, made(style=["a.png"], keep_colours=True))
    region = made(style=["a.png"], mask=Path("mask.png"))
    assert np.array_equal(region[20:], source[20:])
    assert np.array_equal(region[:20], plain[:20])


def test_colours_are_kept() -> None:
    reference, content = pictures(1, 24) * 0.3, pictures(1, 20, 1) * 0.1 + 0.3
    content = content + 0.5 * content[:, :1]
    found = with_colours_of(reference, content).flatten(2)[0]
    wanted = content.flatten(2)[0]
    torch.testing.assert_close(found.mean(1), wanted.mean(1))
    torch.testing.assert_close(torch.cov(found), torch.cov(wanted), atol=1e-4, rtol=1e-2)
    torch.testing.assert_close(with_colours_of(content, content), content)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"style": ["no.png"]}, "picture 'no.png' does not exist"),
        ({"style": ["text.png"]}, "text.png"),
        ({"style": ["a.png=x"]}, "'x' in --style a.png=x is no number"),
        ({"style": ["a.png=0"]}, r"shares of --style \(0\) must .* positive number"),
        ({"style": ["a.png=2", "a.png=-2"]}, "positive number"),
        ({"style": ["a.png=nan"]}, "positive number"),
        ({"style": ["a.png"], "strength": 1.5}, "--strength is 1.5"),
        ({"style": ["a.png"], "to": "painted"}, "--style and --to"),
        ({"strength": 0.5}, "--strength is about a style"),
        ({"keep_colours": True}, "--keep-colours is about a style"),
        ({"style": ["a.png"], "mask": Path("a.png")}, "mask 'a.png' is 33 x 50 .* 48 x 40"),
        ({"style": ["a.png"], "mask": Path("no.png")}, "'no.png' does not exist"),
    ],
)
def test_bad_styles_are_one_sentence(
    options: dict[str, Any], match: str, adain_gan: AdaIN, here: Path
) -> None:
    Path("text.png").write_text("no picture")
    with pytest.raises(UserError, match=match) as error:
        translate(adain_gan, "in.png", here / "out", **options)
    assert "\n" not in str(error.value)
    assert not (here / "out").exists()


def test_a_method_without_references_says_so(here: Path) -> None:
    e = experiment("cyclegan_coats", here, 1)
    method = engine.build_method(e.method, spec(), 0)
    with pytest.raises(UserError, match="leave --style out"):
        read_style(["a.png"], method)
    with pytest.raises(UserError, match="not by a reference picture"):
        method.stylize(pictures(), [(pictures(), 1.0)])


# ------------------------------------------------------------------------------------ CartoonGAN


def test_the_discriminator_rests_while_the_generator_begins() -> None:
    method = CartoonGAN(
        spec(), width=4, blocks=1, d_width=4, network_width=4, layer="conv2_2", init=2, init_lr=0.5
    )
    fresh = parameters(method.d)
    states: list[dict[str, Tensor]] = []
    terms: list[set[str]] = []
    rates: list[float] = []

    def note(method: Any) -> None:
        states.append(parameters(method.d))
        terms.append(met(method))
        rates.append(method._optimizers["g"].param_groups[0]["lr"])

    fit(method, 4, given=batches(4, 3), callbacks=[EachBatch(note)])
    for state in states[:2]:
        assert all(torch.equal(state[k], fresh[k]) for k in fresh)
    assert not any(torch.equal(states[2][k], fresh[k]) for k in fresh)
    assert terms[1] == {"content"}
    assert terms[2] == {"content", "gan", "edge"}
    assert rates == [0.5, 0.5, 0.01, 0.01]
    assert method.update_counts == {"g": 4, "d": 2}


@pytest.mark.parametrize("size", [32, 128])
def test_smoothing_blurs_the_edges_alone(size: int) -> None:
    made, _ = render_many("cartoon", range(3), size=size)
    images = np.ascontiguousarray(made.transpose(0, 3, 1, 2))
    smoothing = EdgeSmoothing.at(size)
    smoothed, edges = smoothing(images), smoothing.edges(images)
    near = torch.nn.functional.max_pool2d(
        torch.from_numpy(edges)[:, None].float(), smoothing.side, 1, smoothing.side // 2
    ).bool()
    assert np.array_equal(smoothed, np.where(near.numpy(), smoothed, images))
    energy = [
        float((np.diff(x.astype(float), axis=3) ** 2).sum(1)[near[:, 0, :, 1:].numpy()].sum())
        for x in (images, smoothed)
    ]
    assert energy[1] < 0.6 * energy[0]
    assert 0.1 < changed(images, smoothed) < 0.7
    flat = np.full((1, 3, 16, 16), 90, np.uint8)
    assert np.array_equal(smoothing(flat), flat)


def test_the_blur_is_a_gaussian() -> None:
    from scipy.ndimage import gaussian_filter

    step = np.zeros((1, 1, 32, 32), np.uint8)
    step[..., 16:] = 240
    found = EdgeSmoothing()(step)[0, 0].astype(float)
    wanted = gaussian_filter(step[0, 0].astype(float), 1.1, radius=2, mode="mirror")
    changed_columns = np.flatnonzero((found != step[0, 0]).any(0))
    assert changed_columns.tolist() == [14, 15, 16, 17]
    np.testing.assert_allclose(found[:, 14:18], wanted[:, 14:18], atol=0.51)


def test_smoothed_pictures_are_those_of_the_batch_and_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GANSUITE_CACHE", str(tmp_path / "cache"))
    e = experiment("cartoongan_coats", tmp_path, 1, "data.flip=true", "data.load_size=40")
    data = engine.build_data(e)
    batch = data.train_batch(3)
    photo, cartoon, smoothed = batch.images
    assert photo.shape == cartoon.shape == smoothed.shape
    # away from the edges the pictures are equal, so they were cropped and mirrored alike
    assert 0.2 < float((cartoon == smoothed).all(1).float().mean()) < 0.95
    assert data.smoothed_share is not None
    assert 0.05 < data.smoothed_share < 0.95
    assert data.images_per_batch == 4  # derived pictures are no further data
    monkeypatch.setattr(EdgeSmoothing, "fill", lambda *_: pytest.fail("made again"))
    again = engine.build_data(e).train_batch(3)
    assert torch.equal(again.images[2], smoothed)


def test_losses_of_fakes_alone() -> None:
    f, r = torch.randn(3, 1, 4, 4), torch.full((3, 1, 4, 4), 1e9)
    assert float(adversarial("lsgan").d_fake(f)) == pytest.approx(float(f.square().mean() / 2))
    nonsaturating = adversarial("nonsaturating")
    assert float(nonsaturating.d_fake(f)) == pytest.approx(float(nonsaturating.d(r, f)))
    with pytest.raises(UserError, match="knows no fakes without real"):
        adversarial("mmd").d_fake(f)


# ----------------------------------------------------------------------- renderings and their score


@pytest.mark.parametrize("name", RENDERINGS)
def test_a_rendering_is_of_the_same_scene(name: str) -> None:
    first, mask = render_many(name, range(8), size=64)
    again, _ = render_many(name, range(8), size=64)
    photo, same_mask = render_many("horse", range(8), size=64)
    assert np.array_equal(first, again)
    assert np.array_equal(mask, same_mask)
    small, _ = render_many(name, range(8), size=32)
    shrunk = first.reshape(8, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(shrunk - small).mean() < 25
    assert np.abs(first.astype(int) - photo).mean() > 10
    flat = [x.reshape(8, -1).astype(float) for x in (first, photo)]
    match = np.corrcoef(*flat)[:8, 8:]
    assert (match.argmax(1) == np.arange(8)).all()  # its own scene is the nearest


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return build_extractor()


@pytest.fixture(scope="module")
def pair(extractor: Extractor) -> Protocol:
    metrics = ("content_kept", "content_distance", "style_reached", "reference_reached")
    return Protocol.of(extractor, size=32, style=True, metrics=metrics)


@pytest.fixture(scope="module")
def painting() -> Comparison:
    """The true stylisation of horses; the style is that of other scenes."""
    style = coats("painted", 100)
    return Comparison("a2b", style, coats("painted", 0), coats("horse", 0), reference=style)


def test_content_and_style_are_won_by_trivial_outputs_one_at_a_time(
    painting: Comparison, pair: Protocol, extractor: Extractor
) -> None:
    rows = reference_rows(painting, pair, extractor, train=coats("painted", 300))
    nothing, copy = rows["do_nothing"], rows["copy_the_style"]
    made = score(painting, pair, extractor)
    assert nothing["content_kept"] == pytest.approx(1)
    assert nothing["style_reached"] == nothing["reference_reached"] == 0
    assert copy["style_reached"] == pytest.approx(1, abs=0.1)
    assert copy["reference_reached"] == 1
    assert copy["content_kept"] < made["content_kept"] < 1
    assert copy["content_kept"] < 0.3
    assert nothing["content_distance"] == 0
    assert 0.1 < made["content_distance"] < 0.6 * copy["content_distance"] < 1
    assert made["style_reached"] > 0.7
    assert 0 < made["reference_reached"] < 1
    half = painting.fake.float().lerp(painting.source.float(), 0.5).byte()  # type: ignore[union-attr]
    between = score(replace(painting, fake=half), pair, extractor)
    for m in ("style_reached", "reference_reached"):
        assert nothing[m] < between[m] < made[m]
    assert made["content_kept"] < between["content_kept"] < 1
    # without pictures of the style there is no copy, and without a source no pair
    assert "copy_the_style" not in reference_rows(painting, pair, extractor)
    assert score(replace(painting, source=None), pair, extractor) == {}


def test_the_style_reached_against_loops(
    painting: Comparison, pair: Protocol, extractor: Extractor
) -> None:
    def statistics_of(images: Tensor) -> list[np.ndarray]:
        """[N, 2 C] for each stage, in float64."""
        x, parts = images.double() / 127.5 - 1, []
        for number, stage in enumerate(extractor.random.stages):
            x = torch.nn.functional.max_pool2d(x, 2) if number else x
            for layer in stage:
                if isinstance(layer, nn.Conv2d):
                    weight, bias = layer.weight.double(), layer.bias.double()  # type: ignore[union-attr]
                    x = torch.nn.functional.conv2d(x, weight, bias, padding=1).relu()
            y = x.numpy()
            parts.append(np.concatenate([y.mean((2, 3)), y.std((2, 3))], 1))
        return parts

    assert painting.source is not None
    source, made, style = map(statistics_of, (painting.source, painting.fake, painting.real))
    middle = [part.mean(0) for part in style]

    def far(found: list[np.ndarray], wanted: Any) -> float:
        """``wanted(i)``: what picture i is compared with, by stages."""
        total = 0.0
        for i in range(len(found[0])):
            for part, goal in zip(found, wanted(i), strict=True):
                total += ((part[i] - goal) ** 2).sum() / (goal**2).sum()
        return total / len(found[0])

    nothing, reached = (far(x, lambda i: middle) for x in (source, made))
    # of a style picture the others' mean, in units of the whole mean's length
    own = 0.0
    for part, goal in zip(style, middle, strict=True):
        for i in range(len(part)):
            others = np.delete(part, i, 0).mean(0)
            own += ((part[i] - others) ** 2).sum() / (goal**2).sum() / len(part)
    found = score(painting, pair, extractor)
    expected = (nothing - reached) / (nothing - own)
    assert found["style_reached"] == pytest.approx(expected, rel=1e-5)
    each = [far(x, lambda i: [part[i] for part in style]) for x in (source, made)]
    assert found["reference_reached"] == pytest.approx(1 - each[1] / each[0], rel=1e-5)

    # the content: one minus the correlation of each channel
    def maps_of(images: Tensor) -> list[np.ndarray]:
        return [x.double().numpy() for x in extractor.random.maps(images)]

    stages = []
    for a, b in zip(maps_of(painting.source), maps_of(painting.fake), strict=True):
        apart = []
        for x, y in zip(a.reshape(-1, a[0, 0].size), b.reshape(-1, b[0, 0].size), strict=True):
            if min(x.var(), y.var()) > 1e-3:
                apart.append(1 - np.corrcoef(x, y)[0, 1])
            else:  # a channel that sees little
                x, y = ((v - v.mean()) / np.sqrt(v.var() + 1e-6) for v in (x, y))
                apart.append(((x - y) ** 2).mean() / 2)
        stages.append(np.mean(apart))
    assert found["content_distance"] == pytest.approx(np.mean(stages), rel=1e-3)
    look = StyleStatistics(extractor.random)
    assert look(painting.source).shape == (12, 2 * (64 + 128 + 256))
    assert torch.equal(look(painting.source, again=True), look(painting.source, again=True))


def test_the_network_looks_once_for_all_metrics_of_style(
    painting: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    extractor = build_extractor()
    network, maps, seen = extractor.random, extractor.random.maps, []

    def look(images: Tensor) -> Iterator[Tensor]:
        seen.append(images)
        return maps(images)

    monkeypatch.setattr(network, "maps", look)
    metrics = ("content_distance", "style_reached", "reference_reached", "fd_random", "kd_random")
    protocol = Protocol.of(extractor, size=32, style=True, metrics=metrics)
    real = Statistics(painting.real, protocol, extractor)
    first = score(painting, protocol, extractor, real=real)
    assert first["fd_random"] == pytest.approx(
        frechet_distance(network(painting.real), network(painting.fake)), rel=1e-12
    )
    seen.clear()
    other = replace(painting, fake=painting.fake.flip(3))
    assert score(other, protocol, extractor, real=real) != first
    assert len(seen) == 2  # what was made and, for the distance, its contents
    seen.clear()
    assert score(painting, protocol, extractor, real=real) == first
    assert len(seen) == 2


def test_a_style_that_is_there_already_is_no_score(
    painting: Comparison, pair: Protocol, extractor: Extractor
) -> None:
    notes: dict[str, str] = {}
    idle = replace(painting, source=painting.real, fake=painting.real)
    kept = {"content_kept", "content_distance"}
    assert set(score(idle, pair, extractor, notes=notes)) == kept
    assert notes["style_reached"] == "the contents are in this style already"


def test_the_pair_is_asked_for_by_the_data_or_by_hand(extractor: Extractor) -> None:
    assert set(RENDERINGS) <= STYLES
    assert {d for entry in REGISTRY.values() for d in entry.domains} & STYLES == {
        *("monet", "cezanne", "ukiyoe", "vangogh")
    }
    assert has_style(["photo", "monet"])
    assert not has_style(["horse", "zebra"])
    plain, style = (Protocol.of(extractor, size=32, style=s) for s in (False, True))
    extra = {"content_kept", "content_distance", "style_reached", "reference_reached"}
    assert set(style.metrics) - set(plain.metrics) == extra
    assert plain.id == Protocol.of(extractor, size=32).id != style.id
    with pytest.raises(UserError, match=r"not there without evaluate\.style"):
        Protocol.of(extractor, size=32, metrics=["content_kept"])


def test_of_a_pair_both_or_none_are_shown() -> None:
    for name, info in METRICS.items():
        if info.pair and info.headline:
            assert METRICS[info.pair].pair == name
    names = ["ssim", "style_reached", "content_kept", "fd_random", "precision"]
    assert headlines(names) == ["fd_random", "ssim", "content_kept", "style_reached"]
    assert headlines(names, 3) == ["fd_random", "content_kept", "style_reached"]
    assert headlines(names, 1) == ["fd_random"]
    assert headlines(["content_kept", "fd_random"]) == ["fd_random"]


@pytest.mark.slow
def test_runs_are_scored_on_content_and_style(tmp_path: Path) -> None:
    """In training, again from the checkpoint, and for an outside entry."""
    e = experiment("adain_coats", tmp_path, 4)
    engine.train(e)
    results = read_json(e.run_dir / "results.json")
    assert results["protocol"]["style"] is True
    final, rows = results["final"]["a2b"], results["references"]
    assert {"content_kept", "style_reached", "reference_reached"} <= set(final)
    idle, copy = rows["do_nothing"]["a2b"], rows["copy_the_style"]["a2b"]
    assert (idle["style_reached"], idle["reference_reached"]) == (0, 0)
    assert idle["content_kept"] == pytest.approx(1)
    assert copy["reference_reached"] == 1
    assert copy["content_kept"] < 0.5
    again = engine.evaluate(e.run_dir)
    assert again["final"] == again["recorded"] == results["final"]
