"""Mirrors that answer badly in every way a server can: the next one is tried, and what is not whole never gets its name."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.training import data
from bench.training.fetch import FetchError, fetch
from bench.training.idx import DataError
from pooling.runtime.user_dirs import NoPlace
from tests.digits_folder import idx
from tests.processes import HANG_S

Respond = Callable[[http.server.BaseHTTPRequestHandler, bytes], None]

NAMES = list(data.FILES)
RANDOM = np.random.default_rng(0)
FILES = {
    name: idx(RANDOM.integers(0, 256, (30, 28, 28)) if "images" in name else RANDOM.integers(0, 10, 30))
    for name in NAMES
}
PACKED = {name: gzip.compress(raw, mtime=0) for name, raw in FILES.items()}


class Server(http.server.ThreadingHTTPServer):
    """On a free port of this machine; counts what it was asked for."""

    daemon_threads = True

    def __init__(self, respond: Respond) -> None:
        self.respond, self.asked = respond, list[str]()
        self.over = threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"

    def handle_error(self, *_: Any) -> None:
        """Clients hang up here; nobody wants to read of it."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.strip("/").removesuffix(".gz")
        self.server.asked.append(name)
        self.server.respond(self, PACKED.get(name, b""))

    def log_message(self, *_: Any) -> None:
        """Tests print nothing."""


@pytest.fixture
def serve() -> Iterator[Callable[[Respond], Server]]:
    servers = []

    def start(respond: Respond) -> Server:
        servers.append(Server(respond))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, where these small files are MNIST; no proxy between this machine and itself."""
    monkeypatch.setattr(data, "user_folder", lambda kind: str(tmp_path))
    monkeypatch.setattr(data, "FILES", {name: hashlib.sha256(raw).hexdigest() for name, raw in FILES.items()})
    monkeypatch.delenv("POOLING_DATA_DIR", raising=False)
    for name in ("TIMEOUT_S", "TOTAL_S"):
        monkeypatch.setattr(data, name, float(HANG_S))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "*")
    return tmp_path / "mnist"


def send(handler: http.server.BaseHTTPRequestHandler, body: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | headers).items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def good(handler: http.server.BaseHTTPRequestHandler, packed: bytes) -> None:
    send(handler, packed)


def flipped(packed: bytes) -> bytes:
    middle = len(packed) // 2
    return packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :]


def altered(packed: bytes) -> bytes:
    """Sound gzip of other bytes."""
    raw = bytearray(gzip.decompress(packed))
    raw[-1] ^= 1
    return gzip.compress(bytes(raw))


def hang(handler: Any, packed: bytes) -> None:
    handler.server.over.wait(HANG_S)


def hang_in_the_body(handler: Any, packed: bytes) -> None:
    send(handler, packed[:100], Content_Length=str(len(packed)))
    handler.wfile.flush()
    hang(handler, packed)


def drip(handler: Any, packed: bytes) -> None:
    """A byte now and then: no read ever waits long."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(packed)))
    handler.end_headers()
    for byte in packed:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.server.over.wait(0.05):
            return


