"""`p2pmodel bootstrap`: what it refuses before it connects to any host."""

import importlib.util

import pytest

from tests.support.command_line import CommandLine

RUN = ("bootstrap", "org/model", "--hosts")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("",), "names no host"),
        (("gpu[1-",), "is not a node set"),
        (("gpu1,root@gpu2",), "is not the name of a host"),
        (("@none.txt",), "cannot be read"),
        (("gpu[1-3]", "--limit", "gpu[3-5]"), "gpu[4-5]"),
        (("gpu1", "--min-ready", "120%"), "120%"),
        (("gpu1", "--min-ready", "2"), "2"),
        (("gpu1", "--coordinator", "http://user:pass@gpu1:6969"), "user name or password"),
        (("gpu1", "--coordinator", "-oProxyCommand=x"), "is not the name of a host"),
        (("gpu1", "--timeout", "soon"), "is not a time"),
        (("gpu1", "--command", "'"), "--command"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(cli: CommandLine, options: tuple[str, ...], text: str) -> None:
    line = cli.refuses(2, *RUN, *options)
    assert text in line


def test_without_the_extra_its_name_is_the_hint(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "asyncssh" else found(name))
    assert "p2pmodel[cluster]" in cli.refuses(7, *RUN, "gpu1")


def test_a_snapshot_that_no_source_knows_ends_it_before_any_host(cli: CommandLine) -> None:
    done = cli(*RUN, "no-such-host.invalid", "--progress", "plain")
    assert done.code in (3, 6)
    assert "preflight" not in done.err
