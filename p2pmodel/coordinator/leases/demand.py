"""What a peer demands of its coordinator, and what the coordinator grants."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """A piece that failed its check, and the IP address of the peer that sent it."""

    piece: int
    peer: str


@dataclass(frozen=True, slots=True)
class Demand:
    """A peer's state. `scarce`: pieces that neither it nor any peer it is connected to has.

    `from_seeders`: it downloads leased pieces from a seeder, else from a mirror. `want` is how many leases it would
    hold at a time (0: it cannot download now, and returns its leases). `origin_bytes` is what it has downloaded from
    mirrors so far.
    """

    scarce: int
    from_seeders: bool
    want: int = 1
    origin_bytes: int = 0
    leased: int = 0
    """Leases it holds in its own view: adopted by a coordinator that has no record of the peer."""
    complaints: tuple[Complaint, ...] = ()
    """The last pieces that failed their check."""
    cut_off: bool = False
    """Whether it gets nothing from its peers and downloads from mirrors without leases. For display only."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A coordinator's grant to a peer: the pieces that this peer may download.

    `peers` is how many peers are served in all, `origin_bytes` what these have downloaded from mirrors. `refused`: the
    budget for mirrors is used up.
    """

    pieces: tuple[int, ...] = ()
    peers: int = 1
    origin_bytes: int = 0
    refused: bool = False
