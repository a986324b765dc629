"""TLS between members of a private swarm: which certificates open it, from either side."""

import datetime as dt
import ssl
from contextlib import suppress

import pytest

from p2pmodel.errors import InvalidInput
from p2pmodel.swarm.engine import SwarmCertificate
from p2pmodel.tls import MutualTls, server_of
from tests.support.swarm_certificates import NOW, certificate_for, new_authority

COMMIT, OTHER = "c" * 40, "d" * 40
AUTHORITY, STRANGE = new_authority(), new_authority("strange")
PEM = AUTHORITY.pem.decode()
EXPIRED = certificate_for(AUTHORITY, COMMIT, now=NOW - dt.timedelta(hours=2))


def member(presents: SwarmCertificate | None = None, *, authority: str = PEM, commit: str = COMMIT) -> MutualTls:
    tls = MutualTls(authority, commit)
    if presents is not None:
        tls.present(presents.certificate, presents.key)
    return tls


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str = COMMIT) -> tuple[ssl.SSLObject, bytes]:
    """A handshake in memory, and one message of the server. Returns its end at the server, and what the client read."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client.wrap_bio(to_client, to_server, server_hostname=name)
    two = server.wrap_bio(to_server, to_client, server_side=True)
    for end in (one, two, one, two):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    two.write(b"content")
    try:
        return two, one.read(100)
    except ssl.SSLWantReadError:
        return two, b""


def test_members_of_one_swarm_connect_whatever_else_the_server_offers() -> None:
    offered = {COMMIT: member(certificate_for(AUTHORITY, COMMIT)), OTHER: member(commit=OTHER)}
    end, read = shake_hands(member(certificate_for(AUTHORITY, COMMIT)).client, server_of(offered.get))
    assert read == b"content"
    assert end.context is offered[COMMIT].server
    assert end.version() == "TLSv1.3"
    presented = end.getpeercert()
    assert presented is not None
    assert presented["subjectAltName"] == (("DNS", COMMIT),)


@pytest.mark.parametrize(
    "presents",
    [None, certificate_for(STRANGE, COMMIT), EXPIRED],
    ids=["no certificate", "of another authority", "expired"],
)
def test_a_client_without_a_right_certificate_reads_nothing(presents: SwarmCertificate | None) -> None:
    offered = {COMMIT: member(certificate_for(AUTHORITY, COMMIT))}
    with pytest.raises(ssl.SSLError):
        shake_hands(member(presents).client, server_of(offered.get))


@pytest.mark.parametrize(
    "presents",
    [certificate_for(STRANGE, COMMIT), certificate_for(AUTHORITY, OTHER), EXPIRED],
    ids=["of another authority", "for another commit", "expired"],
)
def test_a_client_takes_nothing_from_a_server_without_a_right_certificate(presents: SwarmCertificate) -> None:
    offered = {COMMIT: member(presents)}
    with pytest.raises(ssl.SSLError):
        shake_hands(member(certificate_for(AUTHORITY, COMMIT)).client, server_of(offered.get))


def test_a_member_of_another_authoritys_swarm_is_judged_by_that_authority() -> None:
    """One listener serves swarms of several authorities."""
    offered = {
        COMMIT: member(certificate_for(AUTHORITY, COMMIT)),
        OTHER: member(certificate_for(STRANGE, OTHER), authority=STRANGE.pem.decode(), commit=OTHER),
    }
    with pytest.raises(ssl.SSLError):
        shake_hands(member(certificate_for(STRANGE, COMMIT)).client, server_of(offered.get))
    right = member(certificate_for(STRANGE, OTHER), authority=STRANGE.pem.decode(), commit=OTHER)
    assert shake_hands(right.client, server_of(offered.get), OTHER)[1] == b"content"


def test_a_name_that_is_not_offered_ends_the_handshake() -> None:
    with pytest.raises(ssl.SSLError):
        shake_hands(member(certificate_for(AUTHORITY, COMMIT)).client, server_of({}.get))


def test_a_new_certificate_is_presented_from_then_on() -> None:
    client, offered = member(EXPIRED), {COMMIT: member(certificate_for(AUTHORITY, COMMIT))}
    fresh = certificate_for(AUTHORITY, COMMIT)
    client.present(fresh.certificate, fresh.key)
    assert shake_hands(client.client, server_of(offered.get))[1] == b"content"


def test_no_session_is_resumed_past_the_check_of_a_certificate() -> None:
    offered = {COMMIT: member(certificate_for(AUTHORITY, COMMIT))}
    assert server_of(offered.get).num_tickets == 0
    assert offered[COMMIT].server.num_tickets == 0


def test_what_is_no_certificate_is_refused() -> None:
    one, two = certificate_for(AUTHORITY, COMMIT), certificate_for(AUTHORITY, COMMIT)
    with pytest.raises(InvalidInput, match="do not belong together"):
        member().present(one.certificate, two.key)
    with pytest.raises(InvalidInput, match="not a PEM certificate"):
        MutualTls("nothing", COMMIT)
