"""`p2pmodel pause`, `resume`, `cancel`, `ready` and `limits`: changes to transfers of the daemon and their rates."""

import dataclasses
import json

import click

from p2pmodel.cli import options
from p2pmodel.cli.completion import repositories
from p2pmodel.cli.option_types import Number
from p2pmodel.cli.signals import run_interruptible
from p2pmodel.cli.terminal.output import echo
from p2pmodel.cli.transfers.daemon_client import command_each, connected
from p2pmodel.client import Client
from p2pmodel.config.settings import Settings
from p2pmodel.core.progress.views import EngineState, LimitsView, RateLimits, TransferView
from p2pmodel.core.sizes import human
from p2pmodel.errors import InvalidInput

_ENGINE_STATES: dict[str, tuple[EngineState, str]] = {
    "loaded": ("loaded", "served by an engine:"),
    "off": ("none", "no longer served by an engine:"),
    "loading": ("loading", "an engine loads"),
    "answered": ("answered", "an engine has answered with"),
    "failed": ("failed", "an engine could not load"),
}


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.server
@options.common
def pause(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Stop downloading and seeding the transfers of REPO until they are resumed."""
    command_each(settings, repo, Client.pause, "paused", as_json=as_json, quiet=quiet)


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.server
@options.common
def resume(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Continue the transfers of REPO that are paused or failed."""
    command_each(settings, repo, Client.resume, "resumed", as_json=as_json, quiet=quiet)


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@options.server
@options.common
def cancel(*, settings: Settings, repo: str, as_json: bool, quiet: bool) -> None:
    """Remove the transfers of REPO from the daemon. Their files stay, and a new fetch resumes from them."""
    command_each(settings, repo, Client.cancel, "cancelled", as_json=as_json, quiet=quiet)


@click.command()
@click.argument("repo", metavar="REPO[@REV]", shell_complete=repositories)
@click.option(
    "--for",
    "seconds",
    type=Number(min=0, min_open=True, max=30 * 86400),
    metavar="SECONDS",
    help="Expire after this time unless renewed (default: until --off or a restart of the daemon).",
)
@click.option("--off", is_flag=True, help="Report that the engine no longer serves the model.")
@click.option("--loading", is_flag=True, help="Report that the engine loads the model.")
@click.option("--answered", is_flag=True, help="Report that the engine has answered a request.")
@click.option("--failed", is_flag=True, help="Report that the engine could not load the model.")
@options.socket
@options.common
def ready(*, settings: Settings, repo: str, seconds: float | None, as_json: bool, quiet: bool, **flags: bool) -> None:
    """Report that an inference engine on this machine serves REPO, for the metric `engine_ready` and for roll-outs.

    Start and health hooks of inference engines call it.
    """
    given = [flag for flag, is_given in flags.items() if is_given]
    if len(given) > 1:
        raise InvalidInput(f"--{given[0]} and --{given[1]} exclude each other", hint="give one of them")
    state, done = _ENGINE_STATES[given[0] if given else "loaded"]

    async def report(client: Client, ident: str) -> TransferView:
        return await client.engine(ident, state, seconds=None if state == "none" else seconds)

    command_each(settings, repo, report, done, as_json=as_json, quiet=quiet)


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
