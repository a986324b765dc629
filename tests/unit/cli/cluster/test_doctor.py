"""`p2pmodel doctor`: the preflight of one machine."""

import io
import json
from pathlib import Path

import pytest

from p2pmodel.core.content.manifest import Manifest, ManifestFile
from p2pmodel.core.content.names import RepoId
from tests.support.command_line import CommandLine

TRUST = {"P2PMODEL_SWARM_TRUST": "coordinator"}


def manifest(size: int) -> str:
    files = (ManifestFile("model.safetensors", size, "a" * 40, "b" * 64),)
    return json.dumps(Manifest(RepoId("org/model"), "c" * 40, files).to_dict())


def test_a_sound_machine_passes_and_says_what_a_launcher_needs(cli: CommandLine) -> None:
    found = json.loads(cli.ok("doctor", "--json", **TRUST))
    assert found["passed"]
    assert found["node"]["socket"].endswith("p2pmodel.sock")
    assert found["snapshot"] is None


def test_a_snapshot_that_does_not_fit_fails_with_every_check_shown(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(manifest(1 << 45))
    done = cli("doctor", "--manifest", file, **TRUST)
    assert done.code == 7
    assert "disk" in done.out
    assert "open files" in done.out
    assert "to fetch" in done.out
    assert "1 of " in done.err


def test_a_manifest_may_come_from_stdin(cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(manifest(1000).encode())))
    found = json.loads(cli.ok("doctor", "--manifest", "-", "--json", **TRUST))
    assert found["snapshot"]["missing"] == 1000


def test_a_reference_that_no_source_knows_is_a_failed_check(cli: CommandLine) -> None:
    done = cli("doctor", "org/model", "--json", **TRUST)
    assert done.code == 7
    failed = [check["name"] for check in json.loads(done.out)["checks"] if check["outcome"] == "failed"]
    assert failed == ["snapshot"]


@pytest.mark.parametrize("text", ["{", "[]", '{"repo": "org/model"}'])
def test_a_malformed_manifest_is_one_clear_line(cli: CommandLine, tmp_path: Path, text: str) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(text)
    done = cli("doctor", "--manifest", file)
    assert (done.code, done.out) in ((2, ""), (5, ""))
    assert "manifest" in done.err


def test_loading_needs_a_model(cli: CommandLine) -> None:
    assert "name the REPO" in cli.refuses(2, "doctor", "--load")
