"""Moving pictures: animations of generators, and films that are translated frame by frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from gansuite.errors import UserError
from gansuite.files import replacing
from gansuite.imaging import Picture
from gansuite.stacks import is_stack
from gansuite.tools.tiles import Tiles
from gansuite.tools.translate import (
    Progress,
    check_batch,
    from_network,
    in_tiles,
    run,
    target_of,
    to_network,
)

_FILMS = (".mp4", ".mov", ".mkv", ".m4v")  # that hold H.264
ANIMATIONS = (".gif", ".webp", ".mp4")
_SHOWN = 256  # pixels to which an animation of smaller pictures is enlarged


def load_av(path: Path) -> Any:
    """The package av.

    Raises:
        UserError: it is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError(f"'{path}' needs the package av: pip install 'gansuite[video]'.") from None
    return av


def check_animation(path: Path) -> None:
    """Raise `UserError` unless `write_animation` can write ``path``."""
    if path.suffix.lower() not in ANIMATIONS:
        raise UserError(f"'{path}' is no animation; name it {', '.join(ANIMATIONS)}.")
    if path.suffix.lower() == ".mp4":
        load_av(path)


def write_animation(path: Path, frames: Iterable[np.ndarray], fps: int = 24) -> int:
    """Write uint8 ``frames`` [H, W, 1 or 3], all of a size, whole or not at all; how many.

    Frames below 256 pixels are enlarged by a whole number, pixel by pixel.

    Raises:
        UserError: another suffix than .gif, .webp and .mp4, or a missing package.
    """
    check_animation(path)
    count = 0

    def shown() -> Iterator[Image.Image]:
        nonlocal count
        for frame in frames:
            count += 1
            image = Image.fromarray(frame[:, :, 0] if frame.shape[2] == 1 else frame).convert("RGB")
            factor = max(1, -(-_SHOWN // max(image.size)))
            side = (image.width * factor, image.height * factor)
            yield image.resize(side, Image.Resampling.NEAREST)

    with replacing(path, durable=False) as file:
        if path.suffix.lower() == ".mp4":
            _encode(file, shown(), fps, load_av(path))
        else:
            first, *others = shown()
            kind = path.suffix[1:].upper()
            options: dict[str, Any] = {"quality": 90} if kind == "WEBP" else {}
            duration = round(1000 / fps)
            first.save(
                file,
                kind,
                save_all=True,
                append_images=others,
                duration=duration,
                loop=0,
                **options,
            )
    return count


def _encode(file: Any, frames: Iterator[Image.Image], fps: int, av: Any) -> None:
    with av.open(file, "w", format="mp4") as container:
        stream = None
        for image in frames:
            if stream is None:
                stream = _stream(container, Fraction(fps), image.size)
            container.mux(stream.encode(_even(av, np.asarray(image))))
        if stream is not None:
            container.mux(stream.encode())


def _stream(container: Any, rate: Fraction, size: tuple[int, int]) -> Any:
    """A stream of H.264 with sides that are even, as 4:2:0 wants them."""
    stream = container.add_stream("libx264", rate=rate, options={"crf": "16"})
    stream.width, stream.height = (side + side % 2 for side in size)
    stream.pix_fmt = "yuv420p"
    return stream


def _even(av: Any, array: np.ndarray) -> Any:
    """A frame of uint8 [H, W, 3]; an odd side repeats its last row or column."""
    height, width = array.shape[:2]
    padded = np.pad(array, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")


def translate_video(
    method: Any,
    source: Path,
    output: Path,
    *,
    to: str | None = None,
    tile: int | None = None,
    overlap: int = 64,
    batch: int = 8,
    device: torch.device | str | None = None,
    note: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> int:
    """Translate the film ``source`` into domain ``to``, frame by frame, and write it to ``output``;
    how many frames.

    Frames keep their size, time and rate; sound is copied as it is. Each frame is translated for
    itself: nothing holds neighbours together. Eight bits, H.264. The other arguments are those of
    `translate`. Memory does not grow with the length.

    Raises:
        UserError: a method that does not translate, a missing package, a film that cannot be read,
            or an ``output`` that is no film or the source; nothing is left behind.
    """
    av = load_av(source)
    if output.suffix.lower() not in _FILMS:
        raise UserError(f"'{output}' cannot hold the film; name it {', '.join(_FILMS)}.")
    if output.resolve() == source.resolve():
        raise UserError(f"'{output}' is the input; give another place for the result.")
    if is_stack(method.spec.channels):
        raise UserError(f"This model takes pictures of {method.spec.channels} channels, no films.")
    for folder in output.parents:
        if folder.is_file():
            raise UserError(f"'{folder}' is a file, so nothing can be written into it")
    check_batch(batch)
    target = target_of(method, to, note)
    tiles = None if tile is None else Tiles.of(tile, overlap, method.stride)
    if device is not None and isinstance(method, nn.Module):
        method.to(device)
    call = partial(run, method, to=target, device=torch.device(device or "cpu"), first=source)

    def made(frames: Iterator[Any]) -> Iterator[tuple[Any, np.ndarray]]:
        while group := list(itertools.islice(frames, batch)):
            pictures = [Picture(frame.to_ndarray(format="rgb24")) for frame in group]
            size = pictures[0].colour.shape[:2]
            padded = tuple(-(-max(side, 16) // method.stride) * method.stride for side in size)
            x = torch.stack([to_network(p, method.spec.channels, padded) for p in pictures])
            results = call(x) if tiles is None else in_tiles(tiles, x, call, target, method)
            for frame, picture, result in zip(group, pictures, results, strict=True):
                yield frame, from_network(result, picture, None).colour

    try:
        with av.open(str(source)) as incoming:
            if not incoming.streams.video:
                raise UserError(f"'{source}' has no pictures in it.")
            return _written(av, incoming, output, made, progress)
    except av.FFmpegError as error:
        raise UserError(f"'{source}' cannot be read as a film ({error.strerror}).") from error


def _written(
    av: Any,
    incoming: Any,
    output: Path,
    made: Callable[[Iterator[Any]], Iterator[tuple[Any, np.ndarray]]],
    progress: Progress,
) -> int:
    video = incoming.streams.video[0]
    video.thread_type = "AUTO"
    sound = list(incoming.streams.audio)
    total = video.frames or round(float((incoming.duration or 0) / 1e6) * float(video.average_rate))
    count = 0
    with replacing(output, durable=False) as file:
        kind = {".mkv": "matroska", ".m4v": "mp4"}.get(output.suffix.lower(), output.suffix[1:])
        with av.open(file, "w", format=kind) as outgoing:
            rate = video.average_rate or Fraction(25)
            stream = _stream(outgoing, rate, (video.width, video.height))
            stream.codec_context.time_base = video.time_base
            copies = {s.index: outgoing.add_stream_from_template(s) for s in sound}

            def frames() -> Iterator[Any]:
                for packet in incoming.demux(video, *sound):
                    if packet.stream.index in copies:
                        if packet.dts is not None:
                            packet.stream = copies[packet.stream.index]
                            outgoing.mux(packet)
                        continue
                    yield from packet.decode()

            for frame, array in made(frames()):
                done = _even(av, array)
                done.pts, done.time_base = frame.pts, frame.time_base
                outgoing.mux(stream.encode(done))
                count += 1
                progress(count, max(total, count))
            outgoing.mux(stream.encode())
    return count
