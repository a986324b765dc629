"""The endpoint against requests of hub clients, web seed clients and careless clients."""

import asyncio
import gzip
import io
import json
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientPayloadError, ClientSession, web

from p2pmodel.config.sections.http import HttpSettings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import RepoId
from p2pmodel.core.pace import Pace
from p2pmodel.http.access_log import AccessLog
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.server import MAX_BODY, serving
from p2pmodel.service.hub.app import MAX_PAD, hub_endpoint
from p2pmodel.store.cache import HubCache
from tests.support.eventually import PATIENCE
from tests.support.hub_layout import manifest_file, write_snapshot

REPO = "org/tiny"
WEIGHTS = bytes(range(256)) * 4096
FILES = {
    "config.json": b'{"model_type": "tiny"}',
    "model.safetensors": WEIGHTS,
    "empty.txt": b"",
    "sub dir/d\u00e9j\u00e0 #1%.txt": b"odd name",
    "sub dir/deeper/x.json": b"{}",
}
FORMS = RequestGuard(forms=True)
Get = Callable[..., Awaitable["Reply"]]


class Reply:
    def __init__(self, status: int, headers: Any, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    def json(self) -> Any:
        packed = self.headers.get("Content-Encoding") == "gzip"
        return json.loads(gzip.decompress(self.body) if packed else self.body)

    @property
    def refusal(self) -> tuple[int, str | None, str | None]:
        return self.status, self.headers.get("X-Error-Code"), self.headers.get("X-Repo-Commit")


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return tmp_path / "hub"


@pytest.fixture
def manifest(hub: Path) -> Manifest:
    return write_snapshot(hub, REPO, FILES, refs=("main", "v1.0", "refs/pr/1"))


@pytest.fixture
async def base(hub: Path, manifest: Manifest) -> AsyncIterator[str]:
    async with serving(hub_endpoint(HubCache(hub)), "127.0.0.1", 0, guard=FORMS, grace=0.1) as url:
        yield url


async def ask(url: str, method: str = "GET", **options: Any) -> Reply:
    async with ClientSession(auto_decompress=False) as http, http.request(method, url, **options) as answer:
        return Reply(answer.status, answer.headers, await answer.read())


async def raw(base: str, request: bytes) -> bytes:
    """What the server answers to `request` until it closes."""
    host, _, port = base.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    try:
        return await asyncio.wait_for(reader.read(), PATIENCE)
    finally:
        writer.close()
        await writer.wait_closed()


# ------------------------------------------------------------------ metadata


@pytest.mark.parametrize(
    "at", ["", "/revision/main", "/revision/v1.0", "/revision/refs%2Fpr%2F1", "/revision/{commit}"]
)
async def test_model_info_at_every_kind_of_revision(base: str, manifest: Manifest, at: str) -> None:
    reply = await ask(f"{base}/api/models/{REPO}{at.format(commit=manifest.commit)}?securityStatus=true&expand=sha")
    info = reply.json()
    assert (info["id"], info["sha"], info["private"], info["gated"]) == (REPO, manifest.commit, False, False)
    assert info["siblings"] == [{"rfilename": f.path} for f in manifest.files]


async def test_model_info_with_blobs_gives_sizes_and_hashes(base: str, manifest: Manifest) -> None:
    siblings = {s["rfilename"]: s for s in (await ask(f"{base}/api/models/{REPO}?blobs=true")).json()["siblings"]}
    for file in manifest.files:
        assert (siblings[file.path]["size"], siblings[file.path]["blobId"]) == (file.size, file.git_oid)
    lfs = siblings["model.safetensors"]["lfs"]
    assert (lfs["sha256"], lfs["size"]) == (manifest_file("model.safetensors", WEIGHTS).sha256, len(WEIGHTS))
    assert lfs["pointerSize"] == 132
    assert "lfs" not in siblings["config.json"]


async def test_a_tree_lists_one_level_or_all(base: str, manifest: Manifest) -> None:
    top = (await ask(f"{base}/api/models/{REPO}/tree/main")).json()
    assert [(e["type"], e["path"]) for e in top] == [
        ("file", "config.json"),
        ("file", "empty.txt"),
        ("file", "model.safetensors"),
        ("directory", "sub dir"),
    ]
    everything = (await ask(f"{base}/api/models/{REPO}/tree/refs%2Fpr%2F1?recursive=true&expand=false")).json()
    assert [e["path"] for e in everything if e["type"] == "file"] == sorted(FILES)
    assert [e["path"] for e in everything if e["type"] == "directory"] == ["sub dir", "sub dir/deeper"]
    weights = next(e for e in everything if e["path"] == "model.safetensors")
    assert weights["lfs"]["oid"] == manifest.file("model.safetensors").sha256  # type: ignore[union-attr]
    assert not any("xetHash" in e for e in everything)
    below = (await ask(f"{base}/api/models/{REPO}/tree/main/sub%20dir")).json()
    assert {e["path"] for e in below} == {"sub dir/deeper", "sub dir/d\u00e9j\u00e0 #1%.txt"}


@pytest.mark.parametrize("directory", ["nowhere", "config.json", "sub", "%2e%2e%2f"])
async def test_a_tree_of_no_directory_is_an_absent_entry(base: str, directory: str) -> None:
    assert (await ask(f"{base}/api/models/{REPO}/tree/main/{directory}")).refusal[:2] == (404, "EntryNotFound")


async def test_a_large_tree_comes_in_pages_of_one_commit(hub: Path, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("p2pmodel.service.hub.app.PAGE", 20)
    many = {f"part-{n:05}.txt": b"%d" % n for n in range(45)}
    write_snapshot(hub, "org/many", many)
    url: str | None = f"{base}/api/models/org/many/tree/main?recursive=true"
    pages = []
    while url:
        reply = await ask(url)
        pages.append([e["path"] for e in reply.json()])
        if len(pages) == 1:
            write_snapshot(hub, "org/many", {"moved.txt": b"the branch moves meanwhile"})
        link = reply.headers.get("Link")
        url = link.partition("<")[2].partition(">")[0] if link else None
    assert [len(page) for page in pages] == [20, 20, 5]
    assert list(chain.from_iterable(pages)) == sorted(many)


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "cursor=x", "cursor=12.3"])
async def test_a_nonsense_page_is_a_bad_request(base: str, query: str) -> None:
    reply = await ask(f"{base}/api/models/{REPO}/tree/main?{query}")
    assert reply.status == 400
    assert reply.headers["X-Error-Message"]


