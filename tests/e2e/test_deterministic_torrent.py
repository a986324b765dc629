"""Two seeders that never met make the same info dictionary of the same commit, in spite of all other differences."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from p2pmodel.swarm import bencode
from p2pmodel.swarm.torrents import Format, parse
from tests.support.eventually import PATIENCE
from tests.support.hub_layout import write_snapshot
from tests.support.torrent_files import COMMIT, Contents, torrent_of

PROGRAM = Path(sys.executable).with_name("p2pmodel")
REPO = "org/tiny"
SNAPSHOT: Contents = {
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "a.b": b"a file that sorts against the folder a",
    "a/x.json": b"{}" * 30,
    "empty.txt": b"",
    "model-1.safetensors": bytes(range(256)) * 4500,
    "model-2.safetensors": bytes(range(256)) * 1024,
    "ünï code.txt": b"w" * 300_001,
}


def p2pmodel(*arguments: str, hub: Path, zone: str = "UTC") -> dict[str, Any]:
    environment = {"HOME": str(hub.parent), "HF_HUB_CACHE": str(hub), "PATH": os.environ["PATH"], "TZ": zone}
    done = subprocess.run(
        [PROGRAM, *arguments, "--json"],
        env=environment,
        cwd=hub.parent,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    plain: dict[str, Any] = json.loads(done.stdout)
    return plain


def info_of(torrent: bytes) -> bytes:
    return torrent[bencode.decode_dict(torrent)[1][b"info"]]


def age(folder: Path, seconds: int) -> None:
    for parent, _, names in os.walk(folder):
        for name in names:
            os.utime(Path(parent, name), (seconds, seconds), follow_symlinks=False)


@pytest.mark.parametrize("form", ["v2", "hybrid", "v1"])
def test_two_processes_two_caches_one_info_dictionary(form: Format, tmp_path: Path) -> None:
    one, other = tmp_path / "hub", tmp_path / "somewhere else/ünother-hub"
    write_snapshot(one, REPO, SNAPSHOT, commit=COMMIT)
    write_snapshot(other, REPO, dict(reversed(SNAPSHOT.items())), commit=COMMIT, tree=False, refs=("main", "v1.0"))
    age(one, 1_000_000_000)
    first = p2pmodel("torrent", "create", REPO, "--format", form, "--tracker", "http://one/announce", hub=one)
    second = p2pmodel(
        "torrent", "create", f"{REPO}@v1.0", "--format", form, "--endpoint", "http://m/x", hub=other, zone="Asia/Tokyo"
    )
    torrents = [one.parent.joinpath(first["path"]).read_bytes(), other.parent.joinpath(second["path"]).read_bytes()]
    assert torrents[0] != torrents[1]
    assert info_of(torrents[0]) == info_of(torrents[1])
    # The builder of the tests hashes in the slow and obvious way: both processes hashed right.
    assert info_of(torrents[0]) == info_of(torrent_of(SNAPSHOT, form, repo=REPO))
    assert first.get("info_hash") == second.get("info_hash") == (parse(torrents[0]).info_hash if form != "v1" else None)


def test_a_created_torrent_can_be_shown(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    write_snapshot(hub, REPO, SNAPSHOT, commit=COMMIT)
    p2pmodel("torrent", "create", REPO, "-o", "x.torrent", "--endpoint", "http://m:80/prefix", hub=hub)
    shown = p2pmodel("torrent", "show", "x.torrent", hub=hub)
    assert (shown["repo"], shown["commit"], shown["format"], shown["private"]) == (REPO, COMMIT, "v2", False)
    assert shown["webseeds"] == [f"http://m:80/prefix/{REPO}/resolve/"]
    assert shown["magnet"].startswith(f"magnet:?xt=urn:btmh:1220{shown['info_hash']}&dn={COMMIT}")
    assert {f["path"]: f["size"] for f in shown["files"]} == {path: len(data) for path, data in SNAPSHOT.items()}
