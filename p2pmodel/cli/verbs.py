"""The table of verbs, imported when called, and the translation of their errors into a line and an exit code."""

import importlib
import os
import sys
from collections.abc import Callable

import click
from click.shell_completion import shell_complete

from p2pmodel import __version__
from p2pmodel.cli.terminal.output import echo
from p2pmodel.errors import Interrupted, InvalidInput, P2PModelError
from p2pmodel.os_errors import translate

_VERBS = {
    "alias": ("p2pmodel.cli.alias:alias", "Move names such as stable from commit to commit at the coordinators."),
    "audit": ("p2pmodel.cli.audit:audit", "Show, verify and export the audit logs."),
    "bootstrap": ("p2pmodel.cli.cluster.bootstrap:bootstrap", "Bring a snapshot onto every host of a cluster, by ssh."),
    "ca": ("p2pmodel.cli.trust.authority:ca", "Make a certificate authority for a cluster, and certificates."),
    "bundle": ("p2pmodel.cli.trust.bundle:bundle", "Move a snapshot in one archive, to a machine without a network."),
    "cache": ("p2pmodel.cli.snapshots.cache:cache", "Show the space of the cache, pin snapshots, remove unused ones."),
    "cancel": ("p2pmodel.cli.transfers.commands:cancel", "Remove a transfer from the daemon; its files stay."),
    "chat": ("p2pmodel.cli.serving.chat:chat", "Fetch a model, load it, and talk to it in the terminal."),
    "config": ("p2pmodel.cli.config:config", "Show the settings that commands use here."),
    "coordinator": (
        "p2pmodel.cli.coordinator:coordinator",
        "Serve the coordinator: tracker, catalog of torrents, leases.",
    ),
    "daemon": ("p2pmodel.cli.daemon:daemon", "Run this machine's node: downloads, seeding, hub endpoint."),
    "doctor": ("p2pmodel.cli.cluster.doctor:doctor", "Check this machine, and what a snapshot needs on it."),
    "env": ("p2pmodel.cli.config:env", "Print the environment for Hugging Face clients of the daemon."),
    "fetch": ("p2pmodel.cli.fetch.fetch:fetch", "Download a snapshot into the Hugging Face cache; optionally load it."),
    "follow": ("p2pmodel.cli.transfers.status:follow", "Show what the daemon downloads by itself, and when."),
    "help": ("p2pmodel.cli.help:help_command", "Print the help of a command or a topic."),
    "import": (
        "p2pmodel.cli.snapshots.commands:import_dir",
        "Import a directory into the cache as a snapshot.",
    ),
    "limits": ("p2pmodel.cli.transfers.commands:limits", "Show or change the daemon's rate limits for peers."),
    "ls": ("p2pmodel.cli.snapshots.commands:ls", "List the snapshots in the cache."),
    "mirror": ("p2pmodel.cli.mirror.serve:mirror", "Serve this cache as a Hugging Face endpoint."),
    "mirrors": ("p2pmodel.cli.mirrors.commands:mirrors", "Show, probe, benchmark and watch the mirrors."),
    "pause": ("p2pmodel.cli.transfers.commands:pause", "Pause a transfer of the daemon."),
    "provenance": (
        "p2pmodel.cli.trust.sign:provenance",
        "Show what vouches for the files of a snapshot: mirrors, signers, sync log.",
    ),
    "ready": ("p2pmodel.cli.transfers.commands:ready", "Report to the daemon that an inference engine serves a model."),
    "resume": ("p2pmodel.cli.transfers.commands:resume", "Resume a transfer of the daemon."),
    "rollout": ("p2pmodel.cli.rollout.commands:rollout", "Show, watch and end the roll-outs of a cluster."),
    "rm": ("p2pmodel.cli.snapshots.commands:rm", "Remove a snapshot from the cache."),
    "seed": ("p2pmodel.cli.seed:seed", "Mirror and verify a snapshot, build its torrent, and seed it."),
    "serve": (
        "p2pmodel.cli.serving.serve:serve",
        "Fetch a model, load it, and serve it as an OpenAI endpoint with a page.",
    ),
    "sign": ("p2pmodel.cli.trust.sign:sign", "Sign the files of a snapshot, or a torrent, with an SSH key."),
    "status": ("p2pmodel.cli.transfers.status:status", "Show the transfers of the daemon."),
    "storage-initializer": (
        "p2pmodel.cli.cluster.storage_initializer:storage_initializer",
        "Bring a model into a folder, as KServe asks.",
    ),
    "token": ("p2pmodel.cli.token:token", "Issue, list and revoke machine tokens."),
    "torrent": ("p2pmodel.cli.snapshots.torrent:torrent", "Create a .torrent of a snapshot, or show one."),
    "update": ("p2pmodel.cli.fetch.update:update", "Move what is in the cache to the newest commits of its branches."),
    "verify": ("p2pmodel.cli.snapshots.verify:verify", "Hash every file of a snapshot in the cache again."),
    "wait": ("p2pmodel.cli.snapshots.wait:wait", "Wait until a snapshot is complete and verified here."),
    "why": ("p2pmodel.cli.transfers.status:why", "Show what limits the rate of a transfer, with advice."),
}
"""`module:command` and summary of each verb; `p2pmodel --help` lists them without importing any."""


