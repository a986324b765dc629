"""Signals: the first stops a verb cleanly, a second at once; a verb that does not stop is ended after a bound."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.eventually import PATIENCE

PRELUDE = """
import asyncio, sys, time
from p2pmodel.cli import signals, verbs
from p2pmodel.errors import Unavailable

async def wait():
    print("ready", flush=True)
    await asyncio.sleep(600)

async def tidy():
    try:
        await wait()
    finally:
        print("tidied", flush=True)

async def stubborn():
    try:
        await wait()
    finally:
        time.sleep(0.1)
        print("stopping", flush=True)
        await asyncio.shield(asyncio.sleep(600))

async def stuck_thread():
    print("ready", flush=True)
    await asyncio.to_thread(time.sleep, 600)

async def failing():
    try:
        await wait()
    finally:
        raise Unavailable("the clean-up failed")

signals.STOP_WITHIN = 600.0
"""
MAIN = """
def execute():
    try:
        return "", (verb() or 0)
    except verbs.P2PModelError as error:
        return str(error), error.exit_code
verbs.execute = execute
import p2pmodel.cli
p2pmodel.cli.main()
"""


@contextmanager
def started(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that runs `verb` of `code` as its verb, after its ready line."""
    command = [sys.executable, "-c", PRELUDE + code + MAIN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


RUNS = "verb = lambda: signals.run_interruptible({}(), interrupted='stopped; it resumes')"
SERVES = "verb = lambda: signals.run_service({}(), interrupted='stopped; it resumes')"
INTERRUPTED = "p2pmodel: stopped; it resumes\n"


@pytest.mark.parametrize(
    ("code", "by", "end"),
    [
        (RUNS, signal.SIGINT, (130, "tidied\n", INTERRUPTED)),
        (RUNS, signal.SIGTERM, (130, "tidied\n", INTERRUPTED)),
        (SERVES, signal.SIGINT, (130, "tidied\n", INTERRUPTED)),
        (SERVES, signal.SIGTERM, (0, "tidied\n", "")),
    ],
)
def test_a_signal_lets_the_verb_clean_up(code: str, by: signal.Signals, end: tuple[int, str, str]) -> None:
    with started(code.format("tidy")) as process:
        process.send_signal(by)
        assert ended(process) == end


def test_a_clean_up_that_fails_is_still_an_interruption() -> None:
    with started(RUNS.format("failing")) as process:
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "", INTERRUPTED)


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_it_at_once(by: signal.Signals) -> None:
    with started(RUNS.format("stubborn")) as process:
        process.send_signal(by)
        assert process.stdout
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(by)
        assert ended(process) == (130, "", INTERRUPTED)


def test_a_second_signal_ends_the_wait_for_a_thread_too() -> None:
    with started(RUNS.format("stuck_thread")) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "", INTERRUPTED)


@pytest.mark.parametrize(("code", "end"), [(RUNS, (130, INTERRUPTED)), (SERVES, (0, ""))])
@pytest.mark.parametrize("verb", ["stubborn", "stuck_thread"])
def test_a_verb_that_does_not_stop_is_ended_after_a_bound(code: str, verb: str, end: tuple[int, str]) -> None:
    with started(code.format(verb) + "\nsignals.STOP_WITHIN = 0.4") as process:
        process.send_signal(signal.SIGTERM)
        status, _, err = ended(process)
        assert (status, err) == end


def test_sigterm_outside_a_coroutine_is_one_line_too() -> None:
    # Naps, not a sleep: a signal that comes just before one is noticed after it.
    code = "def verb():\n    print('ready', flush=True)\n    while True: time.sleep(0.1)\n"
    for by in (signal.SIGINT, signal.SIGTERM):
        with started(code) as process:
            process.send_signal(by)
            assert ended(process) == (130, "", "p2pmodel: interrupted\n")


def test_a_verb_that_ends_leaves_the_signals_as_they_were() -> None:
    code = """
import signal
def verb():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async def nothing():
        return 5
    assert signals.run_interruptible(nothing(), interrupted="") == 5
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    print("ready", flush=True)
"""
    with started(code) as process:
        assert ended(process) == (0, "", "")
