from collections.abc import Callable, Sequence

import click
import pytest

from p2pmodel.cli.verbs import verbs


def parse(arguments: Sequence[str]) -> dict[str, object]:
    """The options of the command that `p2pmodel ARGUMENTS` would run; click.UsageError if it would refuse them."""
    return options(verbs.make_context("p2pmodel", list(arguments)))


def options(ctx: click.Context) -> dict[str, object]:
    if not isinstance(ctx.command, click.Group):
        return ctx.params
    name, command, rest = ctx.command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
    assert command is not None
    return options(command.make_context(name, rest, parent=ctx))


@pytest.fixture
def parsed() -> Callable[[Sequence[str]], dict[str, object]]:
    return parse
