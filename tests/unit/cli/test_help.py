"""Help texts of all verbs: one line for each option, ending with a period."""

from collections.abc import Iterator

import click
import pytest

from p2pmodel.cli.verbs import verbs


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")


ALL = dict(commands(verbs, "p2pmodel"))


@pytest.mark.parametrize("path", ALL)
def test_every_option_has_a_help_text_of_one_line(path: str) -> None:
    options = [param for param in ALL[path].params if isinstance(param, click.Option) and not param.hidden]
    texts = {option.opts[0]: option.help or "" for option in options}
    assert {name: text for name, text in texts.items() if not text.endswith(".") or "\n" in text} == {}


@pytest.mark.parametrize("path", ALL)
def test_every_verb_has_a_summary_that_is_a_sentence(path: str) -> None:
    summary = (ALL[path].help or "").partition("\n")[0]
    assert summary[:1].isupper()
    assert len(summary) <= 120
