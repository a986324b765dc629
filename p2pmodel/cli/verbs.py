"""All verbs, loaded as they are called, and what becomes of their errors."""

import importlib
import os
import sys
from typing import Any

import click

from p2pmodel import __version__
from p2pmodel.errors import Interrupted, P2PModelError
from p2pmodel.os_errors import translate

_VERBS = {
    "fetch": ("p2pmodel.cli.fetch:fetch", "Bring a snapshot into the Hugging Face cache, and load it if asked."),
    "import": ("p2pmodel.cli.import_dir:import_dir", "Put the files of a directory into the cache as a snapshot."),
    "mirror": ("p2pmodel.cli.mirror:mirror", "Serve this cache as a Hugging Face endpoint."),
    "mirrors": ("p2pmodel.cli.mirrors:mirrors", "Measure the mirrors that downloads come from."),
    "seed": ("p2pmodel.cli.seed:seed", "Mirror and verify a snapshot, make its torrent, and seed it."),
    "torrent": ("p2pmodel.cli.torrent:torrent", "Make a .torrent of a snapshot, or say what one holds."),
    "tracker": ("p2pmodel.cli.tracker:tracker", "Let seeders and peers find each other."),
    "verify": ("p2pmodel.cli.verify:verify", "Hash every file of a snapshot in the cache anew."),
}
"""Where a verb is, and what it does in a line: `p2pmodel --help` lists them without loading any."""


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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # click itself would say an empty line first
            raise Interrupted("interrupted") from None


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pmodel")
def verbs() -> None:
    """One verified copy of a model across the slow link, then line rate inside the cluster.

    stdout carries the result (a path, or one JSON object with --json); everything else goes to stderr.
    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 access, 5 integrity, 6 nobody answered in time,
    7 this machine (disk, port), 8 part of the cluster, 130 interrupted.
    """


def execute() -> tuple[str, int]:
    """Run the verb that sys.argv names. Returns the line to say about its failure, if any, and the exit code."""
    try:
        verbs.main(prog_name="p2pmodel", standalone_mode=False)
    except click.exceptions.Exit as error:
        return "", error.exit_code
    except BrokenPipeError:
        # The reader of stdout went away (`p2pmodel ... | head`): nothing to say, and nobody to say it to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "p2pmodel"
        return f"{error.format_message().removesuffix('.')}; see '{where} --help'", error.exit_code
    except click.ClickException as error:
        return error.format_message(), error.exit_code
    except Exception as error:  # the last edge: a user never sees a traceback
        if os.environ.get("P2PMODEL_DEBUG") and not isinstance(error, P2PModelError | click.Abort):
            raise
        known = Interrupted("interrupted") if isinstance(error, click.Abort) else translate(error)
        return str(known), known.exit_code
    return "", 0
