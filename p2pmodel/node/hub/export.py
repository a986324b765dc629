"""Export of snapshots in the cache as static files in the layout of a hub.

A plain web server or a bucket with these files is a mirror:

    [{kind}/]{id}/resolve/{commit}/{path}         content
    api/{kind}/{id}/tree/{commit or revision}     list of the files, with hashes
    api/{kind}/{id}/revision/{commit or revision} which commit that is
    api/{kind}/{id}/refs                          names of commits
    api/{kind}/{id}                               as revision/main; in a folder api/{kind}/{id}/index.json

What a client asks for first is written last, so no client finds a list of files that are not all there. Commits that
are there already stay.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Protocol, Self

from p2pmodel.core.content import hub_json
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import DEFAULT_REVISION, RepoId, is_commit
from p2pmodel.core.plain_json import parse_json
from p2pmodel.core.tasks import together
from p2pmodel.node.reporter import Count, Progress, Reporter, reported
from p2pmodel.node.snapshot.local import not_cached
from p2pmodel.store.cache import HubCache, RepoCache

FILES_AT_ONCE = 4

_Way = Literal["written", "copied", "kept"]


class ExportTarget(Protocol):
    """Where the files go. Its methods block."""

    info: str
    """The suffix of the name of a repository's information."""

    def opened(self) -> AbstractContextManager[None]:
        """Use it while the context lasts."""

    def check_space(self, size: int) -> None:
        """Raise NoSpace without room for `size` bytes."""

    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if there is none."""

    def holds(self, name: str, file: ManifestFile) -> bool:
        """Whether `name` is there with the content of `file`."""

    def copy(self, source: str, name: str, file: ManifestFile) -> bool:
        """Give the content of `source` the name `name`, too, without moving bytes; False if that is not possible."""

    def put_file(self, name: str, source: BinaryIO, file: ManifestFile, count: Callable[[int], None]) -> None:
        """Write `file`, verified, under its name in one step."""

    def put(self, name: str, data: bytes) -> None:
        """Replace a small file in one step."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """One exported snapshot; bytes that were `written` now, `copied` from another commit there, and there already
    (`kept`)."""

    manifest: Manifest
    revision: str
    written: int
    copied: int
    kept: int


class SnapshotExport:
    """Exports snapshots of `cache` to `target`, which `async with` opens and closes."""

    def __init__(self, cache: HubCache, target: ExportTarget, reporter: Reporter) -> None:
        self._cache = cache
        self._target = target
        self._reporter = reporter
        self._stack = ExitStack()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._stack.enter_context, self._target.opened())
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await asyncio.to_thread(self._stack.close)

    async def run(self, manifest: Manifest, revision: str) -> ExportResult:
        """Export the snapshot `manifest`, named by `revision`. Raises EntryNotFound if files are not in the cache."""
        repo = self._cache.repo(manifest.repo)
        lacking = await asyncio.to_thread(repo.lacking, manifest.files)
        if lacking:
            raise not_cached(manifest, *lacking)
        done = await self._write_files(repo, manifest, await asyncio.to_thread(self._before, manifest.repo, revision))
        await asyncio.to_thread(self._write_lists, manifest, revision)
        self._reporter.progress(Progress("done", manifest.total_size, manifest.total_size))
        return ExportResult(manifest, revision, done["written"], done["copied"], done["kept"])

    def _before(self, repo: RepoId, revision: str) -> dict[str, str]:
        """By etag, the names of the files that `revision` had there so far."""
        info = self._json(f"api/{repo.api}/revision/{revision}")
        commit = info.get("sha") if isinstance(info, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            return {}
        listed = self._json(f"api/{repo.api}/tree/{commit}")
        found = {}
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and entry.get("type") == "file":
                etag = entry["lfs"].get("oid") if isinstance(entry.get("lfs"), dict) else entry.get("oid")
                found[str(etag)] = content_name(repo, commit, str(entry.get("path")))
        return found

    async def _write_files(self, repo: RepoCache, manifest: Manifest, before: dict[str, str]) -> "Counter[_Way]":
        waiting, sizes = deque(manifest.files), Counter[_Way]()
        with reported(self._reporter, "publishing", manifest.total_size) as count:

            async def work() -> None:
                while waiting:
                    file = waiting.popleft()
                    same = before.get(file.etag)
                    sizes[await asyncio.to_thread(self._write_file, repo, manifest, file, same, count)] += file.size

            await together(work() for _ in range(FILES_AT_ONCE))
        return sizes

    def _write_file(
        self, repo: RepoCache, manifest: Manifest, file: ManifestFile, same: str | None, count: Count
    ) -> "_Way":
        name = content_name(manifest.repo, manifest.commit, file.path)
        if self._target.holds(name, file):
            count(file.size)
            return "kept"
        if same is not None and same != name and self._target.copy(same, name, file):
            count(file.size)
            return "copied"
        self._target.check_space(file.size)
        with repo.open_blob(file) as blob:
            self._target.put_file(name, blob, file, count)
        return "written"

    def _write_lists(self, manifest: Manifest, revision: str) -> None:
        api = f"api/{manifest.repo.api}"
        tree = _encoded(hub_json.tree(manifest, "", recursive=True) or [])
        info = _encoded(hub_json.model_info(manifest, blobs=True))
        for name in dict.fromkeys((manifest.commit, revision)):
            self._target.put(f"{api}/tree/{name}", tree)
            self._target.put(f"{api}/revision/{name}", info)
        if not is_commit(revision):
            self._target.put(f"{api}/refs", _encoded(self._refs(manifest, revision)))
        if revision == DEFAULT_REVISION or self._target.read(f"{api}{self._target.info}") is None:
            self._target.put(f"{api}{self._target.info}", info)

    def _refs(self, manifest: Manifest, revision: str) -> dict[str, Any]:
        """The names that are there, and `revision`."""
        known: dict[str, str] = {}
        listed = self._json(f"api/{manifest.repo.api}/refs")
        for kind in ("branches", "tags", "converts", "pullRequests") if isinstance(listed, dict) else ():
            for entry in listed.get(kind) or ():
                if isinstance(entry, dict) and isinstance(entry.get("ref"), str):
                    name = entry["ref"].removeprefix("refs/heads/")
                    known[name] = str(entry.get("targetCommit"))
        return hub_json.refs({**known, revision: manifest.commit})

    def _json(self, name: str) -> Any:
        data = self._target.read(name)
        try:
            return None if data is None else parse_json(data)
        except ValueError:
            return None


def content_name(repo: RepoId, commit: str, path: str) -> str:
    """The name of a file's content, below the root of an export."""
    return f"{repo}/resolve/{commit}/{path}"


def _encoded(value: Sequence[Any] | dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
