"""The page of the command line: usage, arguments and options of every verb, from the click commands."""

import inspect
from collections.abc import Iterator

import click

from p2pmodel.cli.verbs import verbs
from scripts.documentation.markdown import code, page, prose, table

_INTRO = "`-h` and `--help` exist for every verb. Exit codes: [errors](errors.md)."


def text() -> str:
    """The page."""
    commands = list(_commands(verbs, None, "p2pmodel"))
    leaves = [(ctx, command) for ctx, command in commands if not isinstance(command, click.Group)]
    overview = [(f"[{code(ctx.command_path)}]({_anchor(ctx)})", _summary(command)) for ctx, command in leaves]
    sections = [block for ctx, command in leaves for block in _section(ctx, command)]
    about = "\n\n".join(_paragraphs(verbs))
    return page("Command line", about, _INTRO, table(("verb", "purpose"), overview), *sections)


def _commands(
    command: click.Command, parent: click.Context | None, name: str
) -> Iterator[tuple[click.Context, click.Command]]:
    ctx = click.Context(command, parent=parent, info_name=name, terminal_width=80, max_content_width=80)
    yield ctx, command
    if isinstance(command, click.Group):
        for below in command.list_commands(ctx):
            found = command.get_command(ctx, below)
            if found is not None and not found.hidden:
                yield from _commands(found, ctx, below)


def _section(ctx: click.Context, command: click.Command) -> Iterator[str]:
    yield f"## {ctx.command_path}"
    yield f"```\n{ctx.command_path} {' '.join(command.collect_usage_pieces(ctx))}\n```"
    yield from _paragraphs(command)
    shared = command.get_help_option(ctx)
    records = [each.get_help_record(ctx) for each in command.get_params(ctx) if each is not shared]
    options = [(code(names), meaning) for names, meaning in filter(None, records)]
    if options:
        yield table(("option", "meaning"), options)


def _paragraphs(command: click.Command) -> list[str]:
    """The help text, a paragraph each. A paragraph that click must not wrap is shown as it is written."""
    found = []
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0] == "\b":
            found.append("```\n" + "\n".join(lines[1:]) + "\n```")
        else:
            found.append(prose(paragraph))
    return found


def _summary(command: click.Command) -> str:
    return _paragraphs(command)[0]


def _anchor(ctx: click.Context) -> str:
    return "#" + ctx.command_path.replace(" ", "-")
