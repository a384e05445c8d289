"""Folders of pictures: what lies in them, and how they are laid out."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from gansuite.data.images import IMAGE_SUFFIXES, is_image
from gansuite.errors import UserError, nearest
from gansuite.imaging import unlike_a_file

Places = dict[str, dict[str, Path]]
"""split -> domain (or class) -> its folder. The only split is "all" without a test folder."""


def subfolders(folder: Path) -> list[str]:
    """Names of the visible sub-folders, sorted; archive leftovers of other systems are none."""
    return sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir()
        and not entry.name.startswith((".", "__"))
        and not (entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve()))
    )


def pictures_below(
    folder: Path,
    root: Path,
    own: Sequence[Path] = (),
    suffixes: Sequence[str] = IMAGE_SUFFIXES,
) -> tuple[list[Path], int]:
    """The pictures in ``folder`` and below, sorted by their relative path, equal everywhere; and
    how many links were not followed.

    A link is followed when it leads into ``folder`` or elsewhere into ``root``, though not to a
    folder around it nor into another one of the folders ``own`` that make up the data; and nothing
    is found twice. ``folder`` itself may be a link to anywhere.
    Raises :class:`UserError` for a pipe, a device or a dangling link with the name of a picture.
    """
    real = os.path.realpath(folder)
    inside = (os.path.realpath(root), real)
    elsewhere = [place for place in map(os.path.realpath, own) if place != real]
    found: list[Path] = []
    seen: set[str] = set()
    links: list[str] = []
    left = 0

    def walk(here: str, real: str) -> None:
        below = [(here, real)]
        while below:
            here, real = below.pop()
            if real in seen:
                continue
            seen.add(real)
            with os.scandir(here) as entries:
                for entry in entries:
                    picture = is_image(Path(entry.name), suffixes)
                    if entry.is_symlink():
                        links.append(entry.path)
                    elif entry.is_dir():
                        if not entry.name.startswith((".", "__")):
                            below.append((entry.path, os.path.join(real, entry.name)))
                    elif picture and not entry.is_file():
                        raise UserError(f"'{entry.path}' {unlike_a_file(Path(entry))}; remove it")
                    elif picture:
                        seen.add(os.path.join(real, entry.name))
                        found.append(Path(entry.path))

    walk(str(folder), real)
    while links:
        links.sort(reverse=True)
        link = links.pop()
        name, target = os.path.basename(link), os.path.realpath(link)
        is_folder = os.path.isdir(target)
        if name.startswith((".", "__")) or not (is_folder or is_image(Path(name), suffixes)):
            continue
        if not is_folder and (reason := unlike_a_file(Path(link))):
            raise UserError(f"'{link}' {reason}; remove it")
        if (
            target in seen
            or not any(_within(target, place) for place in inside)
            or any(_within(target, place) for place in elsewhere)
            or _within(os.path.realpath(os.path.dirname(link)), target)
            or _within(real, target)
        ):
            left += 1
        elif is_folder:
            walk(link, target)
        else:
            seen.add(target)
            found.append(Path(link))
    # by name without suffix first: the two sides of pairs may have different suffixes
    return sorted(found, key=lambda path: (pair_key(path.relative_to(folder)), path.suffix)), left


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _listing(folder: Path) -> str:
    entries = (e for e in folder.iterdir() if not e.name.startswith("."))
    names = sorted(e.name + ("/" if e.is_dir() else "") for e in entries)
    return (", ".join(names[:6]) + (", ..." if len(names) > 6 else "")) or "nothing"


def split_places(root: Path) -> dict[str, Path]:
    """The folders train and test (or val) below ``root``, or else ``root`` itself as "all"."""
    present = {name.lower(): name for name in subfolders(root)}
    if "train" not in present:
        return {"all": root}
    test = present.get("test") or present.get("val") or present.get("valid")
    train = root / present["train"]
    return {"train": train, "test": root / test} if test else {"all": train}


def named_folders(root: Path, wanted: Sequence[str] | None, key: str = "domains") -> Places:
    """``train|test|val / name`` or ``name``; all names, sorted, or those ``wanted``.

    Where there are no folders, the pictures themselves are one domain with the name of ``root``.
    """
    places: Places = {}
    names = list(wanted) if wanted else []
    for split, place in split_places(root).items():
        present = subfolders(place)
        names = names or present
        for name in names:
            if name not in present:
                raise UserError(
                    f"data folder '{place}' has no folder '{name}'{nearest(name, present)}; "
                    f"found: {_listing(place)} (data.{key})"
                )
        places[split] = {n: place / n for n in names} if names else {root.resolve().name: place}
    return places


def ab_folders(root: Path, sides: Sequence[str], expected: str) -> Places:
    """``trainA trainB`` and ``testA testB`` (or ``valA valB``), under the names A and B."""
    test = next((s for s in ("test", "val") if any((root / f"{s}{x}").is_dir() for x in sides)), "")
    places: Places = {}
    for split, prefix in (("train", "train"), ("test", test)) if test else (("all", "train"),):
        places[split] = {}
        for side in sides:
            folder = root / f"{prefix}{side}"
            if not folder.is_dir():
                other = f"{prefix}{'B' if side == 'A' else 'A'}"
                has = f"it has '{other}' but no" if (root / other).is_dir() else "it has no"
                raise UserError(
                    f"data folder '{root}': {has} '{folder.name}' (found: {_listing(root)}); "
                    f"expected {expected}, for other layouts see data.name=folders, paired or "
                    "labelled"
                )
            places[split][side] = folder
    return places


def pair_key(path: Path) -> str:
    # one file system composes accents, another takes them apart
    return unicodedata.normalize("NFC", path.with_suffix("").as_posix())


def find_named(root: Path, *names: str) -> list[Path]:
    """The files of these names in ``root`` and two levels below, without listing all files."""
    return [
        path
        for level in ("", "*/", "*/*/")
        for name in names
        for path in sorted(root.glob(level + name))
    ]
