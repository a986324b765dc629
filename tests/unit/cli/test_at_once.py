"""Signals before a verb runs: no library that is imported, or that reads the settings, can catch them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PRELUDE = """
import asyncio, os, signal, sys
import click
from p2pmodel.cli import main, verbs

BY = signal.Signals[sys.argv[2]]

def interrupted_and_deaf():
    try:
        os.kill(os.getpid(), BY)
        sum(range(1000))  # the handler runs between two instructions
    except KeyboardInterrupt:
        print("caught", flush=True)
"""
IMPORTING = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "deaf":
            interrupted_and_deaf()

sys.meta_path.insert(0, Finder())
verbs._VERBS["deaf"] = ("deaf:deaf", "")
sys.argv[1] = "deaf"
main()
"""
READING = """
from p2pmodel.cli import options

def load_settings(**_given):
    interrupted_and_deaf()
    raise SystemExit("it went on")

options.load_settings = load_settings
sys.argv[1:] = ["ls"]
main()
"""
NOT_BEGUN = """
async def verb():
    pass

def callback():
    waiting = verb()
    os.kill(os.getpid(), BY)
    sum(range(1000))

class Module:
    verb = click.Command("verb", callback=callback, params=[click.Argument(["name"], expose_value=False)])

sys.modules["verb"] = Module
verbs._VERBS["verb"] = ("verb:verb", "")
sys.argv[1] = "verb"
main()
"""


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", [IMPORTING, READING, NOT_BEGUN], ids=["importing", "reading", "not begun"])
def test_a_signal_before_a_verb_runs_is_one_line(tmp_path: Path, script: str, by: signal.Signals) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, "verb", by.name],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "p2pmodel: interrupted\n")


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + IMPORTING
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + script, "verb", "SIGINT"],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "deaf" in done.stderr
