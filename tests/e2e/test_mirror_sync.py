"""`p2pmodel mirror sync` as an operator runs it."""

import json
from pathlib import Path

import pytest

from tests.support.processes import PATIENCE, Nodes, eventually


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"w" * 3_000_000)
    (folder / "config.json").write_text("{}")
    return folder


def test_a_list_once_and_on_a_schedule(nodes: Nodes, model: Path, tmp_path: Path) -> None:
    hub, _ = nodes.hub(model)
    listed = tmp_path / "repos.txt"
    listed.write_text("# what we mirror\norg/model  # main\n\n")
    first = nodes.ok("mirror", "mirror", "sync", "--list", listed, "--endpoint", hub, "--json", "-q")
    assert first.json["from_mirrors"] == 3_000_002
    path = Path(first.json["path"])
    assert (path / "model.safetensors").stat().st_size == 3_000_000
    again = nodes.ok("mirror", "mirror", "sync", "org/model", "--endpoint", hub)
    assert again.out == f"{path}\n"
    assert "org/model@main is unchanged" in again.err
    running = nodes.start("mirror", "mirror", "sync", "--list", listed, "--every", "1", "--endpoint", hub, "--json")
    eventually(lambda: len(running.out) >= 2, PATIENCE)
    done = running.stop()
    assert done.code == 0
    assert {json.loads(line)["from_mirrors"] for line in done.out.splitlines()} == {0}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "nothing to sync"),
        (("--list", "/nowhere"), "cannot be read"),
        (("org/model", "--every", "soon"), "is not a time"),
        (("org/model", "--every", "0"), "at least one second"),
        (("org/model", "--deny", "org/*", "--endpoint", "http://127.0.0.9:9"), "does not admit"),
    ],
)
def test_invalid_arguments(nodes: Nodes, options: tuple[str, ...], words: str) -> None:
    done = nodes.run("mirror", "mirror", "sync", *options)
    assert done.code == 2
    assert words in done.err
    assert not done.out
