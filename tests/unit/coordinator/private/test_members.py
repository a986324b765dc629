"""Addresses of a private swarm, and the access of its nodes."""

from dataclasses import replace

import pytest

from p2pmodel.coordinator.private.access import NodeIdentity, RevokedNodes
from p2pmodel.coordinator.private.members import MAX_REFUSED, STAYS, SwarmAddresses, SwarmMembers
from p2pmodel.coordinator.private.messages import (
    MembershipGrant,
    MembershipRequest,
    parse_membership,
    parse_request,
    text_of,
)
from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput
from p2pmodel.node.private.admitted import KEPT

REPO, COMMIT, LIFETIME = RepoId("org/model"), "c" * 40, 600.0


def test_a_member_that_left_stays_admitted_for_a_while() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", NodeIdentity("10.0.0.1", ("10.1.0.1",)), now=0)
    members.leave("a", now=100)
    assert members.addresses(100 + STAYS - 1).admitted == ("10.0.0.1", "10.1.0.1")
    assert members.addresses(100 + STAYS + 1).admitted == ()


def test_a_node_that_is_put_out_is_barred_until_its_certificate_has_expired() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", NodeIdentity("10.0.0.1"), now=0)
    members.enter("b", NodeIdentity("10.0.0.2"), now=0)
    members.put_out("a", now=100)
    members.leave("a", now=101)  # its connection ends afterwards
    assert members.addresses(102).admitted == ("10.0.0.2",)
    assert members.addresses(102).barred == ("10.0.0.1",)
    assert members.addresses(100 + LIFETIME + 1).barred == ()


def test_no_member_can_claim_the_address_of_a_node_that_was_put_out() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", NodeIdentity("10.0.0.1"), now=0)
    members.put_out("a", now=0)
    members.enter("b", NodeIdentity("10.0.0.2", ("10.0.0.1",)), now=0)
    assert members.addresses(1).barred == ("10.0.0.1",)
    members.enter("a", NodeIdentity("10.0.0.1"), now=0)  # it is admitted again
    assert members.addresses(2).admitted == ("10.0.0.1", "10.0.0.2")


def entered(members: SwarmMembers, name: str, node: NodeIdentity, *, until: float = LIFETIME) -> None:
    """A member with a certificate, of which the serial number is its name."""
    members.issued.add(name, name, node, until, request=f"request of {name}")
    members.enter(name, node, now=0, request=f"request of {name}")


