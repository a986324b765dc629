"""Completion as a shell asks for it, and the topics of `p2pmodel help`."""

from pathlib import Path

import pytest

from p2pmodel.cli.help import TOPICS
from p2pmodel.core.content.names import Reference
from p2pmodel.store.cache import HubCache
from tests.support.command_line import CommandLine
from tests.support.stored import publish


def completed(cli: CommandLine, line: str) -> list[str]:
    words = line.split(" ")
    env = {"_P2PMODEL_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return [each.partition(",")[2] for each in cli(**env).out.splitlines() if each]


def test_repositories_and_revisions_of_the_cache_are_completed(cli: CommandLine) -> None:
    cache = HubCache(cli.hub)
    publish(cache, refs=("main", "v1.0"))
    [commit] = cache.repo(Reference.parse("org/model").repo).commits()
    for verb in ("verify", "rm", "fetch", "pause", "why", "status", "seed"):
        assert completed(cli, f"p2pmodel {verb} org") == ["org/model"], verb
    assert completed(cli, "p2pmodel rm org/model@") == [
        "org/model@main",
        "org/model@v1.0",
        f"org/model@{commit}",
    ]
    assert completed(cli, "p2pmodel rm other/") == []


@pytest.mark.parametrize("line", [{}, {"COMP_WORDS": "p2pmodel rm", "COMP_CWORD": "x"}])
def test_a_variable_of_completion_alone_is_named(cli: CommandLine, line: dict[str, str]) -> None:
    done = cli(_P2PMODEL_COMPLETE="bash_complete", **line)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "unset _P2PMODEL_COMPLETE" in done.err


def test_wrong_settings_or_names_complete_nothing(cli: CommandLine) -> None:
    assert completed(cli, "p2pmodel rm ../x@") == []
    (cli.home / "bad.toml").write_text("nonsense")
    line = {"_P2PMODEL_COMPLETE": "bash_complete", "COMP_WORDS": "p2pmodel rm o", "COMP_CWORD": "2"}
    assert cli(**line, P2PMODEL_CONFIG=str(cli.home / "bad.toml")).out.strip() == ""


def test_commands_and_options_are_completed(cli: CommandLine) -> None:
    assert "fetch" in completed(cli, "p2pmodel f")
    assert "--local-dir" in completed(cli, "p2pmodel fetch --lo")


def test_help_of_commands(cli: CommandLine) -> None:
    assert "Usage: p2pmodel torrent create" in cli.ok("help", "torrent", "create")
    assert "exit-codes" in cli.ok("help")
    assert "topics are exit-codes, files, settings" in cli.refuses(2, "help", "nonsense")


@pytest.mark.parametrize(
    ("topic", "line"),
    [
        ("settings", "swarm.listen"),
        ("settings", "P2PMODEL_SWARM_LISTEN"),
        ("exit-codes", "no_space"),
        ("files", "sock"),
    ],
)
def test_help_of_topics(cli: CommandLine, topic: str, line: str) -> None:
    assert topic in TOPICS
    assert line in cli.ok("help", topic)


def test_there_is_a_test_for_every_topic() -> None:
    assert all(f'("{topic}", ' in Path(__file__).read_text() for topic in TOPICS)