def drip_headers(handler: Any, packed: bytes) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def reset(handler: Any, packed: bytes) -> None:
    """The connection breaks in the middle of the body."""
    send(handler, packed[: len(packed) // 2], Content_Length=str(len(packed)))
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def endless(handler: Any, packed: bytes) -> None:
    handler.send_response(200)
    handler.end_headers()
    while not handler.server.over.is_set():
        handler.wfile.write(bytes(1 << 16))


def hidden_bomb(handler: Any, packed: bytes) -> None:
    send(handler, gzip.compress(bytes(1 << 22)), Content_Encoding="gzip")


def redirect(to: str) -> Respond:
    return lambda handler, packed: send(handler, b"", 302, Location=to)


def no_http(handler: Any, packed: bytes) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def broken_chunks(handler: Any, packed: bytes) -> None:
    handler.protocol_version = "HTTP/1.1"
    send(handler, b"zz\r\nno number of bytes\r\n", Transfer_Encoding="chunked")


BAD: dict[str, Respond] = {
    "truncated gzip": lambda handler, packed: send(handler, packed[:-20]),
    "gzip without its end": lambda handler, packed: send(handler, packed[:-4]),
    "shorter than promised": lambda handler, packed: send(handler, packed[:-20], Content_Length=str(len(packed))),
    "web page": lambda handler, packed: send(handler, b"<html>log in to this network</html>", Content_Type="text/html"),
    "web page, compressed": lambda handler, packed: send(handler, gzip.compress(b"<html></html>")),
    "flipped bits": lambda handler, packed: send(handler, flipped(packed)),
    "other digest": lambda handler, packed: send(handler, altered(packed)),
    "another file": lambda handler, packed: send(handler, gzip.compress(idx(np.zeros(5)))),
    "zlib, not gzip": lambda handler, packed: send(handler, zlib.compress(gzip.decompress(packed))),
    "not found": lambda handler, packed: send(handler, packed, 404),
    "forbidden": lambda handler, packed: send(handler, packed, 403),
    "server error": lambda handler, packed: send(handler, packed, 500),
    "unavailable": lambda handler, packed: send(handler, packed, 503),
    "no content": lambda handler, packed: send(handler, b"", 204),
    "empty": lambda handler, packed: send(handler, b""),
    "redirect loop": lambda handler, packed: send(handler, b"", 302, Location=handler.path),
    "redirect to nowhere": redirect("http://127.0.0.1:9/"),
    "redirect to no host": redirect("http://"),
    "redirect to another scheme": redirect("ftp://127.0.0.1/"),
    "redirect to a bad name": redirect("http://" + "a" * 70 + ".example/"),
    "hangs": hang,
    "hangs in the body": hang_in_the_body,
    "a byte now and then": drip,
    "headers a byte now and then": drip_headers,
    "reset": reset,
    "hangs up at once": lambda handler, packed: None,
    "no HTTP": no_http,
    "broken chunks": broken_chunks,
    "too large": lambda handler, packed: send(handler, bytes(1 << 21)),
    "endless": endless,
    "bomb": lambda handler, packed: send(handler, gzip.compress(bytes(1 << 22))),
    "bomb in a bomb": lambda handler, packed: send(handler, gzip.compress(gzip.compress(bytes(1 << 28)))),
    "bomb as an encoding": hidden_bomb,
}


@pytest.mark.parametrize("how", BAD)
def test_after_a_bad_answer_comes_the_next_mirror(
    how: str, serve: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "LARGEST", 1 << 20)
    if "hangs" in how or "now and then" in how:
        monkeypatch.setattr(data, "TIMEOUT_S", 0.5)
        monkeypatch.setattr(data, "TOTAL_S", 1.0)
    bad = serve(BAD[how])
    last = serve(good)

    def fetched(url: str, **limits: float) -> bytes:
        if url.startswith(last.url):  # which has all the time that it takes a busy machine
            limits |= {"silence_s": HANG_S, "total_s": HANG_S}
        return fetch(url, **limits)  # type: ignore[arg-type]

    monkeypatch.setattr(data, "fetch", fetched)
    monkeypatch.setattr(data, "MIRRORS", (bad.url, last.url))
    dataset = data.load()
    assert dataset.name == "MNIST"
    assert len(dataset.images) == 30
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)
    assert set(bad.asked) == {NAMES[0]}, "who has answered well is asked first for the next file"
    assert last.asked == NAMES


def test_when_no_mirror_is_good_all_are_named(serve: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [serve(BAD[how]) for how in ("not found", "truncated gzip", "other digest", "web page")]
    monkeypatch.setattr(data, "MIRRORS", tuple(server.url for server in pairs))
    with pytest.raises(DataError) as caught:
        data.download()
    said = str(caught.value)
    for server, why in zip(
        pairs, ("HTTP status 404", "no sound gzip", "other bytes than MNIST's", "no sound gzip"), strict=True
    ):
        assert f"{server.url}: {why}" in said
    assert "set POOLING_DATA_DIR to a copy" in said
    assert "\n" not in said
    assert not list(cache.iterdir())
    with pytest.warns(UserWarning, match="could not be downloaded"):
        assert data.load().name == "digits"


def test_what_is_there_and_sound_is_not_asked_for(serve: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(good)
    monkeypatch.setattr(data, "MIRRORS", (server.url,))
    cache.mkdir()
    for name in NAMES[:2]:
        (cache / name).write_bytes(FILES[name])
    (cache / NAMES[2]).write_bytes(FILES[NAMES[2]][:-1])  # left by a crash of what wrote in place
    assert data.download() == cache
    assert server.asked == NAMES[2:]
    assert all((cache / name).read_bytes() == raw for name, raw in FILES.items())
    data.download()
    assert server.asked == NAMES[2:]


def test_a_mirror_may_send_what_is_not_compressed(serve: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda handler, packed: send(handler, gzip.decompress(packed)))
    monkeypatch.setattr(data, "MIRRORS", (server.url,))
    assert data.load().name == "MNIST"


def test_a_mirror_may_say_that_gzip_is_its_encoding(serve: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(lambda handler, packed: send(handler, packed, Content_Encoding="gzip"))
    monkeypatch.setattr(data, "MIRRORS", (server.url,))
    assert data.load().name == "MNIST"


def test_an_interrupted_write_leaves_nothing(cache: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(source: Any, target: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(data, "MIRRORS", (serve(good).url,))
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(KeyboardInterrupt):
        data.download()
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_named(cache: Path, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(good)
    monkeypatch.setattr(data, "MIRRORS", (server.url,))
    cache.write_text("a file where the folder should be")
    with pytest.raises(DataError, match=r"mnist can't be written .*; set POOLING_DATA_DIR"):
        data.download()
    assert not server.asked


def test_without_a_home_nothing_is_kept_in_the_current_folder(
    serve: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(kind: str) -> str:
        raise NoPlace("this user has no home folder")

    server = serve(good)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "MIRRORS", (server.url,))
    monkeypatch.setattr(data, "user_folder", nowhere)
    with pytest.raises(DataError, match="no home folder, so that nothing can be kept; set POOLING_DATA_DIR"):
        data.download()
    assert not server.asked
    assert not list(tmp_path.iterdir())


DOWNLOADER = """
import sys
from bench.training import data
data.user_folder = lambda kind: sys.argv[1]
data.MIRRORS = (sys.argv[2],)
data.FILES = dict(item.split("=") for item in sys.argv[3:])
print(data.load().name)
"""


def test_processes_may_download_at_once(cache: Path, serve: Any) -> None:
    start = threading.Barrier(3)

    def together(handler: http.server.BaseHTTPRequestHandler, packed: bytes) -> None:
        if NAMES[0] in handler.path:
            start.wait(HANG_S)  # all are under way before one is answered
        send(handler, packed)

    files = [f"{name}={digest}" for name, digest in data.FILES.items()]
    command = (sys.executable, "-W", "error", "-c", DOWNLOADER, str(cache.parent), serve(together).url, *files)
    root = Path(data.__file__).parents[2]
    running = [
        subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for process in running:
        said, complained = process.communicate(timeout=HANG_S)
        assert (process.returncode, said.strip(), complained) == (0, "MNIST", "")
    assert sorted(path.name for path in cache.iterdir()) == sorted(NAMES)


def test_a_name_that_is_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    """No timeout of a socket bounds that; the thread that waits does not keep the process alive."""
    over = threading.Event()
    monkeypatch.setattr("bench.training.fetch.receive", lambda *_: over.wait(HANG_S))
    with pytest.raises(FetchError, match=r"not done in 0\.2 s"):
        fetch("http://mirror/", most=1, silence_s=300, total_s=0.2)
    assert not over.is_set()
    over.set()
