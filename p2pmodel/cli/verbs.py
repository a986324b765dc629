"""All verbs, loaded as they are called, and what becomes of their errors."""

import importlib
import os
import sys

import click
from click.shell_completion import shell_complete

from p2pmodel import __version__
from p2pmodel.errors import Interrupted, P2PModelError
from p2pmodel.os_errors import translate

_VERBS = {
    "cancel": ("p2pmodel.cli.transfers:cancel", "Let the daemon forget a transfer; its files stay."),
    "coordinator": ("p2pmodel.cli.coordinator:coordinator", "Serve a tracker, a catalog of torrents and leases."),
    "daemon": ("p2pmodel.cli.daemon:daemon", "Keep this machine's node, which fetches and serves for all."),
    "env": ("p2pmodel.cli.env:env", "Print what Hugging Face clients need to go through the daemon."),
    "fetch": ("p2pmodel.cli.fetch:fetch", "Bring a snapshot into the Hugging Face cache, and load it if asked."),
    "import": ("p2pmodel.cli.import_dir:import_dir", "Put the files of a directory into the cache as a snapshot."),
    "limits": ("p2pmodel.cli.limits:limits", "Show or change how much the daemon exchanges with peers."),
    "ls": ("p2pmodel.cli.snapshots:ls", "List the snapshots in the cache."),
    "mirror": ("p2pmodel.cli.mirror.serve:mirror", "Serve this cache as a Hugging Face endpoint."),
    "mirrors": ("p2pmodel.cli.mirrors.show:mirrors", "Measure the mirrors that downloads come from."),
    "pause": ("p2pmodel.cli.transfers:pause", "Stop a transfer of the daemon until it is resumed."),
    "ready": ("p2pmodel.cli.ready:ready", "Tell the daemon that an inference engine has a model up."),
    "resume": ("p2pmodel.cli.transfers:resume", "Go on with a transfer of the daemon."),
    "rm": ("p2pmodel.cli.snapshots:rm", "Remove a snapshot from the cache."),
    "seed": ("p2pmodel.cli.seed:seed", "Mirror and verify a snapshot, make its torrent, and seed it."),
    "status": ("p2pmodel.cli.status:status", "Show what the daemon brings here and serves."),
    "torrent": ("p2pmodel.cli.torrent:torrent", "Make a .torrent of a snapshot, or say what one holds."),
    "verify": ("p2pmodel.cli.verify:verify", "Hash every file of a snapshot in the cache anew."),
    "why": ("p2pmodel.cli.why:why", "Say what bounds a transfer of the daemon, and what would help."),
}
"""Where a verb is, and what it does in a line: `p2pmodel --help` lists them without loading any."""


_COMPLETE = "_P2PMODEL_COMPLETE"
"""The variable by which shells ask click for completions."""


class _Verbs(click.Group):
    """Imports a verb's module when it is called: `p2pmodel --help` loads neither libtorrent nor torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _VERBS:
            return None
        module, _, attribute = _VERBS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in sorted(_VERBS.items())])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pmodel")
def verbs() -> None:
    """One verified copy of a model across the slow link, then line rate inside the cluster.

    stdout carries the result (a path, or one JSON object with --json); everything else goes to stderr.
    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 access, 5 integrity, 6 nobody answered in time,
    7 this machine (disk, port), 8 part of the cluster, 130 interrupted.
    """


def _invoke(args: list[str]) -> None:
    """As `verbs.main`, which would say an empty line when it is interrupted."""
    wanted = os.environ.get(_COMPLETE)
    if wanted:
        raise click.exceptions.Exit(shell_complete(verbs, {}, "p2pmodel", _COMPLETE, wanted))
    with verbs.make_context("p2pmodel", args) as ctx:
        verbs.invoke(ctx)


def execute() -> tuple[str, int]:
    """Run the verb that sys.argv names. Returns the line to say about its failure, if any, and the exit code."""
    try:
        _invoke(sys.argv[1:])
    except click.exceptions.Exit as error:
        return "", error.exit_code
    except BrokenPipeError:
        # The reader of stdout went away (`p2pmodel ... | head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    except click.ClickException as error:
        return _line(error), error.exit_code
    except Exception as error:  # the last edge: a user never sees a traceback
        if os.environ.get("P2PMODEL_DEBUG") and not isinstance(error, P2PModelError | click.Abort):
            raise
        known = Interrupted("interrupted") if isinstance(error, click.Abort) else translate(error)
        return str(known), known.exit_code
    return "", 0


def _line(error: click.ClickException) -> str:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return ""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "p2pmodel"
        return f"{error.format_message().removesuffix('.')}; see '{where} --help'"
    return error.format_message()
