"""Translate a user's own pictures: a file, a folder or a pattern in, the same names out."""

from __future__ import annotations

import copy
import glob
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gansuite.data.images import IMAGE_SUFFIXES, is_image
from gansuite.errors import UserError, nearest
from gansuite.imaging import (
    WRITABLE,
    Picture,
    files_below,
    picture_image,
    read_picture,
    save_picture,
)
from gansuite.networks.layers import NORMS
from gansuite.stacks import STACK_SUFFIXES, is_stack
from gansuite.tools.style import Style, check_mask, read_mask, read_style
from gansuite.tools.tiles import Tiles

LARGE = 1024  # pixels of the longer side from which a picture's size is worth a remark
_SMALLEST = 16  # networks that pad by reflection inside need a few pixels at every depth
_PIXELS = 1 << 22  # at most this many in one batch, unless a single picture has more
_ROWS = 256
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
Progress = Callable[[int, int], None]
"""Told how many pictures are done, and of how many."""
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])  # ITU-R BT.601, as PIL


def translate(
    method: Any,
    inputs: str,
    output: Path,
    *,
    to: str | None = None,
    style: Sequence[str] = (),
    strength: float | None = None,
    keep_colours: bool = False,
    mask: Path | None = None,
    tile: int | None = None,
    overlap: int = 64,
    batch: int = 8,
    device: torch.device | str | None = None,
    devices: Sequence[torch.device | str] = (),
    note: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Translate every picture of ``inputs`` into domain ``to``, or, with a method that takes
    references, in a ``style``; the files written, in order.

    ``inputs`` is a file, a folder (searched through, sub-folders are kept) or a pattern with
    ``*``, ``?``, ``[...]`` or ``**``. ``output`` is a folder, or a file name when ``inputs`` is one
    file. Pictures keep their size (padded to ``method.stride`` by reflection, cropped back), their
    alpha, 16 bits and grey. A picture whose format cannot hold the result becomes PNG. A method of
    other numbers of channels than 1 and 3 takes .npy and TIFF, and gives back their type and order
    of axes.
    ``note`` gets one line for each thing worth knowing, ``progress`` the counts.

    ``to`` may be left out when the method knows two domains: then it is the second. ``style``: see
    :func:`gansuite.tools.style.read_style`. ``mask``: a picture as large as each of the inputs,
    white where they are translated and black where they stay as they are. ``tile``: work in
    squares of so many pixels that share ``overlap`` (see `Tiles`), in bounded memory. ``device``
    moves the method there; by default it stays where its parameters are. ``devices``: one copy of
    the method on each, which share the pictures. ``batch``: how many of one size are translated at
    once.

    Raises UserError, before anything is written, when the method does not translate, ``to`` is
    unknown or missing, nothing is found, a picture is unreadable, a result would replace an input
    or two results have one name.
    """
    chosen = read_style(style, method, strength=strength, keep_colours=keep_colours)
    if chosen is not None and to is not None:
        raise UserError("--style and --to both say what to translate to; give one of them")
    target = target_of(method, to, note) if chosen is None else chosen
    region = None if mask is None else read_mask(mask)
    tiles = None if tile is None else Tiles.of(tile, overlap, method.stride)
    check_batch(batch)
    channels = method.spec.channels
    suffixes = STACK_SUFFIXES if is_stack(channels) else IMAGE_SUFFIXES
    sources, targets = _plan(inputs, Path(output), suffixes)
    survey = _survey(sources, method, note, tiles)
    for source, (_, size) in zip(sources, survey, strict=True) if mask is not None else ():
        check_mask(cast(np.ndarray, region), cast(Path, mask), source, size)
    targets = _holding(sources, targets, [kind for kind, _ in survey], note)
    if device is not None and isinstance(method, nn.Module):
        method.to(device)
    place = torch.device(device or device_of(method))
    if devices and not isinstance(method, nn.Module):
        raise UserError("an exported model runs on the CPU; leave --devices out")
    workers: SimpleQueue[tuple[Any, torch.device]] = SimpleQueue()
    for i, one in enumerate(devices or [place]):
        there = copy.deepcopy(method) if i else method
        workers.put((there.to(one) if devices else there, torch.device(one)))

    def work(job: tuple[range, tuple[int, int]]) -> range:
        group, padded = job
        pictures = [read_picture(sources[i], channels) for i in group]
        x = torch.stack([to_network(p, channels, padded) for p in pictures])
        worker = workers.get()
        try:
            call = partial(run, worker[0], to=target, device=worker[1], first=sources[group.start])
            results = call(x) if tiles is None else in_tiles(tiles, x, call, target, worker[0])
        finally:
            workers.put(worker)
        for i, picture, result in zip(group, pictures, results, strict=True):
            done = from_network(result, picture, region)
            save_picture(picture_image(done), targets[i], icc=done.icc)
        return group

    jobs = _batches([size for _, size in survey], method.stride, batch)
    with ThreadPoolExecutor(max(1, len(devices))) as pool:
        # threads for several devices alone: one can be interrupted
        for group in pool.map(work, jobs) if len(devices) > 1 else map(work, jobs):
            for i in group:
                progress(i + 1, len(sources))
    return targets


def is_video(path: Path) -> bool:
    """Whether the name is that of a film."""
    return path.suffix.lower() in VIDEOS


def check_batch(batch: int) -> None:
    """Raise `UserError` unless so many pictures can be translated at once."""
    if not 1 <= batch <= 1024:
        raise UserError(f"--batch is {batch}; give 1 to 1024 pictures")


def in_tiles(
    tiles: Tiles, x: Tensor, call: Callable[[Tensor], Tensor], to: str | Style, method: Any
) -> Tensor:
    """``call`` of ``x`` in ``tiles``; norms take statistics of the whole picture, unless a style
    has a say in them."""
    layers = method.modules() if isinstance(method, nn.Module) else ()
    if isinstance(to, Style) or not any(isinstance(m, NORMS) for m in layers):
        return tiles.translate(x, call)
    return tiles.translate_alike(x, call, method.stride)


def device_of(method: Any) -> torch.device:
    """Where the method's parameters are; the cpu for a method without any."""
    parameters = method.parameters() if isinstance(method, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))


