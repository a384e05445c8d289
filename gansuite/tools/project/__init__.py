"""``gansuite init``: a small project of one's own, written from the files in ``template/``."""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import re
from pathlib import Path

from gansuite.errors import UserError

_TEMPLATE = Path(__file__).parent / "template"
_PACKAGE = "mypackage"
"""What the package is called in the template."""


def write_project(folder: Path) -> list[str]:
    """Write a project into ``folder``, whose name its package gets; what to do next, as lines.

    Raises:
        UserError: a file is there already, or the name or the folder will not do; then nothing
            has been written.
    """
    package = _package_name(folder)
    texts = {
        folder / str(file.relative_to(_TEMPLATE)).replace(_PACKAGE, package): file
        for file in sorted(_TEMPLATE.rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }
    if there := [path for path in texts if path.exists()]:
        raise UserError(f"{there[0]} is there already; give another folder.")
    made: list[Path] = []
    try:
        for path, template in texts.items():
            text = template.read_text(encoding="utf-8").replace(_PACKAGE, package)
            new = [p for p in (path.parent, *path.parent.parents) if not p.exists()]
            made += reversed(new)
            path.parent.mkdir(parents=True, exist_ok=True)
            made.append(path)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        for path in reversed(made):
            with contextlib.suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise UserError(f"{folder} could not be written ({error.strerror}).") from error
    return [
        f"{folder} is a project with the package {package}. Next:",
        *(f"  cd {folder}" for _ in "." if folder != Path()),
        "  pip install -e .              # so that gansuite finds the method mygan",
        "  gansuite list                 # shows mygan, mygan_coats and my_photos",
        "  gansuite exp mygan_coats      # trains the method on drawn animals",
        "  gansuite check-data my_photos # says where pictures of your own go",
        "  python -m pytest",
    ]


def _package_name(folder: Path) -> str:
    """The name of the package: that of the folder, as Python can import it."""
    name = re.sub(r"\W+", "_", folder.resolve().name.lower(), flags=re.ASCII).strip("_")
    if not name.isidentifier() or keyword.iskeyword(name) or name in ("tests", "experiments"):
        raise UserError(
            f"'{folder}' gives no name for a package; use letters, digits and _, a letter first."
        )
    if importlib.util.find_spec(name) is not None and not (folder / name).is_dir():
        raise UserError(
            f"A package '{name}' is installed already; give the folder another name than that."
        )
    return name
