"""Private swarms over real WebSockets: certificates, addresses, and nodes that are put out."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, TCPConnector, WSCloseCode, WSMsgType
from cryptography import x509
from yarl import URL

from p2pmodel.config.sections.coordinator import PrivateSettings
from p2pmodel.config.sections.trust import AccessRule, AccessSettings
from p2pmodel.coordinator.private.messages import MembershipGrant, MembershipRequest, parse_membership, text_of
from p2pmodel.coordinator.server.app import coordinator_app
from p2pmodel.coordinator.server.catalog.catalog import Catalog
from p2pmodel.coordinator.server.catalog.publication import read_publication
from p2pmodel.coordinator.server.issued_record import IssuedRecord
from p2pmodel.coordinator.server.private_swarms import PrivateSwarms
from p2pmodel.coordinator.server.tracker import Tracker
from p2pmodel.coordinator.tracker.sources import Source
from p2pmodel.core.network.tokens import announce_key
from p2pmodel.errors import InvalidInput
from p2pmodel.http.server import serving
from p2pmodel.node.private.admitted import AdmittedAddresses
from p2pmodel.swarm.bencode import decode
from p2pmodel.swarm.libtorrent.private_torrents import AdmissionList
from p2pmodel.trust.access.authoriser import Authoriser, ClientAccess
from p2pmodel.trust.access.policy import AccessPolicy
from p2pmodel.trust.certificates import NodeKey
from tests.support.coordinators import TOKEN, tokens
from tests.support.eventually import PATIENCE
from tests.support.swarm_certificates import new_authority
from tests.support.torrent_files import COMMIT, SMALL, torrent_of

AUTHORITY = new_authority()
PRIVATE = read_publication(torrent_of(SMALL, authority=AUTHORITY.pem.decode()))
SETTINGS = PrivateSettings(repos=("org/*",))
HEADERS = {"Authorization": f"Bearer {TOKEN}"}
READERS = AccessRule(subjects=("member",))


@dataclass
class Rig:
    """A coordinator with one private torrent."""

    url: str
    http: ClientSession
    swarms: PrivateSwarms
    catalog: Catalog

    @asynccontextmanager
    async def node(self, *claimed: str, request: str | None = None) -> AsyncIterator[ClientWebSocketResponse]:
        """The connection of a node that claims addresses."""
        asked = MembershipRequest(NodeKey.new().request if request is None else request, claimed)
        url = f"{self.url}/private/{PRIVATE.info_hash}"
        async with self.http.ws_connect(url, headers=HEADERS) as socket:
            await socket.send_str(text_of(asked))
            yield socket


@asynccontextmanager
async def running(
    authoriser: Authoriser | None = None, settings: PrivateSettings = SETTINGS, record: IssuedRecord | None = None
) -> AsyncIterator[Rig]:
    catalog = Catalog()
    await catalog.publish(PRIVATE, ["main"])
    swarms = PrivateSwarms(catalog, settings, authority=AUTHORITY, record=record)
    clients = ClientAccess(authoriser or Authoriser())
    app = coordinator_app(Tracker(), catalog, credentials=tokens(TOKEN), private=swarms, clients=clients)
    async with serving(app, "127.0.0.1", 0) as url, ClientSession() as http:
        yield Rig(url, http, swarms, catalog)


async def until(socket: ClientWebSocketResponse, met: Callable[[MembershipGrant], bool]) -> MembershipGrant:
    async with asyncio.timeout(PATIENCE):
        while True:
            received = await socket.receive()
            assert received.type is WSMsgType.TEXT, received
            if met(found := parse_membership(received.data)):
                return found


async def closed(socket: ClientWebSocketResponse) -> int | None:
    async with asyncio.timeout(PATIENCE):
        while (await socket.receive()).type is WSMsgType.TEXT:
            pass
    return socket.close_code


async def test_a_node_gets_a_certificate_for_the_commit_and_the_addresses_of_all() -> None:
    async with running() as rig, rig.node("10.0.0.1") as one, rig.node("10.0.0.2") as other:
        first = await until(one, lambda grant: "10.0.0.2" in grant.admitted)
        assert set((await until(other, lambda _: True)).admitted) >= {"10.0.0.1", "10.0.0.2", "127.0.0.1"}
        certificate = x509.load_pem_x509_certificate(first.certificate.encode())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [COMMIT]
        certificate.verify_directly_issued_by(AUTHORITY.certificate)


async def test_a_certificate_is_renewed_before_it_expires() -> None:
    async with running(settings=SETTINGS.model_copy(update={"lifetime": 2.0})) as rig, rig.node() as node:
        first = await until(node, lambda _: True)
        again = await until(node, lambda grant: grant.certificate != first.certificate)
        one, two = (x509.load_pem_x509_certificate(each.certificate.encode()) for each in (first, again))
        assert one.not_valid_after_utc <= two.not_valid_after_utc


async def test_a_revoked_node_is_put_out_and_the_others_are_told() -> None:
    async with running() as rig, rig.node("10.0.0.1") as gone, rig.node("10.0.0.2") as stays:
        await until(stays, lambda grant: "10.0.0.1" in grant.admitted)
        rig.swarms.revoke(SETTINGS.model_copy(update={"revoked": ("10.0.0.1",)}))
        told = await until(stays, lambda grant: "10.0.0.1" in grant.barred)
        assert "10.0.0.1" not in told.admitted
        assert await closed(gone) == WSCloseCode.POLICY_VIOLATION
        async with rig.node("10.0.0.1") as again:
            assert await closed(again) == WSCloseCode.POLICY_VIOLATION


async def test_the_certificates_of_a_revoked_node_are_withdrawn() -> None:
    async with running() as rig, rig.node("10.0.0.1") as gone, rig.node("10.0.0.2") as stays:
        mine = x509.load_pem_x509_certificate((await until(gone, lambda _: True)).certificate.encode())
        await until(stays, lambda grant: "10.0.0.1" in grant.admitted)
        rig.swarms.revoke(SETTINGS.model_copy(update={"revoked": ("10.0.0.1",)}))
        told = await until(stays, lambda grant: bool(grant.withdrawn))
        assert told.withdrawn == (f"{mine.serial_number:x}",)


async def test_an_address_that_a_revoked_node_shares_is_for_http_alone_also_after_a_restart(tmp_path: Path) -> None:
    """Both nodes connect from 127.0.0.1, and one of them is also at 10.0.0.1."""
    record = IssuedRecord(tmp_path / "private-swarms")
    revoked = SETTINGS.model_copy(update={"revoked": ("10.0.0.1",)})
    async with running(record=record) as rig, rig.node("10.0.0.1") as gone, rig.node() as stays:
        await until(stays, lambda grant: "10.0.0.1" in grant.admitted)
        rig.swarms.revoke(revoked)
        told = await until(stays, lambda grant: bool(grant.http_only))
        assert (told.http_only, told.barred) == (("127.0.0.1",), ("10.0.0.1", "127.0.0.1"))
        assert 0 < told.http_only_for <= SETTINGS.lifetime
        assert await closed(gone) == WSCloseCode.POLICY_VIOLATION
        async with rig.node("10.0.0.2") as late:
            told = await until(late, lambda _: True)
            assert (told.http_only, told.admitted) == (("127.0.0.1",), ("10.0.0.2",))
    async with running(settings=revoked, record=IssuedRecord(tmp_path / "private-swarms")) as rig, rig.node() as again:
        told = await until(again, lambda _: True)
        assert (told.http_only, bool(told.withdrawn)) == (("127.0.0.1",), True)
        assert told.http_only_for > 0
        rig.swarms.revoke(SETTINGS)
        told = await until(again, lambda grant: not grant.http_only)
        assert (told.barred, told.http_only_for, told.withdrawn) == ((), 0, ())


async def test_the_tracker_answers_at_addresses_of_members_alone_whatever_key_it_is_given() -> None:
    """The key in an old .torrent is that of a member for as long as the members' token is."""
    swarm = bytes.fromhex(PRIVATE.info_hash)[:20]

    async def ask(rig: Rig, what: str, address: str, more: str = "") -> dict[bytes, object]:
        query = f"info_hash={quote_from_bytes(swarm)}&peer_id={'x' * 20}&port=7000&left=1{more}"
        async with ClientSession(connector=TCPConnector(local_addr=(address, 0))) as http:
            url = URL(f"{rig.url}/{what}/{announce_key(TOKEN)}?{query}", encoded=True)
            async with http.get(url) as response:
                found = decode(await response.read())
        assert isinstance(found, dict)
        return found

    async with running() as rig:
        assert b"failure reason" in await ask(rig, "announce", "127.0.0.1"), "no node is in it yet"
        async with rig.node("127.0.0.8") as node:
            await until(node, lambda grant: "127.0.0.8" in grant.admitted)
            for address in ("127.0.0.1", "127.0.0.8"):
                assert b"peers" in await ask(rig, "announce", address)
                assert b"files" in await ask(rig, "scrape", address)
            for what in ("announce", "scrape"):
                refused = await ask(rig, what, "127.0.0.9")
                assert set(refused) == {b"failure reason"}
                assert b"private swarm" in bytes(refused[b"failure reason"])  # type: ignore[call-overload]
            warned = await ask(rig, "announce", "127.0.0.8", "&address=203.0.113.9%3A7000")
            assert b"203.0.113.9" in bytes(warned[b"warning message"])  # type: ignore[call-overload]
            rig.swarms.revoke(SETTINGS.model_copy(update={"revoked": ("127.0.0.8",)}))
            await closed(node)
            assert b"failure reason" in await ask(rig, "announce", "127.0.0.8")
            rig.swarms.revoke(SETTINGS)
            async with rig.node():
                await rig.catalog.withdraw(PRIVATE.info_hash)
                assert b"not registered" in bytes((await ask(rig, "announce", "127.0.0.1"))[b"failure reason"])  # type: ignore[call-overload]


