"""The owners of the unfinished contents of one repository: one download writes the staged file of a content.

Processes exclude each other by one lock for all contents of the repository: it holds on every file system, between
machines, too (`store/process_locks`). The downloads of one process share that lock, and exclude each other by content.
"""

import threading
from collections.abc import Iterable
from pathlib import Path

from p2pmodel.errors import Unavailable
from p2pmodel.store.locks.process_locks import LockHolder, LockSearch, ProcessLock
from p2pmodel.store.private_folder import PrivateFolder


class ContentClaim:
    """The `contents`, by etag, belong to this owner until `release`. `passed_over`: a process on another machine that
    may still write to them. `lost` is set when another machine has passed over this process."""

    def __init__(self, claims: "ContentClaims", contents: frozenset[str], lock: ProcessLock | None) -> None:
        """Use `ContentClaims.claim`."""
        self.contents = contents
        self.passed_over: LockHolder | None = None
        self.lost = lock.lost if lock else None
        self._claims = claims
        self._held = True

    def release(self) -> None:
        """Let others have them."""
        held, self._held = self._held, False
        if held and self.contents:
            self._claims.released(self.contents)


class ContentClaims:
    """All claims of this process to contents below `private`. Methods do not wait for another owner."""

    def __init__(self, private: PrivateFolder) -> None:
        self._private = private
        self._mutex = threading.Lock()
        self._owned: set[str] = set()
        self._lock: ProcessLock | None = None
        self._search: LockSearch | None = None

    def claim(self, etags: Iterable[str]) -> ContentClaim | None:
        """Claim these contents, all or none; None while another owner has one of them. Raises OSError."""
        contents = frozenset(etags)
        if not contents:
            return ContentClaim(self, contents, None)
        with self._mutex:
            if self._owned & contents or (self._lock is not None and self._lock.lost.is_set()):
                return None
            passed_over = None
            if self._lock is None:
                self._lock = self._searched().take()
                if self._lock is None:
                    return None
                passed_over = self._lock.passed_over
            self._owned |= contents
            claimed = ContentClaim(self, contents, self._lock)
            claimed.passed_over = passed_over
            return claimed

    def released(self, contents: frozenset[str]) -> None:
        """These contents have no owner any more."""
        with self._mutex:
            self._owned -= contents
            if not self._owned and self._lock is not None:
                lock, self._lock = self._lock, None
                lock.release()

    def look(self) -> None:
        """Watch the holder of the lock, as `LockSearch.look`."""
        with self._mutex:
            if self._lock is None:
                self._searched().look()

    def check(self) -> None:
        """Raise Unavailable if another machine has passed over this process: it may write the staged files by now."""
        with self._mutex:
            lock = self._lock
        if lock is not None:
            lock.check()

    @property
    def path(self) -> Path:
        """The lock file."""
        return self._private.made / "locks" / "contents.lock"

    def waits_for(self) -> str:
        """The owner of contents that could not be claimed, in words."""
        if self._lock is not None or self._search is None:
            return "another download of this process"
        return self._search.waits_for()

    def busy(self, seconds: float) -> Unavailable:
        """The error after `seconds` without the claim."""
        return Unavailable(
            f"{self.waits_for()} has files of the same content for {seconds:.0f} seconds",
            hint="let it finish or stop it, then try again: it resumes",
        )

    def _searched(self) -> LockSearch:
        """The search for the lock, which knows how long the record of another machine has not changed."""
        path = self.path
        if self._search is None or self._search.path != path:
            self._search = LockSearch(path)
        return self._search
