"""What `p2pmodel fetch` does once the snapshot is complete: print it, copy it, load it, or hand it to an engine.

Single files are printed by name, and copied with `--local-dir`.
"""

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

from p2pmodel.cli.fetch.hand_off import HandOff
from p2pmodel.cli.fetch.options import load_options_of
from p2pmodel.cli.fetch.report import FetchReport
from p2pmodel.cli.terminal.console import ConsoleReporter
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId, printable
from p2pmodel.core.files.home import expanded
from p2pmodel.errors import EntryNotFound, NotFound, P2PModelError
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.snapshot.local import verify_snapshot
from p2pmodel.node.snapshot.target import Target
from p2pmodel.store.cache import HubCache
from p2pmodel.store.plain_folders import LocalFolder

if TYPE_CHECKING:
    from p2pmodel.loading.model import LoadedModel


@dataclass(frozen=True, slots=True)
class LocalCopy:
    """The files of one fetch that were named, and the folder that they are copied to, if any."""

    settings: Settings
    request: FetchRequest
    filenames: tuple[str, ...]
    folder: Path | None
    elsewhere: bool
    """Whether a daemon on another machine has the files."""

    @classmethod
    def of(cls, settings: Settings, request: FetchRequest, flags: dict[str, Any]) -> Self:
        """From the flags of the verb. Raises InvalidInput if the folder cannot be one."""
        folder = flags["local_dir"]
        if folder is not None:
            folder = expanded(folder).absolute()
            LocalFolder(folder).check()
        elsewhere = settings.client.server is not None and not flags["no_daemon"]
        return cls(settings, request, flags["filenames"], folder, elsewhere)

    @property
    def wanted(self) -> bool:
        """Whether anything is to be done on this machine."""
        return bool(self.filenames or self.folder) and not self.elsewhere

    def placed(self, report: FetchReport) -> FetchReport:
        """Copy the files; returns the report with the path to print: of the only file that was named, or the folder.

        Raises EntryNotFound for files that the snapshot does not have, after all others were copied.
        """
        repo = HubCache(self.settings.cache_dir).known(RepoId(report.repo))
        manifest = repo.manifest(report.commit)
        if manifest is None:
            raise NotFound(f"{report.repo}@{report.commit} is not in the cache any more", hint="fetch it again")
        root = report.path
        if self.folder is not None:
            files = manifest.select(self.request.include, self.request.exclude)
            root = LocalFolder(self.folder).place(repo, report.commit, files).folder
        self._check_names(manifest)
        single = len(self.filenames) == 1 == len(self.request.include) and not self.filenames[0].endswith("/")
        return replace(report, path=root / self.filenames[0] if single else root)

    def _check_names(self, manifest: Manifest) -> None:
        absent = [name for name in self.filenames if not name.endswith("/") and manifest.file(name) is None]
        if absent:
            raise EntryNotFound(
                f"{manifest.repo}@{manifest.commit[:12]} has no {', '.join(printable(name) for name in absent)}",
                hint=f"its files are listed by 'p2pmodel fetch {manifest.repo} --dry-run'",
            )


async def doubt_cached_files(settings: Settings, target: Target, screen: ConsoleReporter) -> None:
    """Hash the files of the snapshot that are in the cache; what is wrong is recorded, and fetched again."""
    if not isinstance(target, Reference):
        return
    repo = HubCache(settings.cache_dir).known(target.repo)
    commit = repo.resolve(target.revision)
    manifest = repo.manifest(commit) if commit else None
    if manifest is not None:
        await verify_snapshot(repo, manifest, screen)


