"""Downloads from a server on this machine, which behaves as servers do: and misbehaves."""

import errno
import hashlib
import http.server
import importlib
import io
import multiprocessing
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.data.download import DownloadError, Remote, cache_folder, digest_of, download

module = importlib.import_module("equipoise.data.download")  # beside the function of that name
BODY = bytes(range(256)) * 4096  # 1 MiB
SHA256 = f"sha256:{hashlib.sha256(BODY).hexdigest()}"


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY under every name; the switches say how well."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag = BODY, '"one"'
        self.statuses: list[int] = []  # what the next requests get instead
        self.cut: list[int] = []  # bytes after which the next answers break off
        self.ranges, self.lengths, self.kind = True, True, ""
        self.requests: list[str | None] = []  # the Range header of each

    def url(self, name: str = "data.npz") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.requests.append(asked)
        if self.server.statuses:
            self.send_error(self.server.statuses.pop(0))
            return
        body, first = self.server.body, 0
        same = self.headers.get("If-Range") in (None, self.server.etag)
        if asked and self.server.ranges and same:
            first = int(asked.removeprefix("bytes=").removesuffix("-"))
            if first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if self.server.lengths:
            self.send_header("Content-Length", str(len(body) - first))
        if self.server.kind:
            self.send_header("Content-Type", self.server.kind)
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        rest = body[first:]
        if self.server.cut:
            rest = rest[: self.server.cut.pop(0)]
            self.close_connection = True
        self.wfile.write(rest)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(remote: Remote, folder: Path, **settings: object) -> Path:
    return download(remote, folder, pause=0.0, timeout=5.0, **settings)


def there(folder: Path) -> list[str]:
    """Names of the files, but for locks."""
    return sorted(path.name for path in folder.rglob("*") if not path.name.endswith(".lock"))


def test_a_file_arrives_whole(server: Server, tmp_path: Path) -> None:
    remote = Remote(url=server.url(), name="sub/data.npz", digest=SHA256, size=len(BODY))
    path = get(remote, tmp_path / "new")
    assert path == tmp_path / "new" / "sub" / "data.npz"
    assert path.read_bytes() == BODY
    assert there(tmp_path) == ["data.npz", "new", "sub"]
    get(remote, tmp_path / "new")
    assert len(server.requests) == 1, "what is there is not fetched again"


def test_a_broken_connection_is_gone_on_with(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 200_000]
    path = get(Remote(url=server.url(), name="data", digest=SHA256), tmp_path)
    assert path.read_bytes() == BODY
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000]
    remote = Remote(url=server.url(), name="data")
    with pytest.raises(DownloadError, match="broke off with 748,576 bytes to come"):
        get(remote, tmp_path, attempts=1)
    assert (tmp_path / "data.part").stat().st_size == 300_000
    assert get(remote, tmp_path).read_bytes() == BODY
    assert server.requests[-1] == "bytes=300000-"
    assert there(tmp_path) == ["data"]


def test_another_version_is_not_glued_to_the_old_one(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000]
    remote = Remote(url=server.url(), name="data")
    with pytest.raises(DownloadError):
        get(remote, tmp_path, attempts=1)
    server.body, server.etag = BODY[::-1], '"two"'
    assert get(remote, tmp_path).read_bytes() == BODY[::-1]


