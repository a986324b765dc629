"""What is connected with what."""

from collections.abc import Iterable, Mapping


def components(links: Mapping[bytes, Iterable[bytes]]) -> list[set[bytes]]:
    """The parts of a graph that hold together, each link counting both ways."""
    both: dict[bytes, set[bytes]] = {member: set() for member in links}
    for member, others in links.items():
        for other in others:
            both[member].add(other)
            both[other].add(member)
    found = []
    left = set(both)
    while left:
        edge = {left.pop()}
        part = set(edge)
        while edge:
            edge = {other for member in edge for other in both[member]} - part
            part |= edge
        left -= part
        found.append(part)
    return found
