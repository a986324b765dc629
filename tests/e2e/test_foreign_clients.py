"""Debian's BitTorrent clients finish our torrents from a hub-shaped web server alone, at the hub's own URLs."""

from pathlib import Path

import pytest

from p2pmodel.swarm.torrents import Format, webseed_url
from tests.support.foreign_clients import differences, foreign_client
from tests.support.hub_files import serve_hub_files
from tests.support.torrent_files import COMMIT, Contents, manifest_of, torrent_of

REPO = "org/tiny"
SNAPSHOT: Contents = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "config.json": b'{"model_type": "tiny"}',
    "empty.txt": b"",
    "model-00001-of-00002.safetensors": bytes(range(256)) * 3000,
    "model-00002-of-00002.safetensors": bytes(range(255, -1, -1)) * 2500,
    "onnx/weights ünï.bin": b"w" * 70_001,
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


@pytest.mark.parametrize(("client", "form", "contents"), CASES)
async def test_it_finishes_from_the_webseed_alone(
    client: str, form: Format, contents: Contents, tmp_path: Path
) -> None:
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    async with serve_hub_files(REPO, COMMIT, contents) as server:
        torrent = tmp_path / "snapshot.torrent"
        seed = webseed_url(server.base, manifest_of(contents), form)
        torrent.write_bytes(torrent_of(contents, form, repo=REPO, webseeds=(seed,)))
        async with foreign_client(client, tmp_path / "home") as running:
            await running.download(torrent, downloads, seconds=45)
    assert server.paths == {f"/{REPO}/resolve/{COMMIT}/{path}" for path, data in contents.items() if data}
    assert server.answers <= {200, 206}
    named = [folder for folder in (downloads / COMMIT, downloads) if folder.is_dir()]
    assert differences(named[0], contents) == []
