"""A server process with the API of S3 (moto), with one bucket and credentials for it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from p2pmodel.origin.s3.client import BucketPlace, client_of
from tests.support.nginx import free_port
from tests.support.processes import PATIENCE, eventually

BUCKET = "our-models"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "for-tests", "AWS_SECRET_ACCESS_KEY": "never-sent-in-clear"}
ELSEWHERE = {"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}
"""Settings of AWS programs that keep those of this user out."""
ENVIRONMENT = {**CREDENTIALS, **ELSEWHERE, "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class StoreServer:
    """A running server at `url`."""

    url: str

    def place(self, prefix: str = "hf") -> BucketPlace:
        return BucketPlace(BUCKET, prefix, self.url, path_style=True)

    def client(self) -> Any:
        return client_of(self.place())

    def keys(self, prefix: str = "") -> list[str]:
        """The keys of all objects."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


@contextmanager
def s3_server() -> Iterator[StoreServer]:
    """Run the server until the context is left; the environment needs ENVIRONMENT."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env={**os.environ, "FLASK_DEBUG": "0"})
    server = StoreServer(f"http://127.0.0.1:{port}")
    try:
        eventually(lambda: _listens(port), PATIENCE)
        server.client().create_bucket(Bucket=BUCKET)
        yield server
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
