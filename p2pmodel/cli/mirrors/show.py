"""`p2pmodel mirrors ls` and `probe`: the recorded state of the mirrors, and a probe of each."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.mirrors.bench import bench
from p2pmodel.cli.mirrors.watch import watch
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.terminal.table import aligned, milliseconds, rate
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.errors import Unavailable
from p2pmodel.node.measure.mirrors import measurement, online, sample_of
from p2pmodel.origin.mirrors.measurement import ProbeReading
from p2pmodel.origin.mirrors.mirror import MirrorStatus

INTERRUPTED = "interrupted"


@click.group()
def mirrors() -> None:
    """Show, probe, benchmark and watch the mirrors that downloads use."""


mirrors.add_command(bench)
mirrors.add_command(watch)


@mirrors.command()
@click.argument("repo", metavar="[REPO]", required=False)
@options.endpoint
@options.common
def ls(*, settings: Settings, repo: str | None, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """List the mirrors in the order in which downloads would use them now, with the recorded state of each.

    With REPO only those at which this repository is looked for.
    """
    wanted = Reference.parse(repo).repo if repo else None
    known = run_interruptible(measurement(settings).recorded(wanted), interrupted=INTERRUPTED)
    if as_json:
        echo(json.dumps({"mirrors": [dataclasses.asdict(standing) for standing in known]}))
    else:
        header = ("MIRROR", "ENDPOINT", "REPOSITORIES", "STATE", "CONNECT", "FIRST BYTE", "RATE", "LAST FAILURE")
        echo(aligned(header, [_known(standing) for standing in known]))


@mirrors.command()
@click.argument("repo", metavar="[REPO[@REV]]", required=False)
@options.endpoint
@options.common
def probe(*, settings: Settings, repo: str | None, as_json: bool, quiet: bool) -> None:
    """Probe each mirror with a small request; with REPO also with a few MiB of its largest file.

    The results are recorded for later downloads. The exit code is 6 if every probe fails.
    """
    online(settings)
    ref = Reference.parse(repo) if repo else None
    readings = run_interruptible(_probe(settings, ref, quiet=quiet), interrupted=INTERRUPTED)
    if as_json:
        echo(json.dumps({"mirrors": [dataclasses.asdict(reading) for reading in readings]}))
    else:
        header = ("MIRROR", "ENDPOINT", "CONNECT", "FIRST BYTE", "RATE", "RESULT")
        echo(aligned(header, [_read(reading) for reading in readings]))
    if all(reading.error for reading in readings):
        raise Unavailable("the probe of every mirror failed", hint="check the network and the mirrors")


async def _probe(settings: Settings, ref: Reference | None, *, quiet: bool) -> list[ProbeReading]:
    def note(line: str) -> None:
        if not quiet:
            echo(line, err=True)

    return await measurement(settings).measure(await sample_of(settings, ref, note) if ref else None)


def _known(standing: MirrorStatus) -> tuple[str, ...]:
    speed = milliseconds(standing.connect), milliseconds(standing.first_byte), rate(standing.rate)
    where = standing.name, standing.endpoint, " ".join(standing.repos) or "all"
    return *where, standing.state.value, *speed, standing.reason or "-"


def _read(reading: ProbeReading) -> tuple[str, ...]:
    speed = milliseconds(reading.connect), milliseconds(reading.first_byte), rate(reading.rate)
    return reading.name, reading.endpoint, *speed, reading.error or "ok"
