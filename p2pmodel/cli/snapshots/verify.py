"""`p2pmodel verify`: hash every blob of a snapshot in the cache again."""

import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.console import Style, reporting
from p2pmodel.cli.output import echo, result
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.config.settings import Settings
from p2pmodel.core.manifest import Manifest
from p2pmodel.core.names import Reference
from p2pmodel.errors import IntegrityError, RevisionNotFound
from p2pmodel.node.snapshot.local import verify_snapshot
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.verify import VerifyReport

INTERRUPTED = "interrupted; nothing was changed: run the same command again"


@click.command()
@options.reference
@options.common
@options.progress
def verify(settings: Settings, ref: Reference, *, style: Style, as_json: bool, quiet: bool) -> None:
    """Hash every file of a snapshot in the cache and compare with the hashes of the hub's manifest.

    Uses no network. Prints the snapshot's path. If files are missing or corrupt, prints one line for each and exits
    with code 5; 'p2pmodel fetch' repairs the snapshot.
    """
    repo = HubCache(settings.cache_dir).repo(ref.repo)
    manifest = _manifest(repo, ref)
    with reporting(style, quiet=quiet) as reporter:
        report = run_interruptible(verify_snapshot(repo, manifest, reporter), interrupted=INTERRUPTED)
    if as_json:
        echo(json.dumps(_plain(repo, manifest, report)))
    if report.whole:
        if not as_json:
            result(str(repo.snapshot(manifest.commit)))
        return
    for word, files in (("missing", report.missing), ("corrupt", report.corrupt)):
        for file in files:
            echo(f"{word}: {file.path}", err=True)
    raise IntegrityError(
        f"{len(report.missing)} files missing, {len(report.corrupt)} corrupt of {len(manifest.files)} in "
        f"{ref.repo}@{manifest.commit}",
        hint=f"repair it with 'p2pmodel fetch {ref}'",
    )


def _manifest(repo: RepoCache, ref: Reference) -> Manifest:
    commit = repo.resolve(ref.revision)
    manifest = repo.manifest(commit) if commit else None
    if manifest is None:
        raise RevisionNotFound(
            f"{ref} is not in the cache {repo.cache.root}", hint="fetch it, or name another cache with --cache-dir"
        )
    return manifest


def _plain(repo: RepoCache, manifest: Manifest, report: VerifyReport) -> dict[str, object]:
    return {
        "repo": str(manifest.repo),
        "commit": manifest.commit,
        "path": str(repo.snapshot(manifest.commit)),
        "size": manifest.total_size,
        "ok": len(report.ok),
        "missing": [f.path for f in report.missing],
        "corrupt": [f.path for f in report.corrupt],
    }
