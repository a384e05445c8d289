"""The examination behind ``gansuite check-data``."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from gansuite.data.images import is_image, read_image
from gansuite.data.sources.base import Source
from gansuite.data.sources.joint import Joint
from gansuite.data.sources.pictures import FilePicture
from gansuite.data.sources.registry import RegistrySet
from gansuite.errors import UserError
from gansuite.stacks import is_stack, read_stack

_SHOWN = 10  # lines of a kind in the text


@dataclass
class Report:
    """What :func:`check_data` found. ``problems`` keep the data from being used."""

    name: str
    where: str
    expected: str
    folders: list[tuple[str, int, int]] = field(default_factory=list)
    """(folder relative to the root, pictures in it, other files in it)"""
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    published: dict[str, dict[str, int]] = field(default_factory=dict)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """(width, height) -> files"""
    modes: Counter[str] = field(default_factory=Counter)
    """Pillow's mode (L, RGB, CMYK, I;16, ...) -> files"""
    unreadable: list[str] = field(default_factory=list)
    """One sentence for each."""
    duplicates: list[list[str]] = field(default_factory=list)
    """Files of equal content within one split."""
    leaks: list[list[str]] = field(default_factory=list)
    """Files of equal content in train and test."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether a method can be trained on it."""
        return not self.problems and not self.unreadable

    def render(self) -> str:
        """The report as plain text."""
        lines = [f"data: {self.name}" + (f" at {self.where}" if self.where else "")]
        lines.append(f"expected: {self.expected}")
        if self.where:
            lines.append("found:" if self.folders else "found: nothing")
        lines += _few(
            [
                f"  {folder}/  {pictures} pictures" + (f", {others} other files" if others else "")
                for folder, pictures, others in self.folders
            ],
            40,
        )
        for split, by_domain in self.counts.items():
            parts = []
            for domain, count in by_domain.items():
                want = self.published.get(split, {}).get(domain)
                unlike = f" (published: {want})" if want not in (None, count) else ""
                parts.append(f"{domain} {count}{unlike}")
            lines.append(f"{split}: " + ", ".join(parts[:20]) + (", ..." if parts[20:] else ""))
        if self.sizes:
            common = [f"{w}x{h} ({n})" for (w, h), n in self.sizes.most_common(5)]
            more = f" and {len(self.sizes) - 5} more" if len(self.sizes) > 5 else ""
            lines.append("sizes: " + ", ".join(common) + more)
            lines.append("modes: " + ", ".join(f"{m} ({n})" for m, n in self.modes.most_common()))
        for title, groups in (
            ("duplicates within a split", self.duplicates),
            ("duplicates across train and test", self.leaks),
        ):
            if groups:
                lines.append(f"{title}: {len(groups)}")
                lines += _few(["  " + " = ".join(group) for group in groups], _SHOWN)
        if self.unreadable:
            lines.append(f"unreadable: {len(self.unreadable)}")
            lines += _few(["  " + text for text in self.unreadable], _SHOWN)
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"problem: {text}" for text in self.problems]
        lines.append("ok" if self.ok else "NOT USABLE")
        # names of files need not be UTF-8
        return "\n".join(lines).encode("utf-8", "backslashreplace").decode()


def _few(lines: list[str], limit: int) -> list[str]:
    return lines[:limit] + ([f"  ... and {len(lines) - limit} more"] if lines[limit:] else [])


def check_data(source: Source) -> Report:
    """Examine every file of ``source``. Broken data is reported, not raised."""
    if isinstance(source, Joint):
        return _check_joint(source)
    report = Report(source.name, source.where, source.expected)
    _count(source, report)
    report.notes = list(source.notes)
    if isinstance(source, RegistrySet):
        report.published = source.published.expected()
        if report.counts and any(
            report.published[split][domain] != n
            for split, by_domain in report.counts.items()
            for domain, n in by_domain.items()
        ):
            report.notes.append("the counts are not those of the published set")
    split_of: dict[Path, set[str]] = {}
    for split, by_domain in source.pictures.items():
        for pictures in by_domain.values():
            for picture in pictures:
                if isinstance(picture, FilePicture):
                    split_of.setdefault(picture.path, set()).add(split)
    if source.where and source.root.is_dir():
        report.folders, present = _tree(source.root, split_of, source.suffixes)
        if not split_of and report.problems:
            # the layout is not understood; the pictures can be looked at all the same
            split_of = {path: {"all"} for path in present}
    unused = sum(pictures for _, pictures, _ in report.folders) - len(split_of)
    if unused > 0 and report.counts:
        report.notes.append(f"{unused} pictures are in folders that this layout does not use")
    _examine(split_of, source, report)
    return report


