"""The rules at a coordinator: catalog, announces, scrapes, leases, metrics and roll-outs, by repository."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import ClientSession, WSMsgType

from p2pmodel.config.sections.trust import AccessRule, AccessSettings
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.http.server import serving
from p2pmodel.swarm import bencode
from p2pmodel.trust.access import machine_tokens
from p2pmodel.trust.access.authoriser import Authoriser, ClientAccess
from p2pmodel.trust.access.machine_tokens import MachineTokens
from p2pmodel.trust.access.policy import AccessPolicy
from p2pmodel.trust.audit_log import AuditLog, AuditTrail, lines_of
from tests.support.coordinators import tokens
from tests.support.eventually import PATIENCE
from tests.support.torrent_files import torrent_of

OPEN = torrent_of({"a.bin": b"a" * 70_000}, repo="open/model")
CLOSED = torrent_of({"b.bin": b"b" * 70_000}, repo="closed/model")
MEMBER = "member-token-0123456789"
RULES = (
    AccessRule(subjects=("token:node", "member"), repos=("open/*",)),
    AccessRule(subjects=("token:ci",), verbs=("read", "publish"), repos=("closed/*",)),
    AccessRule(subjects=("token:ops",), verbs=("operate",)),
)


class Rig:
    """A coordinator with two torrents, and clients with tokens."""

    def __init__(self, base: str, authoriser: Authoriser, made: dict[str, str], audit: Path) -> None:
        self.base, self.authoriser, self.made, self.audit = base, authoriser, made, audit
        self.tokens = authoriser.tokens

    @asynccontextmanager
    async def session(self, name: str) -> AsyncIterator[ClientSession]:
        token = self.made.get(name, name)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with ClientSession(headers=headers) as session:
            yield session

    async def status(self, name: str, path: str, method: str = "GET", data: bytes | None = None) -> int:
        async with self.session(name) as session, session.request(method, self.base + path, data=data) as answer:
            return answer.status

    async def announce(self, raw: bytes, key: str) -> dict[bytes, object]:
        info_hash = quote(read_publication(raw).announced[0])
        query = f"info_hash={info_hash}&peer_id={'p' * 20}&port=6881&left=1"
        async with ClientSession() as session, session.get(f"{self.base}/announce{key}?{query}") as answer:
            decoded = bencode.decode(await answer.read())
            assert isinstance(decoded, dict)
            return decoded


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    monkeypatch.setattr(machine_tokens, "LOOK_EVERY", 0.0)
    catalog, known = Catalog(), MachineTokens(tmp_path / "tokens.json")
    for raw in (OPEN, CLOSED):
        await catalog.publish(read_publication(raw), ["main"])
    made = {name: known.issue(name, [], None) for name in ("node", "ci", "ops")}
    authoriser = Authoriser(AccessPolicy(RULES), known)
    log = AuditLog(tmp_path / "audit", "coordinator", 1 << 20)
    log.open()
    clients = ClientAccess(authoriser, AuditTrail(log))
    app = coordinator_app(Tracker(), catalog, credentials=tokens(MEMBER), clients=clients)
    async with serving(app, "127.0.0.1", 0, grace=0.2) as base:
        yield Rig(base, authoriser, made, tmp_path / "audit")
    log.close()


def torrent(raw: bytes) -> str:
    return f"/catalog/torrents/{read_publication(raw).info_hash}.torrent"


async def test_torrents_are_for_clients_that_may_read_their_repository(rig: Rig) -> None:
    assert await rig.status("node", "/catalog?repo=open/model") == 200
    assert await rig.status(MEMBER, torrent(OPEN)) == 200
    for path in ("/catalog?repo=closed/model", torrent(CLOSED), "/catalog?repo=closed/unknown"):
        assert await rig.status("node", path) == 403, path
        assert await rig.status("", path) == 401, path
    async with rig.session("node") as session, session.get(f"{rig.base}/catalog") as answer:
        assert [each["repo"] for each in (await answer.json())["torrents"]] == ["open/model"]
    assert b"token:node" in b"".join(lines_of(rig.audit, "coordinator"))


async def test_publishing_is_by_repository(rig: Rig) -> None:
    assert await rig.status("ci", "/catalog", "PUT", CLOSED) == 201
    assert await rig.status("ci", "/catalog", "PUT", OPEN) == 403
    assert await rig.status("node", "/catalog", "PUT", OPEN) == 403
    assert await rig.status("ci", torrent(OPEN), "DELETE") == 403


async def test_announces_are_by_repository_and_by_the_key_of_a_token(rig: Rig) -> None:
    key = "/" + announce_key(rig.made["node"])
    assert b"peers" in await rig.announce(OPEN, key)
    assert b"peers" in await rig.announce(OPEN, "/" + announce_key(MEMBER))
    assert b"may not read closed/model" in bytes(str((await rig.announce(CLOSED, key))[b"failure reason"]), "utf-8")
    assert b"failure reason" in await rig.announce(OPEN, "/" + "0" * 32)
    unknown = torrent_of({"c.bin": b"c"}, repo="open/unknown")
    assert b"failure reason" in await rig.announce(unknown, key), "an unknown torrent is of no repository"
    assert rig.tokens is not None
    rig.tokens.revoke("node")
    assert b"failure reason" in await rig.announce(OPEN, key)


async def test_metrics_are_for_clients_that_operate(rig: Rig) -> None:
    assert await rig.status("ops", "/metrics") == 200
    assert await rig.status("node", "/metrics") == 403
    assert await rig.status("ops", torrent(OPEN)) == 403
    assert await rig.status("p2pm_" + "0" * 40, "/metrics") == 401


async def test_what_is_refused_to_a_known_client_is_in_the_audit_log(rig: Rig) -> None:
    await rig.status("ops", torrent(OPEN))
    await rig.announce(CLOSED, f"/{announce_key(rig.made['node'])}")
    await rig.status("node", "/metrics")
    await rig.status("", torrent(OPEN))
    await rig.status("p2pm_" + "0" * 40, torrent(OPEN))
    lines = [json.loads(line) for line in lines_of(rig.audit, "coordinator")]
    assert [(line["subject"], line["verb"], line["repo"]) for line in lines if line["what"] == "refused"] == [
        ("token:ops", "read", "open/model"),
        ("token:node", "read", "closed/model"),
        ("token:node", "operate", ""),
    ]


async def test_leases_end_when_the_right_ends(rig: Rig) -> None:
    where = f"{rig.base}/leases/{read_publication(OPEN).info_hash}?peer=127.0.0.1:7000&id=one"
    async with rig.session("node") as session, session.ws_connect(where) as socket:
        rig.authoriser.change(AccessSettings(rules=RULES[1:]))
        began = time.monotonic()
        message = await socket.receive(timeout=PATIENCE)
        while message.type is WSMsgType.TEXT:
            message = await socket.receive(timeout=PATIENCE)
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008), message
        assert "may not read open/model" in str(message.extra)
        assert time.monotonic() - began < PATIENCE
    closed = f"/leases/{read_publication(CLOSED).info_hash}?peer=127.0.0.1:7000&id=one"
    assert await rig.status("node", closed) == 403


async def test_aliases_are_moved_by_clients_that_may_publish_and_each_move_is_recorded(rig: Rig) -> None:
    first, second = (read_publication(torrent_of({"b.bin": b"b"}, repo="closed/model", commit=c * 40)) for c in "12")
    for publication in (first, second):
        assert await rig.status("ci", "/catalog", "PUT", publication.raw) == 201
    path = "/aliases?repo=closed/model&name=stable"
    assert await rig.status("node", f"{path}&revision={first.commit}", "PUT") == 403
    assert await rig.status("ci", f"/aliases?repo=open/model&name=stable&revision={first.commit}", "PUT") == 403
    for commit in (first.commit, second.commit):
        assert await rig.status("ci", f"{path}&revision={commit}", "PUT") == 200
    assert await rig.status("ci", path.replace("aliases", "aliases/rollback"), "POST") == 200
    for name, listed in (("node", 0), ("ci", 1)):
        async with rig.session(name) as session, session.get(f"{rig.base}/aliases") as answer:
            assert len((await answer.json())["aliases"]) == listed
    lines = [json.loads(line) for line in lines_of(rig.audit, "coordinator")]
    moves = [(line["subject"], line["path"], line["commit"]) for line in lines if line.get("what") == "alias"]
    assert moves == [("token:ci", "stable", each.commit) for each in (first, second, first)]
