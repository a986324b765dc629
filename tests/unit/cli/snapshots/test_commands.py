"""`p2pmodel rm` asks first, and removes what `ls` shows."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from p2pmodel.core.content.names import Reference
from p2pmodel.store.cache import HubCache, RepoCache
from tests.support.command_line import CommandLine
from tests.support.eventually import PATIENCE
from tests.support.stored import publish


@pytest.fixture
def repo(cli: CommandLine) -> RepoCache:
    publish(HubCache(cli.hub), refs=("main",))
    return HubCache(cli.hub).repo(Reference.parse("org/model").repo)


def test_without_a_terminal_it_needs_yes(cli: CommandLine, repo: RepoCache) -> None:
    assert "--yes" in cli.refuses(2, "rm", "org/model")
    assert repo.commits()
    done = cli("rm", "org/model", "--yes")
    assert (done.code, done.out) == (0, "")
    assert "removed org/model@" in done.err
    assert not repo.commits()


def test_a_dry_run_removes_nothing(cli: CommandLine, repo: RepoCache) -> None:
    [commit] = repo.commits()
    said = cli("rm", "Org/Model@main", "--dry-run").err
    assert said == f"would remove org/model@{commit} (main), up to 219.2 kB: blobs of other snapshots stay\n"
    plain = json.loads(cli.ok("rm", f"org/model@{commit[:8]}", "--dry-run", "--json"))
    assert plain == {"repo": "org/model", "commit": commit, "size": 219_222}
    assert repo.commits() == [commit]


@pytest.mark.parametrize(("answer", "code", "left"), [(b"n\n", 130, 1), (b"y\n", 0, 0)])
def test_on_a_terminal_it_asks(cli: CommandLine, repo: RepoCache, answer: bytes, code: int, left: int) -> None:
    ours, theirs = pty.openpty()
    env = {**os.environ, "HOME": str(cli.home), "HF_HUB_CACHE": str(cli.hub), "P2PMODEL_STATE_DIR": str(cli.home / "s")}
    command = [sys.executable, "-m", "p2pmodel", "rm", "org/model"]
    with subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, env=env) as process:
        os.close(theirs)
        os.write(ours, answer)
        _, err = process.communicate(timeout=PATIENCE)
    os.close(ours)
    assert (process.returncode, len(repo.commits())) == (code, left), err
    assert b"remove org/model@" in err
    assert b"[y/N]" in err


def test_what_is_not_there_is_named(cli: CommandLine, repo: RepoCache) -> None:
    assert "is not in this cache" in cli.refuses(3, "rm", "org/model@v9", "--yes")
    assert Path(repo.folder).exists()
