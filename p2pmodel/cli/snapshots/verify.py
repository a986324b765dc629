"""`p2pmodel verify`: hash every blob of a snapshot in the cache again, or look at it without reading contents."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.client import Client
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference
from p2pmodel.core.sizes import counted, human
from p2pmodel.errors import IntegrityError, LocalResource, P2PModelError, Untrusted
from p2pmodel.node.snapshot.evidence.model_signature_check import judge_model_signature
from p2pmodel.node.snapshot.evidence.voucher import recorded_voucher
from p2pmodel.node.snapshot.local import cached_manifest, verify_snapshot
from p2pmodel.store.cache import HubCache, RepoCache
from p2pmodel.store.verify import QuickCheck, VerifyReport, quick_check

INTERRUPTED = "interrupted; nothing was changed: run the same command again"


@click.command()
@options.reference
@click.option("--quick", is_flag=True, help="Hash nothing: look at folder, links, sizes and earlier checks.")
@options.socket
@options.common
@options.progress
def verify(settings: Settings, ref: Reference, *, quick: bool, style: Style, as_json: bool, quiet: bool) -> None:
    """Hash every file of a snapshot in the cache and compare with the hashes of the hub's manifest.

    The manifest itself is compared with the record of the mirror that vouched for it. Uses no network. Prints the
    snapshot's path. If files are missing or corrupt, prints one line for each and exits with code 5; from then on this
    machine serves no corrupt file. With trust.model_keys a model.sig in the snapshot must be by one of these keys, and
    over the same files. A running daemon that has the snapshot repairs it; otherwise 'p2pmodel fetch' does.

    --quick answers at once, for the prolog of a job: every file is there with its size and behind its link, and none
    has changed since it was verified. It asks no daemon and writes nothing. If something is wrong, one line says what,
    and how to mend it; the exit code is 5, and 3 for a snapshot that is not in the cache.
    """
    cache = HubCache(settings.cache_dir, settings.state_dir)
    manifest = cached_manifest(cache, ref)
    repo = cache.known(ref.repo)
    if quick:
        _looked_at(repo, manifest, quick_check(repo, manifest), as_json=as_json, quiet=quiet)
        return
    vouched_by = recorded_voucher(settings, manifest)
    with reporting(style, quiet=quiet) as reporter:
        report = run_interruptible(verify_snapshot(repo, manifest, reporter), interrupted=INTERRUPTED)
    signed = judge_model_signature(repo, manifest, settings) if report.whole else None
    if as_json:
        of_model = {"model_signature": None if signed is None else asdict(signed)}
        echo(json.dumps(_plain(repo, manifest, report) | {"vouched_by": vouched_by} | of_model))
    if signed is not None and signed.reason:
        raise Untrusted(
            f"the model.sig of {ref.repo}@{manifest.commit} does not count: {signed.reason}",
            hint="its files are those of the manifest; trust.model_keys says which keys may sign",
        )
    if report.whole:
        if not as_json:
            result(str(repo.snapshot(manifest.commit)))
        return
    for word, files in (
        ("missing", report.missing),
        ("corrupt", report.corrupt),
        ("unreadable", report.unreadable),
    ):
        for file in files:
            echo(f"{word}: {file.path}", err=True)
    if report.unreadable and not (report.missing or report.corrupt):
        raise LocalResource(
            f"{len(report.unreadable)} of {len(manifest.files)} files of {ref.repo}@{manifest.commit} cannot be read",
            hint="check their owner and mode",
        )
    repaired = run_interruptible(_daemon_repairs(settings, manifest), interrupted=INTERRUPTED)
    which = f"{ref.repo}@{manifest.commit}"
    raise IntegrityError(
        f"{counted(len(report.missing), 'file')} missing, {len(report.corrupt)} corrupt of {len(manifest.files)} in "
        f"{which}",
        hint="the daemon repairs it" if repaired else f"repair it with 'p2pmodel fetch {which}'",
    )


def _looked_at(repo: RepoCache, manifest: Manifest, look: QuickCheck, *, as_json: bool, quiet: bool) -> None:
    """Print the result of a look. Raises IntegrityError unless nothing is wrong."""
    found, which = look.found, f"{manifest.repo}@{manifest.commit}"
    if as_json:
        plain = {
            "repo": str(manifest.repo),
            "commit": manifest.commit,
            "path": str(repo.snapshot(manifest.commit)),
            "size": manifest.total_size,
            "quick": True,
            "ok": len(manifest.files) - found.doubted,
            "missing": found.missing,
            "changed": found.changed,
            "corrupt": found.damaged,
            "unverified": look.unverified,
            "lacking": look.lacking,
            "staged": look.staged,
            "listed": look.listed,
        }
        echo(json.dumps(plain))
    if found.sound:
        if not look.listed and not quiet:
            echo(f"no list of the hub is on record for {which}: only files that are here were looked at", err=True)
        if not as_json:
            result(str(repo.snapshot(manifest.commit)))
        return
    first = (*found.missing, *found.damaged, *found.changed)[0]
    what = f"{found} of {len(manifest.files)} in {which} ({first}{', ...' if found.doubted > 1 else ''})"
    if look.lacking:
        what += f"; {human(look.lacking)} to fetch" + (f", {human(look.staged)} of them staged" if look.staged else "")
    mend = f"mend it with 'p2pmodel fetch {which}'"
    if found.changed and not (found.missing or found.damaged):
        mend = f"hash them with 'p2pmodel verify {which}': they may be right"
    raise IntegrityError(what, hint=mend)


async def _daemon_repairs(settings: Settings, manifest: Manifest) -> bool:
    """Whether a transfer of a daemon on this cache has the snapshot and runs. Asked for its transfers, the daemon looks
    at their files."""
    socket = settings.daemon.socket
    if socket is None or not socket.is_socket():
        return False
    with suppress(P2PModelError):
        async with Client(socket) as client:
            of_cache = Path((await client.node()).cache_dir) == HubCache(settings.cache_dir, settings.state_dir).root
            running = [view for view in await client.transfers() if view.state not in ("paused", "failed")]
            return of_cache and (str(manifest.repo), manifest.commit) in [(v.repo, v.commit) for v in running]
    return False


def _plain(repo: RepoCache, manifest: Manifest, report: VerifyReport) -> dict[str, object]:
    return {
        "repo": str(manifest.repo),
        "commit": manifest.commit,
        "path": str(repo.snapshot(manifest.commit)),
        "size": manifest.total_size,
        "ok": len(report.ok),
        "missing": [f.path for f in report.missing],
        "corrupt": [f.path for f in report.corrupt],
        "unreadable": [f.path for f in report.unreadable],
    }
