"""`p2pmodel sign` and `provenance`: sign the files of a snapshot or a torrent of it, and show what vouches for them."""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.client.coordinators import configured
from p2pmodel.coordinator.client.publishing import PUBLISH_TIMEOUT
from p2pmodel.coordinator.client.signatures import publish_signature
from p2pmodel.core.content.manifest import Manifest
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.core.files.private_files import write_output
from p2pmodel.core.sizes import counted
from p2pmodel.errors import InvalidInput
from p2pmodel.node.snapshot.evidence.model_signature_check import sha256_by_path
from p2pmodel.node.snapshot.evidence.provenance import Provenance, provenance_of
from p2pmodel.node.snapshot.evidence.signatures import signed
from p2pmodel.node.snapshot.evidence.voucher import recorded_voucher
from p2pmodel.node.snapshot.local import cached_manifest
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.torrents import parse, read_torrent
from p2pmodel.trust.signatures.model_keys import read_model_signer
from p2pmodel.trust.signatures.model_signature import MODEL_SIGNATURE, sign_model
from p2pmodel.trust.signatures.record import read_beside
from p2pmodel.trust.signatures.statement import MAX_STATEMENTS, SUFFIX, SignedStatement, written


@click.command()
@click.argument("target", metavar="REPO[@REV]|TORRENT", shell_complete=repositories)
@click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
@click.option(
    "--key",
    type=PathName(),
    help="Private SSH key, or the public key of one in the agent (default: trust.signing_key); PEM for --format oms.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["ssh", "oms"]),
    default="ssh",
    show_default=True,
    help="SSH signature, or the model.sig of OpenSSF model signing.",
)
@click.option("--certificate", type=PathName(), help="With --format oms: PEM file of the key's certificate chain.")
@click.option("-o", "--output", type=PathName(), help="File to write (NAME-COMMIT.signatures, or model.sig).")
@click.option("--publish", "publishes", is_flag=True, help="Publish the signature at the coordinators, too.")
@options.origin
@options.common
def sign(
    settings: Settings,
    target: str,
    revision: str | None,
    *,
    key: Path | None,
    form: str,
    certificate: Path | None,
    output: Path | None,
    publishes: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Sign the list of files of a snapshot in the cache, or a .torrent, and print the path of the signature.

    The signature says: these are the files of this commit. It counts for every torrent of these files; the signature of
    a .torrent, for that torrent and its files. Signatures that the file has already stay. Uses no network without
    --publish.
    """
    options.check_output(output)
    if form == "oms":
        if publishes or target.endswith(".torrent") or key is None:
            raise InvalidInput("--format oms needs a snapshot and --key, and publishes nothing")
        path = output or Path(MODEL_SIGNATURE)
        write_output(path, _model_signature(settings, Reference.parse(target, revision=revision), key, certificate))
        if as_json:
            echo(json.dumps({"path": str(path)}))
        else:
            result(str(path))
        return
    if certificate is not None:
        raise InvalidInput("--certificate needs --format oms", hint="an SSH certificate lies beside its key")
    key = key or settings.trust.signing_key
    if key is None:
        raise InvalidInput("no key signs", hint="give --key, or set trust.signing_key")
    if publishes and not settings.coordinators:
        raise InvalidInput("--publish needs a coordinator", hint="give --coordinator")
    manifest, info_hash, path = _subject(settings, target, revision)
    path = output or path
    new = run_interruptible(_sign(settings, manifest, info_hash, key, publishes=publishes), interrupted="interrupted")
    write_output(path, written(dict.fromkeys([*new, *read_beside(path)][:MAX_STATEMENTS])))
    if as_json:
        plain = {"path": str(path), "repo": str(manifest.repo), "commit": manifest.commit, "info_hash": info_hash}
        echo(json.dumps(plain | new[0].plain))
        return
    result(str(path))
    if not quiet:
        what = f"the torrent {info_hash}" if info_hash else f"{len(manifest.files)} files"
        echo(f"signed {what} of {manifest.repo}@{manifest.commit}", err=True)


def _subject(settings: Settings, target: str, revision: str | None) -> tuple[Manifest, str, Path]:
    """The manifest to sign, the info-hash of its torrent if a torrent is named, and the path of the signature."""
    if target.endswith(".torrent"):
        metainfo = parse(read_torrent(Path(target)))
        return metainfo.manifest, metainfo.info_hash, Path(target + SUFFIX)
    ref = Reference.parse(target, revision=revision)
    manifest = cached_manifest(HubCache(settings.cache_dir, settings.state_dir), ref)
    recorded_voucher(settings, manifest)
    return manifest, "", Path(f"{str(manifest.repo).rpartition('/')[2]}-{manifest.commit[:12]}{SUFFIX}")


def _model_signature(settings: Settings, ref: Reference, key: Path, certificate: Path | None) -> bytes:
    cache = HubCache(settings.cache_dir, settings.state_dir)
    manifest = cached_manifest(cache, ref)
    recorded_voucher(settings, manifest)
    signer, chain = read_model_signer(key, certificate)
    files = sha256_by_path(cache.known(ref.repo), manifest)
    return sign_model(str(manifest.repo).rpartition("/")[2], files, signer, chain)


async def _sign(
    settings: Settings, manifest: Manifest, info_hash: str, key: Path, *, publishes: bool
) -> tuple[SignedStatement, ...]:
    new = await signed(manifest, [info_hash], key)
    if publishes:
        places = configured(settings)
        await asyncio.gather(*(publish_signature(each, one, timeout=PUBLISH_TIMEOUT) for each in places for one in new))
    return new


@click.command()
@options.reference
@click.option("--log", type=PathName(), help="Sync log (default: this machine's).")
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
