"""What requests make of a transfer's record, and which of its files are wanted now. Pure.

What clients ask for is wanted at all times. What only follow lists ask for (`prefetch`) is wanted while their windows
are open, and counts as asked for once it is complete.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from p2pmodel.core.content.manifest import Selection
from p2pmodel.core.content.names import Reference
from p2pmodel.node.fetch.request import FOR_EVER, FetchRequest
from p2pmodel.store.state.transfer_records import TransferRecord

T = TypeVar("T")

Windows = Mapping[Selection, bool]
"""By selection of the follow lists that have a snapshot, whether the window of one of them is open."""


@dataclass(frozen=True, slots=True)
class TransferDemand:
    """What one request asks of a transfer. `prefetch`: a follow list asks, not a client."""

    selection: Selection
    revisions: tuple[str, ...] = ()
    peers: tuple[tuple[str, int], ...] = ()
    priority: int | None = None
    prefetch: bool = False


def widened(before: TransferRecord, demand: TransferDemand) -> TransferRecord:
    """The record with `demand`. A client ends a pause; a follow list leaves it, and the priority of a client."""
    after = replace(
        before, revisions=_joined(before.revisions, demand.revisions), peers=_joined(before.peers, demand.peers)
    )
    priority = demand.priority if demand.priority is not None else 0
    if demand.prefetch:
        known = Selection() in before.selections or demand.selection in before.selections
        after = replace(after, prefetch=before.prefetch if known else _joined(before.prefetch, (demand.selection,)))
        return after if before.selections else replace(after, priority=priority)
    if before.selections and demand.priority is None:
        priority = before.priority
    return _asked(replace(after, priority=priority, paused=False), (demand.selection,))


def resumed(before: TransferRecord) -> TransferRecord:
    """The record after `resume`: a pause ends; what waits for a window, and not for the end of a pause, is wanted."""
    return replace(before, paused=False) if before.paused else _asked(before, before.prefetch)


def completed(before: TransferRecord, fetched: Collection[Selection]) -> TransferRecord:
    """The record once the files of the selections `fetched` are complete."""
    return replace(_asked(before, [each for each in before.prefetch if each in fetched]), complete=True)


def wanted(record: TransferRecord, windows: Windows) -> tuple[Selection, ...]:
    """The selections that are wanted now."""
    return (*record.selections, *(each for each in record.prefetch if windows.get(each)))


def waits(record: TransferRecord, windows: Windows) -> bool:
    """Whether a selection waits for a window. One that no list has any more does not."""
    return any(windows.get(each) is False for each in record.prefetch)


def request_of(record: TransferRecord, selections: Sequence[Selection]) -> FetchRequest:
    """The fetch of `selections`, at least one, which has no end."""
    first, *also = selections
    return FetchRequest(
        Reference(record.repo, record.commit),
        include=first.include,
        exclude=first.exclude,
        also=tuple(also),
        peers=record.peers,
        seed_seconds=FOR_EVER,
    )


def _asked(record: TransferRecord, more: Iterable[Selection]) -> TransferRecord:
    """The record once `more` are asked for at all times."""
    has_all = Selection() in record.selections
    selections = record.selections if has_all else _joined(record.selections, more)
    left = () if Selection() in selections else tuple(each for each in record.prefetch if each not in selections)
    return replace(record, selections=selections, prefetch=left)


def _joined(before: tuple[T, ...], more: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys((*before, *more)))
