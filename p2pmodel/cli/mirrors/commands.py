"""`p2pmodel mirrors ls`, `probe` and `watch`: the recorded state of the mirrors, a probe of each, and periodic ones.

Alarms go to stderr, to Prometheus and to a webhook.
"""

import asyncio
import dataclasses
import json
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import click

from p2pmodel.cli import options
from p2pmodel.cli.mirrors.bench import bench
from p2pmodel.cli.option_types import Count, Number
from p2pmodel.cli.signals import run_interruptible, run_service
from p2pmodel.cli.terminal.log import log
from p2pmodel.cli.terminal.output import aligned, echo, milliseconds, rate
from p2pmodel.config.settings import Settings
from p2pmodel.core.content.names import Reference
from p2pmodel.core.network.addresses import ListenAddress
from p2pmodel.errors import P2PModelError, Unavailable
from p2pmodel.http import limits
from p2pmodel.http.admission.access import RequestGuard
from p2pmodel.http.exposition import HEALTH, METRICS
from p2pmodel.http.server import check_exposure, serving
from p2pmodel.node.measure.bench import measurement, online, sample_of
from p2pmodel.node.measure.watch import MirrorWatch, WatchEvent
from p2pmodel.origin.mirrors.measurement import ProbeReading
from p2pmodel.origin.mirrors.mirror import MirrorStatus
from p2pmodel.service.roles.own_address import reachable_urls
from p2pmodel.service.watch import WatchMetrics, Webhook

WATCH_STOPPED = "the watch was stopped"


@click.command()
@click.argument("repo", metavar="[REPO[@REV]]", required=False)
@click.option(
    "--interval",
    "_set_watch__interval",
    type=Number(min=0),
    metavar="S",
    help="Interval between probes, seconds (default: 30).",
)
@click.option(
    "--max-latency-ms",
    "_set_watch__max_latency_ms",
    type=Number(min=0),
    metavar="MS",
    help="Latency above which an alarm is raised (default: 100).",
)
@click.option(
    "--min-mbps",
    "_set_watch__min_mbps",
    type=Number(min=0),
    metavar="MB/S",
    help="Rate below which an alarm is raised (default: 50).",
)
@click.option(
    "--min-samples",
    "_set_watch__min_samples",
    type=Count(min=1),
    metavar="N",
    help="Probes that an alarm takes into account (default: 5).",
)
@click.option(
    "--metrics", "_set_watch__metrics", metavar="ADDRESS:PORT", help="Address to serve /metrics for Prometheus on."
)
@click.option("--insecure-public", is_flag=True, help="Serve the metrics to other machines without a token.")
@click.option("--once", is_flag=True, help="Probe N times without pauses and exit, with code 1 if an alarm is raised.")
@options.endpoint
@options.common
def watch(
    *, settings: Settings, repo: str | None, insecure_public: bool, once: bool, as_json: bool, quiet: bool
) -> None:
    """Probe the mirrors until stopped; raise an alarm once when a mirror becomes slow, and report its recovery once.

    An alarm depends on the median of the last probes: the time to connect, and with REPO the rate of a few MiB of its
    largest file. A failed probe counts as infinitely slow. Alarms are lines on stderr, with --json objects on stdout.
    Exit code 0 after SIGTERM, 130 after SIGINT.
    """
    online(settings)
    ref = Reference.parse(repo) if repo else None
    address = ListenAddress.parse(settings.watch.metrics) if settings.watch.metrics and not once else None
    if address:
        check_exposure(address, protected=False, insecure_public=insecure_public)
    watch = _WatchCommand(settings, ref, as_json=as_json, quiet=quiet)
    if not once:
        run_service(watch.run(address), interrupted=WATCH_STOPPED, reload=options.reload(settings))
    elif raised := run_interruptible(watch.once(), interrupted=WATCH_STOPPED):
        raise P2PModelError(f"{raised} {'alarm is' if raised == 1 else 'alarms are'} raised")


class _WatchCommand:
    """One run of the verb: passes the results of the watch to stderr, stdout, the metrics and the webhook."""

    def __init__(self, settings: Settings, ref: Reference | None, *, as_json: bool, quiet: bool) -> None:
        self._metrics = WatchMetrics()
        self._settings = settings
        self._as_json = as_json
        self._quiet = quiet
        webhook = settings.watch.webhook
        proxies = settings.origin.proxies
        self._webhook = Webhook(webhook.get_secret_value(), self._say, proxies=proxies) if webhook else None
        self._watching = MirrorWatch(settings, ref, self)

    async def once(self) -> int:
        """Probe as often as an alarm takes into account, and return the number of raised alarms."""
        async with AsyncExitStack() as stack:
            if self._webhook:
                await stack.enter_async_context(self._webhook)
            await self._watching.once()
        return self._watching.raised

    async def run(self, address: ListenAddress | None) -> None:
        async with AsyncExitStack() as stack:
            if self._webhook:
                await stack.enter_async_context(self._webhook)
            url = None
            if address:
                bound = await stack.enter_async_context(self._serving(address))
                url = f"{(await asyncio.to_thread(reachable_urls, bound, self._settings))[0]}{METRICS}"
                self.note(f"metrics at {url}")
            if self._as_json:
                echo(json.dumps({"metrics": url}))
            await self._watching.forever()

    def _serving(self, address: ListenAddress) -> AbstractAsyncContextManager[str]:
        """The server of the metrics. They are no secret, and to read them changes nothing."""
        http = self._settings.http
        guard, bounds = RequestGuard.of(http, secured=False, public=(METRICS, HEALTH)), limits.connections(http)
        return serving(self._metrics.app(), address.host, address.port, guard=guard, limits=bounds, note=log)

    def probed(self, readings: list[ProbeReading]) -> None:
        self._metrics.observe(readings)

    def changed(self, event: WatchEvent) -> None:
        self._metrics.changed(event)
        self._say(str(event))
        if self._as_json:
            echo(json.dumps(event.plain()))
        if self._webhook:
            self._webhook.post(event.plain())

    def note(self, line: str) -> None:
        if not self._quiet:
            self._say(line)

    def _say(self, line: str) -> None:
        echo(line, err=True)


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
