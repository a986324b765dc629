"""`p2pmodel limits`: show or change the daemon's rate limits."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.transfers.daemon_client import connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.views import LimitsView, RateLimits
from p2pmodel.core.sizes import human


@click.command()
@click.option(
    "--upload", callback=options.size, metavar="SIZE", help="Upload limit for all peers together, bytes/s; 0: no limit."
)
@click.option(
    "--download",
    callback=options.size,
    metavar="SIZE",
    help="Download limit for all sources together, bytes/s; 0: no limit.",
)
@options.server
@options.common
def limits(*, settings: Settings, upload: int | None, download: int | None, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Show the daemon's rate limits, or change them until the daemon restarts.

    The schedules of the settings (`daemon.upload_schedule`, `daemon.download_schedule`) take precedence.
    """
    view = run_interruptible(_limits(settings, upload, download), interrupted="interrupted")
    if as_json:
        echo(json.dumps(dataclasses.asdict(view)))
    else:
        echo(f"up    {_words(view.upload, view.upload_now)}")
        echo(f"down  {_words(view.download, view.download_now)}")


async def _limits(settings: Settings, upload: int | None, download: int | None) -> LimitsView:
    async with connected(settings) as client:
        now = await client.limits()
        if upload is None and download is None:
            return now
        changed = RateLimits(now.upload if upload is None else upload, now.download if download is None else download)
        return await client.limit(changed)


def _words(base: int, now: int) -> str:
    words = f"{human(base)}/s" if base else "no limit"
    if base == now:
        return words
    return f"{words}; by schedule now {f'{human(now)}/s' if now else 'no limit'}"
