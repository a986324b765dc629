"""Synchronisation of whole snapshots into a mirror's cache: changed files are downloaded, the rest adopted by hash."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from p2pmodel.config.settings import Settings
from p2pmodel.core import notes
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId
from p2pmodel.errors import IntegrityError, InvalidInput, P2PModelError, Unavailable, WrongBytes
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.evidence.content_check import check_contents
from p2pmodel.node.snapshot.evidence.signature_check import CheckedListings, SignatureCheck
from p2pmodel.node.snapshot.lock import downloading
from p2pmodel.node.snapshot.mirror_copy import MirrorCopy
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import check_writable
from p2pmodel.store.state.revisions import record_revision
from p2pmodel.store.state.sync_log import SyncLog
from p2pmodel.trust.content_policy import ContentPolicy


@dataclass(frozen=True, slots=True)
class SyncResult:
    """One synchronised snapshot. `before`: the former commit of its revision. `downloaded`, `adopted`: bytes."""

    ref: Reference
    manifest: Manifest
    path: Path
    before: str | None
    downloaded: int
    adopted: int
    seconds: float


class MirrorSync:
    """Rounds over references. `on_synced` is called for each complete snapshot; `log` records each downloaded file."""

    def __init__(
        self,
        settings: Settings,
        reporter: Reporter,
        on_synced: Callable[[SyncResult], None],
        *,
        rules: Admission,
        log: SyncLog,
    ) -> None:
        self._log = log
        self._settings = settings
        self._reporter = reporter
        self._on_synced = on_synced
        self._rules = rules
        self._cache = HubCache(settings.cache_dir, settings.state_dir, policy=ContentPolicy(settings.contents.rules))

    async def once(self, refs: Sequence[Reference]) -> None:
        """Sync all of `refs`, one after the other. Raises at the end if some failed."""
        if self._settings.offline:
            raise Unavailable("HF_HUB_OFFLINE disables requests to mirrors", hint="unset it")
        await asyncio.to_thread(check_writable, self._settings.cache_dir)
        await asyncio.to_thread(self._log.check_end)
        failures: list[tuple[Reference, P2PModelError]] = []
        async with Origin(self._settings.mirrors, self._settings.origin, on_note=self._reporter.note) as origin:
            for ref in refs:
                try:
                    self._on_synced(await self._sync(ref, origin))
                except P2PModelError as error:
                    failures.append((ref, error))
                    if len(refs) > 1:
                        self._reporter.note(
                            notes.error("sync_failed", f"{ref} was not synced: {error}", repo=str(ref.repo))
                        )
        if failures:
            raise _summary(failures, len(refs))

    async def every(self, seconds: float, listed: Callable[[], Sequence[Reference]]) -> None:
        """Sync the references that `listed` returns, at once and then every `seconds`. A failure is a note, and the
        next round tries again. A round that takes longer is followed by the next at once."""
        while True:
            began = time.monotonic()
            try:
                await self.once(await asyncio.to_thread(listed))
            except P2PModelError as error:
                self._reporter.note(notes.error("sync_failed", str(error)))
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))

    async def _sync(self, ref: Reference, origin: Origin) -> SyncResult:
        began = time.monotonic()
        if self._rules.denies(ref.repo):
            raise self._not_admitted(ref.repo)
        manifest = await CheckedListings(origin, SignatureCheck(self._settings, self._reporter)).manifest(ref)
        if not self._rules.admits(manifest.repo, ref.repo):
            raise self._not_admitted(manifest.repo)
        checked = time.time()
        repo = self._cache.repo(manifest.repo)
        policy = ContentPolicy(self._settings.contents.rules)
        await check_contents(policy, repo, manifest, manifest.files, origin=origin)
        before = await asyncio.to_thread(repo.resolve, ref.revision)
        refs = () if ref.pinned else (ref.revision,)
        async with downloading(repo, manifest, manifest.files, refs, self._reporter):
            copy = MirrorCopy(origin, repo, manifest, self._reporter, log=self._log)
            done = await copy.run(manifest.files, refs)
        await asyncio.to_thread(record_revision, repo, manifest, ref.revision, checked)
        path = repo.snapshot(manifest.commit)
        return SyncResult(ref, manifest, path, before, done.from_mirrors, done.from_cache, time.monotonic() - began)

    @staticmethod
    def _not_admitted(repo: RepoId) -> InvalidInput:
        return InvalidInput(f"this mirror does not admit {repo}", hint="see --allow, --deny")


def _summary(failures: Sequence[tuple[Reference, P2PModelError]], total: int) -> P2PModelError:
    ref, first = failures[0]
    if total == 1:
        return first
    kind = IntegrityError if isinstance(first, WrongBytes) else type(first)
    return kind(f"{len(failures)} of {total} were not synced; the first is {ref}: {first.what}", hint=first.hint)
