"""What older revisions presumably have of a safetensors file for which there is no torrent.

The header of the new file says where its tensors lie, and samples of them say which ones have not changed. The hub's
hash of the whole file decides: where it does not fit, what was copied is downloaded after all.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from p2pmodel.core import notes
from p2pmodel.core.content.layout import KIB, MIB
from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.shard_header import LENGTH, StoredTensor, header_length, tensor_places
from p2pmodel.core.sizes import human
from p2pmodel.core.tasks import together
from p2pmodel.errors import IntegrityError, P2PModelError
from p2pmodel.node.snapshot.reuse.placements import OldRange, joined, matching
from p2pmodel.node.snapshot.reuse.reused_pieces import MARGIN, OldFiles
from p2pmodel.node.snapshot.reuse.revisions import MAX_HEADER, SHARD, OldRevision, other_revisions
from p2pmodel.origin.origin import Origin
from p2pmodel.store.cache import RepoCache
from p2pmodel.store.files.file_system import copy_range
from p2pmodel.store.files.folder import open_regular
from p2pmodel.store.files.partial_file import PartialFile

LEAST = 4 * MIB
"""Bytes of the smallest file, or rest of one, that is worth the requests."""
SAMPLES = 64
"""Samples of one file. With more tensors than that, all of them count as unchanged if all samples are."""
FIRST = 8
"""Samples that are taken first. If all of them have changed, the file was trained anew."""
SAMPLE = 4 * KIB
AT_ONCE = 8
FIND_SECONDS = 20.0
"""Seconds in which the mirrors must send header and samples of a file: clients may wait for it."""


@dataclass(frozen=True, slots=True)
class PresumedRanges:
    """Ranges of one file that `revision` presumably has, in order, and the first bytes of the new file."""

    revision: OldRevision
    ranges: tuple[OldRange, ...]
    head: bytes

    @property
    def size(self) -> int:
        """Bytes of the ranges."""
        return sum(each.length for each in self.ranges)


class FileReuse:
    """The search for the files of `manifest`; `origin` is asked for headers and samples."""

    def __init__(self, origin: Origin, repo: RepoCache, manifest: Manifest, on_note: Callable[[str], None]) -> None:
        self._origin = origin
        self._repo = repo
        self._manifest = manifest
        self._on_note = on_note
        self._revisions: list[OldRevision] | None = None

    async def find(self, file: ManifestFile) -> PresumedRanges | None:
        """What older revisions have of `file`; None if that is nothing. Raises the errors of the mirrors."""
        if file.size < LEAST:
            return None
        head, tensors = await self._header(file)
        for revision in self._listed() if tensors else ():
            old = await asyncio.to_thread(_matching, revision, file.path, tensors)
            if old:
                same = await self._unchanged(file, revision, old)
                return PresumedRanges(revision, tuple(joined(same)), head) if same else None
        return None

    async def tensors(self, file: ManifestFile) -> list[StoredTensor] | None:
        """The tensors of `file`; None if no older revision has any. Raises the errors of the mirrors."""
        return (await self._header(file))[1] or None

    async def _header(self, file: ManifestFile) -> tuple[bytes, list[StoredTensor]]:
        """The header of `file` and its tensors; none if no older revision has any, or the header cannot be used."""
        revisions = await asyncio.to_thread(self._listed)
        expected = await asyncio.to_thread(_header_bytes, revisions, file.path) if file.path.endswith(SHARD) else 0
        if not expected:
            return b"", []
        head = await self._read(file, 0, min(expected + MARGIN, file.size))
        with suppress(IntegrityError):
            end = LENGTH + header_length(head, file.path, file.size)
            if end > len(head) and end <= MAX_HEADER:
                head += await self._read(file, len(head), end - len(head))
            return head[:end], tensor_places(head[LENGTH:end], file.path, file.size)
        return b"", []

    async def fill(self, file: ManifestFile, partial: PartialFile) -> tuple[int, int]:
        """Copy what older revisions have of `file` to `partial`. Returns how many bytes were copied, and how many the
        mirrors sent. Nothing fails for it: what cannot be found is downloaded."""
        if sum(length for _, length in partial.missing()) < LEAST:
            return 0, 0
        sent = 0
        try:
            async with asyncio.timeout(FIND_SECONDS):
                found = await self.find(file)
            if found is None:
                return 0, 0
            await partial.write(0, found.head)
            sent = len(found.head)
            await asyncio.to_thread(_copy, found, partial)
        except (P2PModelError, OSError) as error:
            late = f"no mirror sent its header and samples within {FIND_SECONDS:.0f} s"
            reason = late if isinstance(error, TimeoutError) else str(error)
            text = f"no parts of older revisions are copied to {file.path}: {reason}"
            self._on_note(notes.warning("reuse_failed", text, file=file.path))
        if copied := partial.presumed:
            text = f"{human(copied)} of {file.path} seem to be the same in another revision in this cache: copied"
            self._on_note(notes.info("reused", text, file=file.path, bytes=copied))
        return copied, sent

    def refuted(self, file: ManifestFile) -> None:
        """The hash of the whole `file` has shown that something else was the same only in the samples."""
        text = (
            f"{file.path} has changed in more places than its samples: what was copied of it was downloaded after all"
        )
        self._on_note(notes.warning("reuse_refuted", text, file=file.path))

    async def _unchanged(
        self, file: ManifestFile, revision: OldRevision, old: Sequence[OldRange]
    ) -> Sequence[OldRange]:
        """The tensors among `old` that have not changed, as far as samples show."""
        count = min(SAMPLES, len(old))
        chosen = [old[number * len(old) // count] for number in range(count)]
        first = chosen[:: max(1, count // FIRST)]
        same = await self._same(file, revision, first)
        if not same:
            return []
        same |= await self._same(file, revision, [each for each in chosen if each not in first])
        if len(same) == count:
            return old
        return [each for each in chosen if each in same]

    async def _same(self, file: ManifestFile, revision: OldRevision, tensors: Sequence[OldRange]) -> set[OldRange]:
        found: set[OldRange] = set()
        waiting = list(tensors)

        async def work() -> None:
            while waiting:
                tensor = waiting.pop()
                length = min(SAMPLE, tensor.length)
                start = tensor.offset + (tensor.length - length) // 2
                part = tensor.part(start, start + length)
                if await self._read(file, start, length) == await asyncio.to_thread(_old_bytes, revision, part):
                    found.add(tensor)

        await together(work() for _ in range(AT_ONCE))
        return found

    async def _read(self, file: ManifestFile, offset: int, length: int) -> bytes:
        return await self._origin.read(self._manifest, file, offset, length, accept=None)

    def _listed(self) -> list[OldRevision]:
        if self._revisions is None:
            self._revisions = other_revisions(self._repo, self._manifest)
        return self._revisions


def _header_bytes(revisions: Sequence[OldRevision], path: str) -> int:
    return max((revision.header_bytes(path) or 0 for revision in revisions), default=0)


def _matching(revision: OldRevision, path: str, tensors: Sequence[StoredTensor]) -> list[OldRange]:
    return matching(tensors, revision.tensors(path))


def _old_bytes(revision: OldRevision, part: OldRange) -> bytes | None:
    with ExitStack() as stack, suppress(OSError):
        return OldFiles(revision, stack).read(part)
    return None


def _copy(found: PresumedRanges, partial: PartialFile) -> None:
    """Copy the ranges that `partial` lacks. Raises OSError."""
    with ExitStack() as stack:
        sources = OldFiles(found.revision, stack)
        target = open_regular(partial.path, os.O_RDWR)
        stack.callback(os.close, target)
        missing = partial.missing()
        for each in found.ranges:
            source = sources.descriptor(each.source)
            for start, length in missing:
                part = each.part(start, start + length)
                if source is None or part.length <= 0:
                    continue
                if copy_range(source, target, part.start, part.offset, part.length):
                    partial.presume(part.offset, part.length)
