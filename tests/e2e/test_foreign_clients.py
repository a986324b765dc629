"""Debian's BitTorrent clients finish our torrents: from our mirror alone, at the hub's own URLs, and from our seeder
alone, found through our tracker."""

from pathlib import Path

import pytest

from p2pmodel.swarm.torrents import Format, webseed_url
from tests.support.foreign_clients import differences, foreign_client
from tests.support.hub_layout import write_snapshot
from tests.support.mirror_process import mirror_process
from tests.support.seed_process import seed_process
from tests.support.torrent_files import COMMIT, Contents, manifest_of, torrent_of

REPO = "org/tiny"
SNAPSHOT: Contents = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "config.json": b'{"model_type": "tiny"}',
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 3000,
    "model-00002-of-00002.safetensors": bytes(range(255, -1, -1)) * 2500,
    "onnx/weights ünï.onnx": b"w" * 70_001,
}
LONE: Contents = {"model.safetensors": bytes(range(256)) * 1500}

QBITTORRENT = pytest.mark.needs("qbittorrent-nox")
ARIA2 = pytest.mark.needs("aria2c")
CASES = [
    pytest.param("qbittorrent-nox", "v2", SNAPSHOT, marks=QBITTORRENT, id="qbittorrent-v2"),
    pytest.param("qbittorrent-nox", "hybrid", SNAPSHOT, marks=QBITTORRENT, id="qbittorrent-hybrid"),
    pytest.param("qbittorrent-nox", "v2", LONE, marks=QBITTORRENT, id="qbittorrent-lone-file"),
    pytest.param("aria2c", "v1", SNAPSHOT, marks=ARIA2, id="aria2-v1"),
    pytest.param("aria2c", "v1", LONE, marks=ARIA2, id="aria2-lone-file"),
]


async def download(client: str, torrent: bytes, folder: Path) -> Path:
    """Let `client` download `torrent`; the folder in which the snapshot's paths then are."""
    source, downloads = folder / "snapshot.torrent", folder / "downloads"
    source.write_bytes(torrent)
    downloads.mkdir()
    async with foreign_client(client, folder / "home") as running:
        await running.download(source, downloads)
    # Only a v2 torrent of one top-level file has no folder of its own.
    named = downloads / COMMIT
    return named if named.is_dir() else downloads


@pytest.mark.parametrize(("client", "form", "contents"), CASES)
async def test_it_finishes_from_the_mirror_alone(client: str, form: Format, contents: Contents, tmp_path: Path) -> None:
    write_snapshot(tmp_path / "hub", REPO, contents, commit=COMMIT)
    with mirror_process(tmp_path / "hub", tmp_path / "access.log") as mirror:
        seed = webseed_url(mirror.endpoint, manifest_of(contents), form)
        torrent = torrent_of(contents, form, repo=REPO, webseeds=(seed,))
        got = await download(client, torrent, tmp_path)
        requests = mirror.requests()
    assert differences(got, contents) == []
    assert {r["path"] for r in requests} == {f"/{REPO}/resolve/{COMMIT}/{path}" for path in contents if contents[path]}
    assert {r["status"] for r in requests} <= {200, 206}


@pytest.mark.parametrize(("client", "form", "contents"), CASES)
async def test_it_finishes_from_our_seeder_over_our_tracker(
    client: str, form: Format, contents: Contents, tmp_path: Path
) -> None:
    write_snapshot(tmp_path / "hub", REPO, contents, commit=COMMIT)
    with seed_process(tmp_path / "hub", REPO) as seeder:
        got = await download(client, seeder.torrent(form), tmp_path)
    assert differences(got, contents) == []