def target_of(method: Any, to: str | None, note: Callable[[str], None]) -> str:
    targets = tuple(method.targets)
    known = ", ".join(targets)
    if method.task != "translate":
        raise UserError("this model makes pictures from noise; use `gansuite sample`")
    if to is None and len(targets) > 2:
        raise UserError(f"this model translates into {known}; say which with --to")
    chosen = targets[-1] if to is None else to
    domains = targets if len(targets) > 1 else tuple(method.spec.domains)
    if chosen not in targets:
        if chosen in domains:
            raise UserError(f"this model translates {chosen} to {known}; there is no way back")
        raise UserError(
            f"this model knows no domain '{chosen}', only {known}{nearest(chosen, targets)}"
        )
    sources = " or ".join(domain for domain in domains if domain != chosen)
    other = f" (--to {targets[0]} for the way back)" if to is None and len(targets) > 1 else ""
    note(f"translating {sources} to {chosen}{other}")
    return chosen


def _plan(inputs: str, output: Path, suffixes: Sequence[str]) -> tuple[list[Path], list[Path]]:
    """The files to read and, for each, the file to write with the same name."""
    start = Path(inputs)
    named = output.suffix.lower() in {*IMAGE_SUFFIXES, *STACK_SUFFIXES} and not output.is_dir()
    accepted = f"accepted are {' '.join(sorted(suffixes))}"
    if is_video(output) and not output.is_dir():
        raise UserError(f"'{output}' names a film, and '{inputs}' is none; name a folder")
    if start.is_file():
        if named:
            sources, targets = [start], [output]
        else:
            sources, targets = [start], [output / start.name]
    else:
        if start.is_dir():
            root, found = start, files_below(start)
            missing = f"no picture in folder '{inputs}'; {accepted}"
        elif glob.has_magic(inputs):
            parts = start.parts
            fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
            root = Path(*parts[:fixed])
            found = sorted(Path(name) for name in glob.glob(inputs, recursive=True))
            missing = f"no picture matches '{inputs}'; {accepted}"
        else:
            raise UserError(f"'{inputs}' does not exist; give a picture, a folder or a pattern")
        own = output.resolve()
        inside = root.resolve() in own.parents  # an output folder in the inputs is not an input
        sources = [
            path
            for path in found
            if is_image(path, suffixes)
            and path.is_file()
            and not (inside and own in path.resolve().parents)
        ]
        if not sources:
            raise UserError(missing)
        if named:
            raise UserError(f"'{inputs}' is {len(sources)} pictures but '{output}' names one file")
        targets = [output / path.relative_to(root) for path in sources]
    for folder in (output, *output.parents):
        if folder.is_file() and (folder != output or targets != [output]):
            raise UserError(f"'{folder}' is a file, so nothing can be written into it")
    return sources, targets


def _survey(
    sources: Sequence[Path], method: Any, note: Callable[[str], None], tiles: Tiles | None
) -> list[tuple[str, tuple[int, int]]]:
    """Kind of result and size (height, width) of each picture.

    Everything is read once before anything is written, so that damage in the last picture is known
    before the first result is there.
    """
    found: list[tuple[str, tuple[int, int]]] = []
    broken: list[str] = []
    notes: set[str] = set()
    for path in sources:
        try:
            picture = read_picture(path, method.spec.channels)
        except UserError as error:
            broken.append(str(error))
            continue
        kind = picture.kind
        if method.spec.channels == 1 and kind.startswith("RGB"):
            kind = kind.replace("RGB", "L")
            notes.add("colour pictures become grey: this model knows one channel")
        notes.add(picture.note)
        found.append((kind, picture.colour.shape[:2]))
    if broken:
        more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
        raise UserError(
            f"nothing was written: {len(broken)} of {len(sources)} pictures cannot be used: "
            f"{'; '.join(broken[:3])}{more}"
        )
    note(f"pictures keep their size; the model was trained at {method.spec.size} pixels")
    height, width = max((size for _, size in found), key=max)
    if max(height, width) > LARGE and tiles is None:
        note(
            f"the largest picture, {width} x {height}, runs whole, not in tiles: memory grows "
            f"(--tile 512 bounds it)"
        )
    for line in sorted(notes - {""}):
        note(line)
    return found


