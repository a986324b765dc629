"""In which order waiting peers get leases. Pure."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

from p2pmodel.coordinator.leases.peer import LeasePeer

NamedPeer = tuple[str, LeasePeer]


def by_leases(peers: Iterable[NamedPeer]) -> Iterator[NamedPeer]:
    """Those with the fewest leases first, then in the order of `peers`. Lazy: most grants end with the first few."""
    others: dict[int, list[NamedPeer]] = {}
    for name, peer in peers:
        if peer.leased:
            others.setdefault(len(peer.leased), []).append((name, peer))
        else:
            yield name, peer
    for count in sorted(others):
        yield from others[count]


def by_address(peers: Iterable[NamedPeer], leases_at: Callable[[str], int]) -> Iterator[NamedPeer]:
    """Those without a lapsed lease first, then those of the address with the fewest leases, then by their own leases,
    then in the order of `peers`. A peer that has got a lease, and waits for another, comes again.

    So an address with many peers gets no more than one with a few, as long as both wait.
    """
    number = itertools.count()

    def entry(name: str, peer: LeasePeer) -> tuple[int, int, int, int, str, LeasePeer]:
        return peer.record.lapses, leases_at(peer.address), len(peer.leased), next(number), name, peer

    heap = [entry(name, peer) for name, peer in peers]
    heapq.heapify(heap)
    while heap:
        _, counted, held, _, name, peer = first = heapq.heappop(heap)
        if leases_at(peer.address) > counted:  # others of its address have got some meanwhile
            heapq.heappush(heap, (first[0], leases_at(peer.address), *first[2:]))
            continue
        yield name, peer
        if len(peer.leased) > held and peer.waits:
            heapq.heappush(heap, entry(name, peer))
