"""What is exported makes the pictures of the run it came from."""

from __future__ import annotations

import functools
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import experiment, untrained
from PIL import Image
from torch import Tensor, nn

from gansuite import catalogue, cli, engine
from gansuite import config as configuration
from gansuite.core.inference import Inference
from gansuite.errors import UserError
from gansuite.methods import method_names
from gansuite.networks.resnet import ResnetGenerator
from gansuite.rng import torch_generator
from gansuite.runs import read_checkpoint, read_json, write_json
from gansuite.tools import export as exporting
from gansuite.tools.export import export, parity
from gansuite.tools.models import load_model
from gansuite.tools.programs import load_program
from gansuite.tools.share import share
from gansuite.tools.translate import translate

EXPERIMENTS = sorted(configuration.experiment_files())
MODELS = (
    *(f"{name}_coats" for name in method_names()),
    *("cyclegan_facades", "fastcut_coats", "pix2pix_facades", "stargan_coats_joint"),
    *("vanilla_cifar10_sngan", "vanilla_mnist"),
)
HAS_ONNX = all(importlib.util.find_spec(p) for p in ("onnx", "onnxscript", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs onnx, onnxscript and onnxruntime")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cyclegan")
    return untrained("cyclegan_coats", folder, "method.generator=resnet")  # of any size


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with averaged weights."""
    more = ("evaluate.learned=false", "evaluate.best_by=swd", "ema.half_life_kimg=0.004")
    resnet = "method.generator=resnet"
    e = experiment("cyclegan_coats", tmp_path_factory.mktemp("run"), 2, resnet, *more)
    engine.train(e)
    return e.run_dir


def pictures(n: int, height: int, width: int) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch_generator(0, "test")) * 2 - 1


def averaged_generator(checkpoint: Path) -> nn.Module:
    """The generator to the second domain, built and filled by hand."""
    weights = read_checkpoint(checkpoint)["method"]["averages"]["weights"]["g"]
    g = ResnetGenerator(3, 4, 1)
    g.load_state_dict({k[3:]: v for k, v in weights.items() if k.startswith("ab.")})
    return g.eval()


@pytest.mark.slow
def test_the_program_is_the_averaged_generator_at_any_size_and_batch(
    checkpoint: Path, tmp_path: Path
) -> None:
    entry = export(checkpoint, tmp_path / "g.pt2")
    program, g = torch.export.load(tmp_path / "g.pt2").module(), averaged_generator(checkpoint)
    with torch.no_grad():
        for x in (pictures(1, 32, 32), pictures(5, 64, 20), pictures(2, 16, 16)):
            assert (program(image=x) - g(x)).abs().max() < 1e-6
    assert entry["weights"] == "ema"
    assert entry["to"] == "zebra"
    assert read_json(tmp_path / "export.json")["g.pt2"] == entry
    cases = [(row["size"], row["batch"]) for row in entry["parity"]["cases"]]
    assert cases == [([32, 32], 1), ([32, 32], 3), ([36, 40], 1), ([36, 40], 3)]
    assert entry["parity"]["largest"] <= 1e-3
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


@pytest.mark.slow
def test_bytes_go_in_and_out(checkpoint: Path, tmp_path: Path) -> None:
    export(checkpoint, tmp_path / "bytes.pt2", uint8=True, to="zebra")
    program, says = load_program(tmp_path / "bytes.pt2")
    seen = np.random.default_rng(0).integers(0, 256, (2, 24, 40, 3), np.uint8)
    made = program(image=torch.from_numpy(seen)).numpy()
    with torch.no_grad():
        wanted = averaged_generator(checkpoint)(
            torch.from_numpy(seen.transpose(0, 3, 1, 2)).float() / 127.5 - 1
        )
    wanted = (np.clip(wanted.numpy(), -1, 1).astype(np.float64) + 1) / 2 * 255
    assert made.dtype == np.uint8
    assert made.shape == seen.shape
    assert np.abs(made - wanted.transpose(0, 2, 3, 1)).max() <= 0.5 + 1e-4
    assert says["uint8"] is True


def test_the_way_back_and_the_weights_as_they_are(checkpoint: Path, tmp_path: Path) -> None:
    entry = export(checkpoint, tmp_path / "back.safetensors", to="horse", weights="raw")
    assert (entry["to"], entry["weights"], entry["format"]) == ("horse", "raw", "safetensors")
    method = engine.load_method(tmp_path / "back.safetensors")
    saved = read_checkpoint(checkpoint)["method"]["networks"]
    assert all(torch.equal(x, saved[name]) for name, x in method.state_dict().items())
    assert engine.load_method(checkpoint).network("g") is not None
    assert not torch.equal(
        engine.load_method(checkpoint).translate(pictures(1, 32, 32), "horse"),
        method.translate(pictures(1, 32, 32), "horse"),
    )


def test_parity_says_what_differs() -> None:
    """Against numbers made by hand: half of the values are off by 2 levels."""
    x = torch.zeros(1, 3, 4, 4)
    inference = Inference(nn.Identity(), lambda image: image, "translate", image="picture")
    off = 4 / 255

    def program(image: Tensor) -> Tensor:
        return image + off * (torch.arange(48) % 2).reshape(image.shape)

    found = parity(inference, program, {((4, 4), 1): {"image": x}}, uint8=False)
    assert found["largest"] == pytest.approx(off)
    assert found["psnr"] == pytest.approx(20 * np.log10(2 / (off * np.sqrt(0.5))))
    assert found["share"] == 0.5
    same = parity(inference, lambda image: image, {((4, 4), 1): {"image": x}}, uint8=False)
    assert (same["largest"], same["psnr"], same["share"]) == (0, None, 0)
    broken = {((4, 4), n): {"image": x.expand(n, -1, -1, -1)} for n in (1, 3)}
    found = parity(inference, lambda image: image / (3 - len(image)) * 0, broken, uint8=False)
    assert not found["largest"] <= 1e-3  # no number, in one case of two
    grey = {((4, 4), 1): {"image": torch.full((1, 4, 4, 3), 100, dtype=torch.uint8)}}
    wrong = parity(inference, lambda image: image + 2, grey, uint8=True)
    assert wrong["largest"] == pytest.approx(1.5 / 127.5, rel=1e-5)  # half a level is rounding
    assert wrong["share"] == 1


@pytest.mark.slow
def test_another_picture_is_not_exported(tmp_path: Path, monkeypatch: Any) -> None:
    checkpoint = untrained("vanilla_coats", tmp_path)

    def off(path: Path) -> Any:
        program, says = load_program(path)
        return (lambda **given: program(**given) + 2e-3), says

    monkeypatch.setattr(exporting, "load_program", off)
    with pytest.raises(UserError, match="differ from PyTorch's by 0"):
        export(checkpoint, tmp_path / "sub" / "g.pt2")
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_what_is_wrong_is_one_sentence(
    checkpoint: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    def told(*words: str) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(["export", *map(str, words)])
        assert left.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return str(line)

    out = str(tmp_path / "out")
    there = tmp_path / "there.pt2"
    there.write_bytes(b"1")
    assert "folder without checkpoints" in told(str(tmp_path), f"{out}.pt2")
    assert "no suffix of a format" in told(str(checkpoint), f"{out}.h5")
    assert "exists" in told(str(checkpoint), str(there))
    assert "not to 'zebr'; did you mean 'zebra'?" in told(
        str(checkpoint), f"{out}.pt2", "--to", "zebr"
    )
    assert "leave --uint8 out" in told(str(checkpoint), f"{out}.safetensors", "--uint8")
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None)
        assert "pip install 'gansuite[onnx]'" in told(str(checkpoint), f"{out}.onnx")
    assert there.read_bytes() == b"1"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["there.pt2"]
    for name in ("x.pt2", "x.onnx", "x.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not written by 'gansuite export'"):
        load_program(tmp_path / "x.pt2")
    with pytest.raises(UserError, match="is no model of gansuite"):
        engine.load_method(tmp_path / "x.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", pytest.param(".onnx", marks=needs_onnx)])
@pytest.mark.parametrize("uint8", [False, True])
def test_an_exported_model_scores_as_its_run(
    uint8: bool, suffix: str, run: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    file = tmp_path / f"model{suffix}"
    export(run, file, uint8=uint8)
    calls = []

    def counted(path: Path) -> Any:
        program, says = load_program(path)
        return (lambda **given: calls.append(1) or program(**given)), says

    monkeypatch.setattr(exporting, "load_program", counted)
    found = exporting.evaluate(file)
    assert len(calls) >= 2  # the pictures, and those of the target domain
    recorded = read_json(run / "results.json")["final"]["a2b"]
    assert found["final"].keys() == {"a2b"}
    assert found["final"]["a2b"] == pytest.approx(recorded, rel=1e-3, abs=1e-6)
    assert exporting.largest_relative(found["final"], found["recorded"])[1] < 1e-3
    monkeypatch.setattr(  # another program scores otherwise
        exporting, "load_program", lambda path: (lambda image: image, {})
    )
    other = exporting.evaluate(file)
    assert exporting.largest_relative(other["final"], other["recorded"])[1] > 1e-2
    file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(UserError, match="has no entry"):
        exporting.evaluate(file)


@pytest.mark.slow
def test_a_model_folder_is_used_like_its_run(run: Path, tmp_path: Path) -> None:
    results = read_json(run / "results.json")
    results["best"]["a2b"]["swd"] = 0.123456
    write_json(run / "results.json", results)
    folder = tmp_path / "model"
    share(run, folder, licence="CC0")
    names = {"README.md", "config.json", "model.safetensors", "samples.jpg"}
    assert {p.name for p in folder.iterdir()} == names
    Image.effect_noise((50, 30), 60).convert("RGB").save(tmp_path / "in.png")
    made = []
    for source in (run, folder):
        method = engine.load_method(source)
        (written,) = translate(method, str(tmp_path / "in.png"), tmp_path / source.name)
        made.append(written.read_bytes())
    assert made[0] == made[1]
    if importlib.util.find_spec("huggingface_hub"):
        from gansuite.tools.hub import Pretrained

        same, x = Pretrained.from_pretrained(str(folder)), pictures(1, 32, 32)
        assert torch.equal(same.translate(x, "zebra"), method.translate(x, "zebra"))
        assert not same.training
    found = engine.evaluate(folder)
    assert found["weights"] == "ema"
    assert found["final"] == found["recorded"] == results["final"]
    assert found["protocol"]["id"] == results["protocol"]["id"]
    exported = export(folder, tmp_path / "g.safetensors")
    assert exported["weights"] == "ema"


def test_the_card_tells_what_the_run_knows(run: Path, tmp_path: Path) -> None:
    results = read_json(run / "results.json")
    share(run, tmp_path / "model")
    card = (tmp_path / "model" / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    says = yaml.safe_load(header)
    assert says["pipeline_tag"] == "image-to-image"
    listed = {m["name"]: m["value"] for m in says["model-index"][0]["results"][0]["metrics"]}
    swd = results["final"]["b2a"]["swd"]
    assert listed[f"swd, b2a (protocol {results['protocol']['id']})"] == pytest.approx(swd)
    assert f"| a2b | swd | lower | {results['final']['a2b']['swd']:.4g} |" in text
    assert "0.1235" not in card  # the best is no score of this model
    for word in (results["data"]["digest"], results["protocol"]["id"], "licence of the pictures"):
        assert word in text
    assert "not stated" in text
    whole = card + (tmp_path / "model" / "config.json").read_text()
    assert str(run.parent) not in whole  # nothing of this machine
    assert json.loads((tmp_path / "model" / "config.json").read_text())["final"] == results["final"]


def test_a_folder_that_is_there_is_left_alone(run: Path, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        share(run, tmp_path)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "safetensors.torch", None)
        with pytest.raises(UserError, match="needs the package safetensors"):
            share(run, tmp_path / "new")
    with pytest.raises(UserError, match="is no finished run"):
        share(tmp_path, tmp_path / "new")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


@functools.cache
def kind(name: str) -> tuple[str, ...]:
    """What decides which networks an experiment's method has."""
    options = catalogue.load_experiment(name).method
    return tuple(
        str(options.get(key)) for key in ("name", "preset", "network", "generator", "norm")
    )


def test_every_method_and_preset_is_exported() -> None:
    assert len(MODELS) == 17
    assert {kind(name)[0] for name in MODELS} == set(method_names())
    assert {kind(name) for name in EXPERIMENTS} == {kind(name) for name in MODELS}


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_each_makes_the_same_pictures(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    checkpoint, trace = untrained(name, tmp_path), exporting.traced
    graphs: list[Any] = []

    def traced(*given: Any) -> Any:  # once: it is the same graph for every format
        graphs.extend([] if graphs else [trace(*given)])
        return graphs[0]

    monkeypatch.setattr(exporting, "traced", traced)
    for suffix in (".pt2", ".onnx") if HAS_ONNX else (".pt2",):
        check_pictures(export(checkpoint, file := tmp_path / f"model{suffix}"), file, checkpoint)


def check_pictures(entry: dict[str, Any], file: Path, checkpoint: Path) -> None:
    assert entry["parity"]["largest"] <= 1e-3
    assert len(entry["parity"]["cases"]) == (4 if "height" in str(entry["inputs"]) else 2)
    program, _ = load_program(file)
    given = {
        "image": pictures(2, 32, 32),
        "reference": pictures(2, 32, 32),
        "strength": torch.ones(1),
        "truncation": torch.ones(1),
    }
    method = engine.load_method(checkpoint)
    if "z" in entry["inputs"]:
        given["z"] = method.z_from(2, torch_generator(7, "z"))
        wanted = method.sample(2, torch_generator(7, "z"))
    elif "label" in entry["inputs"]:
        given["label"] = torch.zeros(2, entry["inputs"]["label"]["shape"][1])
        given["label"][:, 0] = 1
        wanted = method.g(given["image"], given["label"])
    elif "reference" in entry["inputs"]:
        wanted = method.stylize(given["image"], [(given["reference"], 2.0)])
    else:
        wanted = method.translate(given["image"], entry["to"])
    made = program(**{key: given[key] for key in entry["inputs"]})
    assert (made - wanted).abs().max() < 1e-4
    assert made.std() > 0
    # in the method's place
    model = load_model(file)
    assert (model.task, model.by_reference) == (method.task, method.by_reference)
    if "z" in entry["inputs"]:
        same = model.sample(2, torch_generator(7, "z"))
    elif model.by_reference:
        same = model.stylize(given["image"], [(given["reference"], 2.0)])
    else:
        to = model.targets[0]
        same, wanted = (m.translate(given["image"], to) for m in (model, method))
        sides = [-(-side // model.stride) * model.stride for side in (36, 40)]
        assert model.translate(pictures(1, *sides), to).shape == (1, 3, *sides)
    assert (same - wanted).abs().max() < 1e-4
