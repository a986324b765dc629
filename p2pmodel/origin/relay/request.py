"""A hub client's request that is forwarded to the mirrors: which paths are, and with which token. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self
from urllib.parse import unquote

from p2pmodel.core.content.names import RepoId
from p2pmodel.errors import InvalidInput, NotFound

OTHER_KINDS = ("datasets", "spaces", "kernels")
"""Kinds of repositories other than models."""

# Account pages below a one-segment repository are not the second segment of its name.
_REPO = r"[^/]+(?:/(?!(?:jwt|settings|discussions|user-access-request)(?:/|$))[^/]+)?"
_KIND = "|".join(OTHER_KINDS)
_LISTING = re.compile(
    rf"/api/(?P<kind>models|{_KIND})/(?P<repo>{_REPO})(?:/(?:revision|tree|refs|paths-info|commits)(?:/.*)?)?"
)
_FILE = re.compile(
    rf"/(?P<repo>(?:(?:{_KIND})/)?{_REPO})/(?:resolve|raw)/(?P<revision>refs/[^/]+/[^/]+|[^/]+)/(?P<path>.+)"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BELOW_A_NAME = frozenset(
    ("resolve", "raw", "revision", "tree", "refs", "paths-info", "commits", "blob", "jwt", "settings", "discussions",
     "user-access-request", "compare", "treesize", "parquet")
)  # fmt: skip
"""Segments that follow the name of a repository, and are not the second part of it."""
_XET = re.compile(r"/xet-(?:read|write)-token(?:/|$)")


class HubPath:
    """The path of a request, `raw` as on the wire. Raises InvalidInput for a path with `..`, and NotFound for the
    hub's chunk store, which is not supported."""

    def __init__(self, raw: str) -> None:
        path = unquote(raw)
        if any(part in (".", "..") for part in path.split("/")) or "\\" in path:
            raise InvalidInput("the path contains '..'")
        if _XET.search(path):
            raise NotFound("this endpoint has no chunk store", hint="leave hf_xet out, or set HF_HUB_DISABLE_XET=1")
        self.raw = raw
        self._path = path
        self._file = _FILE.fullmatch(path) if not path.startswith("/api/") else None
        self._listing = _LISTING.fullmatch(path)

    @property
    def is_file(self) -> bool:
        """Whether it is the address of a file's content."""
        return self._file is not None

    @property
    def file(self) -> str | None:
        """The path of the file; None if it is not about one."""
        return self._file["path"] if self._file else None

    @property
    def is_content(self) -> bool:
        """Whether it reads a repository's content or listing, and no account data."""
        return self.is_file or self._listing is not None

    @property
    def repo(self) -> RepoId | None:
        """The repository of the content or listing that it reads; None for other paths and kinds."""
        try:
            if self._file:
                return RepoId(self._file["repo"])
            return RepoId.of_kind(self._listing["kind"], self._listing["repo"]) if self._listing else None
        except InvalidInput:
            return None

    @property
    def is_page(self) -> bool:
        """Whether its content may be HTML."""
        return self.is_file and self._path.lower().endswith((".html", ".htm"))

    @property
    def repo_named(self) -> str | None:
        """The repository that it is about, whatever is asked of it, as rules name it: `org/name`, `datasets/org/name`.
        None if there is none."""
        parts = [part for part in self._path.split("/") if part]
        api = parts[:1] == ["api"]
        parts = parts[1:] if api else parts
        kind = parts[0] if parts and parts[0] in (*OTHER_KINDS, "models") else ""
        name = parts[1:3] if kind else [] if api else parts[:2]
        if len(name) > 1 and name[1] in _BELOW_A_NAME:
            name = name[:1]
        if not name:
            return None
        return "/".join(name if kind in ("", "models") else (kind, *name))

    @property
    def commit(self) -> str | None:
        """The commit in a file's address; None for another revision or path."""
        revision = self._file["revision"] if self._file else ""
        return revision if _COMMIT.fullmatch(revision) else None


_RANGE = ("Range", "If-Range")


@dataclass(frozen=True, slots=True)
class RelayRequest:
    """`query`: as on the wire, with its `?`. `headers`: those for the mirrors, without tokens."""

    method: str
    path: HubPath
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    own: bool = False
    """Whether the request carries the mirrors' own tokens."""
    token: str | None = field(default=None, repr=False)
    """The client's token."""
    within: float = 8.0
    """Seconds for the first response of a mirror: hub clients wait 10."""

    def whole(self) -> Self:
        """The same request for the whole file."""
        return replace(self, headers={name: value for name, value in self.headers.items() if name not in _RANGE})

    def part(self, start: int, end: int) -> Self:
        """The same request for the bytes from `start` to `end` (exclusive)."""
        return replace(self, headers={**self.whole().headers, "Range": f"bytes={start}-{end - 1}"})
