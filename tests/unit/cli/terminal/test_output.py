"""What is printed: no name and no text of others controls the terminal, and programs get results byte by byte."""

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmodel.cli.terminal.output import echo, result, visible
from p2pmodel.coordinator.tokens import announce_url
from p2pmodel.core.network.tokens import announce_key
from tests.support.command_line import CommandLine
from tests.support.torrent_files import SMALL, torrent_of

NASTY = "\x1b[2J\x9b31m\u202egpj.exe\u2066\u200f\u2028\ud800"
CLI = Path(__file__).parents[3] / "p2pmodel/cli"


@given(st.text())
def test_only_characters_that_are_shown_lines_and_tabs_remain(text: str) -> None:
    assert all(c in "\n\t" or c.isprintable() for c in visible(text))
    assert len(visible(text)) == len(text)


def test_plain_text_stays_as_it_is() -> None:
    text = "Qwen/Qwen3-VL\t通义千问 é 🤗\n1.0 GB"
    assert visible(text) == text


@pytest.mark.parametrize("err", [True, False])
def test_echo_shows_no_control_or_direction(capfd: pytest.CaptureFixture[str], err: bool) -> None:
    echo(f"a{NASTY}b", err=err)
    said = capfd.readouterr()
    assert (said.err if err else said.out) == f"a{visible(NASTY)}b\n"


def test_a_result_is_exact_for_a_program_and_harmless_on_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.fsdecode(b"/cache/\xff\x1b[2J")
    result(path)
    sys.stdout.flush()
    assert "\x1b[2J" in capfd.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    result(path)
    assert capfd.readouterr().out == "/cache/\ufffd\ufffd[2J\n"


def test_every_module_of_the_command_line_prints_through_echo() -> None:
    found = [
        str(path)
        for path in CLI.rglob("*.py")
        if path.name != "output.py" and re.search(r"click\.s?echo|\bprint\(|stdout\.write", path.read_text())
    ]
    assert [path for path in found if not path.endswith(("/console.py", "_screen.py"))] == []


def test_json_is_always_escaped() -> None:
    package = CLI.parent
    assert [str(p) for p in package.rglob("*.py") if "ensure_ascii=False" in p.read_text()] == []


def test_a_file_name_in_a_torrent_controls_no_terminal(cli: CommandLine) -> None:
    path = cli.home / "t.torrent"
    path.write_bytes(torrent_of({"config.json": b"{}", "a\x9b31m\u202egpj.exe": b"x" * 100}))
    shown = cli.ok("torrent", "show", path)
    assert "a\ufffd31m\ufffdgpj.exe" in shown
    assert all(c == "\n" or c.isprintable() for c in shown)
    assert cli.ok("torrent", "show", path, "--json").isascii()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_announce_keys_of_a_torrent_are_not_shown(cli: CommandLine, options: tuple[str, ...]) -> None:
    path, token, passkey = cli.home / "t.torrent", "t" * 16, "0123456789abcdef0123456789abcdef"
    trackers = (announce_url("http://10.0.0.1:6969", token), f"https://tracker.example/{passkey}/announce?id={passkey}")
    path.write_bytes(torrent_of(SMALL, trackers=trackers))
    shown = cli.ok("torrent", "show", path, *options)
    assert [secret for secret in (announce_key(token), passkey) if secret in shown] == []
    assert shown.count("http://10.0.0.1:6969/announce") == 1
    assert shown.count("https://tracker.example/announce") == 1
    assert "tr=http:%2F%2F10.0.0.1:6969%2Fannounce&" in shown
    assert passkey in path.read_bytes().decode(errors="replace")


@pytest.mark.parametrize(
    "target",
    [
        f"magnet:?xt=urn:btmh:1220{'0' * 64}&tr=http://10.0.0.1:6969/announce/s3cr3t&dn={'x' * 40_000}",
        "magnet:?xt=urn:btih:1&tr=http://10.0.0.1:6969/announce/s3cr3t",
        "http://10.0.0.1:0/announce/s3cr3t",
    ],
)
def test_a_target_that_is_none_is_refused_without_the_keys_in_it(cli: CommandLine, target: str) -> None:
    assert "s3cr3t" not in cli.refuses(2, "fetch", target)


def test_an_error_with_words_of_others_controls_no_terminal(cli: CommandLine) -> None:
    assert "\ufffd" in cli.refuses(2, "ls", "--config", "no-such\x9b31m\u202e")
