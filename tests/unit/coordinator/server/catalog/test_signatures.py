"""The signatures of a coordinator: what is published, how many, and what outlives a restart."""

import json
from pathlib import Path

import aiohttp
import pytest

from p2pmodel.coordinator.client.catalog import list_torrents
from p2pmodel.coordinator.client.publishing import publish
from p2pmodel.coordinator.client.signatures import find_signatures, publish_signature
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.signatures import MAX_OF_OWNER, SignatureStore
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.errors import AccessDenied, InvalidInput
from p2pmodel.http.server import serving
from p2pmodel.swarm.torrents import parse
from p2pmodel.trust.signatures.signing_key import SigningKey, read_signing_key
from p2pmodel.trust.signatures.statement import SignedStatement, Statement
from tests.support.coordinators import CLOSED, PUBLISHERS, RAW, client
from tests.support.ssh_keys import SshKeys

pytestmark = pytest.mark.needs("ssh-keygen")

TORRENT = parse(RAW)
MANIFEST = TORRENT.manifest
NOW = 1_800_000_000.0


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return read_signing_key(SshKeys(tmp_path / "keys").new("key"))


def sign(key: SigningKey, info_hash: str = TORRENT.info_hash, now: float = NOW) -> SignedStatement:
    return SignedStatement.by(key, Statement.over(MANIFEST, info_hash, now))


async def test_published_with_the_torrent_found_and_listed(key: SigningKey) -> None:
    app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS)
    async with serving(app, "127.0.0.1", 0, grace=0.1) as url:
        signed, reader = sign(key), client(url, publish="")
        with pytest.raises(AccessDenied):
            await publish_signature(reader, signed, timeout=10)
        await publish(client(url), RAW, ["main"], signatures=[signed])
        listed = await list_torrents(reader, 10)
        assert [each["signed_by"] for each in listed] == [[key.public.fingerprint]]
        found = await find_signatures(MANIFEST.repo, MANIFEST.commit, [client(CLOSED), reader], 10)
        assert found == (signed,)
        assert await find_signatures(MANIFEST.repo, "0" * 40, [reader], 10) == ()


async def test_what_its_key_has_not_signed_is_refused(key: SigningKey) -> None:
    app = coordinator_app(Tracker(), Catalog(), credentials=PUBLISHERS)
    async with serving(app, "127.0.0.1", 0, grace=0.1) as url, aiohttp.ClientSession() as http:
        forged = SignedStatement(sign(key, "").statement, sign(key).signature)
        with pytest.raises(InvalidInput, match="has not signed"):
            await publish_signature(client(url), forged, timeout=10)
        headers = client(url).publishing_headers
        for body in (b"", b"[]", b"{", json.dumps({"statement": "{}", "signature": "x"}).encode()):
            async with http.put(f"{url}/signatures", data=body, headers=headers) as answer:
                assert answer.status == 400
                assert (await answer.json())["code"] == "invalid_input"
        async with http.get(f"{url}/signatures", params={"repo": "../x", "commit": "y"}) as answer:
            assert answer.status == 400


async def test_a_publisher_replaces_its_own_alone_and_fills_no_shelf(key: SigningKey, tmp_path: Path) -> None:
    store = SignatureStore(tmp_path / "catalog")
    first = sign(key)
    await store.publish("alice", first)
    later = sign(key, now=NOW + 60)
    await store.publish("bob", later)
    assert store.over(MANIFEST.repo, MANIFEST.commit) == (later, first)
    await store.publish("alice", later)
    assert store.over(MANIFEST.repo, MANIFEST.commit) == (later, later)
    for number in range(3 * MAX_OF_OWNER):
        await store.publish("bob", sign(key, f"{number:064x}"))
    held = store.over(MANIFEST.repo, MANIFEST.commit)
    assert len(held) == MAX_OF_OWNER + 1
    assert later in held
    again = SignatureStore(tmp_path / "catalog")
    assert await again.load() == ()
    assert again.over(MANIFEST.repo, MANIFEST.commit) == held
    (tmp_path / "catalog/signatures.json").write_text("{")
    assert len(await SignatureStore(tmp_path / "catalog").load()) == 1
