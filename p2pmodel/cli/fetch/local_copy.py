"""What `p2pmodel fetch` does with the files after the fetch: single files by name, and copies in `--local-dir`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from p2pmodel.cli.fetch.fetch_report import FetchReport
from p2pmodel.cli.terminal.console import ConsoleReporter
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, RepoId, printable
from p2pmodel.errors import EntryNotFound, NotFound
from p2pmodel.node.fetch.request import FetchRequest
from p2pmodel.node.snapshot.local import verify_snapshot
from p2pmodel.node.snapshot.target import Target
from p2pmodel.store.cache import HubCache
from p2pmodel.store.snapshots.local_folder import LocalFolder


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
            folder = folder.expanduser().absolute()
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
