"""`gansuite demo`: what it asks of models, and its page in a real browser."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser
from helpers import untrained
from PIL import Image

from gansuite.errors import UserError
from gansuite.imaging import Picture, read_picture
from gansuite.rng import torch_generator
from gansuite.tools import demo
from gansuite.tools.showing import LARGEST, names_of, resized, sampled, translated


def test_a_name_is_as_short_as_tells_it_apart() -> None:
    assert names_of(["runs/cyclegan/seed0", "runs/cyclegan/seed1", "runs/dualgan/seed0/"]) == [
        "cyclegan/seed0",
        "cyclegan/seed1",
        "dualgan/seed0",
    ]
    assert names_of(["a/cyclegan/seed0", "b/cyclegan/seed0"]) == [
        "a/cyclegan/seed0",
        "b/cyclegan/seed0",
    ]
    assert names_of(["x/zebra.onnx", "model", "y/z/model"]) == ["zebra.onnx", "model", "z/model"]
    assert names_of(["/w/x/zebra.onnx", "s3://bucket/x/zebra.onnx"]) == [
        "w/x/zebra.onnx",
        "bucket/x/zebra.onnx",
    ]


class Same:
    """Translates a picture to itself."""

    spec = SimpleNamespace(size=32, channels=3)
    stride = 4

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def translate(self, x: torch.Tensor, to: str) -> torch.Tensor:
        self.seen.append((x.shape[2], x.shape[3]))
        return x


def test_what_is_worked_on_is_bounded() -> None:
    noise = np.random.default_rng(0)
    model = Same()
    picture = Picture(noise.integers(0, 256, (48, 90, 3), np.uint8))
    assert translated(model, picture, "zebra").picture.colour.shape == (32, 60, 3)
    own = translated(model, picture, "zebra", as_trained=False).picture
    assert (own.colour == picture.colour).all()
    assert model.seen == [(32, 60), (48, 92)]
    # 16 bits and alpha stay, whatever the size
    deep = noise.integers(0, 65536, (40, 40, 4), np.uint16)
    made = translated(model, Picture(deep[..., :3].copy(), deep[..., 3].copy()), "zebra").picture
    assert (made.kind, made.colour.shape, made.alpha is not None) == ("RGBA16", (32, 32, 3), True)
    # what is large is bounded, and seen in tiles
    model.seen.clear()
    wide = Picture(noise.integers(0, 256, (20, 3 * LARGEST, 1), np.uint8))
    made = translated(model, wide, "zebra", as_trained=False).picture
    assert made.colour.shape == (7, LARGEST, 1)
    assert len(model.seen) > 1
    assert max(max(size) for size in model.seen) == 512
    assert np.abs(made.colour.astype(int) - resized(wide, (7, LARGEST)).colour).max() <= 1
    assert translated(model, wide, "zebra").picture.colour.shape == (7, LARGEST, 1)


def test_a_picture_of_16_bits_is_resized_as_one_of_8() -> None:
    noise = np.random.default_rng(0).integers(80, 176, (37, 50, 3), np.uint8)  # nothing is cut
    for height, width in ((16, 16), (80, 64)):
        wanted = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        assert (resized(Picture(noise), (height, width)).colour == np.asarray(wanted)).all()
        made = resized(Picture(noise.astype(np.uint16) * 257), (height, width)).colour
        assert np.abs(made / 257 - np.asarray(wanted)).max() <= 1.1


def test_a_seed_is_checked_and_a_walk_begins_and_ends_with_pictures() -> None:
    class Noise:
        has_styles, latent = False, "normal"

        def z_from(self, n: int, generator: Any) -> torch.Tensor:
            return torch.randn(n, 48, generator=generator)

        def pictures(self, z: torch.Tensor) -> torch.Tensor:
            return z.clamp(-1, 1).reshape(-1, 3, 4, 4)

        def sample(self, n: int, generator: Any) -> torch.Tensor:
            return self.pictures(self.z_from(n, generator))

    def made(*seeds: Any, share: float = 0.0) -> np.ndarray:
        towards = seeds[1] if len(seeds) > 1 else None
        return sampled(Noise(), seeds[0], towards=towards, share=share).picture.colour

    x = Noise().sample(1, torch_generator(5, "sample"))[0].permute(1, 2, 0)
    assert np.abs(made(5) - (x.numpy() + 1) * 127.5).max() <= 0.5 + 1e-4
    assert (made(5, 6, share=1.0) == made(6)).all()
    assert not (made(5, 6, share=0.5) == made(5)).all()
    assert (made(5, 5, share=0.5) == made(5)).all()
    for wrong in (None, -1, 1.5, 2**40):
        with pytest.raises(UserError, match="A seed is a whole number"):
            made(wrong)


def test_what_is_wrong_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GRADIO_ANALYTICS_ENABLED", "NO_PROXY", "no_proxy", "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")  # and as it was afterwards
    for name in demo.QUIET:
        monkeypatch.setenv(name, "")
    with socket.socket() as taken:
        taken.bind((demo.HOST, 0))
        taken.listen()
        with pytest.raises(UserError, match=r"Port \d+ is not to be had .*--port \d+"):
            demo.demo(["nothing"], port=taken.getsockname()[1])
    with pytest.raises(UserError, match="a number from 1 to 65535"):
        demo.demo(["nothing"], port=0)
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"pip install 'gansuite\[demo\]'"):
        demo.import_gradio(tmp_path)
    assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """Of a demo of three models."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("needs gradio")
    models = [untrained(f"{name}_coats", tmp_path) for name in ("stargan", "adain", "stylegan")]
    with socket.socket() as free:
        free.bind((demo.HOST, 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "gansuite", "demo", *map(str, models), "--port", str(port)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        # a shell that runs tests in the background has it ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert f":{port} shows 3 model(s)" in process.stdout.readline()
    try:
        yield f"http://{demo.HOST}:{port}/"
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, *rest) == (0, "", "")  # quietly, with Ctrl-C
    assert not list(tmp_path.glob("gansuite-demo-*"))


SAID = "document.querySelector('#said{}').innerText"
ALERT = "(document.querySelector('[role=alert]') || {}).innerText"


@pytest.mark.slow
def test_in_a_real_browser(address: str, browser: Browser, tmp_path: Path) -> None:
    def shown(number: int) -> np.ndarray:
        """The picture of a model, as the page has it."""
        source = browser.value(f"document.querySelector('#made{number} img').src")
        path = Path(source.partition("file=")[2])
        assert tmp_path in path.parents
        return read_picture(path).colour

    noise = np.random.default_rng(0).integers(0, 256, (32, 60, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.png")
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    browser.open(address)
    browser.wait("document.querySelector('#source input[type=file]')")
    browser.choose("#source input[type=file]", tmp_path / "in.png")
    browser.wait(f"/60 × 32, .* m?s/.test({SAID.format(0)})")
    assert "picture of the style" in browser.value(SAID.format(1))
    method = demo.load_model(tmp_path / "stargan_coats.ckpt")
    x = torch.from_numpy(noise).permute(2, 0, 1)[None] / 127.5 - 1

    def check(to: str) -> None:
        wanted = (method.translate(x, to)[0].permute(1, 2, 0).numpy() + 1) * 127.5
        assert np.abs(shown(0) - wanted.clip(0, 255)).max() <= 1

    check("leopard")  # the last one first
    browser.value("window.before = document.querySelector('#made0 img').src")
    browser.value("document.querySelector('input[value=giraffe]').click()")
    browser.wait("document.querySelector('#made0 img').src !== window.before")
    check("giraffe")
    browser.choose("#style input[type=file]", tmp_path / "in.png")
    browser.wait(f"/60 × 32, .* m?s/.test({SAID.format(1)})")
    # a text file, by its name and by what is in it
    for name, said in (("notes.txt", "notes.txt"), ("notes.png", "'notes.png' cannot be read")):
        browser.value("document.querySelector('#source [aria-label=\"Remove Image\"]')?.click()")
        browser.wait("document.querySelector('#source input[type=file]')")
        browser.choose("#source input[type=file]", tmp_path / name)
        browser.wait(f'document.body.innerText.includes("{said}")')
        assert "Traceback" not in browser.value("document.body.innerText")
    browser.wait("!document.querySelector('#made0 img')")
    # the other tab, and a seed by keyboard
    browser.value("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
    browser.wait(f"/32 × 32, .* m?s/.test({SAID.format(100)})")
    generator = demo.load_model(tmp_path / "stylegan_coats.ckpt")
    assert (shown(100) == sampled(generator, 0).picture.colour).all()
    browser.value("window.before = document.querySelector('#made100 img').src")
    browser.value("document.querySelector('#seed input').focus()")
    browser.press("Tab", 9)
    assert browser.value("document.activeElement.innerText") == "Next seed"
    browser.press("Enter", 13, "\r")
    browser.wait("document.querySelector('#made100 img').src !== window.before")
    assert (shown(100) == sampled(generator, 1).picture.colour).all()
    wrong = [e for e in browser.complaints(address) if e["params"].get("type") != "warning"]
    assert wrong == []  # gradio warns of its own closed streams
