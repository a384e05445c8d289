"""A headless browser for the tests of pages."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


class Browser:
    """A headless browser, spoken to over a pipe in its own protocol."""

    def __init__(self, program: str, profile: str) -> None:
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()

        def wire() -> None:  # it reads commands from 3 and writes answers to 4
            a, b = (fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (to_read, to_write))
            os.dup2(a, 3)
            os.dup2(b, 4)

        arguments = [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--disable-quic", "--window-size=1200,900",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
            f"--user-data-dir={profile}", "--remote-debugging-pipe",
        ]  # fmt: skip
        self.process = subprocess.Popen(
            [program, *arguments],
            close_fds=False,
            preexec_fn=wire,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = ""
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self(f"{domain}.enable")

    def __call__(self, command: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": command, "params": parameters}
        if getattr(self, "session", ""):
            message["sessionId"] = self.session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self.events.append(answer)

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            got = os.read(self._read, 1 << 16)
            assert got, "the browser has gone"
            self._rest += got
        one, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(one))

    def open(self, page: Path | str) -> None:
        """A file, or an address, until it is loaded."""
        self.events.clear()
        self("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message())

    def value(self, expression: str) -> Any:
        found = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until an expression is true; fails after two minutes of waiting, of a hanging page."""
        promise = f"""new Promise((done) => {{
            const begun = Date.now(), look = setInterval(() => {{
                const found = Boolean({condition});
                if (found || Date.now() - begun > 120000) {{ clearInterval(look); done(found); }}
            }}, 50); }})"""
        found = self("Runtime.evaluate", expression=promise, awaitPromise=True, returnByValue=True)
        assert found["result"].get("value") is True, (
            condition,
            found,
            self.value("document.body.innerText"),
        )

    def choose(self, selector: str, *files: Path) -> None:
        """Give files to an input of files."""
        where = self("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        which = where["result"]["objectId"]
        self("DOM.setFileInputFiles", objectId=which, files=[str(f.resolve()) for f in files])

    def press(self, key: str, code: int = 0, text: str = "") -> None:
        """A key that goes to what has the focus."""
        for kind in ("keyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, text=text,
                 windowsVirtualKeyCode=code)  # fmt: skip

    def look(self, width: int, dark: bool = False, height: int = 900) -> None:
        """A window of another width, in light or dark."""
        self("Emulation.setDeviceMetricsOverride", width=width, height=height,
             deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """PNG of the whole page."""
        shot = self("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(shot["data"])

    def complaints(self, *inside: str) -> list[dict[str, Any]]:
        """Everything that reached the console, and every request that left the page, or what
        begins with one of ``inside``."""
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        asked = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        kept = ("file:", "data:", "blob:", *inside)
        outside = [e for e in asked if not e["params"]["request"]["url"].startswith(kept)]
        return [e for e in self.events if e.get("method") in said] + outside

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        self.process.terminate()
        self.process.wait(20)


def browsing() -> Iterator[Browser]:
    """One with a profile of its own; skips where none is installed."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(names)})")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        found = Browser(program, profile)
        yield found
        found.close()
