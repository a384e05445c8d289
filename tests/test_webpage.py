"""The page of an exported model: what is in it, and what a real browser makes of it from disk."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from browser import Browser
from helpers import untrained
from PIL import Image

from gansuite.errors import UserError
from gansuite.methods._unconditional import slerp
from gansuite.tools.export import export
from gansuite.tools.webpage import BUNDLE, WASM, Runtime, page, read_runtime

ROOT = Path(__file__).resolve().parents[1]
SAYS: dict[str, Any] = {
    "method": "toy",
    "experiment": "</script><script>alert(1)</script>",
    "seed": 3,
    "images_seen": 2000,
    "weights": "ema",
    "protocol": "p2-0",
    "data": {"name": "a & b", "labels": ["horse", "zebra", "shy"]},
    "size": 8,
    "channels": 3,
    "stride": 4,
    "fixed": False,
    "label_sets": [[["horse", "zebra"], True], [["shy"], False]],
    "latent": None,
    "to": "zebra",
    "function": "translate",
    "inputs": {"image": {}},
    "parity": {"largest": 1e-6},
    "versions": {"gansuite": "0.1.0"},
}


def packed(text: str, name: str) -> bytes:
    found = re.search(rf'data-packed="{name}">([^<]*)<', text)
    assert found
    return gzip.decompress(base64.b64decode(found[1]))


@pytest.mark.parametrize("function", ["edit", "pictures"])
def test_a_page_needs_nothing_from_outside(function: str) -> None:
    runtime = Runtime(b"/*!\n * ONNX Runtime Web v9.8.7\n */ </script>", b"\0asm")
    z = torch.arange(6.0).reshape(2, 3) if function == "pictures" else None
    inputs = {"image": {}, "label": {}, "reference": {}, "strength": {}}
    given = {"z": {}, "truncation": {}} if z is not None else inputs
    says = {**SAYS, "function": function, "inputs": given}
    text = page(b"model </script>", says, runtime, z).decode()
    assert packed(text, "model") == b"model </script>"
    assert packed(text, "bundle") == runtime.bundle
    assert packed(text, "wasm") == runtime.wasm
    if z is not None:
        assert packed(text, "latents") == z.numpy().tobytes()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    code = re.search(r"<script>(.*)</script>", text, re.S)
    assert policy
    assert code
    digest = base64.b64encode(hashlib.sha256(code[1].encode()).digest()).decode()
    assert policy[1].startswith("default-src 'none'; ")
    assert f"'sha256-{digest}'" in policy[1]
    assert "://" not in text  # no address of any kind
    assert "<link" not in text
    assert "alert(1)</script>" not in text
    assert "ONNX Runtime Web 9.8.7" in text


def test_the_runtime_is_found(here: Path) -> None:
    def told(place: Path | None) -> str:
        with pytest.raises(UserError, match="npm pack onnxruntime-web") as error:
            read_runtime(place)
        return str(error.value)

    assert "needs ONNX Runtime's build for browsers" in told(None)
    (here / "empty").mkdir()
    (here / "x.tgz").write_bytes(b"nothing of the kind")
    with tarfile.open(here / "other.tgz", "w:gz"):
        pass
    for place in ("empty", "x.tgz", "other.tgz", "missing"):
        assert f"'{place}' is not onnxruntime-web" in told(Path(place))
    dist = here / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    (dist / BUNDLE).write_bytes(b"code")
    (dist / WASM).write_bytes(b"wasm")
    with tarfile.open(here / "ort.tgz", "w:gz") as archive:
        archive.add(dist, "package/dist")
    for found in (None, dist, dist.parent, here / "ort.tgz"):
        assert read_runtime(found) == Runtime(b"code", b"wasm")


@pytest.fixture(
    scope="module", params=["installed", pytest.param("npm", marks=pytest.mark.network)]
)
def ort(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX Runtime's build for browsers: what `npm install` left in the repository, or a package
    fetched now."""
    if any(importlib.util.find_spec(p) is None for p in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs onnx, onnxscript and onnxruntime")
    if request.param == "installed":
        place = ROOT / "node_modules" / "onnxruntime-web"
        if not place.is_dir():
            pytest.skip("needs 'npm install --no-save onnxruntime-web' in the repository")
        return place
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm")
    folder = tmp_path_factory.mktemp("npm")
    subprocess.run([npm, "pack", "onnxruntime-web"], cwd=folder, check=True, capture_output=True)
    (found,) = folder.glob("*.tgz")
    return found


def session(model: bytes) -> Callable[..., np.ndarray]:
    import onnxruntime

    made = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return lambda **given: made.run(None, given)[0][0]


def shown(browser: Browser, canvas: str = "made") -> np.ndarray:
    """What a canvas of the page holds, [H, W, 3]."""
    url = browser.value(f"document.getElementById('{canvas}').toDataURL()")
    image = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    return np.asarray(image.convert("RGB"))


def apart(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    return int(np.abs(a.astype(int) - b).max())


STATUS = "document.getElementById('status').textContent"
ALERT = "document.getElementById('alert').textContent"
MADE = f"/made in/.test({STATUS})"
DONE = f"!document.body.hasAttribute('aria-busy') && {MADE}"


@pytest.mark.slow
def test_a_translator_in_a_real_browser(ort: Path, browser: Browser, tmp_path: Path) -> None:
    # residual: it takes any size, a U-Net of 32 pixels that one
    checkpoint = untrained("cyclegan_coats", tmp_path, "method.generator=resnet")
    file = tmp_path / "page.html"
    entry = export(checkpoint, file, runtime=ort)
    assert (entry["format"], entry["uint8"], entry["bytes"]) == ("html", True, file.stat().st_size)
    run = session(packed(file.read_text(), "model"))
    noise = np.random.default_rng(0).integers(80, 176, (30, 45, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in.png")
    (tmp_path / "notes.txt").write_text("no picture")
    browser.open(file)
    browser.choose("#source", tmp_path / "in.png")  # before the model is there
    browser.wait(DONE)
    # as trained: the shorter side has 32 pixels
    small = np.asarray(Image.fromarray(noise).resize((48, 32), Image.Resampling.BICUBIC))
    assert apart(shown(browser, "seen"), small) <= 1
    assert apart(shown(browser), run(image=shown(browser, "seen")[None])) <= 1
    # its own size, by keyboard: the choices lie one after another
    reached = []
    for _ in range(5):
        browser.press("Tab", 9)
        reached.append(browser.value("document.activeElement.id"))
    assert reached[:4] == ["source", "camera", "save", "size"]
    browser.value("document.getElementById('size').focus()")
    browser.press("End", 35)
    browser.wait(f"{DONE} && {STATUS}.startsWith('45')")
    padded = np.pad(noise, ((1, 1), (1, 2), (0, 0)), "reflect")
    assert (shown(browser, "seen") == noise).all()
    assert apart(shown(browser), run(image=padded[None])[1:31, 1:46]) <= 1
    # what is saved is what is seen
    browser("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path),
            eventsEnabled=True)  # fmt: skip
    browser.value("document.getElementById('save').click()")
    while not any("completed" in str(e.get("params")) for e in browser.events):
        browser.value("1")
    saved = np.asarray(Image.open(tmp_path / "in_cyclegan_coats_seed0.png").convert("RGB"))
    assert (saved == shown(browser)).all()
    # the camera (the browser pretends to have one)
    browser.value("document.getElementById('camera').click()")
    browser.wait("document.getElementById('camera').textContent === 'Take the picture'")
    browser.value("document.getElementById('camera').click()")
    browser.wait(f"{DONE} && !{STATUS}.startsWith('45')")
    assert browser.value("document.getElementById('video').hidden")
    # no picture
    browser.choose("#source", tmp_path / "notes.txt")
    browser.wait(ALERT)
    assert browser.value(ALERT) == "notes.txt is no picture that this browser can read."
    for width in (1200, 390):
        browser.look(width)
        assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


def toy(inputs: str, body: str) -> bytes:
    """ONNX from its text form."""
    import onnx

    text = f'<ir_version: 10, opset_import: ["" : 20]> toy ({inputs}) => (uint8[1,H,W,3] picture) '
    model = onnx.parser.parse_model(f"{text} {{ {body} }}")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@pytest.mark.slow
def test_the_inputs_of_a_model_in_a_real_browser(
    ort: Path, browser: Browser, tmp_path: Path
) -> None:
    """With a model that adds up what it is given: labels, a style and its strength."""
    runtime = read_runtime(ort)
    model = toy(
        "uint8[1,H,W,3] image, float[1,5] label, uint8[1,h,w,3] reference, float[1] strength",
        """weights = Constant <value_floats = [1.0, 2.0, 4.0, 8.0, 16.0]> ()
        told = Mul (label, weights)
        label_sum = ReduceSum <keepdims = 0> (told)
        style = Cast <to = 1> (reference)
        mean = ReduceMean <keepdims = 0> (style)
        much = Mul (mean, strength)
        seen = Cast <to = 1> (image)
        both = Add (seen, much)
        all = Add (both, label_sum)
        whole = Round (all)
        picture = Cast <to = 2> (whole)""",
    )
    names = ("image", "label", "reference", "strength")
    says = {**SAYS, "function": "edit", "inputs": {name: {} for name in names}}
    (tmp_path / "page.html").write_bytes(page(model, says, runtime, None))
    Image.new("RGB", (16, 8), (10, 20, 30)).save(tmp_path / "in.png")
    Image.new("RGB", (90, 40), (40, 40, 40)).save(tmp_path / "style.png")
    browser.open(tmp_path / "page.html")
    browser.choose("#source", tmp_path / "in.png")
    browser.wait(f"{STATUS} === 'Now choose the style.'")
    browser.choose("#reference", tmp_path / "style.png")
    browser.wait(DONE)

    def added(label: int, strength: float) -> None:
        wanted = np.full((8, 16, 3), (10, 20, 30)) + round(40 * strength) + label
        assert (shown(browser) == wanted).all()

    def change(how: str) -> None:
        browser.value(f"document.getElementById('status').textContent = ''; {how}")
        browser.wait(DONE)

    added(2 + 8, 1.0)  # zebra, of the first set
    change("document.querySelector('[data-label=\"0\"]').click()")
    added(1 + 8, 1.0)
    change("document.querySelector('[data-label=\"2\"]').click()")  # of the other set: it alone
    added(4 + 16, 1.0)
    change(
        "document.getElementById('strength').value = 0.5;"
        "document.getElementById('strength').dispatchEvent(new Event('input'))"
    )
    added(4 + 16, 0.5)
    # a generator, with a truncation
    model = toy(
        "float[1,48] z, float[1] truncation",
        """shape = Constant <value_ints = [1, 4, 4, 3]> ()
        near = Mul (z, truncation)
        pixels = Reshape (near, shape)
        scale = Constant <value_float = 20.0> ()
        middle = Constant <value_float = 128.0> ()
        wide = Mul (pixels, scale)
        at = Add (wide, middle)
        whole = Round (at)
        picture = Cast <to = 2> (whole)""",
    )
    z = torch.randn(4, 48, generator=torch.Generator().manual_seed(0))
    says = {**SAYS, "function": "pictures", "latent": "normal"}
    says["inputs"] = {"z": {}, "truncation": {}}
    (tmp_path / "generator.html").write_bytes(page(model, says, runtime, z))
    browser.open(tmp_path / "generator.html")
    browser.wait(DONE)

    def is_of(latent: torch.Tensor, truncation: float = 1.0) -> None:
        wanted = (128 + 20 * truncation * latent.double()).round().reshape(4, 4, 3).numpy()
        assert apart(shown(browser), wanted.astype(int)) <= 1

    is_of(z[0])
    change("document.getElementById('next').click()")
    is_of(z[1])
    for name, value in (("towards", 3), ("share", 0.25)):
        change(
            f"document.getElementById('{name}').value = {value};"
            f"document.getElementById('{name}').dispatchEvent(new Event('input'))"
        )
    is_of(slerp(z[1:2], z[3:4], 0.25))
    change(
        "document.getElementById('truncation').value = 0.5;"
        "document.getElementById('truncation').dispatchEvent(new Event('input'))"
    )
    is_of(slerp(z[1:2], z[3:4], 0.25), 0.5)
    browser.value(
        "document.getElementById('seed').value = 4;"
        "document.getElementById('seed').dispatchEvent(new Event('input'))"
    )
    browser.wait(ALERT)
    assert browser.value(ALERT) == "A seed is a whole number from 0 to 3."
    assert browser.complaints() == []
