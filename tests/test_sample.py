"""Latents on the command line, and films."""

from __future__ import annotations

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers import experiment, untrained
from PIL import Image, ImageSequence
from torch import Tensor, nn

from gansuite import cli, engine
from gansuite.errors import UserError
from gansuite.imaging import to_bytes
from gansuite.methods._unconditional import slerp
from gansuite.rng import torch_generator
from gansuite.runs import read_json
from gansuite.tools import progress
from gansuite.tools.projection import project, pyramid_mse
from gansuite.tools.sample import read_seeds, sample
from gansuite.tools.video import translate_video

HAS_AV = importlib.util.find_spec("av") is not None
needs_av = pytest.mark.skipif(not HAS_AV, reason="needs av")


@pytest.fixture(scope="module")
def stylegan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A small one with a mean w other than 0."""
    e = experiment("stylegan_coats", tmp_path_factory.mktemp("s"), 1)
    method = engine.build_method(e.method, engine.build_data(e).spec, seed=0).eval()
    method.g.mapping.w_avg.copy_(torch.randn(8, generator=torch_generator(0, "mean")))
    return method


@pytest.fixture(scope="module")
def dcgan(tmp_path_factory: pytest.TempPathFactory) -> Any:
    e = experiment("vanilla_coats", tmp_path_factory.mktemp("v"), 1)
    method = engine.build_method(e.method, engine.build_data(e).spec, seed=0).eval()
    with torch.no_grad():
        for layer in (m for m in method.g.modules() if isinstance(m, nn.ConvTranspose2d)):
            layer.weight.mul_(8)
    return method


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def z_of(method: Any, *seeds: int) -> Tensor:
    return torch.cat([method.z_from(1, torch_generator(s, "sample")) for s in seeds])


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [3]), ("1,5-9", [1, 5, 6, 7, 8, 9]), (" 2 , 0-1,2", [2, 0, 1])]
)
def test_seeds_are_numbers_and_ranges(text: str, seeds: list[int]) -> None:
    assert read_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "a", "1,", "5-3", "-1", "1.5", "0-9999999"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="such as 1,5-9"):
        read_seeds(text)


def test_a_picture_of_a_seed_is_the_same_alone_and_among_others(dcgan: Any, tmp_path: Path) -> None:
    written = sample(dcgan, 1, tmp_path / "a", seeds=[4, 1, 9])
    assert [p.name for p in written] == ["seed4.png", "seed1.png", "seed9.png", "sheet.jpg"]
    sample(dcgan, 1, tmp_path / "b", seeds=[1])
    assert (load(tmp_path / "a" / "seed1.png") == load(tmp_path / "b" / "seed1.png")).all()
    with torch.no_grad():
        (wanted,) = to_bytes(dcgan.g(z_of(dcgan, 9)))
    assert (load(tmp_path / "a" / "seed9.png") == wanted).all()


def test_truncation_goes_from_the_mean_picture_to_the_drawn_one(
    stylegan: Any, tmp_path: Path
) -> None:
    def made(psi: float) -> np.ndarray:
        sample(stylegan, 1, tmp_path / str(psi), seeds=[1, 2], truncation=psi)
        return np.stack([load(tmp_path / str(psi) / f"seed{s}.png") for s in (1, 2)])

    with torch.no_grad():
        w = stylegan.g.mapping(z_of(stylegan, 1, 2))
        mean = stylegan.g.mapping.w_avg
        for psi in (0.0, 0.5, 1.0):
            ws = (mean + psi * (w - mean))[:, None].expand(-1, stylegan.g.num_ws, -1)
            wanted = to_bytes(stylegan.g.synthesis(ws, noise="const").clamp(-1, 1)).astype(int)
            assert np.abs(made(psi) - wanted).max() <= 1
    assert (made(0.0)[0] == made(0.0)[1]).all()


def test_a_walk_goes_through_the_pictures_and_back(dcgan: Any, tmp_path: Path) -> None:
    walk = tmp_path / "walk.webp"
    *_, path, _ = sample(dcgan, 1, tmp_path, seeds=[1, 2, 3], interpolate=walk, steps=2)
    assert path == walk
    with Image.open(walk) as image:
        frames = [np.asarray(f.convert("RGB"), float) for f in ImageSequence.Iterator(image)]
    assert len(frames) == 6
    assert frames[0].shape == (256, 256, 3)
    a, b = z_of(dcgan, 1), z_of(dcgan, 2)
    with torch.no_grad():
        for frame, z in ((frames[0], a), (frames[1], slerp(a, b, 0.5)), (frames[2], b)):
            (wanted,) = to_bytes(dcgan.g(z)).astype(float)
            assert np.abs(frame[4::8, 4::8] - wanted).mean() < 8  # WebP loses something


def test_a_walk_is_a_film(dcgan: Any, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    walk = tmp_path / "walk.mp4"
    sample(dcgan, 2, tmp_path / "out", seed=3, interpolate=walk, steps=3)
    with av.open(str(walk)) as film:
        assert film.streams.video[0].average_rate == 24
        frames = [frame.to_ndarray(format="rgb24").astype(float) for frame in film.decode(video=0)]
    assert [frame.shape for frame in frames] == [(256, 256, 3)] * 6
    for frame, number in ((frames[0], 0), (frames[3], 1)):
        wanted = load(tmp_path / f"out/{number:06d}.png").astype(float)
        assert np.abs(frame[4::8, 4::8] - wanted).mean() < 8  # 4:2:0 loses something
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "walk.mp4"]


def test_a_walk_of_styles_is_straight_in_w(stylegan: Any, tmp_path: Path) -> None:
    sample(stylegan, 2, tmp_path, interpolate=tmp_path / "walk.gif", steps=2, truncation=0.5)
    with Image.open(tmp_path / "walk.gif") as image:
        assert image.n_frames == 4
        assert image.info["loop"] == 0
        assert image.info["duration"] == 40  # hundredths of a second: 42 is not to be had


def test_mixing_takes_coarse_styles_of_rows_and_fine_ones_of_columns(
    stylegan: Any, tmp_path: Path
) -> None:
    written = sample(stylegan, 1, tmp_path, seeds=[1, 2, 3], mix=True)
    assert [p.name for p in written[3:]] == ["mix_2.jpg", "mix_4.jpg", "mix_6.jpg", "sheet.jpg"]
    assert load(tmp_path / "mix_2.jpg").shape[0] > 3 * 96  # a head and two rows


def test_what_a_model_has_not_is_one_sentence(
    dcgan: Any, stylegan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(method: Any, **options: Any) -> str:
        with pytest.raises(UserError) as told:
            sample(method, options.pop("n", 4), tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()
        return str(told.value)

    assert "vanilla has no styles" in refused(dcgan, truncation=0.7)
    assert "no --mix" in refused(dcgan, mix=True, seeds=[1, 2])
    assert "two seeds or more" in refused(stylegan, mix=True, seeds=[1])
    assert "is no animation" in refused(dcgan, interpolate=tmp_path / "a.txt")
    assert "two pictures or more" in refused(dcgan, n=1, interpolate=tmp_path / "a.gif")
    other = SimpleNamespace(task="generate", title="mine")
    assert "mine has no latents" in refused(other, interpolate=tmp_path / "a.gif")
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'gansuite[video]'" in refused(dcgan, interpolate=tmp_path / "a.mp4")
    with pytest.raises(UserError, match="nothing can be projected"):
        project(other, tmp_path / "a.png", tmp_path)


@pytest.mark.parametrize("name", [pytest.param("stylegan", marks=pytest.mark.slow), "dcgan"])
def test_projection_finds_the_latent_of_a_picture_of_its_own(
    name: str, request: Any, tmp_path: Path
) -> None:
    method = request.getfixturevalue(name)
    with torch.no_grad():
        wanted = method.pictures(z_of(method, 5)).clamp(-1, 1)
    (pixels,) = to_bytes(wanted)
    wide = np.pad(pixels, ((0, 0), (6, 6), (0, 0)))  # the square in the middle counts
    Image.fromarray(wide).save(tmp_path / "p.png")
    options = {"steps": 30, "lr": 0.1}
    told = project(method, tmp_path / "p.png", tmp_path / "out", **options)
    assert told["final"] < told["first"] / 3
    assert len(told["losses"]) == 30
    assert read_json(tmp_path / "out" / "loss.json") == told
    latent = torch.from_numpy(np.load(tmp_path / "out" / "latent.npy"))[None]
    with torch.no_grad():
        if name == "stylegan":
            ws = latent[:, None].expand(-1, method.g.num_ws, -1)
            made = method.g.synthesis(ws, noise="const").clamp(-1, 1)
        else:
            made = method.pictures(latent)
    seen = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    assert float(pyramid_mse(made, seen)) == pytest.approx(told["final"], rel=0.02)
    assert (load(tmp_path / "out" / "projected.png") == to_bytes(made)[0]).mean() > 0.99
    again = project(method, tmp_path / "p.png", tmp_path / "again", **options)
    assert again["losses"] == told["losses"]
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        *("projected.png", "beside.jpg", "latent.npy", "loss.json", "loss.png")
    }


@pytest.mark.slow
def test_the_commands(tmp_path: Path, capsys: Any) -> None:
    checkpoint = untrained("stylegan_coats", tmp_path)
    walk = tmp_path / "walk.gif"
    words = ["--seeds", "1,3-4", "--truncation", "0.7", "--mix", "--interpolate", str(walk)]
    for given in (
        ["sample", str(checkpoint), str(tmp_path / "out"), *words, "--steps", "1"],
        ["project", str(checkpoint), str(tmp_path / "out" / "seed3.png"), str(tmp_path / "p"),
         "--steps", "2"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            cli.main(given)
        assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "3 picture(s) and sheet.jpg" in text
    assert str(walk) in text
    assert "the loss fell from" in text


# -- films -------------------------------------------------------------------------------------


class Inverter:
    task = "translate"
    stride = 8
    targets = ("day", "night")

    def __init__(self) -> None:
        self.spec = SimpleNamespace(domains=self.targets, channels=3, size=32)
        self.batches: list[int] = []

    def translate(self, x: Tensor, to: str) -> Tensor:
        assert x.shape[2] % 8 == x.shape[3] % 8 == 0
        self.batches.append(len(x))
        return -x


def film(path: Path, frames: int, size: tuple[int, int] = (45, 38), sound: bool = True) -> None:
    """Frame i is of grey 10 i, at 10 a second; a tone beside it."""
    import av

    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10, options={"crf": "1"})
        video.width, video.height, video.pix_fmt = *size, "yuv444p"
        tone = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        for i in range(frames):
            array = np.full((size[1], size[0], 3), 10 * i + 5, np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        out.mux(video.encode())
        if tone is not None:
            wave = np.sin(np.arange(1600 * frames) / 10, dtype=np.float32)[None]
            for start in range(0, wave.shape[1], 1024):
                part = np.ascontiguousarray(wave[:, start : start + 1024])
                frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = 16000, start
                frame.time_base = Fraction(1, 16000)
                out.mux(tone.encode(frame))
            out.mux(tone.encode())


def packets(path: Path, kind: str) -> list[bytes]:
    import av

    with av.open(str(path)) as found:
        return [bytes(p) for p in found.demux(**{kind: 0}) if p.size]


@needs_av
def test_a_film_is_translated_frame_by_frame_and_keeps_its_sound(tmp_path: Path) -> None:
    import av

    film(tmp_path / "in.mp4", 11)
    method, seen = Inverter(), []
    count = translate_video(
        method, tmp_path / "in.mp4", tmp_path / "out.mp4", batch=4,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert count == 11
    assert method.batches == [4, 4, 3]
    assert seen == [(i, 11) for i in range(1, 12)]
    with av.open(str(tmp_path / "out.mp4")) as made:
        assert made.streams.video[0].average_rate == 10
        frames = list(made.decode(video=0))
    times = [float(frame.time) for frame in frames]
    assert times == pytest.approx([i / 10 for i in range(11)], abs=1e-3)
    for i, frame in enumerate(frames):
        array = frame.to_ndarray(format="rgb24").astype(int)
        assert array.shape == (38, 46, 3)  # sides that 4:2:0 takes
        assert np.abs(array - (255 - 10 * i - 5)).max() <= 4
    assert packets(tmp_path / "out.mp4", "audio") == packets(tmp_path / "in.mp4", "audio") != []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@needs_av
def test_what_is_no_film_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Path, output: Path) -> str:
        with pytest.raises(UserError) as told:
            translate_video(Inverter(), source, output)
        return str(told.value)

    broken = tmp_path / "a.mp4"
    broken.write_bytes(b"no film")
    assert "cannot be read as a film" in refused(broken, tmp_path / "b.mp4")
    assert "name it .mp4" in refused(broken, tmp_path / "b.txt")
    assert "is the input" in refused(broken, broken)
    assert "a.mp4' is a file" in refused(broken, broken / "b.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'gansuite[video]'" in refused(broken, tmp_path / "b.mp4")


def test_a_bar_tells_how_many_a_second_and_is_silent_in_a_log(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([100.0, 101.0, 104.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with progress.progress_bar("pictures") as bar:
        bar.say("translating horse to zebra")
        for done in (8, 16, 40):
            bar(done, 2000)
    assert bar.speed == ", 8 pictures/s"  # of what came after the first batch
    assert capsys.readouterr().out == "translating horse to zebra\n"
