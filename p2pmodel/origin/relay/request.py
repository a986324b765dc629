"""A request of a hub client, to be handed on to the mirrors."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from p2pmodel.origin.relay.hub_paths import HubPath

_RANGE = ("Range", "If-Range")


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """`query` as on the wire, with its `?`. `headers` are those that mirrors shall see, tokens not among them."""

    method: str
    path: HubPath
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    own: bool = False
    """Whether the mirrors' own tokens go with it."""
    token: str | None = field(default=None, repr=False)
    """The client's own."""
    within: float = 8.0
    """Seconds in which some mirror must have answered: hub clients wait 10."""

    def whole(self) -> Self:
        """The same for all of the file."""
        return replace(self, headers={name: value for name, value in self.headers.items() if name not in _RANGE})

    def part(self, start: int, end: int) -> Self:
        """The same for the bytes from `start` to `end` (exclusive)."""
        return replace(self, headers={**self.whole().headers, "Range": f"bytes={start}-{end - 1}"})
