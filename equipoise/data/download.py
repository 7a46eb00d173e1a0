"""Files from the network into a folder: resumed, checked, and never half there.

A file under its own name is whole and has the right checksum; what is still coming is called ``NAME.part``. So a download may be
killed at any time, and the same call goes on where it stopped.
"""

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

CHUNK = 1 << 20  # bytes
_RETRIED = {408, 425, 429, 500, 502, 503, 504}  # HTTP statuses that may pass by themselves
_NETWORK = (
    urllib.error.URLError,
    http.client.HTTPException,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
)


@dataclass(frozen=True)
class Remote:
    """A file on the network.

    Attributes:
      url: where it is, http or https.
      name: its path below the folder of the data set.
      digest: "sha256:..." or "md5:..." as published; None where nobody published one: then the server is believed.
      size: bytes, None if unknown.
      unpack: an archive, which :func:`equipoise.data.unpack.unpack` opens.
      mirrors: other places of the same file, tried in this order when the first fails.
    """

    url: str
    name: str
    digest: str | None = None
    size: int | None = None
    unpack: bool = False
    mirrors: tuple[str, ...] = ()


class DownloadError(OSError):
    """A file that could not be had. The message says where to get it by hand, and where to put it."""


def cache_folder() -> Path:
    """Where data sets are kept: $EQUIPOISE_DATA, else ~/.cache/equipoise/data."""
    given = os.environ.get("EQUIPOISE_DATA")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "equipoise" / "data"


def download(
    remote: Remote,
    folder: Path,
    *,
    console: Console | None = None,
    attempts: int = 4,
    pause: float = 2.0,
    timeout: float = 60.0,
) -> Path:
    """Have ``remote`` in ``folder``, and return its path.

    A file that is there already, put there by hand perhaps, is checked and kept. A broken-off one is gone on with if the server
    can; if it has changed there since, it is fetched anew. Two processes that want the same file do not disturb each other: the
    second waits, and finds it.

    Args:
      remote: what to fetch.
      folder: made if it is not there; the file goes to ``folder / remote.name``.
      console: where a bar (on a terminal) or a line per file (elsewhere) is shown; None for silence.
      attempts: tries per address before giving up, each going on where the last one ended.
      pause: seconds before the second try; doubled each time.
      timeout: seconds without a byte before a try counts as failed.

    Raises:
      DownloadError: no network, no such file there, or the server broke off again and again. What came is kept for the next time.
      ValueError: the checksum is wrong; the file is then removed, unless it was put there by hand.
      OSError: the disk is full or may not be written.
    """
    target = folder / remote.name
    target.parent.mkdir(parents=True, exist_ok=True)
    with alone(target, console):
        if target.exists():
            problem = _problem(target, remote)
            if problem:
                raise ValueError(
                    f"{target} {problem}; remove it, and the same command fetches it again"
                )
            return target
        _room(target, remote)
        reasons = []
        for url in (remote.url, *remote.mirrors):
            try:
                part = _fetch(url, target, remote, console, attempts, pause, timeout)
                break
            except _NETWORK as error:
                reasons.append(f"{urllib.parse.urlsplit(url).netloc}: {_reason(error)}")
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise OSError(
                    f"the disk of {target.parent} is full. What came so far is kept; make room, or set EQUIPOISE_DATA to a folder "
                    f"on a larger disk, and give the same command again"
                ) from error
        else:
            raise DownloadError(_by_hand(remote, target, reasons))
        problem = _problem(part, remote)
        if problem:
            _forget(part)
            raise ValueError(
                f"{part.name.removesuffix('.part')} from {url} {problem}. What came was removed. Try again; if it stays so, the "
                f"file was replaced at its source, which is no matter to overlook"
            )
        part.replace(target)
        _forget(part)
    return target