async def test_a_source_of_a_private_snapshot_is_one_over_tls_that_needs_no_token() -> None:
    path = f"/sources/{PRIVATE.info_hash}"
    async with running() as rig:
        for source, status in (
            (Source("http://127.0.0.1:7"), 400),
            (Source("https://127.0.0.1:7", "t0ken"), 400),
            (Source("https://127.0.0.2:7"), 204),
        ):
            async with rig.http.put(f"{rig.url}{path}", headers=HEADERS | source.headers()) as answer:
                assert answer.status == status, await answer.text()
        rig.swarms.revoke(SETTINGS.model_copy(update={"revoked": ("127.0.0.0/8",)}))
        async with rig.http.put(f"{rig.url}{path}", headers=HEADERS | source.headers()) as answer:
            assert answer.status == 403


async def test_a_node_that_the_rules_no_longer_admit_is_put_out_and_barred() -> None:
    authoriser = Authoriser(AccessPolicy((READERS,)))
    async with running(authoriser) as rig, rig.node("10.0.0.1") as node:
        await until(node, lambda grant: "10.0.0.1" in grant.admitted)
        deny = AccessRule(action="deny", subjects=("member",))
        authoriser.change(AccessSettings(rules=(READERS, deny)))
        assert await closed(node) == WSCloseCode.POLICY_VIOLATION
        authoriser.change(AccessSettings(rules=(READERS,)))
        async with rig.node("10.0.0.2") as other:
            assert "10.0.0.1" in (await until(other, lambda _: True)).barred