async def test_refs_name_branches_and_pull_requests(base: str, manifest: Manifest) -> None:
    refs = (await ask(f"{base}/api/models/{REPO}/refs?include_prs=1")).json()
    assert [(r["name"], r["ref"]) for r in refs["branches"]] == [
        ("main", "refs/heads/main"),
        ("v1.0", "refs/heads/v1.0"),
    ]
    assert refs["pullRequests"] == [{"name": "1", "ref": "refs/pr/1", "targetCommit": manifest.commit}]
    assert refs["tags"] == refs["converts"] == []


PATHS = ["config.json", "sub dir", "absent", "config.json"]


@pytest.mark.parametrize("body", [{"json": {"paths": PATHS}}, {"data": [("paths", path) for path in PATHS]}])
async def test_paths_info_of_files_and_directories(base: str, body: dict[str, Any]) -> None:
    reply = await ask(f"{base}/api/models/{REPO}/paths-info/main", "POST", **body)
    assert [(e["type"], e["path"]) for e in reply.json()] == [("file", "config.json"), ("directory", "sub dir")]


@pytest.mark.parametrize(
    "body", [{"json": {"paths": [1]}}, {"json": []}, {"data": b"{", "headers": {"Content-Type": "application/json"}}]
)
async def test_nonsense_paths_are_a_bad_request(base: str, body: dict[str, Any]) -> None:
    assert (await ask(f"{base}/api/models/{REPO}/paths-info/main", "POST", **body)).status == 400


