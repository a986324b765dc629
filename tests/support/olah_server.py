"""olah, another mirror of Hugging Face, as it is installed from the package index: a Python of its own, on loopback."""

import os
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.foreign_clients import free_port
from tests.support.hub_clients import python_with
from tests.support.processes import PATIENCE, eventually

PINS = (
    *("olah==0.5.4", "annotated-doc==0.0.7", "annotated-types==0.8.0", "anyio==4.16.0", "brotli==1.2.1"),
    *("certifi==2026.10.18", "charset-normalizer==3.5.3", "click==8.5.1", "fastapi==0.165.0", "fastapi-utils==0.8.0"),
    *("filelock==4.3.1", "fsspec==2026.9.0", "gitdb==4.0.12", "GitPython==3.2.1", "h11==0.16.0", "hf-xet==1.8.0"),
    *("httpcore==1.0.9", "httpcore2==2.16.2", "httpx==0.28.1", "httpx2==2.16.2", "huggingface_hub==2.4.0"),
    *("idna==3.20", "Jinja2==3.1.6", "markdown-it-py==4.3.0", "MarkupSafe==3.0.4", "mdurl==0.1.2"),
    *("mypy_extensions==1.2.0", "opentelemetry-api==1.45.2", "packaging==26.3", "peewee==4.5.3", "portalocker==4.4.2"),
    *("psutil==5.9.8", "pydantic==2.14.4", "pydantic-settings==2.16.3", "pydantic_core==2.50.5", "Pygments==2.21.0"),
    *("python-dotenv==1.2.4", "python-multipart==0.0.34", "pytz==2026.6", "PyYAML==6.0.3", "requests==2.34.2"),
    *("rich==15.0.0", "shortuuid==1.0.13", "smmap==5.0.3", "starlette==1.10.0", "tenacity==9.2.1", "toml==0.10.2"),
    *("tqdm==4.70.1", "truststore==0.10.5", "typing-inspect==0.9.0", "typing-inspection==0.4.5"),
    *("typing_extensions==4.16.0", "urllib3==2.8.0", "uvicorn==0.54.0"),
)


class Olah:
    """Starts olah servers, which end with the test."""

    def __init__(self, python: Path, root: Path, stack: ExitStack) -> None:
        self._python = python
        self._root = root
        self._stack = stack

    def start(self, upstream: str, name: str = "olah") -> str:
        """Mirror the hub at the URL `upstream`; the endpoint. Everything it keeps is in the folder `name`."""
        home = self._root / name
        home.mkdir()
        port, hub = free_port(), urlsplit(upstream)
        where = [
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--repos-path",
            home / "repos",
            "--log-path",
            home / "logs",
        ]
        whence = ["--hf-scheme", hub.scheme, "--hf-netloc", hub.netloc, "--hf-lfs-netloc", hub.netloc]
        log = self._stack.enter_context((home / "out.log").open("w"))
        process = subprocess.Popen(
            [self._python, "-m", "olah.server", *where, *whence],
            env={"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8"},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        endpoint = f"http://127.0.0.1:{port}"
        eventually(
            lambda: process.poll() is not None or _answers(endpoint),
            PATIENCE,
            (home / "out.log").read_text,
        )
        assert process.poll() is None, (home / "out.log").read_text()
        return endpoint


def _answers(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(endpoint, timeout=PATIENCE).close()
    except urllib.error.HTTPError as error:
        error.close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def olah_python() -> Path:
    """An interpreter with olah."""
    return python_with("olah", "olah-0.5.4", PINS)


@pytest.fixture
def olah(olah_python: Path, tmp_path: Path) -> Iterator[Olah]:
    """A starter of olah servers."""
    with ExitStack() as stack:
        yield Olah(olah_python, tmp_path, stack)
