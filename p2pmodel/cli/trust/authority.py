"""`p2pmodel ca`: the certificate authority of a small cluster."""

import datetime as dt
import json
from pathlib import Path

import click

from p2pmodel.cli import options
from p2pmodel.cli.option_types import Count, PathName
from p2pmodel.cli.terminal.output import echo, result
from p2pmodel.config.settings import Settings
from p2pmodel.trust.certificates import AuthorityFolder

_folder = click.option(
    "--folder", type=PathName(), help="Folder of the authority (default: 'ca' in the state directory)."
)


@click.group()
def ca() -> None:
    """Make a certificate authority for a cluster, and certificates for its servers and nodes.

    For clusters that have no authority of their own. Keys have mode 0600, and no pass phrase.
    """


@ca.command()
@_folder
@click.option("--name", default="p2pmodel cluster", show_default=True, help="Name in the root certificate.")
@click.option("--days", type=Count(1, 36_500), default=3650, show_default=True, help="Days of validity of the root.")
@options.common
def init(*, settings: Settings, folder: Path | None, name: str, days: int, as_json: bool, quiet: bool) -> None:
    """Make the authority: ca.crt for every node, ca.key for the coordinator alone.

    Private swarms belong to one authority: a new one means new torrents. So the root is valid for a long time, and the
    certificates that it issues for shorter.
    """
    place = _place(settings, folder)
    place.init(name, now=_now(), days=days)
    if as_json:
        echo(json.dumps({"certificate": str(place.certificate), "key": str(place.key)}))
        return
    result(str(place.certificate))
    if not quiet:
        echo(f"on each node: coordinator_ca_file = {place.certificate}; the key stays here: {place.key}", err=True)


@ca.command()
@click.argument("names", metavar="NAME[,NAME]...", nargs=-1, required=True)
@_folder
@click.option("--days", type=Count(1, 3650), default=365, show_default=True, help="Days of validity.")
@options.common
def issue(
    *, settings: Settings, names: tuple[str, ...], folder: Path | None, days: int, as_json: bool, quiet: bool
) -> None:
    """Issue a certificate with a new key for each argument: a host name or address, and further ones after commas.

    All names of an argument are in its certificate, which serves both as a server's and as a client's. The first one
    names the files: NAME.crt and NAME.key.
    """
    place, issued = _place(settings, folder), []
    for text in names:
        alternatives = [each.strip() for each in text.split(",")]
        issued.append(place.issue(alternatives[0], alternatives, now=_now(), days=days))
    if as_json:
        plain = [{"name": e.name, "certificate": str(e.certificate), "key": str(e.key)} for e in issued]
        echo(json.dumps({"certificates": plain}))
        return
    for each in issued:
        result(str(each.certificate))
        if not quiet:
            echo(f"its key: {each.key}", err=True)


def _place(settings: Settings, folder: Path | None) -> AuthorityFolder:
    return AuthorityFolder(folder or (settings.state_dir or settings.cache_dir) / "ca")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
