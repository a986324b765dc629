"""Settings of a daemon: its cache, the clients of its control API, and what it downloads by itself, and when."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from p2pmodel.config.checks import check_url
from p2pmodel.config.sections.section import ByteCount, Section, split_list
from p2pmodel.config.time_windows import Schedule, TimeWindow, ZonedWindow, time_zone
from p2pmodel.core.content.names import RepoId, reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import InvalidInput

OFF = "off"
"""The value of an address setting that turns its listener off."""


class StoreSettings(Section):
    """The cache. Long-lived processes read its files again and compare them with their hashes."""

    scrub_rate: ByteCount = Field(default=20_000_000, ge=0)
    """Rate at which files are read again, bytes/s or as in `20MB`; 0: never."""
    scrub_interval: float = Field(default=7.0, ge=0)
    """Days from the end of one pass over all files to the begin of the next; 0: never."""
    budget: ByteCount | None = Field(default=None, ge=1)
    """Most bytes that the cache takes on its disk, as in `2TB`: above it the daemon and `cache prune` remove snapshots,
    those used longest ago first. None: no limit."""
    low_mark: float = Field(default=0.9, gt=0, le=1)
    """Share of `budget` down to which snapshots are removed once the cache is above it."""
    unused_days: float = Field(default=0.0, ge=0)
    """Days without use after which a snapshot is removed, whatever the budget; 0: never."""


class DaemonSettings(Section):
    """The daemon of a node."""

    socket: Path | None = None
    """Unix socket of the control API; None: `p2pmodel.sock` in XDG_RUNTIME_DIR, else in `state_dir`."""
    socket_group: str | None = None
    """Group (name or number) with full access to the socket, besides this process's user and root. Its folder must be
    open to the group."""
    max_active: int = Field(default=3, ge=1, le=100)
    """Number of transfers that download at a time; further ones wait. Complete transfers keep serving."""
    serve_cached: bool = True
    """Serve the whole snapshots that are in the cache when the daemon starts, if there are coordinators."""
    hub_listen: str | None = None
    """Address of the hub endpoint, ADDRESS:PORT or `off`; None: 127.0.0.1:8092, unless that is in use."""
    upload_schedule: Annotated[tuple[str, ...], NoDecode] = ()
    """Windows `[DAYS ]HH:MM-HH:MM=RATE`, local time; the first that applies replaces `swarm.upload_limit`."""
    download_schedule: Annotated[tuple[str, ...], NoDecode] = ()
    """The same for `swarm.download_limit`. In an environment variable windows are separated by `;`."""

    @field_validator("hub_listen")
    @classmethod
    def _check_hub_listen(cls, value: str | None) -> str | None:
        try:
            return value if value in (None, OFF) else str(ListenAddress.parse(str(value)))
        except InvalidInput as error:
            raise ValueError(str(error)) from None

    @field_validator("upload_schedule", "download_schedule", mode="before")
    @classmethod
    def _split_schedule(cls, value: Any) -> Any:
        return split_list(value, ";")

    @field_validator("upload_schedule", "download_schedule")
    @classmethod
    def _check_schedule(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            Schedule.parse(value)
        except InvalidInput as error:
            raise ValueError(str(error)) from None
        return value


class ClientSettings(Section):
    """The daemon that commands talk to, if not the one of this machine."""

    server: str | None = None
    """URL of a daemon's control API; None: the unix socket."""
    ca_file: Path | None = None
    """PEM file of certificate authorities trusted for that daemon, besides the system's."""
    token_file: Path | None = None
    """File with the daemon's token, mode 0600."""
    certificate: Path | None = None
    """PEM file with a client certificate."""
    key: Path | None = None
    """PEM file with the private key of `certificate`."""

    @field_validator("server")
    @classmethod
    def _check_server(cls, value: str | None) -> str | None:
        return None if value is None else check_url(value, instead="set client.token_file")


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
    """Whether it has wildcards. Raises InvalidInput for text that is not a pattern."""
    if not _WILDCARDS.intersection(text):
        return False
    if not _PATTERN.fullmatch(text):
        raise InvalidInput(f"'{text[:80]}' is not a pattern", hint="use *, ? and [...]")
    return True
