"""Archives, sound and hostile: what is written, and that nothing else is."""

import bz2
import io
import lzma
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from equipoise.data.unpack import unpack

FILES = {"top/a.txt": b"a" * 1000, "top/deep/b.txt": b"b"}


def make_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for info, data in members:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def plain(name: str, data: bytes = b"x") -> tuple[tarfile.TarInfo, bytes]:
    return tarfile.TarInfo(name), data


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def make_zip(path: Path, members: dict[str, bytes], **modes: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = modes.get("mode", 0) << 16
            archive.writestr(info, data)
    return path


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tgz", "zip"])
def test_every_kind(tmp_path: Path, suffix: str) -> None:
    archive = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        make_zip(archive, FILES)
    else:
        mode = {"tar": "w", "tgz": "w:gz"}.get(suffix, f"w:{suffix.rpartition('.')[2]}")
        make_tar(archive, [plain(*each) for each in FILES.items()], mode)
    written = unpack(archive, tmp_path / "there")
    assert files(tmp_path / "there") == FILES
    assert sorted(written) == [tmp_path / "there" / name for name in FILES]
    archive.write_bytes(archive.read_bytes())  # as it was: remembered, not opened again
    before = (tmp_path / "there" / "top" / "a.txt").stat().st_mtime_ns
    assert unpack(archive, tmp_path / "there") == written
    assert (tmp_path / "there" / "top" / "a.txt").stat().st_mtime_ns == before
    (tmp_path / "there" / "top" / "a.txt").unlink()
    unpack(archive, tmp_path / "there")
    assert files(tmp_path / "there") == FILES


def test_a_single_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "one.txt.xz").write_bytes(lzma.compress(b"text"))
    (tmp_path / "two.txt.bz2").write_bytes(bz2.compress(b"text"))
    unpack(tmp_path / "one.txt.xz", tmp_path / "there")
    unpack(tmp_path / "two.txt.bz2", tmp_path / "there")
    assert files(tmp_path / "there") == {"one.txt": b"text", "two.txt": b"text"}


def test_clutter_is_left_out(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "mac.zip",
        {"a.npz": b"a", "__MACOSX/._a.npz": b"x", ".DS_Store": b"x", "b/._c": b"x"},
    )
    unpack(archive, tmp_path / "there")
    assert files(tmp_path / "there") == {"a.npz": b"a"}


HOSTILE = [
    "../evil",
    "top/../../evil",
    "/tmp/evil",
    "..",
    "C:\\evil",
    "C:/evil",
    "top\\..\\..\\evil",
]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_names_that_lead_outside(tmp_path: Path, name: str, kind: str) -> None:
    archive = tmp_path / f"data.{kind}"
    if kind == "tar":
        make_tar(archive, [plain("good"), plain(name)])
    else:
        make_zip(archive, {"good": b"x", name: b"x"})
    inside = tmp_path / "deep" / "there"
    with pytest.raises(ValueError, match="is refused.*would be written outside"):
        unpack(archive, inside)
    assert files(tmp_path / "deep") == {}, "not even the good part of it"
    assert not (tmp_path / "evil").exists() and not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        special("link", tarfile.SYMTYPE, "/etc/passwd"),
        special("link", tarfile.SYMTYPE, "good"),
        special("link", tarfile.LNKTYPE, "good"),
        special("pipe", tarfile.FIFOTYPE),
        special("device", tarfile.CHRTYPE),
    ],
    ids=lambda member: f"{member[0].type!r}-{member[0].linkname}",
)
def test_links_and_devices(tmp_path: Path, member: tuple[tarfile.TarInfo, bytes]) -> None:
    archive = make_tar(tmp_path / "data.tar", [plain("good"), member])
    with pytest.raises(ValueError, match="is no plain file or folder"):
        unpack(archive, tmp_path / "there")
    assert files(tmp_path / "there") == {}


def test_links_in_zip_files(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "data.zip", {"link": b"/etc/passwd"}, mode=stat.S_IFLNK | 0o777)
    with pytest.raises(ValueError, match="is no plain file or folder"):
        unpack(archive, tmp_path / "there")


def test_links_that_are_there_already(tmp_path: Path) -> None:
    """A folder of an earlier archive, replaced by a link: what goes into it must not leave."""
    outside, there = tmp_path / "outside", tmp_path / "there"
    outside.mkdir()
    there.mkdir()
    (there / "top").symlink_to(outside)
    archive = make_tar(tmp_path / "data.tar", [plain("top/a.txt")])
    with pytest.raises(ValueError, match="leads outside of .* through a link"):
        unpack(archive, there)
    assert files(outside) == {}


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz"])
def test_bombs(tmp_path: Path, kind: str) -> None:
    zeros = bytes(3_000_000)
    archive = tmp_path / f"bomb.{kind}"
    if kind == "zip":
        make_zip(archive, {"small": b"x", "zeros": zeros})
    else:
        make_tar(archive, [plain("small"), plain("zeros", zeros)], f"w:{kind[4:]}")
    assert archive.stat().st_size < 10_000
    with pytest.raises(ValueError, match="grows to more than"):
        unpack(archive, tmp_path / "there", limit=1_000_000)
    assert files(tmp_path / "there") == {}
    unpack(archive, tmp_path / "there")  # small enough for the default


def test_what_was_there_stays_if_its_successor_fails(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "zeros").write_bytes(b"mine")
    archive = make_tar(tmp_path / "bomb.tar.gz", [plain("zeros", bytes(3_000_000))], "w:gz")
    with pytest.raises(ValueError, match="grows to more than"):
        unpack(archive, there, limit=1_000_000)
    assert (there / "zeros").read_bytes() == b"mine"


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "tar.xz", "zip", "tar"])
@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9])
def test_truncated(tmp_path: Path, suffix: str, fraction: float) -> None:
    data = {f"{i}.bin": bytes((i * j * j) % 251 for j in range(4000)) for i in range(1, 6)}
    archive = tmp_path / f"data.{suffix}"
    if suffix == "zip":
        make_zip(archive, data)
    else:
        mode = "w" if suffix == "tar" else f"w:{suffix[4:]}"
        make_tar(archive, [plain(*each) for each in data.items()], mode)
    whole = archive.read_bytes()
    # The end of a tar is padding, which nobody misses.
    archive.write_bytes(whole[: int(fraction * (len(whole) if suffix != "tar" else 22_000))])
    with pytest.raises(ValueError, match="is damaged, or no archive"):
        unpack(archive, tmp_path / "there")
    assert files(tmp_path / "there") == {}


def test_not_an_archive(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match="is damaged, or no archive"):
        unpack(tmp_path / "page.zip", tmp_path / "there")
    (tmp_path / "data.rar").write_bytes(b"x")
    with pytest.raises(ValueError, match="must be a .zip, .tar"):
        unpack(tmp_path / "data.rar", tmp_path / "there")
