"""`p2pmodel mirror`: this machine's hub cache as a Hugging Face endpoint."""

import asyncio
import json
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import click
from aiohttp import web

from p2pmodel.cli import options
from p2pmodel.cli.mirror.log import log as mirror_log
from p2pmodel.cli.mirror.sync import sync
from p2pmodel.cli.run import serve as run_server
from p2pmodel.cli.token_files import mirror_token
from p2pmodel.config.settings import Settings
from p2pmodel.core.addresses import ListenAddress
from p2pmodel.core.pace import Pace
from p2pmodel.errors import InvalidInput
from p2pmodel.http.access_log import AccessLog
from p2pmodel.http.server import check_exposure, serving
from p2pmodel.node.hub.admission import Admission
from p2pmodel.node.hub.pull_through import PullThrough
from p2pmodel.node.reporter import Reporter
from p2pmodel.service.hub.app import hub_endpoint
from p2pmodel.store.cache import HubCache
from p2pmodel.store.files.space import check_directory, check_writable
from p2pmodel.store.state.sync_log import SyncLog

DEFAULT_LISTEN = "127.0.0.1:8090"


@click.group()
def mirror() -> None:
    """Publish snapshots of the local Hugging Face cache over HTTP, and keep them up to date."""


mirror.add_command(sync)
mirror.add_command(mirror_log, "log")


@mirror.command()
@click.option("--listen", default=DEFAULT_LISTEN, show_default=True, metavar="ADDRESS:PORT", help="Where to listen.")
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the token that clients must send.")
@click.option("--token-env", metavar="NAME", help="Environment variable with that token.")
@click.option("--insecure-public", is_flag=True, help="Serve other machines without a token.")
@click.option(
    "--access-log", "log_path", type=click.Path(path_type=Path), help="Append one JSON line a request to this file."
)
@click.option(
    "--max-bytes-per-second", type=click.IntRange(min=1), metavar="N", help="Bound on file content sent, all in all."
)
@click.option(
    "--metadata-ttl",
    callback=options.duration,
    metavar="TIME",
    default="72h",
    show_default=True,
    help="With --upstream: how long a branch is taken for unchanged.",
)
@click.option(
    "--max-cache-bytes",
    callback=options.size,
    metavar="SIZE",
    help="With --upstream: bound on the cache; what was served longest ago makes room.",
)
@click.option(
    "--accel",
    metavar="PREFIX",
    help="Behind nginx only: let it send blobs by X-Accel-Redirect to PREFIX (see scripts/deploy/nginx.conf).",
)
@options.sync_log
@options.admission
@options.upstream
@options.common
def serve(
    *,
    settings: Settings,
    upstream: bool,
    metadata_ttl: float,
    max_cache_bytes: int | None,
    accel: str | None,
    rules: Admission,
    sync_log: Path | None,
    listen: str,
    token_file: Path | None,
    token_env: str | None,
    insecure_public: bool,
    log_path: Path | None,
    max_bytes_per_second: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Serve every snapshot of the cache to clients that set HF_ENDPOINT, to webseed clients and to p2pmodel.

    Runs until stopped: exit code 0 after SIGTERM, 130 after SIGINT. With --json the line {"endpoint": URL} appears
    on stdout once it listens; otherwise the URL is named on stderr. New snapshots are served as they arrive.

    With --upstream it is a pull-through cache: what is asked for and not here is brought from upstream, each file
    once, and is served while it arrives. Whoever may ask this mirror then reads what its upstream token opens.
    """
    address = ListenAddress.parse(listen)
    token = mirror_token(token_file, token_env)
    check_exposure(address, protected=token is not None, insecure_public=insecure_public)
    check_directory(settings.cache_dir)
    if accel and max_bytes_per_second:
        raise InvalidInput("with --accel nginx sends the files", hint="use its limit_rate, not --max-bytes-per-second")
    cache = HubCache(settings.cache_dir)
    journal = options.sync_log_path(settings, sync_log)
    through = None
    if (max_cache_bytes is not None or rules != Admission()) and not upstream:
        raise InvalidInput(
            "--max-cache-bytes, --allow and --deny are about what is brought from upstream", hint="add --upstream"
        )
    if upstream:
        _check_upstream(settings, address)
        reporter = Reporter(note=_silent if quiet else _note)
        through = PullThrough(
            cache,
            settings,
            reporter,
            metadata_ttl=metadata_ttl,
            max_bytes=max_cache_bytes,
            rules=rules,
            log=SyncLog(journal),
        )
    pace = Pace(max_bytes_per_second) if max_bytes_per_second else None
    log = AccessLog(log_path) if log_path else None
    with closing(log) if log else nullcontext():
        app = hub_endpoint(
            cache, token=token, access_log=log, pace=pace, upstream=through, sync_log=journal, accel=accel
        )
        announce = "" if quiet else f"serving {settings.cache_dir}"
        run_server(
            _serve(app, through, address, announce, as_json=as_json),
            interrupted="the mirror was stopped",
        )


async def _serve(
    app: web.Application, upstream: PullThrough | None, address: ListenAddress, announce: str, *, as_json: bool
) -> None:
    async with upstream or nullcontext(), serving(app, address.host, address.port) as base:
        if as_json:
            click.echo(json.dumps({"endpoint": base}))
        elif announce:
            click.echo(f"{announce} at {base} (set HF_ENDPOINT={base})", err=True)
        await asyncio.Event().wait()


def _check_upstream(settings: Settings, address: ListenAddress) -> None:
    if settings.offline:
        raise InvalidInput("--upstream is given, and HF_HUB_OFFLINE forbids asking it", hint="unset HF_HUB_OFFLINE")
    for each in settings.mirrors:
        if urlsplit(each.endpoint).netloc == str(address):
            raise InvalidInput(f"--upstream {each.endpoint} is this mirror itself", hint="name the one it copies from")
    check_writable(settings.cache_dir)


def _note(line: str) -> None:
    click.echo(line, err=True)


def _silent(_line: str) -> None: ...