def digest_of(path: Path, algorithm: str) -> str:
    """The checksum of a file, "sha256:..." or "md5:...", read in pieces."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            found.update(piece)
    return f"{algorithm}:{found.hexdigest()}"


@contextlib.contextmanager
def alone(target: Path, console: Console | None) -> Iterator[None]:
    """Keep other processes from making ``target`` at the same time; wait for one that does."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _say(console, f"another process is at work on {target.name}; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(
    url: str,
    target: Path,
    remote: Remote,
    console: Console | None,
    attempts: int,
    pause: float,
    timeout: float,
) -> Path:
    """Bring NAME.part up to its full length, in several tries if need be."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"a download must be http or https, received {url!r}")
    part = target.with_name(target.name + ".part")
    with _bar(console, target.name) as progress:
        for attempt in range(attempts):
            try:
                _stream(url, part, remote, progress, timeout)
                return part
            except _NETWORK as error:
                if attempt == attempts - 1 or _is_final(error):
                    raise
                wait = pause * 2**attempt
                _say(console, f"{target.name}: {_reason(error)}; trying again in {wait:g} s")
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _is_final(error: Exception) -> bool:
    """Whether asking again is no use: no such file, no such host (mostly: no network)."""
    code = getattr(error, "code", None)
    nowhere = isinstance(getattr(error, "reason", None), socket.gaierror)
    return nowhere or isinstance(error, _WrongFile) or (code is not None and code not in _RETRIED)


class _WrongFile(http.client.HTTPException):
    """What the server offers cannot be the file, so asking again is no use."""


def _stream(url: str, part: Path, remote: Remote, progress: "_Bar", timeout: float) -> None:
    """One request; appends to ``part`` if the server goes on with the very same file."""
    there = part.stat().st_size if part.exists() else 0
    mark = part.with_name(part.name + ".mark")  # the server's own name for this version of the file
    version_then = mark.read_text(encoding="utf-8") if mark.exists() else ""
    headers = {"User-Agent": f"equipoise/{_version()}", "Accept-Encoding": "identity"}
    # Without a checksum to find out afterwards, only a version that the server can name is gone on with.
    resume = there > 0 and bool(version_then or remote.digest)
    if resume:
        headers["Range"] = f"bytes={there}-"
        if version_then:
            headers["If-Range"] = version_then
    try:
        answer = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=timeout
        )
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not resume:
            raise
        # There is nothing beyond what we have: it is complete, or the file there is another one.
        if error.headers.get("Content-Range", "").endswith(f"/{there}") or there == remote.size:
            return
        _forget(part)
        return _stream(url, part, remote, progress, timeout)
    with answer:
        goes_on = answer.status == 206 and _starts_at(answer, there)
        if answer.status == 206 and not goes_on:
            _forget(part)
            raise http.client.HTTPException("the server sent another part than it was asked for")
        done = there if goes_on else 0
        length = answer.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else remote.size
        if remote.size is not None and total is not None and total != remote.size:
            raise _WrongFile(
                f"the server offers {total:,} bytes for a file of {remote.size:,}: it was replaced, or this is an error page"
            )
        name = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        mark.write_text("" if name.startswith("W/") else name, encoding="utf-8")
        progress.start(done, total)
        # Some servers call every file a page: only what looks like one is refused.
        page = answer.headers.get_content_type() == "text/html"
        with part.open("ab" if goes_on else "wb") as file:
            while piece := answer.read(CHUNK):
                if page and done == 0 and piece.lstrip().startswith(b"<"):
                    _forget(part)
                    raise _WrongFile("the server answers with a web page, not with a file")
                file.write(piece)
                done += len(piece)
                progress.to(done)
    if total is not None and done != total:
        raise http.client.IncompleteRead(b"", total - done)


def _starts_at(answer: http.client.HTTPResponse, first: int) -> bool:
    return re.match(rf"bytes {first}-", answer.headers.get("Content-Range", "")) is not None


def _problem(path: Path, remote: Remote) -> str | None:
    """What is wrong with a file that should be ``remote``; None if nothing is."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return (
            f"is not the file it should be: it must have {remote.size:,} bytes, received {size:,}"
        )
    if remote.digest is not None:
        found = digest_of(path, remote.digest.partition(":")[0])
        if found != remote.digest:
            return f"is not the file it should be: its checksum must be {remote.digest}, received {found}"
    return None


def _room(target: Path, remote: Remote) -> None:
    if remote.size is None:
        return
    part = target.with_name(target.name + ".part")
    missing = remote.size - (part.stat().st_size if part.exists() else 0)
    free = shutil.disk_usage(target.parent).free
    if free < missing:
        raise OSError(
            f"{target.name} needs {missing / 1e9:.1f} GB more, but {target.parent} has {free / 1e9:.1f} GB free; set "
            f"EQUIPOISE_DATA to a folder on a larger disk"
        )


def _forget(part: Path) -> None:
    for path in (part, part.with_name(part.name + ".mark")):
        path.unlink(missing_ok=True)


def _by_hand(remote: Remote, target: Path, reasons: list[str]) -> str:
    facts = [f"{remote.size:,} bytes"] if remote.size is not None else []
    facts += [remote.digest.replace(":", " ")] if remote.digest else []
    known = f" ({', '.join(facts)})" if facts else ""
    return (
        f"{target.name} could not be fetched ({'; '.join(reasons)}). What came so far is kept, and the same command goes on. "
        f"Without network here: fetch {remote.url}{known} on another machine, put it at {target}, and give the same command again"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, http.client.IncompleteRead):
        return f"the connection broke off with {error.expected:,} bytes to come"
    return str(error) or type(error).__name__


def _version() -> str:
    try:
        return version("equipoise")
    except PackageNotFoundError:
        return "0"


def _say(console: Console | None, text: str) -> None:
    if console is not None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Bar:
    """A bar for one file on a terminal; elsewhere one line when it begins."""

    def __init__(self, console: Console | None, name: str) -> None:
        self.console, self.name, self.said = console, name, False
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        quiet = console is None or not console.is_terminal
        self.progress = Progress(*columns, console=console, disable=quiet, transient=True)
        self.task = self.progress.add_task(name, total=None)

    def start(self, done: int, total: int | None) -> None:
        self.progress.update(self.task, completed=done, total=total)
        if self.console is not None and not self.console.is_terminal and not self.said:
            size = "" if total is None else f", {total / 1e6:,.1f} MB"
            _say(self.console, f"fetching {self.name}{size}{' (going on)' if done else ''}")
            self.said = True

    def to(self, done: int) -> None:
        self.progress.update(self.task, completed=done)


@contextlib.contextmanager
def _bar(console: Console | None, name: str) -> Iterator[_Bar]:
    bar = _Bar(console, name)
    with bar.progress:
        yield bar
