"""What a server records of its clients: each client and file once in a while, however many requests it sends for it."""

import time
from collections.abc import Callable

from cachetools import TTLCache

from p2pmodel.core.network.rights import Right
from p2pmodel.trust.audit.audit_log import AuditLog

AGAIN_AFTER = 300.0
"""Seconds after which a client that still reads the same file is recorded again: clients request a file in parts."""
_MOST = 50_000


class AuditTrail:
    """Records into `log`."""

    def __init__(self, log: AuditLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._recent: TTLCache[tuple[str, ...], None] = TTLCache(_MOST, AGAIN_AFTER, timer=clock)

    def record(
        self, right: Right, client: str, what: str, repo: str, commit: str, *, path: str = "", digest: str = ""
    ) -> None:
        """Record that the client at the address `client` gets something of a snapshot. Raises LocalResource if that
        cannot be done.

        `what`: `file`, `torrent`, `lease`, `announce`, `publish`, `alias`. `path` is that of the file, or the alias.
        `digest` is the hub's hash of the file, or the torrent's info-hash. Each move of an alias is recorded, and of
        everything else the first in a while.
        """
        key = (right.subject, client, what, repo, commit, path, digest)
        if key in self._recent and what != "alias":
            return
        entry = {"subject": right.subject, "right": right.reason, "client": client, "what": what}
        self._log.record(entry | {"repo": repo, "commit": commit, "path": path, "digest": digest})
        self._recent[key] = None