_COMPLETE = "_P2PMODEL_COMPLETE"
"""Environment variable that a shell's completion script sets (see click)."""


def _command(verb: str) -> click.Command | None:
    """The command of a verb, which is imported; None if there is no such verb."""
    if verb not in _VERBS:
        return None
    module, _, attribute = _VERBS[verb][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


class _Verbs(click.Group):
    """Imports a verb's module when it is called: `p2pmodel --help` imports neither libtorrent nor torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        return _command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in sorted(_VERBS.items())])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="p2pmodel")
def verbs() -> None:
    """One verified copy of a model across the slow link, then line rate inside the cluster.

    stdout carries the result (a path, or one JSON object with --json); everything else goes to stderr.
    Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 access, 5 integrity, 6 no answer in time,
    7 this machine (disk, port), 8 a part only (of hosts, of updates), 130 interrupted.
    """


def _invoke(args: list[str]) -> None:
    """As `verbs.main`, but without the empty line that it prints on an interrupt."""
    wanted = os.environ.get(_COMPLETE)
    if wanted:
        try:
            code = shell_complete(verbs, {}, "p2pmodel", _COMPLETE, wanted)
        except (KeyError, ValueError):
            text = f"{_COMPLETE} is set, and COMP_WORDS and COMP_CWORD are not what a shell sets"
            raise InvalidInput(text, hint=f"unset {_COMPLETE}") from None
        raise click.exceptions.Exit(code)
    with verbs.make_context("p2pmodel", args) as ctx:
        verbs.invoke(ctx)


def execute(imported: Callable[[], object] = lambda: None) -> tuple[str, int]:
    """Run the verb in sys.argv. Returns the error line ("" if there is none) and the exit code. `imported` is called
    between the import of the verb and its run."""
    try:
        _command(sys.argv[1] if len(sys.argv) > 1 else "")
        imported()
        _invoke(sys.argv[1:])
    except click.exceptions.Exit as error:
        return "", error.exit_code
    except BrokenPipeError:
        # The reader of stdout has closed it (`p2pmodel ... | head`): end without a message.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "", 1
    except click.ClickException as error:
        return _line(error), error.exit_code
    except Exception as error:  # the outermost handler: every failure is one line, never a traceback
        if os.environ.get("P2PMODEL_DEBUG") and not isinstance(error, P2PModelError | click.Abort):
            raise
        known = Interrupted("interrupted") if isinstance(error, click.Abort) else translate(error)
        return str(known), known.exit_code
    return "", 0


def _line(error: click.ClickException) -> str:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        echo(error.format_message(), err=True)
        return ""
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "p2pmodel"
        return f"{error.format_message().removesuffix('.')}; see '{where} --help'"
    return error.format_message()
