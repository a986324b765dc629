"""`p2pmodel bundle`: a snapshot in one archive, out of a cache and into another."""

import json
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, check_name
from p2pmodel.node.snapshot.evidence.voucher import recorded_voucher
from p2pmodel.node.snapshot.local import cached_manifest
from p2pmodel.node.snapshot.torrents.bundle import BundleImport, export_bundle
from p2pmodel.store.bundles import SUFFIX
from p2pmodel.store.cache import HubCache

INTERRUPTED = "interrupted; the same command continues"


@click.group()
def bundle() -> None:
    """Move a snapshot in one archive, to a machine that no network joins."""


@bundle.command(name="export")
@options.reference
@click.option("-o", "--output", type=PathName(), help="File to write (NAME-COMMIT.tar).")
@click.option("--files", "with_files", is_flag=True, help="Put the files of the snapshot in, too.")
@options.origin
@options.common
@options.progress
def export_(
    settings: Settings,
    ref: Reference,
    output: Path | None,
    *,
    with_files: bool,
    style: Style,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write torrent, signatures and manifest of a snapshot in the cache to a tar archive, and print its path.

    With --files also its files: then 'p2pmodel bundle import' needs nothing else. The same command continues an export
    that was stopped.
    """
    manifest = cached_manifest(HubCache(settings.cache_dir, settings.state_dir), ref)
    path = output or Path(f"{str(manifest.repo).rpartition('/')[2]}-{manifest.commit[:12]}{SUFFIX}")
    options.check_output(path)
    recorded_voucher(settings, manifest)
    with reporting(style, quiet=quiet) as reporter:
        work = export_bundle(manifest, settings, path, reporter, with_files=with_files)
        run_interruptible(work, interrupted=INTERRUPTED)
    if as_json:
        plain = {"path": str(path), "repo": str(manifest.repo), "commit": manifest.commit, "files": with_files}
        echo(json.dumps(plain | {"size": path.stat().st_size}))
    else:
        result(str(path))


@bundle.command(name="import")
@click.argument("file", type=PathName())
@click.option("--as-ref", "names", multiple=True, metavar="NAME", help="Name for the commit in the cache; repeatable.")
@options.origin
@options.common
@options.progress
def import_(
    settings: Settings, file: Path, names: tuple[str, ...], *, style: Style, as_json: bool, quiet: bool
) -> None:
    """Import the snapshot in a bundle into the cache, and print the snapshot's path.

    The torrent in it needs a voucher as any other: a mirror, a signature (trust.rules), or swarm.trust = "coordinator".
    Every file is hashed before it has a name. The same command continues an import that was stopped.
    """
    with reporting(style, quiet=quiet) as reporter:
        work = BundleImport(file, settings, reporter, names=tuple(map(check_name, names)))
        done = run_interruptible(work.run(), interrupted=INTERRUPTED)
    if as_json:
        plain: dict[str, Any] = {
            "path": str(done.path),
            "repo": str(done.manifest.repo),
            "commit": done.manifest.commit,
        }
        plain |= {"size": done.manifest.total_size, "vouched_by": done.vouched_by, "refs": list(done.refs)}
        echo(json.dumps(plain))
    else:
        result(str(done.path))