def _check_joint(source: Joint) -> Report:
    """The reports on its sets as one; what is said of a set begins with the set's name."""
    parts = {key: check_data(part) for key, part in source.parts.items()}
    expected = "; ".join(f"{key}: {found.expected}" for key, found in parts.items())
    report = Report(source.name, source.where, expected)
    for key, found in parts.items():
        report.folders += [(f"{key}: {folder}", n, others) for folder, n, others in found.folders]
        for split, counts in found.published.items():
            report.published.setdefault(split, {}).update(counts)
        report.sizes += found.sizes
        report.modes += found.modes
        report.unreadable += [f"{key}: {text}" for text in found.unreadable]
        report.duplicates += [[f"{key}: {file}" for file in group] for group in found.duplicates]
        report.leaks += [[f"{key}: {file}" for file in group] for group in found.leaks]
        report.problems += [f"{key}: {text}" for text in found.problems]
        report.notes += [f"{key}: {text}" for text in found.notes]
    if not report.problems:
        _count(source, report)
    return report


def _count(source: Source, report: Report) -> None:
    try:
        source.fetch()
        source.prepare()
        report.counts = source.counts()
    except UserError as error:
        report.problems.append(str(error))


def _tree(
    root: Path, used: Iterable[Path], suffixes: Sequence[str]
) -> tuple[list[tuple[str, int, int]], list[Path]]:
    """The folders (see `Report`) and pictures below ``root``. A link to a folder is followed where
    one of the pictures ``used`` lies behind it: it may lead anywhere."""
    behind = {str(folder) for path in used for folder in path.parents}
    folders: list[tuple[str, int, int]] = []
    pictures: list[Path] = []
    seen: set[str] = set()
    todo = [(str(root), os.path.realpath(root))]
    while todo:  # os.walk recurses
        here, real = todo.pop()
        if real in seen:
            continue
        seen.add(real)
        names: list[str] = []
        below: list[tuple[str, str]] = []
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(here), key=lambda entry: entry.name):
                if not entry.is_dir():
                    names.append(entry.name)
                elif entry.name.startswith((".", "__")):
                    continue
                elif not entry.is_symlink():
                    below.append((entry.path, os.path.join(real, entry.name)))
                elif entry.path in behind:
                    below.append((entry.path, os.path.realpath(entry.path)))
        if names or not below:
            found = [Path(here, name) for name in names if is_image(Path(name), suffixes)]
            relative = Path(here).relative_to(root).as_posix()
            folders.append((relative, len(found), len(names) - len(found)))
            pictures += found
        todo += reversed(below)
    return folders, pictures


def _examine(split_of: dict[Path, set[str]], source: Source, report: Report) -> None:
    root = source.root
    same: dict[str, list[Path]] = {}
    for path in split_of:
        try:
            if is_stack(source.channels):
                array = read_stack(path, source.channels).array
                report.sizes[array.shape[1], array.shape[0]] += 1
                report.modes[f"{source.channels} channels, {array.dtype.name}"] += 1
            else:
                read_image(path)
                with Image.open(path) as image:
                    report.sizes[image.size] += 1
                    report.modes[image.mode] += 1
        except UserError as error:
            report.unreadable.append(str(error))
            continue
        same.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path)
    for paths in same.values():
        if len(paths) > 1:
            group = [path.relative_to(root).as_posix() for path in paths]
            splits = [split_of[path] for path in paths]
            across = len(set().union(*splits)) > 1
            (report.leaks if across else report.duplicates).append(group)