async def test_a_huge_body_is_refused(base: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = io.BytesIO(b"paths=" + b"x" * (MAX_BODY + 1))
    assert (await ask(f"{base}/api/models/{REPO}/paths-info/main", "POST", data=body, headers=form)).status == 413


async def test_large_json_is_compressed_on_request(hub: Path, base: str) -> None:
    write_snapshot(hub, "org/many", {f"file-{n}.txt": b"" for n in range(200)})
    url = f"{base}/api/models/org/many"
    packed = await ask(url, headers={"Accept-Encoding": "gzip, deflate"})
    assert packed.headers["Content-Encoding"] == "gzip"
    plain = await ask(url, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    assert gzip.decompress(packed.body) == plain.body


# ------------------------------------------------------------------ files


def url_of(base: str, path: str, revision: str = "main", repo: str = REPO) -> str:
    return f"{base}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}"


@pytest.mark.parametrize("path", sorted(FILES))
async def test_every_file_comes_whole(base: str, manifest: Manifest, path: str) -> None:
    file = manifest.file(path)
    assert file is not None
    for revision in ("main", "refs/pr/1", manifest.commit):
        reply = await ask(url_of(base, path, revision))
        assert (reply.status, reply.body) == (200, FILES[path])
        assert reply.headers["X-Repo-Commit"] == manifest.commit
        assert reply.headers["ETag"] == reply.headers["X-Linked-Etag"] == f'"{file.etag}"'
        assert reply.headers["X-Linked-Size"] == reply.headers["Content-Length"] == str(file.size)
        assert reply.headers["Accept-Ranges"] == "bytes"


async def test_an_unquoted_pull_request_ref_is_understood(base: str) -> None:
    assert (await ask(f"{base}/{REPO}/resolve/refs/pr/1/config.json")).body == FILES["config.json"]


async def test_head_has_the_headers_of_the_whole_file_and_no_body(base: str, manifest: Manifest) -> None:
    url = url_of(base, "model.safetensors")
    reply = await ask(url, "HEAD", headers={"Range": "bytes=0-1"})
    assert (reply.status, reply.body, reply.headers["Content-Length"]) == (200, b"", str(len(WEIGHTS)))
    assert reply.headers["X-Repo-Commit"] == manifest.commit
    assert "Content-Range" not in reply.headers


async def test_weights_are_never_compressed(base: str) -> None:
    reply = await ask(url_of(base, "model.safetensors"), headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in reply.headers
    assert reply.body == WEIGHTS


async def test_no_header_points_to_xet_or_elsewhere(base: str) -> None:
    reply = await ask(url_of(base, "model.safetensors"), "HEAD")
    assert not [name for name in reply.headers if name.lower().startswith("x-xet") or name in ("Link", "Location")]


@pytest.mark.parametrize(
    ("header", "start", "end"),
    [("bytes=0-0", 0, 1), ("bytes=1000-70000", 1000, 70001), ("bytes=-5", -5, None), ("bytes=1048570-", 1048570, None)],
)
async def test_a_range(base: str, header: str, start: int, end: int | None) -> None:
    reply = await ask(url_of(base, "model.safetensors"), headers={"Range": header})
    expected = WEIGHTS[start:end]
    assert (reply.status, reply.body) == (206, expected)
    first = start % len(WEIGHTS)
    assert reply.headers["Content-Range"] == f"bytes {first}-{first + len(expected) - 1}/{len(WEIGHTS)}"
    assert reply.headers["Content-Length"] == str(len(expected))


async def test_several_ranges_get_the_whole_file(base: str) -> None:
    reply = await ask(url_of(base, "model.safetensors"), headers={"Range": "bytes=0-1,5-6"})
    assert (reply.status, reply.body) == (200, WEIGHTS)


async def test_a_range_behind_the_end_is_416_with_the_size(base: str) -> None:
    reply = await ask(url_of(base, "model.safetensors"), headers={"Range": f"bytes={len(WEIGHTS)}-"})
    assert (reply.status, reply.headers["Content-Range"]) == (416, f"bytes */{len(WEIGHTS)}")


async def test_if_range_guards_against_another_file(base: str, manifest: Manifest) -> None:
    etag = manifest.file("model.safetensors").etag  # type: ignore[union-attr]
    url, part = url_of(base, "model.safetensors"), {"Range": "bytes=0-9"}
    assert (await ask(url, headers=part | {"If-Range": f'"{etag}"'})).status == 206
    assert (await ask(url, headers=part | {"If-Range": '"other"'})).status == 200


async def test_if_none_match_saves_the_body(base: str, manifest: Manifest) -> None:
    etag = manifest.file("config.json").etag  # type: ignore[union-attr]
    reply = await ask(url_of(base, "config.json"), headers={"If-None-Match": f'W/"{etag}"'})
    assert (reply.status, reply.body, reply.headers["ETag"]) == (304, b"", f'"{etag}"')
    assert (await ask(url_of(base, "config.json"), headers={"If-None-Match": '"other"'})).status == 200


async def test_pads_are_zeros_of_bounded_length(base: str, manifest: Manifest) -> None:
    pad = f"{base}/{REPO}/resolve/{manifest.commit}/.pad"
    assert (await ask(f"{pad}/70000")).body == bytes(70000)
    part = await ask(f"{pad}/70000", headers={"Range": "bytes=69990-"})
    assert (part.status, part.body, part.headers["Content-Range"]) == (206, bytes(10), "bytes 69990-69999/70000")
    assert len((await ask(f"{pad}/{MAX_PAD}")).body) == MAX_PAD
    for refused in (str(MAX_PAD + 1), "-1", "x", "1/2", "9" * 30):
        assert (await ask(f"{pad}/{refused}")).status == 404


# ------------------------------------------------------------------ refusals


async def test_missing_files_have_the_errors_of_the_hub(base: str, manifest: Manifest) -> None:
    assert (await ask(url_of(base, "absent.bin"))).refusal == (404, "EntryNotFound", manifest.commit)
    assert (await ask(url_of(base, "sub dir"))).refusal == (404, "EntryNotFound", manifest.commit)
    assert (await ask(url_of(base, "config.json", "v9"))).refusal == (404, "RevisionNotFound", None)
    assert (await ask(url_of(base, "config.json", "0" * 40))).refusal == (404, "RevisionNotFound", None)
    assert (await ask(url_of(base, "config.json", repo="org/other"))).refusal == (404, "RepoNotFound", None)
    for api in ("", "/tree/main", "/refs"):
        assert (await ask(f"{base}/api/models/org/other{api}")).refusal == (404, "RepoNotFound", None)
    assert (await ask(f"{base}/api/models/{REPO}/revision/v9")).refusal == (404, "RevisionNotFound", None)
    message = (await ask(url_of(base, "absent.bin"), "HEAD")).headers["X-Error-Message"]
    assert "absent.bin" in message


@pytest.mark.parametrize(
    "path",
    [
        f"/{REPO}/resolve/main/../../../../../../etc/passwd",
        f"/{REPO}/resolve/main/..%2f..%2f..%2f..%2fetc%2fpasswd",
        f"/{REPO}/resolve/..%2f..%2fblobs/config.json",
        f"/{REPO}/resolve/main//etc/passwd",
        f"/{REPO}/resolve/main/config.json%00",
        f"/{REPO}/resolve/main/%ff%fe",
        "/..%2f..%2fetc/resolve/main/passwd",
        "/../../etc/resolve/main/passwd",
        "/api/models/..%2f..%2fetc/tree/main",
        "/api/models/org/tiny/tree/..%2f..%2f..",
        "/api/agent-harnesses",
        "/nowhere",
        "/",
        "//",
    ],
)
async def test_no_path_leaves_the_snapshot(base: str, path: str) -> None:
    answer = await raw(base, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404"), answer[:200]
    assert b"root:" not in answer


async def test_an_oversized_header_is_refused(base: str) -> None:
    answer = await raw(base, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 431 ")


async def test_writing_is_not_possible(base: str) -> None:
    for method in ("PUT", "DELETE", "POST"):
        assert (await ask(url_of(base, "config.json"), method)).status == 405


@pytest.mark.parametrize("damage", ["unlink", "truncate", "extend", "directory"])
async def test_a_request_for_an_incomplete_blob_is_to_be_retried(
    hub: Path, base: str, manifest: Manifest, damage: str
) -> None:
    file = manifest.file("model.safetensors")
    assert file is not None
    blob = hub / RepoId(REPO).cache_folder / "blobs" / file.etag
    assert (await ask(url_of(base, file.path))).status == 200
    if damage in ("unlink", "directory"):
        blob.unlink()
    if damage == "directory":
        blob.mkdir()
    if damage == "truncate":
        blob.write_bytes(WEIGHTS[:-1])
    if damage == "extend":
        blob.write_bytes(WEIGHTS + b"x")
    for method in ("HEAD", "GET"):
        reply = await ask(url_of(base, file.path), method)
        assert reply.refusal == (503, None, None)
        assert int(reply.headers["Retry-After"]) > 0


async def test_a_file_unknown_to_a_snapshot_without_a_list_is_not_declared_absent(hub: Path, base: str) -> None:
    old = write_snapshot(hub, "org/old", {"config.json": b"{}"}, tree=False)
    assert (await ask(url_of(base, "config.json", old.commit, "org/old"))).body == b"{}"
    assert (await ask(url_of(base, "other.json", repo="org/old"))).refusal == (404, "EntryNotFound", None)


async def test_a_pruned_blob_that_is_being_sent_is_sent_to_its_end(hub: Path, manifest: Manifest) -> None:
    file = manifest.file("model.safetensors")
    assert file is not None
    app = hub_endpoint(HubCache(hub), pace=Pace(4 << 20))
    async with (
        serving(app, "127.0.0.1", 0, grace=0.1) as base,
        ClientSession() as session,
        session.get(url_of(base, file.path)) as answer,
    ):
        await answer.content.readexactly(1)
        (hub / RepoId(REPO).cache_folder / "blobs" / file.etag).unlink()
        assert await answer.content.read() == WEIGHTS[1:]


async def test_a_file_that_shrinks_while_it_is_sent_cuts_the_connection(hub: Path, manifest: Manifest) -> None:
    file = manifest.file("model.safetensors")
    assert file is not None
    app = hub_endpoint(HubCache(hub), pace=Pace(2 << 20))
    async with serving(app, "127.0.0.1", 0, grace=0.1) as base, ClientSession() as session:
        async with session.get(url_of(base, file.path)) as answer:
            await answer.content.readexactly(1)
            os.truncate(hub / RepoId(REPO).cache_folder / "blobs" / file.etag, 300_000)
            with pytest.raises(ClientPayloadError):
                await answer.content.read()
        async with session.get(url_of(base, "config.json")) as answer:
            assert await answer.read() == FILES["config.json"]


async def test_one_segment_ids_and_new_repositories_are_served(hub: Path, base: str) -> None:
    assert (await ask(url_of(base, "config.json", repo="gpt2"))).refusal[1] == "RepoNotFound"
    write_snapshot(hub, "gpt2", {"config.json": b"{2}"})
    assert (await ask(url_of(base, "config.json", repo="gpt2"))).body == b"{2}"
    assert (await ask(f"{base}/api/models/gpt2/tree/main")).json()[0]["path"] == "config.json"
    assert (await ask(f"{base}/api/models/gpt2")).json()["id"] == "gpt2"


async def test_a_ref_that_moves_is_followed_at_once(hub: Path, base: str) -> None:
    assert (await ask(url_of(base, "config.json"))).body == FILES["config.json"]
    write_snapshot(hub, REPO, {"config.json": b"new"})
    assert (await ask(url_of(base, "config.json"))).body == b"new"


async def test_it_can_be_mounted_below_a_prefix(hub: Path, manifest: Manifest) -> None:
    outer = web.Application()
    outer.add_subapp("/hf/mirror", hub_endpoint(HubCache(hub)))
    async with serving(outer, "127.0.0.1", 0, grace=0.1) as base:
        assert (await ask(url_of(base + "/hf/mirror", "config.json"))).body == FILES["config.json"]
        assert (await ask(f"{base}/hf/mirror/api/models/{REPO}")).json()["sha"] == manifest.commit
        assert (await ask(url_of(base, "config.json"))).status == 404


# ------------------------------------------------------------------ token


async def test_a_token_guards_every_route(hub: Path, manifest: Manifest) -> None:
    app = hub_endpoint(HubCache(hub), token="s\u00e9cret")
    async with serving(app, "127.0.0.1", 0, grace=0.1) as base:
        urls = [url_of(base, "config.json"), f"{base}/api/models/{REPO}", f"{base}/nowhere"]
        for url in urls:
            anonymous = await ask(url)
            assert (anonymous.status, anonymous.headers.get("X-Error-Code")) == (401, "RepoNotFound")
            wrong = await ask(url, headers={"Authorization": "Bearer nope"})
            assert (wrong.status, wrong.headers.get("X-Error-Code")) == (401, None)
            assert wrong.headers["X-Error-Message"] == "Invalid credentials in Authorization header"
        for header in ("Bearer s\u00e9cret", "bearer  s\u00e9cret"):
            assert (await ask(urls[0], headers={"Authorization": header})).body == FILES["config.json"]
        assert (await ask(urls[0], headers={"Authorization": "Basic s\u00e9cret"})).status == 401


# ------------------------------------------------------------------ access log


async def _lines(path: Path, count: int) -> list[dict[str, Any]]:
    """The log once it has `count` lines: a line is written after its response has gone out."""
    for _ in range(500):
        found = (await asyncio.to_thread(path.read_text)).splitlines()
        if len(found) >= count:
            break
        await asyncio.sleep(0.01)
    assert len(found) == count
    return [json.loads(line) for line in found]


async def test_the_access_log_contains_the_bytes_really_sent(hub: Path, manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(path, clock=lambda: 1_700_000_000.5)
    async with serving(hub_endpoint(HubCache(hub), access_log=log), "127.0.0.1", 0, grace=0.1) as base:
        odd = "sub dir/d\u00e9j\u00e0 #1%.txt"
        replies = [
            await ask(url_of(base, "model.safetensors"), headers={"User-Agent": "t/1"}),
            await ask(url_of(base, "model.safetensors"), headers={"Range": "bytes=0-99"}),
            await ask(url_of(base, "model.safetensors"), "HEAD"),
            await ask(url_of(base, odd)),
            await ask(url_of(base, "absent")),
            await ask(f"{base}/api/models/{REPO}?blobs=true"),
            await ask(f"{base}/nowhere"),
        ]
        lines = await _lines(path, len(replies))
    log.close()
    assert [line["status"] for line in lines] == [reply.status for reply in replies]
    assert [line["bytes"] for line in lines] == [len(reply.body) for reply in replies]
    first = lines[0]
    assert first["time"] == "2023-11-14T22:13:20.500+00:00"
    assert (first["method"], first["client"], first["user_agent"], first["range"]) == ("GET", "127.0.0.1", "t/1", None)
    assert lines[1]["range"] == "bytes=0-99"
    assert lines[3]["path"] == f"/{REPO}/resolve/main/{odd}"
    assert lines[3]["target"].startswith(f"/{REPO}/resolve/main/sub%20dir/d%C3%A9j%C3%A0")


async def test_an_aborted_transfer_is_logged_with_its_part(hub: Path, tmp_path: Path) -> None:
    content = bytes(64 << 20)
    write_snapshot(hub, "org/big", {"model.bin": content})
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    async with serving(hub_endpoint(HubCache(hub), access_log=log), "127.0.0.1", 0, grace=0.1) as base:
        port = int(base.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /org/big/resolve/main/model.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            taken = 0
            while taken < 2 << 20:
                taken += len(await asyncio.to_thread(client.recv, 1 << 16))
        (line,) = await _lines(path, 1)
    log.close()
    assert line["status"] == 200
    assert taken - 1000 <= line["bytes"] < len(content) // 2


async def test_a_client_that_never_reads_is_dropped(hub: Path, tmp_path: Path) -> None:
    quick = HttpSettings(stall_timeout=0.2, max_requests_per_second=0)
    write_snapshot(hub, "org/big", {"model.bin": bytes(32 << 20)})
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    async with serving(hub_endpoint(HubCache(hub), access_log=log, http=quick), "127.0.0.1", 0, grace=0.1) as base:
        with socket.create_connection(("127.0.0.1", int(base.rpartition(":")[2]))) as client:
            client.sendall(b"GET /org/big/resolve/main/model.bin HTTP/1.1\r\nHost: localhost\r\n\r\n")
            (line,) = await _lines(path, 1)
    log.close()
    assert 0 < line["bytes"] < 32 << 20


async def test_a_client_gone_before_the_answer_is_logged_and_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, gone = tmp_path / "access.jsonl", asyncio.Event()

    async def slow(_request: web.Request) -> web.Response:
        await gone.wait()
        return web.Response(text="late")

    log = AccessLog(path)
    app = web.Application(middlewares=[log.middleware()])
    app.add_routes([web.get("/", slow)])
    async with serving(app, "127.0.0.1", 0, grace=0.1) as base:
        _, writer = await asyncio.open_connection("127.0.0.1", int(base.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.sleep(0.05)
        writer.transport.abort()
        await asyncio.sleep(0.05)
        gone.set()
        (line,) = await _lines(path, 1)
    log.close()
    assert line["bytes"] == 0
    assert not caplog.records


async def test_a_log_line_survives_hostile_headers(hub: Path, manifest: Manifest, tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    log = AccessLog(path)
    async with serving(hub_endpoint(HubCache(hub), access_log=log), "127.0.0.1", 0, grace=0.1) as base:
        await raw(base, b'GET /%0a%ff HTTP/1.1\r\nHost: localhost\r\nUser-Agent: \xff"}\\\r\nConnection: close\r\n\r\n')
        (line,) = await _lines(path, 1)
    log.close()
    assert line["status"] == 404
