"""LPIPS and path length against torchmetrics and torch-fidelity, with random VGG-16 weights: the
architecture, the heads and the arithmetic are checked, the published file is not needed."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import experiment
from torch import Tensor, nn

from gansuite import engine
from gansuite.data.spec import DataSpec
from gansuite.evaluation import Comparison, Extractor, Protocol, build_extractor
from gansuite.evaluation.features import RandomVGG16
from gansuite.evaluation.perceptual import LPIPS, STAGES, path_length
from gansuite.evaluation.score import score
from gansuite.evaluation.weights import Weights
from gansuite.methods import method_class
from gansuite.methods._unconditional import slerp
from gansuite.rng import torch_generator
from gansuite.runs import read_json


def images(*position: int, n: int = 5, size: int = 40) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch_generator(0, "lpips", *position)) * 2 - 1


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's file, without the classifier and with random numbers."""
    generator, state, channels, place = torch_generator(0, "vgg"), {}, 3, 0
    for widths in STAGES:
        for width in widths:
            kernel = torch.randn(width, channels, 3, 3, generator=generator)
            state[f"features.{place}.weight"] = kernel * (2 / (9 * channels)) ** 0.5
            state[f"features.{place}.bias"] = torch.randn(width, generator=generator) / 10
            channels, place = width, place + 2
        place += 1
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def lpips(weights: Path) -> LPIPS:
    return LPIPS(weights, sha256=hashlib.sha256(weights.read_bytes()).hexdigest())


def test_pictures_of_a_double_network_are_taken(lpips: LPIPS) -> None:
    a, b = images(1, n=2, size=16), images(2, n=2, size=16)
    assert torch.equal(lpips(a.double(), b.double()), lpips(a, b))
    assert path_length(lpips, (a.double(), b.double()), 0.5) > 0


@pytest.mark.slow
def test_lpips_equals_torchmetrics(lpips: LPIPS, weights: Path) -> None:
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    other = module._LPIPS(pretrained=True, net="vgg", pnet_rand=True)
    state = torch.load(weights, weights_only=True)
    own = dict(other.net.named_parameters())
    assert len(own) == len(state) == 26
    with torch.no_grad():
        for (_, parameter), value in zip(own.items(), state.values(), strict=True):
            parameter.copy_(value)
        expected = other(images(1), images(2)).flatten().double()
    assert torch.allclose(lpips(images(1), images(2)), expected, rtol=1e-4)
    assert torch.equal(lpips(images(1), images(1)), torch.zeros(5, dtype=torch.float64))


@pytest.mark.slow
def test_lpips_and_path_length_equal_torch_fidelity(
    lpips: LPIPS, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = pytest.importorskip("torch_fidelity.sample_similarity_lpips")
    fidelity = pytest.importorskip("torch_fidelity")
    vgg = pytest.importorskip("torchvision").models.vgg.vgg16(weights=None)
    vgg.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    heads = {f"lin{i}.model.1.weight": h[None, :, None, None] for i, h in enumerate(lpips.heads)}
    monkeypatch.setattr(module, "load_state_dict_from_url", lambda *a, **k: heads)
    monkeypatch.setattr(module, "torchvision_load_pretrained_vgg16", lambda: vgg)
    load = nn.Module.load_state_dict
    monkeypatch.setattr(nn.Module, "load_state_dict", lambda s, d, **k: load(s, d, strict=False))
    other = module.SampleSimilarityLPIPS("x")

    grey = [((x + 1) * 127.5).round() for x in (images(1), images(2))]
    expected = other(*grey).flatten().double()
    assert torch.allclose(lpips(*(g / 127.5 - 1 for g in grey)), expected, rtol=1e-4)

    class Linear(nn.Module):
        """z -> a picture that moves smoothly with it."""

        def forward(self, z: Tensor) -> Tensor:
            mixed = torch.einsum("nd,dchw->nchw", z.float(), images(3, n=6))
            return torch.tanh(mixed)

    class Grey(Linear):
        def forward(self, z: Tensor) -> Tensor:
            return (super().forward(z) + 1) * 127.5

    n, epsilon = 60, 1e-2
    wrapped = fidelity.GenerativeModelModuleWrapper(Grey(), 6, "normal", 0)
    monkeypatch.setattr(fidelity.metric_ppl, "create_sample_similarity", lambda *a, **k: other)
    percentile = np.percentile
    monkeypatch.setattr(  # its keyword left NumPy in 2.4
        np, "percentile", lambda a, q, interpolation: percentile(a, q, method=interpolation)
    )
    found = fidelity.metric_ppl.calculate_ppl(
        1,
        input1=wrapped,
        input1_model_num_samples=n,
        cuda=False,
        verbose=False,
        ppl_epsilon=epsilon,
        ppl_z_interp_mode="slerp_any",
        ppl_discard_percentile_lower=1,
        ppl_discard_percentile_higher=99,
    )
    monkeypatch.setattr(np, "percentile", percentile)
    source = np.random.RandomState(fidelity.defaults.DEFAULTS["rng_seed"])
    draw = fidelity.noise.random_normal
    a, b = (draw(source, (n, 6)) for _ in range(2))
    ends = Linear()(a), Linear()(slerp(a, b, epsilon))
    assert path_length(lpips, ends, epsilon) == pytest.approx(
        found["perceptual_path_length_mean"], rel=1e-3
    )


def test_slerp_keeps_to_the_circle() -> None:
    a, b = torch.tensor([[2.0, 0, 0]]), torch.tensor([[0, 2.0, 0]])
    third = slerp(a, b, 1 / 3)
    assert torch.allclose(third, torch.tensor([[3**0.5, 1.0, 0]]), atol=1e-6)
    assert torch.allclose(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, b, 1.0), b, atol=1e-6)


