"""A hub client's request that is forwarded to the mirrors."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from p2pmodel.origin.relay.hub_paths import HubPath

_RANGE = ("Range", "If-Range")


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """`query`: as on the wire, with its `?`. `headers`: those for the mirrors, without tokens."""

    method: str
    path: HubPath
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    own: bool = False
    """Whether the request carries the mirrors' own tokens."""
    token: str | None = field(default=None, repr=False)
    """The client's token."""
    within: float = 8.0
    """Seconds for the first response of a mirror: hub clients wait 10."""

    def whole(self) -> Self:
        """The same request for the whole file."""
        return replace(self, headers={name: value for name, value in self.headers.items() if name not in _RANGE})

    def part(self, start: int, end: int) -> Self:
        """The same request for the bytes from `start` to `end` (exclusive)."""
        return replace(self, headers={**self.whole().headers, "Range": f"bytes={start}-{end - 1}"})
