"""`p2pmodel seed`: mirror one verified copy of a snapshot and seed it with a coordinator until stopped."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.option_types import PathName
from p2pmodel.cli.secret_files import listener_tls, on_each_node, renew_on
from p2pmodel.cli.signals import run_interruptible, run_service
from p2pmodel.cli.terminal.console import ConsoleReporter, reporting
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.coordinator.tokens import without_key
from p2pmodel.core.content.names import DEFAULT_REVISION, Reference
from p2pmodel.core.files.private_files import write_output
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput
from p2pmodel.http.server import check_exposure
from p2pmodel.node.local_address import address_notes, with_peer_address
from p2pmodel.node.seed.seed import SeedRequest, SeedResult
from p2pmodel.service.roles.coordinator import CoordinatorRole
from p2pmodel.service.roles.seeder import Seeder, SeederAddresses
from p2pmodel.swarm.magnet import magnet_of
from p2pmodel.swarm.torrents import parse
from p2pmodel.trust.signatures.statement import SUFFIX, written

INTERRUPTED = "stopped; the snapshot stays in the cache, and the same command resumes seeding at once"


@click.command()
@click.argument("source", metavar="REPO[@REV]|DIR", shell_complete=repositories)
@click.option("--as", "name", metavar="REPO[@REV]", help="Name of the snapshot if the source is a directory.")
@click.option("--revision", help="Branch, tag, refs/pr/N or commit (default: main).")
@click.option(
    "--format",
    "exports",
    type=click.Choice(["v2", "hybrid", "v1"]),
    multiple=True,
    help="Additional torrent format, for clients without v2; repeatable. v2 is always seeded.",
)
@click.option(
    "--listen", default="127.0.0.1:6969", show_default=True, metavar="ADDRESS:PORT", help="Address of the coordinator."
)
@options.public_url
@click.option(
    "--private", is_flag=True, help="Seed to admitted nodes alone, over TLS (needs private.ca_file and private.ca_key)."
)
@options.credentials
@options.tls
@click.option("--insecure-public", is_flag=True, help="Serve other machines without a token.")
@click.option(
    "--assemble", is_flag=True, help="Get the snapshot together with the nodes of the --coordinators that fetch it now."
)
@click.option("--once", is_flag=True, help="Mirror, build, publish to the --coordinators, and exit.")
@click.option("-o", "--output", type=PathName(), help="File to write the v2 .torrent to, with its signature.")
@options.listen
@options.origin
@options.common
@options.progress
def seed(settings: Settings, source: str, **flags: Any) -> None:
    """Mirror a snapshot, verify it, build its torrent, and seed it with a coordinator until stopped.

    A directory is imported under the name that --as gives. SIGTERM ends it with exit code 0, Ctrl-C with 130.
    """
    request = _request(source, flags)
    if request.assemble and not settings.coordinators:
        raise InvalidInput("--assemble needs a coordinator", hint="name it with --coordinator")
    options.check_output(flags["output"])
    with reporting(flags["style"], quiet=flags["quiet"]) as screen:
        role = _role(flags, settings)
        reload = options.reload(settings, role.credentials)
        renew_on(reload, settings.http, role.tls)
        placed = with_peer_address(settings, role.listen)
        for note in address_notes(placed):
            screen.note(note)
        seeder = Seeder(request, placed, screen, reload=reload)
        show = _ReadyPrinter(request.ref, flags, screen)
        if flags["once"]:
            show(run_interruptible(seeder.build(), interrupted="interrupted; the same command resumes"), None)
            return
        run_service(seeder.run(role, show), interrupted=INTERRUPTED, reload=reload)


def _request(source: str, flags: dict[str, Any]) -> SeedRequest:
    exports = tuple(form for form in flags["exports"] if form != "v2")
    if flags["name"] is None:
        if Path(source).is_dir() and source.startswith((".", "/", "~")):
            raise InvalidInput(f"'{source}' is a directory", hint="name the snapshot with --as ORG/NAME[@REV]")
        ref = Reference.parse(source, revision=flags["revision"])
        return SeedRequest(ref, exports=exports, private=flags["private"], assemble=flags["assemble"])
    if flags["assemble"]:
        raise InvalidInput("--assemble is for a snapshot of the mirrors", hint="leave it out for a directory")
    ref = Reference.parse(flags["name"], revision=flags["revision"])
    if not Path(source).is_dir():
        raise InvalidInput(f"'{source}' is not a directory", hint="--as needs a directory to import")
    return SeedRequest(ref, directory=Path(source), exports=exports, private=flags["private"])


def _role(flags: dict[str, Any], settings: Settings) -> CoordinatorRole:
    address = ListenAddress.parse(flags["listen"])
    credentials = flags["credentials"]
    protected = credentials.member is not None or bool(settings.access.rules)
    check_exposure(address, protected=protected, insecure_public=flags["insecure_public"])
    tls = listener_tls(settings.http, optional=True)
    return CoordinatorRole.of(address, flags["public_url"], credentials, tls)


class _ReadyPrinter:
    """Prints the seeded snapshot, its torrent and its addresses once it is seeded."""

    def __init__(self, ref: Reference, flags: dict[str, Any], screen: ConsoleReporter) -> None:
        self._name = str(ref).removesuffix(f"@{DEFAULT_REVISION}")
        self._flags = flags
        self._screen = screen

    def __call__(self, seeded: SeedResult, served: SeederAddresses | None) -> None:
        with self._screen.aside():
            self._print(seeded, served)

    def _print(self, seeded: SeedResult, served: SeederAddresses | None) -> None:
        raw = seeded.torrents["v2"]
        urls = served.coordinators if served else ()
        metainfo = parse(raw)
        if self._flags["output"]:
            path = self._flags["output"]
            write_output(path, raw)
            if seeded.signatures.get("v2"):
                write_output(path.with_name(path.name + SUFFIX), written(seeded.signatures["v2"]))
        sources = [f"{url}/catalog/torrents/{metainfo.info_hash}.torrent" for url in urls]
        # The .torrent has the announce keys; what is printed ends in logs.
        shown = replace(metainfo, trackers=tuple(map(without_key, metainfo.trackers)))
        magnet = magnet_of(shown, sources=sources)
        if self._flags["as_json"]:
            plain = {
                "path": str(seeded.path),
                "repo": str(seeded.manifest.repo),
                "commit": seeded.manifest.commit,
                "size": seeded.manifest.total_size,
                "info_hash": metainfo.info_hash,
                "formats": list(seeded.torrents),
                "coordinator": urls[0] if urls else None,
                "coordinators": urls,
                "publish_token_file": str(served.publish_token_file) if served and served.publish_token_file else None,
                "peer": str(served.peer) if served else None,
                "magnet": magnet,
                "from_cache": seeded.from_cache,
                "from_mirrors": seeded.from_mirrors,
            }
            echo(json.dumps(plain))
            return
        result(str(seeded.path))
        size = human(seeded.manifest.total_size)
        self._screen.note(f"{seeded.manifest.repo}@{seeded.manifest.commit}, {size}, {metainfo.info_hash}")
        self._screen.note(magnet)
        for url in urls:
            self._screen.note(
                f"{on_each_node(self._flags['token_file'])}p2pmodel fetch {self._name} --coordinator {url}"
            )
