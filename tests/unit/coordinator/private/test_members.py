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
    members.enter("a", "10.0.0.1", ["10.1.0.1"])
    members.leave("a", now=100)
    assert members.addresses(100 + STAYS - 1).admitted == ("10.0.0.1", "10.1.0.1")
    assert members.addresses(100 + STAYS + 1).admitted == ()


def test_a_node_that_is_put_out_is_barred_until_its_certificate_has_expired() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", "10.0.0.1", [])
    members.enter("b", "10.0.0.2", [])
    members.put_out("a", now=100)
    members.leave("a", now=101)  # its connection ends afterwards
    assert members.addresses(102).admitted == ("10.0.0.2",)
    assert members.addresses(102).barred == ("10.0.0.1",)
    assert members.addresses(100 + LIFETIME + 1).barred == ()


def test_no_member_can_claim_the_address_of_a_node_that_was_put_out() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", "10.0.0.1", [])
    members.put_out("a", now=0)
    members.enter("b", "10.0.0.2", ["10.0.0.1"])
    assert members.addresses(1).barred == ("10.0.0.1",)
    members.enter("a", "10.0.0.1", [])  # it is admitted again
    assert members.addresses(2).admitted == ("10.0.0.1", "10.0.0.2")


def test_a_refused_client_is_barred_for_as_long_as_nodes_may_know_it_and_no_member_is() -> None:
    members = SwarmMembers(LIFETIME)
    members.enter("a", "10.0.0.1", [])
    for address in ("10.0.0.1", "10.0.0.2"):  # a member and a refused client share the first
        members.refuse(address, now=100)
    assert members.addresses(101) == SwarmAddresses(("10.0.0.1",), ("10.0.0.2",))
    members.enter("b", "10.0.0.3", ["10.0.0.2"])
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
    with pytest.raises(InvalidInput):
        parse_membership('{"certificate": "pem", "withdrawn": "0a1b"}')
