"""`gansuite export OUT.html`: an exported model as one page that runs it in a browser, from disk,
without a server and without a network. The model, ONNX Runtime's build for browsers and what the
page says are all inside."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup
from torch import Tensor

from gansuite.compare.document import templates
from gansuite.errors import UserError

SEEDS = 1000
"""A page of a generator has the latents of so many seeds: those of `gansuite sample --seeds`."""
LARGEST = 1024
"""Pixels of the longer side of what a page works on: it has one thread."""
BUNDLE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
_PLACE = Path("node_modules/onnxruntime-web")
_HOW = (
    "'npm pack onnxruntime-web' writes onnxruntime-web-VERSION.tgz, and --ort takes that file or "
    "the folder in it"
)


@dataclass(frozen=True)
class Runtime:
    """The two files of the npm package onnxruntime-web that a page needs."""

    bundle: bytes
    wasm: bytes

    @property
    def version(self) -> str:
        """Such as "1.30.0"; "" where the file does not say."""
        found = re.search(rb"ONNX Runtime Web v(\S+)", self.bundle[:400])
        return found[1].decode() if found else ""


def read_runtime(place: Path | None) -> Runtime:
    """From ``place``: the file of `npm pack onnxruntime-web`, the package as a folder, or its
    folder ``dist``; by default what `npm install onnxruntime-web` left in the working directory.

    Raises:
        UserError: it is not there.
    """
    if place is None and not _PLACE.is_dir():
        raise UserError(f"A page needs ONNX Runtime's build for browsers: {_HOW}.")
    place = place or _PLACE
    try:
        if place.is_dir():
            folder = place if (place / BUNDLE).is_file() else place / "dist"
            return Runtime((folder / BUNDLE).read_bytes(), (folder / WASM).read_bytes())
        with tarfile.open(place) as archive:
            read = [archive.extractfile(f"package/dist/{name}") for name in (BUNDLE, WASM)]
            return Runtime(*(file.read() for file in read if file is not None))
    except (OSError, KeyError, tarfile.TarError, TypeError, EOFError) as error:
        raise UserError(
            f"'{place}' is not onnxruntime-web, whose dist/{BUNDLE} and dist/{WASM} are needed: "
            f"{_HOW}."
        ) from error


def page(model: bytes, says: Mapping[str, Any], runtime: Runtime, z: Tensor | None) -> bytes:
    """The page of ``model``, ONNX of bytes in and out. ``says``: its entry in ``export.json``;
    ``z``: float32 [SEEDS, z_dim], the latents of the seeds, of a generator."""
    about = {
        key: says[key]
        for key in ("size", "stride", "fixed", "channels", "to", "latent", "label_sets", "function")
    }
    about |= {"inputs": list(says["inputs"]), "most": LARGEST, "name": _name(says)}
    if z is not None:
        about |= {"seeds": len(z), "z": z.shape[1]}
    packed = {"model": model, "bundle": runtime.bundle, "wasm": runtime.wasm}
    if z is not None:
        packed["latents"] = z.contiguous().numpy().tobytes()
    code = _file("page.js")
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    text = (
        templates(__name__)
        .get_template("page.html")
        .render(
            style=_file("style.css", "gansuite.compare") + "\n" + _file("page.css"),
            script=code,
            digest=Markup(digest),
            worker=_file("worker.js"),
            about=Markup(json.dumps(about).replace("<", "\\u003c")),
            packed={name: Markup(_packed(data)) for name, data in packed.items()},
            says=says,
            shown=about,
            version=runtime.version,
        )
    )
    return text.encode()


def _name(says: Mapping[str, Any]) -> str:
    return f"{says['experiment']}_seed{says['seed']}"


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _file(name: str, package: str = "gansuite.tools.webpage") -> Markup:
    return Markup(files(package).joinpath(name).read_text("utf-8").strip())
