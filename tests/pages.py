"""What the tests of pages share: a parser, a check that a page needs nothing from outside, and run
directories as the engine leaves them, with scores that are made up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from gansuite.data.coats import render_many
from gansuite.imaging import save_picture, strip
from gansuite.rng import numpy_generator


class Page(HTMLParser):
    """Tags with their attributes, the text, and whether every tag is closed in order."""

    VOID = {"meta", "img", "link", "br", "hr", "input"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_self_contained(text: str, page: Page) -> None:
    assert page.open == []
    assert not page.all("link")
    assert not page.all("iframe")
    # what is left of addresses: data, anchors, and the names of the SVG language
    for _, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:image/", "#"))
    names = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert names <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "url(http" not in text
    assert "@import" not in text
    ids = [a["id"] for _, a in page.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([^)]+)\)", text)) <= set(ids)
    assert {a["aria-labelledby"] for _, a in page.tags if "aria-labelledby" in a} <= set(ids)


METHODS = {  # final distance a2b, pictures per second, memory, parameters, GFLOP
    "cyclegan": (2.1, 30.0, 1046.0, 1.9e6, 0.84),
    "dualgan": (3.4, 55.0, 980.0, 4.4e6, 0.31),
    "discogan": (6.3, 80.0, 890.0, 2.2e6, 0.22),
    "stargan": (2.3, 24.0, 1210.0, 3.1e6, 0.95),
    "vanilla": (5.2, 190.0, 640.0, 0.7e6, 0.06),
    "stylegan": (2.8, 42.0, 1333.0, 1.3e6, 0.55),
}
GENERATORS = ("vanilla", "stylegan")
NOTHING, REAL = 9.5, 0.9
PROTOCOL = {"id": "p1-0123456789", "samples": 256, "size": 32, "split": "test", "version": 1}
ENVIRONMENT = {
    "python": "3.11.7",
    "packages": {"gansuite": "0.1.0", "torch": "2.6.0"},
    "commit": "abcdef123456",
    "device": "1 x cpu (x86_64, 2 cores)",
    "command": "gansuite exp",
}


def make_run(
    folder: Path, method: str, seed: int, *, finished: bool = True, kimg: float = 16, size: int = 32
) -> Path:
    """``folder/<method>_coats/seed<seed>`` with scores, curves and the strips of pictures."""
    level, speed, memory, parameters, flop = METHODS[method]
    run = folder / f"{method}_coats" / f"seed{seed}"
    (run / "samples").mkdir(parents=True)
    names = ("gen",) if method in GENERATORS else ("a2b", "b2a")
    draw = numpy_generator(seed, "made up", *method.encode())
    noise = {name: float(draw.normal()) for name in names}
    metrics: list[dict[str, Any]] = []
    timing: list[dict[str, Any]] = []
    for i in range(1, 9):
        seen = round(1000 * kimg * i / 8)
        record: dict[str, Any] = {"kind": "eval", "images_seen": seen}
        for name in names:
            fd = (level + (NOTHING - level) * np.exp(-i / 1.8)) * (1 + 0.05 * noise[name])
            fd *= 1.25 if name == "b2a" else 1.0
            collapsed = method == "discogan" and seed == 1 and i >= 6
            record[f"{name}/fd_random"] = fd * (1.9 if collapsed else 1)
            record[f"{name}/swd"] = 40 + 12 * fd
            record[f"{name}/coverage"] = 1 / (1 + fd / 5)
            record[f"{name}/diversity"] = 0.12 if collapsed else 0.95 - 0.02 * fd
            if name != "gen":
                record[f"{name}/psnr_mask"] = 24 - fd
                record[f"{name}/correlation"] = 0.8
        clock = {"images_seen": seen, "seconds": seen / speed, "eval_seconds": 0.3 * i}
        metrics += [{**record, "kind": "eval"}]
        timing += [{"kind": "eval", **clock}]
    final: dict[str, dict[str, float]] = {name: {} for name in names}
    for key, value in record.items():
        name, slash, metric = key.partition("/")
        if slash:
            final[name][metric] = value
    best = {
        n: {**s, "fd_random": 0.97 * s["fd_random"], "images_seen": seen} for n, s in final.items()
    }
    others = {"swd": 155.0, "coverage": 0.31, "diversity": 1.03}
    rows = {"do_nothing": (NOTHING, others), "real_vs_real": (REAL, {**others, "swd": 48.5})}
    collapsed = final[names[0]]["diversity"] < 0.3
    results = {
        "experiment": f"{method}_coats",
        "method": method,
        "seed": seed,
        "data": {"name": "coats", "digest": "ebd10c18777cdab3", "domains": ["horse", "zebra"]},
        "protocol": PROTOCOL,
        "budget": {"kimg": kimg, "seconds": None},
        "images_seen": round(1000 * kimg),
        "final": final,
        "best": best,
        "references": {
            k: {n: {"fd_random": fd, **more} for n in names} for k, (fd, more) in rows.items()
        },
        "cost": {
            "seconds": 1000 * kimg / speed,
            "eval_seconds": 2.4,
            "evaluation_share": 0.043,
            "images_per_second": speed,
            "peak_memory_mb": memory + seed,
            "parameters": {"g": round(0.6 * parameters), "d": round(0.4 * parameters)},
            "flops_per_image": 1e9 * flop,
        },
        "verdict": "collapsed: a2b has 12% of the real variety" if collapsed else "learned: well",
    }
    config = {
        "name": f"{method}_coats",
        "seed": seed,
        "method": {"name": method, "width": 24 + len(method), "note": "<script>alert(1)</script>"},
        "data": {"name": "coats", "size": 32, "domains": ["horse", "zebra"]},
        "optim": {"g": {"lr": 4e-4 if method == "cyclegan" else 2e-4}},
        "budget": {"kimg": kimg},
        "out": "runs",
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))
    lines = metrics if finished else metrics[:5]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "timing.jsonl").write_text("".join(json.dumps(line) + "\n" for line in timing))
    for name in names:
        coats = ("zebra", "horse") if name == "b2a" else ("horse", "zebra")
        source, truth = (
            torch.from_numpy(render_many(coat, range(8), size=size)[0]).permute(0, 3, 1, 2)
            for coat in coats
        )
        share = min(1.0, final[name]["fd_random"] / NOTHING)
        fuzz = torch.from_numpy(draw.normal(0, 40 * share, truth.shape))
        fake = ((1 - share) * truth + share * source + fuzz).clamp(0, 255).byte()
        pictures = (
            {"fake": fake} if name == "gen" else {"fake": fake, "source": source, "truth": truth}
        )
        for kind, images in pictures.items():
            save_picture(strip(images), run / "samples" / f"strip_{name}_{kind}.png")
    if finished:
        (run / "results.json").write_text(json.dumps(results))
    return run


def make_runs(
    folder: Path, methods: Sequence[str], seeds: Sequence[int], **options: Any
) -> list[Path]:
    return [make_run(folder, m, s, **options) for m in methods for s in seeds]
