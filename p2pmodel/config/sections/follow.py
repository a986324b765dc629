"""Settings of follow lists: what a daemon downloads by itself, and when."""

import re
from typing import Any

from pydantic import Field, field_validator, model_validator

from p2pmodel.config.sections.section import Section
from p2pmodel.config.time_windows import TimeWindow, ZonedWindow, time_zone
from p2pmodel.core.content.names import RepoId, reference
from p2pmodel.errors import InvalidInput

ALWAYS = TimeWindow(frozenset(range(7)), 0, 24 * 60)
_PATTERN = re.compile(r"[A-Za-z0-9_*?\[\]!./-]{1,200}")
_WILDCARDS = frozenset("*?[")


class FollowSettings(Section):
    """Snapshots that a daemon downloads by itself, and keeps up to date."""

    repo: str
    """Repository, or a pattern of repositories in the coordinators' catalogs, as `Qwen/*`."""
    revision: str = "main"
    """Branch, tag, alias, range of versions such as `^1.2`, or commit; or a pattern of the names in the coordinators'
    catalogs, as `release-*`."""
    include: tuple[str, ...] = ()
    """Patterns of the files to download; empty: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of files to leave out."""
    window: str | None = None
    """Hours `[DAYS ]HH:MM-HH:MM` in which it is downloaded, as `22:00-06:00`; None: at all times."""
    zone: str | None = None
    """Time zone of `window`, as `Asia/Shanghai`; None: that of this machine."""
    interval: float = Field(default=900.0, ge=30, le=7 * 86400)
    """Seconds from one look at the coordinators or mirrors for a new commit to the next, within the window."""
    priority: int = Field(default=-10, ge=-100, le=100)
    """Queue priority of its transfers; those of clients have 0."""

    @property
    def is_pattern(self) -> bool:
        """Whether `repo` or `revision` is a pattern."""
        return bool(_WILDCARDS.intersection(self.repo + self.revision))

    @property
    def name(self) -> str:
        """`repo` and `revision`, as other texts write them."""
        return f"{self.repo}@{self.revision}"

    @property
    def hours(self) -> ZonedWindow:
        """When it is downloaded."""
        window = TimeWindow.parse(self.window) if self.window else ALWAYS
        return ZonedWindow(window, time_zone(self.zone) if self.zone else None)

    @field_validator("repo")
    @classmethod
    def _check_repo(cls, value: str) -> str:
        try:
            return value if _is_pattern(value) else str(RepoId(value))
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("window", "zone")
    @classmethod
    def _check_time(cls, value: str | None, info: Any) -> str | None:
        try:
            if value is not None:
                (TimeWindow.parse if info.field_name == "window" else time_zone)(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return value

    @model_validator(mode="after")
    def _check_revision(self) -> "FollowSettings":
        try:
            if not _is_pattern(self.revision):
                reference(RepoId("any"), self.revision)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        if self.zone is not None and self.window is None:
            raise ValueError("zone is the time zone of window, which is missing")
        return self


def _is_pattern(text: str) -> bool:
    """Whether it has wildcards. Raises InvalidInput for what is no pattern."""
    if not _WILDCARDS.intersection(text):
        return False
    if not _PATTERN.fullmatch(text):
        raise InvalidInput(f"'{text[:80]}' is not a pattern", hint="use *, ? and [...]")
    return True
