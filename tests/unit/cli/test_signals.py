"""Signals: the first stops a verb cleanly, a second at once; a verb that does not stop is ended after a bound."""

import os
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
from p2pmodel.config.sources import load_settings
from p2pmodel.errors import Unavailable
from p2pmodel.service.roles.reload import Reload

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

def reloads():
    def read():
        print("read again", flush=True)
        return settings
    settings = load_settings()
    return Reload(settings, read, lambda note: print(note, file=sys.stderr, flush=True))

signals.STOP_WITHIN = signals.THREADS_END_WITHIN = 600.0
"""
MAIN = """
def execute(_imported):
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
SERVES = "verb = lambda: signals.run_service({}(), interrupted='stopped; it resumes', reload=reloads())"
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
@pytest.mark.parametrize(
    ("verb", "bound"),
    [("stubborn", "STOP_WITHIN"), ("stuck_thread", "STOP_WITHIN"), ("stuck_thread", "THREADS_END_WITHIN")],
)
def test_a_verb_that_does_not_stop_is_ended_after_a_bound(
    code: str, verb: str, bound: str, end: tuple[int, str]
) -> None:
    """A thread alone has a shorter one, once the verb has cleaned up."""
    with started(code.format(verb) + f"\nsignals.{bound} = 0.4") as process:
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


def test_a_hangup_reloads_a_service() -> None:
    with started(SERVES.format("wait")) as process:
        assert process.stdout
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert process.stdout.readline() == "read again\n"
        process.send_signal(signal.SIGTERM)
        code, _, err = ended(process)
    assert code == 0
    assert "reloaded: settings" in err


def test_a_service_ends_with_its_terminal() -> None:
    ours, theirs = os.openpty()
    command = [sys.executable, "-c", PRELUDE + SERVES.format("wait") + MAIN]
    with subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout
            os.close(theirs)
            assert process.stdout.readline() == "ready\n"
            os.close(ours)
            process.send_signal(signal.SIGHUP)  # which the kernel sends to the processes of a lost terminal
            assert ended(process)[0] == 0
        finally:
            process.kill()
