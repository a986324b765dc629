"""The issued certificates of private swarms on disk: one file `<info-hash>.json` each, replaced as a whole.

A coordinator that is restarted would else admit a node again at an address where a withdrawn certificate is still
valid. The files hold serial numbers, addresses and names, and no key. What was issued in the last `SAVE_EVERY` seconds
before a crash is lost; an orderly end saves all.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from p2pmodel.coordinator.private.issued import IssuedCertificates
from p2pmodel.core import notes
from p2pmodel.core.files.private_files import private_folder, write_private
from p2pmodel.core.plain_json import parse_json
from p2pmodel.errors import P2PModelError
from p2pmodel.os_errors import translated

SAVE_EVERY = 2.0
WORK_SHARE = 0.1
"""Part of the time that may go into writing: 10,000 nodes are a file of 4 MB."""
MAX_BYTES = 64 << 20

_NAME = re.compile(r"[0-9a-f]{64}")


class IssuedRecord:
    """The record below `folder`; None: nothing is kept. `wall` is the seconds since 1970."""

    def __init__(
        self,
        folder: Path | None = None,
        note: Callable[[str], None] = lambda _line: None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._note = note
        self._clock = clock
        self._wall = wall
        self._restored: dict[str, IssuedCertificates] = {}
        """By info-hash, those that were loaded, until they are asked for."""
        self._saved: dict[str, int] = {}
        """By info-hash, the changes that are on disk."""

    async def load(self, now: float) -> None:
        """Read the record. `now`: what the clock of the certificates shows. Files of no use are noted, and replaced."""
        if self._folder is not None:
            for info_hash, rows in (await asyncio.to_thread(self._read)).items():
                issued = IssuedCertificates()
                try:
                    issued.restore(rows, self._wall() - now, now)
                except (ValueError, KeyError, TypeError, AttributeError):
                    self._warn(f"{info_hash}.json in {self._folder} is not used: it is no record of certificates")
                    continue
                self._restored[info_hash] = issued

    def restored(self, info_hash: str) -> IssuedCertificates:
        """The certificates of one swarm as they were recorded."""
        return self._restored.pop(info_hash, None) or IssuedCertificates()

    async def run(self, swarms: Callable[[], Mapping[str, IssuedCertificates]]) -> None:
        """Record again and again, until cancelled."""
        while True:
            began = self._clock()
            await self.save(swarms())
            await asyncio.sleep(max(SAVE_EVERY, (self._clock() - began) / WORK_SHARE))

    async def save(self, swarms: Mapping[str, IssuedCertificates]) -> None:
        """Record what has changed. A failure is noted, and tried again the next time."""
        if self._folder is None:
            return
        changed = {key: issued for key, issued in swarms.items() if issued.changes != self._saved.get(key, 0)}
        gone = self._saved.keys() - swarms.keys()
        counts = {key: issued.changes for key, issued in changed.items()}
        ahead = self._wall() - self._clock()
        texts = {key: json.dumps(issued.plain(ahead), separators=(",", ":")) for key, issued in changed.items()}
        try:
            await asyncio.to_thread(self._write, texts, gone)
        except P2PModelError as error:
            self._warn(f"issued certificates are not recorded: {error.what}")
            return
        self._saved |= counts
        for key in gone:
            del self._saved[key]

    def _read(self) -> dict[str, Any]:
        assert self._folder is not None
        found = {}
        for path in sorted(self._folder.glob("*.json")):
            try:
                if _NAME.fullmatch(path.stem) and path.stat().st_size <= MAX_BYTES:
                    found[path.stem] = parse_json(path.read_bytes())
            except (OSError, ValueError):
                self._warn(f"{path} is not used: it is no record of certificates")
        return found

    @translated()
    def _write(self, texts: Mapping[str, str], gone: set[str]) -> None:
        assert self._folder is not None
        if texts:
            private_folder(self._folder)
        for info_hash, text in texts.items():
            write_private(self._path(info_hash), text.encode())
        for info_hash in gone:
            self._path(info_hash).unlink(missing_ok=True)

    def _path(self, info_hash: str) -> Path:
        assert self._folder is not None
        assert _NAME.fullmatch(info_hash), "the name of a file"
        return self._folder / f"{info_hash}.json"

    def _warn(self, text: str) -> None:
        self._note(notes.warning("private_swarm_record", text))
