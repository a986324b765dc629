"""A hub's answers about a snapshot: the model's information, and its files page by page. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from multidict import CIMultiDictProxy
from yarl import URL

from p2pmodel.core.content.manifest import ManifestFile, lfs_pointer_oid
from p2pmodel.core.content.names import RepoId, printable
from p2pmodel.errors import IntegrityError, InvalidInput, Unavailable
from p2pmodel.origin.failures import Refused

MAX_CUT = 1000
"""Hubs list at most this many files in a model's information."""

_NEXT = re.compile(r'<([^<>]{1,8190})>\s*;\s*rel="?next"?')
_API = "/api/"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model at one commit. `paths` may be cut; `files` has the files that came with size and hash."""

    commit: str
    private: bool
    name: str
    """The repository's id at the hub, which may be another spelling or a newer name; "" if it gives none."""
    paths: frozenset[str]
    files: tuple[ManifestFile, ...]

    @property
    def complete(self) -> bool:
        """Whether `files` are all of the snapshot, as far as this information shows."""
        return len(self.paths) == len(self.files) < MAX_CUT


@dataclass(frozen=True, slots=True)
class TreePage:
    """One page of a listing. `paths` are those of files and folders."""

    paths: frozenset[str]
    files: tuple[ManifestFile, ...]


def model_info(plain: object) -> ModelInfo:
    """Parse the answer to /api/models/{repo}/revision/{revision}. Raises TypeError, KeyError or IntegrityError."""
    info = _table(plain)
    siblings = [_table(each) for each in _list(info.get("siblings") or [])]
    paths = frozenset(_text(each["rfilename"]) for each in siblings)
    sized = [each for each in siblings if each.get("size") is not None]
    files = tuple(_file(_text(e["rfilename"]), e["size"], e.get("blobId"), _sha256(e, "sha256")) for e in sized)
    name = info.get("id")
    private = bool(info.get("private") or info.get("gated"))
    return ModelInfo(_text(info["sha"]), private, name if isinstance(name, str) else "", paths, files)


def tree_page(plain: object) -> TreePage:
    """Parse one page of /api/models/{repo}/tree/{commit}. Raises as `model_info`."""
    entries = [_table(each) for each in _list(plain)]
    files = [entry for entry in entries if entry.get("type", "file") == "file"]
    return TreePage(
        frozenset(_text(entry["path"]) for entry in entries),
        tuple(_file(_text(e["path"]), e.get("size"), e.get("oid"), _sha256(e, "oid")) for e in files),
    )


def canonical(asked: RepoId, name: str, page: URL) -> RepoId:
    """The id under which the hub knows the repository `asked`; its information, at `page`, has the id `name`.

    Another spelling is taken as it is. Another name is only one if a redirect has led to it: a mirror may serve a copy
    under an id of its own.
    """
    try:
        known = RepoId.of_kind(asked.kind, name)
    except InvalidInput:
        return asked
    led_to = page.path.lower().partition(f"{_API}{asked.kind}/")[2].partition("/revision/")[0]
    return known if known.is_spelling_of(asked) or led_to == known.name.lower() else asked


def following(headers: CIMultiDictProxy[str], page: URL) -> str | None:
    """Path and query of the next page of a listing, below the mirror's endpoint; None on the last one.

    A mirror passes on the Link of the hub behind it, with that hub's host and prefix: the next page is the mirror's own
    all the same, so its token goes to no other host. Raises Refused.
    """
    link = _NEXT.search(", ".join(headers.getall("Link", ())))
    if link is None:
        return None
    try:
        path = page.join(URL(link[1], encoded=True)).raw_path_qs
    except ValueError:
        path = ""
    _, separator, rest = path.partition(_API)
    if not separator or not path.isascii() or not path.isprintable() or " " in path:
        raise Refused("its listing continues at an unusable address", Unavailable)
    return separator + rest


def _file(path: str, size: Any, oid: Any, sha256: str | None) -> ManifestFile:
    if type(size) is not int:
        raise IntegrityError(f"it gives no size of {printable(path)}")
    found = oid if isinstance(oid, str) else ""
    return ManifestFile(path, size, found or (lfs_pointer_oid(sha256, size) if sha256 else ""), sha256)


def _sha256(entry: Mapping[str, Any], key: str) -> str | None:
    lfs = entry.get("lfs")
    return _text(_table(lfs)[key]) if lfs else None


def _table(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("expected an object")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("expected text")
    return value