class OnSingle(Tensor):
    """Of a device without float64 (MPS): stays there until `cpu`, and cannot be made one."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.cpu:
            return args[0].as_subclass(Tensor)
        if func is Tensor.to and any(isinstance(a, str) and a == "cpu" for a in args):
            return args[0].as_subclass(Tensor)
        found = super().__torch_function__(func, types, args, kwargs or {})
        if isinstance(found, cls) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


def there(module: nn.Module) -> Any:
    for part in module.modules():
        for store in (part._parameters, part._buffers):
            for name, value in store.items():
                if value is not None:
                    store[name] = value.detach().as_subclass(OnSingle)  # type: ignore[assignment]
    return module


def test_nothing_is_made_double_on_a_device_without_it(lpips: LPIPS) -> None:
    x = torch.ones(1).as_subclass(OnSingle)
    for make in (
        Tensor.double,
        lambda t: t.to(torch.float64),
        lambda t: t.sum().double(),
    ):
        with pytest.raises(TypeError, match="float64"):
            make(x)
    a, b = (images(i, n=3, size=32).flatten(1) for i in (1, 2))
    found = slerp(a.as_subclass(OnSingle), b.as_subclass(OnSingle), 0.3)
    assert isinstance(found, OnSingle)
    assert torch.equal(found.as_subclass(Tensor), slerp(a, b, 0.3))
    pictures = (images(1, n=3, size=32) * 127 + 128).byte()
    assert torch.equal(there(RandomVGG16())(pictures), RandomVGG16()(pictures))
    a, b = images(1, n=2, size=16), images(2, n=2, size=16)
    assert torch.equal(there(copy.deepcopy(lpips))(a, b), lpips(a, b))


class Count(nn.Module):
    """In LPIPS' place: distances 1, 2, ..., N whatever it sees."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.size = x.shape[-2:]
        return torch.arange(1, len(x) + 1).double()


def test_the_path_length_drops_both_ends() -> None:
    count: Any = Count()
    ends = images(1, n=100, size=16), images(2, n=100, size=16)
    # between the 1st and 99th percentile, of 1..100: 1 (lower) to 100 (higher) at most
    lengths = np.arange(1, 101) / 0.25
    low, high = np.sort(lengths)[[0, 99]]
    kept = lengths[(lengths >= low) & (lengths <= high)]
    assert path_length(count, ends, 0.5) == pytest.approx(kept.mean())
    many = images(1, n=400, size=16), images(2, n=400, size=16)
    kept = np.arange(4, 398)  # the 3.99th (lower: 4th) to the 395.01st (higher: 397th) of 400
    assert path_length(count, many, 1.0) == pytest.approx(kept.mean())
    path_length(count, (images(1, n=2, size=512), images(2, n=2, size=512)), 1.0)
    assert count.size == (256, 256)


@pytest.mark.slow
def test_scores_have_both_where_they_make_sense(lpips: LPIPS) -> None:
    extractor = Extractor(build_extractor().random, None, lpips)
    protocol = Protocol.of(extractor, size=40)
    assert protocol.vgg == lpips.id
    assert protocol.id != Protocol.of(build_extractor(), size=40).id
    grey = [((images(i) + 1) * 127.5).byte() for i in range(3)]
    pair = Comparison("a2b", grey[0], grey[1], source=grey[2], truth=grey[0])
    made = Comparison("gen", grey[0], grey[1], latent_pairs=(images(4), images(4) + 1e-4))
    found, generated = (score(c, protocol, extractor) for c in (pair, made))
    assert "ppl" not in found
    assert "lpips" not in generated
    truth, fake = (g.float() / 127.5 - 1 for g in grey[:2])
    assert found["lpips"] == pytest.approx(float(lpips(fake, truth).mean()))
    assert generated["ppl"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vanilla", "stylegan"])
def test_generators_walk_a_small_step(name: str) -> None:
    """The further the step, the further the pictures; a step of all the way ends at the other."""
    counts = {"train": {"x": 8}, "test": {"x": 8}}
    spec = DataSpec("toy", 32, 3, ("x",), counts, False, (), "0")
    method = method_class(name)(spec, z_dim=8)
    with method.evaluating("raw"):
        gaps = []
        for epsilon in (1e-3, 1e-2, 1e-1):
            a, b = method.latent_pairs(4, torch_generator(0, "walk"), epsilon)
            assert a.shape == (4, 3, 32, 32)
            gaps.append(float((a - b).abs().mean()))
        assert 0 < gaps[0] < gaps[1] < gaps[2]
        first, last = method.latent_pairs(4, torch_generator(0, "walk"), 1.0)
        again, _ = method.latent_pairs(4, torch_generator(0, "walk"), 0.5)
        assert torch.equal(first, again)
        assert not torch.allclose(first, last)


@pytest.mark.slow
def test_a_run_is_scored_by_both_and_evaluate_repeats_them(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Weights, "verify", lambda *_: None)  # the numbers are random here
    for name, comparison, metric in (
        ("stylegan_coats", "gen", "ppl"),
        ("cyclegan_coats", "a2b", "lpips"),
    ):
        session = engine.train(experiment(name, tmp_path, 4, f"evaluate.vgg={weights}"))
        results = read_json(session.run.results)
        assert results["final"][comparison][metric] > 0
        nothing = results["references"]["do_nothing"][comparison]
        assert (metric in nothing) == (metric == "lpips")  # a Gaussian has no latent space
        again = engine.evaluate(session.run.last)
        assert again["final"] == again["recorded"] == results["final"]
