"""`p2pmodel mirror export`: write snapshots as static files, for plain web servers and object stores."""

import asyncio
import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import ConsoleReporter, Style, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.sections.mirrors import S3
from p2pmodel.config.settings import Settings
from p2pmodel.config.sources import bucket_settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.extras import check_extra
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.export import ExportResult, ExportTarget, SnapshotExport
from p2pmodel.node.hub.sync import MirrorSync, SyncResult
from p2pmodel.node.snapshot.local import cached_manifest
from p2pmodel.origin.s3.client import BucketPlace
from p2pmodel.origin.s3.upload import ExportBucket
from p2pmodel.store.cache import HubCache
from p2pmodel.store.plain_folders import ExportFolder
from p2pmodel.store.state.sync_log import SyncLog

INTERRUPTED = "interrupted; finished files are kept: run the same command again"


@click.command()
@click.argument("repos", metavar="REPO[@REV]...", nargs=-1, required=True)
@click.argument("target", metavar="DIR|s3://BUCKET/PREFIX")
@click.option("--cached", is_flag=True, help="Export what is in the cache, and ask no mirror.")
@click.option("--s3-endpoint", metavar="URL", help="S3-compatible store (default: Amazon S3).")
@click.option("--s3-region", metavar="NAME", help="Region of the store.")
@click.option("--s3-profile", metavar="NAME", help="Profile of the AWS settings with the credentials.")
@click.option("--s3-credentials-file", type=PathName(), help="File with the credentials.")
@options.sync_log
@options.origin
@options.common
@options.progress
def export(
    *,
    settings: Settings,
    repos: tuple[str, ...],
    target: str,
    cached: bool,
    sync_log: Path | None,
    style: Style,
    as_json: bool,
    quiet: bool,
    **of_store: object,
) -> None:
    """Write snapshots as static files in the layout of a hub: a plain web server or a bucket is then a mirror.

    Downloads what the cache lacks, then writes what the target lacks. A file appears under its name when all of it is
    there and verified, and the lists of files come last. The credentials of a store come from the environment, a
    profile or a file. With --json prints one object a line.
    """
    refs = [Reference.parse(text) for text in repos]
    there = _target(settings, target, of_store)
    with reporting(style, quiet=quiet) as screen:

        def show(done: ExportResult) -> None:
            with screen.aside():
                if as_json:
                    echo(json.dumps(_plain(done, target)))
                else:
                    result(f"{target.rstrip('/')}/{done.manifest.repo}/resolve/{done.manifest.commit}")
                if not quiet and not as_json:
                    echo(_words(done), err=True)

        log = SyncLog(options.sync_log_path(settings, sync_log))
        work = _export(settings, refs, there, screen, log, offline=cached or settings.offline)
        for done in run_interruptible(work, interrupted=INTERRUPTED):
            show(done)


async def _export(
    settings: Settings,
    refs: list[Reference],
    target: ExportTarget,
    screen: ConsoleReporter,
    log: SyncLog,
    *,
    offline: bool,
) -> list[ExportResult]:
    cache = HubCache(settings.cache_dir, settings.state_dir)
    snapshots = []
    if offline:
        snapshots = [(await asyncio.to_thread(cached_manifest, cache, ref), ref.revision) for ref in refs]
    else:

        def keep(done: SyncResult) -> None:
            snapshots.append((done.manifest, done.ref.revision))

        await MirrorSync(settings, screen, keep, rules=Admission(), log=log).once(refs)
    exporting = SnapshotExport(cache, target, screen)
    async with exporting:
        return [await exporting.run(manifest, revision) for manifest, revision in snapshots]


def _target(settings: Settings, target: str, of_store: dict[str, object]) -> ExportTarget:
    if not target.startswith(S3):
        options.refuse_given(
            "an export to a folder", "--s3-endpoint", "--s3-region", "--s3-profile", "--s3-credentials-file"
        )
        if not target:
            raise InvalidInput("the folder of the export is empty", hint="name a folder, or s3://BUCKET/PREFIX")
        folder = ExportFolder(Path(target))
        folder.check()
        return folder
    check_extra("s3", S3)
    return ExportBucket(BucketPlace.of(bucket_settings(settings.mirrors, target, of_store)))


def _plain(done: ExportResult, target: str) -> dict[str, object]:
    return {
        "repo": str(done.manifest.repo),
        "revision": done.revision,
        "commit": done.manifest.commit,
        "target": target,
        "size": done.manifest.total_size,
        "written": done.written,
        "copied": done.copied,
        "kept": done.kept,
    }


def _words(done: ExportResult) -> str:
    parts = {"written": done.written, "copied there": done.copied, "there already": done.kept}
    sizes = ", ".join(f"{human(size)} {name}" for name, size in parts.items() if size) or "no content"
    note = "; the hub restricts this repository, the export does not" if done.manifest.private else ""
    return f"{done.manifest.repo}@{done.manifest.commit[:12]}: {sizes}{note}"
