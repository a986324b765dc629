"""`p2pmodel storage-initializer`: KServe's contract for what brings a model into a container's volume."""

import os
import tempfile
from pathlib import Path

import click

from p2pmodel.cli.fetch.fetch import fetch
from p2pmodel.cli.option_types import PathName
from p2pmodel.core.content.names import Reference, printable
from p2pmodel.core.files.private_files import write_private
from p2pmodel.errors import InvalidInput

TOKEN = "COORDINATOR_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the coordinators' token: KServe passes a secret of such a container in no other way."""
_FILE = "P2PMODEL_COORDINATOR_TOKEN_FILE"
_SCHEME = "hf://"


@click.command("storage-initializer")
@click.argument("source", metavar="hf://ORG/NAME[:REV]")
@click.argument("folder", metavar="FOLDER", type=PathName())
def storage_initializer(source: str, folder: Path) -> None:
    """Bring the files of a model into FOLDER, as KServe asks its storage initializers: SRC /mnt/models.

    The files come through the swarm, and are verified. The coordinators' token may be in the environment variable
    COORDINATOR_TOKEN; all else is set as for 'p2pmodel fetch'.
    """
    arguments = [str(reference_of(source)), "--local-dir", str(folder), "--progress", "plain"]
    token = os.environ.get(TOKEN)
    if not token:
        fetch.main(arguments, "p2pmodel fetch", standalone_mode=False)
        return
    with tempfile.TemporaryDirectory(prefix="p2pmodel-") as private:
        file = Path(private) / "member.token"
        write_private(file, f"{token}\n".encode())
        os.environ[_FILE] = str(file)
        try:
            fetch.main(arguments, "p2pmodel fetch", standalone_mode=False)
        finally:
            del os.environ[_FILE]


def reference_of(source: str) -> Reference:
    """The snapshot of a KServe URI, which has a colon before the revision. Raises InvalidInput."""
    name, _, revision = source.removeprefix(_SCHEME).partition(":")
    if not source.startswith(_SCHEME):
        raise InvalidInput(f"'{printable(source)}' is not the URI of a model", hint=f"write {_SCHEME}ORG/NAME[:REV]")
    return Reference.parse(name, revision=revision or None)
