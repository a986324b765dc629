"""schemathesis, a program that asks an API whatever its OpenAPI document allows, and much that it does not."""

import json
import os
import subprocess
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.conftest import STRICT

ROOT = Path(__file__).resolve().parents[2]
PINS = (
    *("schemathesis==4.32.5", "hypothesis==6.170.17", "hypothesis-graphql==0.13.5", "graphql-core==3.3.2"),
    *("jsonschema_rs==0.60.3", "harfile==0.6.0", "pyrate-limiter==4.5.1", "sortedcontainers==2.4.0"),
    *("requests==2.34.2", "urllib3==2.8.0", "certifi==2026.10.18", "charset-normalizer==3.5.3", "idna==3.20"),
    *("anyio==4.16.0", "click==8.5.1", "rich==15.0.0", "markdown-it-py==4.3.0", "mdurl==0.1.2", "Pygments==2.21.0"),
    *("pytest==9.2.0", "pluggy==1.7.0", "iniconfig==2.3.1", "packaging==26.4", "PyYAML==6.0.4"),
    *("Werkzeug==3.1.9", "MarkupSafe==3.0.4", "typing_extensions==4.16.0"),
)
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"),
    *("response_headers_conformance", "negative_data_rejection", "missing_required_header", "unsupported_method"),
    *("allow_header_conformance", "use_after_free", "ignored_auth"),
)
"""Not `positive_data_acceptance`: that a text is the name of a repository is not for a schema to say."""


@dataclass(frozen=True)
class Schemathesis:
    """The installed program."""

    program: Path

    def run(self, document: str, folder: Path, *, token: str | None, parameters: dict[str, str], seconds: int) -> str:
        """Ask the API whose document is at the URL `document` for some `seconds`, live streams left out; what it says.
        `parameters` of path and query are worth trying: operations would find nothing otherwise. AssertionError for
        what it finds."""
        config = folder / "schemathesis.toml"
        config.write_text("".join(_operation(name, parameters) for name in _OF_ONE))
        options = ["--exclude-operation-id=watch", "--exclude-operation-id=watch_all", f"--checks={','.join(CHECKS)}"]
        options += [f"--max-time={seconds}", "--max-examples=20", "--request-timeout=15", "--continue-on-failure"]
        options += ["--seed=1", "--generation-database=none", "--no-color"]
        secret = ["-H", f"Authorization: Bearer {token}"] if token else []
        command = [str(self.program), f"--config-file={config}", "run", document, *options, *secret]
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_PROXY": "127.0.0.1", "LANG": "C.UTF-8"}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
        assert done.returncode == 0, f"schemathesis: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


_OF_ONE = ("transfer", "change", "pause", "resume", "why", "pieces")


def _operation(name: str, parameters: dict[str, str]) -> str:
    values = ", ".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in parameters.items())
    return f'[[operations]]\ninclude-operation-id = "{name}"\nparameters = {{ {values} }}\n'


@pytest.fixture(scope="session")
def schemathesis() -> Schemathesis:
    """In `.venvs/schemathesis` of the clone; made once."""
    folder = ROOT / ".venvs" / "schemathesis"
    folder.parent.mkdir(exist_ok=True)
    with FileLock(f"{folder}.lock", timeout=200):
        stamp = folder / "installed.json"
        if not stamp.is_file() or json.loads(stamp.read_text()) != list(PINS):
            _install(folder, PINS)
            stamp.write_text(json.dumps(PINS))
    return Schemathesis(folder / "bin" / "st")


def _install(folder: Path, pins: Sequence[str]) -> None:
    venv.create(folder, with_pip=True, clear=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--no-deps", *pins], capture_output=True, text=True, timeout=180, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no message"
        message = f"schemathesis cannot be installed (is a package index reachable?): {last}"
        if STRICT:
            pytest.fail(message)
        pytest.skip(message)


__all__ = ["Schemathesis", "schemathesis"]
