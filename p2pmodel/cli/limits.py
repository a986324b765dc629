"""`p2pmodel limits`: how much the node's daemon exchanges with its peers."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.run import run
from p2pmodel.cli.transfers import connected
from p2pmodel.config.settings import Settings
from p2pmodel.core.sizes import human
from p2pmodel.core.views import LimitsView, RateLimits


@click.command()
@click.option("--upload", callback=options.size, metavar="SIZE", help="To all peers together, a second; 0: no limit.")
@click.option("--download", callback=options.size, metavar="SIZE", help="From all peers together, a second.")
@options.server
@options.common
def limits(*, settings: Settings, upload: int | None, download: int | None, as_json: bool, quiet: bool) -> None:  # noqa: ARG001
    """Show the daemon's rate limits, or change them until it starts anew.

    Windows of the settings (`daemon.upload_schedule`, `daemon.download_schedule`) go before them.
    """
    view = run(_limits(settings, upload, download), interrupted="interrupted")
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(view)))
    else:
        click.echo(f"up    {_words(view.upload, view.upload_now)}")
        click.echo(f"down  {_words(view.download, view.download_now)}")


async def _limits(settings: Settings, upload: int | None, download: int | None) -> LimitsView:
    async with connected(settings) as client:
        now = await client.limits()
        if upload is None and download is None:
            return now
        kept = RateLimits(now.upload if upload is None else upload, now.download if download is None else download)
        return await client.limit(kept)


def _words(base: int, now: int) -> str:
    said = f"{human(base)}/s" if base else "no limit"
    if base == now:
        return said
    return f"{said}; at this time of day {f'{human(now)}/s' if now else 'no limit'}"
