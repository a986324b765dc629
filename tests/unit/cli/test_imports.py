"""The imports of a verb at its start."""

import subprocess
import sys

SLOW_AND_SELDOM_NEEDED = ("huggingface_hub", "torch", "transformers")


def test_fetch_starts_without_rarely_needed_imports() -> None:
    code = f"import sys, p2pmodel.cli.fetch.fetch; print(*(set({SLOW_AND_SELDOM_NEEDED}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
