"""The address filters of a libtorrent session."""

from collections.abc import Iterable

import libtorrent as lt

from p2pmodel.core.network.egress import Egress

_BLOCKED = 1


def admitting(addresses: Iterable[str]) -> lt.ip_filter:
    """A filter of all addresses but `addresses`."""
    found = lt.ip_filter()
    found.add_rule("0.0.0.0", "255.255.255.255", _BLOCKED)  # noqa: S104 - a range of peers, nothing is bound
    found.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", _BLOCKED)
    for address in addresses:
        found.add_rule(address, address, 0)
    return found


def of_web_seeds(rules: Iterable[Egress]) -> lt.ip_filter:
    """A filter of all addresses that one of `rules` refuses."""
    found, each = lt.ip_filter(), list(rules)
    for rule in each:
        shared = Egress(rule.networks.intersection(*(other.networks for other in each)))
        for network, admitted in shared.ranges:
            found.add_rule(str(network[0]), str(network[-1]), 0 if admitted else _BLOCKED)
    return found
