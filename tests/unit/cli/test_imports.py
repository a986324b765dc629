"""The imports of a verb at its start, and environments in which a library fails to import."""

import os
import subprocess
import sys
from pathlib import Path

SLOW_AND_SELDOM_NEEDED = ("huggingface_hub", "torch", "transformers")


def test_fetch_starts_without_rarely_needed_imports() -> None:
    code = f"import sys, p2pmodel.cli.fetch; print(*(set({SLOW_AND_SELDOM_NEEDED}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []


def test_a_malformed_hub_variable_is_a_usage_error(tmp_path: Path) -> None:
    env = os.environ | {"HF_HUB_DOWNLOAD_TIMEOUT": "ten", "HF_HUB_CACHE": str(tmp_path)}
    fetch = [sys.executable, "-m", "p2pmodel", "fetch", "org/model", "--endpoint", "http://127.0.0.1:9"]
    done = subprocess.run(fetch, env=env, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "an HF_* environment variable has a malformed value: invalid literal for int() with" in done.stderr
