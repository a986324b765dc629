"""Fixtures every test may use, and the rules for slow tests and for those that drive a Debian program."""

import os
import shutil
import signal
import time
from collections.abc import Iterator

import hypothesis
import pytest

# One thread each: several test processes share the cores, and tiny models gain nothing from more.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# The duration of an example depends on the load of the machine.
hypothesis.settings.register_profile("without deadline", deadline=None)
hypothesis.settings.load_profile("without deadline")

# A job in the background of a script ignores SIGINT, and so would the processes that tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

STRICT = os.environ.get("P2PMODEL_TEST_STRICT") == "1"
UNTIL = float(os.environ.get("P2PMODEL_TEST_UNTIL") or "inf")
"""Seconds since the epoch after which no slow test begins."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("slow") and time.time() > UNTIL:
        pytest.skip("the time for slow tests is over (P2PMODEL_TEST_UNTIL)")
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if shutil.which(program) is None:
                message = f"needs the program {program} (apt-get install it)"
                if STRICT:
                    pytest.fail(message)
                pytest.skip(message)


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    """`p2pmodel.cli.main` ends the process and its signal handling; a test that calls it restores both."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


pytest_plugins = ["tests.support.command_line", "tests.support.processes", "tests.support.ssh_hosts"]
