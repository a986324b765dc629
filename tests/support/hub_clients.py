"""Real Hugging Face clients, each in its own Python process, that reach only one endpoint."""

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from filelock import FileLock

from tests.conftest import STRICT
from tests.support.eventually import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
OLD_PINS = (
    *("huggingface_hub==0.36.2", "hf-xet==1.8.0", "filelock==4.2.11", "fsspec==2026.9.0", "packaging==26.3"),
    *("PyYAML==6.0.3", "requests==2.34.2", "urllib3==2.8.0", "certifi==2026.10.18", "idna==3.20"),
    *("charset-normalizer==3.5.2", "tqdm==4.70.1", "typing_extensions==4.16.0"),
)
"""The last huggingface_hub of the requests era, which older transformers and vLLM still use."""
ONE_PINS = (
    *("huggingface_hub==1.33.0", "hf-xet==1.8.0", "click==8.5.1", "filelock==4.3.1", "fsspec==2026.9.0"),
    *("httpx==0.28.1", "httpcore==1.0.9", "h11==0.16.0", "anyio==4.16.0", "certifi==2026.10.18", "idna==3.20"),
    *("packaging==26.3", "PyYAML==6.0.3", "tqdm==4.70.1", "typing_extensions==4.16.0"),
)
"""The last huggingface_hub 1.x."""

_NOWHERE = "http://127.0.0.1:9"


@dataclass(frozen=True)
class HubClient:
    """A Python with some huggingface_hub; `home` becomes its HF_HOME."""

    python: Path
    home: Path
    endpoint: str
    token: str | None = None
    patience: float = PATIENCE
    """Seconds that a command may take."""
    ca_file: Path | None = None

    @property
    def hub(self) -> Path:
        return self.home / "hub"

    def script(self, code: str, *args: str) -> Any:
        """Run `code`, which prints one JSON value last; that value."""
        return json.loads(self._run([str(self.python), "-c", code, *args]).splitlines()[-1])

    def hf(self, *args: str) -> str:
        """Run the `hf` command line; its stdout."""
        return self._run([str(self.python.parent / "hf"), *args])

    def _run(self, command: Sequence[str]) -> str:
        # All other addresses go through a proxy that does not exist: no data can come from elsewhere.
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "HF_HOME": str(self.home),
            "HF_ENDPOINT": self.endpoint,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "HTTP_PROXY": _NOWHERE,
            "HTTPS_PROXY": _NOWHERE,
            "NO_PROXY": f"127.0.0.1,{urlsplit(self.endpoint).hostname}",
            **({"HF_TOKEN": self.token} if self.token else {}),
            **(dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(self.ca_file)) if self.ca_file else {}),
        }
        done = subprocess.run(
            command, env=env, cwd=self.home, capture_output=True, text=True, timeout=self.patience, check=False
        )
        assert done.returncode == 0, f"{command[0]} {command[1]}: exit {done.returncode}\n{done.stderr}\n{done.stdout}"
        return done.stdout


@pytest.fixture(scope="session")
def new_hub_python() -> Path:
    """The interpreter of the tests, with the huggingface_hub that p2pmodel itself is pinned to."""
    return Path(sys.executable)


@pytest.fixture(scope="session")
def old_hub_python() -> Path:
    """An interpreter with huggingface_hub 0.36."""
    return python_with("huggingface_hub 0.36", "hub-0.36", OLD_PINS)


@pytest.fixture(scope="session")
def one_hub_python() -> Path:
    """An interpreter with huggingface_hub 1.33."""
    return python_with("huggingface_hub 1.33", "hub-1.33", ONE_PINS)


@pytest.fixture(params=["old_hub_python", "one_hub_python", "new_hub_python"], ids=["hub-0.36", "hub-1", "hub-2"])
def each_hub_python(request: pytest.FixtureRequest) -> Path:
    """Each of them."""
    found: Path = request.getfixturevalue(request.param)
    return found


def python_with(what: str, name: str, pins: Sequence[str]) -> Path:
    """An interpreter with exactly `pins`, in `.venvs/NAME` of the clone; made once. `what` describes the pins in the
    skip message if they cannot be installed."""
    folder = ROOT / ".venvs" / name
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock", timeout=200):
        stamp = folder / "installed.json"
        if not stamp.is_file() or json.loads(stamp.read_text()) != list(pins):
            _install(folder, what, pins)
            stamp.write_text(json.dumps(pins))
    return folder / "bin" / "python"


def _install(folder: Path, what: str, pins: Sequence[str]) -> None:
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--no-deps", *pins], capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        message = f"{what} cannot be installed (is a package index reachable?): {last}"
        if STRICT:
            pytest.fail(message)
        pytest.skip(message)
