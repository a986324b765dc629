"""A torrent is created only of a complete and right snapshot."""

from pathlib import Path

import pytest

from p2pmodel.core.content.names import Reference
from p2pmodel.errors import EntryNotFound, IntegrityError, InvalidInput, RevisionNotFound
from p2pmodel.node.reporter import Progress
from p2pmodel.node.snapshot.torrents.torrent_builder import create_torrent
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.torrents import parse
from tests.support.hub_layout import write_snapshot
from tests.support.recording_reporter import RecordingReporter

FILES = {"config.json": b"{}", "model.safetensors": b"weights" * 1000}
REF = Reference.parse("org/tiny")


@pytest.fixture
def cache(tmp_path: Path) -> HubCache:
    write_snapshot(tmp_path, "org/tiny", FILES)
    return HubCache(tmp_path)


async def test_it_names_trackers_and_mirrors_and_reports(cache: HubCache) -> None:
    seen: list[Progress] = []
    created = await create_torrent(
        cache, REF, trackers=("http://t/announce",), endpoints=("http://m",), reporter=RecordingReporter(seen.append)
    )
    parsed = parse(created.raw)
    assert parsed.manifest == created.manifest
    assert parsed.trackers == ("http://t/announce",)
    assert parsed.webseeds == ("http://m/org/tiny/resolve/",)
    assert {progress.phase for progress in seen} == {"checking", "hashing"}


@pytest.mark.parametrize(("form", "tail"), [("v2", "/resolve/{}/"), ("hybrid", "/resolve/")])
async def test_a_lone_file_has_a_webseed_of_its_own_form(form: str, tail: str, tmp_path: Path) -> None:
    commit = write_snapshot(tmp_path, "org/tiny", {"model.safetensors": b"w" * 1000}).commit
    created = await create_torrent(HubCache(tmp_path), REF, format=form, endpoints=("http://m",))  # type: ignore[arg-type]
    assert parse(created.raw).webseeds == ("http://m/org/tiny" + tail.format(commit),)


async def test_a_revision_that_is_not_here(cache: HubCache) -> None:
    with pytest.raises(RevisionNotFound, match="org/tiny@v9 is not in the cache"):
        await create_torrent(cache, Reference.parse("org/tiny@v9"))


async def test_a_file_that_is_not_here(cache: HubCache) -> None:
    blob = next(path for path in (cache.root / "models--org--tiny/blobs").iterdir() if path.stat().st_size == 2)
    blob.unlink()
    with pytest.raises(EntryNotFound, match=r"config\.json of org/tiny@"):
        await create_torrent(cache, REF)


async def test_damaged_bytes_are_not_spread(cache: HubCache) -> None:
    blob = next(path for path in (cache.root / "models--org--tiny/blobs").iterdir() if path.stat().st_size > 2)
    blob.write_bytes(b"Weights" + blob.read_bytes()[7:])
    with pytest.raises(IntegrityError, match=r"model\.safetensors of org/tiny@.* is damaged"):
        await create_torrent(cache, REF)


async def test_a_bad_url_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="the tracker 'ftp://t'"):
        await create_torrent(HubCache(tmp_path), REF, trackers=("ftp://t",))
    with pytest.raises(InvalidInput, match="the endpoint 'm'"):
        await create_torrent(HubCache(tmp_path), REF, endpoints=("m",))
