"""What the plugin needs beside p2pmodel itself: torch and vLLM alone, so that it installs without dependencies."""

import subprocess
import sys

from tests.support.eventually import PATIENCE

CODE = """
import sys
import p2pmodel.inference.weight_stream.stream, p2pmodel.config.checks
named = {name.partition(".")[0] for name in sys.modules}
print(sorted(named & {"aiohttp", "cachetools", "click", "filelock", "libtorrent", "prometheus_client", "pydantic",
                      "pydantic_settings", "rich", "structlog", "transformers", "safetensors"}))
"""


def test_the_stream_needs_no_package_but_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=4 * PATIENCE, check=True
    )
    assert done.stdout == "[]\n"
