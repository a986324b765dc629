"""The order in which transformers takes the tensors, made equal to the order in which they arrive. Pure.

transformers takes tensors sorted by their names, with numbers by value, and one at a time where it converts them. So a
tensor that is early in that order and arrives last leaves all the work until then. Numbered names put the order into
our hands: `NUMBERED` is the `key_mapping` that removes the numbers again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NUMBERED = {r"^\d{8}\.": ""}
_DIGITS = 8


@dataclass(frozen=True, slots=True)
class TensorRange:
    """Where the bytes of the tensor `name` are: [start, end) of the file `shard`."""

    name: str
    shard: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.start


def begin_with(arrived: Sequence[int], first: int) -> int:
    """The number of the shard to begin with: the one of which most has `arrived`, of equal ones number `first`.

    A download in order of the files begins with the first one, and stays ahead of the load. One that is rarest first
    has more of another shard on each node.
    """
    most = [number for number, count in enumerate(arrived) if count == max(arrived)]
    return most[first % len(most)]


def file_after_file(places: Iterable[TensorRange], shards: Sequence[str], first: int) -> list[TensorRange]:
    """The tensors shard by shard, from shard number `first` on.

    Nodes that start together should begin with different shards, so that each soon has pieces that the others lack.
    """
    turn = {shard: (number - first) % len(shards) for number, shard in enumerate(shards)}
    return sorted(places, key=lambda place: (turn[place.shard], place.start))


def files_together(places: Iterable[TensorRange], sizes: Mapping[str, int], at_once: int) -> list[TensorRange]:
    """The tensors as they arrive where `at_once` shards at a time are downloaded, each from its beginning on, the
    largest first."""
    queue = sorted(sizes, key=lambda shard: -sizes[shard])
    group = {shard: number // at_once for number, shard in enumerate(queue)}
    return sorted(places, key=lambda place: (group[place.shard], place.end / sizes[place.shard], place.shard))


def numbered(names: Sequence[str]) -> dict[str, str]:
    """By name, the name with its number in this order."""
    return {name: f"{number:0{_DIGITS}d}.{name}" for number, name in enumerate(names)}


def without_number(name: str) -> str:
    """The tensor's own name."""
    return name[_DIGITS + 1 :] if name[:_DIGITS].isdigit() and name[_DIGITS : _DIGITS + 1] == "." else name
