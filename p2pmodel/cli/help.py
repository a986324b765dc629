"""`p2pmodel help`: the help of a command, or a topic that concerns all commands."""

from collections.abc import Callable

import click

from p2pmodel.cli.terminal.output import aligned, echo
from p2pmodel.config.complaints import setting_keys, variable_of
from p2pmodel.errors import InvalidInput, P2PModelError


def _settings() -> str:
    rows = [(key, variable_of(key)) for key in setting_keys()]
    return (
        "Settings come from, each overriding the one before: defaults, the settings file, environment variables,\n"
        "options. The file is --config FILE, else $P2PMODEL_CONFIG, else ~/.config/p2pmodel/p2pmodel.toml.\n"
        "'p2pmodel config show' prints the values in effect.\n\n" + aligned(("SETTING", "VARIABLE"), rows)
    )


def _exit_codes() -> str:
    codes: dict[int, list[str]] = {0: ["done"]}
    pending = [P2PModelError]
    while pending:
        kind = pending.pop(0)
        codes.setdefault(kind.exit_code, []).append(kind.code)
        pending += kind.__subclasses__()
    rows = [(str(code), ", ".join(sorted(set(codes[code])))) for code in sorted(codes)]
    return "With --json and from HTTP services an error has one of these codes.\n\n" + aligned(("EXIT", "CODES"), rows)


def _files() -> str:
    rows = [
        ("~/.config/p2pmodel/p2pmodel.toml", "settings file, mode 0600 if it holds a secret"),
        ("$HF_HUB_CACHE, $HF_HOME/hub", "Hugging Face cache: snapshots, blobs, and unfinished files in .p2pmodel"),
        ("$XDG_STATE_HOME/p2pmodel", "state: transfers of the daemon, measured mirrors, records, tokens"),
        ("$XDG_RUNTIME_DIR/p2pmodel.sock", "control socket of the daemon"),
    ]
    return aligned(("FILE", "CONTENT"), rows)


TOPICS: dict[str, tuple[str, Callable[[], str]]] = {
    "exit-codes": ("exit codes, and the codes of errors", _exit_codes),
    "files": ("files that commands read and write", _files),
    "settings": ("settings and their environment variables", _settings),
}


@click.command("help")
@click.argument("words", metavar="[COMMAND...|TOPIC]", nargs=-1)
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Print the help of a command, or of a topic: exit-codes, files, settings."""
    if words[:1] and words[0] in TOPICS:
        echo(TOPICS[words[0]][1]())
        return
    assert ctx.parent is not None
    where, command = ctx.parent, ctx.parent.command
    for word in words:
        found = command.get_command(where, word) if isinstance(command, click.Group) else None
        if found is None:
            raise InvalidInput(
                f"there is no help about '{' '.join(words)}'",
                hint=f"'p2pmodel --help' lists the commands; topics are {', '.join(sorted(TOPICS))}",
            )
        where, command = click.Context(found, info_name=word, parent=where), found
    echo(command.get_help(where))
    if not words:
        echo("\nTopics of 'p2pmodel help TOPIC':\n" + "\n".join(f"  {n:<12}{TOPICS[n][0]}" for n in sorted(TOPICS)))
