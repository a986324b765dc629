"""Faults that a fake hub can be configured to have.

Written `KIND[:ARG][@PATTERN][+BYTES][*TIMES]`: on files that match PATTERN (fnmatch; default all), once the hub has
sent BYTES payload bytes of such files, at most TIMES times. Kinds:

    flip            the first byte of every body is wrong
    truncate        the file is shown as one byte shorter than it is, consistently
    html            200 with an HTML page
    gzip            the body is gzip, although the request did not accept it
    other-commit    X-Repo-Commit names another commit
    norange         ranges are answered with the whole file
    badrange        another range than asked for
    503:SECONDS     503 without Retry-After for SECONDS from the first such answer (429, 500, ... alike)
    retry:SECONDS   429 with Retry-After for SECONDS from the first such answer (`retry-date`: as an HTTP date,
                    `rate-limit`: as a RateLimit header)
    status:CODE     that status, always (401, 403, 404, 416, ...); `gated`: 403 with X-Error-Code GatedRepo
    redirect        302 to a presigned address that never expires
    loop            302 to itself
    expire:SECONDS  302 to a presigned address that answers 403 after SECONDS
    drop:BYTES      the connection is reset after BYTES of each body
    stall:BYTES     nothing more comes after BYTES of each body (default 0: not even headers)
    slow:RATE       RATE bytes a second on each connection
"""

import fnmatch
import re
from dataclasses import dataclass, field

_FORM = re.compile(
    r"(?P<kind>[a-z0-9-]+)(?::(?P<arg>[0-9.]+))?(?:@(?P<pattern>[^+]+?))?(?:\+(?P<after>\d+))?(?:\*(?P<times>\d+))?"
)
KINDS = {"flip", "truncate", "html", "gzip", "other-commit", "norange", "badrange", "retry", "retry-date", "status"}
KINDS |= {"gated", "rate-limit", "loop", "redirect", "expire", "drop", "stall", "slow"}


@dataclass
class Fault:
    """One fault; `hits` counts how often it struck."""

    kind: str
    arg: float = 0.0
    pattern: str = "*"
    after: int = 0
    times: int | None = None
    hits: int = 0
    since: float | None = field(default=None)
    """When it first struck, for faults that last."""

    def strikes(self, path: str, sent: int, now: float) -> bool:
        """Whether it strikes a request for `path` now that `sent` bytes of matching files are out; counts it."""
        if not fnmatch.fnmatchcase(path, self.pattern) or sent < self.after:
            return False
        if self.times is not None and self.hits >= self.times:
            return False
        if self.since is None:
            self.since = now
        if self.lasting and now - self.since >= self.arg:
            return False
        self.hits += 1
        return True

    @property
    def lasting(self) -> bool:
        """Whether `arg` is how long it lasts."""
        return self.kind in ("retry", "retry-date", "rate-limit") or (self.kind.isdigit() and self.arg > 0)


def parse_fault(text: str) -> Fault:
    """Parse the written form. ValueError for anything else."""
    match = _FORM.fullmatch(text)
    if match is None or not (match["kind"] in KINDS or match["kind"].isdigit()):
        raise ValueError(f"not a fault: {text}")
    return Fault(
        match["kind"],
        float(match["arg"] or 0),
        match["pattern"] or "*",
        int(match["after"] or 0),
        int(match["times"]) if match["times"] else None,
    )
