"""The addresses of the machine's interfaces, as other machines may reach them."""

import ipaddress
import socket

from p2pmodel.core.network.interfaces import host_addresses


def test_each_is_an_address_of_this_machine_that_others_may_reach() -> None:
    found = host_addresses()
    assert len(found) == len(set(found))
    for text in found:
        address = ipaddress.ip_address(text)
        assert not any((address.is_loopback, address.is_link_local, address.is_unspecified))
        with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((text, 0))


def test_it_is_among_them_where_a_default_route_leads() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:  # no route: nothing to compare
            return
        assert probe.getsockname()[0] in host_addresses()
