"""Rules about the addresses that URLs of others lead to."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.core.network.egress import PUBLIC, Egress, kind_of
from p2pmodel.errors import InvalidInput

LOOPBACK = ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"]
LINK_LOCAL = ["169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "fd00:ec2::254", "100.100.100.200"]
PRIVATE = ["10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "fd12::1", "::ffff:10.1.1.1", "fec0::1"]
RESERVED = ["0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "no address", ""]
ADMITTED = ["8.8.8.8", "172.32.0.1", "2606:4700::1", "198.18.0.7", "64:ff9b::808:808", "::ffff:8.8.8.8"]


@pytest.mark.parametrize(
    ("addresses", "kind"),
    [(LOOPBACK, "loopback"), (LINK_LOCAL, "link-local"), (PRIVATE, "private"), (RESERVED, "reserved")],
)
def test_addresses_that_are_not_public_are_refused_with_their_kind(addresses: list[str], kind: str) -> None:
    for address in addresses:
        assert kind_of(address) == kind, address
        assert PUBLIC.refusal(address), address
    assert PUBLIC.refusal(addresses[0]) == f"{addresses[0]}, a {kind} address"


def test_public_addresses_are_admitted() -> None:
    assert [address for address in ADMITTED if PUBLIC.refusal(address)] == []


def test_a_network_of_the_settings_is_admitted() -> None:
    rule = Egress.parse(["10.1.0.0/16", "192.168.7.7"])
    assert not rule.refusal("10.1.2.3")
    assert not rule.refusal("::ffff:10.1.2.3")
    assert rule.refusal("10.2.0.1")
    assert not rule.refusal("192.168.7.7")
    assert rule.refusal("192.168.7.8")


def test_link_local_addresses_need_a_network_of_their_own() -> None:
    for wide in ("0.0.0.0/0", "100.64.0.0/10", "fc00::/7", "::/0"):
        for address in LINK_LOCAL:
            assert Egress.parse([wide]).refusal(address), (wide, address)
    assert not Egress.parse(["169.254.0.0/16"]).refusal("169.254.1.1")
    assert not Egress.parse(["fe80::/10"]).refusal("fe80::1%eth0")


@pytest.mark.parametrize(
    ("sender", "admitted", "refused"),
    [
        ("127.0.0.2", ["127.0.0.1", "::1"], ["10.0.0.1", "169.254.169.254"]),
        ("::1", ["127.0.0.1"], ["10.0.0.1"]),
        ("10.0.0.5", ["10.200.0.1"], ["127.0.0.1", "192.168.0.1", "169.254.169.254"]),
        ("fd00::1", ["fdff::1"], ["10.0.0.1", "::1", "fd00:ec2::254"]),
        ("8.8.8.8", [], ["127.0.0.1", "10.0.0.1"]),
        ("169.254.1.1", [], ["169.254.1.2", "10.0.0.1"]),
        ("", [], ["127.0.0.1", "10.0.0.1"]),
    ],
)
def test_a_server_may_lead_into_its_own_block(sender: str, admitted: list[str], refused: list[str]) -> None:
    rule = PUBLIC.around(sender)
    assert [address for address in [*admitted, "8.8.8.8"] if rule.refusal(address)] == []
    assert [address for address in refused if not rule.refusal(address)] == []


def test_sources_of_a_coordinator_may_be_private_and_loopback_only_beside_it() -> None:
    far, near = PUBLIC.in_cluster("10.0.0.1"), PUBLIC.in_cluster("127.0.0.1")
    for rule in (far, near):
        assert [a for a in PRIVATE if rule.refusal(a)] == []
        assert [a for a in LINK_LOCAL if not rule.refusal(a)] == []
    assert far.refusal("127.0.0.1")
    assert not near.refusal("127.0.0.1")


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("https://hub.example/x", False),
        ("http://127.0.0.1/x", True),
        ("http://[::1]:80/x", True),
        ("http://localhost./x", True),
        ("http://a.localhost:80/x", True),
        ("http://169.254.169.254/latest", True),
        ("http://hub.example:99999999/x", True),
        ("http://hub.example:0/x", True),
        ("http://hub.example:x/", True),
        ("http://[::1/", True),
        ("http:///x", True),
        ("http://Storage.Internal/x", False),
    ],
)
def test_what_a_url_shows_without_dns(url: str, refused: bool) -> None:
    assert bool(PUBLIC.url_refusal(url)) == refused


def test_hosts_are_admitted_by_name() -> None:
    rule = Egress.parse(["storage.internal", "LOCALHOST"])
    assert rule.names("Storage.internal")
    assert not rule.url_refusal("http://localhost:80/x")
    assert not (PUBLIC | rule).names("internal")


@pytest.mark.parametrize("text", ["http://a", "a b", "10.0.0.1/99", "a/b", "h\u00f6st", "a:80", ""])
def test_other_entries_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="neither a network nor a host name"):
        Egress.parse([text])


RULES = (
    PUBLIC,
    PUBLIC.in_cluster("10.0.0.1"),
    PUBLIC.in_cluster("127.0.0.1"),
    Egress.parse(["0.0.0.0/0", "::/0"]),
    Egress.parse(["10.1.0.0/16", "169.254.7.7", "fd00::/64"]),
)


addresses = st.sampled_from([*LOOPBACK, *LINK_LOCAL, *PRIVATE, *ADMITTED]) | st.ip_addresses().map(str)


@given(st.sampled_from(RULES), addresses)
def test_ranges_admit_no_more_than_the_rule(rule: Egress, text: str) -> None:
    address = ipaddress.ip_address(text.partition("%")[0])
    admitted = [allowed for network, allowed in rule.ranges if address in network][-1:] != [False]
    if address.version == 4:
        assert admitted == (not rule.refusal(text))
    else:  # IPv6 forms of IPv4 addresses are in no range that is admitted, unless a network of the rule names them
        assert not admitted or not rule.refusal(text)
