"""`gansuite translate` and `gansuite sample` on methods that are easy to foresee."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from gansuite import cli, devices, engine
from gansuite.errors import UserError
from gansuite.imaging import read_picture, save_picture
from gansuite.networks.layers import InstanceNorm2d
from gansuite.rng import numpy_generator
from gansuite.tools.sample import sample
from gansuite.tools.tiles import Tiles
from gansuite.tools.translate import translate


class Translator:
    """Applies ``change`` and writes down the shapes it was given."""

    task = "translate"

    def __init__(
        self,
        change: Callable[[Tensor], Tensor] = lambda x: x,
        *,
        stride: int = 4,
        channels: int = 3,
        domains: tuple[str, ...] = ("horse", "zebra"),
    ) -> None:
        self.spec = SimpleNamespace(domains=domains, channels=channels, size=64)
        self.targets = domains
        self.stride, self.change = stride, change
        self.calls: list[tuple[tuple[int, ...], str]] = []

    def translate(self, x: Tensor, to: str) -> Tensor:
        assert x.shape[1] == self.spec.channels
        assert x.shape[2] % self.stride == x.shape[3] % self.stride == 0
        assert float(x.abs().max()) <= 1
        self.calls.append((tuple(x.shape), to))
        return self.change(x)


class Sampler:
    task = "generate"

    def __init__(self) -> None:
        self.spec = SimpleNamespace(domains=("digits",), channels=1, size=8)
        self.targets = ("digits",)
        self.stride = 1

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 1, 8, 8, generator=generator) * 2 - 1


def pixels(*shape: int, bits: int = 8) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return numpy_generator(1, "pixels", *shape).integers(0, 1 << bits, shape, dtype)


def save(path: Path, array: np.ndarray, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return array


def load(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("stride", [1, 4, 32, 256])
@pytest.mark.parametrize("size", [(250, 333), (64, 1800), (1, 1), (5, 300)])
def test_any_size_comes_back_exactly(tmp_path: Path, size: tuple[int, int], stride: int) -> None:
    array = save(tmp_path / "in" / "a.png", pixels(*size, 3))
    method = Translator(stride=stride)
    (path,) = translate(method, str(tmp_path / "in"), tmp_path / "out")
    assert (load(path) == array).all()
    padded = method.calls[0][0][2:]
    assert all(0 <= p - max(s, 16) < stride for p, s in zip(padded, size, strict=True))


def test_padding_is_the_reflection(tmp_path: Path) -> None:
    array = save(tmp_path / "a.png", pixels(30, 29, 3))
    seen: list[Tensor] = []

    def watch(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    translate(Translator(watch, stride=16), str(tmp_path / "a.png"), tmp_path / "out")
    expected = np.pad(array, ((1, 1), (1, 2), (0, 0)), mode="reflect") / 127.5 - 1
    assert np.abs(seen[0][0].permute(1, 2, 0).numpy() - expected).max() < 1e-6


def test_all_kinds_of_pictures_come_back_as_what_they_were(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    colour16 = pixels(20, 21, 3, bits=16)
    arrays = {
        "grey.png": save(folder / "grey.png", pixels(20, 21)),
        "alpha.png": save(folder / "alpha.png", pixels(20, 21, 4)),
        "grey alpha.png": save(folder / "grey alpha.png", pixels(20, 21, 2)),
        "grey16.png": save(folder / "grey16.png", pixels(20, 21, bits=16)),
        "grey16.tiff": save(folder / "grey16.tiff", pixels(20, 21, bits=16)),
        "画 é.PNG": save(folder / "画 é.PNG", pixels(20, 21, 3)),
        "lossless.webp": save(folder / "lossless.webp", pixels(20, 21, 3), lossless=True),
    }
    save_picture(colour16, folder / "colour16.png")
    save(folder / "deep" / "er" / "b.bmp", pixels(9, 9, 3))
    (folder / "notes.txt").write_text("not a picture")
    (folder / ".hidden.png").write_text("not a picture")
    counts: list[tuple[int, int]] = []
    written = translate(
        Translator(), str(folder), out, progress=lambda done, total: counts.append((done, total))
    )
    for name, array in arrays.items():
        assert (load(out / name) == array).all(), name
    assert (read_picture(out / "colour16.png").colour == colour16).all()
    assert (out / "deep" / "er" / "b.bmp").is_file()
    assert counts == [(i, 9) for i in range(1, 10)]
    assert sorted(p for p in out.rglob("*") if p.is_file()) == sorted(written)


def test_alpha_is_kept_and_colour_translated(tmp_path: Path) -> None:
    array = save(tmp_path / "a.png", pixels(16, 16, 4))
    (path,) = translate(Translator(lambda x: -x), str(tmp_path / "a.png"), tmp_path / "out")
    assert (load(path)[:, :, :3] == 255 - array[:, :, :3]).all()
    assert (load(path)[:, :, 3] == array[:, :, 3]).all()


def test_grey_stays_grey_by_luminance(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.full((16, 16), 100, np.uint8))
    paint = torch.tensor([200, 40, 90]).view(1, 3, 1, 1) / 127.5 - 1
    (path,) = translate(
        Translator(lambda x: paint.expand_as(x)), str(tmp_path / "a.png"), tmp_path / "out"
    )
    expected = Image.new("RGB", (1, 1), (200, 40, 90)).convert("L").getpixel((0, 0))
    assert (load(path) == expected).all()


def test_a_one_channel_model_gives_grey_and_says_so(tmp_path: Path) -> None:
    array = save(tmp_path / "a.png", pixels(16, 16, 3))
    notes: list[str] = []
    method = Translator(channels=1)
    (path,) = translate(method, str(tmp_path / "a.png"), tmp_path / "out", note=notes.append)
    expected = np.asarray(Image.fromarray(array).convert("L")).astype(int)
    assert np.abs(load(path) - expected).max() <= 1  # PIL's weights have 16 bits
    assert any("grey" in line for line in notes)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", pixels(20, 31, 3), exif=exif)
    (path,) = translate(Translator(), str(tmp_path / "a.png"), tmp_path / "out")
    with Image.open(tmp_path / "a.png") as image:
        assert (load(path) == np.asarray(ImageOps.exif_transpose(image))).all()
    with Image.open(path) as image:
        assert image.getexif().get(0x0112, 1) == 1


def test_one_file_to_one_file_and_to_a_folder(tmp_path: Path) -> None:
    array = save(tmp_path / "a.png", pixels(16, 16, 3))
    source = str(tmp_path / "a.png")
    assert translate(Translator(), source, tmp_path / "b.webp") == [tmp_path / "b.webp"]
    assert (load(tmp_path / "b.webp") == array).all()
    assert translate(Translator(), source, tmp_path / "v1.2") == [tmp_path / "v1.2" / "a.png"]
    (tmp_path / "odd.png").mkdir()  # a folder, whatever it is called
    assert translate(Translator(), source, tmp_path / "odd.png") == [tmp_path / "odd.png/a.png"]


def test_pattern_keeps_the_folders_below_its_fixed_part(tmp_path: Path) -> None:
    for name in ("x/1.png", "x/2.jpg", "y/1.png", "1.png"):
        save(tmp_path / "in" / name, pixels(16, 16, 3))
    pattern, out = os.path.join(str(tmp_path / "in"), "*", "*.png"), tmp_path / "out"
    assert translate(Translator(), pattern, out) == [out / "x/1.png", out / "y/1.png"]
    deep = os.path.join(str(tmp_path / "in"), "**", "1.*")
    assert len(translate(Translator(), deep, tmp_path / "deep")) == 3


def test_a_file_name_with_brackets_is_a_file(tmp_path: Path) -> None:
    save(tmp_path / "a[1].png", pixels(16, 16, 3))
    assert len(translate(Translator(), str(tmp_path / "a[1].png"), tmp_path / "out")) == 1


def test_results_inside_the_input_folder_are_not_translated_again(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(16, 16, 3))
    for _ in range(2):
        assert len(translate(Translator(), str(tmp_path), tmp_path / "out")) == 1


def test_formats_that_cannot_hold_the_result_become_png(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    notes: list[str] = []
    save(folder / "a.gif", pixels(16, 16))
    save(folder / "b.pgm", pixels(16, 16, bits=16))
    save(folder / "b.png", pixels(16, 16))
    written = translate(Translator(), str(folder), out, note=notes.append)
    assert [p.name for p in written] == ["a.png", "b.pgm.png", "b.png"]
    assert load(out / "b.pgm.png").dtype == np.uint16
    assert any("a.gif" in line and "1 more" in line for line in notes)
    with pytest.raises(UserError, match=r"a\.jpg' cannot hold this picture .*16 bits"):
        translate(Translator(), str(folder / "b.pgm"), out / "a.jpg")


def test_the_direction_is_the_second_domain_unless_said(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(16, 16, 3))
    source, method = str(tmp_path / "a.png"), Translator()
    notes: list[str] = []
    translate(method, source, tmp_path / "out", note=notes.append)
    translate(method, source, tmp_path / "out", to="horse")
    assert [to for _, to in method.calls] == ["zebra", "horse"]
    assert notes[0] == "translating horse to zebra (--to horse for the way back)"
    with pytest.raises(UserError, match=r"no domain 'zebr', .*did you mean 'zebra'"):
        translate(method, source, tmp_path / "out", to="zebr")
    many = Translator(domains=("horse", "zebra", "leopard"))
    with pytest.raises(UserError, match="horse, zebra, leopard; say which with --to"):
        translate(many, source, tmp_path / "out")
    translate(many, source, tmp_path / "out", to="leopard")
    assert many.calls[-1][1] == "leopard"
    one = Translator()
    one.targets = ("horse",)
    translate(one, source, tmp_path / "out", note=notes.append)
    assert one.calls[-1][1] == "horse"
    assert "translating zebra to horse" in notes
    with pytest.raises(UserError, match="translates zebra to horse; there is no way back"):
        translate(one, source, tmp_path / "out", to="zebra")


def test_pictures_of_one_size_share_a_batch(tmp_path: Path) -> None:
    for i in range(5):
        save(tmp_path / f"{i}.png", pixels(16 if i < 4 else 32, 30 + i % 2, 3))
    method = Translator()
    translate(method, str(tmp_path), tmp_path / "out", batch=3)
    assert [shape[0] for shape, _ in method.calls] == [3, 1, 1]  # 30 and 31 are padded to 32


def test_several_devices_share_the_pictures(tmp_path: Path) -> None:
    """Each has a method of its own, and what they make is what one makes."""

    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spec, self.task = Translator().spec, "translate"
            self.targets, self.stride = ("horse", "zebra"), 4
            self.weight = torch.nn.Parameter(torch.tensor(-0.5))

        def translate(self, x: Tensor, to: str) -> Tensor:
            seen.add(id(self))
            together.wait(60)  # the other one is at work as well
            return x * self.weight

    seen: set[int] = set()
    together = threading.Barrier(1)
    for i in range(6):
        save(tmp_path / f"in/{i:02d}.png", pixels(16, 16 + 4 * i, 3))
    done: list[int] = []
    one = translate(Counting(), str(tmp_path / "in"), tmp_path / "one")
    assert len(seen) == 1
    seen.clear()
    together = threading.Barrier(2)
    two = translate(
        Counting(), str(tmp_path / "in"), tmp_path / "two", devices=["cpu", "cpu"],
        progress=lambda number, total: done.append(number),
    )  # fmt: skip
    assert [p.name for p in two] == [p.name for p in one]
    assert [p.read_bytes() for p in two] == [p.read_bytes() for p in one]
    assert done == list(range(1, 7))
    assert len(seen) == 2


def test_nothing_is_written_when_one_picture_is_damaged(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", pixels(16, 16, 3))
    (tmp_path / "in" / "b.png").write_bytes((tmp_path / "in" / "a.png").read_bytes()[:200])
    (tmp_path / "in" / "c.jpg").write_text("text")
    with pytest.raises(UserError, match=r"2 of 3 pictures .*b\.png.*c\.jpg"):
        translate(Translator(), str(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_places(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    save(folder / "a.png", pixels(16, 16, 3))
    save(folder / "b.png", pixels(16, 16, 3))
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    before = {p: p.read_bytes() for p in folder.iterdir()}
    for inputs, output, message in (
        (tmp_path / "empty", "out", r"no picture in folder '.*empty'; accepted are .*\.png"),
        (folder / "*.jpg", "out", "no picture matches"),
        (tmp_path / "gone", "out", "does not exist"),
        (folder, "in", "one of the inputs"),
        (folder / "*.png", "in", "one of the inputs"),
        (folder / "a.png", "in/a.png", "one of the inputs"),
        (folder / "a.png", "in/b.gif", r"name it \.png"),
        (folder, "out.png", "2 pictures but .* names one file"),
        (folder, "file", "is a file"),
        (folder / "a.png", "file/b.png", "is a file"),
        (folder / "a.png", "out.mp4", "names a film"),
    ):
        with pytest.raises(UserError, match=message):
            translate(Translator(), str(inputs), tmp_path / output)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    assert not (tmp_path / "out").exists()


def test_a_broken_model_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(16, 16, 3))
    with pytest.raises(UserError, match=r"a\.png' is not finite"):
        translate(Translator(lambda x: x * torch.nan), str(tmp_path / "a.png"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_tiles_make_what_the_whole_makes(tmp_path: Path) -> None:
    """A network that sees 7 pixels around, tiles that share 32: no pixel is another."""
    save(tmp_path / "in.png", pixels(101, 150, 3))
    blur = Translator(lambda x: F.avg_pool2d(x, 15, 1, 7))
    made = []
    for tile in (None, 64):
        translate(blur, str(tmp_path / "in.png"), tmp_path / "out.png", tile=tile, overlap=32)
        made.append(load(tmp_path / "out.png").astype(int))
    assert np.abs(made[0] - made[1]).max() <= 1  # of 255: a rounding
    assert (made[0] != made[1]).mean() < 0.01
    assert {shape for shape, _ in blur.calls[1:]} == {(1, 3, 64, 64)}
    assert len(blur.calls) == 1 + 3 * 4


def test_tiles_share_the_statistics_of_the_picture() -> None:
    """Instance norms of a tile would make the dark and the bright half alike."""
    noise = torch.rand(2, 3, 192, 256, generator=torch.Generator().manual_seed(0))
    x = noise * 0.2 + torch.linspace(-0.9, 0.7, 256)
    x[1] = x[1].flip(1)
    norms = torch.nn.Sequential(InstanceNorm2d(3), torch.nn.LeakyReLU(0.5), InstanceNorm2d(3))
    tiles, whole = Tiles(128, 16), norms(x)
    assert tiles.sample(x, 4).shape == (2 * 3 * 4, 3, 64, 64)  # all of it
    torch.testing.assert_close(tiles.translate_alike(x, norms, 4), whole, atol=1e-4, rtol=1e-4)
    assert (tiles.translate(x, norms) - whole).abs().max() > 0.5
    few = Tiles(64, 16)
    assert few.sample(x[:1], 4).shape == (4, 3, 64, 64)
    assert (few.translate_alike(x, norms, 4) - whole).abs().max() < 0.3
    assert torch.equal(norms(x), whole)  # and nothing stays behind


def test_tiles_blend_where_they_differ() -> None:
    """What depends on the whole tile (as with instance norm) has no edge: the means of neighbouring
    tiles are 0.32 apart, neighbouring pixels a tenth of that at most."""
    x = torch.linspace(-1, 1, 200).expand(1, 1, 64, 200).contiguous()
    tiles = Tiles.of(64, 32, 4)
    made = tiles.translate(x, lambda part: torch.full_like(part, part.mean().item()))
    assert made.diff(dim=3).abs().max() < 0.032
    assert made.diff(dim=2).abs().max() < 1e-6
    assert made[..., 0] == pytest.approx(x[..., :64].mean().item())
    for side, overlap in ((8, 0), (64, 40), (64, -1)):
        with pytest.raises(UserError, match="--tile"):
            Tiles.of(side, overlap, 4)


def test_sample_writes_numbered_pictures_and_a_sheet(tmp_path: Path) -> None:
    written = sample(Sampler(), 5, tmp_path / "a", batch=2)
    assert [p.name for p in written] == [*(f"00000{i}.png" for i in range(5)), "sheet.jpg"]
    assert load(written[0]).shape == (8, 8)
    assert load(written[-1]).shape == (4 + 2 * 100, 4 + 3 * 100, 3)  # 5 pictures in rows of 3
    first = [load(p) for p in written[:-1]]
    assert len({a.tobytes() for a in first}) == 5
    fewer = sample(Sampler(), 3, tmp_path / "b", batch=2)
    assert all((load(p) == a).all() for p, a in zip(fewer[:-1], first, strict=False))
    other = sample(Sampler(), 1, tmp_path / "c", batch=2, seed=1)
    assert (load(other[0]) != first[0]).any()


def test_sample_and_translate_refuse_each_others_models(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(16, 16, 3))
    with pytest.raises(UserError, match="gansuite translate"):
        sample(Translator(), 2, tmp_path / "out")
    with pytest.raises(UserError, match="gansuite sample"):
        translate(Sampler(), str(tmp_path / "a.png"), tmp_path / "out")
    with pytest.raises(UserError, match="1 or more"):
        sample(Sampler(), 0, tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        sample(Sampler(), 2, tmp_path / "file")
    assert not (tmp_path / "out").exists()


def test_the_chosen_device_reaches_the_model_and_its_tensors(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, which computes nothing: where the tensors arrive is all there is."""
    seen: list[tuple[str, str]] = []

    class Model(torch.nn.Module):
        def __init__(self, like: Any) -> None:
            super().__init__()
            self.spec, self.targets, self.task = like.spec, like.targets, like.task
            self.stride = like.stride
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def translate(self, x: Tensor, to: str) -> Tensor:
            seen.append((self.weight.device.type, x.device.type))
            return torch.zeros(x.shape)

        def sample(self, n: int, generator: torch.Generator) -> Tensor:
            seen.append((self.weight.device.type, generator.device.type))
            return torch.zeros(n, 1, 8, 8)

    save(here / "a.png", pixels(16, 16, 3))
    monkeypatch.setattr(devices, "choose_device", lambda name: torch.device(name))
    Path("x.ckpt").touch()
    for words, like in (
        (["translate", "x.ckpt", "a.png", "out"], Translator()),
        (["sample", "x.ckpt", "out", "-n", "1"], Sampler()),
    ):
        monkeypatch.setattr(engine, "load_method", lambda *_, like=like: Model(like))
        with pytest.raises(SystemExit) as end:
            cli.main([*words, "--device", "meta"])
        assert end.value.code == 0
    assert seen == [("meta", "meta"), ("meta", "cpu")]  # noise is drawn on the CPU, for all alike


