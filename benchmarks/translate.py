"""What it costs to use a trained model: a folder, a film and a picture of 24 megapixels.

    python benchmarks/translate.py RUN [--what folder film large seam] [--pictures 2000]
                                   [--size 128] [--tile 512] [--overlap 64] [--out build/translate]

The inputs are drawn (coats), the run may be any that translates. Each line is a process of its own,
the command ``gansuite translate``: CPU seconds (without start-up), pictures or frames a CPU second,
peak memory. ``film``: ten seconds, 240 frames, with a tone; its sound and number of frames are
compared with the result's. ``large``: 6000 x 4000. ``seam``: 1536 x 1024, in tiles and whole: how
far they are apart (0 to 255), near the borders of tiles and elsewhere, and the step of brightness
from pixel to pixel across the middle of overlaps, in tiles / whole / elsewhere.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

WHAT = ("folder", "film", "large", "seam")


def drawn(size: int, count: int) -> np.ndarray:
    """uint8 [count, size, size, 3]."""
    import gansuite

    data = gansuite.DataModule.of("coats", size=size, batch=1, test=count)
    return data.pictures("test", "horse").permute(0, 2, 3, 1).numpy()


def mosaic(width: int, height: int) -> Image.Image:
    """Animals of 256 pixels side by side, enlarged fourfold: no edge of theirs is a tile's."""
    side = 256
    columns, rows = -(-width // (4 * side)), -(-height // (4 * side))
    pictures = drawn(side, columns * rows)
    lines = [
        np.concatenate(list(pictures[r * columns : (r + 1) * columns]), 1) for r in range(rows)
    ]
    image = Image.fromarray(np.concatenate(lines))
    image = image.resize((image.width * 4, image.height * 4), Image.Resampling.BICUBIC)
    return image.crop((0, 0, width, height))


def film(path: Path) -> None:
    """240 frames of 128 x 128, 24 a second: pictures that fade into one another, and a tone."""
    import av

    pictures = drawn(128, 11).astype(float)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=24, options={"crf": "12"})
        video.width = video.height = 128
        video.pix_fmt = "yuv420p"
        tone = out.add_stream("aac", rate=44100, layout="mono")
        for i in range(240):
            key, step = divmod(i, 24)
            frame = pictures[key] + (pictures[key + 1] - pictures[key]) * step / 24
            array = frame.round().astype(np.uint8)
            out.mux(video.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        out.mux(video.encode())
        wave = np.sin(np.arange(441_000) * 2 * np.pi * 440 / 44100, dtype=np.float32)[None] * 0.3
        for start in range(0, wave.shape[1], 1024):
            part = np.ascontiguousarray(wave[:, start : start + 1024])
            sound = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            sound.sample_rate, sound.pts = 44100, start
            sound.time_base = Fraction(1, 44100)
            out.mux(tone.encode(sound))
        out.mux(tone.encode())


def inside(path: Path) -> tuple[int, list[bytes]]:
    """Frames and packets of sound."""
    import av

    with av.open(str(path)) as found:
        frames = sum(1 for _ in found.decode(video=0))
    with av.open(str(path)) as found:
        return frames, [bytes(packet) for packet in found.demux(audio=0) if packet.size]


def child(words: list[str]) -> None:
    """In a process of its own: the command, then its cost as JSON on the last line."""
    from gansuite import cli
    from gansuite.tools import translate, video  # noqa: F401 - start-up is not counted

    before = time.process_time()
    try:
        cli.main(["translate", *words])
    except SystemExit as end:
        code = end.code
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"code": code, "cpu": time.process_time() - before, "peak_mb": peak}))


def cost(words: list[Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if found["code"]:
        raise SystemExit(done.stdout + done.stderr)
    return found


def line(name: str, count: int, found: dict[str, Any]) -> None:
    rate = count / found["cpu"]
    print(
        f"{name}: {found['cpu']:.1f} CPU seconds, {rate:.3g} a second, peak "
        f"{found['peak_mb']:.0f} MB",
        flush=True,
    )


def seam(tiled: np.ndarray, whole: np.ndarray, tile: int, overlap: int) -> str:
    """Differences, and steps across the middle of each overlap."""
    from gansuite.tools.tiles import Tiles

    height, width = whole.shape[:2]
    tiles = Tiles(tile, overlap)
    near = np.zeros((height, width), bool)
    steps: dict[str, list[np.ndarray]] = {"tiles": [], "whole": []}
    for axis, length in enumerate((height, width)):
        for start in tiles.starts(length)[1:]:
            band = [slice(None), slice(None)]
            band[axis] = slice(start, start + overlap)
            near[tuple(band)] = True
            middle = start + overlap // 2
            for name, image in (("tiles", tiled), ("whole", whole)):
                a, b = (np.take(image, middle + k, axis).astype(float) for k in (-1, 0))
                steps[name].append(np.abs(a - b).ravel())
    difference = np.abs(tiled.astype(int) - whole).max(2)
    elsewhere = np.abs(np.diff(tiled.astype(float), axis=1)).mean()
    across = {name: np.concatenate(found) for name, found in steps.items()}
    return (
        f"tiles against whole: near borders at most {difference[near].max()}, mean "
        f"{difference[near].mean():.2f}; elsewhere at most {difference[~near].max()}, mean "
        f"{difference[~near].mean():.2f}; step across the middle of overlaps "
        f"{across['tiles'].mean():.2f} in tiles, {across['whole'].mean():.2f} whole, "
        f"{elsewhere:.2f} anywhere"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--what", nargs="+", choices=WHAT, default=list(WHAT))
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path("build/translate"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tiles = ["--tile", args.tile, "--overlap", args.overlap]
    if "folder" in args.what:
        place = args.out / f"{args.pictures} of {args.size}"
        if not place.is_dir():
            place.mkdir()
            for i, array in enumerate(drawn(args.size, args.pictures)):
                Image.fromarray(array).save(place / f"{i:05d}.jpg", quality=95)
        tenth = args.out / "a tenth"
        tenth.mkdir(exist_ok=True)
        for path in sorted(place.iterdir())[: args.pictures // 10]:
            (tenth / path.name).write_bytes(path.read_bytes())
        for batch in (1, 8):
            for folder in (tenth, place):
                count = len(list(folder.iterdir()))
                found = cost([args.run, folder, args.out / "made", "--batch", batch])
                line(f"{count} pictures of {args.size}, batch {batch}", count, found)
    if "film" in args.what:
        source, made = args.out / "horses.mp4", args.out / "zebras.mp4"
        film(source)
        line("film of 240 frames of 128", 240, cost([args.run, source, made]))
        (frames, sound), (more, copied) = inside(source), inside(made)
        same = "equal" if sound == copied else "UNEQUAL"
        print(f"frames {frames} and {more}, {len(sound)} packets of sound: {same}", flush=True)
    if "large" in args.what:
        source = args.out / "large.png"
        mosaic(6000, 4000).save(source)
        found = cost([args.run, source, args.out / "large made.png", *tiles])
        line(f"6000 x 4000 in tiles of {args.tile}", 1, found)
    if "seam" in args.what:
        source = args.out / "middle.png"
        mosaic(1536, 1024).save(source)
        made = []
        for name, options in (("tiled", tiles), ("whole", [])):
            target = args.out / f"middle {name}.png"
            line(f"1536 x 1024, {name}", 1, cost([args.run, source, target, *options]))
            made.append(np.asarray(Image.open(target)))
        print(seam(made[0], made[1], args.tile, args.overlap))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
