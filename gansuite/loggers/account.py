"""The user's W&B account: whether a run may reach it, and sending what was recorded offline."""

from __future__ import annotations

import netrc
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

from gansuite.errors import UserError

Mode = Literal["online", "offline", "disabled"]
_FORMERLY = "https://api.wandb.ai"
NO_KEY = "there is no W&B key: set WANDB_API_KEY or run 'wandb login'"


def wandb_mode(wanted: Literal["auto", "online", "offline", "disabled"]) -> Mode:
    """The mode for ``log.wandb``; never asks. "auto" is online only with a key at hand."""
    if wanted != "auto":
        return wanted
    if os.environ.get("WANDB_MODE") in {"offline", "disabled", "dryrun"}:
        return "disabled" if os.environ["WANDB_MODE"] == "disabled" else "offline"
    return "online" if has_wandb_key() else "offline"


def load_wandb() -> Any:
    """The package, imported with its reports of errors and use switched off: its service sends
    them from offline runs, too. ``WANDB_ERROR_REPORTING=true`` keeps them for online runs."""
    os.environ.setdefault("WANDB_SILENT", "true")
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    return wandb


def has_wandb_key() -> bool:
    """Whether a W&B key is in the environment or, for the server in use, in the user's netrc."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    wandb = load_wandb()
    server = os.environ.get("WANDB_BASE_URL") or wandb.setup().settings.base_url
    known = {server}
    if server == wandb.Settings().base_url:
        known.add(_FORMERLY)  # the same service; keys are still found under its former name
    hosts = {x for url in known for x in (urlparse(url).netloc, urlparse(url).hostname) if x}
    named = os.environ.get("NETRC")
    try:
        keys = netrc.netrc(named and os.path.expanduser(named))
    except (OSError, netrc.NetrcParseError):
        return False
    return any(keys.authenticators(host) is not None for host in hosts)


def sync(folders: Sequence[Path]) -> Iterator[Path]:
    """Send the offline W&B runs in and below ``folders``; yields each when it is done.

    Raises:
        UserError: there is none, or no key, or the server does not take it.
    """
    found = [p for folder in folders for p in sorted(folder.glob("**/wandb/offline-run-*"))]
    if not found:
        raise UserError(f"There is no offline W&B run in {', '.join(map(str, folders))}.")
    if not has_wandb_key():
        raise UserError(f"{len(found)} offline W&B run(s) wait, but {NO_KEY}.")
    for path in found:
        command = [sys.executable, "-m", "wandb", "sync", "--include-synced", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode:
            reason = (done.stderr + done.stdout).strip().splitlines() or ["no reason given"]
            raise UserError(f"{path} could not be sent ({reason[-1]}).")
        yield path
