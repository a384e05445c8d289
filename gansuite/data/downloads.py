"""Fetching archives: resumed, verified, unpacked safely, all or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import stat
import sys
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm import tqdm

from gansuite.data.cache import lock
from gansuite.data.published import Archive
from gansuite.errors import UserError

_CHUNK = 1 << 18
_ATTEMPTS = 3  # per mirror, each continuing where the last one broke off
_SWELLING, _MEMBERS = 100, 5_000_000  # pictures hardly swell: a larger archive is a trap
_TIMEOUT = 30.0  # seconds without a byte
_PLAIN = (0, stat.S_IFREG, stat.S_IFDIR)  # kinds of members; 0: made by a system without kinds


def is_missing(root: Path) -> bool:
    """Whether ``root`` is to be filled: there is nothing, or an empty folder."""
    return not root.exists() or (root.is_dir() and not any(root.iterdir()))


def fetch(archive: Archive, root: Path) -> None:
    """Make the folder ``root`` out of ``archive``.

    A file ``<archive.name>.zip`` that lies beside ``root`` is verified and taken; otherwise it is
    downloaded there and removed after unpacking. Two processes may do this at once. On failure
    raises one :class:`UserError` and leaves nothing, except that a broken-off download stays as
    ``.zip.part`` and is continued next time.
    """
    try:
        with _alone(root, archive.name):
            if is_missing(root):
                _fetch(archive, root)
    except OSError as error:
        raise UserError(
            f"{archive.name} cannot be stored in '{root.parent}' ({error.strerror or error}); "
            "choose a folder that can be written to with data.root"
        ) from error


def _fetch(archive: Archive, root: Path) -> None:
    target = root.parent / f"{archive.name}.zip"
    by_hand = target.exists()
    if not by_hand:
        download(archive, target)
    elif problem := _problem(target, archive):
        raise UserError(
            f"archive '{target}' {problem}; remove it or replace it by {_recipe(archive)}"
        )
    try:
        unpack(target, root)
    finally:
        if not by_hand:
            target.unlink()


def fetch_dataset(dataset: str, root: Path, by_hand: str, **options: str) -> None:
    """Let torchvision's class ``dataset`` download aside, then make the result ``root``: all or
    nothing. ``by_hand``: where to get what instead, for the :class:`UserError` on failure."""
    try:
        with _alone(root, dataset):
            if is_missing(root):
                from torchvision import datasets

                aside = tempfile.mkdtemp(prefix=f".{dataset}-", dir=root.parent)
                try:
                    getattr(datasets, dataset)(aside, download=True, **options)
                    if root.is_dir():  # it is empty
                        root.rmdir()
                    Path(aside).replace(root)
                finally:
                    shutil.rmtree(aside, ignore_errors=True)
    except Exception as error:  # torchvision raises whatever its downloader met
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{dataset} is not at '{root}' and cannot be downloaded ({reason}); get it from "
            f"{by_hand} into '{root}'"
        ) from error


@contextlib.contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    """Hold the lock of ``name`` beside ``root``. The folders made for it go again on failure, where
    still empty."""
    made = [p for p in (root.parent, *root.parent.parents) if not p.exists()]
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with lock(root.parent / f".{name}.lock"):
            yield
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()
        raise


def _recipe(archive: Archive) -> str:
    return f"{' or '.join(archive.urls)} ({archive.size} bytes, sha256 {archive.sha256})"


def _problem(path: Path, archive: Archive) -> str:
    """What is wrong with a complete file, or an empty string."""
    size = path.stat().st_size
    if size != archive.size:
        return f"has {size} bytes instead of {archive.size}"
    found = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    if found.hexdigest() != archive.sha256:
        return f"has sha256 {found.hexdigest()} instead of {archive.sha256}"
    return ""


def download(archive: Archive, target: Path) -> None:
    """Fetch ``archive`` to the file ``target``: resumed, from the first address that answers, its
    size and sha256 verified. Raises :class:`UserError` that says where to put it by hand."""
    part = target.with_name(target.name + ".part")
    reasons = []
    for url in archive.urls:
        for _ in range(_ATTEMPTS):
            before = part.stat().st_size if part.exists() else 0
            reason = _continue(url, part, archive)
            after = part.stat().st_size if part.exists() else 0
            if not reason and after == archive.size:
                reason = _problem(part, archive)
                if not reason:
                    os.replace(part, target)
                    return
                part.unlink()
                if before:  # the earlier part may be the wrong one: once more from the start
                    continue
            elif not reason:
                reason = f"broke off at {after} of {archive.size} bytes"
                if after != before:
                    continue
            break
        reasons.append(f"{urllib.parse.urlsplit(url).netloc}: {reason}")
    kept = ""
    if part.exists():
        if part.stat().st_size:
            kept = f", '{part.name}' keeps what came and the next run continues it"
        else:
            part.unlink()
    raise UserError(
        f"{archive.name} cannot be downloaded ({'; '.join(reasons)}){kept}; get "
        f"{_recipe(archive)} by hand and put it at '{target}'"
    )


def _continue(url: str, part: Path, archive: Archive) -> str:
    """Append to ``part`` what it lacks. Returns the reason of a failure, "" at the stream's end."""
    have = part.stat().st_size if part.exists() else 0
    if have > archive.size:
        part.unlink()
        have = 0
    if have == archive.size:
        return ""
    request = urllib.request.Request(url, headers={"User-Agent": "gansuite"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            if have and response.status != 206:
                have = 0  # the server knows no ranges and sends all of it
            length = response.headers.get("Content-Length")
            if length is not None and have + int(length) != archive.size:
                return f"offers {have + int(length)} bytes instead of {archive.size}"
            _store(response, part, have, archive)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the part is longer than the file there
            part.unlink()
            return ""
        return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return str(error.reason)
    except (http.client.HTTPException, OSError) as error:
        # a connection that breaks is no failure yet: the caller looks at how far it came
        return "" if part.exists() and part.stat().st_size > have else str(error)
    return ""


def _store(response: http.client.HTTPResponse, part: Path, have: int, archive: Archive) -> None:
    print(f"downloading {archive.name} ({archive.size / 1e6:.0f} MB)", file=sys.stderr)
    with (
        open(part, "r+b" if have else "wb") as file,
        tqdm(
            total=archive.size, initial=have, unit="B", unit_scale=True, disable=None, leave=False
        ) as bar,
    ):
        file.seek(have)
        while block := response.read(_CHUNK):
            have += len(block)
            if have > archive.size:
                return
            try:
                file.write(block)
                file.flush()
            except OSError as error:
                file.close()
                part.unlink()
                raise UserError(
                    f"'{part}' cannot be written ({error.strerror}); {archive.name} needs "
                    f"{archive.size / 1e6:.0f} MB, and as much again to unpack"
                ) from error
            bar.update(len(block))


def unpack(path: Path, root: Path) -> None:
    """Unpack the zip file ``path`` as the folder ``root``, which must not exist or be empty.

    A single folder at its top is stripped. All or nothing: it is unpacked aside, then renamed.
    Raises :class:`UserError` for a damaged archive, a full disk, and an archive with absolute
    paths, ``..`` or links, of which nothing is unpacked.
    """
    # the caller holds a lock, so one name will do, and what a killed process left is removed
    aside = root.with_name(f".{root.name}.unpacking")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            for member in members:
                _refuse_unsafe(member, path)
            needed, free = sum(m.file_size for m in members), shutil.disk_usage(aside).free
            size = path.stat().st_size
            if needed > _SWELLING * size or len(members) > _MEMBERS:
                raise UserError(
                    f"archive '{path}' is not unpacked: its {size} bytes would become "
                    f"{needed} bytes in {len(members)} files; get it from a source that you trust"
                )
            if needed > free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            archive.extractall(aside)
        top = [entry for entry in aside.iterdir() if entry.name != "__MACOSX"]
        if root.is_dir():
            root.rmdir()
        os.replace(top[0] if len(top) == 1 and top[0].is_dir() else aside, root)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise UserError(
            f"archive '{path}' is damaged or cut short ({error}); download it again"
        ) from error
    except OSError as error:
        raise UserError(
            f"archive '{path}' cannot be unpacked to '{root}' ({error.strerror or error})"
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _refuse_unsafe(member: zipfile.ZipInfo, path: Path) -> None:
    name = member.filename
    kind = stat.S_IFMT(member.external_attr >> 16)
    windows = PureWindowsPath(name)
    if (
        name.startswith(("/", "\\"))
        or windows.drive
        or ".." in PurePosixPath(name).parts
        or ".." in windows.parts
        or kind not in _PLAIN
    ):
        what = "leads outside" if kind in _PLAIN else "is a link or a device"
        raise UserError(
            f"archive '{path}' is not unpacked: its member '{name}' {what}; get it from a source "
            "that you trust"
        )