def test_devices_are_chosen_by_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, mps = torch.cuda, torch.backends.mps
    for gpus, apple, expected in ((0, False, "cpu"), (0, True, "mps"), (2, False, "cuda")):
        monkeypatch.setattr(cuda, "is_available", lambda gpus=gpus: gpus > 0)
        monkeypatch.setattr(cuda, "device_count", lambda gpus=gpus: gpus)
        monkeypatch.setattr(mps, "is_available", lambda apple=apple: apple)
        assert devices.choose_device("auto").type == expected
    assert devices.choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="no device 'cuda:2' here; --device auto"):
        devices.choose_device("cuda:2")
    assert devices.first_gpus(2) == [torch.device("cuda:0"), torch.device("cuda:1")]
    for count in (0, 3):
        with pytest.raises(UserError, match=f"--devices is {count}, and there are 2 GPUs here"):
            devices.first_gpus(count)
    for name in ("gpu", "meta", "cuda:x"):
        with pytest.raises(UserError, match=f"'{name}' is no device; give auto, cpu"):
            devices.choose_device(name)


def test_the_command_counts_the_pictures_without_their_sheet(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engine, "load_method", lambda *_: Sampler())
    Path("x.ckpt").touch()
    with pytest.raises(SystemExit) as end:
        cli.main(["sample", "x.ckpt", "out", "-n", "2"])
    assert end.value.code == 0
    assert capsys.readouterr().out == "2 picture(s) and sheet.jpg written to out\n"
    assert len(list((here / "out").glob("*.png"))) == 2
