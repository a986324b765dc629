"""What all jobs of an origin share: the mirrors, and word of each other's doings."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from p2pmodel.config.settings import OriginSettings
from p2pmodel.origin.clock import Clock
from p2pmodel.origin.download.segments import SegmentBoard
from p2pmodel.origin.mirrors.mirror import Mirror
from p2pmodel.origin.mirrors.notes import MirrorNotes
from p2pmodel.origin.requests import RangeRequests


@dataclass(frozen=True, slots=True)
class MirrorPool:
    """`boards`: of the pulls under way, each with the event that wakes its pull when a connection became free."""

    mirrors: tuple[Mirror, ...]
    requests: RangeRequests
    settings: OriginSettings
    clock: Clock
    notes: MirrorNotes
    boards: dict[SegmentBoard, asyncio.Event] = field(default_factory=dict)

    @contextmanager
    def pulling(self, board: SegmentBoard) -> Iterator[asyncio.Event]:
        """Let the others know of `board` while its bytes are pulled."""
        self.boards[board] = asyncio.Event()
        try:
            yield self.boards[board]
        finally:
            del self.boards[board]
            self.wake()

    def wake(self) -> None:
        """A connection became free."""
        for event in self.boards.values():
            event.set()

    def backlog(self) -> int:
        """Bytes that the pulls under way still want."""
        return sum(board.left for board in self.boards)

    def share(self, mirror: Mirror) -> int:
        """How many connections to `mirror` one pull may use while others have work for it, too."""
        hungry = sum(board.waiting > 0 for board in self.boards)
        return -(-mirror.settings.max_connections // max(1, hungry))

    def rates(self) -> dict[str, float | None]:
        """Bytes a second to count on, by mirror."""
        now = self.clock.now()
        return {m.name: m.rate(now) for m in self.mirrors}
