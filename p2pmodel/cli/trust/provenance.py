"""`p2pmodel provenance`: what vouches for the files of a snapshot in the cache."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.core.sizes import counted
from p2pmodel.node.snapshot.cached import cached_manifest
from p2pmodel.node.snapshot.evidence.provenance import Provenance, provenance_of
from p2pmodel.store.cache import HubCache


@click.command()
@options.reference
@click.option("--log", type=click.Path(path_type=Path), help="Sync log (default: this machine's).")
@options.origin
@options.common
def provenance(settings: Settings, ref: Reference, *, log: Path | None, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Print which mirrors, signers and sync-log lines vouch for the files of a snapshot in the cache.

    Signatures come from this machine's records and from the coordinators, and are judged by the allowed signers as they
    are now. Hashes no file: 'p2pmodel verify' does. Exits with code 5 if the sync log was changed.
    """
    manifest = cached_manifest(HubCache(settings.cache_dir, settings.state_dir), ref)
    place = options.sync_log_path(settings, log)
    found = run_interruptible(provenance_of(manifest, settings, place), interrupted="interrupted")
    if as_json:
        echo(json.dumps(found.plain()))
        return
    for name, text in _lines(found):
        echo(f"{name:<14} {text}")


def _lines(found: Provenance) -> Iterator[tuple[str, str]]:
    plain = found.plain()
    yield "snapshot", f"{plain['repo']}@{plain['commit']}"
    yield "files", f"{counted(plain['files'], 'file')}, manifest {plain['manifest']}"
    text = printable(found.vouched_by) or "no record"
    yield "vouched by", text if found.fits else f"{text}, for other files: see 'p2pmodel verify'"
    if found.confirmed is not None:
        names = ", ".join(map(printable, found.confirmed.mirrors))
        yield (
            "confirmed by",
            f"{counted(len(found.confirmed.mirrors), 'mirror')} ({names}), {_at(found.confirmed.time)}",
        )
    yield "rule", f"signature = {found.rule}"
    for each in found.signatures:
        about = f"the torrent {each.info_hash[:12]}" if each.info_hash else "the files"
        verdict = each.reason or f"counts, {printable(each.signer)}"
        yield "signature", f"{each.key or 'unreadable'} over {about}, {each.time or 'no time'}: {verdict}"
    if not found.signatures:
        yield "signature", "none"
    if found.model_signature is not None:
        by = found.model_signature
        yield "model.sig", f"does not count: {by.reason}" if by.reason else f"counts, {by.signer}"
    if found.warning is not None:
        yield "warned", f"{_at(found.warning.time)}: {printable(found.warning.reason)}"
    if found.synced is None:
        yield "sync log", "none on this machine"
        return
    lines = f"{counted(len(found.synced.lines), 'line')} of {found.synced.checked}, none changed"
    yield "sync log", f"{lines}; last hash {found.synced.head}"
    for line in found.synced.lines:
        sources = ", ".join(map(printable, line.sources)) or "an earlier run"
        yield "  synced", f"{line.time} {printable(line.path)} from {sources} ({printable(line.vouched_by)})"


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
