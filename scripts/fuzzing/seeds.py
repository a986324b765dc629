"""Valid input that the fuzzing starts from."""

import base64
import json
from functools import cache
from typing import Any

from p2pmodel.coordinator.assembly.messages import manifest_text, update_text
from p2pmodel.coordinator.leases.demand import Demand, Grant
from p2pmodel.coordinator.leases.messages import CoordinatorMessage, demand_text, message_text
from p2pmodel.coordinator.rollout.messages import spec_plain, view_plain
from p2pmodel.coordinator.rollout.nodes import NodeBytes, NodeFailure, NodeReport, PreflightCheck
from p2pmodel.coordinator.rollout.rollout import Rollout, RolloutSpec
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.files.hash_chain import LogHead
from p2pmodel.store.state.sync_log import LogEntry, append
from p2pmodel.swarm import bencode
from p2pmodel.swarm.torrents import Metainfo, parse
from tests.support.torrent_files import COMMIT, SMALL, manifest_of, torrent_of

SHA256 = "ab" * 32
TRACKER = "http://tracker.example:80/announce"
WEBSEED = "http://hub.example/org/tiny/resolve/"


@cache
def torrents() -> list[bytes]:
    """Torrents of every format."""
    urls: dict[str, Any] = {"trackers": (TRACKER, "udp://t.example:1"), "webseeds": (WEBSEED,)}
    return [
        torrent_of(SMALL, "v2", **urls),
        torrent_of(SMALL, "hybrid"),
        torrent_of({"a": b"x"}),
        torrent_of(SMALL, "v1"),
    ]


@cache
def metainfo() -> Metainfo:
    """A parsed torrent."""
    return parse(torrents()[0])


def manifest() -> Manifest:
    """The manifest in it."""
    return manifest_of(SMALL)


def torrent_values() -> list[Any]:
    """The torrents as values of bencode."""
    return [bencode.decode(raw) for raw in torrents()]


def lease_texts() -> list[str]:
    """Demands, messages of coordinators, manifests and updates of assemblies."""
    demand = Demand(scarce=0b1011, from_seeders=True, want=2, origin_bytes=10, leased=1)
    source = Source("http://10.0.0.1:80/source", "t0ken", "10.0.0.1:6881", "rack-1")
    message = CoordinatorMessage(Grant((1, 2), 3, 4), (source,), assembled=SHA256, left=3, partial_torrents=(SHA256,))
    roots = {0: bytes(32), 1: bytes(32), 5: bytes(32)}
    return [demand_text(demand, 9), message_text(message), manifest_text(manifest()), update_text(demand, 9, roots)]


def node_report() -> NodeReport:
    """A report of a node with everything in it."""
    return NodeReport(
        "failed",
        {"files": 3.0},
        total=100,
        bytes=NodeBytes(1, 2, 3, 4),
        rate=5,
        why="link: it is full",
        failure=NodeFailure("no_space", "the disk is full", "free some"),
        preflight=(PreflightCheck("disk", ok=False, detail="1 GB free"),),
    )


def rollout() -> Rollout:
    """A roll-out that has begun."""
    spec = RolloutSpec(RepoId("org/tiny"), COMMIT, ("a", "b"), ("files", "loaded"), 60.0)
    return Rollout("abcd1234", spec, "team", began=0.0, began_wall=1e9)


def rollout_values() -> list[Any]:
    """A request for a roll-out, and the state of one."""
    begun = rollout()
    begun.take("a", node_report(), 1.0, 1e9)
    return [spec_plain(begun.spec), view_plain(begun.view(2.0))]


def model_infos() -> list[Any]:
    """A hub's information about a model."""
    siblings = [
        {"rfilename": f.path, "size": f.size, "blobId": f.git_oid}
        | ({"lfs": {"sha256": f.sha256, "size": f.size, "pointerSize": 134}} if f.sha256 else {})
        for f in manifest().files
    ]
    return [{"id": "org/tiny", "sha": COMMIT, "private": False, "gated": False, "siblings": siblings}]