def test_without_checksum_or_version_it_starts_again(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut = "", [300_000]
    assert get(Remote(url=server.url(), name="data"), tmp_path).read_bytes() == BODY
    assert server.requests == [None, None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_without_ranges_sends_all_of_it(
    server: Server, tmp_path: Path, ranges: bool
) -> None:
    server.ranges, server.cut = ranges, [300_000]
    assert get(Remote(url=server.url(), name="data", digest=SHA256), tmp_path).read_bytes() == BODY


def test_a_part_that_is_complete_already(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.part").write_bytes(BODY)
    remote = Remote(url=server.url(), name="data", digest=SHA256)
    assert get(remote, tmp_path).read_bytes() == BODY
    (tmp_path / "data").unlink()
    (tmp_path / "data.part").write_bytes(BODY + b"more")  # 416, and the length is wrong
    assert get(remote, tmp_path).read_bytes() == BODY


def test_no_length_given(server: Server, tmp_path: Path) -> None:
    server.lengths = False
    assert get(Remote(url=server.url(), name="data", digest=SHA256), tmp_path).read_bytes() == BODY


def test_a_wrong_checksum(server: Server, tmp_path: Path) -> None:
    remote = Remote(url=server.url(), name="data", digest="sha256:" + "0" * 64)
    with pytest.raises(ValueError, match=f"must be sha256:0+, received {SHA256}.*was removed"):
        get(remote, tmp_path)
    assert there(tmp_path) == []


def test_md5_where_that_is_all_there_is(server: Server, tmp_path: Path) -> None:
    digest = f"md5:{hashlib.md5(BODY).hexdigest()}"
    path = get(Remote(url=server.url(), name="data", digest=digest), tmp_path)
    assert digest_of(path, "md5") == digest


def test_a_file_put_there_by_hand(server: Server, tmp_path: Path) -> None:
    remote = Remote(url=server.url(), name="data", digest=SHA256, size=len(BODY))
    (tmp_path / "data").write_bytes(BODY)
    assert get(remote, tmp_path) == tmp_path / "data"
    (tmp_path / "data").write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match="1,048,576 bytes, received 1,048,575; remove it"):
        get(remote, tmp_path)
    assert (tmp_path / "data").exists(), "somebody's file is not ours to delete"
    assert server.requests == []


@pytest.mark.parametrize("status", [404, 403])
def test_what_is_not_there_is_not_asked_for_again(
    server: Server, tmp_path: Path, status: int
) -> None:
    server.statuses = [status] * 3
    remote = Remote(url=server.url(), name="data", digest=SHA256, size=len(BODY))
    with pytest.raises(DownloadError) as caught:
        get(remote, tmp_path)
    message = str(caught.value)
    assert f"HTTP {status}" in message
    # What somebody without network has to know.
    for needed in (
        server.url(),
        "1,048,576 bytes",
        SHA256.replace(":", " "),
        str(tmp_path / "data"),
    ):
        assert needed in message
    assert len(server.requests) == 1


def test_a_passing_failure_passes(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429]
    assert get(Remote(url=server.url(), name="data"), tmp_path).read_bytes() == BODY
    assert len(server.requests) == 3


def test_no_network(tmp_path: Path) -> None:
    remote = Remote(url="http://127.0.0.1:9/data", name="data")
    with pytest.raises(DownloadError, match="127.0.0.1:9: .*refused.*on another machine"):
        get(remote, tmp_path, attempts=2)


def test_mirrors_are_tried_in_order(server: Server, tmp_path: Path) -> None:
    server.statuses = [404]
    mirrors = (server.url("mirror"),)
    path = get(Remote(url=server.url(), name="data", mirrors=mirrors), tmp_path)
    assert path.read_bytes() == BODY


def test_an_error_page_is_no_file(server: Server, tmp_path: Path) -> None:
    server.body = b"<html>please log in</html>"
    with pytest.raises(DownloadError, match="offers 26 bytes for a file of 1,048,576"):
        get(Remote(url=server.url(), name="data", size=len(BODY)), tmp_path)
    assert len(server.requests) == 1
    server.kind = "text/html; charset=utf-8"
    with pytest.raises(DownloadError, match="answers with a web page, not with a file"):
        get(Remote(url=server.url(), name="data"), tmp_path)
    assert there(tmp_path) == []
    server.body = BODY  # whatever the server calls it
    assert get(Remote(url=server.url(), name="data"), tmp_path).read_bytes() == BODY


def test_only_http(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be http or https, received 'file:///etc/passwd'"):
        get(Remote(url="file:///etc/passwd", name="data"), tmp_path)


def test_a_disk_that_is_too_small(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="needs 0.0 GB more.*set EQUIPOISE_DATA"):
        get(Remote(url=server.url(), name="data", size=len(BODY)), tmp_path)
    assert server.requests == []


def test_a_disk_that_fills_up(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_stream", full)
    with pytest.raises(OSError, match="the disk of .* is full. What came so far is kept"):
        get(Remote(url=server.url(), name="data"), tmp_path)


def test_two_at_once_fetch_it_once(server: Server, tmp_path: Path) -> None:
    remote = Remote(url=server.url(), name="data", digest=SHA256)
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=get, args=(remote, tmp_path)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    assert [other.exitcode for other in others] == [0, 0, 0]
    assert (tmp_path / "data").read_bytes() == BODY
    assert len(server.requests) == 1


def test_what_a_person_sees(server: Server, tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=200)
    get(Remote(url=server.url(), name="data"), tmp_path, console=console)
    assert console.file.getvalue() == "fetching data, 1.0 MB\n"
    server.statuses = [503]
    get(Remote(url=server.url(), name="more"), tmp_path, console=console)
    assert "more: HTTP 503 Service Unavailable; trying again in 0 s" in console.file.getvalue()


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EQUIPOISE_DATA", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EQUIPOISE_DATA")
    assert cache_folder() == Path.home() / ".cache" / "equipoise" / "data"