def test_an_address_that_a_member_shares_with_a_node_that_was_put_out_is_for_http_alone() -> None:
    members = SwarmMembers(LIFETIME)
    entered(members, "gone", NodeIdentity("10.0.0.1", ("10.1.0.1", "::ffff:10.2.0.1"), publisher="gone"))
    entered(members, "stays", NodeIdentity("::ffff:10.0.0.1", ("10.2.0.1",), publisher="stays"))
    entered(members, "other", NodeIdentity("10.0.0.2"))
    members.put_out("gone", now=1, revoked=True)
    found = members.addresses(1)
    assert found.admitted == ("10.0.0.2",)
    assert found.barred == ("10.0.0.1", "10.1.0.1", "10.2.0.1")
    assert found.http_only == ("10.0.0.1", "10.2.0.1"), "no member has the third"
    assert found.withdrawn == ("gone",)
    assert [members.http_only_for(name, 1) for name in ("stays", "other")] == [LIFETIME - 1, 0]
    entered(members, "late", NodeIdentity("10.0.0.3", ("10.0.0.1",)))
    assert members.http_only_for("late", 2) > 0, "a node that comes later has it for HTTP alone, too"
    found = members.addresses(LIFETIME + 1)
    assert set(found.admitted) == {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.2.0.1"}
    assert (found.barred, found.http_only, members.http_only_for("stays", LIFETIME + 1)) == ((), (), 0)


@pytest.mark.parametrize("revoked", [True, False])
def test_an_address_is_open_again_once_the_node_there_is_entitled_again(revoked: bool) -> None:
    members, gone = SwarmMembers(LIFETIME), NodeIdentity("10.0.0.1")
    entered(members, "gone", gone)
    entered(members, "stays", NodeIdentity("10.0.0.1", name="stays"))
    members.put_out("gone", now=1, revoked=revoked)
    members.judge(lambda node: revoked and node == gone)
    assert members.addresses(1).http_only == ("10.0.0.1",)
    members.judge(lambda _: False)
    if not revoked:  # the coordinator sees that from what the node sends, and no earlier
        assert members.addresses(2).http_only == ("10.0.0.1",)
        members.enter("new", gone, now=3, request="another")
        assert members.addresses(3).http_only == ("10.0.0.1",), "another process at that address"
        members.enter("again", gone, now=3, request="request of gone")
    assert members.addresses(4) == SwarmAddresses(("10.0.0.1",))


def test_a_node_with_a_new_token_opens_its_address_again() -> None:
    members, anna = SwarmMembers(LIFETIME), NodeIdentity("10.0.0.1", name="user:anna")
    entered(members, "old", anna)
    members.put_out("old", now=1)
    members.enter("new", anna, now=2, request="another")
    assert members.addresses(2) == SwarmAddresses(("10.0.0.1",))


def test_a_refused_client_is_barred_for_as_long_as_nodes_may_know_it_and_no_member_is() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", NodeIdentity("10.0.0.1"), now=0)
    for address in ("10.0.0.1", "10.0.0.2"):  # a member and a refused client share the first
        members.refuse(address, now=100)
    assert members.addresses(101) == SwarmAddresses(("10.0.0.1",), ("10.0.0.2",))
    members.enter("b", NodeIdentity("10.0.0.3", ("10.0.0.2",)), now=0)
    assert members.addresses(102).admitted == ("10.0.0.1", "10.0.0.2", "10.0.0.3")
    members.leave("b", now=103)
    members.refuse("10.0.0.3", now=104)
    assert members.addresses(105).barred == ("10.0.0.2", "10.0.0.3")
    assert members.addresses(104 + STAYS + 1).barred == ()
    assert STAYS > KEPT


def test_refused_clients_are_few() -> None:
    members = SwarmMembers(LIFETIME)
    for number in range(MAX_REFUSED + 50):
        members.refuse(f"10.0.{number // 250}.{number % 250}", now=number / 100)
    assert len(members.addresses(2).barred) == MAX_REFUSED
    assert "10.0.0.149" in members.addresses(2).barred


@pytest.mark.parametrize(
    ("revoked", "node", "refused"),
    [
        ((), NodeIdentity("10.0.0.1"), False),
        (("10.0.0.1",), NodeIdentity("10.0.0.1"), True),
        (("10.0.0.0/8",), NodeIdentity("::ffff:10.0.0.1"), True),
        (("10.0.0.0/8",), NodeIdentity("192.168.0.1", claimed=("10.0.0.1",)), True),
        (("gpu0*",), NodeIdentity("10.0.0.1", certificate="gpu001"), True),
        (("gpu0*",), NodeIdentity("10.0.0.1"), False),
        (("team-a",), NodeIdentity("10.0.0.1", publisher="team-a"), True),
        ((), NodeIdentity(""), True),
    ],
)
def test_revocations_name_addresses_networks_and_names(
    revoked: tuple[str, ...], node: NodeIdentity, refused: bool
) -> None:
    assert bool(RevokedNodes(revoked).refusal(node, REPO, COMMIT)) is refused


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": 1}', '{"request": "x", "addresses": "10.0.0.1"}'])
def test_a_malformed_request_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_request(text)


def test_a_request_keeps_addresses_alone_and_few_of_them() -> None:
    asked = MembershipRequest("pem", ("name", *(f"10.0.0.{number}" for number in range(20))))
    assert parse_request(text_of(asked)).addresses == tuple(f"10.0.0.{number}" for number in range(8))
    with pytest.raises(InvalidInput):
        parse_membership('{"admitted": []}')


def test_a_grant_has_the_numbers_of_withdrawn_certificates_alone() -> None:
    grant = MembershipGrant("pem", ("10.0.0.1",), ("10.0.0.2",), ("0a1b", "no number", "f" * 41))
    assert parse_membership(text_of(grant)) == replace(grant, withdrawn=("0a1b",))
    assert parse_membership('{"certificate": "pem"}').withdrawn == ()
    shared = replace(grant, withdrawn=(), http_only=("10.0.0.2",), http_only_for=12.5)
    assert parse_membership(text_of(shared)) == shared
    for seconds in ("-1", "true", '"9"', "null"):
        with pytest.raises(InvalidInput):
            parse_membership(f'{{"certificate": "pem", "http_only_for": {seconds}}}')
    with pytest.raises(InvalidInput):
        parse_membership('{"certificate": "pem", "withdrawn": "0a1b"}')
