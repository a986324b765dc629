"""The archive of a bundle: one form, readable by any tar, continued after a stop, and refused if it is another."""

import hashlib
import io
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import ManifestFile
from p2pmodel.errors import IntegrityError, InvalidInput, NotFound, P2PModelError
from p2pmodel.store.bundles import open_bundle, write_bundle

LONG = "d/" + "ü" * 100 + "/x.bin"
CONTENTS = {"config.json": b"{}", "empty": b"", LONG: b"long" * 1000, "model.safetensors": bytes(range(256)) * 5000}


class Stopped(Exception):
    """The user stops an export."""


@pytest.fixture
def files(tmp_path: Path) -> list[tuple[ManifestFile, Path]]:
    found = []
    for number, (path, data) in enumerate(CONTENTS.items()):
        blob = tmp_path / f"blob{number}"
        blob.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        found.append((ManifestFile(path, len(data), "0" * 40, sha256), blob))
    return found


def write(path: Path, files: list[tuple[ManifestFile, Path]], count: Callable[[int], None] = lambda _: None) -> Path:
    write_bundle(path, manifest=b"{}", torrent=b"torrent", signatures=b"signed", files=files, count=count)
    return path


def contents(path: Path) -> dict[str, bytes]:
    with open_bundle(path) as bundle:
        assert (bundle.torrent, bundle.signatures) == (b"torrent", b"signed")
        return {name: bundle.read(file, 0, file.size) for name, file in bundle.files.items()}


def test_what_is_written_is_read_here_and_by_tar(tmp_path: Path, files: list[tuple[ManifestFile, Path]]) -> None:
    path = write(tmp_path / "a.tar", files)
    assert contents(path) == CONTENTS
    assert path.stat().st_mode & 0o077 == 0
    assert not list(tmp_path.glob("*.part"))
    subprocess.run(["tar", "-xf", path, "-C", tmp_path], check=True, capture_output=True)
    assert (tmp_path / "files" / LONG).read_bytes() == CONTENTS[LONG]
    assert write(tmp_path / "b.tar", files).read_bytes() == path.read_bytes()
    with open_bundle(write(tmp_path / "c.tar", [])) as bundle:
        assert bundle.files == {}


def test_an_export_goes_on_where_it_stopped(tmp_path: Path, files: list[tuple[ManifestFile, Path]]) -> None:
    whole = write(tmp_path / "whole.tar", files).read_bytes()
    path, part = tmp_path / "a.tar", tmp_path / "a.tar.part"

    def stop(_: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        write(path, files, stop)
    assert part.exists()
    for left in (0, 100, 1536, len(whole) // 2, len(whole) - 1):
        part.write_bytes(whole[:left])
        assert write(path, files).read_bytes() == whole
    for wrong in (whole[:5000] + b"x" + whole[5001:], bytes(len(whole) + 9000), whole + b"more"):
        part.write_bytes(wrong)
        assert write(path, files).read_bytes() == whole


def test_a_damaged_blob_is_not_exported(tmp_path: Path, files: list[tuple[ManifestFile, Path]]) -> None:
    for data in (b"[]", b"{"):
        files[0][1].write_bytes(data)
        with pytest.raises(IntegrityError, match=r"config\.json is damaged"):
            write(tmp_path / "a.tar", files)
    assert not (tmp_path / "a.tar").exists()


def test_an_archive_that_is_cut_off_has_the_files_before(
    tmp_path: Path, files: list[tuple[ManifestFile, Path]]
) -> None:
    whole = write(tmp_path / "whole.tar", files).read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole[:-400_000])
    with open_bundle(cut) as bundle:
        assert list(bundle.files) == list(CONTENTS)
        last = bundle.files["model.safetensors"]
        assert 0 < len(bundle.read(last, 0, last.size)) < last.size
    for length in range(0, len(whole), 3000):
        cut.write_bytes(whole[:length])
        try:
            found = contents(cut)
        except IntegrityError:
            continue
        assert all(CONTENTS[name].startswith(data) for name, data in found.items())


def tar(*members: tuple[str, bytes, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data, kind in members:
            info = tarfile.TarInfo(name)
            info.size, info.type, info.linkname = len(data), kind, "/etc/passwd"
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILE, LINK = tarfile.REGTYPE, tarfile.SYMTYPE
HEAD = (
    ("bundle.json", b'{"bundle":1}', FILE),
    ("manifest.json", b"{}", FILE),
    ("snapshot.torrent", b"t", FILE),
    ("snapshot.torrent.signatures", b"s", FILE),
)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nonsense" * 1000,
        tar(),
        tar(("bundle.json", b'{"bundle":2}', FILE), *HEAD[1:]),
        tar(("bundle.json", b"[", FILE), *HEAD[1:]),
        tar(*HEAD[:3]),
        tar(HEAD[0], HEAD[2], HEAD[1], HEAD[3]),
        tar(*HEAD[:2], ("snapshot.torrent", b"", LINK), HEAD[3]),
        tar(*HEAD, ("files/x", b"", LINK)),
        tar(*HEAD, ("../x", b"x", FILE)),
        tar(*HEAD, ("files/x", b"x", FILE), ("files/x", b"y", FILE)),
    ],
)
def test_another_archive_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(data)
    with pytest.raises(IntegrityError), open_bundle(path):
        pass


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    for path, kind in ((tmp_path / "none.tar", NotFound), (tmp_path, InvalidInput)):
        with pytest.raises(P2PModelError) as error, open_bundle(path):
            pass
        assert isinstance(error.value, kind)
