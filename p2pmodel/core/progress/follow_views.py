"""Follow lists as the control API shows them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FollowedSnapshot:
    """A snapshot that a follow list has. `transfer`: its id; `state` of it: that of a transfer, or `none` where there
    is none. `complete`: all files that the list asks for are here and verified. Of the `total` bytes of the transfer
    `done` are verified."""

    repo: str
    revision: str
    commit: str
    transfer: str
    state: str
    complete: bool = False
    done: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class FollowView:
    """One follow list. `window` and `zone` are as configured, "" for all times and this machine's zone; `is_open` now,
    which `changes` then. `checked`: the last look at its commits that succeeded; `next_check`: the next one, if the
    window is open then. `error`: why the last look failed, or its transfers. Times are in seconds since 1970."""

    repo: str
    revision: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    window: str
    zone: str
    is_open: bool
    changes: float | None
    snapshots: tuple[FollowedSnapshot, ...] = ()
    checked: float | None = None
    next_check: float | None = None
    error: str = ""
