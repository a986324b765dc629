"""`p2pmodel torrent`: create a .torrent of a snapshot in the cache, or show the content of one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.console import Style, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.tokens import without_key
from p2pmodel.core.content.layout import KIB
from p2pmodel.core.content.names import Reference
from p2pmodel.core.files.private_files import write_output
from p2pmodel.core.sizes import counted, human
from p2pmodel.node.private.authority import authority_of
from p2pmodel.node.snapshot.evidence.signatures import signed
from p2pmodel.node.snapshot.evidence.voucher import recorded_voucher
from p2pmodel.node.snapshot.torrents.torrent_builder import CreatedTorrent, create_torrent
from p2pmodel.store.cache import HubCache
from p2pmodel.swarm.magnet import magnet_of
from p2pmodel.swarm.torrents import Format, Metainfo, info_hash_of, parse, read_torrent
from p2pmodel.trust.signatures.statement import SUFFIX, written


@click.group()
def torrent() -> None:
    """Create a .torrent of a snapshot, or show the content of one."""


@torrent.command()
@options.reference
@click.option("-o", "--output", type=PathName(), help="File to write (NAME-COMMIT.torrent).")
@click.option(
    "--format",
    "form",
    type=click.Choice(get_args(Format)),
    default="v2",
    show_default=True,
    help="Torrent format; p2pmodel uses v2, hybrid and v1 are for clients without v2.",
)
@click.option("--tracker", "trackers", multiple=True, metavar="URL", help="Announce URL; repeatable.")
@click.option(
    "--endpoint",
    "_set_endpoints",
    multiple=True,
    metavar="URL",
    help="Hub or mirror to list as web seed; repeatable (default: the mirrors of the settings).",
)
@options.common
@options.progress
def create(
    settings: Settings,
    ref: Reference,
    output: Path | None,
    *,
    form: Format,
    trackers: tuple[str, ...],
    style: Style,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the .torrent of a snapshot in the cache, and print its path.

    The info-hash depends on the commit and the format only. With trust.signing_key its signature is written beside it,
    with .signatures at the end of the name. Uses no network.
    """
    options.check_output(output)
    with reporting(style, quiet=quiet) as reporter:
        created = run_interruptible(
            create_torrent(
                HubCache(settings.cache_dir, settings.state_dir),
                ref,
                format=form,
                trackers=trackers,
                endpoints=settings.webseeds(ref.repo),
                reporter=reporter,
                authority=authority_of(ref.repo, settings.private),
                proves=settings.trust.signing_key is not None,
            ),
            interrupted="interrupted; finished hashes are kept: run the same command again",
        )
    recorded_voucher(settings, created.manifest)
    path = output or Path(_file_name(created, form))
    write_output(path, created.raw)
    key = settings.trust.signing_key
    signatures = run_interruptible(
        signed(created.manifest, [info_hash_of(created.raw)], key), interrupted="interrupted"
    )
    if signatures:
        write_output(path.with_name(path.name + SUFFIX), written(signatures))
    if as_json:
        echo(json.dumps({"path": str(path)} | _summary(created, form)))
    else:
        result(str(path))


@torrent.command()
@click.argument("file", type=PathName())
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout.")
def show(file: Path, *, as_json: bool) -> None:
    """Validate a .torrent and show its content, without the keys of its trackers."""
    plain = _plain(parse(read_torrent(file)))
    if as_json:
        echo(json.dumps(plain))
        return
    files = plain.pop("files")
    plain["size"] = f"{human(plain['size'])} in {counted(len(files), 'file')}"
    plain["piece_length"] = f"{plain['piece_length'] // KIB} KiB"
    for key, value in plain.items():
        for line in value if isinstance(value, list) else [value]:
            echo(f"{key.replace('_', ' ') + ':':<14} {line}")
    for entry in files:
        echo(f"{human(entry['size']):>11}  {entry['etag'][:12]}  {entry['path']}")


def _file_name(created: CreatedTorrent, form: Format) -> str:
    name = str(created.manifest.repo).rpartition("/")[2]
    suffix = "" if form == "v2" else f".{form}"
    return f"{name}-{created.manifest.commit[:12]}{suffix}.torrent"


def _summary(created: CreatedTorrent, form: Format) -> dict[str, Any]:
    manifest = created.manifest
    known = {"info_hash": parse(created.raw).info_hash} if form != "v1" else {}
    return {"repo": str(manifest.repo), "commit": manifest.commit, "format": form} | known


def _plain(metainfo: Metainfo) -> dict[str, Any]:
    manifest = metainfo.manifest
    plain: dict[str, Any] = {
        "repo": str(manifest.repo),
        "commit": manifest.commit,
        "format": metainfo.format,
        "info_hash": metainfo.info_hash,
    }
    if metainfo.info_hash_v1:
        plain["info_hash_v1"] = metainfo.info_hash_v1
    # What is printed ends in logs and chats; a node announces with a key of its own.
    printed = replace(metainfo, trackers=tuple(dict.fromkeys(map(without_key, metainfo.trackers))))
    return plain | {
        "piece_length": metainfo.layout.piece_length,
        "pieces": metainfo.layout.piece_count,
        "size": manifest.total_size,
        "private": manifest.private,
        "trackers": list(printed.trackers),
        "webseeds": list(metainfo.webseeds),
        "magnet": magnet_of(printed),
        "files": [{"path": f.path, "size": f.size, "etag": f.etag} for f in manifest.files],
    }
