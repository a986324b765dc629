"""The imports of a verb at its start."""

import subprocess
import sys

import pytest

SLOW_AND_SELDOM_NEEDED = ("huggingface_hub", "torch", "transformers")


@pytest.mark.parametrize("module", ["fetch.fetch", "serving.serve", "serving.chat"])
def test_verbs_start_without_rarely_needed_imports(module: str) -> None:
    code = f"import sys, p2pmodel.cli.{module}; print(*(set({SLOW_AND_SELDOM_NEEDED}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