@pytest.mark.parametrize("sent", ["", "Bearer 0123456789abcdef-of-before"])
async def test_a_node_with_a_token_that_a_restarted_coordinator_does_not_know_is_barred_at_once(sent: str) -> None:
    """Nodes that stay knew it from before, and keep what the new coordinator does not list for a while."""
    address, url = "127.0.0.9", f"/private/{PRIVATE.info_hash}"
    nodes = AdmittedAddresses()
    nodes.take("it", MembershipGrant("pem", ("127.0.0.1", address)), now=0)
    async with running() as rig, rig.node() as other:
        nodes.take("it", await until(other, lambda _: True), now=1)
        assert nodes.admissions(2).admitted >= {"127.0.0.1", address}
        connector = TCPConnector(local_addr=(address, 0))
        async with ClientSession(connector=connector, headers={"Authorization": sent} if sent else {}) as late:
            for target, status in ((f"/private/{'0' * 64}", 401), (url, 401)):
                async with late.get(f"{rig.url}{target}") as answer:
                    assert answer.status == status
        nodes.take("it", await until(other, lambda grant: address in grant.barred), now=3)
        found = AdmissionList()
        found.put("torrent", nodes.admissions(4))
        assert found.addresses == {"127.0.0.1"}


async def test_torrents_and_leases_are_for_those_that_may_have_the_snapshot() -> None:
    revoked = SETTINGS.model_copy(update={"revoked": ("127.0.0.0/8",)})
    async with running() as rig:
        paths = (
            f"/catalog/torrents/{PRIVATE.info_hash}.torrent",
            "/catalog?repo=org/tiny",
            f"/leases/{PRIVATE.info_hash}",
        )
        found = [(await rig.http.get(rig.url + path, headers=HEADERS)).status for path in paths]
        assert found == [200, 200, 426]
        rig.swarms.revoke(revoked)
        found = [(await rig.http.get(rig.url + path, headers=HEADERS)).status for path in paths]
        assert found == [403, 403, 403]
        assert (await rig.http.get(f"{rig.url}/private/{PRIVATE.info_hash}")).status == 401


async def test_a_malformed_certificate_request_ends_the_connection() -> None:
    async with running() as rig, rig.node(request="no request") as node:
        assert await closed(node) == WSCloseCode.UNSUPPORTED_DATA


@pytest.mark.parametrize("other", [None, new_authority("other").pem.decode()])
async def test_a_torrent_that_no_node_could_join_is_not_published(other: str | None) -> None:
    swarms = PrivateSwarms(Catalog(), SETTINGS, authority=AUTHORITY)
    swarms.check_publication(PRIVATE)
    with pytest.raises(InvalidInput):
        swarms.check_publication(read_publication(torrent_of(SMALL, authority=other)))
    with pytest.raises(InvalidInput):
        PrivateSwarms(Catalog(), SETTINGS).check_publication(PRIVATE)
