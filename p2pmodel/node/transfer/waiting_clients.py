"""The transfers that clients of the hub endpoint wait for: they go before those that no client waits for."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from p2pmodel.core.progress.views import Candidate


class WaitingClients:
    """Counts waiting clients by transfer; `changed` is called when a transfer gets its first or loses its last one."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._clients: Counter[str] = Counter()

    @contextmanager
    def waiting(self, ident: str) -> Iterator[None]:
        """A client waits for a file of the transfer `ident`, which may not exist yet, while the context lasts."""
        self._clients[ident] += 1
        if self._clients[ident] == 1:
            self._changed()
        try:
            yield
        finally:
            self._clients[ident] -= 1
            if not self._clients[ident]:
                del self._clients[ident]
                self._changed()

    def seen(self, candidate: Candidate) -> Candidate:
        """`candidate`, and whether a client waits for it."""
        return replace(candidate, awaited=candidate.id in self._clients)
