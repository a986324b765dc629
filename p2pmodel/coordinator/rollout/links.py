"""The rates of the links of a node, each with where it is known from. Pure.

Limits and interfaces are what a link does not exceed, so a time that follows from them is a lower bound. Rates that
were reached in a transfer are not among them: the link may be faster, and the bound would flatter. A sample of the
mirrors is the exception, for want of a better figure, and is named as such.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

RateSource = Literal["declared", "link", "measured"]
"""`declared`: a limit in the settings; `link`: the network interface reports it; `measured`: a sample before the
roll-out."""

RATE_SOURCES: tuple[RateSource, ...] = get_args(RateSource)


@dataclass(frozen=True, slots=True)
class LinkRate:
    """Bytes a second, and where they are known from."""

    rate: int
    source: RateSource


@dataclass(frozen=True, slots=True)
class NodeLinks:
    """The known links of a node: into it, out of it, and from the mirrors to it. None: not known. `mirroring`: a
    seeder there mirrors the snapshot for the others."""

    down: LinkRate | None = None
    up: LinkRate | None = None
    mirrors: LinkRate | None = None
    mirroring: bool = False

    def updated(self, later: "NodeLinks") -> "NodeLinks":
        """With what a later report knows."""
        return NodeLinks(
            later.down or self.down,
            later.up or self.up,
            later.mirrors or self.mirrors,
            later.mirroring or self.mirroring,
        )


NO_LINKS = NodeLinks()


def narrowest(*rates: LinkRate | None) -> LinkRate | None:
    """The least of the rates that are known and not zero."""
    return min((each for each in rates if each and each.rate > 0), key=lambda each: each.rate, default=None)


def together(rates: Iterable[LinkRate | None]) -> LinkRate | None:
    """The sum of rates; None if one is not known, or there is none. Its source is the least certain one of theirs."""
    found = list(rates)
    known = [each for each in found if each is not None]
    if not known or len(known) < len(found):
        return None
    return LinkRate(sum(each.rate for each in known), max((each.source for each in known), key=RATE_SOURCES.index))


def host_links(link: float | None, upload_limit: int, download_limit: int) -> NodeLinks:
    """The links of a host with an interface of `link` bytes/s (None: it reports none), and these limits (0: none)."""
    card = LinkRate(int(link), "link") if link else None
    down, up = (LinkRate(limit, "declared") if limit else None for limit in (download_limit, upload_limit))
    return NodeLinks(down=narrowest(card, down), up=narrowest(card, up))
