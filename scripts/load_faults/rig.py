"""One node that loads a model while it arrives, with real engines and mirrors in this process, and what it left."""

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from huggingface_hub import HfApi

from p2pmodel.config.sections.mirrors import MirrorSettings, OriginSettings
from p2pmodel.config.sections.swarm import SwarmSettings
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.progress import Progress
from p2pmodel.errors import P2PModelError
from p2pmodel.loading.arrival.fetch_load import fetch_and_load
from p2pmodel.loading.model import LoadedModel
from p2pmodel.loading.options import LoadProgress
from p2pmodel.node.fetch.fetch import Fetch
from p2pmodel.node.fetch.request import FetchRequest, FetchResult
from p2pmodel.node.reporter import Reporter
from p2pmodel.node.snapshot.target import parse_target
from p2pmodel.store.cache import HubCache
from scripts.load_faults.model import CONVERTED, REPO, TinyModel
from tests.support.fake_hub import FakeHub

NODE, HONEST = "127.0.0.61", "127.0.0.62"
"""Addresses of the node, and of the mirror that is always right."""
PATIENT, IMPATIENT = 40.0, 2.0
"""Seconds without progress after which a node gives up: where a source is left, and where none is."""
MOST_SECONDS = 60.0
"""Bound on one load: after it the load counts as hanging."""
MOST_WAIT = 10.0
"""Bound on the wait for a load to take what it can: at some boundaries it can take nothing."""
_STEP = 0.4
"""Seconds without progress of a load that count as waiting: twice the time between two reports."""
DISK_BYTES = 16 << 20


class Hang(Exception):
    """A load had not ended within its bound."""


class _Heard(Reporter):
    def __init__(self) -> None:
        self._from_peers = 0
        self._load: LoadProgress | None = None
        self._changed = asyncio.Event()

    def progress(self, progress: Progress) -> None:
        self._from_peers = progress.from_peers
        self._changed.set()

    def loading(self, progress: LoadProgress) -> None:
        """The load tells how far it is."""
        self._load = progress

    async def stopped(self) -> None:
        """Wait until the load has taken all tensors that it can have now, or for a bounded time."""
        before: LoadProgress | None = None
        for _ in range(round(MOST_WAIT / _STEP)):
            await asyncio.sleep(_STEP)
            if self._load is not None and self._load == before and self._load.loaded:
                return
            before = self._load

    async def received(self, size: int) -> None:
        """Wait until peers have sent that many bytes."""
        while self._from_peers < size:
            await self._changed.wait()
            self._changed.clear()

    def note(self, line: str) -> None:
        """Nothing is shown."""


@dataclass
class SmallDisk:
    """A tmpfs at `path`."""

    path: Path

    def fill(self) -> None:
        """Take all of its space."""
        with (self.path / "filler").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                while True:  # the last pages
                    try:
                        file.write(bytes(512))
                    except OSError:
                        return

    def free(self) -> None:
        """Give it back."""
        (self.path / "filler").unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path) -> Iterator[SmallDisk | None]:
    """A disk of its own at `path`; None without the right to mount one."""
    path.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)


