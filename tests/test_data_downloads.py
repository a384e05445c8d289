"""Downloads against a server in this process: what arrives, and what is left behind."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import shutil
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torchvision
from PIL import Image

from gansuite.data import SOURCES, DataModule, Needs, build_source
from gansuite.data.downloads import Archive, fetch, unpack
from gansuite.data.published import REGISTRY
from gansuite.data.sources.registry import RegistrySet
from gansuite.errors import UserError


def make_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for value, folder in enumerate(("trainA", "trainB", "testA", "testB")):
            picture = io.BytesIO()
            Image.new("L", (4, 4), value).save(picture, format="PNG")
            archive.writestr(f"toy/{folder}/1.jpg", picture.getvalue())
        archive.writestr("toy/readme.txt", bytes(range(256)) * 400)
    return buffer.getvalue()


ZIP = make_zip()


class Server(ThreadingHTTPServer):
    """Serves ``content`` under any path; ``cut`` sends that many bytes, then hangs up."""

    daemon_threads = True
    content = ZIP
    ranges = True
    cut: list[int]
    asked: list[tuple[str, str | None]]

    def url(self, name: str = "toy.zip") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        if "absent" in self.path:
            self.send_error(404)
            return
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(self.server.content):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        body = self.server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cut:
            body = body[: self.server.cut.pop(0)]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.cut, server.asked = [], []
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def archive(*urls: str) -> Archive:
    return Archive("toy", urls, len(ZIP), hashlib.sha256(ZIP).hexdigest())


def left(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


FOLDERS = [f"data/toy/{split}{side}" for split in ("train", "test") for side in "AB"]
COMPLETE = sorted(
    ["data", "data/toy", "data/toy/readme.txt", *FOLDERS, *(f"{f}/1.jpg" for f in FOLDERS)]
)


def test_a_download_leaves_the_folder_and_nothing_else(tmp_path: Path, server: Server) -> None:
    fetch(archive(server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == COMPLETE
    fetch(archive(server.url()), tmp_path / "data/toy")
    assert len(server.asked) == 1


def test_a_broken_connection_is_continued(tmp_path: Path, server: Server) -> None:
    server.cut = [30000, 20000]
    fetch(archive(server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == COMPLETE
    assert [asked for _, asked in server.asked] == [None, "bytes=30000-", "bytes=50000-"]


def test_the_next_run_continues_a_part(tmp_path: Path, server: Server) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy.zip.part").write_bytes(ZIP[:40000])
    fetch(archive(server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == COMPLETE
    assert [asked for _, asked in server.asked] == ["bytes=40000-"]


def test_a_part_that_the_server_calls_too_long_is_thrown_away(
    tmp_path: Path, server: Server
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy.zip.part").write_bytes(ZIP[:40000])
    server.content = ZIP[:30000]
    assert "offers 30000 bytes" in refused(tmp_path, server.url())
    assert left(tmp_path) == ["data"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_wrong_part_is_thrown_away(tmp_path: Path, server: Server, ranges: bool) -> None:
    server.ranges = ranges
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy.zip.part").write_bytes(b"x" * 40000)
    fetch(archive(server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == COMPLETE
    assert len(server.asked) == (2 if ranges else 1)


def test_a_dead_mirror_is_passed_over(tmp_path: Path, server: Server) -> None:
    fetch(archive(server.url("absent"), server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == COMPLETE


def refused(tmp_path: Path, *urls: str) -> str:
    with pytest.raises(UserError) as caught:
        fetch(archive(*urls), tmp_path / "data/toy")
    text = str(caught.value)
    assert "\n" not in text
    facts = (*urls, str(len(ZIP)), archive().sha256, str(tmp_path / "data/toy.zip"))
    assert all(fact in text for fact in facts)
    return text


def test_a_connection_that_always_breaks_keeps_its_part(tmp_path: Path, server: Server) -> None:
    server.cut = [1000] * 3
    assert "toy.zip.part" in refused(tmp_path, server.url())
    assert left(tmp_path) == ["data", "data/toy.zip.part"]
    assert (tmp_path / "data/toy.zip.part").read_bytes() == ZIP[:3000]


def test_failures_leave_nothing(tmp_path: Path, server: Server) -> None:
    assert "HTTP 404" in refused(tmp_path, server.url("absent"))
    assert left(tmp_path) == []
    server.content = ZIP[:-1]
    assert f"offers {len(ZIP) - 1} bytes instead of {len(ZIP)}" in refused(tmp_path, server.url())
    assert left(tmp_path) == []
    server.content = ZIP[:-1] + b"?"
    wrong = hashlib.sha256(server.content).hexdigest()
    assert f"has sha256 {wrong} instead" in refused(tmp_path, server.url(), server.url("two"))
    assert left(tmp_path) == []
    server.shutdown()
    server.server_close()
    assert "refused" in refused(tmp_path, server.url())
    assert left(tmp_path) == []


def test_a_file_put_there_by_hand_is_verified_and_kept(tmp_path: Path, server: Server) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/toy.zip").write_bytes(ZIP[:-1])
    with pytest.raises(UserError, match=f"toy.zip' has {len(ZIP) - 1} bytes instead of"):
        fetch(archive(server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == ["data", "data/toy.zip"]
    (tmp_path / "data/toy.zip").write_bytes(ZIP)
    fetch(archive(server.url()), tmp_path / "data/toy")
    assert left(tmp_path) == sorted([*COMPLETE, "data/toy.zip"])
    assert server.asked == []


def test_two_at_once_download_once(tmp_path: Path, server: Server) -> None:
    threads = [
        threading.Thread(target=fetch, args=(archive(server.url()), tmp_path / "data/toy"))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert left(tmp_path) == COMPLETE
    assert len(server.asked) == 1


def unsafe(name: str, mode: int = 0o100644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("toy/fine.txt", "fine")
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, "../../secret")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "mode", "reason"),
    [
        ("../evil.txt", 0o100644, "leads outside"),
        ("toy/../../evil.txt", 0o100644, "leads outside"),
        ("/tmp/gansuite-evil.txt", 0o100644, "leads outside"),
        ("..\\evil.txt", 0o100644, "leads outside"),
        ("C:\\evil.txt", 0o100644, "leads outside"),
        ("toy/link", 0o120777, "is a link"),
        ("toy/pipe", 0o010644, "is a link or a device"),
    ],
)
def test_unpacking_never_writes_outside(tmp_path: Path, name: str, mode: int, reason: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.zip").write_bytes(unsafe(name, mode))
    with pytest.raises(UserError, match=reason):
        unpack(tmp_path / "in/a.zip", tmp_path / "in/toy")
    assert left(tmp_path) == ["in", "in/a.zip"]
    assert not Path("/tmp/gansuite-evil.txt").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "text"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, damage: str) -> None:
    content = {
        "cut": ZIP[: len(ZIP) // 2],
        "flipped": ZIP[:100] + bytes([ZIP[100] ^ 255]) + ZIP[101:],
        "text": b"<html>not found</html>",
    }[damage]
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.zip' is damaged or cut short"):
        unpack(tmp_path / "a.zip", tmp_path / "toy")
    assert left(tmp_path) == ["a.zip"]


def test_an_archive_that_swells_is_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.jpg", bytes(1 << 24))
    with pytest.raises(UserError, match="would become 16777216 bytes in 1 files"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.zip").write_bytes(ZIP)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(UserError, match="No space left"):
        unpack(tmp_path / "a.zip", tmp_path / "toy")
    assert left(tmp_path) == ["a.zip"]


def test_a_registry_set_downloads_itself_once(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build_source("horse2zebra", root=str(tmp_path / "data/toy"))
    assert isinstance(source, RegistrySet)
    toy = dataclasses.replace(source.published, archive=archive(server.url()))
    monkeypatch.setattr(type(source), "published", toy)
    with pytest.raises(UserError, match="toy' does not exist"):
        source.prepare()
    assert not server.asked
    source.fetch()
    source.prepare()
    assert source.counts() == {s: {"horse": 1, "zebra": 1} for s in ("train", "test")}
    build_source("horse2zebra", root=str(tmp_path / "data/toy")).fetch()
    assert len(server.asked) == 1


def test_only_prepare_data_downloads(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data/toy"
    published = SOURCES["horse2zebra"]
    toy = dataclasses.replace(REGISTRY["horse2zebra"], archive=archive(server.url()))
    monkeypatch.setattr(published, "published", toy)
    data = DataModule.of("horse2zebra", size=4, batch=1, root=str(root))
    with pytest.raises(UserError, match="toy' does not exist"):
        data.setup()
    assert not server.asked
    assert left(tmp_path) == []
    data.prepare_data()
    assert len(server.asked) == 1
    with pytest.raises(UserError, match="1 test picture"):
        data.setup()
    assert data.needs == Needs("unpaired")
    joint = {key: {"name": "horse2zebra", "root": str(root)} for key in "ab"}
    build_source("joint", sets=joint).fetch()
    assert len(server.asked) == 1
    shutil.rmtree(root)
    build_source("joint", sets=joint).fetch()
    assert len(server.asked) == 2


def test_what_torchvision_downloads_arrives_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(folder: str, *, download: bool, fails: bool = False) -> None:
        asked.append(folder)
        assert download
        (Path(folder) / "half").touch()
        if fails:
            raise RuntimeError("no such host\nand more")

    source = build_source("mnist", root=str(tmp_path / "data/mnist"))
    monkeypatch.setattr(torchvision.datasets, "MNIST", functools.partial(download, fails=True))
    with pytest.raises(UserError, match=r"cannot be downloaded \(no such host\); get it .*four"):
        source.fetch()
    assert left(tmp_path) == []
    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    (tmp_path / "data/mnist").mkdir(parents=True)  # an empty folder is filled
    source.fetch()
    source.fetch()
    assert left(tmp_path) == ["data", "data/mnist", "data/mnist/half"]
    assert len(asked) == 2


def test_the_registry_is_complete() -> None:
    assert len(REGISTRY) == 10
    for name, entry in REGISTRY.items():
        assert [url.rsplit("/", 1)[1] for url in entry.archive.urls] == [f"{name}.zip"] * 2
        assert len(entry.archive.sha256) == 64
        assert set(entry.archive.sha256) <= set("0123456789abcdef")
        assert entry.archive.size > 3e7
    assert REGISTRY["horse2zebra"].expected() == {
        "train": {"horse": 1067, "zebra": 1334},
        "test": {"horse": 120, "zebra": 140},
    }
    assert REGISTRY["maps"].archive.size == 1476754427
    assert build_source("maps").root == Path("data/maps")