class ReadyHandler:
    """Prints the snapshot's path as soon as the snapshot is complete, copies its files and loads the model or hands
    it to an engine."""

    def __init__(
        self,
        flags: dict[str, Any],
        note: Callable[[str], None],
        *,
        wants_load: bool,
        aside: Callable[[], AbstractContextManager[None]],
        end_progress: Callable[[], object],
        local: LocalCopy,
        hand_off: HandOff,
    ) -> None:
        self._local = local
        self.hand_off = hand_off
        self.wants_load = wants_load
        self.complete = False
        """Whether everything except seeding is done."""
        self.report: FetchReport | None = None
        self._placed: FetchReport | None = None
        """With the path of the copy that `local` made."""
        self.loaded: Callable[[], LoadedModel] | None = None
        """Returns the model that was loaded while the files arrived, or raises the error of that."""
        self.flags = flags
        self._began = time.monotonic()
        self._gates: dict[str, float] = {}
        """Seconds until each gate was passed."""
        self.note = note
        self._aside = aside
        self._end_progress = end_progress

    def __call__(self, report: FetchReport) -> None:
        self.report = report
        self._pass("files")
        self.complete = not self.has_more
        if not self._prints_later:
            with self._aside():
                self._print(report)

    @property
    def has_more(self) -> bool:
        """Whether there is work after the fetch."""
        return self.wants_load or self._prints_later

    @property
    def _prints_later(self) -> bool:
        """Whether what is printed takes more work."""
        return self._local.wanted or self.hand_off.engine is not None

    def finish(self, on_engine: Callable[..., object]) -> None:
        """Copy the files and load the model, as the command line says. Blocks."""
        assert self.report is not None
        if self.wants_load:
            self._end_progress()  # the answer goes to the same terminal
        if self._local.wanted:
            self._placed = self._local.placed(self.report)
        if self._prints_later:
            with self._aside():
                self._print(self._placed or self.report)
        if self.wants_load:
            self.load(on_engine)
        self.complete = True

    def replace_process(self) -> NoReturn:
        """Run the command of --exec in place of this process."""
        assert self.report is not None
        self.hand_off.replace_process(self._placed or self.report)

    async def run_command(self) -> int:
        """Run the command of --exec as a child; its exit code."""
        assert self.report is not None
        return await self.hand_off.run(self._placed or self.report)

    def _print(self, report: FetchReport) -> None:
        serve = self.hand_off.serve_command(report)
        if self.flags["as_json"]:
            if not self.wants_load:
                echo(json.dumps(report.plain() | ({} if serve is None else {"serve": serve.plain()})))
            return
        self.note(report.words())
        if serve is not None:
            for line in (str(report.path), *serve.notes):
                self.note(line)
            result(str(serve))
        elif self.flags["prompt"] is None and self.hand_off.command is None:
            result(str(report.path))
        else:
            self.note(str(report.path))  # stdout carries the answer, or the output of the command

    def load(self, on_engine: Callable[..., object]) -> None:
        """Load the snapshot, answer the prompt, and print how long each step took.

        `on_engine` is called with what becomes of the model, and with the error if it is "failed".
        """
        from p2pmodel.cli.fetch.prompt import load_and_answer  # noqa: PLC0415 - imports torch

        def on_state(*state: Any) -> None:
            self._pass(state[0])
            on_engine(*state)

        assert self.report is not None
        as_json = self.flags["as_json"]
        outcome: tuple[object, ...] = ("none",)
        try:
            loading = load_and_answer(
                self.report.path,
                prompt=self.flags["prompt"],
                image=self.flags["image"],
                load=load_options_of(self.flags),
                loaded=self.loaded,
                max_new_tokens=self.flags["max_new_tokens"],
                as_json=as_json,
                quiet=self.flags["quiet"],
                on_engine=on_state,
            )
        except P2PModelError as error:
            outcome = "failed", error
            raise
        finally:
            on_engine(*outcome)
        if as_json:
            echo(json.dumps(self.report.plain() | {"loading": loading, "gates": self._gates}))
        self.complete = True

    def _pass(self, gate: str) -> None:
        if gate in ("files", "loaded", "answered"):
            self._gates[gate] = round(time.monotonic() - self._began, 3)
