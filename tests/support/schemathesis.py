"""Run schemathesis, which tests an API with valid and invalid requests generated from its OpenAPI document."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.hub_clients import python_with

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

    def run(self, document: str, folder: Path, *filters: str, token: str | None, transfer: str, seconds: int) -> str:
        """Test the API with the document at the URL `document` for some `seconds`, without the operations and live
        streams in `filters`; returns the output. Operations on one transfer are tried on `transfer`. AssertionError on
        findings."""
        config = folder / "schemathesis.toml"
        config.write_text(f'[parameters]\n"path.id" = "{transfer}"\n')
        options = [*filters, "--exclude-operation-id=watch", "--exclude-operation-id=watch_all"]
        options += [
            f"--checks={','.join(CHECKS)}",
            f"--max-time={seconds}",
            "--max-examples=20",
            "--request-timeout=60",
            "--continue-on-failure",
        ]
        options += ["--seed=1", "--generation-database=none", "--no-color"]
        secret = ["-H", f"Authorization: Bearer {token}"] if token else []
        command = [str(self.program), f"--config-file={config}", "run", document, *options, *secret]
        env = {"PATH": os.environ["PATH"], "HOME": str(folder), "NO_PROXY": "127.0.0.1", "LANG": "C.UTF-8"}
        done = subprocess.run(
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=seconds + 60, check=False
        )
        assert done.returncode == 0, f"schemathesis: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="session")
def schemathesis() -> Schemathesis:
    """In a venv of its own."""
    return Schemathesis(python_with("schemathesis", "schemathesis", PINS).parent / "st")


__all__ = ["Schemathesis", "schemathesis"]