def tree_pages() -> list[Any]:
    """Pages of a hub's listing."""
    files = [
        {"type": "file", "path": f.path, "size": f.size, "oid": f.git_oid}
        | ({"lfs": {"oid": f.sha256, "size": f.size, "pointerSize": 134}} if f.sha256 else {})
        for f in manifest().files
    ]
    return [[{"type": "directory", "path": "nested", "oid": "0" * 40, "size": 0}, *files]]


def announce_queries() -> list[str]:
    """Query strings of announces and scrapes."""
    ident = "%12" * 20
    return [
        f"info_hash={ident}&peer_id={ident}&port=6881&left=5&event=started&compact=1&numwant=50&zone=rack-1&role=source",
        f"info_hash={ident}&peer_id={ident}&port=1&no_peer_id=1&compact=0&ip=10.0.0.1&key=ab&event=stopped",
        f"info_hash={ident}&info_hash={'x' * 20}",
    ]


def log_lines() -> list[bytes]:
    """A sync log."""
    head, lines = LogHead(), b""
    for number in range(3):
        of_file = (f"{number}.bin", number, "ab", SHA256)
        entry = LogEntry("2026-01-01T00:00:00Z", "org/tiny", COMMIT, *of_file, ("hub",), "mirror hub")
        line, head = append(head, entry)
        lines += line
    return [lines, lines.splitlines(keepends=True)[-1]]


def state_values() -> dict[str, list[Any]]:
    """State files, by kind, as values of JSON."""
    estimate = [1.5, 2.0, 1e9]
    mirror = {"connect": estimate, "first_byte": estimate, "rate": estimate, "slow": True, "corruptions": 2}
    return {
        "transfer": [
            {
                "repo": "org/tiny",
                "commit": COMMIT,
                "revisions": ["main"],
                "selections": [[["*.json"], []]],
                "peers": [["10.0.0.1", 6881]],
                "priority": 1,
                "paused": False,
                "complete": True,
                "added": 1e9,
            }
        ],
        "revision": [{"revision": "main", "commit": COMMIT, "checked": 1e9}],
        "blob": [{"etag": SHA256, "size": 3, "mtime_ns": 5, "inode": 7, "ctime_ns": 9}],
        "mirrors": [{"version": 1, "mirrors": {"http://m": mirror | {"quarantined_until": 1e9, "reason": "x"}}}],
        "ranges": [
            {
                "etag": manifest().files[0].etag,
                "boot": "boot",
                "done": [[0, 5], [7, 9]],
                "synced": [[0, 1]],
                "root": SHA256,
            }
        ],
        "manifest": [manifest().to_dict()],
        "tree": [
            {"format_version": 1, "files": {f.path: {"size": f.size, "blob_id": f.git_oid} for f in manifest().files}}
        ],
        "withheld": [["org/tiny", "org/other"]],
        "refs": [{"org/tiny": {"main": COMMIT}}],
    }


def catalog_values() -> list[Any]:
    """Answers of a coordinator's catalog, and an error of it."""
    entry = {"repo": "org/tiny", "commit": COMMIT, "revisions": ["main"], "format": "v2", "info_hash": SHA256}
    counts = {"size": 5, "seeders": 1, "leechers": 2, "origin_bytes": 3}
    return [{"torrents": [entry | counts]}, {"code": "not_found", "message": "no", "hint": ""}]


def control_bodies() -> list[Any]:
    """Bodies of requests to the control API."""
    return [
        {"target": "org/tiny", "revision": "main", "include": ["*"], "peers": ["10.0.0.1:1"], "priority": 3},
        {"torrent": base64.b64encode(torrents()[2]).decode()},
        {"ready": True, "seconds": 5.0},
        {"upload": 1, "download": 2},
    ]


def chat_requests() -> list[Any]:
    """Bodies of chat completions."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}}
    turns = [
        {"role": "system", "content": "short"},
        {"role": "user", "content": [image, {"type": "text", "text": "what?"}]},
        {"role": "assistant", "content": "red", "tool_calls": None},
        {"role": "user", "content": "sure?"},
    ]
    sampling = {"temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["END"], "max_tokens": 5, "n": 1}
    return [
        {"model": "org/tiny", "messages": turns, "stream": True, "stream_options": {"include_usage": True}} | sampling
    ]


def as_json(value: Any) -> bytes:
    """`value` as JSON, also if it has numbers or text that JSON has not."""
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError):
        return b"[" * 5000
