"""What a server records of its clients: what they get, and what is refused to them.

Each client and file is recorded once in a while, however many requests it sends for it.
"""

import time
from collections.abc import Callable

from cachetools import TTLCache

from p2pmodel.core.content.names import printable
from p2pmodel.core.network.addresses import neighbourhood
from p2pmodel.core.network.rights import OPEN, Right
from p2pmodel.trust.audit.audit_log import AuditLog

AGAIN_AFTER = 300.0
"""Seconds after which a client that still reads the same file is recorded again: clients request a file in parts."""
_MOST = 50_000
MOST_REFUSALS = 100
"""Repositories for which refusals of one client are recorded in that time: a client may name as many as it likes."""
_LONGEST_NAME = 200
REFUSED = "refused"
"""What a line about a refusal says in `what`."""


class AuditTrail:
    """Records into `log`."""

    def __init__(self, log: AuditLog, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._recent: TTLCache[tuple[str, ...], None] = TTLCache(_MOST, AGAIN_AFTER, timer=clock)
        self._refused: TTLCache[tuple[str, str], int] = TTLCache(_MOST, AGAIN_AFTER, timer=clock)

    def record(
        self, right: Right, client: str, what: str, repo: str, commit: str, *, path: str = "", digest: str = ""
    ) -> None:
        """Record that the client at the address `client` gets something of a snapshot. Raises LocalResource if that
        cannot be done.

        `what`: `file`, `torrent`, `lease`, `announce`, `publish`, `alias`, or `answer` of a served model. `path` is
        that of the file, or the alias.
        `digest` is the hub's hash of the file, or the torrent's info-hash. Each move of an alias is recorded, and of
        everything else the first in a while.
        """
        key = (right.subject, client, what, repo, commit, path, digest)
        if key in self._recent and what != "alias":
            return
        entry = {"subject": right.subject, "right": right.reason, "client": client, "what": what}
        self._log.record(entry | {"repo": repo, "commit": commit, "path": path, "digest": digest})
        self._recent[key] = None

    def refuse(self, subject: str, reason: str, client: str, verb: str, repo: str) -> None:
        """Record that a client was refused `verb` for `repo` ("": for none in particular). Raises as `record`.

        Clients without a credential are not recorded: they are as many as there are addresses.
        """
        repo = printable(repo, _LONGEST_NAME)
        key, source = (subject, client, REFUSED, verb, repo), (subject, neighbourhood(client))
        if subject == OPEN.subject or key in self._recent or self._refused.get(source, 0) >= MOST_REFUSALS:
            return
        entry = {"subject": subject, "right": reason, "client": client, "what": REFUSED}
        self._log.record(entry | {"repo": repo, "commit": "", "path": "", "digest": "", "verb": verb})
        self._recent[key] = None
        self._refused[source] = self._refused.get(source, 0) + 1