def _holding(
    sources: Sequence[Path],
    targets: Sequence[Path],
    kinds: Sequence[str],
    note: Callable[[str], None],
) -> list[Path]:
    """``targets`` with the suffix of a format that can hold each result; refuses collisions."""
    final: dict[Path, Path] = {}
    originals = {path.resolve() for path in sources}
    changed: list[str] = []
    for source, wanted, kind in zip(sources, targets, kinds, strict=True):
        target = wanted
        if kind not in WRITABLE.get(target.suffix.lower(), ("", frozenset()))[1]:
            if kind == "stack":
                raise UserError(f"'{target}' cannot hold this picture; name it .npy or .tif")
            what = kind.replace("16", " with 16 bits").replace("L", "grey", 1)
            if target.name != source.name:  # the user chose this name
                raise UserError(f"'{target}' cannot hold this picture ({what}); name it .png")
            png = target.with_suffix(".png")
            target = target.with_name(f"{target.name}.png") if png in {*targets, *final} else png
            changed.append(f"{source.name} ({what}) as {target.name}")
        if target.resolve() in originals:
            raise UserError(f"'{target}' is one of the inputs; give another place for the results")
        if target in final:
            raise UserError(f"'{final[target]}' and '{source}' would both be written to '{target}'")
        final[target] = source
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        note(f"written as PNG, which can hold them: {changed[0]}{more}")
    return list(final)


def _batches(
    sizes: Sequence[tuple[int, int]], stride: int, batch: int
) -> Iterator[tuple[range, tuple[int, int]]]:
    """Runs of consecutive pictures that are equally large when padded, and that padded size."""
    padded = [padded_size(size, stride) for size in sizes]
    start = 0
    while start < len(padded):
        height, width = padded[start]
        most = min(batch, max(1, _PIXELS // (height * width)))
        stop = start + 1
        while stop < min(start + most, len(padded)) and padded[stop] == padded[start]:
            stop += 1
        yield range(start, stop), (height, width)
        start = stop


def _top(dtype: np.dtype) -> int:
    """The brightest value."""
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def padded_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """``size`` (height, width) in multiples of ``stride``, and at least a few pixels."""
    height, width = (math.ceil(max(side, _SMALLEST) / stride) * stride for side in size)
    return height, width


def to_network(picture: Picture, channels: int, padded: Sequence[int]) -> Tensor:
    """float32 [channels, *padded] in [-1, 1]; the picture sits in the middle of its reflection."""
    top = _top(picture.colour.dtype)
    x = torch.from_numpy(picture.colour.astype(np.float32)).div_(top / 2).sub_(1)
    if channels == 1 and x.shape[2] == 3:
        x = x @ _LUMINANCE[:, None]
    extra = [(p - s) for p, s in zip(padded, x.shape[:2], strict=True)]
    around = [(e // 2, e - e // 2) for e in extra]
    wide = np.pad(x.numpy(), [*around, (0, 0)], mode="reflect")
    return torch.from_numpy(wide).permute(2, 0, 1).expand(channels, -1, -1)


def from_network(result: Tensor, picture: Picture, region: np.ndarray | None) -> Picture:
    """Crop, grey where the picture was grey, back to its bits; alpha as it was."""
    height, width, before = picture.colour.shape
    top, left = (result.shape[1] - height) // 2, (result.shape[2] - width) // 2
    whole = result[:, top : top + height, left : left + width].permute(1, 2, 0)
    grey, dtype = before == 1 and whole.shape[2] == 3, picture.colour.dtype
    made = np.empty((height, width, 1 if grey else whole.shape[2]), dtype)
    for start in range(0, height, _ROWS):  # eight bytes a value: not of a whole large picture
        rows = slice(start, start + _ROWS)
        x = whole[rows] @ _LUMINANCE[:, None] if grey else whole[rows]
        array = ((x.clamp(-1, 1).double() + 1) * (_top(dtype) / 2)).numpy()
        if region is not None:
            array = region[rows] * array + (1 - region[rows]) * picture.colour[rows]
        made[rows] = array if dtype.kind == "f" else array.round()
    return replace(picture, colour=made)


@torch.inference_mode()
def run(method: Any, x: Tensor, to: str | Style, device: torch.device, first: Path) -> Tensor:
    height, width = x.shape[2:]
    try:
        x = x.to(device)
        result = to.apply(method, x) if isinstance(to, Style) else method.translate(x, to)
    except torch.OutOfMemoryError as error:
        raise UserError(
            f"'{first}' ({width} x {height}) does not fit into the memory of {device}; "
            "make it smaller, or run on the cpu"
        ) from error
    result = result.float().cpu()
    if result.shape[2:] != x.shape[2:]:
        raise ValueError(f"{type(method).__name__}.translate changed the size {tuple(x.shape)}")
    if not result.isfinite().all():
        raise UserError(f"the model's answer to '{first}' is not finite: its weights are broken")
    return result
