"""`p2pmodel storage-initializer`: the contract of KServe."""

import os
from pathlib import Path

from p2pmodel.cli.cluster.storage_initializer import reference_of
from tests.support.command_line import CommandLine


def test_the_files_of_a_model_are_in_the_folder(cli: CommandLine, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "mnt/models"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "sub/model.safetensors").write_bytes(b"weights")
    cli.ok("import", source, "org/model@main")
    cli.ok("storage-initializer", "hf://org/model", target, HF_HUB_OFFLINE="1", COORDINATOR_TOKEN="t" * 16)
    assert (target / "sub/model.safetensors").read_bytes() == b"weights"
    assert not (target / "config.json").is_symlink()
    assert "P2PMODEL_COORDINATOR_TOKEN_FILE" not in os.environ


def test_uris_are_those_of_kserve(cli: CommandLine) -> None:
    assert str(reference_of("hf://org/model")) == "org/model@main"
    assert str(reference_of("hf://org/model:v1.0")) == "org/model@v1.0"
    assert "hf://ORG/NAME" in cli.refuses(2, "storage-initializer", "s3://bucket/model", "/mnt/models")


def test_a_model_that_no_source_has_is_an_error_of_fetch(cli: CommandLine, tmp_path: Path) -> None:
    done = cli("storage-initializer", "hf://org/model", tmp_path / "models", HF_HUB_OFFLINE="1")
    assert done.code in (3, 6)
