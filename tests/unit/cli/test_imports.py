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


def test_collections_do_not_traverse_the_modules_of_a_verb() -> None:
    code = """
import gc, sys
from p2pmodel import cli
from p2pmodel.cli import verbs

def invoke(args):
    module = sys.modules["p2pmodel.cli.alias"]
    print(args, gc.isenabled(), any(each is module.__dict__ for each in gc.get_objects()))

verbs._invoke = invoke
sys.argv = ["p2pmodel", "alias"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "['alias'] True False\n"
