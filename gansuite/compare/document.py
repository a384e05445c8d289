"""A self-contained page: a template, the shared style, embedded pictures."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image


@functools.cache
def templates(package: str = "gansuite.compare") -> Environment:
    """The templates of a package; what they are given is escaped."""
    return Environment(
        loader=PackageLoader(package, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, *, script: str = "", **context: Any) -> str:
    """The text of ``template`` (a file of this package), with what it is given escaped.

    The page may run nothing but ``script`` (another file of this package), which its policy names
    by hash, and load nothing but what is embedded.
    """

    def raw(name: str) -> Markup:
        return Markup(files("gansuite.compare").joinpath(name).read_text("utf-8").strip())

    code, policy = Markup(""), Markup("")
    if script:
        code = raw(script)
        digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
        policy = Markup(f"; script-src 'sha256-{digest}'")
    return (
        templates()
        .get_template(template)
        .render(style=raw("style.css"), script=code, policy=policy, **context)
    )


def embed(path: Path, limit: int) -> dict[str, Any] | None:
    """A data address of at most ``limit`` bytes before base64, re-encoded only where it must be;
    None of what is no picture."""
    try:
        with Image.open(path) as image:
            form, (width, height) = image.format, image.size
            data = path.read_bytes()
            scale, quality = 1.0, 88
            if len(data) > limit or form not in ("JPEG", "PNG"):
                rgb = image.convert("RGB")
                while True:
                    small = (max(1, round(width * scale)), max(1, round(height * scale)))
                    out = io.BytesIO()
                    rgb.resize(small, Image.Resampling.LANCZOS).save(out, "JPEG", quality=quality)
                    data, form = out.getvalue(), "JPEG"
                    if len(data) <= limit or min(small) == 1:
                        break
                    scale, quality = scale * 0.85, max(70, quality - 6)
                width, height = small
    except Exception:  # of a damaged file Pillow raises whatever its decoder met
        return None
    kind = "jpeg" if form == "JPEG" else "png"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return {"src": source, "width": width, "height": height}