@dataclass
class Node:
    """A node with an empty cache in `cache`. `mirrors`: endpoints; `peers`: addresses. `patience`: seconds without
    progress after which a fetch gives up."""

    model: TinyModel
    cache: Path
    target: str = REPO
    mirrors: Sequence[str] = ()
    peers: tuple[tuple[str, int], ...] = ()
    patience: float = PATIENT
    port: int = field(default_factory=lambda: _free_port(NODE))
    heard: _Heard = field(default_factory=_Heard)
    results: list[FetchResult] = field(default_factory=list)

    async def load(self) -> LoadedModel:
        """The model, within the bound. Raises the error of the fetch or of the load, and Hang."""
        fetch = Fetch(FetchRequest(parse_target(self.target), peers=self.peers), self._settings(), self.heard)
        try:
            async with asyncio.timeout(MOST_SECONDS):
                loading = fetch_and_load(fetch, CONVERTED, on_ready=self.results.append, on_progress=self.heard.loading)
                return (await loading)()
        except TimeoutError:
            raise Hang(f"nothing came of it in {MOST_SECONDS:.0f} s") from None

    def held(self) -> int:
        """Bytes of the snapshot that the cache has, by its own records."""
        repo, size = HubCache(self.cache).repo(self.model.snapshot.manifest.repo), 0
        for file in self.model.snapshot.manifest.files:
            if repo.is_verified(file):
                size += file.size
            else:
                size += len(repo.staged.recorded(repo.staged.readable_path(file), file))
        return size

    def is_visible(self) -> bool:
        """Whether clients see the snapshot."""
        return HubCache(self.cache).repo(self.model.snapshot.manifest.repo).resolve("main") is not None

    def wrong_tensors(self, loaded: LoadedModel) -> list[str]:
        """Names of tensors that are not those of the published model."""
        got, right = loaded.model.state_dict(), self.model.tensors
        if got.keys() != right.keys():
            return ["the set of tensors"]
        return [name for name, tensor in right.items() if not torch.equal(got[name], tensor)]

    def _settings(self) -> Settings:
        return Settings(
            cache_dir=self.cache,
            mirrors=tuple(MirrorSettings(name=f"m{n}", endpoint=url) for n, url in enumerate(self.mirrors)),
            origin=OriginSettings(connect_timeout=5, read_timeout=MOST_SECONDS, patience=1),
            swarm=SwarmSettings(
                listen=f"{NODE}:{self.port}",
                trust="mirrors" if self.mirrors else "coordinator",
                foreign_trackers="any",
                peer_timeout=self.patience / 4,
                stall_timeout=self.patience,
                coordinator_timeout=1.0,
            ),
        )


class Rig:
    """A folder for all cases, and the mirror that is always right."""

    def __init__(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-faults-")))
        self.disk = stack.enter_context(small_disk(self.folder / "disk"))
        self._temporary = self.folder / "tmp"
        self._temporary.mkdir()
        stack.callback(setattr, tempfile, "tempdir", tempfile.tempdir)
        tempfile.tempdir = str(self._temporary)
        self._number = 0

    @contextmanager
    def empty_cache(self, *, small: bool = False) -> Iterator[Path]:
        """The path of a cache that does not exist yet; it is removed at the end. `small`: on the small disk."""
        self._number += 1
        place = (self.disk.path if small and self.disk is not None else self.folder) / f"node-{self._number}"
        try:
            yield place / "hub"
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def left_behind(self) -> list[str]:
        """What a load must not leave: tasks, threads, temporary folders."""
        tasks = [str(task.get_coro()) for task in asyncio.all_tasks() if "fetch" in str(task.get_coro())]
        threads = [each.name for each in threading.enumerate() if each.name in ("arrived tensors", "tensor copies")]
        folders = [path.name for path in self._temporary.glob("p2pmodel-*")]
        return [*tasks, *threads, *folders]


async def verified_by_the_hubs_client(node: Node, honest: FakeHub) -> str:
    """What `hf cache verify` finds wrong in the cache of `node`; "" for nothing."""

    def verify() -> str:
        api = HfApi(endpoint=honest.url, token=False)
        found = api.verify_repo_checksums(node.model.snapshot.repo, cache_dir=node.cache)
        wrong = [*map(str, found.mismatches), *map(str, found.missing_paths), *map(str, found.extra_paths)]
        return "; ".join(wrong)

    return await asyncio.to_thread(verify)


def is_clear(error: P2PModelError) -> bool:
    """Whether it is one line of a reasonable length, with a code, and without a `repr`."""
    text = str(error)
    return bool(text) and "\n" not in text and len(text) < 400 and " object at 0x" not in text and bool(error.code)


def _free_port(host: str) -> int:
    with socket.socket() as found:
        found.bind((host, 0))
        return int(found.getsockname()[1])
